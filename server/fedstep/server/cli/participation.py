"""Whose training a study took, for `fedstep study show`."""

from rich.console import Console

from fedstep.server.cli.show import print_table
from fedstep.server.report.participation import steps_text
from fedstep.v1 import study_pb2

_NAMED = 5


def print_participation(told: study_pb2.Participation) -> None:
    """Those left out beside the others; one sentence where there are none, nothing before any training."""
    if not told.left_out.asked + told.others.asked:
        return
    console = Console(highlight=False, soft_wrap=True)
    console.print("")
    if not told.left_out.clients:
        console.print(told.text, markup=False)
        return
    console.print("[bold]Whose training was taken[/bold], in the mean a client")
    groups = (("little or none", told.left_out), ("the others", told.others))
    print_table(
        ["", "clients", "asked", "taken", "missed", "of their steps", "loss on their data"],
        ([who, str(each.clients), *_counts(each), _loss(each)] for who, each in groups),
        "",
    )
    named = [f"{each.client_name} ({_part(each)})" for each in told.clients_left_out[:_NAMED]]
    more = told.left_out.clients - len(named)
    console.print("little or none:", ", ".join(named) + (f" and {more} more" if more else ""), markup=False)


def _part(each: study_pb2.ClientPart) -> str:
    whole = each.work == each.taken
    return f"{each.taken} of {each.asked}{'' if whole else f', with {steps_text(each.work, each.taken)} of the steps'}"


def _counts(group: study_pb2.ClientGroup) -> list[str]:
    """With the part of their local steps that was done in those taken."""
    counts = [f"{count:.1f}" for count in (group.asked, group.taken, group.missed)]
    return [*counts, steps_text(group.work, group.taken)]


def _loss(group: study_pb2.ClientGroup) -> str:
    """Beside that of all who measured the same models."""
    return f"{group.relative_loss:.2f} × the mean" if group.HasField("relative_loss") else "–"
