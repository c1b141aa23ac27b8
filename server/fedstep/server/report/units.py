"""Amounts and moments as people read them."""

from datetime import datetime

_BYTES = ("B", "kB", "MB", "GB", "TB", "PB")


def bytes_text(count: float) -> str:
    """Bytes, in steps of a thousand: `12.3 MB`."""
    unit = 0
    while count >= 999.5 and unit < len(_BYTES) - 1:
        count /= 1000
        unit += 1
    return f"{count:.0f} {_BYTES[unit]}" if unit == 0 or count >= 99.5 else f"{count:.3g} {_BYTES[unit]}"


def duration_text(seconds: float) -> str:
    """Seconds, from milliseconds to days: `250 ms`, `4.2 s`, `12 min`, `3.5 h`."""
    if seconds < 0.9995:
        return f"{1000 * seconds:.0f} ms" if seconds > 0 else "0 s"
    for amount, unit in ((60.0, "s"), (60.0, "min"), (48.0, "h")):
        if seconds < 1.5 * amount:
            return f"{seconds:.3g} {unit}"
        seconds /= 60 if unit != "h" else 24
    return f"{seconds:.3g} days"


def seconds_text(seconds: float) -> str:
    """Seconds, to three digits, whatever they come to: `2.21 s`, `1,230 s`."""
    return f"{float(f'{seconds:.3g}'):,.12g} s"


def moment_text(at: datetime) -> str:
    """A moment in UTC: `26 November 2026, 20:13 UTC`."""
    return f"{at.day} {at:%B %Y, %H:%M} UTC"
