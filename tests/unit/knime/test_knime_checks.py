"""The planner answers whatever is in a workflow: it lists, and it never breaks."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bentley.knime.nodes import REGISTRY
from bentley.knime.nodes.base import BaseNode
from bentley.knime.xmlconfig import Config, Entry

VALUES = st.one_of(
    st.builds(Entry, st.just("xstring"), st.one_of(st.none(), st.text(max_size=8))),
    st.builds(Entry, st.just("xint"), st.one_of(st.none(), st.integers(-3, 3))),
    st.builds(Entry, st.just("xboolean"), st.booleans()),
    st.builds(Entry, st.just("xdouble"), st.floats()),
)
INNER = (
    "array-size", "0", "1", "operator", "columnV2", "regularChoice", "specialChoice_Internals",
    "predicateValues", "values", "mode", "path", "factoryID", "InclList", "columnNames",
    "aggregationMethod", "inclMissingVals", "cell_class", "RowFilter_TypeID", "tableName",
)  # fmt: skip


def _config(children: dict[str, Entry | Config]) -> Config:
    config = Config("config")
    config.children.update(children)
    return config


def _trees(keys):
    inner = st.recursive(
        VALUES,
        lambda below: st.dictionaries(st.sampled_from(INNER), below, max_size=4).map(_config),
        max_leaves=8,
    )
    return st.dictionaries(st.sampled_from(sorted(keys) or ["x"]), inner, max_size=6).map(_config)


@pytest.mark.parametrize("factory", sorted(REGISTRY))
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_any_settings_are_answered_with_a_list(factory, data):
    model = data.draw(_trees(REGISTRY[factory].keys))
    lacks = REGISTRY[factory](model).check()
    assert all(isinstance(line, str) and line for line in lacks)


@pytest.mark.parametrize("factory", sorted(REGISTRY))
def test_every_node_reports_a_setting_that_it_does_not_know(factory):
    model = Config("model").put("notOfThisWorld", 1).put("harmless_Internals", 1)
    lacks = REGISTRY[factory](model).check()
    assert "setting 'notOfThisWorld' is not known" in lacks
    assert not any("harmless" in line for line in lacks)


@pytest.mark.parametrize("factory", sorted(REGISTRY))
def test_every_node_says_what_it_is(factory):
    node = REGISTRY[factory]
    assert issubclass(node, BaseNode)
    assert node.__doc__ != BaseNode.__doc__
    assert node.keys
