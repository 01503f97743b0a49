"""What `bentley doctor` finds: one thing looked at, how it is, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "embedded", "warning", "problem"]

TOOLS = ("exchange", "warehouse", "airbyte", "knime", "airflow", "mlflow")
"""The areas in which something real can be plugged in where something embedded stands."""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    `embedded` is ok too: the stand-in works, and nothing real is configured in its place.
    A `remedy` is there where something should be done; no text holds a secret.
    """

    area: str
    name: str
    state: State
    detail: str
    remedy: str = ""


def healthy(findings: Iterable[Finding]) -> bool:
    """Whether nothing is a problem; a warning is none."""
    return all(finding.state != "problem" for finding in findings)


def tools(findings: Iterable[Finding]) -> dict[str, list[str]]:
    """Say by tool what is `real`, what is `embedded`, and what is `unusable` as it is set."""
    states: dict[str, set[State]] = {}
    for finding in findings:
        if finding.area in TOOLS:
            states.setdefault(finding.area, set()).add(finding.state)
    sides: dict[str, list[str]] = {"real": [], "embedded": [], "unusable": []}
    for area, seen in states.items():
        embedded, unusable = "embedded" in seen, not seen & {"ok", "embedded"}
        sides["embedded" if embedded else "unusable" if unusable else "real"].append(area)
    return sides
