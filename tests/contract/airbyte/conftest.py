from __future__ import annotations

import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from bentley.airbyte.runner import Source
from contract.airbyte.airbyte_server import AirbyteStandIn

PRELUDE = """
import json, os, signal, subprocess, sys, time
from pathlib import Path

def say(**message):
    sys.stdout.write(json.dumps(message) + "\\n")
    sys.stdout.flush()

def record(stream="rows", **data):
    say(type="RECORD", record={"stream": stream, "data": data, "emitted_at": 1})

def state(value, stream="rows"):
    say(type="STATE", state={
        "type": "STREAM",
        "stream": {"stream_descriptor": {"name": stream}, "stream_state": {"at": value}},
    })

def status(status, stream="rows"):
    say(type="TRACE", trace={"type": "STREAM_STATUS", "emitted_at": 1, "stream_status": {
        "stream_descriptor": {"name": stream}, "status": status}})

def error(message, kind=None, stream="rows", internal=None):
    say(type="TRACE", trace={"type": "ERROR", "emitted_at": 1, "error": {
        "message": message, "failure_type": kind, "internal_message": internal,
        "stream_descriptor": {"name": stream}}})

def log(message, level="INFO"):
    say(type="LOG", log={"level": level, "message": message})

def argument(name):
    return sys.argv[sys.argv.index("--" + name) + 1]

def content(name):
    return json.loads(Path(argument(name)).read_text())
"""


@pytest.fixture
def fake(tmp_path: Path) -> Callable[[str], Source]:
    """A source whose every command runs the given Python."""

    def make(body: str) -> Source:
        script = tmp_path / "source.py"
        script.write_text(PRELUDE + textwrap.dedent(body))
        return Source((sys.executable, str(script)))

    return make


@pytest.fixture
def airbyte():
    with AirbyteStandIn() as server:
        yield server
