"""What measuring takes the clients of a study, and who of them has fallen silent at it."""

import math
from collections.abc import Mapping, Sequence

from fedstep.server.coordination.fleet import Fleet, Member
from fedstep.server.coordination.ledger import Status
from fedstep.server.coordination.phases import EvaluationPhase


class MeasuringTimes:
    """Learns from each measurement for the next one.

    Args:
        fleet: Who is there.
    """

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._took_s: dict[str, float] = {}
        self._missed: dict[str, float] = {}

    def learn_from(self, phase: EvaluationPhase) -> None:
        """Takes in a measurement that is over. A client is expected to take the mean of what it took, the latest for
        half; one that missed it is expected to take no longer for that."""
        for assignment in phase.assignments:
            name, seconds = assignment.member.name, assignment.elapsed_s
            if assignment.status is Status.ACCEPTED:
                self._took_s[name] = math.sqrt(self._took_s.get(name, seconds) * seconds)
                self._missed.pop(name, None)
            elif assignment.status is Status.LATE:
                self._missed[name] = assignment.member.heard_at

    def expected_s(self, members: Sequence[Member], by_pace: Mapping[str, float]) -> dict[str, float]:
        """Seconds that clients are expected to take, by name.

        Args:
            members: Who will measure.
            by_pace: The same by their pace in training, for those who have never answered.
        """
        names = (member.name for member in members)
        return {**by_pace, **{name: self._took_s[name] for name in names if name in self._took_s}}

    def silent(self, members: Sequence[Member]) -> list[str]:
        """Those who did not answer the last measurement that they were asked for, and have not been heard of since."""
        missed = [(member, self._missed[member.name]) for member in members if member.name in self._missed]
        return [member.name for member, heard_at in missed if self._fleet.in_doubt(member, heard_at)]
