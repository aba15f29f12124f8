"""The target of the stock, computed from what was seen."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel_pool.demand import Demand


def after(leases_per_s: float, seconds: float, refill_s: float) -> tuple[Demand, float]:
    """A steady stream of leases, and when it ended."""
    demand, now = Demand(half_life_s=60), 0.0
    demand.refilled(refill_s)
    while now < seconds:
        now += 1 / leases_per_s
        demand.arrived(now)
    return demand, now


def test_without_demand_the_minimum_is_kept() -> None:
    assert Demand(60).target(100.0, 2, 8) == 2
    assert Demand(60).target(100.0, 0, 8) == 0


def test_the_rate_of_a_steady_stream_is_found() -> None:
    demand, now = after(leases_per_s=4, seconds=600, refill_s=0.1)
    assert demand.rate(now) == pytest.approx(4, rel=0.05)


def test_the_target_covers_what_arrives_while_one_is_replaced_and_two_deviations() -> None:
    demand, now = after(leases_per_s=4, seconds=600, refill_s=1.0)
    expected = demand.rate(now) * 1.0
    assert demand.target(now, 0, 100) == math.ceil(expected + 2 * math.sqrt(expected)) == 9


def test_the_maximum_bounds_it_and_the_minimum_wins() -> None:
    demand, now = after(leases_per_s=20, seconds=600, refill_s=3.0)
    assert demand.target(now, 2, 8) == 8
    assert demand.target(now, 9, 8) == 9


def test_demand_falls_by_half_every_half_life_and_then_to_nothing() -> None:
    demand, now = after(leases_per_s=4, seconds=600, refill_s=1.0)
    rate = demand.rate(now)
    assert demand.rate(now + 60) == pytest.approx(rate / 2)
    assert demand.rate(now + 180) == pytest.approx(rate / 8)
    assert demand.target(now + 3600, 0, 100) == 0


def test_a_slow_refill_counts_at_once_and_is_forgotten_slowly() -> None:
    demand = Demand(60)
    demand.refilled(0.1)
    assert demand.refill_s == pytest.approx(0.1)
    demand.refilled(2.1)
    assert demand.refill_s == pytest.approx(1.1)
    demand.refilled(0.1)
    assert 0.8 < demand.refill_s < 1.0


@given(
    times=st.lists(st.floats(0, 1e6), max_size=50),
    now=st.floats(0, 2e6),
    refill_s=st.floats(0, 100),
    minimum=st.integers(0, 10),
    more=st.integers(0, 50),
)
def test_the_target_is_within_its_bounds_whatever_happened(
    times: list[float], now: float, refill_s: float, minimum: int, more: int
) -> None:
    demand = Demand(60)
    demand.refilled(refill_s)
    for when in times:
        demand.arrived(when)
    assert minimum <= demand.target(now, minimum, minimum + more) <= minimum + more
