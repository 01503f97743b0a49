"""No origin's bars are mixed with another's, and none are lost: on a file and on a server."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from bentley.domain.errors import ConfigurationError
from bentley.services.replay_room import replay_room
from bentley.warehouse.warehouse import Warehouse

GAP = "INSERT INTO gaps VALUES ('BTCUSDT', '1h', 1, 2, 3, 4)"


@pytest.fixture
def of(settings, database_url):
    return lambda origin: settings(origin=origin, warehouse_url=database_url)


def gaps(settings) -> int:
    with Warehouse.open(settings) as warehouse, warehouse.reading() as connection:
        return connection.execute(sa.text("SELECT COUNT(*) FROM gaps")).scalar_one()


def test_the_bars_of_another_origin_are_set_aside_and_come_back(of):
    first, second = of("replay:klines@00000001"), of("replay:klines@00000002")
    with replay_room(first), Warehouse.open(first) as warehouse, warehouse.writing() as connection:
        connection.execute(sa.text(GAP))
    for _ in range(2):
        with replay_room(second):
            assert gaps(second) == 0
        with replay_room(first):
            assert gaps(first) == 1
    with replay_room(of("generated:7")):
        assert gaps(of("generated:7")) == 0
    with replay_room(first):
        assert gaps(first) == 1


def test_on_a_server_a_run_of_another_home_is_not_disturbed(settings, mariadb):
    address = mariadb.database()
    first, second = (settings(origin=f"replay:{n}", warehouse_url=address) for n in (1, 2))
    with replay_room(first):
        with (
            pytest.raises(ConfigurationError, match="another run replays into mansa_bot_"),
            replay_room(second),
        ):
            pass
        assert gaps(first) == 0
    with replay_room(second):
        assert gaps(second) == 0


def test_a_user_without_the_right_is_told_what_to_grant(settings, mariadb):
    url = sa.make_url(mariadb.database()).set(username="narrow", password="pw-8")
    with mariadb.admin() as connection, connection.cursor() as cursor:
        cursor.execute("CREATE USER 'narrow'@'127.0.0.1' IDENTIFIED BY 'pw-8'")
        cursor.execute(f"GRANT ALL ON {url.database}_replay.* TO 'narrow'@'127.0.0.1'")
    address = url.render_as_string(hide_password=False)
    first, second = (settings(origin=f"replay:{n}", warehouse_url=address) for n in (1, 2))
    with replay_room(first):
        pass
    with (
        pytest.raises(ConfigurationError, match=r"GRANT ALL ON `mansa_bot_\d+_replay_replay_1`"),
        replay_room(second),
    ):
        pass
    with mariadb.admin() as connection, connection.cursor() as cursor:  # as README.md has it
        cursor.execute(f"GRANT ALL ON `{url.database}_replay%`.* TO 'narrow'@'127.0.0.1'")
    with replay_room(second):
        assert gaps(second) == 0
