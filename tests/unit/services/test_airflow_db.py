from __future__ import annotations

import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from bentley.domain.errors import ConfigurationError, FatalError
from bentley.services import airflow, airflow_db


@pytest.fixture
def env(tmp_path):
    return airflow.environment(home=tmp_path / "home", root=tmp_path, port=18080)


@pytest.fixture
def file(env):
    return Path(env["AIRFLOW_HOME"]) / "airflow.db"


def stamp(file, revision):
    with closing(sqlite3.connect(file)) as database, database:
        database.execute("CREATE TABLE IF NOT EXISTS alembic_version (version_num TEXT)")
        database.execute("DELETE FROM alembic_version")
        database.execute("INSERT INTO alembic_version VALUES (?)", (revision,))
        database.execute("CREATE TABLE IF NOT EXISTS history (id INTEGER)")


@pytest.fixture
def migration(monkeypatch):
    """Stand in for `airflow db migrate`: stamp the newest schema, or fail as told."""
    drafts = []

    def run(draft, env):  # noqa: ARG001
        drafts.append(draft)
        stamp(draft, airflow_db.installed_revisions()[0])

    monkeypatch.setattr(airflow_db, "_run_migration", run)
    return drafts


def write_revisions(folder, **below):
    for name, parents in below.items():
        text = f'"""About it."""\nrevision: str = "{name}"\ndown_revision = {parents!r}\n'
        (folder / f"{name}.py").write_text(text)


def test_the_head_is_the_one_that_none_stands_on(tmp_path):
    write_revisions(tmp_path, a1=None, b2="a1", c3="a1", d4=("b2", "c3"))
    assert airflow_db._head(tmp_path) == ("d4", {"a1", "b2", "c3", "d4"})
    write_revisions(tmp_path, e5="a1")
    with pytest.raises(ConfigurationError, match="2 newest schemas"):
        airflow_db._head(tmp_path)


def test_the_installed_airflow_has_one_head():
    head, known = airflow_db.installed_revisions()
    assert {head} < known


def test_a_new_home_is_migrated_once(env, file, migration):
    assert airflow_db.migrate(env) is True
    assert airflow_db.migrate(env) is False
    assert len(migration) == 1
    with closing(sqlite3.connect(file)) as database:
        assert database.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert [path.name for path in file.parent.glob("*new*")] == []


def test_of_two_at_once_one_migrates_and_the_other_waits(env, file, monkeypatch):
    head, _ = airflow_db.installed_revisions()
    migrations = []

    def run(draft, _env):
        migrations.append(draft)
        time.sleep(0.3)
        stamp(draft, head)

    monkeypatch.setattr(airflow_db, "_run_migration", run)
    with ThreadPoolExecutor() as threads:
        done = sorted(threads.map(lambda _: airflow_db.migrate(env), range(2)))
    assert done == [False, True]
    assert len(migrations) == 1
    assert airflow_db.current_revision(file) == head


@pytest.mark.usefixtures("migration")
def test_an_older_schema_is_migrated_with_its_rows(env, file):
    _, known = airflow_db.installed_revisions()
    stamp(file, min(known - {airflow_db.installed_revisions()[0]}))
    with closing(sqlite3.connect(file)) as database, database:
        database.execute("INSERT INTO history VALUES (41)")
    assert airflow_db.migrate(env) is True
    with closing(sqlite3.connect(file)) as database:
        assert database.execute("SELECT id FROM history").fetchall() == [(41,)]


def test_a_migration_that_fails_leaves_the_file_as_it_was(env, file, monkeypatch):
    _, known = airflow_db.installed_revisions()
    old = min(known - {airflow_db.installed_revisions()[0]})
    stamp(file, old)
    before = file.read_bytes()

    def fail(draft, env):  # noqa: ARG001
        stamp(draft, "half-way")
        raise FatalError

    monkeypatch.setattr(airflow_db, "_run_migration", fail)
    with pytest.raises(FatalError):
        airflow_db.migrate(env)
    assert file.read_bytes() == before


def test_the_output_of_a_failed_migration_is_shown(env, monkeypatch):
    code = "print('no space left'); raise SystemExit(3)"
    monkeypatch.setattr(airflow, "command", lambda *_: [airflow.sys.executable, "-c", code])
    with pytest.raises(FatalError, match=r"exit code 3:\nno space left"):
        airflow_db.migrate(env)


def test_a_schema_of_another_airflow_is_refused(env, file, migration):
    stamp(file, "fffffffffff0")
    with pytest.raises(ConfigurationError, match=r"airflow\.db.*fffffffffff0 is not known"):
        airflow_db.migrate(env)
    assert migration == []


def test_a_file_that_is_no_database_is_named_with_the_remedy(env, file, migration):
    file.write_bytes(b"no database at all, but long enough to be read as one" * 100)
    with pytest.raises(ConfigurationError, match=r"airflow\.db can't be read .*move it away"):
        airflow_db.migrate(env)
    assert migration == []


@pytest.mark.usefixtures("migration")
def test_what_a_killed_migration_left_is_cleared(env, file):
    file.parent.joinpath("airflow.db.new-dead").write_text("half")
    airflow_db.migrate(env)
    assert [path.name for path in file.parent.glob("*new*")] == []
