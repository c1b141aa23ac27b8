import random

from hypothesis import given
from hypothesis import strategies as st

from fedstep.client.retry import Backoff
from fedstep.common.durations import duration_of, seconds_of


@given(st.integers(0, 10_000), st.integers(0, 1000))
def test_waits_are_jittered_and_bounded(attempt: int, seed: int) -> None:
    delay_s = Backoff(0.2, 5.0).delay_s(attempt, random.Random(seed))
    assert 0 <= delay_s <= min(5.0, 0.2 * 2 ** min(attempt, 10))


@given(st.floats(0, 1e6))
def test_durations_are_kept_to_the_nanosecond(seconds: float) -> None:
    duration = duration_of(seconds)
    assert 0 <= duration.nanos < 1_000_000_000
    assert abs(seconds_of(duration) - seconds) <= 1e-9 + seconds * 1e-12
