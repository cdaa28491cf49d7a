"""The rate limit, with a clock that the test controls."""

import pytest

from hub.commands.rate import Rate


@pytest.mark.parametrize("burst", [1, 10, 200])
def test_a_burst_is_allowed_and_one_more_is_not(burst: int) -> None:
    """All at the same time; the value of the clock does not matter."""
    for now in (0.0, 1e9):
        rate = Rate(100, burst)
        assert [rate.add(now) for _ in range(burst + 2)] == [0.0] * burst + [1.0, 2.0]


def test_the_allowance_grows_with_time_up_to_the_burst() -> None:
    """It grows by *per_second* each second. Refused attempts count, too."""
    rate = Rate(0.5, 3)
    assert [rate.add(100.0) for _ in range(5)] == [0.0, 0.0, 0.0, 1.0, 2.0]
    assert rate.add(102.0) == 2.0
    assert rate.add(108.0) == 0.0
    assert rate.add(108.0) == 1.0
    assert [rate.add(1e6) for _ in range(4)] == [0.0, 0.0, 0.0, 1.0]


def test_a_client_that_keeps_to_the_rate_is_never_refused() -> None:
    """Rounding errors do not add up in a day."""
    rate = Rate(100, 1)
    assert not any(rate.add(tick / 100) > 1e-6 for tick in range(24 * 3600))
