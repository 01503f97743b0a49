"""`bentley doctor`: looks at everything that a run needs, and changes none of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Group
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from bentley.services import doctor_data, doctor_machine, doctor_tools, homes
from bentley.services.findings import Finding, healthy, tools
from bentley.services.run import running_settings
from bentley.settings import Settings

__all__ = ["Finding", "examine", "healthy", "table", "to_dict"]

_STYLES = {"ok": "green", "embedded": "cyan", "warning": "yellow", "problem": "red"}
_STATE_WIDTH = 8
_NAME_WIDTH = 15


def examine(settings: Settings) -> list[Finding]:
    """Look at the machine, the settings, the databases and the tools; nothing is altered.

    What can't be reached is a finding, never an error. A run that holds this home is looked at
    as it is: its exchange, its ports.
    """
    holder = homes.holder(settings.home)
    live = running_settings(settings)
    found = [
        *doctor_machine.python(),
        *doctor_machine.settings(settings),
        *doctor_machine.home(settings, holder),
        *doctor_machine.ports(settings, holder),
    ]
    now, exchanges = doctor_tools.exchanges(settings, live)
    return [
        *found,
        *exchanges,
        *doctor_data.warehouses(settings, now=now),
        *doctor_tools.airbyte(settings),
        *doctor_tools.knime(settings),
        *doctor_tools.stocks(settings),
        *doctor_data.airflow_databases(settings),
        *doctor_tools.mlflow(settings),
        *doctor_data.mlflow_database(settings),
    ]


def to_dict(findings: Sequence[Finding]) -> dict[str, Any]:
    """Make plain values for JSON."""
    states = Counter(finding.state for finding in findings)
    return {
        "healthy": healthy(findings),
        "problems": states["problem"],
        "warnings": states["warning"],
        **tools(findings),
        "findings": [asdict(finding) for finding in findings],
    }


def table(findings: Sequence[Finding]) -> Group:
    """Lay the findings out for a terminal of 80 columns or more, area by area."""
    areas = dict.fromkeys(finding.area for finding in findings)
    parts: list[Text | Padding] = []
    for area in areas:
        parts.append(Text(area, "bold"))
        rows = _rows(finding for finding in findings if finding.area == area)
        parts.append(Padding(rows, (0, 0, 0, 2)))
    return Group(*parts, Text(), *_ending(findings))


def _rows(findings: Iterable[Finding]) -> Table:
    rows = Table.grid(padding=(0, 2, 0, 0))
    rows.add_column(width=_STATE_WIDTH)
    rows.add_column(width=_NAME_WIDTH, overflow="fold")
    rows.add_column(overflow="fold")
    for finding in findings:
        said = Text(finding.detail)
        if finding.remedy:
            said.append(f"\n-> {finding.remedy}", _STYLES[finding.state])
        rows.add_row(Text(finding.state, _STYLES[finding.state]), Text(finding.name), said)
    return rows


def _ending(findings: Sequence[Finding]) -> list[Text]:
    states = Counter(finding.state for finding in findings)
    sides = [f"{side}: {', '.join(names)}" for side, names in tools(findings).items() if names]
    counts = [
        f"{states[state]} {state}{'s' * (states[state] != 1)}"
        for state in ("problem", "warning")
        if states[state]
    ]
    style = _STYLES["ok"] if healthy(findings) else _STYLES["problem"]
    return [*map(Text, sides), Text(", ".join(counts) or "no problem found", style)]
