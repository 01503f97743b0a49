"""Says before anything starts which ports are taken, by whom, and what to change."""

from __future__ import annotations

import socket
import sys
from collections.abc import Mapping

import psutil

from bentley.domain.errors import ConfigurationError

LOOPBACK = "127.0.0.1"
SETTINGS = {"airflow": "BENTLEY_AIRFLOW_PORT", "mlflow": "BENTLEY_MLFLOW_PORT"}
_AIRPLAY_PORT = 5000
_ANSWER_SECONDS = 1.0


def is_free(port: int) -> bool:
    """Whether a server could listen on this port of loopback now, and be the one that is reached.

    SO_REUSEADDR lets a port pass whose last connections are still in TIME_WAIT, as it does for
    the servers themselves. On macOS it also lets one pass on which somebody listens at every
    address (AirPlay does): that one answers a connection.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as caller:
        caller.settimeout(_ANSWER_SECONDS)
        if caller.connect_ex((LOOPBACK, port)) == 0:
            return False
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
            probe.listen(1)
        except OSError:
            return False
    return True


def check_free(ports: Mapping[str, int]) -> None:
    """Raise ConfigurationError naming every busy port, its purpose, its holder and the remedy.

    `ports` maps a purpose ("airflow", "mlflow", or any other name) to its port number; two
    purposes on one port are an error too.
    """
    faults = []
    purposes: dict[int, str] = {}
    for purpose, port in ports.items():
        if port in purposes:
            faults.append(
                f"port {port} is set for both {purposes[port]} and {purpose}; {_remedy(purpose)}"
            )
        elif not is_free(port):
            faults.append(f"port {port} ({purpose}) is taken{_holder(port)}; {_remedy(purpose)}")
            if port == _AIRPLAY_PORT and sys.platform == "darwin":
                faults.append(
                    "  macOS holds 5000 for AirPlay: System Settings > General > "
                    "AirDrop & Handoff > AirPlay Receiver switches it off"
                )
        purposes.setdefault(port, purpose)
    if faults:
        raise ConfigurationError("\n".join(faults))


def _remedy(purpose: str) -> str:
    setting = SETTINGS.get(purpose.lower())
    return f"stop its holder or set {setting}" if setting else "stop its holder or use another port"


def _holder(port: int) -> str:
    """Return ` by NAME (pid N)` where this user may see it, else nothing."""
    try:
        connections = psutil.net_connections(kind="tcp")
    except psutil.Error:
        return ""
    for connection in connections:
        if (
            connection.status == psutil.CONN_LISTEN
            and connection.pid
            and connection.laddr
            and connection.laddr.port == port
        ):
            try:
                return f" by {psutil.Process(connection.pid).name()} (pid {connection.pid})"
            except psutil.Error:
                return f" by pid {connection.pid}"
    return ""
