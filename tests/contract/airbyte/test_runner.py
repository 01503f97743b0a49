from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import psutil
import pytest

from bentley.airbyte import protocol, runner
from bentley.airbyte.failures import (
    SourceConfigurationError,
    SourceError,
    SourceFatalError,
    SourceRetriableError,
)
from bentley.airbyte.runner import Batch, Source
from bentley.domain.errors import ConfigurationError, FatalError, RetriableError

CATALOG = protocol.incremental_catalog(["rows", "others"])


def read(source, config=None, streams=("rows", "others"), **options):
    return runner.read(source, config or {}, streams, catalog=CATALOG, **options)


def drain(batches):
    """All batches, and the error that followed them."""
    got = []
    try:
        for batch in batches:
            got.append(batch)  # noqa: PERF402 - what came before an error counts
    except Exception as error:  # noqa: BLE001 - the test asserts on it
        return got, error
    return got, None


def wait_gone(pids, seconds=8):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        alive = [pid for pid in pids if _runs(pid)]
        if not alive:
            return []
        time.sleep(0.05)
    return alive


def _runs(pid):
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_states_come_with_the_rows_they_cover_and_batches_are_bounded(fake):
    source = fake("""
        for n in range(5):
            record(n=n)
        state(5)
        record(n=5)
        record("others", n=0)
        state(6)
        state(7)
        record(n=6)
    """)
    batches = list(read(source, batch_rows=2))
    numbers = [[row["n"] for row in batch.rows] for batch in batches]
    assert numbers == [[0, 1], [2, 3], [4], [0], [5], [], [6]]
    assert [len(batch.states) for batch in batches][:3] == [0, 0, 1]
    assert batches[-1].states == ()
    at = [s["stream"]["stream_state"]["at"] for batch in batches for s in batch.states]
    assert at == [5, 6, 7]
    seen = 0
    for batch in batches:  # a state never runs ahead of its rows
        seen += len(batch.rows) if batch.stream == "rows" else 0
        for state in batch.states:
            assert state["stream"]["stream_state"]["at"] <= seen + 1


def test_a_state_waits_for_the_rows_of_every_stream(fake):
    source = fake("""
        record("others", n=1)
        record(n=1)
        state(1)
    """)
    batches = list(read(source))
    assert {batch.stream: len(batch.rows) for batch in batches} == {"rows": 1, "others": 1}
    assert [len(batch.states) for batch in batches] == [0, 1]


def test_numbers_keep_every_digit(fake):
    source = fake("""
        line = '{"type":"RECORD","record":{"stream":"rows","emitted_at":1,"data":%s}}'
        for data in (
            '{"price":"0.10","n":3}',
            '{"price":0.1000000000000000055511151231257827,"n":3}',
            '{"deep":{"list":[1,2.50]},"big":123456789012345678901234567890}',
            '{"odd":NaN}',
        ):
            print(line % data, flush=True)
    """)
    rows = [row for batch in read(source) for row in batch.rows]
    assert rows == [
        {"price": "0.10", "n": 3},
        {"price": "0.1000000000000000055511151231257827", "n": 3},
        {"deep": {"list": [1, "2.50"]}, "big": 123456789012345678901234567890},
        {"odd": "NaN"},
    ]


def test_strange_lines_are_logged_and_nothing_is_lost(fake):
    said = []
    source = fake("""
        print("hello", flush=True)
        print('{"no": "message"}', flush=True)
        print("{half a dict", flush=True)
        print("[1, 2]", flush=True)
        print("", flush=True)
        record(n=1)
        log("working", "WARN")
        say(type="CONTROL", control={"type": "CONNECTOR_CONFIG"})
        sys.stdout.buffer.write(b"\\xff\\xfe\\n")
        record(n=2)
    """)
    batches = list(read(source, on_log=lambda level, text: said.append((level, text))))
    assert [row["n"] for batch in batches for row in batch.rows] == [1, 2]
    assert ("WARN", "working") in said
    assert ("INFO", "hello") in said
    assert ("INFO", "{half a dict") in said
    assert len(said) == 6


def test_a_broken_message_is_an_error_after_the_rows_before_it(fake):
    source = fake("""
        record(n=1)
        state(1)
        print('{"type":"RECORD","record":{"stream":"rows","da', flush=True)
        record(n=2)
        time.sleep(60)
    """)
    batches, error = drain(read(source))
    assert [row["n"] for batch in batches for row in batch.rows] == [1]
    assert isinstance(error, FatalError)
    assert "broken message" in str(error)


@pytest.mark.parametrize("shape", ['{"record":{}}', '{"record":{"stream":"rows"}}', "{}"])
def test_a_record_without_stream_or_data_is_an_error(fake, shape):
    source = fake(f'print(\'{{"type":"RECORD",\' + {shape[1:]!r}.lstrip(), flush=True)')
    _, error = drain(read(source))
    assert isinstance(error, FatalError)


def test_a_source_killed_in_the_middle_of_a_line(fake):
    source = fake("""
        record(n=1)
        state(1)
        record(n=2)
        sys.stdout.write('{"type":"RECORD","record":{"stream":"rows","data":{"n"')
        sys.stdout.flush()
        os.kill(os.getpid(), signal.SIGKILL)
    """)
    batches, error = drain(read(source))
    assert [row["n"] for batch in batches for row in batch.rows] == [1, 2]
    assert [len(batch.states) for batch in batches] == [1, 0]
    assert isinstance(error, RetriableError)
    assert "signal 9 in the middle of a message" in str(error)
    assert not error.orderly


def test_a_half_line_is_an_error_even_where_the_source_exits_well(fake):
    source = fake("""
        record(n=1)
        sys.stdout.write('{"ty')
    """)
    batches, error = drain(read(source))
    assert len(batches) == 1
    assert isinstance(error, SourceRetriableError)


def test_a_last_message_without_its_newline_counts(fake):
    source = fake("""
        sys.stdout.write('{"type":"RECORD","record":{"stream":"rows","data":{"n":1}}}')
    """)
    assert [batch.rows for batch in read(source)] == [[{"n": 1}]]


@pytest.mark.parametrize(
    ("kind", "text", "expected"),
    [
        ("config_error", "no such symbol", SourceConfigurationError),
        ("transient_error", "busy", SourceRetriableError),
        ("system_error", "a bug", SourceFatalError),
        (None, "a bug", SourceFatalError),
        ("system_error", "ConnectionError: connection refused", SourceRetriableError),
    ],
)
def test_a_failure_keeps_its_kind(fake, kind, text, expected):
    source = fake(f"""
        record(n=1)
        error({text!r}, {kind!r}, internal='{{"symbol": "XYZ"}}')
        record(n=2)
        state(2)
        sys.exit(1)
    """)
    batches, error = drain(read(source))
    assert [row["n"] for batch in batches for row in batch.rows] == [1, 2]
    assert batches[-1].states
    assert isinstance(error, expected)
    assert isinstance(error, SourceError)
    assert text in str(error)
    assert error.orderly
    (failure,) = error.failures
    assert failure.stream == "rows"
    assert failure.detail == {"symbol": "XYZ"}


def test_several_failures_are_named_once_each_and_the_worst_that_may_pass_wins(fake):
    source = fake("""
        for _ in range(3):
            error("XYZ: no such symbol", "config_error")
        error("busy", "transient_error", internal='{"retry_after": 30}')
        error("Sync failed: XYZ, busy", "config_error", internal="Concurrent read failure")
        sys.exit(1)
    """)
    _, error = drain(read(source))
    assert isinstance(error, RetriableError)
    assert error.retry_after == 30
    assert [failure.message for failure in error.failures] == ["XYZ: no such symbol", "busy"]


def test_a_failure_counts_even_where_the_source_exits_well(fake):
    _, error = drain(read(fake("""error("half done", "system_error")""")))
    assert isinstance(error, SourceFatalError)


def test_a_stream_left_incomplete_is_an_error(fake):
    source = fake("""
        status("STARTED"); status("RUNNING"); record(n=1); status("INCOMPLETE")
        status("COMPLETE", "others")
    """)
    batches, error = drain(read(source))
    assert len(batches) == 1
    assert isinstance(error, RetriableError)
    assert "rows incomplete" in str(error)


def test_an_exit_code_alone_is_an_error_with_the_end_of_stderr(fake):
    source = fake("""
        record(n=1)
        sys.stderr.write("x" * 50_000 + "the reason")
        sys.exit(3)
    """)
    batches, error = drain(read(source))
    assert len(batches) == 1
    assert isinstance(error, SourceFatalError)
    assert "exited with 3" in str(error)
    assert str(error).endswith("the reason")
    assert len(str(error)) < 3_000


def test_a_flood_of_stderr_blocks_nothing(fake):
    source = fake("""
        record(n=1)
        block = "e" * (1 << 20)
        for _ in range(100):
            sys.stderr.write(block)
        record(n=2)
    """)
    assert [row["n"] for batch in read(source) for row in batch.rows] == [1, 2]


def test_long_lines_pass(fake):
    source = fake("""record(text="y" * 5_000_000); record(n=1)""")
    (batch,) = read(source)
    assert len(batch.rows[0]["text"]) == 5_000_000
    assert batch.rows[1] == {"n": 1}


def test_a_silent_source_is_ended(fake, tmp_path):
    source = fake(f"""
        record(n=1)
        Path({str(tmp_path / "pid")!r}).write_text(str(os.getpid()))
        time.sleep(60)
    """)
    batches, error = drain(read(source, idle_timeout_s=1.0, batch_rows=1))
    assert len(batches) == 1
    assert isinstance(error, RetriableError)
    assert "said nothing for 1 s" in str(error)
    assert wait_gone([int((tmp_path / "pid").read_text())]) == []


def test_a_source_that_never_ends_is_ended(fake):
    source = fake("""
        while True:
            record(n=1)
            time.sleep(0.05)
    """)
    _, error = drain(read(source, timeout_s=1.0, idle_timeout_s=30))
    assert isinstance(error, RetriableError)
    assert "longer than 1 s" in str(error)


def test_a_slow_caller_is_no_silent_source(fake):
    source = fake("""
        for n in range(3):
            record(n=n)
            state(n)
    """)
    rows = []
    for batch in read(source, idle_timeout_s=0.8):
        rows += batch.rows
        time.sleep(1.0)
    assert len(rows) == 3


FAMILY = """
    import threading
    child = subprocess.Popen([sys.executable, "-c",
        "import signal, subprocess, sys, time;"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        "p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'],"
        " start_new_session=True);"
        "print(p.pid, flush=True); time.sleep(60)"], stdout=subprocess.PIPE, text=True)
    grandchild = int(child.stdout.readline())
    record(pids=[os.getpid(), child.pid, grandchild])
    state(1)
"""


def test_closing_the_iterator_ends_the_whole_family(fake):
    batches = read(fake(FAMILY + "    time.sleep(60)\n"))
    pids = next(batches).rows[0]["pids"]
    assert all(map(_runs, pids))
    batches.close()
    assert wait_gone(pids) == []


def test_a_source_that_ends_leaves_no_child_behind(fake):
    batches = list(read(fake(FAMILY)))
    assert wait_gone(batches[0].rows[0]["pids"]) == []


def test_a_killed_parent_takes_the_source_with_it(fake, tmp_path):
    source = fake(FAMILY + "    time.sleep(60)\n")
    program = tmp_path / "parent.py"
    program.write_text(
        textwrap.dedent(f"""
            import sys, time
            from bentley.airbyte import protocol, runner
            source = runner.Source({source.command!r})
            catalog = protocol.incremental_catalog(["rows"])
            for batch in runner.read(source, {{}}, ["rows"], catalog=catalog):
                print(*batch.rows[0]["pids"], flush=True)
                time.sleep(60)
        """)
    )
    with subprocess.Popen(
        [sys.executable, str(program)], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        pids = [int(word) for word in parent.stdout.readline().split()]
        guard = psutil.Process(pids[0]).parent()
        os.kill(parent.pid, signal.SIGKILL)
        parent.wait()
    assert len(pids) == 3
    assert wait_gone([*pids, guard.pid]) == []


def test_configuration_goes_by_private_files_and_is_masked_everywhere(fake):
    said = []
    secret = 'p/ss"w&rd'
    source = fake("""
        path = Path(argument("config"))
        config = content("config")
        assert content("state") == [{"type": "STREAM"}]
        assert content("catalog")["streams"][0]["sync_mode"] == "incremental"
        mode = oct(path.stat().st_mode & 0o777) + oct(path.parent.stat().st_mode & 0o777)
        shown = open(f"/proc/{os.getpid()}/cmdline").read() if os.path.exists("/proc") else ""
        record(mode=mode, path=str(path), leaked=config["api_key"] in shown,
               env=[name for name in os.environ if name.startswith("BENTLEY_")])
        log("key is " + config["api_key"] + " and " + config["address"])
        print("stray " + config["hidden"])
        sys.stderr.write(config["api_key"])
        error("refused: " + json.dumps(config), "config_error",
              internal=json.dumps({"used": config["api_key"]}))
        sys.exit(1)
    """)
    spec = {"connectionSpecification": {"properties": {"hidden": {"airbyte_secret": True}}}}
    config = {
        "api_key": secret,
        "address": "https://me:sesame@host/",
        "hidden": "flagged-value",
        "plain": "shown",
    }
    os.environ["BENTLEY_WAREHOUSE_URL"] = "mysql://u:p@h/d"
    try:
        batches, error = drain(
            read(
                source,
                config,
                state=[{"type": "STREAM"}],
                connector_spec=spec,
                on_log=lambda _, text: said.append(text),
            )
        )
    finally:
        del os.environ["BENTLEY_WAREHOUSE_URL"]
    row = batches[0].rows[0]
    assert row["mode"] == "0o6000o700"
    assert not row["leaked"]
    assert row["env"] == []
    assert not Path(row["path"]).parent.exists()
    texts = "\n".join([*said, str(error), repr(error.failures)])
    for hidden in (secret, secret.replace('"', '\\"'), "sesame", "flagged-value"):
        assert hidden not in texts
    assert "shown" in texts
    assert "****" in said[0]


def test_a_command_that_is_not_there():
    with pytest.raises(ConfigurationError, match="no-such-source can't be started"):
        list(read(Source(("no-such-source",))))


def test_an_unknown_stream_is_refused_before_anything_starts():
    with pytest.raises(ConfigurationError, match="no stream nonsense"):
        list(read(Source(("no-such-source",)), streams=["nonsense"]))


def test_the_short_commands(fake):
    source = fake("""
        command = sys.argv[1]
        log("hello")
        if command == "spec":
            say(type="SPEC", spec={"connectionSpecification": {"title": "T"}})
        elif command == "discover":
            say(type="CATALOG", catalog={"streams": [
                {"name": "rows", "supported_sync_modes": ["full_refresh"], "json_schema": {}}]})
        elif command == "check":
            good = content("config")["good"]
            say(type="CONNECTION_STATUS", connectionStatus={
                "status": "SUCCEEDED" if good else "FAILED", "message": "wrong s3cret"})
        else:
            record(mode=content("catalog")["streams"][0]["sync_mode"])
    """)
    assert runner.spec(source)["connectionSpecification"]["title"] == "T"
    runner.check(source, {"good": True})
    with pytest.raises(ConfigurationError, match=r"refuses its configuration: wrong \*\*\*\*"):
        runner.check(source, {"good": False, "password": "s3cret"})
    (batch,) = runner.read(source, {"good": True}, ["rows"])
    assert batch == Batch("rows", [{"mode": "full_refresh"}])


def test_a_short_command_that_answers_nothing_tells_why(fake):
    with pytest.raises(SourceFatalError, match=r"exited with 2.*no spec here"):
        runner.spec(fake("""sys.stderr.write("no spec here"); sys.exit(2)"""))
    with pytest.raises(FatalError, match="gave no SPEC"):
        runner.spec(fake("pass"))


def test_memory_does_not_grow_with_the_rows(fake):
    source = fake("""
        import itertools
        line = json.dumps({"type": "RECORD", "record": {"stream": "rows", "emitted_at": 1,
            "data": {"open": "1.00000000", "n": 1, "text": "z" * 300}}}) + "\\n"
        for _ in range(300):
            sys.stdout.write(line * 1000)
    """)
    process = psutil.Process()
    first = None
    rows = 0
    for batch in itertools.islice(read(source, batch_rows=5_000), None):
        rows += len(batch.rows)
        first = first or process.memory_info().rss
    assert rows == 300_000
    assert process.memory_info().rss - first < 60 << 20
