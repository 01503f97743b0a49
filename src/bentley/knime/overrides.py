"""Flow variables: how they replace settings, how a node exposes settings as new ones.

`variables/tree` mirrors the settings; wherever a branch ends in `used_variable`, the setting
at the same path takes that variable's value, converted to the setting's own type.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from bentley.domain.errors import ConfigurationError
from bentley.knime.workflow import Variable
from bentley.knime.xmlconfig import Config, Entry, Value

_PLACEHOLDER = re.compile(r"\$\$\{([SIDL])([^}]*)\}\$\$")
_INT_MAX = 2**31


def used(variables: Config) -> Iterator[tuple[tuple[str, ...], str]]:
    """Each overridden setting's path and the variable that overrides it."""
    yield from _leaves(variables.config("tree"), (), "used_variable")


def exposed(variables: Config) -> Iterator[tuple[tuple[str, ...], str]]:
    """Each setting's path that goes out as a new variable, and that variable's name."""
    yield from _leaves(variables.config("tree"), (), "exposed_variable")


def _leaves(
    config: Config, path: tuple[str, ...], key: str
) -> Iterator[tuple[tuple[str, ...], str]]:
    name = config.text(key)
    if name:
        yield path, name
    for child in config.configs():
        yield from _leaves(child, (*path, child.key), key)


def lacks(model: Config, variables: Config) -> Iterator[str]:
    """Overrides that can't work, whatever the variables hold."""
    for path, name in used(variables):
        if not isinstance(_find(model, path), Entry):
            yield f"flow variable {name!r} overrides {'/'.join(path)!r}, which is no single setting"


def apply(model: Config, variables: Config, values: Mapping[str, Variable]) -> Config:
    """A copy of `model` with the overrides put in.

    Raises ConfigurationError naming a variable that has no value or doesn't fit its setting.
    """
    changed = model.copy()
    for path, name in used(variables):
        entry = _find(changed, path)
        if not isinstance(entry, Entry):
            msg = f"flow variable {name!r} overrides {'/'.join(path)!r}, which is no single setting"
            raise ConfigurationError(msg)
        if name not in values:
            msg = f"flow variable {name!r} for setting {'/'.join(path)!r} has no value"
            raise ConfigurationError(msg)
        entry.value = _fit(entry.type, values[name], name)
    return changed


def expose(model: Config, variables: Config, values: Mapping[str, Variable]) -> dict[str, Variable]:
    """`values` with the variables that this node makes from its settings."""
    result = dict(values)
    for path, name in exposed(variables):
        entry = _find(model, path)
        if isinstance(entry, Entry) and entry.value is not None:
            result[name] = entry.value
    return result


def _find(model: Config, path: tuple[str, ...]) -> Entry | Config | None:
    at: Entry | Config | None = model
    for key in path:
        if not isinstance(at, Config):
            return None
        at = at.children.get(key)
    return at


def _fit(type_: str, value: Variable, name: str) -> Value:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if type_ == "xboolean" and str(value).lower() in {"true", "false"}:
        return str(value).lower() == "true"
    if type_ == "xlong" and number and isinstance(value, int):
        return value
    if type_ in {"xint", "xshort", "xbyte"} and number and isinstance(value, int):
        if -_INT_MAX <= value < _INT_MAX:
            return value
    elif type_ in {"xdouble", "xfloat"} and number:
        return float(value)
    elif type_ in {"xstring", "xchar", "xpassword", "xtransientstring"}:
        return text(value)
    msg = f"flow variable {name!r} is {value!r}, which does not fit a setting of type {type_}"
    raise ConfigurationError(msg)


def text(value: Variable) -> str:
    """A variable as KNIME prints it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def placeholders(template: str) -> list[str]:
    """The names in `$${Sname}$$`, `$${Iname}$$` and `$${Dname}$$`."""
    return [match[2] for match in _PLACEHOLDER.finditer(template)]


def substitute(template: str, values: Mapping[str, Variable]) -> str:
    """Put variables in where `$${Sname}$$` stands, as text and without any quoting.

    Raises ConfigurationError naming a variable that has no value.
    """

    def replace(match: re.Match[str]) -> str:
        if match[2] not in values:
            msg = f"flow variable {match[2]!r} has no value; give it one before the run"
            raise ConfigurationError(msg)
        return text(values[match[2]])

    return _PLACEHOLDER.sub(replace, template)
