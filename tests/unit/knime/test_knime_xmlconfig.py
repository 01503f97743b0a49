from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bentley.domain.errors import ConfigurationError
from bentley.knime import xmlconfig
from bentley.knime.xmlconfig import Config, Entry

TEXT = st.text(
    st.one_of(
        st.characters(codec="utf-8"),
        st.sampled_from("%&<>\"'\n\r\t\0\x1f\U0001f600\uffff0123456789"),
    ),
    max_size=30,
)
ENTRIES = st.one_of(
    TEXT.map(lambda value: Entry("xstring", value)),
    st.integers(-(2**31), 2**31 - 1).map(lambda value: Entry("xint", value)),
    st.integers(-(2**63), 2**63 - 1).map(lambda value: Entry("xlong", value)),
    st.floats().map(lambda value: Entry("xdouble", value)),
    st.booleans().map(lambda value: Entry("xboolean", value)),
    st.sampled_from(["xstring", "xint", "xpassword"]).map(lambda kind: Entry(kind, None)),
)


def _config(children: dict[str, Entry | Config]) -> Config:
    config = Config("config")
    for key, child in children.items():
        if isinstance(child, Config):
            child.key = key
        config.children[key] = child
    return config


TREES = st.recursive(
    ENTRIES, lambda inner: st.dictionaries(TEXT, inner, max_size=4).map(_config), max_leaves=20
)


@given(st.dictionaries(TEXT, TREES, max_size=5).map(_config))
def test_what_is_written_is_read_back(config):
    document = xmlconfig.write(config)
    again = xmlconfig.parse(document)
    assert again == config
    assert xmlconfig.write(again) == document


@given(TEXT)
def test_escapes_survive_and_stay_printable(text):
    escaped = xmlconfig.escape(text)
    assert xmlconfig.unescape(escaped) == text
    assert all(" " <= char <= "\ud7ff" for char in escaped)


def test_line_ends_are_written_as_knime_does():
    assert xmlconfig.escape("a\r\nb") == "a%%00013%%00010b"


def test_a_document_as_knime_writes_it():
    document = b"""<?xml version="1.0" encoding="UTF-8"?>
<config xmlns="http://www.knime.org/2008/09/XMLConfig" key="settings.xml">
    <entry key="customDescription" type="xstring" isnull="true" value=""/>
    <config key="model">
        <entry key="row_delimiter" type="xstring" value="%%00010"/>
        <entry key="quote" type="xchar" value="&quot;"/>
        <entry key="typeMatch" type="xbyte" value="0"/>
        <entry key="limit" type="xdouble" value="-Infinity"/>
        <config key="rules">
            <entry key="array-size" type="xint" value="2"/>
            <entry key="0" type="xstring" value="$a$ &lt; 1 =&gt; 2"/>
            <entry key="1" type="xstring" isnull="true" value=""/>
        </config>
        <config key="empty"/>
    </config>
</config>"""
    model = xmlconfig.parse(document).config("model")
    assert model.text("row_delimiter") == "\n"
    assert model.text("quote") == '"'
    assert model.integer("typeMatch", 7) == 0
    assert model.value("limit") == float("-inf")
    assert model.array("rules") == ["$a$ < 1 => 2", None]
    assert model.config("empty").children == {}


@pytest.mark.parametrize(
    ("document", "said"),
    [
        (b"<config key='a'><entry", "not well-formed"),
        (b"", "not well-formed"),
        (b'<config key="a"><thing/></config>', "<thing>"),
        (b'<config key="a"><entry key="n" type="xint" value="x"/></config>', "'x' as the xint 'n'"),
        (b'<config key="a"><entry key="n" type="xwhat" value="x"/></config>', "xwhat"),
        (b"<entry key='a' value='b'/>", "<entry>"),
    ],
)
def test_broken_documents_are_refused_with_their_name(document, said):
    with pytest.raises(ConfigurationError, match=r"node.xml") as caught:
        xmlconfig.parse(document, name="node.xml")
    assert said in str(caught.value)


def test_a_doctype_is_refused_before_any_entity_grows():
    bomb = b"""<!DOCTYPE a [<!ENTITY x "xxxxxxxxxx"><!ENTITY y "&x;&x;&x;">]>
<config key="a"><entry key="k" type="xstring" value="&y;"/></config>"""
    with pytest.raises(ConfigurationError, match="DOCTYPE"):
        xmlconfig.parse(bomb)


def test_endless_nesting_is_refused():
    deep = b'<config key="a">' * 500 + b"</config>" * 500
    with pytest.raises(ConfigurationError, match="deeper than"):
        xmlconfig.parse(deep)


def test_readers_name_the_path_of_a_wrong_setting():
    config = xmlconfig.parse(
        b'<config key="r"><config key="a"><entry key="n" type="xstring" value="x"/></config></config>'
    )
    with pytest.raises(ConfigurationError, match="'a/n' is 'x', which is not a whole number"):
        config.config("a").integer("n", 1)
    with pytest.raises(ConfigurationError, match="'a/m' is missing"):
        config.config("a").require("m")
