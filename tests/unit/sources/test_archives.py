"""The exchange's archives: found by their paths, checked, and read as a stream."""

from __future__ import annotations

import zipfile
from datetime import date

import polars as pl
import pytest

from archive_support import dripping, half, line, lines, ms, put, served, sign, spoiled, status
from bentley.domain.bars import FIELDS, sift
from bentley.domain.errors import ConfigurationError, DataError, RetriableError
from bentley.sources import archives, http
from bentley.sources.archives import Archive, Folder

TODAY = date(2024, 4, 10)
MARCH = Archive("BTCUSDT", "1h", date(2024, 3, 1), monthly=True)


def read(file, archive=MARCH):
    good, bad, last = zip(*archives.rows(file, archive), strict=True)
    assert last == (*[False] * (len(last) - 1), True)
    return pl.concat(good), pl.concat(bad)


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


@pytest.mark.parametrize("header", [True, False])
@pytest.mark.parametrize("micro", [True, False])
def test_both_time_units_with_and_without_a_header(tmp_path, header, micro):
    body = lines("2024-03-01", "2024-03-03", micro=micro)
    good, bad = read(put(tmp_path, "2024-03", body, header=header))
    assert (good.height, bad.height) == (48, 0)
    assert good.columns == list(FIELDS)
    sifted = sift(good, now=MARCH.end)
    assert sifted.rejected.is_empty()
    assert sifted.bars["open_time"].to_list() == list(
        range(ms("2024-03-01"), ms("2024-03-03"), 3_600_000)
    )
    assert sifted.bars["close_time"][-1] == ms("2024-03-03") - 1
    assert str(sifted.bars["quote_volume"][0]) == "230976895658.80542100"


@pytest.mark.parametrize("block", [1, 7, 150, 151, 100_000])
def test_blocks_of_any_size_give_the_same_rows(tmp_path, monkeypatch, block):
    file = put(tmp_path, "2024-03", lines("2024-03-01", "2024-03-02").rstrip("\n"), header=True)
    whole = read(file)[0]
    # a header is looked for in the first block, which is never as short as this in earnest
    monkeypatch.setattr(archives, "BLOCK_BYTES", max(block, 150))
    assert read(file)[0].equals(whole)
    assert whole.height == 24
    first = next(archives.rows(file, MARCH, sizes=iter([1_500])))
    assert 0 < first.good.height < 24


def test_lines_of_a_wrong_shape_are_kept_with_their_reason(tmp_path):
    body = (
        line(ms("2024-03-01"))
        + line(ms("2024-03-01T01:00")).rstrip("\n")
        + ",surplus\n"
        + line(ms("2024-04-01"))
        + "1709258400000,1.0\n"
        + line(ms("2024-03-01T03:00"), open="\u0661")
        + "\n"
    )
    good, bad = read(put(tmp_path, "2024-03", body))
    assert bad["reason"].to_list() == [
        "the line has more than 12 cells",
        f"open_time {ms('2024-04-01')} lies outside the archive 2024-03",
    ]
    sifted = sift(good, now=MARCH.end)
    assert sifted.bars["open_time"].to_list() == [ms("2024-03-01")]
    assert sorted(sifted.rejected["reason"].to_list()) == [
        "high is missing",
        "open \u0661 is not a decimal number",
    ]


@pytest.mark.parametrize("fault", ["no zip", "cut", "two files", "empty"])
def test_a_file_that_is_no_archive_is_named(tmp_path, fault):
    file = put(tmp_path, "2024-03", lines("2024-03-01", "2024-03-20"))
    if fault == "no zip":
        file.write_bytes(b"<html>not found</html>")
    elif fault == "cut":
        file.write_bytes(file.read_bytes()[:-30])
    elif fault == "two files":
        with zipfile.ZipFile(file, "a") as opened:
            opened.writestr("other.csv", "1")
    else:
        with zipfile.ZipFile(file, "w"):
            pass
    with pytest.raises(DataError, match=file.name):
        read(file)


def test_a_damaged_member_is_named(tmp_path):
    file = put(tmp_path, "2024-03", lines("2024-03-01", "2024-03-20"))
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0xFF
    file.write_bytes(content)
    with pytest.raises(DataError, match=file.name):
        read(file)


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
