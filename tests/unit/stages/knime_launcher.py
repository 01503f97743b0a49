"""Stands in for KNIME's launcher: reads its arguments by the published rules, then runs the nodes.

The arguments are split by the stand-in of tests/contract/knime_batch, which shares no code with
Bentley; the workflow itself is run by the embedded engine, from the private copy it was given.
"""

import json
import os
import sys
from pathlib import Path

import standin

from bentley.knime import engine, workflow

options = standin.parse(sys.argv[1:])
with Path(os.environ["LAUNCHER_SEEN"]).open("a") as seen:
    command_line = Path("/proc/self/cmdline")
    shown = command_line.read_text() if command_line.exists() else " ".join(sys.argv)
    seen.write(json.dumps({"argv": shown, "variables": options["variables"]}) + "\n")
behaviour = os.environ["LAUNCHER_DOES"]
if behaviour == "work":
    engine.run(workflow.load(Path(options["workflow"])), options["variables"])
sys.exit(4 if behaviour == "fail" else 0)
