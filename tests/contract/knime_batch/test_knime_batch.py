import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest
from pydantic import SecretStr

from bentley.domain.errors import ConfigurationError, FatalError, RetriableError
from bentley.knime.batch import run_batch

PASSWORD = "s3cret word/+"
URL = "jdbc:mysql://db:3307/mansa_bot?user=knime&password=s3cret%20word%2F%2B"


@pytest.fixture
def run(knime, knwf, runs):
    def call(variables=None, **options):
        return run_batch(
            knime.launcher,
            options.pop("workflow", knwf),
            variables or {},
            workspace_parent=runs,
            timeout_s=options.pop("timeout_s", 20),
            grace_s=options.pop("grace_s", 2),
            **options,
        )

    return call


def is_gone(pid):
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_a_run_passes_everything_and_leaves_nothing(knime, run, runs):
    lines = []
    given = {"batch_id": 'a,b "c" \\d', "since": 1_600_000_000, "share": 0.1}
    result = run(given, on_line=lines.append, memory="512m", threads=3)
    assert result.exit_code == 0
    assert 0 < result.seconds < 20
    assert lines == list(result.log_tail)
    assert any("Executing workflow" in line for line in lines)
    options = knime.seen["options"]
    assert options["variables"] == given
    assert options["-application"] == "org.knime.product.KNIME_BATCH_APPLICATION"
    wanted = ["-nosplash", "-consoleLog", "--launcher.suppressErrors", "--launcher.appendVmargs"]
    assert options["flags"] == [*wanted, "-reset", "-nosave", "-failonloaderror"]
    assert options["vm"][:2] == ["-Xmx512m", "-Dorg.knime.core.maxThreads=3"]
    assert "-vmargs" in knime.seen["argv"][-4:]
    assert list(runs.iterdir()) == []


def test_each_run_has_a_workspace_of_its_own(knime, run, runs):
    workspaces = set()
    for _ in range(2):
        run()
        workspaces.add(knime.seen["options"]["-data"])
    assert len(workspaces) == 2
    assert all(Path(workspace).is_relative_to(runs) for workspace in workspaces)


def test_a_workflow_folder_works_and_is_left_as_it_was(knime, run, folder):
    before = (folder / "workflow.knime").read_bytes()
    (folder / ".knimeLock").touch()  # open in someone's KNIME: the copy is not
    run(workflow=folder, credentials={"jdbc_url": SecretStr(URL)})
    assert knime.seen["stored"]["jdbc_url"] == URL
    assert (folder / "workflow.knime").read_bytes() == before


def test_a_secret_reaches_knime_and_nothing_else(knime, run, monkeypatch):
    monkeypatch.setenv("BENTLEY_WAREHOUSE_URL", "mysql://x")
    monkeypatch.setenv("SOMETHING", f"has {URL} in it")
    knime.behave(
        lines=["connecting to {url}", f"as knime with '{PASSWORD}'", "s3cret%20word%2F%2B"]
    )
    result = run({"batch_id": "7"}, credentials={"jdbc_url": SecretStr(URL)})
    seen = knime.seen
    assert seen["stored"]["jdbc_url"] == URL
    for hidden in (URL, PASSWORD, "s3cret"):
        assert not any(hidden in argument for argument in seen["argv"])
        assert not any(hidden in value for value in seen["environment"].values())
        assert not any(hidden in line for line in result.log_tail)
    assert "BENTLEY_WAREHOUSE_URL" not in seen["environment"]
    assert "connecting to ***" in result.log_tail
    assert set(seen["modes"].values()) == {"0o700", "0o600"}


@pytest.mark.parametrize("written", ["my+secret%2F", "my%20secret%2F", "my%20secret/"])
def test_a_password_is_struck_out_however_it_is_written(knime, run, written):
    knime.behave(lines=["as my secret/", "my+secret/", "my%20secret%2F", "my+secret%2F"])
    address = f"jdbc:mysql://db:3307/mansa_bot?user=knime&password={written}"
    result = run(credentials={"jdbc_url": SecretStr(address)})
    assert [line for line in result.log_tail if "secret" in line] == []
    assert "as ***" in result.log_tail


def test_no_secret_in_the_error_of_a_failed_run(knime, run):
    knime.behave(lines=["cannot open {url}"], exit=4)
    with pytest.raises(FatalError, match=r"cannot open \*\*\*") as caught:
        run(credentials={"jdbc_url": SecretStr(URL)})
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("length", range(8_192 - len(URL) - 2, 8_194, 7))
def test_a_secret_cut_by_the_bound_of_a_line_is_not_shown(knime, run, length):
    knime.behave(flood=length)
    result = run(credentials={"jdbc_url": SecretStr(URL)})
    line = next(line for line in result.log_tail if line.startswith("xxx"))
    assert set(line) <= set("x* .")
    assert len(line) < 8_300


def test_a_line_without_end_stays_bounded(knime, run):
    knime.behave(flood=3_000_000)
    result = run()
    assert max(map(len, result.log_tail)) < 9_000


def test_success_of_knime_is_not_success_of_the_work(knime, run):
    knime.behave(no_landing=True)
    assert run().exit_code == 0
    assert not knime.has("landing.txt")


@pytest.mark.parametrize(
    "case",
    [
        ({"exit": 2}, ConfigurationError, "refused an argument"),
        ({"exit": 3}, FatalError, "could not be loaded"),
        (
            {"exit": 3, "lines": ["Node not available from extension X"]},
            ConfigurationError,
            "update",
        ),
        (
            {"exit": 3, "lines": ["Unsupported workflow version"]},
            ConfigurationError,
            "update KNIME",
        ),
        ({"exit": 3, "lines": ["x .knimeLock y"]}, ConfigurationError, "close it in KNIME"),
        ({"exit": 4, "lines": ["ERROR DB Writer 0:5 Execute failed"]}, FatalError, "DB Writer 0:5"),
        ({"exit": 4, "lines": ["Communications link failure"]}, RetriableError, "did not answer"),
        ({"exit_at_start": 1}, ConfigurationError, "could not start Java"),
        ({"exit_at_start": 5}, ConfigurationError, "Install KNIME Extensions"),
        ({"exit_at_start": 13}, FatalError, "failed to start"),
        (
            {"exit_at_start": 13, "text": 'Application "x" could not be found in the registry.'},
            ConfigurationError,
            "Install KNIME Extensions",
        ),
        ({"exit_at_start": 13, "text": "cannot open display: "}, ConfigurationError, "xvfb-run"),
        ({"exit_at_start": 23}, RetriableError, "restarted"),
        ({"exit_at_start": 24}, RetriableError, "relaunched"),
        ({"exit_at_start": 77}, FatalError, "not a code that KNIME documents"),
        ({"signal": "SIGKILL"}, RetriableError, "signal 9"),
        ({"exit_at_start": 137}, RetriableError, "signal 9"),
        ({"missing_credential": True}, ConfigurationError, "credential"),
        ({"missing_credential": True, "exit": 4}, ConfigurationError, "credential"),
        ({"drop_arguments": True}, ConfigurationError, "ran nothing"),
    ],
)
def test_each_end_has_its_error_and_leaves_nothing(knime, run, runs, case):
    behaviour, kind, text = case
    knime.behave(**behaviour)
    with pytest.raises(kind, match=text):
        run()
    assert list(runs.iterdir()) == []


def test_a_prompt_finds_no_one(knime, run):
    run()
    assert knime.seen["stdin"] == ""


def test_a_variable_that_the_workflow_lacks_is_refused_before_the_start(knime, run):
    with pytest.raises(ConfigurationError, match=r"no variable batchid.*batch_id"):
        run({"batchid": "7"})
    with pytest.raises(ConfigurationError, match="no variable url"):
        run(credentials={"url": SecretStr(URL)})
    with pytest.raises(ConfigurationError, match="'since' is no text"):
        run(credentials={"since": SecretStr(URL)})
    with pytest.raises(ConfigurationError, match="both openly"):
        run({"jdbc_url": "x"}, credentials={"jdbc_url": SecretStr(URL)})
    assert not knime.has("seen.json")


def test_a_workflow_that_is_none(knime, run, tmp_path):
    (tmp_path / "text.knwf").write_text("no zip")
    (tmp_path / "empty").mkdir()
    for name, text in (("text.knwf", "no zip"), ("empty", "no workflow"), ("gone", "there is no")):
        with pytest.raises(ConfigurationError, match=text):
            run(workflow=tmp_path / name)
    assert not knime.has("seen.json")


@pytest.mark.parametrize("heeds", [True, False])
def test_the_time_limit_cancels_and_then_ends_it(knime, run, runs, heeds):
    knime.behave(seconds=60, heeds_cancel=heeds, ignore_term=not heeds)
    started = time.monotonic()
    with pytest.raises(RetriableError, match="did not end within 1 s"):
        run(timeout_s=1, grace_s=1)
    assert time.monotonic() - started < 10
    assert knime.has("cancelled") is heeds
    assert is_gone(knime.seen["pid"])
    assert list(runs.iterdir()) == []


@pytest.mark.parametrize("kind", ["child", "orphan"])
@pytest.mark.parametrize("ends", [True, False])
def test_what_left_the_process_group_is_ended_too(knime, run, runs, kind, ends):
    # it ignores SIGTERM, holds our pipe open, and as an orphan has no parent to find it by
    knime.behave(grandchild=kind, **({} if ends else {"seconds": 60}))
    if ends:
        run(grace_s=0.5)
    else:
        with pytest.raises(RetriableError):
            run(timeout_s=1.5, grace_s=0.5)
    assert is_gone(int((knime.folder / "grandchild.pid").read_text()))
    assert list(runs.iterdir()) == []


def test_an_exception_of_the_listener_ends_the_run(knime, run, runs):
    knime.behave(seconds=60, heeds_cancel=True)

    def listen(line):
        raise ValueError(line)

    with pytest.raises(ValueError, match="Executing"):
        run(on_line=listen)
    assert knime.has("cancelled")
    assert list(runs.iterdir()) == []


def test_ctrl_c_cancels_cleanly(knime, run, runs):
    knime.behave(seconds=60, heeds_cancel=True)

    def interrupt():
        while not knime.has("hanging"):
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        run()
    thread.join()
    assert knime.has("cancelled")
    assert is_gone(knime.seen["pid"])
    assert list(runs.iterdir()) == []


@pytest.fixture
def hanging(knime, knwf, runs):
    """A process of ours whose KNIME hangs with the password in its folder, and what KNIME started."""
    knime.behave(seconds=60, grandchild="orphan")
    script = (
        "from pathlib import Path; from pydantic import SecretStr;"
        "from bentley.knime.batch import run_batch;"
        f"run_batch(Path({str(knime.launcher)!r}), Path({str(knwf)!r}), {{}},"
        f" workspace_parent=Path({str(runs)!r}), timeout_s=60,"
        f" credentials={{'jdbc_url': SecretStr({URL!r})}})"
    )
    with subprocess.Popen([sys.executable, "-c", script]) as ours:
        while not knime.has("hanging"):
            time.sleep(0.05)
        left = [knime.seen["pid"], int((knime.folder / "grandchild.pid").read_text())]
        yield ours, left
        ours.kill()
    for pid in left:
        if not is_gone(pid):
            psutil.Process(pid).kill()


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_the_death_of_its_owner_ends_a_run(hanging, runs, how):
    ours, left = hanging
    (watchdog,) = [one for one in psutil.Process(ours.pid).children() if one.pid != left[0]]
    assert not any(map(is_gone, left))
    ours.send_signal(how)
    deadline = time.monotonic() + 15
    while time.monotonic() < deadline and not (all(map(is_gone, left)) and is_gone(watchdog.pid)):
        time.sleep(0.1)
    assert all(map(is_gone, [*left, watchdog.pid]))
    assert list(runs.iterdir()) == []


def test_the_next_run_clears_up_where_the_watchdog_was_killed_too(hanging, knime, run, runs):
    ours, left = hanging
    for child in psutil.Process(ours.pid).children():
        if child.pid not in left:
            child.kill()
    ours.kill()
    ours.wait()
    time.sleep(0.5)
    assert not any(map(is_gone, left))
    assert len(list(runs.iterdir())) == 1
    knime.behave()
    run()
    assert all(map(is_gone, left))
    assert list(runs.iterdir()) == []


def test_two_runs_at_once_leave_each_other_alone(knime, run, runs):
    knime.behave(seconds=1.5)
    results = []
    threads = [threading.Thread(target=lambda: results.append(run())) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [result.exit_code for result in results] == [0, 0]
    assert list(runs.iterdir()) == []


def test_a_launcher_that_is_no_program(knime, run):
    knime.launcher.write_text("\x7fnot a program")
    with pytest.raises(ConfigurationError, match="could not be started"):
        run()
