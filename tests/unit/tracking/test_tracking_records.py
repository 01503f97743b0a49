import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bentley.domain.errors import FatalError
from bentley.tracking.records import (
    MAX_PARAM,
    MAX_TAG,
    NOTE_FILE,
    NOTE_TAG,
    SKIPPED_TAG,
    DatasetRecord,
    RunRecord,
    clip,
    dataset_fields,
    without_password,
)


def record(**changes):
    fields = {"experiment": "e", "name": "n", "claim": "c", "started_ms": 1, "ended_ms": 2}
    return RunRecord(**{**fields, **changes})


@given(st.text(max_size=200), st.integers(60, 120))
def test_clipped_text_fits_and_says_its_length(text, limit):
    cut = clip(text, limit)
    assert len(cut) <= limit
    if len(text) <= limit:
        assert cut == text
    else:
        assert cut.endswith(f"(cut from {len(text)} characters)")
        assert text.startswith(cut.partition(" ... (cut from")[0])


@given(st.dictionaries(st.text(min_size=1, max_size=5), st.floats()))
def test_every_metric_is_logged_or_named(metrics):
    made = record(metrics=metrics)
    finite = made.finite_metrics()
    named = made.all_tags().get(SKIPPED_TAG, "")
    assert all(math.isfinite(value) for value in finite.values())
    for key, value in metrics.items():
        assert finite[key] == value if key in finite else f"{key}={value}" in named


def test_long_values_are_cut_to_mlflows_limits():
    made = record(params={"p": "x" * 7000}, tags={"t": "y" * 9000}, note="z" * 9000)
    assert len(made.all_params()["p"]) == MAX_PARAM
    assert len(made.all_tags()["t"]) == MAX_TAG
    assert len(made.all_tags()[NOTE_TAG]) == MAX_TAG
    assert made.all_artifacts()[NOTE_FILE] == "z" * 9000


def test_a_note_that_fits_needs_no_file():
    assert record(note="short", artifacts={"a": b""}).all_artifacts() == {"a": b""}


@pytest.mark.parametrize("claim", ["", "it's", 'a"b', "a\nb", " a", "é", "x" * 251, "a\\b", "`"])
def test_a_claim_that_a_search_could_misread_is_refused(claim):
    with pytest.raises(FatalError, match="can't be a run's claim"):
        record(claim=claim).check()


@pytest.mark.parametrize("claim", ["process:12", "a b", "manual__2026-01-01T00:00:00+00:00/x"])
def test_usual_claims_pass(claim):
    record(claim=claim).check()


@pytest.mark.parametrize("path", ["../x", "/etc/passwd", "a//b", "", "a/", "a b", ".hidden", "a#b"])
def test_an_artifact_path_that_leaves_its_folder_is_refused(path):
    with pytest.raises(FatalError, match="can't be an artifact's path"):
        record(artifacts={path: b""}).check()


def test_a_run_that_ends_before_it_starts_is_refused():
    with pytest.raises(FatalError, match="before it starts"):
        record(started_ms=3).check()


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("mysql://u:p%40ss@h:3307/db", "mysql://h:3307/db"),
        ("http://u@h/", "http://h/"),
        ("http://u:p@ss@h/x", "http://h/x"),
        ("sqlite:////var/x.db", "sqlite:////var/x.db"),
        ("mysql://mansa_bot/knime_processed", "mysql://mansa_bot/knime_processed"),
    ],
)
def test_no_account_stays_in_an_address(address, shown):
    assert without_password(address) == shown


def test_a_digest_longer_than_mlflow_takes_is_whole_in_the_profile():
    fields = dataset_fields(DatasetRecord("d", "s://x", "a" * 64, {"c": "long"}, {"num_rows": 1}))
    assert fields["digest"] == "a" * 36
    assert json.loads(fields["profile"]) == {"num_rows": 1, "full_digest": "a" * 64}
    short = dataset_fields(DatasetRecord("d", "s://x", "abc"))
    assert json.loads(short["profile"]) == {}
