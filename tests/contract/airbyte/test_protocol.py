from __future__ import annotations

import contextlib
import json
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bentley.airbyte.masking import MASK, Masker
from bentley.airbyte.protocol import BrokenMessageError, configured_catalog, parse

CELLS = st.one_of(
    st.decimals(allow_nan=False, allow_infinity=False, places=8),
    st.integers(),
    st.text(),
    st.none(),
    st.booleans(),
)


def line(data):
    """A record whose decimals stand as bare JSON numbers."""
    marked = {
        name: f"<{value:f}>" if isinstance(value, Decimal) else value
        for name, value in data.items()
    }
    text = json.dumps({"type": "RECORD", "record": {"stream": "s", "data": marked}})
    for value in data.values():
        if isinstance(value, Decimal):
            text = text.replace(f'"<{value:f}>"', f"{value:f}")
    return text.encode()


@given(st.dictionaries(st.text("abc", min_size=1), CELLS))
def test_no_cell_changes_its_value(data):
    got = parse(line(data))["record"]["data"]
    assert got.keys() == data.keys()
    for name, value in data.items():
        if isinstance(value, Decimal):
            assert got[name] == f"{value:f}"
        else:
            assert got[name] == value
            assert type(got[name]) is type(value)


@given(st.binary())
def test_no_line_at_all_makes_the_parser_stumble(given_line):
    try:
        message = parse(given_line)
    except BrokenMessageError:
        return
    assert message is None or message["type"]


@given(st.integers(min_value=1))
def test_a_record_cut_anywhere_is_never_taken_for_another(at):
    whole = line({"a": Decimal("1.10"), "b": "text"})
    cut = whole[: at % len(whole)]
    with contextlib.suppress(BrokenMessageError):
        assert parse(cut) is None


@pytest.mark.parametrize("content", [b"", b',"state":null', b',"state":[]'])
def test_a_state_without_content_is_broken(content):
    with pytest.raises(BrokenMessageError):
        parse(b'{"type":"STATE"' + content + b"}")


def test_the_catalog_asks_for_what_is_offered():
    catalog = {
        "streams": [
            {
                "name": "a",
                "supported_sync_modes": ["full_refresh", "incremental"],
                "default_cursor_field": ["t"],
                "source_defined_primary_key": [["id"]],
            },
            {"name": "b"},
        ]
    }
    configured, missing = configured_catalog(catalog, ["b", "a", "c"])
    assert missing == ["c"]
    b, a = configured["streams"]
    assert (b["sync_mode"], a["sync_mode"]) == ("full_refresh", "incremental")
    assert (a["cursor_field"], a["primary_key"]) == (["t"], [["id"]])


def test_secrets_are_found_by_name_flag_and_address_however_deep():
    spec = {
        "connectionSpecification": {
            "properties": {
                "credentials": {
                    "oneOf": [
                        {"properties": {"kind": {}}},
                        {"properties": {"pin": {"airbyte_secret": True}}},
                    ]
                },
                "many": {"items": {"properties": {"x": {"airbyte_secret": True}}}},
            }
        }
    }
    config = {
        "credentials": {"kind": "basic-kind", "pin": 90210},
        "many": [{"x": "hidden one"}],
        "database": "mysql://user:pa%24s@host/db",
        "ApiToken": ["tok-1", "tok-12"],
        "base_url": "https://plain.example",
        "symbols": ["BTCUSDT"],
    }
    mask = Masker(config, spec)
    said = mask("90210 'hidden one' hidden%20one pa%24s tok-12 tok-1 https://plain.example BTCUSDT")
    assert said == f"{MASK} '{MASK}' {MASK} {MASK} {MASK} {MASK} https://plain.example BTCUSDT"
    assert mask.deep({"a": ["tok-1", 1]}) == {"a": [MASK, 1]}
    assert Masker({})("nothing") == "nothing"
