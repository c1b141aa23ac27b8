"""What a study has cost, for `fedstep study cost`."""

from rich.console import Console

from fedstep.server.cli.show import print_table
from fedstep.server.report.cost import megabytes
from fedstep.v1 import study_pb2

_CLIENTS_SHOWN = 20


def print_cost(name: str, cost: study_pb2.Cost) -> None:
    """What it was for, what tuning added, and by client, the dearest first."""
    console = Console(highlight=False, soft_wrap=True)
    rows = [[one.purpose, str(one.trials or "–"), *_row(one.spent), "tuning" * one.tuning] for one in cost.purposes]
    headings = ["for", "trials", "rounds", "client-rounds", "down", "up", "seconds", "training", "measuring", ""]
    if not rows:
        console.print(f"Study {name} has cost nothing yet.", markup=False)
        return
    print_table(headings, [*rows, ["all", "", *_row(cost.total), ""]], "")
    tuning = cost.tuning
    console.print(f"\n{cost.text}", markup=False)
    console.print(
        f"The coordinator's process took {tuning.coordinator_cpu_seconds:.2f} s of CPU in {cost.wall_seconds:.1f} s; "
        f"tuning added about {tuning.added_cpu_seconds:.2f} s. Commits took {tuning.commit_seconds:.2f} s; the tuner's "
        f"journal is {tuning.journal_bytes:,} bytes, the events of trials and decisions {tuning.event_bytes:,}.\n",
        markup=False,
    )
    clients = sorted(cost.clients, key=lambda one: -(one.training_seconds + one.measuring_seconds))
    print_table(
        ["client", "trainings", "measurements", "down", "up", "training", "measuring"],
        (
            [
                one.client_name,
                str(one.trainings),
                str(one.measurements),
                megabytes(one.model_bytes),
                megabytes(one.update_bytes),
                _seconds(one.training_seconds),
                _seconds(one.measuring_seconds),
            ]
            for one in clients[:_CLIENTS_SHOWN]
        ),
        "",
    )
    if len(clients) > _CLIENTS_SHOWN:
        console.print(f"and {len(clients) - _CLIENTS_SHOWN} more, with --json")


def _row(spent: study_pb2.Spending) -> list[str]:
    return [
        str(spent.rounds),
        str(spent.client_rounds),
        megabytes(spent.model_bytes),
        megabytes(spent.update_bytes),
        _seconds(spent.seconds),
        _seconds(spent.training_seconds),
        _seconds(spent.measuring_seconds),
    ]


def _seconds(seconds: float) -> str:
    return f"{seconds:,.1f} s"
