"""A handicap on a command line."""

import click
import pytest

from fedstep.common.handicap_options import BandwidthType, DurationType, SlowdownType, StallsType


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (SlowdownType(), "1", 1.0),
        (SlowdownType(), "2.5", 2.5),
        (StallsType(), "30s:10s", (30.0, 10.0)),
        (StallsType(), "1.5m:500ms", (90.0, 0.5)),
        (BandwidthType(), "2MiB/s", 2.0 * 2**20),
        (BandwidthType(), "0.5 MB/s", 5e5),
        (BandwidthType(), "64KiB/s", 65536.0),
        (DurationType(), "10m", 600.0),
    ],
)
def test_what_is_written_is_read(kind: click.ParamType[object], text: str, value: object) -> None:
    assert kind.convert(text, None, None) == value
    assert kind.convert(value, None, None) == value  # click may ask twice


@pytest.mark.parametrize(
    ("kind", "text", "said"),
    [
        (SlowdownType(), "0.5", "0.5 is no slowdown: give how many times as long, from 1 to 1000"),
        (SlowdownType(), "nan", "is no slowdown"),
        (SlowdownType(), "x", "x is no slowdown"),
        (SlowdownType(), "1001", "from 1 to 1000"),
        (
            StallsType(),
            "30s",
            "30s is no rhythm of stalls: give how often and then, shorter, how long, such as 30s:10s",
        ),
        (StallsType(), "10s:30s", "is no rhythm"),
        (StallsType(), "10s:10s", "is no rhythm"),
        (StallsType(), "30:10", "is no rhythm"),
        (StallsType(), "0s:0s", "is no rhythm"),
        (BandwidthType(), "2", "2 is no bandwidth: give one such as 2MiB/s or 500kB/s, at least 64KiB/s"),
        (BandwidthType(), "2 miles/s", "is no bandwidth"),
        (BandwidthType(), "1KiB/s", "at least 64KiB/s"),
        (DurationType(), "soon", "soon is no duration: give one such as 30s"),
        (DurationType(), "0s", "is no duration"),
    ],
)
def test_a_mistake_is_one_sentence(kind: click.ParamType[object], text: str, said: str) -> None:
    with pytest.raises(click.BadParameter) as refusal:
        kind.convert(text, None, None)
    assert said in refusal.value.message
