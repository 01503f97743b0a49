from __future__ import annotations

import os
import socket

import pytest

from bentley.domain.errors import ConfigurationError
from bentley.services import ports
from support import free_port


@pytest.fixture
def listener():
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def test_free_ports_pass():
    ports.check_free({"airflow": free_port(), "mlflow": free_port()})


def test_every_busy_port_is_named_with_purpose_holder_and_remedy(listener):
    with socket.create_server(("127.0.0.1", 0)) as second:
        airflow, mlflow = listener.getsockname()[1], second.getsockname()[1]
        with pytest.raises(ConfigurationError) as error:
            ports.check_free({"airflow": airflow, "MLflow": mlflow, "spare": free_port()})
    message = str(error.value)
    assert f"port {airflow} (airflow) is taken" in message
    assert f"port {mlflow} (MLflow) is taken" in message
    assert f"(pid {os.getpid()})" in message
    assert "BENTLEY_AIRFLOW_PORT" in message
    assert "BENTLEY_MLFLOW_PORT" in message
    assert "spare" not in message


def test_a_listener_on_every_address_counts():
    with socket.create_server(("0.0.0.0", 0)) as server:
        assert not ports.is_free(server.getsockname()[1])


def test_who_answers_holds_the_port_even_where_it_could_be_bound(listener, monkeypatch):
    port = listener.getsockname()[1]
    monkeypatch.setattr(socket.socket, "bind", lambda *_: None)  # as macOS has it beside *:PORT
    monkeypatch.setattr(socket.socket, "listen", lambda *_: None)
    assert not ports.is_free(port)


def test_time_wait_does_not_count():
    server = socket.create_server(("127.0.0.1", 0))
    port = server.getsockname()[1]
    client = socket.create_connection(("127.0.0.1", port))
    accepted, _ = server.accept()
    accepted.close()  # the server's end closes first, and so keeps the port in TIME_WAIT
    client.recv(1)
    client.close()
    server.close()
    with socket.socket() as strict, pytest.raises(OSError, match="in use"):
        strict.bind(("127.0.0.1", port))
    assert ports.is_free(port)


def test_one_port_for_two_purposes_is_an_error():
    port = free_port()
    with pytest.raises(ConfigurationError, match=f"port {port} is set for both airflow and mlflow"):
        ports.check_free({"airflow": port, "mlflow": port})


def test_macos_is_told_about_airplay(monkeypatch):
    monkeypatch.setattr(ports, "is_free", lambda port: port != 5000)
    monkeypatch.setattr(ports.sys, "platform", "darwin")
    with pytest.raises(ConfigurationError, match="AirPlay"):
        ports.check_free({"mlflow": 5000})


def test_a_holder_that_may_not_be_seen_is_left_out(listener, monkeypatch):
    def refuse(*, kind):  # noqa: ARG001  as psutil calls it
        raise ports.psutil.AccessDenied

    monkeypatch.setattr(ports.psutil, "net_connections", refuse)
    port = listener.getsockname()[1]
    with pytest.raises(ConfigurationError, match=rf"port {port} \(airflow\) is taken; stop"):
        ports.check_free({"airflow": port})
