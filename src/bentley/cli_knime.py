"""The commands of KNIME workflows: run one by the embedded engine, or list what that lacks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter

from bentley.cli_options import AsJson
from bentley.domain.errors import EXIT_FAILURE, EXIT_OK, ConfigurationError

app = App(name="knime", help="Run KNIME workflows without KNIME, or see what that would lack.")

_SHOWN_ROWS = 20


@app.command
def run(
    file: Path,
    *,
    variable: Annotated[
        list[str] | None,
        Parameter(
            consume_multiple=True, negative="", help="Workflow variables, written name=value."
        ),
    ] = None,
    json: AsJson = False,
) -> int:
    """Run a workflow (.knwf or its folder) by the embedded engine, without KNIME."""
    from bentley.console import Screen  # noqa: PLC0415
    from bentley.knime import engine, workflow  # noqa: PLC0415

    screen = Screen(as_json=json)
    loaded = workflow.load(file)
    done = engine.run(loaded, _variables(variable, loaded.variables))
    nodes = [asdict(node) for node in done.nodes]
    outputs = {name: frame.head(_SHOWN_ROWS).to_dicts() for name, frame in done.outputs.items()}
    screen.result({"nodes": nodes, "outputs": outputs}, lambda: screen.workflow(done))
    return EXIT_OK


@app.command
def check(file: Path, *, json: AsJson = False) -> int:
    """List all that the embedded engine lacks to run a workflow; exit 0 where it lacks nothing."""
    from bentley.console import Screen  # noqa: PLC0415
    from bentley.knime import engine, workflow  # noqa: PLC0415

    screen = Screen(as_json=json)
    lacks = engine.check(workflow.load(file))
    document = {"file": str(file), "runs": not lacks, "lacks": [asdict(lack) for lack in lacks]}
    screen.result(document, lambda: screen.lacks(file, lacks))
    return EXIT_FAILURE if lacks else EXIT_OK


def _variables(given: list[str] | None, known: Mapping[str, Any]) -> dict[str, Any]:
    """Read name=value pairs, each value as the type that the workflow's own variable has."""
    found: dict[str, Any] = {}
    for text in given or ():
        name, sign, value = text.partition("=")
        value_now = known.get(name)
        # a path or an array is given as a text, too
        kind = type(value_now) if isinstance(value_now, (int, float)) else str
        try:
            if not sign or not name:
                raise ValueError  # noqa: TRY301 - one message serves both
            found[name] = kind(value) if kind in {int, float} else value
        except ValueError:
            wanted = f" with {kind.__name__} as its value" if name in known else ""
            msg = f"--variable {text!r} is not written as name=value{wanted}"
            raise ConfigurationError(msg) from None
        if kind is bool:
            found[name] = value.lower() == "true"
    return found
