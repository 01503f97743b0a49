"""The command line: each command reads the settings once and calls one function."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Annotated, Any, NoReturn

import structlog
from cyclopts import App, CycloptsError, Parameter

from bentley import __version__, cli_data, cli_knime, cli_stocks, output
from bentley.cli_options import ALL, AsJson, Selection
from bentley.domain.clock import parse_time
from bentley.domain.errors import (
    EXIT_FAILURE,
    EXIT_OK,
    EXIT_USAGE,
    BentleyError,
    ConfigurationError,
)
from bentley.settings import Settings, load

app = App(
    name="bentley",
    version=__version__,
    help="A market-data and trading pipeline that is real at every stage.",
    suppress_keyboard_interrupt=False,  # `main` tells Ctrl-C from SIGTERM
)
app.command(cli_knime.app)
app.command(cli_data.app)
app.command(cli_stocks.app)


@app.command
def run(
    *,
    once: Annotated[bool, Parameter(negative="")] = False,
    replay: Path | None = None,
    selection: Selection = ALL,
    json: AsJson = False,
) -> int:
    """Start everything, run the chain once, show it, and stay up until Ctrl-C.

    Parameters
    ----------
    once
        End after the first run; exit 0 only when every check of the master held.
    replay
        A folder of recorded klines to replay instead of the live exchange.
    """
    from bentley.console import Screen  # noqa: PLC0415
    from bentley.services.market_choice import chosen  # noqa: PLC0415
    from bentley.services.run import services  # noqa: PLC0415
    from bentley.services.run_summary import Summary  # noqa: PLC0415
    from bentley.services.signals import Stopped, terminating_signals  # noqa: PLC0415

    screen = Screen(as_json=json)
    settings = selection.settings()
    with terminating_signals() as signals:
        try:
            if replay is None:
                screen.say("looking for the exchange")
            with chosen(settings, replay) as choice:
                screen.say(choice.notice)
                with services(
                    choice.settings, say=screen.say, hurried=lambda: signals.hurried
                ) as up:
                    run_id = up.start_chain()
                    screen.follow(up.follow(run_id))
                    summary = Summary.of(up, run_id)
                    screen.result(summary.to_dict(), lambda: screen.summary(summary))
                    if once:
                        return EXIT_OK if summary.held else EXIT_FAILURE
                    screen.say("Ctrl-C ends it all.")
                    while True:
                        up.group.check()
                        time.sleep(1)
        except Stopped as stopped:
            screen.say("stopped; every process is ended")
            if json:
                output.failure(f"stopped by {stopped}", "Stopped")
            return stopped.exit_code if once else EXIT_OK


@app.command
def sync(
    *,
    selection: Selection = ALL,
    again: Annotated[bool, Parameter(negative="")] = False,
    json: AsJson = False,
) -> int:
    """Bring new and corrected bars from the exchange into the warehouse.

    Parameters
    ----------
    again
        Read everything from --since on once more, for corrections older than a few bars.
    """
    from bentley.services.signals import terminating_signals  # noqa: PLC0415
    from bentley.stages import ingest  # noqa: PLC0415

    settings = selection.settings()
    if again and settings.since is None:
        msg = "--again needs --since: from where on shall everything be read once more?"
        raise ConfigurationError(msg)
    # The connector ends with us; a job of an Airbyte server must be cancelled.
    with terminating_signals() if settings.synced_by_server else nullcontext():
        return _stage(settings, partial(ingest.sync, again=again), as_json=json)


@app.command
def backfill(
    *,
    selection: Selection = ALL,
    archive: str | None = None,
    gaps: Annotated[bool, Parameter(negative="")] = False,
    json: AsJson = False,
) -> int:
    """Load history in bulk from the exchange's monthly and daily archives.

    Without --since all that is published is loaded. What is stored already is passed over, so a
    run that was stopped goes on where it was. Exit 0: all was read. 1: some archive could not be;
    the others are loaded. 2: there is no archive at all, or an option is wrong.

    For example: bentley backfill --symbols BTCUSDT --interval 1m --since 2017-08-17

    Parameters
    ----------
    archive
        A folder or a site laid out as the exchange's own archive, like
        data/spot/monthly/klines/BTCUSDT/1m/BTCUSDT-1m-2024-01.zip with its .CHECKSUM beside it
        (BENTLEY_ARCHIVE; the public archive by default).
    gaps
        Read only the archives that may fill recorded gaps.
    """
    from bentley.console import Screen  # noqa: PLC0415
    from bentley.stages import backfill as stage  # noqa: PLC0415

    screen = Screen(as_json=json)
    settings = selection.settings(archive=archive)
    try:
        with screen.loading() as progress:
            report = stage.backfill(settings, repair=gaps, progress=progress)
    except KeyboardInterrupt:
        screen.say("Stopped: what was read so far is stored, and the next run goes on from there.")
        raise
    screen.result(report.to_dict(), lambda: screen.stage(report))
    return EXIT_FAILURE if report.failures else EXIT_OK


@app.command
def process(
    *,
    selection: Selection = ALL,
    json: AsJson = False,
) -> int:
    """Run the KNIME workflow over every new bar, and again over those that are selected."""
    from bentley.stages import process as stage  # noqa: PLC0415

    work = partial(stage.process, again=selection.given)
    return _stage(selection.settings(), work, as_json=json)


@app.command
def track(
    *,
    selection: Selection = ALL,
    json: AsJson = False,
) -> int:
    """Log every processed batch, or each that holds selected bars, that MLflow doesn't have."""
    from bentley.stages import track as stage  # noqa: PLC0415

    work = partial(stage.track, selected=selection.given)
    return _stage(selection.settings(), work, as_json=json)


def _stage(settings: Settings, work: Callable[..., Any], *, as_json: bool) -> int:
    from bentley.console import Screen  # noqa: PLC0415

    screen = Screen(as_json=as_json)
    report = work(settings)
    screen.result(report.to_dict(), lambda: screen.stage(report))
    return EXIT_OK


@app.command
def verify(
    *,
    selection: Selection = ALL,
    json: AsJson = False,
) -> int:
    """Check the chain's tables against each other, MLflow and the exchange's clock."""
    from bentley.console import Screen  # noqa: PLC0415
    from bentley.stages import verify as stage  # noqa: PLC0415

    screen = Screen(as_json=json)
    found = stage.verify(selection.settings(), selected=selection.given)
    screen.result(found.to_dict(), lambda: screen.verification(found))
    return EXIT_OK if found.held else EXIT_FAILURE


@app.command
def doctor(*, json: AsJson = False) -> int:
    """Check settings, ports, databases and versions; say what is embedded and what is real."""
    from bentley.console import Screen  # noqa: PLC0415
    from bentley.services import doctor as doctors  # noqa: PLC0415

    screen = Screen(as_json=json)
    found = doctors.examine(load())
    screen.result(doctors.to_dict(found), lambda: screen.console.print(doctors.table(found)))
    return EXIT_OK if doctors.healthy(found) else EXIT_FAILURE


@app.command(name="airflow", help_flags=[], version_flags=[])  # --help too is Airflow's
def airflow_command(
    *arguments: Annotated[str, Parameter(allow_leading_hyphen=True)],
) -> int:
    """Run an Airflow command in the environment of the services of this home."""
    import subprocess  # noqa: PLC0415

    from bentley.services import airflow, airflow_db  # noqa: PLC0415
    from bentley.services.run import environment, running_settings  # noqa: PLC0415

    env = environment(running_settings(load()))
    airflow_db.migrate(env)
    done = subprocess.run(airflow.command(*arguments), env=env, check=False)
    return done.returncode


@app.command(name="replay-exchange")
def replay_exchange(*, data: Path, port: int, now: str | None = None) -> int:
    """Serve recorded klines on loopback as Binance's REST API does.

    Parameters
    ----------
    data
        A folder of SYMBOL-INTERVAL.csv or .csv.zst.
    port
        The port on 127.0.0.1.
    now
        The exchange's clock; just after the last recorded bar by default.
    """
    from bentley.services.exchange.recorded import RecordedMarket  # noqa: PLC0415
    from bentley.services.exchange.server import serve  # noqa: PLC0415

    serve(
        RecordedMarket(data),
        port=port,
        now=None if now is None else parse_time(now),
        started=lambda url: print(f"serving {data} at {url}", flush=True),
    )
    return EXIT_OK


def main() -> None:
    """Run the command line; an error is one line on stderr and an exit code."""
    # Standard output is the result's alone: with --json it is one document.
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    try:
        code = app(exit_on_error=False, print_error=True, result_action="return_value")
    except CycloptsError as error:
        _end(str(error), "ConfigurationError", EXIT_USAGE, printed=True)
    except BentleyError as error:
        _end(str(error), _public_name(error), error.exit_code)
    except ModuleNotFoundError as error:
        said = f"the module {error.name!r} is missing: run `make clean setup`"
        _end(said, "ConfigurationError", EXIT_USAGE)
    except OSError as error:  # a full disk, a folder that may not be written
        _end(f"this machine refused: {error}", "FatalError", EXIT_FAILURE)
    except KeyboardInterrupt as stopped:
        sys.exit(getattr(stopped, "exit_code", 130))
    sys.exit(code if isinstance(code, int) else EXIT_OK)


def _public_name(error: BentleyError) -> str:
    """Name the kind of an error as the tree of errors does."""
    kinds = (kind.__name__ for kind in type(error).__mro__)
    return next(name for name in kinds if not name.startswith("_"))


def _end(said: str, kind: str, code: int, *, printed: bool = False) -> NoReturn:
    if not printed:
        print(f"bentley: {said}", file=sys.stderr)
    # what follows `airflow` is not ours to read
    if "--json" in sys.argv and sys.argv[1] != "airflow":
        output.failure(said, kind)
    sys.exit(code)
