"""Runs the exchange on loopback: in the foreground for a user, in a thread for a test or a run."""

from __future__ import annotations

import asyncio
import signal
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from threading import Thread
from types import FrameType, TracebackType
from typing import Any, Self

import uvicorn
from uvicorn.protocols.http.auto import AutoHTTPProtocol

from bentley.domain.errors import ConfigurationError, FatalError
from bentley.services.exchange.app import Exchange
from bentley.services.exchange.clock import Clock
from bentley.services.exchange.control import counted, create_app
from bentley.services.exchange.limits import WEIGHT_LIMIT
from bentley.services.exchange.market import Market

HOST = "127.0.0.1"
SERVER = "bentley-replay-exchange"
_START_SECONDS = 20
_GRACE_SECONDS = 1
_IDLE_SECONDS = 75
_LAST_PORT = 65535

_Base: Any = AutoHTTPProtocol


class _Connection(_Base):  # type: ignore[misc] # uvicorn chooses the base when it is imported
    """A connection that the application can close half-way."""

    app_state: dict[str, Any]

    def connection_made(self, transport: asyncio.Transport) -> None:
        self.app_state = {**self.app_state, "hang_up": transport.close}
        super().connection_made(transport)


def start_clock(market: Market, now: int | None) -> Clock:
    """A clock at `now`, or just after the market's last close, or running where time goes on."""
    if now is not None:
        return Clock(now)
    last = market.last_close()
    return Clock(None if last is None else last + 1)


def serve(
    market: Market,
    *,
    port: int,
    now: int | None = None,
    weight_limit: int = WEIGHT_LIMIT,
    started: Callable[[str], None] | None = None,
) -> None:
    """Serve `market` on 127.0.0.1 until SIGINT or SIGTERM.

    `now` in UTC milliseconds. `started` is called with the address as soon as it accepts
    connections. ConfigurationError for a busy port, before anything is started.
    """
    listener = _listen(port)
    with listener:
        exchange = Exchange(market, start_clock(market, now), weight_limit=weight_limit)
        server = _server(exchange)
        listener.listen()
        with _ending(server):
            if started is not None:
                started(_url(listener))
            server.run(sockets=[listener])


@contextmanager
def _ending(server: uvicorn.Server) -> Iterator[None]:
    """End the server in good order by a signal that comes before its loop runs, as by a later one.

    uvicorn gives each signal that it has seen to the handler before its own: to this one.
    """

    def end(_signum: int, _frame: FrameType | None) -> None:
        server.should_exit = True

    former = {signum: signal.signal(signum, end) for signum in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for signum, handler in former.items():
            signal.signal(signum, handler)


class ExchangeServer:
    """Serves `market` from a thread of this process while the context lasts.

    Port 0 takes a free one. Clock, faults and rows can be steered from here or over HTTP.
    """

    def __init__(
        self,
        market: Market,
        *,
        now: int | None = None,
        port: int = 0,
        weight_limit: int = WEIGHT_LIMIT,
    ) -> None:
        self._listener = _listen(port)
        self.url = _url(self._listener)
        self._start = now
        try:
            clock = start_clock(market, now)
        except BaseException:
            self._listener.close()
            raise
        self.exchange = Exchange(market, clock, weight_limit=weight_limit)
        self._server = _server(self.exchange)
        self._thread = Thread(
            target=self._server.run,
            kwargs={"sockets": [self._listener]},
            name="replay-exchange",
            daemon=True,
        )

    @property
    def origin(self) -> str:
        """The origin of the bars served."""
        return self.exchange.market.origin

    @property
    def now(self) -> int:
        """The exchange's clock in UTC milliseconds."""
        return self.exchange.clock.now()

    def set_clock(self, now: int) -> None:
        """Stand still at `now` (UTC milliseconds)."""
        self.exchange.clock.set(now)

    def advance(self, millis: int) -> int:
        """Go `millis` further, and return the new time."""
        return self.exchange.clock.advance(millis)

    def faults(self, specifications: Iterable[Mapping[str, Any]]) -> None:
        """Add faults, as `POST /control/faults` does."""
        self.exchange.faults.add(specifications)

    def clear_faults(self) -> None:
        """Behave well again."""
        self.exchange.faults.clear()

    def rows(self, specifications: Iterable[Mapping[str, Any]]) -> None:
        """Change rows, as `POST /control/rows` does."""
        self.exchange.tampering.add(specifications)

    def clear_rows(self) -> None:
        """Serve every row as it is again."""
        self.exchange.tampering.clear()

    def reset(self) -> None:
        """Be as at the start again: clock, faults, rows, limits and counters."""
        exchange = self.exchange
        exchange.clock = start_clock(exchange.market, self._start)
        exchange.faults.clear()
        exchange.tampering.clear()
        exchange.limiter.reset()
        exchange.requests.clear()

    def requests(self) -> dict[str, Any]:
        """The API requests answered so far, as `GET /control/requests` tells them."""
        return counted(self.exchange)

    def start(self) -> None:
        """Serve; FatalError if the server does not come up."""
        self._thread.start()
        deadline = time.monotonic() + _START_SECONDS
        while not self._server.started:
            if not self._thread.is_alive() or time.monotonic() > deadline:
                msg = f"the replay exchange did not start on {self.url} in {_START_SECONDS} s"
                raise FatalError(msg)
            time.sleep(0.005)

    def stop(self) -> None:
        """Close every connection and end the thread; a second call does nothing."""
        self._server.should_exit = True
        if self._thread.is_alive():
            self._thread.join()
        self._listener.close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()


def _listen(port: int) -> socket.socket:
    if not 0 <= port <= _LAST_PORT:
        msg = f"{port} is no port: choose one from 1 to {_LAST_PORT}, or 0 for any that is free"
        raise ConfigurationError(msg)
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((HOST, port))
    except OSError as error:
        listener.close()
        msg = (
            f"port {port} on {HOST} cannot be taken ({error}); end the process that holds it, "
            "or choose another with --port"
        )
        raise ConfigurationError(msg) from error
    return listener


def _url(listener: socket.socket) -> str:
    return f"http://{HOST}:{listener.getsockname()[1]}"


def _server(exchange: Exchange) -> uvicorn.Server:
    return uvicorn.Server(
        uvicorn.Config(
            create_app(exchange),
            http=_Connection,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            headers=[("Server", SERVER)],
            timeout_keep_alive=_IDLE_SECONDS,
            timeout_graceful_shutdown=_GRACE_SECONDS,
        )
    )
