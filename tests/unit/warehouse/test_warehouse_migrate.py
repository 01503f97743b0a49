"""Every database comes to the current schema, from nothing, from half-way, by many at once."""

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.operations import Operations
from alembic.script import ScriptDirectory

from bentley.domain.errors import BentleyError, ConfigurationError, RetriableError
from bentley.warehouse import database, migrate, schema
from bentley.warehouse import warehouse as warehouse_module
from bentley.warehouse.warehouse import OriginError, Warehouse
from unit.stages.chain_support import bar, digest, ingest_batch, series

MIGRATIONS = Path(migrate.__file__).parent / "migrations"


def tables(engine):
    return set(sa.inspect(engine).get_table_names())


def test_the_migrated_schema_is_the_one_that_the_code_knows(warehouse):
    with warehouse.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, schema.metadata) == []
    assert tables(warehouse.engine) == {*schema.metadata.tables, "alembic_version"}


def test_the_head_named_is_the_newest_step():
    script = ScriptDirectory(str(MIGRATIONS))
    assert script.get_heads() == [migrate.HEAD]
    revisions = [step.revision for step in script.walk_revisions()]
    assert sorted(revisions, reverse=True) == revisions  # "newer" compares them as text


def test_a_second_open_changes_nothing(opened):
    with Warehouse.open(opened) as warehouse:
        ingest_batch(warehouse, series(3))
        before, name = digest(warehouse), warehouse.name
    with Warehouse.open(opened) as warehouse:
        assert (digest(warehouse), warehouse.name) == (before, name)


class PowerCutError(Exception):
    pass


@pytest.mark.parametrize("at", [0, 3, 9, 12])
def test_an_upgrade_that_was_cut_off_is_resumed(opened, monkeypatch, at):
    """MySQL and MariaDB commit each table for itself, so a killed upgrade leaves some behind."""
    made = []
    create_table = Operations.create_table

    def fragile(self, name, *args, **kwargs):
        if len(made) == at:
            raise PowerCutError
        made.append(name)
        return create_table(self, name, *args, **kwargs)

    with monkeypatch.context() as patched:
        patched.setattr(Operations, "create_table", fragile)
        with pytest.raises(PowerCutError):
            Warehouse.open(opened)
    assert len(made) == at
    with Warehouse.open(opened) as warehouse:
        assert tables(warehouse.engine) == {*schema.metadata.tables, "alembic_version"}
        with warehouse.engine.connect() as connection:
            context = MigrationContext.configure(connection, opts={"compare_type": True})
            assert compare_metadata(context, schema.metadata) == []
        ingest_batch(warehouse, [bar(0)])


def test_a_newer_schema_is_refused(opened):
    with Warehouse.open(opened) as warehouse, warehouse.writing() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(ConfigurationError, match=r"9999.*update Bentley"):
        Warehouse.open(opened)


def test_who_waits_too_long_for_another_upgrade_is_told_so(opened, monkeypatch):
    monkeypatch.setattr(migrate, "_WAIT_SECONDS", 0.1)
    engine = database.connect(opened.database_url)
    opened.data_home.mkdir(parents=True, exist_ok=True)
    with database.exclusive(engine, "migrate", wait_seconds=0) as held:
        assert held
        with pytest.raises(RetriableError, match="migrating"):
            Warehouse.open(opened)
    engine.dispose()


def test_many_processes_open_an_empty_database_at_once(opened):
    look = """
        import json, sys
        from bentley import settings
        from bentley.warehouse.warehouse import Warehouse
        print("ready", flush=True)
        sys.stdin.readline()
        with Warehouse.open(settings.load(**json.loads(sys.argv[1]))) as warehouse:
            print(warehouse.name)
    """
    given = {"home": str(opened.home)}
    if opened.warehouse_url is not None:
        given["warehouse_url"] = opened.warehouse_url.get_secret_value()
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(look), json.dumps(given)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(5)
    ]
    assert [process.stdout.readline() for process in processes] == ["ready\n"] * 5
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()
    ends = [process.communicate(timeout=120) for process in processes]
    assert [errors for _, errors in ends] == [""] * 5
    assert len({name for name, _ in ends}) == 1


def test_the_origin_is_kept_and_another_refused(opened):
    with Warehouse.open(opened):
        pass
    engine = database.connect(opened.database_url)
    with pytest.raises(OriginError, match="holds bars of origin 'exchange'") as caught:
        warehouse_module._identify(engine, "replay:somewhere")
    engine.dispose()
    assert isinstance(caught.value, ConfigurationError)
    assert (caught.value.holds, caught.value.wanted) == ("exchange", "replay:somewhere")
    assert "pw-7" not in str(caught.value)
    assert "BENTLEY_HOME" in str(caught.value)


def test_replayed_bars_live_in_a_database_of_their_own(opened):
    with Warehouse.open(opened) as warehouse:
        ingest_batch(warehouse, series(3))
        real = digest(warehouse)
    replayed = opened.model_copy(update={"origin": "replay:x"})
    with Warehouse.open(replayed) as warehouse:
        ingest_batch(warehouse, series(9, seed=4))
        assert warehouse.engine.url != database.connect(opened.database_url).url
    generated = opened.model_copy(update={"origin": "generated:7"})
    with pytest.raises(OriginError, match="replay:x"):
        Warehouse.open(generated)
    with Warehouse.open(opened) as warehouse:
        assert digest(warehouse) == real


@pytest.mark.parametrize(
    "content", [b"this is no database" * 100, b"SQLite format 3\0" + b"x" * 5000]
)
def test_a_broken_file_is_named_with_the_remedy(settings, content):
    found = settings()
    found.home.mkdir(parents=True)
    path = found.home / "mansa_bot.db"
    path.write_bytes(content)
    with pytest.raises(ConfigurationError, match=r"broken.*(restore|move it away)"):
        Warehouse.open(found)
    assert path.read_bytes() == content


def test_a_file_that_was_cut_is_refused(settings):
    found = settings()
    with Warehouse.open(found) as warehouse:
        ingest_batch(warehouse, series(500))
    path = found.home / "mansa_bot.db"
    whole = path.read_bytes()
    path.write_bytes(whole[:8192] + b"\0" * (len(whole) // 2))
    with pytest.raises(BentleyError) as caught, Warehouse.open(found) as warehouse:
        digest(warehouse)
    assert isinstance(caught.value, ConfigurationError)


def test_a_folder_that_cannot_be_is_named(settings, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ConfigurationError, match="file"):
        Warehouse.open(settings(home=tmp_path / "file" / "home"))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda url: url.replace("pw-7", "wrong"), "check the user and password"),
        (lambda url: url.rsplit("/", 1)[0] + "/nowhere_here", "CREATE DATABASE"),
    ],
)
def test_a_server_that_refuses(settings, mariadb, change, words):
    with pytest.raises(ConfigurationError, match=words) as caught:
        Warehouse.open(settings(warehouse_url=change(mariadb.database())))
    assert "pw-7" not in str(caught.value)


def test_a_server_out_of_reach_may_be_tried_again(settings):
    url = "mysql+pymysql://bentley:pw-7@127.0.0.1:9/mansa_bot"
    with pytest.raises(RetriableError) as caught:
        Warehouse.open(settings(warehouse_url=url))
    assert "pw-7" not in str(caught.value)


@pytest.mark.parametrize(
    "address",
    [
        "nonsense",
        "postgresql://u:pw-7@h/d",
        "mysql://u:pw-7@h",
        "mysql+nope://u:pw-7@h/d",
        "sqlite://",
    ],
)
def test_an_address_that_is_none_is_refused_without_its_password(settings, address):
    with pytest.raises(ConfigurationError, match="BENTLEY_WAREHOUSE_URL") as caught:
        Warehouse.open(settings(warehouse_url=address))
    assert "pw-7" not in str(caught.value)
