"""Databases: JDBC addresses, the types of query results, writes that happen as a whole."""

from __future__ import annotations

import sqlite3

import polars as pl
import pytest
from knime_support import model, spec
from pymysql.err import OperationalError as DriverError
from sqlalchemy import create_engine, text
from sqlalchemy.exc import DBAPIError

from bentley.domain.errors import ConfigurationError, FatalError, RetriableError
from bentley.knime import dbio, engine, jdbc
from bentley.warehouse import database as database_errors

CONNECTOR = "org.knime.database.node.connector.generic.DBConnectorNodeFactory"
MYSQL = "org.knime.database.extension.mysql.node.connector.MySQLDBConnectorNodeFactory"
SQLITE = "org.knime.database.extension.sqlite.node.connector.SQLiteDBConnectorNodeFactory"
READER = "org.knime.database.node.io.reader.query.DBQueryReaderNodeFactory"
WRITER = "org.knime.database.node.io.write2.DBWrite2NodeFactory"


@pytest.mark.parametrize(
    ("address", "url"),
    [
        ("jdbc:sqlite:/data/a b.db", "sqlite:////data/a b.db"),
        ("jdbc:sqlite:rel.db?mode=ro", "sqlite:///rel.db"),
        ("jdbc:mysql://host:3307/mansa_bot?user=u&password=p%26w",
         "mysql+pymysql://u:p%26w@host:3307/mansa_bot"),
        ("jdbc:mariadb://me:se%3Acret@host/db", "mysql+pymysql://me:se%3Acret@host:3306/db"),
    ],
)  # fmt: skip
def test_jdbc_addresses(address, url):
    assert jdbc.to_url(address).render_as_string(hide_password=False) == url


def test_other_databases_are_refused_without_their_secrets():
    with pytest.raises(ConfigurationError, match="jdbc:postgresql") as caught:
        jdbc.to_url("jdbc:postgresql://host/db?user=me&password=secret")
    assert "secret" not in str(caught.value)


def test_a_port_that_is_none_is_refused_without_the_secret():
    with pytest.raises(ConfigurationError, match=r"port in '127\.0\.0\.1:abc'") as caught:
        jdbc.to_url("jdbc:mysql://u:secret@127.0.0.1:abc/x")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("code", "kind"),
    [(code, RetriableError) for code in sorted(database_errors.MYSQL_PASSING)]
    + [(code, FatalError) for code in sorted({*database_errors.MYSQL_FULL, 1062, 1146})],
)
def test_an_error_is_the_same_to_the_workflow_and_to_the_warehouse(code, kind):
    raised = DBAPIError("SELECT 1", {}, DriverError(code, "said so"))
    assert type(dbio.explained(raised)) is kind
    with pytest.raises(kind), database_errors.explained():
        raise raised


def test_engines_are_opened_once_and_closed_unless_the_callers(tmp_path):
    url = f"jdbc:sqlite:{tmp_path / 'a.db'}"
    with jdbc.Connections() as own:
        assert own.open(url) is own.open(url)
    theirs = create_engine("sqlite://")
    with jdbc.Connections(lambda _: theirs) as given:
        assert given.open(url) is theirs
    with theirs.connect() as connection:
        assert connection.execute(text("SELECT 1")).scalar() == 1
    theirs.dispose()


@pytest.fixture
def database(tmp_path):
    engine = create_engine(f"sqlite:///{tmp_path / 'd.db'}")
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE t (i INTEGER, d DOUBLE, s TEXT, anything)"))
        connection.execute(text("INSERT INTO t VALUES (1, 0.5, 'a', 1), (NULL, 2, NULL, 2.5)"))
    yield engine
    engine.dispose()


def test_types_come_from_the_query_and_hold_without_rows(database):
    query = "SELECT i, d, s, CAST(s AS DOUBLE) AS c, CAST(NULL AS CHAR) AS e FROM t"
    found = dbio.read(database, query + ";")
    expected = [pl.Int64, pl.Float64, pl.String, pl.Float64, pl.String]
    assert found.dtypes == expected
    assert found.rows() == [(1, 0.5, "a", 0.0, None), (None, 2.0, None, None, None)]
    empty = dbio.read(database, query + " WHERE i = 7")
    assert empty.dtypes == expected
    assert empty.height == 0


def test_a_column_without_a_type_takes_that_of_its_values(database):
    assert dbio.read(database, "SELECT anything FROM t")["anything"].to_list() == [1.0, 2.5]
    assert dbio.read(database, "SELECT NULL AS n").dtypes == [pl.String]
    assert dbio.read(database, "SELECT 2 AS n").dtypes == [pl.Int64]


def test_a_type_found_only_in_a_later_chunk_still_counts(database, monkeypatch):
    monkeypatch.setattr(dbio, "_CHUNK", 1)
    query = "SELECT NULL AS v UNION ALL SELECT 1 UNION ALL SELECT 1.5"
    assert dbio.read(database, query)["v"].to_list() == [None, 1.0, 1.5]
    with pytest.raises(ConfigurationError, match="'v' holds Int64 and String"):
        dbio.read(database, "SELECT 1 AS v UNION ALL SELECT 'a'")


def test_values_against_their_declared_type_are_told(database):
    with database.begin() as connection:
        connection.execute(text("INSERT INTO t VALUES (1.5, 'text', 'a', x'00')"))
    assert dbio.read(database, "SELECT i FROM t")["i"].to_list() == [1.0, None, 1.5]
    with pytest.raises(ConfigurationError, match="'d' holds float, str"):
        dbio.read(database, "SELECT d FROM t")
    with pytest.raises(ConfigurationError, match="'anything' holds bytes"):
        dbio.read(database, "SELECT anything FROM t WHERE typeof(anything) = 'blob'")


def test_two_columns_of_one_name_are_refused(database):
    with pytest.raises(ConfigurationError, match="two columns called 'i'"):
        dbio.read(database, "SELECT i, i FROM t")


def test_a_broken_query_is_fatal(database):
    with pytest.raises(FatalError, match="no such table: gone"):
        dbio.read(database, "SELECT * FROM gone")


def test_a_write_is_all_or_nothing(database):
    with database.begin() as connection:
        connection.execute(text("CREATE TABLE u (k INTEGER PRIMARY KEY, s TEXT)"))
        connection.execute(text("INSERT INTO u VALUES (2, 'there')"))
    frame = pl.DataFrame({"k": [0, 1, 2], "s": ["a", "b", "c"]})
    with pytest.raises(FatalError, match="UNIQUE"):
        dbio.append(database, "u", frame, schema=None, batch=1)
    assert dbio.read(database, "SELECT k FROM u")["k"].to_list() == [2]
    dbio.append(database, "u", frame[:2], schema=None, batch=1)
    assert dbio.read(database, "SELECT s FROM u ORDER BY k")["s"].to_list() == ["a", "b", "there"]


def test_a_write_names_what_is_missing(database):
    frame = pl.DataFrame({"i": [1], "nope": [2]})
    with pytest.raises(ConfigurationError, match="'t' has no column 'nope'; it has anything, d, i"):
        dbio.append(database, "t", frame, schema=None, batch=1)
    with pytest.raises(ConfigurationError, match="no table 'gone'"):
        dbio.append(database, "gone", frame, schema=None, batch=1)


@pytest.mark.usefixtures("database")
def test_a_busy_database_is_worth_another_try(tmp_path):
    other = sqlite3.connect(tmp_path / "d.db")
    other.execute("BEGIN IMMEDIATE")
    impatient = create_engine(f"sqlite:///{tmp_path / 'd.db'}", connect_args={"timeout": 0.05})
    with pytest.raises(RetriableError, match="locked"):
        dbio.append(impatient, "t", pl.DataFrame({"i": [1]}), schema=None, batch=1)
    impatient.dispose()
    other.rollback()
    other.close()


def _nodes(connector, **writer):
    selection = {"catalogName": "", "schemaName": "", "tableName": "t"}
    settings = {
        "tableSelection": selection,
        "actionOnDBError": "FAIL",
        "batchSize": 10,
        "actionOnTableExisting": "APPEND_ROWS",
        "appendStatus": True,
        "statusColumn": "Write Status",
    } | writer
    return [
        connector,
        spec("DB Query Reader", READER, model({"sql_statement": "SELECT i, s FROM t"}),
             after=((1, 1),)),
        spec("DB Writer", WRITER, model(settings), after=((2, 1), (1, 1))),
    ]  # fmt: skip


@pytest.mark.parametrize("kind", [CONNECTOR, SQLITE])
def test_reads_and_writes_through_the_nodes(save, database, kind):
    path = database.url.database
    settings = (
        {"session_info": {"db_url": f"jdbc:sqlite:{path}"}}
        if kind == CONNECTOR
        else {"sqlite-connection": {"path": path}}
    )
    loaded = save(_nodes(spec("Connector", kind, model(settings))))
    result = engine.run(loaded)
    assert result.outputs["3"]["Write Status"].to_list() == [1, 1]
    assert dbio.read(database, "SELECT COUNT(*) AS n FROM t")["n"].item() == 4


def test_the_callers_engine_is_used_and_the_address_is_what_it_is_asked_for(save, database):
    asked = []

    def opened(url):
        asked.append(url)
        return database

    settings = {
        "mysql-connection": {"host": "db", "port": 3307, "database_name": "bars"},
        "authentication": {"username": "me", "selectedType": "USER"},
    }
    loaded = save(_nodes(spec("MySQL Connector", MYSQL, model(settings))))
    engine.run(loaded, open_database=opened)
    assert asked == ["jdbc:mysql://db:3307/bars?user=me"]


def test_writer_and_reader_say_what_they_lack(save):
    connector = spec("Connector", CONNECTOR, model({"session_info": {"db_url": "jdbc:sqlite:x"}}))
    nodes = _nodes(connector, actionOnTableExisting="DROP_TABLE", actionOnDBError="CONTINUE")
    assert [lack.what for lack in engine.check(save(nodes))] == [
        "setting 'actionOnTableExisting' = 'DROP_TABLE' is not supported",
        "setting 'actionOnDBError' = 'CONTINUE' is not supported",
    ]


def test_attributes_of_a_connection_are_a_lack_each(lacks):
    info = {"db_url": "jdbc:sqlite:x", "attributes": {"zeroDateTimeBehavior": "x"}}
    assert lacks(CONNECTOR, {"session_info": info}) == [
        "setting 'session_info/attributes/zeroDateTimeBehavior' is not supported"
    ]


def test_a_chosen_column_alone_is_written(save, database):
    chosen = {
        "mode": "MANUAL",
        "manualFilter": {
            "manuallySelected": ["s"],
            "manuallyDeselected": ["i"],
            "includeUnknownColumns": False,
        },
    }
    settings = {"session_info": {"db_url": f"jdbc:sqlite:{database.url.database}"}}
    engine.run(save(_nodes(spec("C", CONNECTOR, model(settings)), setDataColumns=chosen)))
    assert dbio.read(database, "SELECT i, s FROM t").rows()[2:] == [(None, "a"), (None, None)]


def test_mysql_types_and_bulk_load(warehouse):
    if not warehouse.mysql:
        pytest.skip("MySQL's own")
    query = (
        "SELECT CAST(1 AS SIGNED INTEGER) AS i, CAST(9999999999 AS SIGNED) AS l, 1.5 AS d, "
        "CAST(NULL AS DOUBLE) AS x, CAST(NULL AS CHAR) AS s FROM binance_ohlcv"
    )
    found = dbio.read(warehouse.engine, query)
    assert found.dtypes[1:] == [pl.Int64, pl.Float64, pl.Float64, pl.String]
    loading = create_engine(warehouse.engine.url, connect_args={"local_infile": True})
    frame = pl.DataFrame(
        {"symbol": ['a,"b"', None, "NULL", "c\\d"], "open_time": [1, 2, None, 4],
         "vwap": [0.1, 1e300, None, 5e-324], "close": ["1.10", "é\n", "", None]}
    )  # fmt: skip
    dbio.append(loading, "knime_landing", frame, schema=None, batch=1)
    back = dbio.read(loading, "SELECT symbol, open_time, vwap, close FROM knime_landing")
    assert back.equals(frame)
    long = pl.DataFrame({"symbol": ["x", "y" * 99]})
    with pytest.raises(FatalError, match="Data truncated"):
        dbio.append(loading, "knime_landing", long, schema=None, batch=1)
    assert dbio.read(loading, "SELECT symbol FROM knime_landing").height == 4
    loading.dispose()
