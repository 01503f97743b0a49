"""What an archive's lines are read as: quickly where they are plain, and alike where they aren't."""

from __future__ import annotations

import zipfile
from datetime import date

import polars as pl
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from archive_support import line, lines, ms, put
from bentley.domain.bars import BAR_SCHEMA
from bentley.domain.errors import DataError
from bentley.sources import archive_rows
from bentley.sources.archives import Archive

MARCH = Archive("BTCUSDT", "1h", date(2024, 3, 1), monthly=True)


def read(file, archive=MARCH):
    bars, rejected, read, last = zip(*archive_rows.pieces(file, archive), strict=True)
    assert last == (*[False] * (len(last) - 1), True)
    assert sum(read) == sum(one.height for one in (*bars, *rejected))
    return pl.concat(bars), pl.concat(rejected)


@pytest.mark.parametrize("header", [True, False])
@pytest.mark.parametrize("micro", [True, False])
def test_both_time_units_with_and_without_a_header(tmp_path, header, micro):
    body = lines("2024-03-01", "2024-03-03", micro=micro)
    bars, rejected = read(put(tmp_path, "2024-03", body, header=header))
    assert (bars.height, rejected.height) == (48, 0)
    assert bars.schema == BAR_SCHEMA
    assert bars["open_time"].to_list() == list(range(ms("2024-03-01"), ms("2024-03-03"), 3_600_000))
    assert bars["close_time"][-1] == ms("2024-03-03") - 1
    assert str(bars["quote_volume"][0]) == "230976895658.80542100"
    assert bars["is_closed"].all()


@pytest.mark.parametrize("block", [1, 7, 150, 151, 100_000])
def test_blocks_of_any_size_give_the_same_rows(tmp_path, monkeypatch, block):
    file = put(tmp_path, "2024-03", lines("2024-03-01", "2024-03-02").rstrip("\n"), header=True)
    whole = read(file)[0]
    # a header is looked for in the first block, which is never as short as this in earnest
    monkeypatch.setattr(archive_rows, "BLOCK_BYTES", max(block, 150))
    assert read(file)[0].equals(whole)
    assert whole.height == 24
    first = next(archive_rows.pieces(file, MARCH, sizes=iter([1_500])))
    assert 0 < first.bars.height < 24


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
    bars, rejected = read(put(tmp_path, "2024-03", body))
    assert bars["open_time"].to_list() == [ms("2024-03-01")]
    assert sorted(rejected["reason"].to_list()) == [
        "high is missing",
        "open \u0661 is not a decimal number",
        f"open_time {ms('2024-04-01')} (2024-04-01T00:00:00Z) lies outside the archive 2024-03",
        "the line has more than 12 cells; behind them surplus",
    ]


def test_what_stands_behind_the_last_cell_is_kept_whole_and_no_time_is_made_of_what_is_none():
    long = "x" * 3_000
    block = line(MARCH.start, ignore=f"0,{long},,y") + line(MARCH.start, open_time="9" * 30)
    piece = archive_rows._piece((block + line(MARCH.start)).encode(), MARCH, last=True)
    assert piece.rejected["beyond"].to_list() == [f"{long},,y", None]
    reasons = piece.rejected["reason"].to_list()
    assert reasons[0] == f"the line has more than 12 cells; behind them {'x' * 99}"
    assert reasons[1] == f"open_time {'9' * 30} lies outside the archive 2024-03"


def alike(block):
    """Read a block both ways; return what the quick one makes of it."""
    quick = archive_rows._plain(block, MARCH)
    slow = archive_rows._told(block, MARCH, last=True)
    if quick is not None:
        assert quick.equals(slow.bars)
        assert quick.schema == slow.bars.schema
        assert slow.rejected.is_empty()
        assert slow.read == quick.height
    return quick


def test_what_the_exchange_writes_goes_the_quick_way():
    for micro in (True, False):
        for ends in ("\n", "\r\n"):
            body = lines("2024-03-01", "2024-03-02", micro=micro).replace("\n", ends)
            assert alike(body.rstrip("\n").encode()).height == 24
    short = line(MARCH.start, open="5.5", high="6", close="5.125", taker_buy_base_volume="0")
    assert alike(short.encode())["close"].cast(pl.String).to_list() == ["5.12500000"]


@pytest.mark.parametrize(
    ("changes", "rejected"),
    [
        ({"quote_volume": "1.123456789"}, 1),
        ({"volume": "1\x1f8"}, 1),
        ({"ignore": "0\x1f"}, 0),
        ({"volume": "5.1230000000000"}, 0),  # more places than columns, but nothing in them
        ({"taker_buy_quote_volume": "-0"}, 0),
        ({"volume": "0005.5"}, 0),
        ({"volume": "123456789012345678901"}, 1),
        ({"volume": "5."}, 1),
        ({"volume": ".5"}, 1),
        ({"volume": ""}, 1),
        ({"volume": "5,5"}, 1),
        ({"volume": " 5"}, 1),
        ({"volume": "5e3"}, 1),
        ({"volume": "\u0665"}, 1),
        ({"volume": '"5"'}, 1),
        ({"volume": "0"}, 1),  # takers bought more
        ({"high": "1"}, 1),
        ({"trades": "1.0"}, 1),
        ({"trades": "1" * 19}, 1),
        ({"trades": "9" * 18}, 0),
        ({"open_time": str(MARCH.start - 3_600_000)}, 1),
        ({"open_time": str(MARCH.start + 1)}, 1),
        ({"open_time": f"{MARCH.start}0"}, 1),
        ({"open_time": f"{MARCH.start}999"}, 0),
        ({"open_time": f"{MARCH.start}999999"}, 0),
        ({"open_time": f"000{MARCH.start}", "close_time": f"000{MARCH.start + 3_599_999}"}, 1),
        ({"close_time": str(MARCH.start - 1)}, 1),
        ({"close_time": f"{MARCH.start + 3_599_999}999"}, 0),
        ({"ignore": "anything"}, 0),
        ({"ignore": "0,0"}, 1),
        ({"ignore": "0,,x"}, 1),
        ({"ignore": "0,"}, 0),  # a comma too many, and nothing behind it
    ],
)
def test_what_is_not_plain_is_told_as_before(changes, rejected):
    block = (line(MARCH.start, **changes) + line(MARCH.start + 3_600_000)).encode()
    quick, slow = alike(block), archive_rows._piece(block, MARCH, last=True)
    assert slow.rejected.height == rejected
    assert slow.bars.height == 2 - rejected
    assert quick is None or not rejected


@pytest.mark.parametrize("body", ["\n\n", "\xff\xfe,1\n", "0\n", ",,,,,,,,,,,\n"])
def test_what_is_no_line_is_told(body):
    block = (body + line(MARCH.start)).rstrip("\n").encode("latin-1")
    assert alike(block) is None
    assert archive_rows._piece(block, MARCH, last=True).bars.height == 1


def test_a_repeated_bar_and_one_out_of_order_are_told():
    first, second = line(MARCH.start), line(MARCH.start + 3_600_000)
    for body in (first + first, second + first):
        assert alike(body.encode()) is None
    twice = archive_rows._piece((first + first).encode(), MARCH, last=True)
    assert (twice.bars.height, twice.rejected.height, twice.read) == (1, 0, 2)


@pytest.mark.parametrize("beyond", [MARCH.start - 3_600_000, MARCH.end])
def test_a_bar_outside_its_archive_is_told(beyond):
    plain = lines("2024-03-01", "2024-03-02")
    block = (line(beyond) + plain if beyond < MARCH.start else plain + line(beyond)).encode()
    assert alike(block) is None
    piece = archive_rows._piece(block, MARCH, last=True)
    assert piece.bars.height == 24
    assert piece.rejected["reason"][0].endswith("lies outside the archive 2024-03")


def test_a_week_beyond_the_end_of_its_month_is_not_closed():
    april = Archive("BTCUSDT", "1w", date(2024, 4, 1), monthly=True)
    block = lines("2024-04-22", "2024-05-06", interval="1w").encode()
    quick = archive_rows._plain(block, april)
    assert quick["is_closed"].to_list() == [True, False]
    assert quick.equals(archive_rows._told(block, april, last=True).bars)


def test_an_archive_of_plain_lines_is_never_cut_into_cells(tmp_path, monkeypatch):
    monkeypatch.setattr(archive_rows, "_told", None)
    assert read(put(tmp_path, "2024-03", lines("2024-03-01", "2024-03-02")))[0].height == 24


@pytest.mark.parametrize(("symbol", "interval"), [("BTCUSDT", "1M"), ("A B", "1h")])
def test_a_series_that_no_table_takes_is_refused_with_its_reason(symbol, interval):
    archive = Archive(symbol, interval, date(2024, 3, 1), monthly=True)
    piece = archive_rows._piece(lines("2024-03-01", "2024-03-02").encode(), archive, last=True)
    assert (piece.bars.height, piece.rejected.height) == (0, 24)


DECIMALS = st.decimals("0.00000001", "99999999999", places=8).map("{:f}".format)
WHOLE = st.integers(0, 10**18 - 1).map(str)
ODD = st.one_of(
    st.from_regex(r"[0-9]{1,22}(\.[0-9]{1,10})?", fullmatch=True),
    st.sampled_from(["0", "1", "0.1", "", ".", "1.", "-1", "1e5", "nan", "\u0661", "1 "]),
)
CELLS = ("open", "quote_volume", "taker_buy_quote_volume", "trades")


@given(
    st.lists(st.tuples(DECIMALS, DECIMALS, DECIMALS, WHOLE), min_size=1, max_size=5),
    st.none() | st.tuples(st.integers(0, 4), st.sampled_from(CELLS), ODD),
)
def test_both_ways_agree_on_any_number(drawn, spoiled):
    rows = [dict(zip(CELLS, cells, strict=True)) for cells in drawn]
    if spoiled is not None:
        at, name, cell = spoiled
        rows[at % len(rows)][name] = cell
    body = "".join(
        line(MARCH.start + at * 3_600_000, high="9" * 20, **cells) for at, cells in enumerate(rows)
    )
    quick = alike(body.encode())
    assert quick is not None or spoiled is not None


@given(st.integers(1, 10**28 - 1), st.integers(0, 8))
def test_every_decimal_of_a_column_is_read_to_its_last_digit(units, places):
    digits = f"{units:028d}"
    text = f"{digits[:20]}.{digits[20:]}"[: 21 + places].rstrip(".")
    assume(int(text.replace(".", "")) > 0)
    body = line(MARCH.start, open=text, close=text, low=text, high=f"{'9' * 20}.99999999")
    quick = alike(body.encode())
    assert quick["open"].cast(pl.String)[0] == f"{int(digits[:20])}.{text[21:]:0<8}"


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
