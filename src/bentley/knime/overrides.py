"""Flow variables: how they replace settings, how a node exposes settings as new ones.

`variables/tree` mirrors the settings; wherever a branch ends in `used_variable`, the setting
at the same path takes that variable's value, converted to the setting's own type. The setting
is a single value, an array, or a location: a file's path with the file system that it is in.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath, PureWindowsPath

from bentley.domain.errors import ConfigurationError
from bentley.knime.workflow import LOCATION, FlowVariable, Variable
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
        if not _kind(_find(model, path)):
            yield f"flow variable {name!r} overrides {'/'.join(path)!r}, which no variable can replace"


def apply(model: Config, variables: Config, values: Mapping[str, FlowVariable]) -> Config:
    """A copy of `model` with the overrides put in.

    Raises ConfigurationError naming a variable that has no value or doesn't fit its setting.
    """
    changed = model.copy()
    for path, name in used(variables):
        setting = _find(changed, path)
        if setting is None or not _kind(setting):
            msg = f"flow variable {name!r} overrides {'/'.join(path)!r}, which no variable can replace"
            raise ConfigurationError(msg)
        if name not in values:
            msg = f"flow variable {name!r} for setting {'/'.join(path)!r} has no value"
            raise ConfigurationError(msg)
        if isinstance(setting, Entry):
            setting.value = _fit(setting.type, values[name], name)
        elif _kind(setting) == "array":
            _fill_array(setting, values[name], name)
        else:
            _fill_location(setting, values[name], name)
    return changed


def expose(
    model: Config, variables: Config, values: Mapping[str, FlowVariable]
) -> dict[str, FlowVariable]:
    """`values` with the variables that this node makes from its settings."""
    result = dict(values)
    for path, name in exposed(variables):
        setting = _find(model, path)
        if isinstance(setting, Entry):
            if setting.value is not None:
                result[name] = setting.value
        elif setting is not None and _kind(setting):
            result[name] = setting.copy()
    return result


def plain(values: Mapping[str, FlowVariable]) -> dict[str, Variable]:
    """The variables that hold a single value."""
    return {name: value for name, value in values.items() if not isinstance(value, Config)}


def _find(model: Config, path: tuple[str, ...]) -> Entry | Config | None:
    at: Entry | Config | None = model
    for key in path:
        if not isinstance(at, Config):
            return None
        at = at.children.get(key)
    return at


def _kind(setting: Entry | Config | None) -> str:
    """What can be put over it: "value", "array", "location", or "" for nothing at all."""
    if not isinstance(setting, Config):
        return "value" if setting is not None else ""
    if "array-size" in setting:
        return "array"
    return "location" if any(key in setting for key in LOCATION[:3]) else ""


def _fill_array(array: Config, value: FlowVariable, name: str) -> None:
    """Put in an array variable's items; a single value makes an array of one, as in KNIME."""
    if not isinstance(value, Config):
        items: list[Value] = [value]
    elif _kind(value) == "array":
        items = [value.require(str(at)) for at in range(value.integer("array-size", 0))]
    else:
        raise _unfit(name, f"the path {value.text('path')!r}", "an array")
    first = array.children.get("0")
    type_ = first.type if isinstance(first, Entry) else None
    array.children.clear()
    array.put("array-size", len(items))
    for at, item in enumerate(items):
        fitting = item if type_ is None or item is None else _fit(type_, item, name)
        array.put(str(at), fitting, type_)


def _fill_location(location: Config, value: FlowVariable, name: str) -> None:
    """Put in a path variable's location, or a text's path.

    KNIME takes path variables alone, but its batch application can only set text: an absolute
    path is then one of the local disk, any other stays in the setting's own file system.
    """
    if isinstance(value, Config) and _kind(value) == "location":
        for key in LOCATION:
            location.put(key, value.value(key))
    elif isinstance(value, str):
        if PurePosixPath(value).is_absolute() or PureWindowsPath(value).is_absolute():
            location.put("file_system_type", "LOCAL").put("file_system_specifier", "")
        location.put("location_present", True).put("path", value)
    else:
        given = "an array" if isinstance(value, Config) else repr(value)
        raise _unfit(name, given, "a file's location")


def _unfit(name: str, given: str, setting: str) -> ConfigurationError:
    return ConfigurationError(
        f"flow variable {name!r} is {given}, which does not fit a setting that is {setting}"
    )


def _fit(type_: str, value: FlowVariable, name: str) -> Value:
    if isinstance(value, Config):
        raise _unfit(name, f"a variable of type {_kind(value)}", f"of type {type_}")
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
    raise _unfit(name, repr(value), f"of type {type_}")


def text(value: Variable) -> str:
    """A variable as KNIME prints it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


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
