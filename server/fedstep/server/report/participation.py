"""Who took part in a study and who was left out, and what that means on their data.

A deadline that slow clients miss makes a model for the fast ones. So it is said how often each client's training was
taken, and how the model does on the data of those whose training seldom was.
"""

import itertools
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from statistics import fmean, median
from typing import Any

from fedstep.server.report.words import names_text
from fedstep.server.storage.base import AssignmentRecord, NewEvent

_LISTED = 200

_TAKEN = "accepted"
_MISSED = ("late", "lost", "failed")


@dataclass
class Share:
    """One client's part in a study.

    Attributes:
        client: Its name.
        asked: Trainings that it was asked for.
        taken: Of these, those whose update was taken in time.
        missed: Of these, those that were late or lost, or failed.
        losses: Of every measurement on its data, the loss over its cohort's mean.
    """

    client: str
    asked: int = 0
    taken: int = 0
    missed: int = 0
    losses: list[float] = field(default_factory=list)

    @property
    def relative_loss(self) -> float | None:
        """The model's loss on its data over that on the others', in the mean; None where it never measured."""
        return fmean(self.losses) if self.losses else None


def shares_of(assignments: Iterable[AssignmentRecord], clients: Iterable[str]) -> list[Share]:
    """Every client's part, by name.

    Args:
        assignments: Of the study, by trial and round.
        clients: Those that were there, asked or not.
    """
    shares = {name: Share(name) for name in clients}
    for _, of_round in itertools.groupby(assignments, key=lambda record: (record.trial, record.round)):
        measured: defaultdict[int, dict[str, float]] = defaultdict(dict)
        for record in of_round:
            share = shares.setdefault(record.client, Share(record.client))
            if record.work == "train":
                share.asked += 1
                share.taken += record.status == _TAKEN
                share.missed += record.status in _MISSED
            elif record.status == _TAKEN and "loss" in record.metrics:
                measured[record.attempt][record.client] = record.metrics["loss"]
        for losses in measured.values():
            mean = fmean(losses.values())
            for name, loss in losses.items() if mean > 0 else ():
                shares[name].losses.append(loss / mean)
    return [shares[name] for name in sorted(shares)]


def left_out(shares: Sequence[Share]) -> list[Share]:
    """Those whose training was taken less than half as often as the median client's, the least often first."""
    middle = median(share.taken for share in shares) if shares else 0
    return sorted(
        (share for share in shares if 2 * share.taken < middle), key=lambda share: (share.taken, share.client)
    )


def participation(shares: Sequence[Share]) -> NewEvent:
    """Who took part, as an event of the study."""
    out = left_out(shares)
    details: dict[str, Any] = {
        "clients": len(shares),
        "never_trained": sum(not share.taken for share in shares),
        "left_out": {share.client: _details(share) for share in out[:_LISTED]},
    }
    ratio = _ratio(out, {share.client for share in out}, shares)
    if ratio is not None:
        details["relative_loss"] = round(ratio, 4)
    return NewEvent("study_participation", _text(shares, out, ratio), details)


def _text(shares: Sequence[Share], out: Sequence[Share], ratio: float | None) -> str:
    counts = [share.taken for share in shares]
    if not out:
        spread = (
            f"{min(counts)} to {max(counts)}" if counts and min(counts) < max(counts) else f"{max(counts, default=0)}"
        )
        return f"No client was left out: training was taken from each of {len(shares)} clients {spread} times."
    names = names_text([share.client for share in out])
    worse = "" if ratio is None else f" The loss on their data is {ratio:.2f} times that on the others'."
    return (
        f"{len(out)} of {len(shares)} clients trained less than half as often as the median client "
        f"({median(counts):g} times): {names}.{worse}"
    )


def _ratio(out: Sequence[Share], names: Collection[str], shares: Sequence[Share]) -> float | None:
    """The loss on the data of those left out over that on the others'; None where either never measured."""
    theirs = [loss for share in out if (loss := share.relative_loss) is not None]
    others = [loss for share in shares if share.client not in names and (loss := share.relative_loss) is not None]
    return fmean(theirs) / fmean(others) if theirs and others and fmean(others) > 0 else None


def _details(share: Share) -> dict[str, float]:
    loss = share.relative_loss
    counts: dict[str, float] = {"asked": share.asked, "taken": share.taken, "missed": share.missed}
    return counts if loss is None else {**counts, "relative_loss": round(loss, 4)}
