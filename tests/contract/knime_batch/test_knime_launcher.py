import sys
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bentley.domain.errors import ConfigurationError
from bentley.knime.launcher import (
    command,
    discover_launcher,
    require_server_database,
    variable_argument,
)

sys.path.insert(0, str(Path(__file__).parent))
import standin

texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
awkward = st.text(st.sampled_from(",'\"\\ \n\t\rnt=;$%aé"))


def executable(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return path


@given(name=texts.filter(bool) | awkward.filter(bool), value=texts | awkward)
@example(name="a", value="")
@example(name="a,b", value='"')
@example(name="a", value="x\\")
@example(name="a", value="\\n\n")
def test_text_is_read_back_exactly(name, value):
    key, _, rest = variable_argument(name, value).partition("=")
    assert key == "-workflow.variable"
    assert standin.split(rest) == [name, value, "String"]


@given(value=st.integers(-(2**31), 2**31 - 1) | st.floats(allow_nan=False, allow_infinity=False))
def test_numbers_are_read_back_exactly(value):
    name, read = standin.variable(variable_argument("n", value).partition("=")[2])
    assert (name, read, type(read)) == ("n", value, type(value))


def test_plain_values_stay_plain():
    assert variable_argument("batch_id", "01H-x") == "-workflow.variable=batch_id,01H-x,String"
    assert variable_argument("n", 7) == "-workflow.variable=n,7,int"


@pytest.mark.parametrize("value", [True, 2**31, float("nan"), float("inf"), "a\0b", None])
def test_what_knime_can_not_take_is_refused(value):
    with pytest.raises(ConfigurationError, match="'n'"):
        variable_argument("n", value)


@pytest.mark.parametrize("name", ["", "a\0b"])
def test_a_name_that_is_none(name):
    with pytest.raises(ConfigurationError, match="name of a workflow variable"):
        variable_argument(name, 1)


@pytest.mark.parametrize(
    ("memory", "threads"), [("4", 1), ("lots", 1), ("-Xmx4g", 1), ("0g", 1), ("4g", 0)]
)
def test_memory_and_threads_are_checked(memory, threads):
    with pytest.raises(ConfigurationError):
        command(
            *(Path("knime"), Path("w"), {}),
            workspace=Path("d"),
            temporary=Path("t"),
            memory=memory,
            threads=threads,
        )


@pytest.mark.parametrize(
    ("made", "given_path"),
    [
        ("knime", "knime"),
        ("knime", "."),
        ("knime.exe", "."),
        ("KNIME 5.4.app/Contents/MacOS/Knime", "KNIME 5.4.app"),
        ("KNIME 5.4.app/Contents/MacOS/Knime", "."),
        ("own-wrapper.sh", "own-wrapper.sh"),
    ],
)
def test_the_launcher_is_found(tmp_path, made, given_path):
    expected = executable(tmp_path / made)
    assert discover_launcher(tmp_path / given_path) == expected


def test_of_two_bundles_the_newer_is_taken(tmp_path):
    executable(tmp_path / "KNIME 5.1.app/Contents/MacOS/Knime")
    newer = executable(tmp_path / "KNIME 5.4.app/Contents/MacOS/Knime")
    assert discover_launcher(tmp_path) == newer


def test_a_bare_name_is_looked_up_on_path(tmp_path, monkeypatch):
    expected = executable(tmp_path / "bin" / "knime")
    monkeypatch.setenv("PATH", str(expected.parent))
    monkeypatch.chdir(tmp_path)
    assert discover_launcher(Path("knime")) == expected


@pytest.mark.parametrize("name", ["gone", "."])
def test_no_launcher_there(tmp_path, name):
    with pytest.raises(ConfigurationError, match=r"KNIME_EXECUTABLE.*unset KNIME_EXECUTABLE"):
        discover_launcher(tmp_path / name)


def test_a_launcher_that_may_not_be_executed(tmp_path):
    path = executable(tmp_path / "knime")
    path.chmod(0o644)
    with pytest.raises(ConfigurationError, match="chmod"):
        discover_launcher(path)


def test_sqlite_is_refused_and_a_server_is_not():
    require_server_database("jdbc:mysql://h:3307/mansa_bot")
    require_server_database("jdbc:mariadb://h/mansa_bot")
    for url in ("jdbc:sqlite:/x.db?password=hush", "sqlite:////x.db?password=hush", ""):
        with pytest.raises(ConfigurationError, match="BENTLEY_WAREHOUSE_URL") as caught:
            require_server_database(url)
        assert "hush" not in str(caught.value)
        assert "x.db" not in str(caught.value)
