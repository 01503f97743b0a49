"""What one MLflow run of ours holds, cut to MLflow's limits here so that nothing is cut silently."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from bentley.domain.addresses import without_password as without_password  # noqa: PLC0414 for the stages
from bentley.domain.errors import FatalError

CLAIM_TAG = "bentley.claim"
SKIPPED_TAG = "bentley.metrics_not_finite"
NOTE_TAG = "mlflow.note.content"
NOTE_FILE = "note.md"
MAX_TAG = 8000
MAX_PARAM = 6000
MAX_DIGEST = 36
MAX_CLAIM = 250
_CLAIM = re.compile(r"[\w.:/@+=,-]+( [\w.:/@+=,-]+)*", re.ASCII)
_PATH_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")

Content = bytes | str
Artifact = Content | Callable[[], Content]
"""A file's content, or what makes it: called only when the file is really to be written."""


@dataclass(frozen=True)
class DatasetRecord:
    """The data that a run was made from.

    `schema` maps columns to type names, `profile` holds figures like `num_rows`, and `context`
    says what it was used for. A password in `source` is left out.
    """

    name: str
    source: str
    digest: str
    schema: Mapping[str, str] = field(default_factory=dict)
    profile: Mapping[str, int | float | str] = field(default_factory=dict)
    context: str = "pipeline"


@dataclass(frozen=True)
class RunRecord:
    """All that one run is to hold; times in UTC milliseconds.

    `claim` is unique text (letters, digits, `. : / @ + = , _ -` and single blanks): there is one
    finished MLflow run per claim. `note` is Markdown. `artifacts` maps paths like
    `pictures/BTCUSDT-1h.png` to contents.
    """

    experiment: str
    name: str
    claim: str
    started_ms: int
    ended_ms: int
    params: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    note: str = ""
    dataset: DatasetRecord | None = None
    artifacts: Mapping[str, Artifact] = field(default_factory=dict)

    def check(self) -> None:
        """Raise FatalError where MLflow could not hold this record as it is."""
        if not _CLAIM.fullmatch(self.claim) or len(self.claim) > MAX_CLAIM:
            msg = (
                f"{self.claim!r} can't be a run's claim; use up to {MAX_CLAIM} letters, digits "
                "and . : / @ + = , _ -"
            )
            raise FatalError(msg)
        if self.ended_ms < self.started_ms:
            msg = f"run {self.name!r} ends ({self.ended_ms}) before it starts ({self.started_ms})"
            raise FatalError(msg)
        for path in self.artifacts:
            if not all(_PATH_PART.fullmatch(part) for part in path.split("/")):
                msg = (
                    f"{path!r} can't be an artifact's path; write it like pictures/BTCUSDT-1h.png "
                    "with letters, digits and . _ -"
                )
                raise FatalError(msg)

    def finite_metrics(self) -> dict[str, float]:
        """Return the metrics that are numbers; a store can't hold the others unchanged."""
        return {key: float(value) for key, value in self.metrics.items() if math.isfinite(value)}

    def all_tags(self) -> dict[str, str]:
        """Return the tags with the note and the list of metrics left out, within MLflow's limits."""
        tags = {key: clip(value, MAX_TAG) for key, value in self.tags.items()}
        left_out = [
            f"{key}={value}" for key, value in self.metrics.items() if not math.isfinite(value)
        ]
        if left_out:
            tags[SKIPPED_TAG] = clip(", ".join(left_out), MAX_TAG)
        if self.note:
            tags[NOTE_TAG] = clip(
                self.note, MAX_TAG, f"\n\n(cut; the whole note is in {NOTE_FILE})"
            )
        return tags

    def all_params(self) -> dict[str, str]:
        """Return the parameters within MLflow's limits."""
        return {key: clip(value, MAX_PARAM) for key, value in self.params.items()}

    def all_artifacts(self) -> dict[str, Artifact]:
        """Return the artifacts, and the note where it is too long for its tag."""
        if len(self.note) <= MAX_TAG:
            return dict(self.artifacts)
        return {NOTE_FILE: self.note, **self.artifacts}


def clip(text: str, limit: int, mark: str | None = None) -> str:
    """Cut text to `limit` characters and say so at its end; shorter text stays as it is."""
    if len(text) <= limit:
        return text
    mark = f" ... (cut from {len(text)} characters)" if mark is None else mark
    return text[: limit - len(mark)] + mark


def dataset_fields(dataset: DatasetRecord) -> dict[str, str]:
    """Return the fields of MLflow's Dataset entity; a digest too long for it moves to the profile."""
    profile = dict(dataset.profile)
    if len(dataset.digest) > MAX_DIGEST:
        profile["full_digest"] = dataset.digest
    columns = [{"name": name, "type": kind} for name, kind in dataset.schema.items()]
    return {
        "name": dataset.name,
        "digest": dataset.digest[:MAX_DIGEST],
        "source_type": "sql",
        "source": json.dumps({"uri": without_password(dataset.source)}),
        "schema": json.dumps({"mlflow_colspec": columns}),
        "profile": json.dumps(profile),
    }
