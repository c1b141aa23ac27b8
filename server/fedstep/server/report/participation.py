"""Who took part in a study and who was left out, and what that means on their data.

A deadline that slow clients miss makes a model for the fast ones. So it is said how much of each client's training was
taken, and how the model does on the data of those of whose training little was.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean, median
from typing import Any

from fedstep.server.report.words import names_text
from fedstep.server.storage.base import AssignmentRecord, NewEvent

PARTICIPATION = "study_participation"
"""The kind of the event."""

HIGH_LOSS = 1.5
"""Times the mean: a model whose loss on somebody's data is so much is said to be bad for them, left out or not."""

LISTED = 200
"""Clients left out that are told of one by one."""

Late = tuple[int, int, str]
"""A late update: the trial and the round that it was made for, and its client."""

_TAKEN = "accepted"
_LATE = ("late", "goes_on")
_MISSED = (*_LATE, "lost", "failed")


@dataclass
class Share:
    """One client's part in a study.

    Attributes:
        client: Its name.
        asked: Trainings that it was asked for.
        taken: Of these, those whose update was taken, in time or late.
        missed: Of these, those that were late and not taken or lost, or failed.
        lacking: Of those taken, what was not done of their local steps: 0.8 for each of which a fifth was.
        losses: Of every measurement on its data, the loss over its cohort's mean.
    """

    client: str
    asked: int = 0
    taken: int = 0
    missed: int = 0
    losses: list[float] = field(default_factory=list)
    lacking: float = 0.0

    @property
    def work(self) -> float:
        """How many whole trainings those taken come to, by their local steps."""
        return self.taken - self.lacking

    @property
    def relative_loss(self) -> float | None:
        """The model's loss on its data over its cohort's mean, on average; None where it never measured."""
        return fmean(self.losses) if self.losses else None


@dataclass(frozen=True)
class Group:
    """Some clients' part in a study.

    Attributes:
        clients: How many they are.
        asked: Trainings that one of them was asked for, in the mean.
        taken: The same of those taken.
        missed: The same of those missed.
        work: How many whole trainings those taken come to, in the mean.
        relative_loss: The mean over those of them that measured, of the model's loss on their data over their
            cohort's mean; None where none did.
    """

    clients: int
    asked: float
    taken: float
    missed: float
    work: float
    relative_loss: float | None

    @classmethod
    def of(cls, shares: Sequence[Share]) -> "Group":
        """What these clients' part was."""
        losses = [loss for share in shares if (loss := share.relative_loss) is not None]
        count = max(1, len(shares))
        return cls(
            clients=len(shares),
            asked=sum(share.asked for share in shares) / count,
            taken=sum(share.taken for share in shares) / count,
            missed=sum(share.missed for share in shares) / count,
            work=sum(share.work for share in shares) / count,
            relative_loss=fmean(losses) if losses else None,
        )


class Tally:
    """Counts every client's part, one assignment after the other.

    Args:
        clients: Those that were there, asked or not.
        late: The late updates that were taken, each with the part of its local steps that were done.
    """

    def __init__(self, clients: Iterable[str], late: Mapping[Late, float] | None = None) -> None:
        self._shares = {name: Share(name) for name in clients}
        self._late = dict(late or {})
        self._measuring: tuple[int, int] | None = None
        self._measured: dict[int, dict[str, float]] = {}

    def add(self, assignments: Iterable[AssignmentRecord]) -> None:
        """Counts some, which come by trial and round."""
        for record in assignments:
            if (record.trial, record.round) != self._measuring:
                self._compare()
                self._measuring = record.trial, record.round
            share = self._shares.setdefault(record.client, Share(record.client))
            if record.work == "train":
                part = None
                if record.status == _TAKEN:
                    part = record.metrics.get("part", 1.0)
                elif record.status in _LATE:
                    part = self._late.get((record.trial, record.round, record.client))
                share.asked += 1
                share.missed += record.status in _MISSED and part is None
                if part is not None:
                    share.taken += 1
                    share.lacking += 1 - part
            elif record.status == _TAKEN and "loss" in record.metrics:
                self._measured.setdefault(record.attempt, {})[record.client] = record.metrics["loss"]

    def shares(self) -> list[Share]:
        """Every client's part, by name."""
        self._compare()
        return [self._shares[name] for name in sorted(self._shares)]

    def _compare(self) -> None:
        """A round is over: its losses are compared with one another."""
        for losses in self._measured.values():
            mean = fmean(losses.values())
            for name, loss in losses.items() if mean > 0 else ():
                self._shares[name].losses.append(loss / mean)
        self._measured = {}


def shares_of(
    assignments: Iterable[AssignmentRecord], clients: Iterable[str], late: Mapping[Late, float] | None = None
) -> list[Share]:
    """Every client's part, by name.

    Args:
        assignments: Of the study, by trial and round.
        clients: Those that were there, asked or not.
        late: See `Tally`.
    """
    tally = Tally(clients, late)
    tally.add(assignments)
    return tally.shares()


def left_out(shares: Sequence[Share]) -> list[Share]:
    """Those of whose training less than half as much was taken as of the median client's, or none, where others' was.

    The least first.
    """
    work = [share.work for share in shares]
    least = median(work) / 2 if any(work) else 0.0
    out = [share for share in shares if any(work) and (share.work < least or not share.taken)]
    return sorted(out, key=lambda share: (share.work, share.client))


def worse_off(shares: Sequence[Share]) -> list[Share]:
    """Those who are not left out, and on whose data the model's loss is `HIGH_LOSS` times the mean; the worst first."""
    out = {share.client for share in left_out(shares)}
    losses = {share.client: share.relative_loss or 0.0 for share in shares if share.client not in out}
    high = [share for share in shares if losses.get(share.client, 0.0) >= HIGH_LOSS]
    return sorted(high, key=lambda share: (-losses[share.client], share.client))


def groups(shares: Sequence[Share]) -> tuple[Group, Group]:
    """The part of those left out, and that of the others."""
    out = left_out(shares)
    names = {share.client for share in out}
    return Group.of(out), Group.of([share for share in shares if share.client not in names])


def participation(shares: Sequence[Share]) -> NewEvent:
    """Who took part, as an event of the study."""
    out = left_out(shares)
    details: dict[str, Any] = {
        "clients": len(shares),
        "never_trained": sum(not share.taken for share in shares),
        "left_out": {share.client: _details(share) for share in out[:LISTED]},
        "worse_off": {share.client: _details(share) for share in worse_off(shares)[:LISTED]},
    }
    ratio = _ratio(*groups(shares))
    if ratio is not None:
        details["relative_loss"] = round(ratio, 4)
    return NewEvent(PARTICIPATION, participation_text(shares), details)


def participation_text(shares: Sequence[Share], named: bool = True) -> str:
    """Who took part, in a sentence or two.

    Args:
        shares: Every client's part.
        named: Whether with the names of those left out.
    """
    counts, out = [share.taken for share in shares], left_out(shares)
    if not out:
        spread = (
            f"{min(counts)} to {max(counts)}" if counts and min(counts) < max(counts) else f"{max(counts, default=0)}"
        )
        whom = "the one client" if len(shares) == 1 else f"each of {len(shares)} clients"
        return f"No client was left out: training was taken from {whom} {spread} times.{_worse_text(shares, named)}"
    names = f": {names_text([share.client for share in out])}" if named else ""
    ratio = _ratio(*groups(shares))
    worse = "" if ratio is None else f" The loss on their data is {ratio:.2f} times that on the others'."
    middle = median(share.work for share in shares)
    little = f"trained less than half as much as the median client ({whole_trainings(middle)})"
    how = little if out[-1].taken or middle > 1 else "never trained"
    return f"{len(out)} of {len(shares)} clients {how}{names}.{worse}{_worse_text(shares, named)}"


def steps_text(work: float, taken: float) -> str:
    """The part of the local steps that was done in trainings that were taken; a dash where none was.

    Args:
        work: How many whole trainings they come to.
        taken: How many they are.
    """
    return f"{work / taken:.0%}" if taken else "–"


def whole_trainings(work: float) -> str:
    """How much training that is."""
    return f"{work:.3g} whole training{'' if work == 1 else 's'}"


def _worse_text(shares: Sequence[Share], named: bool) -> str:
    """On whose data the model is bad, of those who were not left out; "" where it is on nobody's."""
    found = worse_off(shares)
    if not found:
        return ""
    whose = names_text([share.client for share in found]) if named else f"{len(found)} of the clients"
    worst = f"{found[0].relative_loss:.2f} times the mean"
    return f" Yet the loss on the data of {whose} is high: {worst}{'' if len(found) == 1 else ' at the worst'}."


def _ratio(theirs: Group, others: Group) -> float | None:
    """The loss on the data of those left out over that on the others'; None where either never measured."""
    if theirs.relative_loss is None or not others.relative_loss:
        return None
    return theirs.relative_loss / others.relative_loss


def _details(share: Share) -> dict[str, float]:
    loss = share.relative_loss
    counts: dict[str, float] = {"asked": share.asked, "taken": share.taken, "missed": share.missed}
    counts["work"] = round(share.work, 4)
    return counts if loss is None else {**counts, "relative_loss": round(loss, 4)}
