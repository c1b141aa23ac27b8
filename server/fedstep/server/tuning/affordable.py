"""Which challenger is tried: the first that the time left can pay for."""

import itertools
from typing import Any

from fedstep.common.hyperparameters import describe
from fedstep.server.tuning.lineage import Phases
from fedstep.server.tuning.proposers import Proposal, Proposer, Question

_DRAWS = 4
"""So many are looked at: among dozens the cheapest would always be found, and cheap is not better."""


def affordable(proposer: Proposer, question: Question, phases: Phases) -> Proposal | None:
    """The first proposal whose fork, its own leg beside the incumbent's, fits into what is left of the budget.

    Those that are passed over are told of. Whether a dear challenger is worth its price is not judged here, but on
    what it gives, see `compare_priced`.

    Args:
        proposer: Draws them.
        question: What it is asked.
        phases: What the step-wise tuner works with.

    Returns:
        None where none of the first four is affordable, or none is there.
    """
    meter, least = phases.meter, phases.settings.leg_least
    too_dear: list[dict[str, Any]] = []
    found = None
    for proposal in itertools.islice(proposer.proposals(question), _DRAWS):
        times_as_long = meter.relative(proposal.point)
        if meter.rounds_left >= (1 + times_as_long) * least:
            found = proposal
            break
        now = question.region.center
        too_dear.append(
            {
                "changed": {name: value for name, value in proposal.point.items() if now.get(name) != value},
                "times_as_long": round(times_as_long, 2),
                "predicted_seconds": phases.tuner.price(proposal.point),
            }
        )
    if too_dear:
        _tell(phases, too_dear, least)
    return found


def _tell(phases: Phases, too_dear: list[dict[str, Any]], least: int) -> None:
    first, count = too_dear[0], len(too_dear)
    seconds = first["predicted_seconds"]
    each = f"{first['times_as_long']:g} times as long as one that goes on"
    if seconds is not None:
        each = f"{seconds:.3g} s, {each}"
    passed = f"{count} challenger{'s are' if count > 1 else ' is'} passed over, the first"
    phases.tuner.note(
        "too_dear",
        f"{passed} with {describe(first['changed'])}: a round of it would take {each}, and the time left does not pay "
        f"for {least} of both.",
        passed_over=too_dear,
        rounds_left=phases.meter.rounds_left,
    )
