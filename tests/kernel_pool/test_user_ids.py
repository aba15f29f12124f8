"""No two kernels share a system user, whatever places they are in."""

from __future__ import annotations

import pytest

from kernel_pool.types import StartFailed
from kernel_pool.user_ids import UserIds


def test_places_draw_from_one_range_and_never_the_same() -> None:
    one, other = UserIds((900_000, 20)), UserIds((900_000, 20))
    taken = [ids.take() for _ in range(10) for ids in (one, other)]
    assert sorted(taken) == list(range(900_000, 900_020))
    with pytest.raises(StartFailed, match="all 20 user ids for kernels are in use; raise uid_count"):
        one.take()
    one.discard(taken[0])
    assert other.take() == taken[0]
    one.close()
    other.close()


def test_those_of_an_earlier_gateway_are_not_given_out_again() -> None:
    ids = UserIds((910_000, 2))
    ids.add(910_001)
    assert ids.take() == 910_000
    ids.close()
    assert {ids.take(), ids.take()} == {910_000, 910_001}
    ids.close()


def test_a_place_gives_back_its_own_only() -> None:
    one, other = UserIds((920_000, 2)), UserIds((920_000, 2))
    uid = one.take()
    other.discard(uid)
    assert other.take() != uid
    with pytest.raises(StartFailed):
        other.take()
    one.close()
    other.close()
