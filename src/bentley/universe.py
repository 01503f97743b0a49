"""The universe file: one place for symbols, intervals, tickers and sources; a fault has its line.

It is composed and not loaded: a node keeps its line, and its text whatever YAML takes that for
(`ON`, `NO` and `TRUE` can be tickers, and are booleans of YAML's).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic.fields import FieldInfo
from pydantic_settings import PydanticBaseSettingsSource

from bentley.domain import market
from bentley.domain.errors import ConfigurationError

DEFAULT = Path("universe.yaml")
"""Read where it lies in the working directory and no other is named."""


@dataclass(frozen=True)
class _List:
    """What a list of the file holds: the check that each entry passes, and one as an example."""

    check: Callable[[str], str]
    example: str


LISTS = {
    "symbols": _List(market.symbol, "BTCUSDT"),
    "intervals": _List(market.interval, "1h"),
    "tickers": _List(market.ticker, "AAPL"),
    "sources": _List(market.source, "tiingo"),
}
"""The keys of the file, which are settings too."""


class UniverseFile(PydanticBaseSettingsSource):
    """What the universe file says, where anything of it would count.

    A process that was given all of its settings reads no file: another may lie where it works, and
    the one that its parent read may have been altered since.
    """

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        """Return nothing: the file is read as a whole."""
        del field
        return None, field_name, False

    def __call__(self) -> dict[str, Any]:
        """Read the file that was named, or the one in the working directory, if there is one."""
        given = self.current_state
        if LISTS.keys() <= given.keys():
            return {}
        file = Path(given.get("universe") or DEFAULT).expanduser()
        if not given.get("universe") and not file.exists():
            return {}
        return {"universe": file} | read(file)


def read(file: Path) -> dict[str, tuple[str, ...]]:
    """Return the lists that the file has, each name as it is used.

    Raises ConfigurationError with a line for each fault, which begins with `file:line:`.
    """
    root = _compose(file)
    faults: dict[tuple[int, str], None] = {}  # an alias would say its anchor's fault once more
    found: dict[str, tuple[str, ...]] = {}

    def refuse(line: int, said: str) -> None:
        faults[line, said] = None

    if isinstance(root, yaml.MappingNode) and root.value:
        seen: dict[str, int] = {}
        for key, value in root.value:
            name, line = str(key.value), _line(key)
            if not isinstance(key, yaml.ScalarNode) or name not in LISTS:
                shown = repr(name) if isinstance(key, yaml.ScalarNode) else "that is no name"
                refuse(line, f"no key {shown}: write one of {', '.join(LISTS)}")
            elif name in seen:
                refuse(line, f"{name} stood on line {seen[name]} already: make one list of both")
            else:
                seen[name] = line
                found[name] = tuple(_entries(name, value, refuse))
    else:
        refuse(1 if root is None else _line(root), "nothing is named: write symbols: [BTCUSDT]")
    if faults:
        raise ConfigurationError(
            "\n".join(f"{file}:{line}: {said}" for line, said in sorted(faults))
        )
    return found


def _entries(name: str, value: yaml.Node, refuse: Callable[[int, str], None]) -> Iterator[str]:
    """Yield the entries of a list, and refuse those that are wrong or stand there twice."""
    like = f"{name}: [{LISTS[name].example}]"
    if not isinstance(value, yaml.SequenceNode):
        refuse(_line(value), f"{name} is no list: write it like {like}")
        return
    if not value.value:
        refuse(_line(value), f"{name} is empty: write it like {like}, or leave it out")
    seen: dict[str, int] = {}
    for node in value.value:
        if not isinstance(node, yaml.ScalarNode):
            refuse(_line(node), f"an entry of {name} is no name: write them like {like}")
            continue
        try:
            entry = LISTS[name].check(node.value)
        except ConfigurationError as error:
            refuse(_line(node), str(error))
            continue
        if entry in seen:
            refuse(_line(node), f"{entry} stood on line {seen[entry]} already: take one out")
        seen.setdefault(entry, _line(node))
        yield entry


def _compose(file: Path) -> yaml.Node | None:
    try:
        raw = file.read_bytes()
    except OSError as error:
        msg = f"BENTLEY_UNIVERSE: {file} can't be read ({error.strerror}): name a file that can"
        raise ConfigurationError(msg) from None
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        msg = f"{file}:{line}: not UTF-8: save it in that encoding"
        raise ConfigurationError(msg) from None
    try:
        return yaml.compose(text, Loader=yaml.SafeLoader)
    except (yaml.YAMLError, RecursionError) as error:
        line, said = _syntax(error, text)
        msg = f"{file}:{line}: not YAML: {said}"
        raise ConfigurationError(msg) from None


def _syntax(error: Exception, text: str) -> tuple[int, str]:
    """Return the line of a fault in the syntax, and what it is."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        said = str(error.problem)
        if "'\\t'" in said:
            said += "; set blanks instead of the tab"
        if error.context_mark is not None:
            said += f" ({error.context} that begins on line {error.context_mark.line + 1})"
        return error.problem_mark.line + 1, said
    if isinstance(error, yaml.reader.ReaderError):
        line = text.count("\n", 0, error.position) + 1
        return line, f"the character {chr(error.character)!r} may not stand there: take it out"
    return 1, "lists within lists, too many: write symbols: [BTCUSDT]"


def _line(node: yaml.Node) -> int:
    line: int = node.start_mark.line
    return line + 1
