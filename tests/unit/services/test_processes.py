"""Real little processes: trees, sessions, orphans and the deaf are all ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from bentley.domain.errors import ConfigurationError, FatalError
from bentley.services import trees
from bentley.services.processes import ProcessGroup, Stopped, end_leftovers, terminating_signals

SLEEP = "import time; time.sleep(120)"
DEAF = (
    "import signal, time\n"
    "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    "print('ready', flush=True)\n"
    "time.sleep(120)"
)
# a grandchild in a session of its own, whose parent is gone, that ignores SIGTERM
ESCAPED = (
    "import os, signal, sys, time\n"
    "if os.fork() == 0:\n"
    "    os.setsid()\n"
    "    if os.fork() == 0:\n"
    "        signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    "        open(sys.argv[1], 'w').write(str(os.getpid()))\n"
    "        time.sleep(120)\n"
    "    os._exit(0)\n"
    "os.wait()\n"
    "print('ready', flush=True)\n"
    "time.sleep(120)"
)
# a fork that stays in its session and clears its environment as far as /proc shows it
NAMELESS = (
    "import os, subprocess, sys, time\n"
    "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(120)'], env={})\n"
    "open(sys.argv[1], 'w').write(str(child.pid))\n"
    "print('ready', flush=True)\n"
    "os._exit(3)"
)


def python(code: str, *arguments: object) -> list[str]:
    return [sys.executable, "-c", code, *map(str, arguments)]


def wait_for(condition, seconds: float = 10.0):
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)
    return value


def pid_in(path: Path) -> int:
    return int(wait_for(lambda: path.exists() and path.read_text()))


def lives(pid: int) -> bool:
    return bool(psutil.pid_exists(pid) and trees.living([psutil.Process(pid)]))


@pytest.fixture
def home(tmp_path):
    return tmp_path / "home"


@pytest.fixture
def group(home):
    with ProcessGroup(home=home, logs=home / "logs", grace=1.5) as group:
        yield group


def ready(group: ProcessGroup, name: str) -> None:
    wait_for(lambda: "ready" in group.tail(name))


def test_a_process_is_started_with_its_environment_folder_and_log(group, tmp_path):
    code = "import os; print(os.environ['COLOUR'], os.getcwd(), flush=True); import time; time.sleep(120)"
    pid = group.start("painter", python(code), env={"COLOUR": "teal"}, cwd=tmp_path)

    wait_for(lambda: group.tail("painter") == f"teal {tmp_path}")
    assert lives(pid)
    assert group.deaths() == []
    assert os.getsid(pid) == pid


def test_leaving_ends_what_runs(home):
    with ProcessGroup(home=home, logs=home / "logs") as group:
        pids = [group.start(name, python(SLEEP), env={}) for name in ("one", "two")]
        start = time.monotonic()
    assert not any(map(lives, pids))
    assert time.monotonic() - start < 2


def test_a_death_is_told_with_its_code_and_its_last_words(group):
    group.start("fine", python(SLEEP), env={})
    group.start("broken", python("print('no such table'); raise SystemExit(7)"), env={})

    (death,) = wait_for(group.deaths)
    assert (death.name, death.code, death.tail) == ("broken", 7, "no such table")
    with pytest.raises(
        FatalError, match=r"(?s)broken \(pid \d+\) ended with exit code 7.*no such tab"
    ) as e:
        group.check()
    assert "fine" not in str(e.value)


def test_a_death_by_signal_names_the_signal(group):
    os.kill(group.start("victim", python(SLEEP), env={}), signal.SIGKILL)
    (death,) = wait_for(group.deaths)
    assert "signal 9" in str(death)


def test_the_log_of_the_run_before_is_kept(group, home):
    group.start("talker", python("print('first')"), env={})
    wait_for(group.deaths)
    group.stop("talker")
    group.start("talker", python("print('second')"), env={})
    wait_for(group.deaths)
    assert group.tail("talker") == "second"
    assert (home / "logs" / "talker.previous.log").read_text() == "first\n"


def test_the_deaf_are_killed_after_the_grace(home):
    with ProcessGroup(home=home, logs=home / "logs", grace=0.6) as group:
        pid = group.start("deaf", python(DEAF), env={})
        ready(group, "deaf")
        start = time.monotonic()
    assert not lives(pid)
    assert 0.5 < time.monotonic() - start < 5


def test_hurry_cuts_the_grace_short(home):
    with ProcessGroup(home=home, logs=home / "logs", grace=60, hurried=lambda: True) as group:
        pid = group.start("deaf", python(DEAF), env={})
        ready(group, "deaf")
        start = time.monotonic()
    assert not lives(pid)
    assert time.monotonic() - start < 5


def test_a_grandchild_that_left_session_and_parent_is_ended(home, tmp_path):
    with ProcessGroup(home=home, logs=home / "logs", grace=0.6) as group:
        parent = group.start("parent", python(ESCAPED, tmp_path / "pid"), env={})
        ready(group, "parent")
        escaped = pid_in(tmp_path / "pid")
        assert os.getsid(escaped) != parent
    assert not lives(escaped)


def test_an_orphan_without_marks_is_ended_by_its_session(home, tmp_path):
    with ProcessGroup(home=home, logs=home / "logs", grace=0.6) as group:
        group.start("parent", python(NAMELESS, tmp_path / "pid"), env={})
        orphan = pid_in(tmp_path / "pid")
        wait_for(group.deaths)
        assert lives(orphan)
    assert not lives(orphan)


@pytest.mark.skipif(sys.platform != "linux", reason="orphans come to us on Linux alone")
def test_dead_orphans_are_no_zombies_of_ours(home, tmp_path):
    with ProcessGroup(home=home, logs=home / "logs", grace=0.6) as group:
        group.start("parent", python(NAMELESS, tmp_path / "pid"), env={})
        orphan = pid_in(tmp_path / "pid")
        wait_for(lambda: psutil.Process(orphan).ppid() == os.getpid())
        os.kill(orphan, signal.SIGKILL)
        wait_for(lambda: group.deaths() and not psutil.pid_exists(orphan))


def test_ending_one_leaves_the_other(group):
    one = group.start("one", python(SLEEP), env={})
    two = group.start("two", python(SLEEP), env={})
    group.stop("one")
    assert not lives(one)
    assert lives(two)
    assert group.deaths() == []


def test_ending_twice_is_ending_once(home):
    group = ProcessGroup(home=home, logs=home / "logs")
    with group:
        group.start("one", python(SLEEP), env={})
        group.end()
        group.end()
    with ProcessGroup(home=home, logs=home / "logs"):
        pass


def test_a_program_that_is_not_there_is_a_configuration_error(group):
    with pytest.raises(ConfigurationError, match=r"mlflow: /no/such/program could not be started"):
        group.start("mlflow", ["/no/such/program"], env={})


def test_names_are_unique_and_a_group_is_entered_first(group, tmp_path):
    group.start("one", python(SLEEP), env={})
    with pytest.raises(ValueError, match="already in this group"):
        group.start("one", python(SLEEP), env={})
    with pytest.raises(ValueError, match="enter the ProcessGroup"):
        ProcessGroup(home=tmp_path, logs=tmp_path).start("x", python(SLEEP), env={})


def test_the_first_signal_raises_and_the_next_ones_only_hurry():
    with terminating_signals() as signals:
        with pytest.raises(Stopped) as stopped:
            signal.raise_signal(signal.SIGTERM)
        assert stopped.value.exit_code == 143
        assert not signals.hurried
        signal.raise_signal(signal.SIGINT)
        assert signals.hurried
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


SUPERVISOR = """
import sys, time
from pathlib import Path
from bentley.services.processes import ProcessGroup, Stopped, terminating_signals
home, escaped, code, grace = Path(sys.argv[1]), sys.argv[2], sys.argv[3], float(sys.argv[4])
try:
    with terminating_signals() as signals, ProcessGroup(
        home=home, logs=home / "logs", grace=grace, hurried=lambda: signals.hurried
    ) as group:
        group.start("child", [sys.executable, "-c", code, escaped], env={})
        while "ready" not in group.tail("child"):
            time.sleep(0.02)
        print("up", flush=True)
        time.sleep(120)
except Stopped as stopped:
    raise SystemExit(stopped.exit_code)
"""


@pytest.fixture
def supervisor(home, tmp_path):
    started = []

    def start(code: str, grace: float = 1.0) -> tuple[subprocess.Popen[str], int]:
        process = subprocess.Popen(
            python(SUPERVISOR, home, tmp_path / "pid", code, grace),
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        started.append(process)
        assert process.stdout.readline() == "up\n"
        return process, pid_in(tmp_path / "pid")

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()
    end_leftovers(home, grace=0.3)


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_to_the_supervisor_ends_everything(supervisor, signum, code):
    process, escaped = supervisor(ESCAPED)
    os.kill(process.pid, signum)
    assert process.wait(10) == code
    assert not lives(escaped)


def test_a_second_ctrl_c_hurries(supervisor):
    process, escaped = supervisor(ESCAPED, grace=60.0)
    os.kill(process.pid, signal.SIGINT)
    time.sleep(0.5)
    assert process.poll() is None
    os.kill(process.pid, signal.SIGINT)
    assert process.wait(10) == 130
    assert not lives(escaped)


def test_a_second_run_in_the_same_home_is_refused_and_leaves_the_first_alone(supervisor, home):
    process, escaped = supervisor(ESCAPED)
    said = rf"already running in .* \(pid {process.pid}\); stop it, or set another BENTLEY_HOME"
    with pytest.raises(ConfigurationError, match=said), ProcessGroup(home=home, logs=home):
        pass
    with pytest.raises(ConfigurationError, match=said):
        end_leftovers(home)
    assert process.poll() is None
    assert lives(escaped)


def test_a_deleted_lock_file_does_not_free_a_home_in_use(supervisor, home):
    process, escaped = supervisor(ESCAPED)
    (home / ".supervisor").unlink()
    with pytest.raises(ConfigurationError, match=f"pid {process.pid}"):
        end_leftovers(home)
    assert lives(escaped)


def test_what_a_killed_supervisor_leaves_is_ended_at_the_next_start(supervisor, home, tmp_path):
    process, escaped = supervisor(ESCAPED)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert lives(escaped)
    bystander = subprocess.Popen(python(SLEEP), env={trees.RUN_HOME: str(tmp_path / "other")})
    try:
        with ProcessGroup(home=home, logs=home / "logs"):
            assert not lives(escaped)
            assert trees.marked(trees.RUN_HOME, str(home)) == {}
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


def test_leftovers_that_hide_their_marks_are_found_by_the_recorded_session(
    supervisor, home, tmp_path, monkeypatch
):
    process, orphan = supervisor(NAMELESS)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert end_leftovers(home) == [], "a readable environment without a mark is a stranger's"

    process, orphan = supervisor(NAMELESS)
    orphan = int((tmp_path / "pid").read_text())
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    monkeypatch.setattr(trees, "is_unreadable", lambda process: process.pid == orphan)
    assert end_leftovers(home) == [orphan]
    assert not lives(orphan)


def test_leftovers_of_no_run_are_none(home):
    assert end_leftovers(home) == []


def test_a_home_that_cannot_be_written_is_named(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(ConfigurationError, match="BENTLEY_HOME"):
        end_leftovers(blocked / "home")
