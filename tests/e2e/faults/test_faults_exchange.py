"""The exchange misbehaves: a sync succeeds or says why not, and nothing is lost either way."""

import json

import pytest

from bentley.warehouse.ledger import INGEST
from bentley.warehouse.warehouse import Warehouse
from e2e.faults.conftest import failed
from unit.stages.chain_support import batches, digest

KLINES = "/api/v3/klines"
TIME = "/api/v3/time"


def look(place):
    with Warehouse.open(place.settings) as warehouse:
        return digest(warehouse)


_RIGHT = {}


@pytest.fixture
def right(place):
    """What a sync brings from an exchange that behaves; it is the same for every test."""
    if not _RIGHT:
        clean = place("clean")
        assert clean.run("sync").returncode == 0
        _RIGHT.update(look(clean))
    return _RIGHT


def test_passing_faults_do_not_show(place, exchange, right):
    exchange.faults(
        [
            {"kind": kind, "path": KLINES, "after": at, "count": 1, **more}
            for at, (kind, more) in enumerate(
                [
                    ("429", {"retry_after": 1}),
                    ("500", {}),
                    ("half_body", {}),
                    ("418", {"retry_after": 1}),
                    ("refuse", {}),
                ]
            )
        ]
        + [
            {"kind": kind, "path": TIME, "after": at, "count": 1}
            for at, kind in enumerate(["not_json", "empty", "half_body"])
        ]
    )
    stormy = place("stormy")
    done = stormy.run("sync", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["status"] == "committed"
    assert look(stormy) == right
    struck = exchange.requests()["paths"][KLINES]
    assert set(struck) > {"200", "429", "500", "418"}


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ({"kind": "429", "path": KLINES, "retry_after": 900}, "asks for 900 s"),
        ({"kind": "418", "path": KLINES, "after": 3, "retry_after": 900}, "418"),
        ({"kind": "418", "path": TIME, "retry_after": 900}, "asks for fewer requests"),
        ({"kind": "500", "path": TIME, "every": 1}, "answered 500"),
        ({"kind": "403_page", "path": TIME, "every": 1}, "answered 403"),
        ({"kind": "refuse", "path": TIME, "every": 1}, "can't be reached"),
        ({"kind": "half_body", "path": TIME, "every": 1}, "can't be reached"),
    ],
    ids=lambda value: "-".join(map(str, value.values())) if isinstance(value, dict) else "",
)
def test_lasting_faults_are_an_error_that_says_so_and_the_rerun_completes(
    place, exchange, right, fault, words
):
    exchange.faults([{"every": 1} | fault])
    failing = place("failing")
    done = failing.run("sync", "--json")
    assert words in failed(done)
    assert "Traceback" not in done.stderr
    with Warehouse.open(failing.settings) as warehouse:
        made = batches(warehouse, INGEST)
    assert [batch.status for batch in made] == ["failed"]
    assert words in made[0].error
    exchange.clear_faults()
    again = failing.run("sync", "--json")
    assert again.returncode == 0, again.stderr
    assert look(failing) == right


def test_an_unknown_symbol_is_named_by_the_command(place):
    one = place("one")
    done = one.run("sync", "--symbols", "BTCUSDT", "NOPEUSDT", "--json")
    assert done.returncode == 0, done.stderr
    assert [failure["symbol"] for failure in json.loads(done.stdout)["failures"]] == ["NOPEUSDT"]
    none = one.run("sync", "--symbols", "NOPEUSDT")
    assert none.returncode == 2
    assert "NOPEUSDT" in none.stderr
