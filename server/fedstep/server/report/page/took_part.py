"""Who took part, who was late, and what leaving them out did."""

from collections import Counter
from collections.abc import Collection, Sequence

from fedstep.common.phrases import count_text
from fedstep.server.report.page.blocks import Block, Picture, Section, Table, Words
from fedstep.server.report.page.story import Story
from fedstep.server.report.participation import Group, Share, groups, left_out, steps_text
from fedstep.server.report.words import short
from fedstep.server.storage.base import Event

_LATE_MEASURING = "client_late evaluate"
"""No event's kind: what `_trouble` makes of a `client_late` that tells of a measurement."""

_TROUBLES = {
    "client_told_to_send": "told to send early",
    "round_put_off": "given more time",
    "client_late": "late",
    _LATE_MEASURING: "late measuring",
    "late_update_taken": "late, and taken later",
    "client_lost": "lost",
    "client_failed": "failed",
    "client_abandoned": "abandoned",
    "client_refused": "refused",
}
"""The troubles of clients, by the kind of the event that tells of them, and what they are called here."""

_OPEN_ROWS, _MOST_ROWS = 20, 200


def participation_section(story: Story, charts: Collection[str]) -> Section:
    """Who took part.

    Args:
        story: The study.
        charts: Those that there are.
    """
    blocks: list[Block] = []
    if "participation" in charts:
        see = "From left to right the least trained first: red were left out, and what is grey was in vain."
        blocks.append(Picture("participation", "Trainings by client", see))
    out = left_out(story.shares)
    if out:
        blocks += [_groups(story.shares), _those(out)]
    blocks.append(_troubles(story))
    return Section(
        "clients",
        "Who took part, and who was late",
        story.took_part or "No client has been asked for a training.",
        blocks,
    )


def _groups(shares: Sequence[Share]) -> Table:
    named = zip(("little or none", "the others"), groups(shares), strict=True)
    return Table(
        ["", "clients", "asked", "taken", "missed", "of their steps", "loss on their data"],
        [
            [
                who,
                f"{each.clients:,}",
                f"{each.asked:.1f}",
                f"{each.taken:.1f}",
                f"{each.missed:.1f}",
                steps_text(each.work, each.taken),
                _loss(each),
            ]
            for who, each in named
        ],
        title="What leaving them out did",
        see="In the mean a client; of the steps, what was done in the trainings taken. A loss above the others' says "
        "that the model is worse for those left out.",
        numbers=frozenset(range(1, 7)),
    )


def _loss(each: Group | Share) -> str:
    return "–" if each.relative_loss is None else f"{each.relative_loss:.2f} × the mean"


def _those(out: Sequence[Share]) -> Table:
    shown = out[:_MOST_ROWS]
    return Table(
        ["client", "asked", "taken", "missed", "of its steps", "loss on its data"],
        [
            [
                short(s.client, 60),
                f"{s.asked:,}",
                f"{s.taken:,}",
                f"{s.missed:,}",
                steps_text(s.work, s.taken),
                _loss(s),
            ]
            for s in shown
        ],
        title=f"Little or nothing taken ({len(out):,})",
        see="Trained less than half as much as the median client.",
        numbers=frozenset(range(1, 6)),
        folded=len(shown) > _OPEN_ROWS,
        more=f"{len(out) - len(shown):,} more are left out." if len(out) > len(shown) else "",
    )


def _named(event: Event) -> list[str]:
    """The clients that it tells of."""
    return [str(name) for name in event.details.get("clients", [event.details.get("client", "")])]


def _trouble(event: Event) -> str:
    """Its kind; a measurement that was late is another trouble than a training."""
    measuring = event.kind == "client_late" and event.details.get("work") == "evaluate"
    return _LATE_MEASURING if measuring else event.kind


def _troubles(story: Story) -> Block:
    """Who was late, lost or failed, and how often."""
    told = Counter((name, _trouble(event)) for event in story.of_kind(*_TROUBLES) for name in _named(event))
    if not told:
        return Words("Nobody was late, lost or refused.")
    kinds = [kind for kind in _TROUBLES if any(found == kind for _, found in told)]
    sums: Counter[str] = Counter()
    for (client, _), count in told.items():
        sums[client] += count
    names = [client for client, _ in sums.most_common(_MOST_ROWS)]
    return Table(
        ["client", *(_TROUBLES[kind] for kind in kinds)],
        [[short(name, 60), *(f"{told[name, kind]:,}" if told[name, kind] else "" for kind in kinds)] for name in names],
        title=f"Who was late ({count_text(len(sums), 'client')})",
        see="How often each client gave trouble, the most often first.",
        numbers=frozenset(range(1, len(kinds) + 1)),
        folded=len(names) > _OPEN_ROWS,
        more=f"{len(sums) - len(names):,} more are left out." if len(sums) > len(names) else "",
    )
