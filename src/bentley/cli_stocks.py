"""The commands of stocks: pull their prices, decide the consensus, show what is stored."""

from __future__ import annotations

from typing import Annotated, Any

from cyclopts import App, Parameter

from bentley.cli_options import AsJson
from bentley.domain.errors import EXIT_FAILURE, EXIT_OK, EXIT_USAGE
from bentley.settings import load

app = App(name="stocks", help="Prices of stocks from many sources, and what they agree on.")

Tickers = Annotated[
    list[str] | None,
    Parameter(consume_multiple=True, negative="", help="Tickers, like AAPL SPY."),
]


@app.command
def pull(
    *,
    tickers: Tickers = None,
    source: Annotated[
        list[str] | None,
        Parameter(consume_multiple=True, negative="", help="Sources, like tiingo yahoo."),
    ] = None,
    since: str | None = None,
    until: str | None = None,
    again: Annotated[bool, Parameter(negative="")] = False,
    json: AsJson = False,
) -> int:
    """Bring what is new from every source that is configured, then decide the consensus.

    Parameters
    ----------
    since
        First session of the history to have, like 2015-01-01.
    until
        End of it, exclusive.
    again
        Read everything from --since on once more.
    """
    from bentley.console import Screen  # noqa: PLC0415
    from bentley.stages import stock_consensus, stock_pull, stock_run  # noqa: PLC0415

    screen = Screen(as_json=json)
    settings = load(tickers=tickers, since=since, until=until)
    with screen.at_work() as progress:
        outcomes = stock_run.run(
            settings,
            source or settings.sources,
            again=again,
            stale_before=stock_pull.clock(),  # who asks wants what is there now
            progress=progress,
        )
        decided = stock_consensus.decide(settings)
    document: dict[str, Any] = {
        "sources": [one.to_dict() for one in outcomes],
        "consensus": decided.to_dict(),
    }

    def show() -> None:
        screen.outcomes(outcomes)
        screen.stage(decided)

    screen.result(document, show)
    if all(one.state == stock_run.SKIPPED for one in outcomes):
        screen.say("No source can be asked: docs/stocks.md tells where to get a key, and its name.")
        return EXIT_USAGE
    failed = any(one.state == stock_run.FAILED or one.failures for one in outcomes)
    return EXIT_FAILURE if failed else EXIT_OK


@app.command
def consensus(
    *, again: Annotated[bool, Parameter(negative="")] = False, json: AsJson = False
) -> int:
    """Decide every session that new prices touched.

    Parameters
    ----------
    again
        Decide all that is stored: after BENTLEY_SOURCES or BENTLEY_CONSENSUS_BPS have changed.
    """
    from bentley.console import Screen  # noqa: PLC0415
    from bentley.stages import stock_consensus  # noqa: PLC0415

    screen = Screen(as_json=json)
    decided = stock_consensus.decide(load(), again=again)
    screen.result(decided.to_dict(), lambda: screen.stage(decided))
    return EXIT_OK
