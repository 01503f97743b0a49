"""The exchange's archives of klines, a zip a month or a day: from its site, a mirror or a folder.

They lie at data/spot/{monthly,daily}/klines/SYMBOL/INTERVAL/SYMBOL-INTERVAL-YYYY-MM[-DD].zip,
each with its SHA-256 in a `.CHECKSUM` beside it (https://github.com/binance/binance-public-data).
No row is read before its archive has met that checksum.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path, PurePosixPath
from typing import Protocol

from bentley.domain.addresses import without_password
from bentley.domain.errors import ConfigurationError, DataError, RetriableError
from bentley.sources import http

FIRST_MONTH = date(2017, 7, 1)
"""When the exchange opened: no archive is older."""

_MONTHLY_BY = timedelta(days=45)
"""So long after its end a month surely has its archive."""

_NOT_FOUND = 404
_DIGEST = re.compile(r"\s*([0-9a-fA-F]{64})\b")
_WHAT, _SETTING = "the archive", "BENTLEY_ARCHIVE"


@dataclass(frozen=True)
class Archive:
    """The klines of one series in one month or day; `start` and `end` in UTC ms, end exclusive."""

    symbol: str
    interval: str
    first: date
    monthly: bool

    @property
    def label(self) -> str:
        """The month or the day, as it is written in the archive's name."""
        return f"{self.first:%Y-%m}" if self.monthly else f"{self.first:%Y-%m-%d}"

    @property
    def start(self) -> int:
        """When its first bar may open."""
        return _millis(self.first)

    @property
    def end(self) -> int:
        """When the next archive begins."""
        return _millis(next_month(self.first) if self.monthly else self.first + timedelta(days=1))

    @property
    def path(self) -> str:
        """Where it lies below the root of the archives."""
        kind = "monthly" if self.monthly else "daily"
        folder = f"data/spot/{kind}/klines/{self.symbol}/{self.interval}"
        return f"{folder}/{self.symbol}-{self.interval}-{self.label}.zip"

    def days(self) -> Iterator[Archive]:
        """Name the daily archives of a monthly one."""
        day = self.first
        while day < next_month(self.first):
            yield Archive(self.symbol, self.interval, day, monthly=False)
            day += timedelta(days=1)


def months(symbol: str, interval: str, first: date, last: date) -> Iterator[Archive]:
    """Name the monthly archives from the one that holds the day `first` to that of `last`."""
    month = first.replace(day=1)
    while month <= last:
        yield Archive(symbol, interval, month, monthly=True)
        month = next_month(month)


def next_month(first: date) -> date:
    """The first day of the month after the one that `first` begins."""
    return date(first.year + first.month // 12, first.month % 12 + 1, 1)


def day_of(millis: int) -> date:
    """The UTC day that holds a time."""
    return datetime.fromtimestamp(millis / 1000, tz=UTC).date()


def _millis(day: date) -> int:
    return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()) * 1000


class Archives(Protocol):
    """A place where archives lie."""

    def extent(self, symbol: str, interval: str) -> tuple[date, date] | None:
        """The days of the first and the last archive there may be; None where there is none."""

    def digest(self, archive: Archive) -> str | None:
        """The SHA-256 that its `.CHECKSUM` names; None where the archive is not there."""

    def has_days(self, month: Archive) -> bool:
        """Whether the days of a month that has no archive of its own are worth a look."""

    def fetch(self, archive: Archive, digest: str, folder: Path) -> Path:
        """Return the archive as a file, in `folder` unless it lies on this machine already.

        Raises DataError where it doesn't meet `digest`.
        """


def at(place: str, *, today: Callable[[], date]) -> Archives:
    """Open a folder, or a site that is looked through up to `today`, which is asked for it alone."""
    if place.startswith(("http://", "https://")):
        return Site(place.rstrip("/"), today=today())
    return Folder(Path(place).expanduser())


class Folder:
    """Archives on this machine; nothing else is asked."""

    def __init__(self, root: Path) -> None:
        self.root = root
        if not (root / "data" / "spot").is_dir():
            msg = f"{root} has no data/spot: name the folder that holds the archive's own `data`"
            raise ConfigurationError(msg)

    def extent(self, symbol: str, interval: str) -> tuple[date, date] | None:
        """The first and the last day that a file's name tells."""
        days = []
        for kind in ("monthly", "daily"):
            folder = self.root / f"data/spot/{kind}/klines/{symbol}/{interval}"
            for file in folder.glob(f"{symbol}-{interval}-*.zip"):
                label = file.stem.removeprefix(f"{symbol}-{interval}-")
                try:
                    days.append(date.fromisoformat(label if kind == "daily" else f"{label}-01"))
                except ValueError:
                    msg = f"{file} is not named after a month or a day, like 2024-01[-31]"
                    raise DataError(msg) from None
        return (min(days), max(days)) if days else None

    def digest(self, archive: Archive) -> str | None:
        """Read the `.CHECKSUM` beside the archive."""
        file = self.root / archive.path
        if not file.is_file():
            return None
        beside = file.with_name(f"{file.name}.CHECKSUM")
        try:
            text = beside.read_text(errors="replace")
        except FileNotFoundError:
            msg = f"{beside} is missing: fetch it, or make it by sha256sum"
            raise DataError(msg) from None
        return _read_digest(text, str(beside))

    def has_days(self, month: Archive) -> bool:  # noqa: ARG002
        """Look: it costs nothing."""
        return True

    def fetch(self, archive: Archive, digest: str, folder: Path) -> Path:  # noqa: ARG002
        """Check the file where it lies."""
        file = self.root / archive.path
        with file.open("rb") as opened:
            found = hashlib.file_digest(opened, "sha256").hexdigest()
        if found != digest:
            raise _broken(str(file), found, digest)
        return file


class Site:
    """The public archive, or a mirror with the same paths."""

    def __init__(self, address: str, *, today: date) -> None:
        self.address = address
        self.today = today

    def extent(self, symbol: str, interval: str) -> tuple[date, date] | None:  # noqa: ARG002
        """All of the exchange's days: what is there is found out file by file."""
        return FIRST_MONTH, self.today - timedelta(days=1)

    def digest(self, archive: Archive) -> str | None:
        """Fetch the `.CHECKSUM`."""
        url = f"{self.address}/{archive.path}.CHECKSUM"
        answer = http.ask(url, what=_WHAT, setting=_SETTING)
        if answer.status_code == _NOT_FOUND:
            return None
        if not answer.is_success:
            msg = f"{_WHAT} at {without_password(url)} answered {answer.status_code}"
            raise RetriableError(msg)
        return _read_digest(answer.text, without_password(url))

    def has_days(self, month: Archive) -> bool:
        """Look only where the month's own may not be published yet: each day is a request."""
        return month.end > _millis(self.today - _MONTHLY_BY)

    def fetch(self, archive: Archive, digest: str, folder: Path) -> Path:
        """Download the archive; what comes otherwise than its checksum says is fetched once more."""
        url = f"{self.address}/{archive.path}"
        file = folder / PurePosixPath(archive.path).name
        found = ""
        for _ in range(2):
            found = http.download(url, file, what=_WHAT, setting=_SETTING)
            if found == digest:
                return file
        file.unlink()
        raise _broken(without_password(url), found, digest)


def _read_digest(text: str, where: str) -> str:
    found = _DIGEST.match(text)
    if found is None:
        msg = f"{where} holds no SHA-256 but {text[:80]!r}"
        raise DataError(msg)
    return found[1].lower()


def _broken(where: str, found: str, digest: str) -> DataError:
    msg = f"{where} has the SHA-256 {found}, but its .CHECKSUM says {digest}: fetch it anew"
    return DataError(msg)
