"""Folders of recorded klines: what is read, and what is refused with file and line."""

from pathlib import Path

import pytest
import zstandard

from bentley.domain.errors import ConfigurationError
from bentley.services.exchange.recorded import RecordedMarket

HOUR = 3_600_000
DAY = 24 * HOUR
START = 1_600_041_600_000
DATA = Path(__file__).resolve().parents[3] / "../shared/data"


def row(hour, *, scale=1):
    at = START + hour * HOUR
    return [at * scale, *"1234", "5.5", (at + HOUR) * scale - 1, "6", 7, "2", "3", "0"]


def served(market, symbol="BTCUSDT", interval="1h", now=START + 9 * DAY):
    return market.klines(symbol, interval, None, None, 1000, now)


def expected(*hours):
    return [tuple(row(hour)) for hour in hours]


def test_a_file_with_a_header(write):
    market = RecordedMarket(write("BTCUSDT-1h.csv", [row(0), row(1)]))
    assert served(market) == expected(0, 1)
    assert market.symbols() == ("BTCUSDT",)
    assert market.intervals("BTCUSDT") == ("1h",)


def test_a_file_without_a_header_in_microseconds(write):
    folder = write("BTCUSDT-1h.csv", [row(0, scale=1000), row(1, scale=1000)], header=None)
    assert served(RecordedMarket(folder)) == expected(0, 1)


def test_windows_line_ends_and_a_byte_order_mark(write):
    folder = write("BTCUSDT-1h.csv", [row(0)])
    text = (folder / "BTCUSDT-1h.csv").read_bytes().replace(b"\n", b"\r\n")
    (folder / "BTCUSDT-1h.csv").write_bytes(b"\xef\xbb\xbf" + text + b"\r\n")
    assert served(RecordedMarket(folder)) == expected(0)


def test_compressed_and_plain_parts_of_months_are_one_series(write):
    folder = write("BTCUSDT-1h-2020-10.csv", [row(5)], header=None)
    write("BTCUSDT-1h-2020-09.csv", [row(0), row(1)])
    plain = (folder / "BTCUSDT-1h-2020-09.csv").read_bytes()
    (folder / "BTCUSDT-1h-2020-09.csv.zst").write_bytes(zstandard.compress(plain))
    (folder / "BTCUSDT-1h-2020-09.csv").unlink()
    assert served(RecordedMarket(folder)) == expected(0, 1, 5)


def test_cells_stay_text_to_the_character(write):
    odd = [
        START,
        "01.10",
        "1e5",
        "+3",
        "0.30000000000000004",
        "0",
        START + 9,
        "",
        7,
        " 2",
        "3",
        "x",
    ]
    folder = write("BTCUSDT-1h.csv", [odd])
    assert served(RecordedMarket(folder)) == [tuple(odd)]


def test_files_are_read_only_when_asked_for(write):
    folder = write("BTCUSDT-1h.csv", [row(0)])
    write("ETHUSDT-1h.csv", [row(0), ["broken"]])
    market = RecordedMarket(folder)
    assert served(market) == expected(0)
    with pytest.raises(ConfigurationError, match=r"ETHUSDT-1h.csv, line 3: 1 cells"):
        served(market, "ETHUSDT")


def test_last_close_is_over_all_or_the_named(write):
    folder = write("BTCUSDT-1h.csv", [row(0), row(1)])
    write("ETHUSDT-1h.csv", [row(0)])
    market = RecordedMarket(folder)
    assert market.last_close() == START + 2 * HOUR - 1
    assert market.last_close(symbols=["ETHUSDT"]) == START + HOUR - 1
    with pytest.raises(ConfigurationError, match="no klines"):
        market.last_close(intervals=["4h"])


def test_symbols_restrict_the_folder(write):
    folder = write("BTCUSDT-1h.csv", [row(0)])
    write("ETHUSDT-1h.csv", [row(0)])
    assert RecordedMarket(folder, ["ETHUSDT"]).symbols() == ("ETHUSDT",)
    with pytest.raises(ConfigurationError, match="SOLUSDT"):
        RecordedMarket(folder, ["ETHUSDT", "SOLUSDT"])


def test_origin_names_the_folder(write):
    folder = write("BTCUSDT-1h.csv", [row(0)])
    assert RecordedMarket(folder).origin == f"replay:{folder.name}"


def test_a_missing_or_empty_folder_is_named(tmp_path):
    with pytest.raises(ConfigurationError, match="nowhere is not a folder"):
        RecordedMarket(tmp_path / "nowhere")
    (tmp_path / "notes.csv").write_text("a,b\n")
    (tmp_path / "BTCUSDT_1h.csv").write_text("a,b\n")
    with pytest.raises(ConfigurationError, match=f"{tmp_path} holds no recorded klines"):
        RecordedMarket(tmp_path)


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ("open_time,open,high,low,close,volume", "line 1: 6 columns instead of the 12"),
        (
            "open_time,open,low,high,close,volume,close_time,q,trades,a,b,ignore",
            "line 1: column 3 is 'low', not high",
        ),
        ("", "line 1: the file is empty"),
    ],
)
def test_a_wrong_header_is_refused_at_once(tmp_path, header, said):
    (tmp_path / "BTCUSDT-1h.csv").write_text(header + "\n")
    with pytest.raises(ConfigurationError, match=said) as caught:
        RecordedMarket(tmp_path)
    assert str(tmp_path / "BTCUSDT-1h.csv") in str(caught.value)


def test_a_file_that_is_no_zstd_is_named(tmp_path):
    (tmp_path / "BTCUSDT-1h.csv.zst").write_bytes(b"plain")
    with pytest.raises(ConfigurationError, match=r"BTCUSDT-1h.csv.zst cannot be read"):
        RecordedMarket(tmp_path)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([row(0), row(1)[:-1]], "line 3: 11 cells instead of 12"),
        ([row(0), [*row(1), "1"]], "line 3: 13 cells instead of 12"),
        ([row(0), ["2020-09-14", *row(1)[1:]]], "line 3: open_time '2020-09-14' is not epoch"),
        ([row(0), ["x" * 13, *row(1)[1:]]], "line 3: open_time 'xxxxxxxxxxxxx' is not epoch"),
        ([[*row(0)[:6], "", *row(0)[7:]]], "line 2: close_time '' is not epoch"),
        ([row(1), row(0)], "line 3: open_time 1600041600000 does not follow 1600045200000"),
        ([row(0), row(1), row(1)], "line 4: open_time 1600045200000 does not follow"),
        ([row(0), ["½", *row(1)[1:]]], "line 3: a cell holds characters that are not ASCII"),
        ([], "line 2: the file holds no rows"),
    ],
)
def test_a_wrong_row_is_refused_with_its_line(write, rows, said):
    market = RecordedMarket(write("BTCUSDT-1h.csv", rows))
    with pytest.raises(ConfigurationError, match=said):
        served(market)


def test_a_file_is_indexed_in_pieces_as_in_one(write, monkeypatch):
    rows = [row(hour) for hour in range(20)]
    folder = write("BTCUSDT-1h.csv", rows)
    monkeypatch.setattr("bentley.services.exchange.table._PIECE", 150)
    assert served(RecordedMarket(folder)) == expected(*range(20))
    write("BTCUSDT-1h.csv", [*rows, ["x"]])
    with pytest.raises(ConfigurationError, match="line 22: 1 cells"):
        served(RecordedMarket(folder))
    write("BTCUSDT-1h.csv", [*rows, row(3)])
    with pytest.raises(ConfigurationError, match="line 22: open_time"):
        served(RecordedMarket(folder))


def test_parts_that_overlap_are_refused(write):
    folder = write("BTCUSDT-1h-2020-09.csv", [row(0), row(1)])
    write("BTCUSDT-1h-2020-10.csv", [row(1)])
    with pytest.raises(
        ConfigurationError, match=r"2020-10.csv, line 1: open_time .* does not foll"
    ):
        served(RecordedMarket(folder))


def test_archive_files_give_the_rows_of_the_api():
    if not (DATA / "binance_vision_microseconds").is_dir():
        pytest.skip(f"the archive files are not in {DATA}")
    archive = RecordedMarket(DATA / "binance_vision_microseconds")
    api = RecordedMarket(DATA / "binance_klines_2025_01")
    assert archive.last_close() == api.last_close()
    for symbol in ("BTCUSDT", "ETHUSDT"):
        rows = archive.klines(symbol, "1h", 0, None, 1000, archive.last_close() + 1)
        assert len(rows) == 744
        assert rows == api.klines(symbol, "1h", 0, None, 1000, api.last_close() + 1)
