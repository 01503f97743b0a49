"""KNIME keeps every setting in one XML dialect: this module reads and writes it, and nothing else.

A `Config` is an ordered mapping of keys to values and to further configs. A value keeps its
KNIME type (`xstring`, `xint`, ...) beside it, so that what is read can be written back.
Documents with a DOCTYPE are refused, which leaves no room for entities of any kind.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, NoReturn
from xml.parsers import expat

from bentley.domain.errors import ConfigurationError

Value = str | int | float | bool | None

NAMESPACE = "http://www.knime.org/2008/09/XMLConfig"
_SCHEMA = f"{NAMESPACE} http://www.knime.org/XMLConfig_2008_09.xsd"
_NAMESPACES = (
    f'xmlns="{NAMESPACE}" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" '
    f'xsi:schemaLocation="{_SCHEMA}"'
)
_MAX_DEPTH = 64
_INDENT = "    "
_INTEGERS: Final = frozenset({"xint", "xlong", "xshort", "xbyte"})
_FLOATS: Final = frozenset({"xdouble", "xfloat"})
_TEXTS: Final = frozenset({"xstring", "xchar", "xpassword", "xtransientstring"})
_ESCAPE = re.compile(r"%%(\d{5})")
_PLAIN_FROM, _PLAIN_TO = 32, 0xD7FF


class Entry:
    """One value with its KNIME type."""

    __slots__ = ("type", "value")

    def __init__(self, type_: str, value: Value) -> None:
        self.type = type_
        self.value = value

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Entry):
            return NotImplemented
        if _is_nan(self.value) and _is_nan(other.value):
            return self.type == other.type
        return (self.type, self.value) == (other.type, other.value)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Entry({self.type!r}, {self.value!r})"


class Config:
    """An ordered tree of settings under one key.

    The readers (`text`, `integer`, `flag`, ...) raise ConfigurationError naming the key where
    it is missing or holds another type, unless they are given a default.
    """

    __slots__ = ("children", "key", "path")

    def __init__(self, key: str, path: str = "") -> None:
        self.key = key
        self.path = path
        self.children: dict[str, Entry | Config] = {}

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Config):
            return NotImplemented
        return self.key == other.key and list(self.children.items()) == list(other.children.items())

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Config({self.key!r}, {self.children!r})"

    def __contains__(self, key: object) -> bool:
        return key in self.children

    def __iter__(self) -> Iterator[str]:
        return iter(self.children)

    def _at(self, key: str) -> str:
        return f"{self.path}/{key}" if self.path else key

    # reading

    def value(self, key: str, default: Value = None) -> Value:
        """The value under `key`, whatever its type; `default` where there is none."""
        entry = self.children.get(key)
        return entry.value if isinstance(entry, Entry) else default

    def require(self, key: str) -> Value:
        """The value under `key`, which must be there."""
        entry = self.children.get(key)
        if not isinstance(entry, Entry):
            msg = f"setting {self._at(key)!r} is missing"
            raise ConfigurationError(msg)
        return entry.value

    def text(self, key: str, default: str = "") -> str:
        """A string, null read as ""."""
        value = self.value(key, default)
        if value is None:
            return ""
        if not isinstance(value, str):
            msg = f"setting {self._at(key)!r} is {value!r}, which is not a string"
            raise ConfigurationError(msg)
        return value

    def integer(self, key: str, default: int) -> int:
        """A whole number."""
        value = self.value(key, default)
        if isinstance(value, bool) or not isinstance(value, int):
            msg = f"setting {self._at(key)!r} is {value!r}, which is not a whole number"
            raise ConfigurationError(msg)
        return value

    def flag(self, key: str, *, default: bool = False) -> bool:
        """A boolean."""
        value = self.value(key, default)
        if not isinstance(value, bool):
            msg = f"setting {self._at(key)!r} is {value!r}, which is not true or false"
            raise ConfigurationError(msg)
        return value

    def config(self, key: str) -> Config:
        """The config under `key`; an empty one where there is none."""
        child = self.children.get(key)
        return child if isinstance(child, Config) else Config(key, self._at(key))

    def configs(self) -> list[Config]:
        """The configs right below this one, in order."""
        return [child for child in self.children.values() if isinstance(child, Config)]

    def array(self, key: str) -> list[Value]:
        """The values of an array (`array-size`, `0`, `1`, ...); empty where there is none."""
        config = self.config(key)
        size = config.integer("array-size", 0)
        return [config.require(str(index)) for index in range(size)]

    def texts(self, key: str) -> list[str]:
        """An array of strings, null read as ""."""
        return ["" if value is None else str(value) for value in self.array(key)]

    # writing

    def put(self, key: str, value: Value, type_: str | None = None) -> Config:
        """Set a value; its KNIME type follows from Python's unless given. Returns self."""
        self.children[key] = Entry(type_ or _type_of(value), value)
        return self

    def sub(self, key: str) -> Config:
        """The config under `key`, made where it is missing."""
        child = self.children.get(key)
        if not isinstance(child, Config):
            child = Config(key, self._at(key))
            self.children[key] = child
        return child

    def put_array(self, key: str, values: Sequence[Value], type_: str | None = None) -> Config:
        """Set an array. Returns self."""
        array = self.sub(key)
        array.children.clear()
        array.put("array-size", len(values))
        for index, value in enumerate(values):
            array.put(str(index), value, type_)
        return self

    def update(self, values: Mapping[str, Value]) -> Config:
        """Set several values. Returns self."""
        for key, value in values.items():
            self.put(key, value)
        return self

    def copy(self) -> Config:
        """A deep copy."""
        twin = Config(self.key, self.path)
        for key, child in self.children.items():
            twin.children[key] = (
                child.copy() if isinstance(child, Config) else Entry(child.type, child.value)
            )
        return twin


def _is_nan(value: object) -> bool:
    return isinstance(value, float) and math.isnan(value)


def _type_of(value: Value) -> str:
    if isinstance(value, bool):
        return "xboolean"
    if isinstance(value, int):
        return "xint"
    if isinstance(value, float):
        return "xdouble"
    return "xstring"


def escape(text: str) -> str:
    """Write what XML attributes can't carry as `%%` and five digits, per UTF-16 unit."""
    parts = []
    for index, char in enumerate(text):
        code = ord(char)
        if char == "%" and text[index + 1 : index + 2] == "%":
            parts.append("%%00037")
        elif _PLAIN_FROM <= code <= _PLAIN_TO:
            parts.append(char)
        else:
            units = char.encode("utf-16-be", "surrogatepass")
            parts += [
                f"%%{int.from_bytes(units[at : at + 2], 'big'):05d}"
                for at in range(0, len(units), 2)
            ]
    return "".join(parts)


def unescape(text: str) -> str:
    """Undo `escape`."""
    if "%%" not in text:
        return text
    plain = _ESCAPE.sub(lambda match: chr(int(match[1])), text)
    return plain.encode("utf-16-be", "surrogatepass").decode("utf-16-be", "surrogatepass")


def parse(document: bytes, *, name: str = "settings.xml") -> Config:
    """Read one document.

    Raises ConfigurationError naming `name` where it isn't KNIME's XML, declares a DOCTYPE, or
    nests deeper than any workflow does.
    """
    return _Reader(name).read(document)


class _Reader:
    def __init__(self, name: str) -> None:
        self.name = name
        self.stack: list[Config] = []
        self.root: Config | None = None
        self.parser = expat.ParserCreate()
        self.parser.StartDoctypeDeclHandler = self._doctype
        self.parser.StartElementHandler = self._start
        self.parser.EndElementHandler = self._end

    def read(self, document: bytes) -> Config:
        try:
            self.parser.Parse(document, True)
        except expat.ExpatError as error:
            self._fail(f"is not well-formed XML ({error})")
        if self.root is None:
            self._fail("holds no settings")
        return self.root

    def _fail(self, what: str) -> NoReturn:
        msg = f"{self.name} {what}; save the workflow again from KNIME"
        raise ConfigurationError(msg)

    def _doctype(self, *_: object) -> None:
        self._fail("declares a DOCTYPE, which KNIME never writes")

    def _start(self, tag: str, attributes: dict[str, str]) -> None:
        if tag == "config":
            self._open(unescape(attributes.get("key", "")))
        elif tag == "entry" and self.stack:
            key = unescape(attributes.get("key", ""))
            self.stack[-1].children[key] = self._entry(key, attributes)
        else:
            self._fail(f"has an unexpected element <{tag}>")

    def _open(self, key: str) -> None:
        if len(self.stack) >= _MAX_DEPTH:
            self._fail(f"nests deeper than {_MAX_DEPTH} levels")
        if self.stack:
            parent = self.stack[-1]
            path = f"{parent.path}/{key}" if len(self.stack) > 1 else key
            config = Config(key, path)
            parent.children[key] = config
        else:
            config = Config(key)
            self.root = config
        self.stack.append(config)

    def _end(self, tag: str) -> None:
        if tag == "config":
            self.stack.pop()

    def _entry(self, key: str, attributes: dict[str, str]) -> Entry:
        type_ = attributes.get("type", "xstring")
        raw = attributes.get("value", "")
        if attributes.get("isnull") == "true":
            return Entry(type_, None)
        try:
            return Entry(type_, _typed(type_, raw))
        except ValueError:
            self._fail(f"has {raw!r} as the {type_} {key!r}")


def _typed(type_: str, raw: str) -> Value:
    if type_ in _INTEGERS:
        return int(raw)
    if type_ in _FLOATS:
        return float(raw.replace("Infinity", "inf"))
    if type_ == "xboolean":
        return raw == "true"
    if type_ in _TEXTS:
        return unescape(raw)
    raise ValueError(type_)


def write(config: Config) -> bytes:
    """Write a document as KNIME lays it out: the same config gives the same bytes."""
    lines = [
        '<?xml version="1.0" encoding="UTF-8"?>',
        f"<config {_NAMESPACES} key={_attribute(escape(config.key))}>",
        *_lines(config, 1),
        "</config>",
        "",
    ]
    return "\n".join(lines).encode()


def _lines(config: Config, depth: int) -> Iterator[str]:
    indent = _INDENT * depth
    for key, child in config.children.items():
        if isinstance(child, Entry):
            null = ' isnull="true"' if child.value is None else ""
            yield (
                f"{indent}<entry key={_attribute(escape(key))} type={_attribute(child.type)}{null} "
                f"value={_attribute(_written(child))}/>"
            )
        elif child.children:
            yield f"{indent}<config key={_attribute(escape(key))}>"
            yield from _lines(child, depth + 1)
            yield f"{indent}</config>"
        else:
            yield f"{indent}<config key={_attribute(escape(key))}/>"


def _written(entry: Entry) -> str:
    value = entry.value
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return repr(value).replace("inf", "Infinity").replace("nan", "NaN")
    return escape(value) if isinstance(value, str) else str(value)


def _attribute(text: str) -> str:
    for char, entity in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ('"', "&quot;")):
        text = text.replace(char, entity)
    return f'"{text}"'
