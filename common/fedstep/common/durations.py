"""Seconds as the protocol's durations and back."""

from google.protobuf.duration_pb2 import Duration


def duration_of(seconds: float) -> Duration:
    """The duration of that many seconds."""
    nanos = round(seconds * 1e9)
    return Duration(seconds=nanos // 1_000_000_000, nanos=nanos % 1_000_000_000)


def seconds_of(duration: Duration) -> float:
    """How many seconds a duration has."""
    return duration.seconds + duration.nanos / 1e9
