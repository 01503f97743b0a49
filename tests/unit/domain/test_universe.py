"""The universe file: what it names is used, and what is wrong in it is refused with its line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bentley import cli, universe
from bentley.domain import intervals
from bentley.domain.errors import ConfigurationError
from bentley.domain.market import STOCK_SOURCES
from bentley.services import doctor_machine
from bentley.settings import load

FILE = Path("universe.yaml")
WHOLE = """\
# what is fetched
symbols: [BTCUSDT, ethusdt]
intervals:
  - 1h
  - 4h
tickers: [AAPL, brk.b, BF-B, ON, "NO", TRUE, Y]
sources: [yahoo, tiingo]
"""


def refused(text: str | bytes) -> list[str]:
    FILE.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ConfigurationError) as caught:
        load()
    return str(caught.value).splitlines()


def test_without_a_file_there_are_no_tickers_and_every_source():
    found = load()
    assert (found.universe, found.tickers) == (None, ())
    assert found.sources == STOCK_SOURCES


def test_the_file_in_the_working_directory_is_read_each_name_as_its_text():
    FILE.write_text(WHOLE)
    found = load()
    assert found.universe == FILE.resolve()
    assert found.symbols == ("BTCUSDT", "ETHUSDT")
    assert found.intervals == ("1h", "4h")
    assert found.tickers == ("AAPL", "BRK.B", "BF.B", "ON", "NO", "TRUE", "Y")
    assert found.sources == ("yahoo", "tiingo")


def test_a_key_that_is_left_out_keeps_its_default():
    FILE.write_text("tickers: [SPY]\n")
    assert load().tickers == ("SPY",)
    assert load().symbols == ("BTCUSDT", "ETHUSDT", "BNBUSDT", "ADAUSDT")


def test_a_file_may_be_saved_as_windows_does():
    FILE.write_bytes(b"\xef\xbb\xbfsymbols: [BTCUSDT]\r\ntickers:\r\n- AAPL\r\n")
    assert (load().symbols, load().tickers) == (("BTCUSDT",), ("AAPL",))


def test_another_file_can_be_named_and_must_be_there(monkeypatch):
    FILE.write_text("symbols: [BNBUSDT]\n")
    Path("other").mkdir()
    Path("other/mine.yml").write_text("symbols: [ADAUSDT]\n")
    monkeypatch.setenv("BENTLEY_UNIVERSE", "other/mine.yml")
    assert load().symbols == ("ADAUSDT",)
    assert load(universe=FILE).symbols == ("BNBUSDT",)
    monkeypatch.setenv("BENTLEY_UNIVERSE", "")
    assert load().symbols == ("BNBUSDT",)
    for name, reason in (("nowhere.yaml", "No such file"), ("other", "Is a directory")):
        monkeypatch.setenv("BENTLEY_UNIVERSE", name)
        with pytest.raises(ConfigurationError, match=rf"BENTLEY_UNIVERSE: {name} .*{reason}"):
            load()


def test_the_command_line_the_environment_and_env_files_win(monkeypatch):
    FILE.write_text(WHOLE)
    Path(".env").write_text("BENTLEY_SYMBOLS=ADAUSDT\nBENTLEY_INTERVALS=1d\nBENTLEY_TICKERS=ibm\n")
    monkeypatch.setenv("BENTLEY_INTERVALS", "1m")
    monkeypatch.setenv("BENTLEY_SOURCES", "polygon")
    found = load(symbols=["BNBUSDT"])
    assert found.symbols == ("BNBUSDT",)
    assert found.intervals == ("1m",)
    assert found.tickers == ("IBM",)
    assert found.sources == ("polygon",)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("BENTLEY_TICKERS", "AAPL BRK/B", "ticker 'BRK/B'"),
        ("BENTLEY_SOURCES", "bloomberg", "source 'bloomberg' is not one of tiingo, polygon"),
        ("BENTLEY_SOURCES", "", "name at least one source, like tiingo"),
    ],
)
def test_the_environment_is_held_to_the_same(monkeypatch, name, value, said):
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError) as caught:
        load()
    assert str(caught.value).startswith(f"{name}: {said}")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("symbols: [BTCUSDT]\nsymbol: [BTCUSDT]", "2: no key 'symbol': write one of symbols, "),
        ("symbols: [A1]\n? [x, y]\n: [BTCUSDT]", "2: no key that is no name: write one of"),
        ("<<: {symbols: [A1]}", "1: no key '<<'"),
        ("tickers: [A]\n\ntickers: [B]", "3: tickers stood on line 1 already"),
        ("symbols: BTCUSDT", "1: symbols is no list: write it like symbols: [BTCUSDT]"),
        ("tickers: [A]\nintervals:\n", "2: intervals is no list: write it like intervals: [1h]"),
        ("sources:\n  tiingo: true", "2: sources is no list: write it like sources: [tiingo]"),
        ("symbols: [A1]\ntickers: []", "2: tickers is empty: write it like tickers: [AAPL]"),
        ("symbols:\n- A1\n- [A2]", "3: an entry of symbols is no name"),
        ("symbols: &a\n- A1\n- *a", "1: an entry of symbols is no name"),
        ("symbols:\n- A1\n-\n", "3: symbol '' is not written like BTCUSDT"),
        ("symbols:\n- A1\n- a1\n", "3: A1 stood on line 2 already: take one out"),
        ("symbols: [A1,\n  BTC/USDT]", "2: symbol 'BTC/USDT' is not written like BTCUSDT"),
        ("intervals:\n- 1h\n- 7h", "3: interval '7h' is not one of 1s, 1m, "),
        ("intervals: [1H]", "1: interval '1H' is not one of 1s, 1m, "),
        ("tickers:\n- AAPL\n- 005930", "3: ticker '005930' is not written like AAPL"),
        ("tickers:\n- AAPL\n- ~", "3: ticker '~' is not written like AAPL"),
        ("sources: [tiingo, bloomberg]", "1: source 'bloomberg' is not one of tiingo, "),
        ("", "1: nothing is named: write symbols: [BTCUSDT]"),
        ("# nothing\n{}", "2: nothing is named"),
        ("\n- BTCUSDT", "2: nothing is named"),
        ("symbols:\n\t- A1", "2: not YAML: found character '\\t' that cannot start any token; set"),
        ("symbols: [A1\n", "2: not YAML: expected ',' or ']', but got '<stream end>' (while"),
        ("symbols: [A1]\ntickers: [*b]", "2: not YAML: found undefined alias"),
        ("symbols: [A1]\n---\ntickers: [A]", "2: not YAML: but found another document"),
        ("symbols: [A1]\n# \x01", "2: not YAML: the character '\\x01' may not stand there"),
        ("symbols: [A1]\n# \xfc".encode("latin-1"), "2: not UTF-8: save it in that encoding"),
        ("symbols: " + "[" * 5_000, "1: not YAML: lists within lists, too many"),
    ],
)
def test_what_is_wrong_is_refused_with_its_line_and_a_remedy(text, said):
    lines = refused(text)
    assert len(lines) == 1
    assert lines[0].startswith(f"universe.yaml:{said}")


def test_every_fault_is_named_in_the_order_of_the_lines():
    lines = refused("symbols: [BTC/USDT, A1]\ntickers: []\nsource: [yahoo]\nintervals: [1M, 2h]\n")
    assert [line.split(" ")[0] for line in lines] == [f"universe.yaml:{n}:" for n in (1, 2, 3, 4)]


SYMBOLS = st.from_regex(r"[A-Z0-9]{2,20}", fullmatch=True)
TICKERS = st.from_regex(r"[A-Z][A-Z0-9]{0,9}(\.[A-Z0-9]{1,3})?", fullmatch=True)
NAMES = {
    "symbols": SYMBOLS,
    "intervals": st.sampled_from([*intervals.MILLIS]),
    "tickers": TICKERS | st.sampled_from(["ON", "NO", "YES", "TRUE", "NULL", "Y", "INF"]),
    "sources": st.sampled_from(STOCK_SOURCES),
}
UNIVERSES = st.fixed_dictionaries(
    {},
    optional={
        key: st.lists(names, min_size=1, max_size=5, unique=True) for key, names in NAMES.items()
    },
).filter(bool)


def written(names: dict[str, list[str]], *, flow: bool) -> list[str]:
    """Write a universe in one of YAML's two styles, an entry on a line of its own."""
    lines = []
    for key, entries in names.items():
        lines += [f"{key}: [" if flow else f"{key}:"]
        lines += [f"  {entry}," if flow else f"- {entry}" for entry in entries]
        lines += ["]"] * flow
    return lines


@given(names=UNIVERSES, flow=st.booleans())
def test_a_universe_comes_back_as_it_was_written(tmp_path_factory, names, flow):
    file = tmp_path_factory.getbasetemp() / "universe.yaml"
    file.write_text("\n".join(written(names, flow=flow)))
    assert universe.read(file) == {key: tuple(entries) for key, entries in names.items()}


@given(names=UNIVERSES, flow=st.booleans(), data=st.data())
def test_one_wrong_entry_is_named_on_its_own_line(tmp_path_factory, names, flow, data):
    file = tmp_path_factory.getbasetemp() / "universe.yaml"
    key = data.draw(st.sampled_from([*names]))
    at = data.draw(st.integers(0, len(names[key]) - 1))
    names[key][at] += "/"
    lines = written(names, flow=flow)
    wrong = next(n for n, line in enumerate(lines, 1) if "/" in line)
    file.write_text("\n".join(lines))
    with pytest.raises(ConfigurationError) as caught:
        universe.read(file)
    (said,) = str(caught.value).splitlines()
    assert said.startswith(f"{file}:{wrong}: {key[:-1]} {names[key][at]!r} is not ")


@pytest.mark.parametrize("text", [WHOLE, None])
def test_a_child_reads_no_file_of_its_own(monkeypatch, tmp_path, text):
    if text:
        FILE.write_text(text)
    parent = load()
    for name, value in parent.environment().items():
        monkeypatch.setenv(name, value)
    FILE.write_text("symbols: [half saved")  # altered since the parent read it
    (tmp_path / "universe.yaml").write_text("symbols: [BNBUSDT]\ntickers: [SPY]\n")
    monkeypatch.chdir(tmp_path)
    assert load() == parent


@pytest.mark.parametrize(
    "command",
    [
        "run --once",
        "sync",
        "backfill",
        "process",
        "track",
        "verify",
        "data status",
        "data verify",
        "doctor",
        "airflow version",
    ],
)
def test_every_command_refuses_a_wrong_file_before_it_does_anything(command):
    FILE.write_text("symbols: [BTCUSDT]\nintervals: [1h, 7h]\n")
    with pytest.raises(ConfigurationError, match=r"^universe.yaml:2: interval '7h' is not one of"):
        cli.app(command.split())
    assert [*Path().iterdir()] == [FILE]


def test_a_wrong_file_is_a_line_and_exit_code_2():
    FILE.write_text("intervals: [1h, 7h]\n")
    command = [sys.executable, "-c", "from bentley.cli import main; main()", "doctor", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2
    assert done.stderr.startswith("bentley: universe.yaml:1: interval '7h' is not one of 1s, 1m, ")
    assert json.loads(done.stdout)["kind"] == "ConfigurationError"


def test_doctor_says_what_comes_from_the_file(monkeypatch):
    FILE.write_text("symbols: [BNBUSDT]\ntickers: [AAPL, ON]\n")
    monkeypatch.setenv("BENTLEY_TICKERS", "SPY")
    found = {one.detail: one.name for one in doctor_machine.settings(load())}
    assert found["BENTLEY_SYMBOLS=BNBUSDT"] == "universe"
    assert found[f"BENTLEY_UNIVERSE={FILE.resolve()}"] == "universe"
    assert found["BENTLEY_TICKERS=SPY"] == "environment"
