"""The commands that tell what is stored, and whether it is what it should be."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Parameter
from cyclopts.validators import Number

from bentley.cli_options import ALL, AsJson, Intervals, Selection, Symbols
from bentley.domain.errors import EXIT_FAILURE, EXIT_OK
from bentley.settings import Settings, load

if TYPE_CHECKING:
    from bentley.console import Screen

app = App(name="data", help="What is stored: its coverage, and whether it is what it should be.")


@app.command
def status(*, selection: Selection = ALL, json: AsJson = False) -> int:
    """Show what is stored of every series, or of those selected, and draw it by day."""
    from bentley.console import Screen  # noqa: PLC0415
    from bentley.stages import data_status as stage  # noqa: PLC0415

    screen = Screen(as_json=json)
    settings = selection.settings()
    found = stage.status(settings, every=not selection.given)

    def show() -> None:
        screen.data_status(found)
        _point_to_replays(screen, settings)

    screen.result(found.to_dict(), show)
    return EXIT_OK


def _point_to_replays(screen: Screen, settings: Settings) -> None:
    if not settings.replayed and (settings.home / "replay").exists():
        screen.say("Replayed and generated bars lie apart: `bentley doctor` tells where.")


@app.command
def verify(*, selection: Selection = ALL, seed: int | None = None, json: AsJson = False) -> int:
    """Recompute checksums, derive the gaps anew, and compare a sample with the exchange.

    Parameters
    ----------
    seed
        Compare the same bars as another time with this number; others each time by default.
    """
    from bentley.console import Screen  # noqa: PLC0415
    from bentley.stages import data_audit  # noqa: PLC0415

    screen = Screen(as_json=json)
    found = data_audit.audit(selection.settings(), every=not selection.given, seed=seed)
    screen.result(found.to_dict(), lambda: screen.checks(found.checks))
    return EXIT_OK if found.held else EXIT_FAILURE


@app.command
def rejected(
    *,
    symbols: Symbols = None,
    interval: Intervals = None,
    batch: Annotated[int | None, Parameter(validator=Number(gte=1, lt=2**63))] = None,
    limit: Annotated[int, Parameter(validator=Number(gte=1, lte=10_000))] = 20,
    json: AsJson = False,
) -> int:
    """List the rows that were refused, newest first: why, and with --json what they held.

    Parameters
    ----------
    batch
        Only those that this batch was the first to find.
    limit
        So many at most.
    """
    from bentley.console import Screen  # noqa: PLC0415
    from bentley.stages import rejects as stage  # noqa: PLC0415

    screen = Screen(as_json=json)
    settings = load()
    found = stage.rejects(
        settings,
        limit=limit,
        symbols=[symbol.upper() for symbol in symbols or ()],
        intervals=interval or (),
        batch_id=batch,
    )

    def show() -> None:
        screen.rejects(found)
        _point_to_replays(screen, settings)

    screen.result(found.to_dict(), show)
    return EXIT_OK
