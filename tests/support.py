"""What tests of every kind build with."""

from __future__ import annotations

import random
import socket

_BELOW_EPHEMERAL = range(15_000, 32_000)
"""Where no outgoing connection takes a port between the look and its use (Linux starts at 32768)."""


def free_port() -> int:
    """Find a port of loopback that nobody listens on."""
    for port in random.sample(_BELOW_EPHEMERAL, 100):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    msg = "100 ports in a row are taken"
    raise RuntimeError(msg)
