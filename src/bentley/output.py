"""Standard output under --json: one document, the result's or an error's, and nothing else."""

from __future__ import annotations

import json
import sys
from typing import Any

_written: list[bool] = []


def document(found: dict[str, Any]) -> None:
    """Write the command's one document."""
    sys.stdout.write(json.dumps(found, default=str) + "\n")
    sys.stdout.flush()
    _written.append(True)


def failure(message: str, kind: str) -> None:
    """Write an error as the document, unless the result is out already: `run` goes on after it."""
    if not _written:
        document({"error": message, "kind": kind})
