"""The small parts: clock, weight limiter, assets of a symbol."""

import pytest

from bentley.services.exchange.clock import Clock
from bentley.services.exchange.limits import Refused, WeightLimiter
from bentley.services.exchange.market import assets


def test_a_fixed_clock_moves_by_hand_alone():
    clock = Clock(1000)
    assert (clock.now(), clock.running) == (1000, False)
    assert clock.advance(5) == clock.now() == 1005
    assert clock.set(7) == clock.now() == 7


def test_a_running_clock_stands_once_it_is_set():
    clock = Clock()
    assert clock.running
    clock.set(7)
    assert (clock.now(), clock.running) == (7, False)


@pytest.mark.parametrize(
    ("symbol", "pair"),
    [
        ("BTCUSDT", ("BTC", "USDT")),
        ("ETHBTC", ("ETH", "BTC")),
        ("BTCFDUSD", ("BTC", "FDUSD")),
        ("USDT", ("USDT", "")),
        ("ODD", ("ODD", "")),
    ],
)
def test_assets_of_a_symbol(symbol, pair):
    assert assets(symbol) == pair


def limiter(limit):
    now = [600_000]
    return WeightLimiter(limit, wall=lambda: now[0]), now


def test_exactly_the_limit_is_allowed():
    made, _ = limiter(6000)
    assert [made.use(2) for _ in range(3000)][-1] == 6000
    with pytest.raises(Refused) as caught:
        made.use(1)
    assert (caught.value.error.status, caught.value.retry_after) == (429, 60)


def test_a_new_minute_forgets_the_weight():
    made, now = limiter(2)
    made.use(2)
    now[0] += 59_999
    with pytest.raises(Refused) as caught:
        made.use(2)
    assert caught.value.retry_after == 1
    now[0] += 1
    assert made.use(2) == 2


def test_bans_double_up_to_three_days():
    made, now = limiter(0)
    waits = []
    for _ in range(14):
        for _ in range(11):
            with pytest.raises(Refused) as caught:
                made.use(1)
        waits.append(caught.value.retry_after)
        now[0] += caught.value.retry_after * 1000
    assert waits[:4] == [120, 240, 480, 960]
    assert waits[-1] == 3 * 24 * 3600


def test_reset_ends_a_ban():
    made, _ = limiter(0)
    for _ in range(12):
        with pytest.raises(Refused) as caught:
            made.use(1)
    assert caught.value.error.status == 418
    made.reset(5)
    assert made.use(5) == 5
