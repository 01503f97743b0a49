"""Archives as the exchange publishes them, made of bars of a test's own, and a site to serve them."""

from __future__ import annotations

import hashlib
import http.server
import threading
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

HEADER = (
    "open_time,open,high,low,close,volume,close_time,quote_volume,count,"
    "taker_buy_volume,taker_buy_quote_volume,ignore\n"
)
STEPS = {"1m": 60_000, "1h": 3_600_000, "1d": 86_400_000, "1w": 7 * 86_400_000}


def ms(text: str) -> int:
    """UTC milliseconds of a day or a moment."""
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


def line(opened: int, *, step: int = 3_600_000, micro: bool = False, **changes: str) -> str:
    """One bar as an archive's line; its price tells its time."""
    price = f"{100 + opened // step % 1000}.12345678"
    scale, rest = (1000, 999) if micro else (1, 0)
    cells = {
        "open_time": str(opened * scale),
        "open": price,
        "high": f"{2000}.00000000",
        "low": "0.00000001",
        "close": price,
        "volume": "18251592538769.00000000",
        "close_time": str((opened + step - 1) * scale + rest),
        "quote_volume": "230976895658.80542100",
        "trades": "7",
        "taker_buy_base_volume": "4.25000000",
        "taker_buy_quote_volume": "400.00000000",
        "ignore": "0",
    }
    return ",".join((cells | changes).values()) + "\n"


def lines(since: str | int, until: str | int, *, interval: str = "1h", micro: bool = False) -> str:
    """All bars of a time, `until` exclusive."""
    step = STEPS[interval]
    first = ms(since) if isinstance(since, str) else since
    end = ms(until) if isinstance(until, str) else until
    return "".join(line(at, step=step, micro=micro) for at in range(first, end, step))


def put(
    root: Path,
    label: str,
    body: str,
    *,
    symbol: str = "BTCUSDT",
    interval: str = "1h",
    header: bool = False,
) -> Path:
    """Write an archive of a month or a day with its checksum."""
    kind = "daily" if label.count("-") == 2 else "monthly"
    folder = root / f"data/spot/{kind}/klines/{symbol}/{interval}"
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{symbol}-{interval}-{label}.zip"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as opened:
        opened.writestr(f"{file.stem}.csv", (HEADER if header else "") + body)
    sign(file)
    return file


def sign(file: Path) -> None:
    """Write the checksum of an archive as it is now."""
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    file.with_name(f"{file.name}.CHECKSUM").write_text(f"{digest}  {file.name}\n")


Fault = Callable[[http.server.BaseHTTPRequestHandler, bytes], bool]
"""Answers in the place of the site, or returns False."""


class Site:
    """A folder of archives over HTTP; `faults` are tried in turn, each once."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.faults: list[Fault] = []
        self.asked: list[str] = []
        self.url = ""

    def archives(self) -> Sequence[str]:
        """The names of the archives that were fetched."""
        return [Path(path).name for path in self.asked if path.endswith(".zip")]


@contextmanager
def served(root: Path) -> Iterator[Site]:
    """Serve a folder on loopback."""
    site = Site(root)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            site.asked.append(self.path)
            file = root / self.path.lstrip("/")
            body = file.read_bytes() if file.is_file() else b"NoSuchKey"
            if self.path.endswith(".zip") and site.faults and site.faults.pop(0)(self, body):
                return
            self.send_response(200 if file.is_file() else 404)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        site.url = f"http://127.0.0.1:{server.server_address[1]}"
        try:
            yield site
        finally:
            server.shutdown()


def status(code: int, **headers: str) -> Fault:
    """Answer with a status."""

    def answer(handler: http.server.BaseHTTPRequestHandler, _: bytes) -> bool:
        handler.send_response(code)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", "0")
        handler.end_headers()
        return True

    return answer


def half(handler: http.server.BaseHTTPRequestHandler, body: bytes) -> bool:
    """Break the connection in the middle of the body."""
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body[: len(body) // 2])
    handler.wfile.flush()
    handler.connection.close()
    return True


def spoiled(handler: http.server.BaseHTTPRequestHandler, body: bytes) -> bool:
    """Send other bytes than the checksum's."""
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body[:-1] + bytes([body[-1] ^ 1]))
    return True


def dripping(handler: http.server.BaseHTTPRequestHandler, body: bytes) -> bool:
    """Send a byte now and then, sooner than a read's time limit, up to half a minute."""
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    with suppress(OSError):  # whoever reads has gone
        for at in range(min(300, len(body) - 1)):
            handler.wfile.write(body[at : at + 1])
            time.sleep(0.1)
    return True
