"""The exchange's archives: found by their paths, checked, and read as a stream."""

from __future__ import annotations

from datetime import date

import pytest

from archive_support import dripping, half, lines, ms, put, served, sign, spoiled, status
from bentley.domain.errors import ConfigurationError, DataError, RetriableError
from bentley.sources import archives, http
from bentley.sources.archives import Archive, Folder

TODAY = date(2024, 4, 10)
MARCH = Archive("BTCUSDT", "1h", date(2024, 3, 1), monthly=True)


def test_names_and_times_are_those_of_the_public_archive():
    day = Archive("BTCUSDT", "1m", date(2023, 12, 31), monthly=False)
    assert day.path == "data/spot/daily/klines/BTCUSDT/1m/BTCUSDT-1m-2023-12-31.zip"
    assert (day.start, day.end) == (ms("2023-12-31"), ms("2024-01-01"))
    month = Archive("BTCUSDT", "1m", date(2023, 12, 1), monthly=True)
    assert month.path == "data/spot/monthly/klines/BTCUSDT/1m/BTCUSDT-1m-2023-12.zip"
    assert (month.start, month.end) == (ms("2023-12-01"), ms("2024-01-01"))
    assert [one.label for one in month.days()] == [f"2023-12-{at:02d}" for at in range(1, 32)]
    spanned = archives.months("BTCUSDT", "1m", date(2023, 11, 30), date(2024, 1, 1))
    assert [one.label for one in spanned] == ["2023-11", "2023-12", "2024-01"]


def test_a_folder_is_checked_against_its_checksums(tmp_path):
    file = put(tmp_path, "2024-03", lines("2024-03-01", "2024-03-02"))
    place = Folder(tmp_path)
    digest = place.digest(MARCH)
    assert place.fetch(MARCH, digest, tmp_path) == file
    assert place.digest(Archive("ETHUSDT", "1h", date(2024, 3, 1), monthly=True)) is None
    file.write_bytes(file.read_bytes() + b" ")
    with pytest.raises(DataError, match=r"says .*: fetch it anew"):
        place.fetch(MARCH, digest, tmp_path)
    beside = file.with_name(f"{file.name}.CHECKSUM")
    beside.write_text("404 not found")
    with pytest.raises(DataError, match="holds no SHA-256 but '404 not found'"):
        place.digest(MARCH)
    beside.unlink()
    with pytest.raises(DataError, match="CHECKSUM is missing: fetch it"):
        place.digest(MARCH)
    sign(file)
    assert place.fetch(MARCH, place.digest(MARCH), tmp_path) == file


def test_a_folder_tells_its_extent_and_what_it_is_not(tmp_path):
    put(tmp_path, "2024-03", "")
    put(tmp_path, "2024-05-02", "")
    place = Folder(tmp_path)
    assert place.extent("BTCUSDT", "1h") == (date(2024, 3, 1), date(2024, 5, 2))
    assert place.extent("BTCUSDT", "1m") is None
    (tmp_path / "data/spot/daily/klines/BTCUSDT/1h/BTCUSDT-1h-May.zip").write_bytes(b"")
    with pytest.raises(DataError, match=r"BTCUSDT-1h-May.zip is not named after"):
        place.extent("BTCUSDT", "1h")
    with pytest.raises(ConfigurationError, match="has no data/spot"):
        Folder(tmp_path / "data")


@pytest.mark.parametrize("fault", [half, spoiled, dripping, status(500), status(502), status(403)])
def test_a_passing_fault_of_a_site_does_not_show(tmp_path, fault, monkeypatch):
    monkeypatch.setattr(http, "_FILE_SECONDS", 3.0)
    file = put(tmp_path / "site", "2024-03", lines("2024-03-01", "2024-03-02"))
    (tmp_path / "here").mkdir()
    with served(tmp_path / "site") as site:
        place = archives.at(site.url, today=lambda: TODAY)
        site.faults = [fault]
        got = place.fetch(MARCH, place.digest(MARCH), tmp_path / "here")
        assert got.read_bytes() == file.read_bytes()
        assert site.archives() == [file.name] * 2


def test_a_site_that_asks_to_wait_is_heard(tmp_path):
    put(tmp_path, "2024-03", "")
    with served(tmp_path) as site:
        place = archives.at(site.url, today=lambda: TODAY)
        site.faults = [status(429, Retry_After="17")]
        with pytest.raises(RetriableError) as error:
            place.fetch(MARCH, place.digest(MARCH), tmp_path)
        assert error.value.retry_after == 17
        assert len(site.archives()) == 1


def test_an_archive_that_never_meets_its_checksum_is_refused_and_removed(tmp_path):
    put(tmp_path / "site", "2024-03", lines("2024-03-01", "2024-03-02"))
    (tmp_path / "here").mkdir()
    with served(tmp_path / "site") as site:
        place = archives.at(site.url, today=lambda: TODAY)
        site.faults = [spoiled, spoiled]
        with pytest.raises(DataError, match="fetch it anew"):
            place.fetch(MARCH, place.digest(MARCH), tmp_path / "here")
    assert not list((tmp_path / "here").iterdir())


def test_a_site_is_looked_through_by_the_calendar(tmp_path):
    with served(tmp_path) as site:
        place = archives.at(site.url, today=lambda: TODAY)
        assert place.extent("BTCUSDT", "1h") == (date(2017, 7, 1), date(2024, 4, 9))
        assert place.digest(MARCH) is None
        assert place.has_days(MARCH)
        assert not place.has_days(Archive("BTCUSDT", "1h", date(2024, 1, 1), monthly=True))
    with pytest.raises(RetriableError, match="can't be reached"):
        place.digest(MARCH)
