"""When a client will be done, as far as its step reports tell, and what to tell it.

All times are seconds since the dispatch of its work. There is no clock here: whoever asks says what time it is.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum

WINDOW = 16
"""Latest steps that a client's pace is taken from: an old stall is forgotten, a single slow step is not all."""

REPORTS = 20
"""A client is looked at so many times in a round at least, and believed to work on for as long without a word."""

UNKNOWN_STEP_SHARE = 0.1
"""Of the deadline: how long a step is taken to last where none was reported."""

_ENDS = 16
"""Later ends of a round that are looked at, among all arrivals."""

_CLEARLY = 2
"""Times as many updates a second, to end a round of clients that are seen for the first time."""

_SILENT = 4
"""See `pays_to_wait`."""

_ROUNDING_S = 1e-6
_MARGIN_SHARE = 0.05
_MARGIN_S = (0.1, 2.0)


class Advice(Enum):
    """What becomes of a client's work."""

    GO_ON = "go on"
    STOP_AND_SEND = "stop and send"


@dataclass(frozen=True)
class Progress:
    """How far a client has come.

    Attributes:
        steps: Local steps in all, at least 1.
        done: Of these reported.
        step_s: Its pace, seconds a step; nan while none is known.
        reported_s: When the last report came.
    """

    steps: int
    done: int = 0
    step_s: float = math.nan
    reported_s: float = 0.0

    @classmethod
    def of(cls, steps: int, step_ms: Sequence[float], reported_s: float) -> "Progress":
        """Progress from step reports.

        Args:
            steps: Local steps in all.
            step_ms: Milliseconds of every step so far; nan for one whose report was lost.
            reported_s: When the last of them came.
        """
        known = [value for value in step_ms[-WINDOW:] if 0 <= value < math.inf]
        step_s = math.fsum(known) / len(known) / 1000 if known else math.nan
        return cls(max(1, steps), min(len(step_ms), steps), step_s, reported_s)

    def finish_s(self, now_s: float, patience_s: float) -> float:
        """When its last step will be over; infinite while its pace is not known.

        Args:
            now_s: The time.
            patience_s: For so long it is taken to work on without a report. After that it has stood still.
        """
        if math.isnan(self.step_s):
            return math.inf
        # What it has begun before it fell silent it will finish after it wakes: never earlier than now.
        return max(self.reported_s, now_s - patience_s) + (self.steps - self.done) * self.step_s

    def share_by(self, time_s: float, now_s: float, patience_s: float) -> float:
        """What part of its steps it will have taken at a time to come, 0 to 1."""
        finish_s = self.finish_s(now_s, patience_s)
        if math.isinf(finish_s):
            return 0.0
        missing = (finish_s - time_s) / self.step_s if self.step_s else float(finish_s > time_s) * self.steps
        return min(1.0, max(0.0, (self.steps - missing) / self.steps))


@dataclass(frozen=True)
class RoundEnd:
    """The end of a round, as it stands.

    Attributes:
        deadline_s: The round's own deadline.
        end_s: When it ends now; the deadline, or later where it was put off.
        latest_s: It is never put off further than this.
    """

    deadline_s: float
    end_s: float
    latest_s: float

    @classmethod
    def at(cls, deadline_s: float, latest_s: float = 0.0) -> "RoundEnd":
        """A round that was not put off yet."""
        return cls(deadline_s, deadline_s, max(deadline_s, latest_s))

    @property
    def margin_s(self) -> float:
        """Left between an update's arrival and the end: for the trip of the directive, and for what is not foreseen."""
        least, most = _MARGIN_S
        return min(max(_MARGIN_SHARE * self.deadline_s, least), most, self.deadline_s / 4)

    @property
    def patience_s(self) -> float:
        """How long a client is believed to work on without a report."""
        return self.deadline_s / REPORTS

    @property
    def least_put_off_s(self) -> float:
        """It is put off by so much at least: less is worth no word to its clients."""
        return max(self.margin_s, _MARGIN_SHARE * self.deadline_s)

    def arrival_s(self, progress: "Progress", upload_s: float, now_s: float) -> float:
        """When a client's whole update is expected, with the margin that an end leaves for it."""
        return progress.finish_s(now_s, self.patience_s) + upload_s + self.margin_s

    def due_s(self, upload_s: float) -> float:
        """When a client must have taken its last step for its update to be in time."""
        return self.end_s - self.margin_s - upload_s


@dataclass(frozen=True)
class Projected:
    """What is expected of a client.

    Attributes:
        advice: What to do about it now.
        finish_s: When its update would be there if nothing were done; infinite where nothing is known of its pace.
        look_again_s: When to ask again; infinite once nothing can change.
    """

    advice: Advice
    finish_s: float
    look_again_s: float


def project(progress: Progress, end: RoundEnd, upload_s: float, now_s: float) -> Projected:
    """What is expected of a client, and whether it must be told to stop training and send what it has.

    It is told as late as possible: when the step after the one under way would end too late. A client of unknown pace
    (it is still fetching the model, or stands still) is told when a tenth of the deadline is left.

    Args:
        progress: How far it is.
        end: The round's.
        upload_s: How long its update will be on its way.
        now_s: The time.
    """
    due_s = end.due_s(upload_s)
    finish_s = progress.finish_s(now_s, end.patience_s)
    arrival_s = finish_s + upload_s
    if progress.done >= progress.steps:  # only its update is missing
        return Projected(Advice.GO_ON, arrival_s, math.inf)
    step_s = UNKNOWN_STEP_SHARE * end.deadline_s if math.isnan(progress.step_s) else progress.step_s
    stop_s = due_s - step_s
    if now_s < stop_s:
        return Projected(Advice.GO_ON, arrival_s, min(stop_s, now_s + end.patience_s))
    if finish_s <= due_s + _ROUNDING_S:
        return Projected(Advice.GO_ON, arrival_s, now_s + end.patience_s)
    return Projected(Advice.STOP_AND_SEND, arrival_s, math.inf)


def best_end(end: RoundEnd, accepted: int, running: Iterable[tuple[Progress, float]], now_s: float) -> float:
    """When the round had best end: at its end, or at a later arrival where that brings more work a second.

    A round's work is counted in whole updates; what a client has when it is told to stop is its share of one.

    Args:
        end: The round's; it is never put off beyond its `latest_s`, nor by less than its `least_put_off_s`.
        accepted: Updates that are there.
        running: Every other client's progress, and how long its update will be on its way.
        now_s: The time.
    """
    clients = list(running)
    arrivals = (end.arrival_s(progress, upload_s, now_s) for progress, upload_s in clients)
    later = sorted(time_s for time_s in arrivals if end.end_s + end.least_put_off_s <= time_s <= end.latest_s)
    ends = [end.end_s, *later[:: -(-len(later) // _ENDS) or 1]]

    def work_per_second(time_s: float) -> float:
        shares = (
            progress.share_by(time_s - end.margin_s - upload_s, now_s, end.patience_s) for progress, upload_s in clients
        )
        return (accepted + math.fsum(shares)) / time_s

    return max(ends, key=work_per_second)


def pays_to_wait(accepted: int, running: Iterable[tuple[Progress, float]], now_s: float) -> bool:
    """Whether a round that may end at any time goes on.

    It does not where, whenever it ended, it had had less than half as many updates a second as now.

    Args:
        accepted: Updates that are there.
        running: As in `best_end`; who has told of no step in half of the time is taken to be `_SILENT` times as late.
        now_s: The time.
    """

    def arrival_s(progress: Progress, upload_s: float) -> float:
        silent = math.isnan(progress.step_s) or progress.reported_s < now_s / 2
        return (_SILENT * now_s if silent else progress.finish_s(now_s, now_s / REPORTS)) + upload_s

    arrivals = sorted(arrival_s(*client) for client in running)
    return any(_CLEARLY * count * now_s > accepted * at_s for count, at_s in enumerate(arrivals, accepted + 1))
