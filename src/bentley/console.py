"""What the commands print: readable at 80 columns, or one JSON document and nothing else."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.live import Live
from rich.padding import Padding
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.table import Table
from rich.text import Text

from bentley import output
from bentley.domain.clock import MS_DIGITS, iso
from bentley.domain.words import counted

if TYPE_CHECKING:  # a command loads what it shows of its own stage, and of no other
    from bentley.knime.engine import Lack, RunResult
    from bentley.services.run import Progress
    from bentley.services.run_summary import Summary
    from bentley.stages.backfill import Progress as Loaded
    from bentley.stages.data_status import Status
    from bentley.stages.follow import StageState
    from bentley.stages.rejects import Rejects
    from bentley.stages.report import StageReport
    from bentley.stages.stock_run import Outcome
    from bentley.stages.table_checks import Check
    from bentley.stages.verify import Verification

_SECONDS_BETWEEN_LINES = 5.0
_LONGEST_SHOWN = 400
_MARKS = {True: ("held", "green"), False: ("FAILED", "red"), None: ("unknown", "yellow")}
_STYLES = {"done": "green", "running": "cyan", "failed": "red", "waiting": "dim"}


class Screen:
    """Where a command speaks: people read it, or with `as_json` a program does.

    With `as_json`, standard output is kept for the one document; the rest goes to stderr.
    """

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json
        self.console = Console(stderr=as_json, highlight=False)

    def say(self, text: str) -> None:
        """Print a line for people."""
        self.console.print(text, markup=False, soft_wrap=True)

    def result(self, document: dict[str, Any], show: Callable[[], None]) -> None:
        """Print the result in the form that was asked for."""
        if self.as_json:
            output.document(document)
        else:
            show()

    def follow(self, progress: Iterable[Progress]) -> Progress | None:
        """Show a chain's progress live, or on a plain stream a line whenever it changes."""
        last = None
        if not self.console.is_terminal:
            shown = None
            for last in progress:
                line = _line(last)
                if line != shown:
                    self.say(f"{last.seconds:6.1f} s  {line}")
                    shown = line
            return last
        with Live(console=self.console, refresh_per_second=8) as live:
            for last in progress:
                live.update(_chain_table(last))
        return last

    @contextmanager
    def loading(self) -> Iterator[Callable[[Loaded], None]]:
        """Show a backfill's progress: a bar, or on a plain stream a line every few seconds."""
        if not self.console.is_terminal:
            shown = -_SECONDS_BETWEEN_LINES

            def line(done: Loaded) -> None:
                nonlocal shown
                now = time.monotonic()
                if now - shown >= _SECONDS_BETWEEN_LINES or done.archives == done.of:
                    self.say(f"{done.archives} of {done.of} archives, {done.rows} rows: {done.at}")
                    shown = now

            yield line
            return
        columns = (
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("archives"),
            TextColumn("{task.fields[rows]:,} rows"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[at]}"),
        )
        with Bar(*columns, console=self.console) as shown_bar:
            task = shown_bar.add_task("", total=None, rows=0, at="looking for archives")

            def move(done: Loaded) -> None:
                shown_bar.update(
                    task, completed=done.archives, total=done.of, rows=done.rows, at=done.at
                )

            yield move

    @contextmanager
    def at_work(self) -> Iterator[Callable[[str], None]]:
        """Show what is at work, where a person watches."""
        with self.console.status("starting") as status:
            yield status.update

    def outcomes(self, outcomes: Iterable[Outcome]) -> None:
        """Show what each source of stocks gave."""
        table = _table("source", "", "")
        for one in outcomes:
            table.add_row(one.source, one.state, one.said)
            for failure in one.failures:
                table.add_row("", "", failure)
        self.console.print(table, markup=False)

    def stage(self, report: StageReport) -> None:
        """Show what a stage did."""
        failed = f", but {counted(len(report.failures), 'failure')}" if report.failures else ""
        head = f"{report.stage} ({report.engine}, origin {report.origin}): {report.status}"
        self.say(head + failed)
        if report.batch_id is not None:
            made = report.details.get("batches", [report.batch_id])
            name = "batch" if len(made) == 1 else "batches"
            self.say(f"  {name} {', '.join(map(str, made))}: {report.summary}")
        if "archives" in report.details:
            count, known = report.details["archives"], report.details["known"]
            self.say(f"  archives: {count}" + (f", {known} with nothing to add" if known else ""))
            self.say(f"  written by {report.details['written_by']}")
        if report.series:
            table = _table("symbol", "interval", "bars", "first", "last", "gaps")
            for one in report.series:
                gaps = _gaps(one["gaps"], one["missing_bars"]) if one["rows"] else "-"
                table.add_row(
                    one["symbol"],
                    one["interval"],
                    str(one["rows"]),
                    _short(one.get("first")),
                    _short(one.get("last")),
                    gaps,
                )
            self.console.print(table)
        for failure in report.failures:
            self.say(f"  failed: {failure['message']}")
        for reject in report.rejects:
            self.say(f"  rejected: {_named(**reject)}")
        if report.rows_rejected:
            self.say("  `bentley data rejected` lists what was ever rejected")
        for run in report.details.get("runs", ()):
            self.say(f"  {run['url']}")

    def workflow(self, done: RunResult) -> None:
        """Show what each node of a workflow gave, and the first rows of what is left over."""
        table = _table("node", "rows", "time")
        for node in done.nodes:
            table.add_row(
                f"{node.node_name} (#{node.node_id})", str(node.rows), f"{node.seconds:.2f} s"
            )
        self.console.print(table)
        for name, frame in done.outputs.items():
            self.say(f"{name}: {frame.height} rows")
            self.say(str(frame.head()))

    def lacks(self, file: Path, lacks: Sequence[Lack]) -> None:
        """Show whether the embedded engine can run a workflow, and what it lacks if not."""
        if not lacks:
            self.say(f"{file}: every node and setting is supported")
            return
        self.say(f"{file} can't be run; {len(lacks)} things are not supported:")
        for lack in lacks:
            self.say(f"  {lack}")

    def verification(self, found: Verification) -> None:
        """Show every check and what was seen."""
        self.checks(found.checks)
        self.coverage(found)

    def checks(self, checks: Iterable[Check]) -> None:
        """Show whether each check held, and what was seen."""
        table = Table.grid(padding=(0, 2, 0, 0))
        table.add_column()
        table.add_column(overflow="fold")
        for check in checks:
            table.add_row(Text(*_MARKS[check.held]), Text(f"{check.name}: {check.detail}"))
        self.console.print(table)

    def rejects(self, found: Rejects) -> None:
        """List rows that were refused."""
        for one in found.rows:
            key = _named(one.symbol, one.interval, one.open_time)
            good = "; a good row is there" if one.stands is False else ""
            self.console.print(Text(f"{key} ({one.stage}, batch {one.batch_id}{good})"))
            reason = Text(_printable(one.reason[:_LONGEST_SHOWN]), overflow="fold")
            self.console.print(Padding(reason, (0, 0, 0, 2)))
        shown = f", the newest {len(found.rows)} above" if found.count > len(found.rows) else ""
        self.say(f"{counted(found.count, 'rejected row')}{shown} (origin {found.origin})")

    def data_status(self, found: Status) -> None:
        """Show the series stored, and where they are drawn."""
        if not found.series and not found.stocks:
            self.say(f"nothing is stored (origin {found.origin})")
            return
        if found.series:
            self._series(found)
        if found.stocks:
            self._stocks(found)
        self.say(f"by day: {found.picture} (origin {found.origin})")

    def _series(self, found: Status) -> None:
        table = _table("series", "bars", "first", "last", "gaps", "age")
        by_source: dict[str, list[str]] = {}
        for one in found.series:
            age = one["freshness_hours"] if one["rows"] else None
            series = f"{one['symbol']} {one['interval']}"
            by_source.setdefault(", ".join(one["sources"]) or "nowhere", []).append(series)
            table.add_row(
                series,
                str(one["rows"]),
                _short(one.get("first")),
                _short(one.get("last")),
                str(one.get("gaps", "-")),
                "-" if age is None else f"{age:.1f} h",
            )
        self.console.print(table)
        for sources, names in by_source.items():
            self.console.print(f"from {sources}: {', '.join(names)}", markup=False)
        if found.exchange_time is None:
            self.say("the exchange can't be reached: the age of the bars is unknown")

    def _stocks(self, found: Status) -> None:
        table = _table("ticker", "rows", "first", "last", "missing", "behind", "sources", "flags")
        for one in found.stocks:
            table.add_row(
                one["ticker"],
                str(one["rows"]),
                one["first"],
                one["last"],
                str(one["missing"]),
                str(one["behind"]),
                ", ".join(one["sources"]),
                ", ".join(f"{name} {count}" for name, count in one["flags"].items()),
            )
        self.console.print(table)

    def coverage(self, found: Verification) -> None:
        """Show the series stored."""
        table = _table("symbol", "interval", "bars", "first", "last", "gaps")
        for one in found.series:
            table.add_row(
                one.symbol,
                one.interval,
                str(one.rows),
                _short(iso(one.first_open)),
                _short(iso(one.last_open)),
                _gaps(one.gaps, one.missing_bars),
            )
        self.console.print(table)

    def summary(self, summary: Summary) -> None:
        """Show how a run ended."""
        found = summary.verification
        self.say("")
        if found is not None:
            self.verification(found)
            for run in found.mlflow:
                metrics = run["metrics"]
                self.say(
                    f"MLflow run of batch {run['batch_id']}: {metrics['rows_written']:.0f} bars "
                    f"written, {metrics['rows_rejected']:.0f} rejected, quality "
                    f"{metrics['quality_score']:.4f}"
                )
                self.say(f"  {run['url']}")
        if summary.failure is not None:
            self.say(summary.failure)
        verdict = "every check held" if summary.held else "the run FAILED"
        self.say(f"{verdict} (origin: {summary.origin})")
        if "report" in summary.master:
            self.say(f"  report     {summary.master['report']}")
        self.say(f"  Airflow    {summary.addresses['airflow']}  (admin / admin)")
        self.say(f"  MLflow     {summary.addresses['mlflow']}")
        self.say(f"  warehouse  {summary.addresses['warehouse']}")


def _gaps(count: int, missing: int) -> str:
    return f"{count} ({counted(missing, 'bar')})"


def _named(
    symbol: str | None, interval: str | None, open_time: str | None, reason: str | None = None
) -> str:
    """Name a row by its key, whose cells may be of any kind, and say what is wrong with it."""
    if open_time is not None and re.fullmatch(f"[0-9]{{{MS_DIGITS}}}", open_time):
        open_time = _short(iso(int(open_time)))
    key = " ".join(cell for cell in (symbol, interval, open_time) if cell is not None)
    return _printable(f"{key or 'a row without a key'}" + (f": {reason}" if reason else ""))


def _printable(cell: str) -> str:
    """A cell may hold anything, and what steers a terminal, too."""
    return "".join(one if one.isprintable() else "\ufffd" for one in cell)


def _short(time: str | None) -> str:
    return "-" if time is None else time.removesuffix(":00Z").replace("T", " ")


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, justify="right" if column in {"bars", "gaps", "rows"} else "left")
    return table


def _line(progress: Progress) -> str:
    parts = [f"{stage.stage} {stage.state}" + _counts(stage) for stage in progress.chain.stages]
    return ", ".join([*parts, f"master {progress.master.state}"])


def _counts(stage: StageState) -> str:
    return f" ({stage.rows_written} rows)" if stage.rows_written else ""


def _chain_table(progress: Progress) -> Table:
    table = _table("stage", "state", "read", "written", "rejected", "time")
    for stage in progress.chain.stages:
        table.add_row(
            stage.dag_id,
            Text(stage.state, _STYLES.get(stage.state, "")),
            str(stage.rows_read),
            str(stage.rows_written),
            str(stage.rows_rejected),
            f"{stage.seconds:.1f} s" if stage.batches else "",
        )
    state = progress.master.state
    table.add_row("bentley_master_orchestration", state, "", "", "", f"{progress.seconds:.0f} s")
    return table
