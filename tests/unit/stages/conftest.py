"""An open warehouse on each database."""

import pytest

from bentley.warehouse.warehouse import Warehouse


@pytest.fixture
def opened(settings, database_url):
    """Settings of an empty database; `Warehouse.open` may be called on them more than once."""
    return settings(warehouse_url=database_url)


@pytest.fixture
def warehouse(opened):
    with Warehouse.open(opened) as warehouse:
        yield warehouse
