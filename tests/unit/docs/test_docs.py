"""What the pages promise is there: settings, commands, columns, links, pictures."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bentley.cli import app
from bentley.services.exchange import control
from bentley.services.exchange.app import Exchange
from bentley.services.exchange.clock import Clock
from bentley.services.exchange.faults import KINDS
from bentley.services.exchange.generated import GeneratedMarket
from bentley.settings import Settings
from bentley.warehouse.schema import knime_processed

ROOT = Path(__file__).resolve().parents[3]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
_MOST_BYTES = 200_000


def test_the_settings_table_is_whole_and_names_nothing_else():
    settings = {
        str(field.validation_alias or f"BENTLEY_{name.upper()}")
        for name, field in Settings.model_fields.items()
    }
    table = README.partition("## Settings")[2].partition("\n## ")[0]
    cells = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    listed = set(re.findall(r"`([A-Z_]+)`", " ".join(cells)))
    assert listed == settings


def test_every_command_is_listed():
    table = README.partition("## Commands")[2].partition("\n## ")[0]
    commands = {name for name in app if not name.startswith("-")}
    assert commands
    for name in commands:
        assert re.search(rf"`(bentley )?{name}\b", table), name


def test_every_column_is_defined():
    page = (ROOT / "docs" / "columns.md").read_text(encoding="utf-8")
    for column in knime_processed.c:
        assert f"`{column.name}`" in page, column.name


def test_every_way_to_steer_the_replay_exchange_is_documented():
    page = (ROOT / "docs" / "replay-exchange.md").read_text(encoding="utf-8")
    exchange = Exchange(GeneratedMarket(7, ["BTCUSDT"]), Clock(0))
    for name in (*KINDS, *(route.path for route in control.routes(exchange))):
        assert f"`{name}`" in page, name


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_links_inside_the_repository_lead_somewhere(page):
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)]+)\)", text):
        if "://" in target:
            continue
        place, _, anchor = target.partition("#")
        linked = page.parent / place if place else page
        assert linked.exists(), target
        if anchor:
            heads = re.findall(r"^#+ (.+)$", linked.read_text(encoding="utf-8"), re.MULTILINE)
            anchors = {re.sub(r"[^\w -]", "", head).lower().replace(" ", "-") for head in heads}
            assert anchor in anchors, target


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_no_page_names_a_place_of_one_machine(page):
    assert not re.search(r"/(root|work|tmp)/", page.read_text(encoding="utf-8"))


def test_pictures_are_small():
    pictures = sorted((ROOT / "docs" / "images").glob("*.png"))
    assert pictures
    for picture in pictures:
        assert picture.stat().st_size < _MOST_BYTES, picture.name
