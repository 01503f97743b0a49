"""Database nodes: connectors, DB Query Reader, DB Writer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import ClassVar

import polars as pl

from bentley.domain.errors import ConfigurationError
from bentley.knime import dbio, overrides
from bentley.knime.nodes.base import BaseNode, Context, Database, Port, database, register, table
from bentley.knime.nodes.filters import dynamic_columns, dynamic_filter_keys, dynamic_filter_lacks

_MYSQL_PORT = 3306
_CONNECTOR_KEYS = frozenset(
    {
        "authentication",
        "session_info/version",
        "session_info/db_type",
        "session_info/db_dialect",
        "session_info/db_driver",
        "session_info/db_url",
        "session_info/attributes",
        "external_to_knime_mapping",
        "knime_to_external_mapping",
    }
)


@register("org.knime.database.node.connector.generic.DBConnectorNodeFactory")
class DBConnector(BaseNode):
    """Hands on the database at the JDBC address in `session_info/db_url`."""

    keys = _CONNECTOR_KEYS
    inputs: ClassVar[tuple[int, ...]] = ()

    def lacks(self) -> Iterable[str]:
        """A credential kept in KNIME's own store can't be read here."""
        return _connector_lacks(self)

    def address(self) -> str:
        """The JDBC address."""
        url = self.model.config("session_info").text("db_url")
        if not url:
            msg = "setting 'session_info/db_url' is empty; give the JDBC address"
            raise ConfigurationError(msg)
        return url

    def run(self, inputs: Mapping[int, Port], context: Context) -> dict[int, Port]:
        """The connection on port 1; nothing is opened before a node uses it."""
        del inputs
        url = self.address()
        return {1: Database(url, context.database(url))}


@register("org.knime.database.extension.sqlite.node.connector.SQLiteDBConnectorNodeFactory")
class SQLiteConnector(DBConnector):
    """Hands on a SQLite file: `sqlite-connection/path`, or a `db_url` as in the generic node."""

    keys = _CONNECTOR_KEYS | {"sqlite-connection/path", "sqlite-connection/inMemory"}

    def lacks(self) -> Iterable[str]:
        """Only files: what lives in KNIME's memory can't be shared with it."""
        yield from _connector_lacks(self)
        yield from self.sub_allow("sqlite-connection", "inMemory", False)

    def sub_allow(self, key: str, name: str, *supported: object) -> Iterable[str]:
        """Report a setting one level down that has another than the supported values."""
        config = self.model.config(key)
        if name in config and config.value(name) not in supported:
            yield f"setting '{key}/{name}' = {config.value(name)!r} is not supported"

    def address(self) -> str:
        """The JDBC address of the file."""
        config = self.model.config("sqlite-connection")
        path = config.text("path") or config.config("path").text("path")
        return f"jdbc:sqlite:{path}" if path else super().address()


@register("org.knime.database.extension.mysql.node.connector.MySQLDBConnectorNodeFactory")
class MySQLConnector(DBConnector):
    """Hands on a MySQL or MariaDB server: `mysql-connection/{host,port,database_name}`."""

    keys = _CONNECTOR_KEYS | {
        "mysql-connection/host",
        "mysql-connection/port",
        "mysql-connection/database_name",
    }

    def address(self) -> str:
        """The JDBC address; the user's name stands in it, a saved password can't be read."""
        config = self.model.config("mysql-connection")
        host, name = config.text("host"), config.text("database_name")
        if not host:
            return super().address()
        user = self.model.config("authentication").text("username")
        query = f"?user={user}" if user else ""
        return f"jdbc:mysql://{host}:{config.integer('port', _MYSQL_PORT)}/{name}{query}"


def _connector_lacks(node: BaseNode) -> Iterable[str]:
    for name in node.model.config("session_info").config("attributes"):
        yield f"setting 'session_info/attributes/{name}' is not supported"
    authentication = node.model.config("authentication")
    kind = authentication.text("selectedType", "NONE")
    if kind not in {"NONE", "USER_PWD", "USER", "CREDENTIALS", ""}:
        yield f"setting 'authentication/selectedType' = {kind!r} is not supported"
    if authentication.text("password"):
        yield (
            "a password saved in the node is encrypted by KNIME and can't be read; "
            "put it into the JDBC address through a flow variable"
        )
    if authentication.text("credentials"):
        yield "workflow credentials are not supported; use a flow variable for the JDBC address"


@register("org.knime.database.node.io.reader.query.DBQueryReaderNodeFactory")
class DBQueryReader(BaseNode):
    """Runs one SELECT; `$${Sname}$$` in it is replaced by flow variables as plain text."""

    keys = frozenset(
        {"sql_statement", "external_to_knime_mapping", "inputTypeMapping", "outputTypeMapping"}
    )

    def lacks(self) -> Iterable[str]:
        """Own type mappings; the database's types are mapped as KNIME does by default."""
        if not self.model.text("sql_statement").strip():
            yield "setting 'sql_statement' is empty"
        for key in ("external_to_knime_mapping", "inputTypeMapping", "outputTypeMapping"):
            mapping = self.model.config(key)
            if any(child.children for child in mapping.configs()):
                yield f"setting {key!r} with rules of its own is not supported"

    def run(self, inputs: Mapping[int, Port], context: Context) -> dict[int, Port]:
        """The rows of the query on port 1."""
        sql = overrides.substitute(self.model.text("sql_statement"), context.variables)
        return {1: dbio.read(database(inputs, 1).engine, sql)}


@register("org.knime.database.node.io.write2.DBWrite2NodeFactory")
class DBWriter(BaseNode):
    """Appends the rows of port 1 to a table of the database on port 2, all or none of them."""

    keys = dynamic_filter_keys("setDataColumns") | frozenset(
        {
            "tableSelection/catalogName",
            "tableSelection/schemaName",
            "tableSelection/tableName",
            "actionOnDBError",
            "actionOnTableExisting",
            "batchSize",
            "allowSetColumns",
            "allowWhereColumns",
            "whereDataColumns",
            "appendStatus",
            "statusColumn",
            "appendError",
            "errorColumn",
            "disablePort",
            "outputMapping",
        }
    )
    inputs: ClassVar[tuple[int, ...]] = (1, 2)

    def lacks(self) -> Iterable[str]:
        """Everything but an append that fails as a whole."""
        yield from self.allow("actionOnTableExisting", "APPEND_ROWS")
        yield from self.allow("actionOnDBError", "FAIL")
        if self.model.integer("batchSize", 1) < 1:
            yield "setting 'batchSize' must be at least 1"
        if not self.model.config("tableSelection").text("tableName"):
            yield "setting 'tableSelection/tableName' is empty"
        if "setDataColumns" in self.model:
            yield from dynamic_filter_lacks(self.model.config("setDataColumns"))
        if any(child.children for child in self.model.config("outputMapping").configs()):
            yield "setting 'outputMapping' with rules of its own is not supported"

    def run(self, inputs: Mapping[int, Port], context: Context) -> dict[int, Port]:
        """The rows as written, with a status column unless that is switched off."""
        del context
        frame = table(inputs, 1)
        if "setDataColumns" in self.model:
            chosen = frame.select(dynamic_columns(self.model.config("setDataColumns"), frame))
        else:
            chosen = frame
        selection = self.model.config("tableSelection")
        dbio.append(
            database(inputs, 2).engine,
            selection.text("tableName"),
            chosen,
            schema=selection.text("schemaName") or selection.text("catalogName") or None,
            batch=self.model.integer("batchSize", 1000),
        )
        return {1: self._with_status(frame)}

    def _with_status(self, frame: pl.DataFrame) -> pl.DataFrame:
        if self.model.flag("appendStatus"):
            name = self.model.text("statusColumn", "Write Status")
            frame = frame.with_columns(pl.lit(1, dtype=pl.Int32).alias(name))
        if self.model.flag("appendError"):
            name = self.model.text("errorColumn", "Write Error")
            frame = frame.with_columns(pl.lit(None, dtype=pl.String).alias(name))
        return frame
