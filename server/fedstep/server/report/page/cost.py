"""What a study cost, and what of it was tuning."""

from collections.abc import Collection

from fedstep.server.report.cost import ClientCost, Purpose, Spending
from fedstep.server.report.page.blocks import Block, Picture, Section, Table, Tiles, Words
from fedstep.server.report.page.story import Story, ToldCost
from fedstep.server.report.units import bytes_text, duration_text
from fedstep.server.report.words import short

PURPOSES = {
    Purpose.DELIVERED: "training the delivered model",
    Purpose.MEASURING: "measuring it on the way",
    Purpose.PROBE: "probing clients before training",
    Purpose.SCREEN: "comparing beginnings",
    Purpose.FORKS: "forks that were not taken",
    Purpose.REWOUND: "what was gone back on",
    Purpose.AVERAGES: "averages that were only measured",
    Purpose.PRUNED: "trials that were ended early",
    Purpose.TRIALS: "other complete trials",
    Purpose.FAILED: "what failed",
    Purpose.RUNNING: "what is under way",
    Purpose.EARLIER: "not accounted for",
}
"""What each purpose is called here."""

_OPEN_ROWS, _MOST_ROWS = 20, 200


def cost_section(story: Story, charts: Collection[str]) -> Section:
    """Rounds, trainings, bytes and seconds, by what they were for and by client.

    Args:
        story: The study.
        charts: Those that there are.
    """
    cost = story.cost
    if cost is None or not cost.purposes:
        return Section("cost", "What it cost", "It has cost nothing yet.")
    blocks: list[Block] = [Tiles(_tiles(cost)), *_tuning(cost, story.simulated is not None)]
    if "spending" in charts:
        see = "Orange made the delivered model; blue is what tuning added."
        blocks.append(Picture("spending", "Bytes by what they were for", see))
    blocks.append(_purposes(cost))
    if "rounds" in charts:
        see = "One bar a round: a tall one waited for somebody, a short one below took few updates."
        blocks.append(Picture("rounds", "Seconds and updates by round", see))
    if "work" in charts:
        see = "From left to right those that worked longest first: is the work shared evenly?"
        blocks.append(Picture("work", "Work by client", see))
    if cost.clients:
        blocks.append(_clients(cost))
    return Section("cost", "What it cost", _see(cost), blocks)


def _see(cost: ToldCost) -> str:
    total, tuning = cost.total, cost.tuning
    moved = f"{total.rounds:,} rounds and {bytes_text(total.payload_bytes)} in {duration_text(cost.wall_seconds)}"
    if not tuning.payload_bytes:
        return f"It took {moved}, and tuning added nothing."
    share = tuning.payload_bytes / max(1, total.payload_bytes)
    return f"It took {moved}; {share:.0%} of the bytes and {tuning.rounds:,} of the rounds were tuning."


def _tiles(cost: ToldCost) -> list[tuple[str, str]]:
    total = cost.total
    return [
        (f"{total.rounds:,}", "rounds"),
        (f"{total.client_rounds:,}", "client-rounds: trainings asked of clients"),
        (bytes_text(total.payload_bytes), "of models and updates"),
        (duration_text(cost.wall_seconds), "under way"),
        (duration_text(total.training_seconds + total.measuring_seconds), "of clients, summed over them"),
        (duration_text(cost.cpu_seconds), "of the coordinator's CPU"),
    ]


def _tuning(cost: ToldCost, simulated: bool) -> list[Block]:
    """What of it was there only because the study tunes."""
    tuning = cost.tuning
    if not tuning.payload_bytes and not cost.tuner_seconds:
        return []
    clients_s = tuning.training_seconds + tuning.measuring_seconds
    on_cpu = f"{duration_text(cost.tuner_cpu_seconds)} of the CPU"
    if simulated:  # a virtual clock stands still while the tuner is asked
        seconds = f"{duration_text(tuning.seconds)}; the tuner itself took {on_cpu}"
    else:
        took = duration_text(cost.tuner_seconds)
        seconds = f"{duration_text(cost.added_seconds)} of waiting; the tuner itself took {took} of that, {on_cpu}"
    return [
        Words(
            f"Of this, tuning added {tuning.rounds:,} rounds, {tuning.client_rounds:,} client-rounds, "
            f"{bytes_text(tuning.payload_bytes)}, {duration_text(clients_s)} of clients, about "
            f"{duration_text(cost.added_cpu_seconds)} of the coordinator's CPU and {seconds}."
        )
    ]


def _purposes(cost: ToldCost) -> Table:
    rows = [
        [
            PURPOSES[one.purpose],
            "yes" if one.tuning else "",
            f"{one.trials:,}" if one.trials else "–",
            *_amounts(one.spent),
        ]
        for one in cost.purposes
    ]
    return Table(
        ["for", "tuning", "trials", "rounds", "client-rounds", "down", "up", "of rounds", "of clients"],
        [*rows, ["all", "", "", *_amounts(cost.total)]],
        title="By what it was for",
        see="Down are bytes of models to clients, up those of updates; the last two columns are time.",
        numbers=frozenset(range(2, 9)),
    )


def _amounts(spent: Spending) -> list[str]:
    return [
        f"{spent.rounds:,}",
        f"{spent.client_rounds:,}",
        bytes_text(spent.model_bytes),
        bytes_text(spent.update_bytes),
        duration_text(spent.seconds),
        duration_text(spent.training_seconds + spent.measuring_seconds),
    ]


def _clients(cost: ToldCost) -> Table:
    shown = sorted(cost.clients, key=_work, reverse=True)[:_MOST_ROWS]
    left = len(cost.clients) - len(shown)
    return Table(
        ["client", "trainings", "measurements", "down", "up", "training", "measuring"],
        [
            [
                short(one.client, 60),
                f"{one.trainings:,}",
                f"{one.measurements:,}",
                bytes_text(one.model_bytes),
                bytes_text(one.update_bytes),
                duration_text(one.training_seconds),
                duration_text(one.measuring_seconds),
            ]
            for one in shown
        ],
        title=f"By client ({len(cost.clients):,})",
        see="What each was asked for and moved, and how long it was at work, transfers included.",
        numbers=frozenset(range(1, 7)),
        folded=len(shown) > _OPEN_ROWS,
        more=f"{left:,} more, who worked less, are left out." if left else "",
    )


def _work(client: ClientCost) -> float:
    return client.training_seconds + client.measuring_seconds
