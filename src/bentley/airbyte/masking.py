"""Keeps what a source's configuration holds in secret out of every text that we pass on."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote, urlsplit

MASK = "****"
SECRET_NAME = re.compile(
    r"key|token|passw|passphrase|secret|credential|authorization", re.IGNORECASE
)
_SHORTEST = 3


class Masker:
    """Replaces the secrets of one configuration wherever they stand in a text.

    Secret is what the source's specification flags as `airbyte_secret`, what lies under a name
    like key, token, password or secret, and the password in an address.
    """

    def __init__(self, config: Mapping[str, Any], spec: Mapping[str, Any] | None = None) -> None:
        connection = (spec or {}).get("connectionSpecification") or {}
        found = {text for text in _secrets(config, connection) if len(text) >= _SHORTEST}
        forms = {form for text in found for form in (text, quote(text, safe=""), _escaped(text))}
        ordered = sorted(forms, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, ordered))) if ordered else None

    def __call__(self, text: str) -> str:
        """`text` without the secrets."""
        return self._pattern.sub(MASK, text) if self._pattern else text

    def deep(self, value: Any) -> Any:
        """`value` with every text in it masked."""
        if isinstance(value, str):
            return self(value)
        if isinstance(value, Mapping):
            return {name: self.deep(item) for name, item in value.items()}
        return [self.deep(item) for item in value] if isinstance(value, list) else value


def _escaped(text: str) -> str:
    return json.dumps(text)[1:-1]


def _secrets(value: Any, schema: Mapping[str, Any], *, secret: bool = False) -> Iterator[str]:
    """Every text in `value` that is secret by its name or by its schema."""
    if isinstance(value, Mapping):
        known = _properties(schema)
        for name, item in value.items():
            inner = known.get(name, {})
            flagged = bool(inner.get("airbyte_secret")) or bool(SECRET_NAME.search(str(name)))
            yield from _secrets(item, inner, secret=secret or flagged)
    elif isinstance(value, list):
        items = schema.get("items")
        for item in value:
            yield from _secrets(item, items if isinstance(items, dict) else {}, secret=secret)
    elif secret and isinstance(value, str | int | float) and not isinstance(value, bool):
        yield str(value)
    elif isinstance(value, str) and "://" in value and "@" in value:
        yield from _password(value)


def _password(address: str) -> Iterator[str]:
    try:
        password = urlsplit(address).password
    except ValueError:
        return
    if password:
        yield password


def _properties(schema: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The properties of a schema, those of its alternatives included."""
    found: dict[str, dict[str, Any]] = {}
    alternatives = [
        option for name in ("oneOf", "anyOf", "allOf") for option in schema.get(name) or ()
    ]
    for part in (*alternatives, schema):
        for name, inner in (part.get("properties") or {}).items():
            secret = inner.get("airbyte_secret") or found.get(name, {}).get("airbyte_secret")
            found[name] = {**found.get(name, {}), **inner, "airbyte_secret": bool(secret)}
    return found
