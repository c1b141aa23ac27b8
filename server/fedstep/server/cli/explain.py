"""`fedstep study explain`: what was decided and why, and the schedule that made the model."""

from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.text import Text

from fedstep.api.aio import AsyncFedstep
from fedstep.api.calls import ENDED
from fedstep.common.spec_proto import spec_from_proto
from fedstep.server.cli.records import event_record, trial_records
from fedstep.server.cli.show import kind_style, print_json, print_table, title_of
from fedstep.server.report.decisions import (
    Decision,
    changes_between,
    changes_text,
    decisions_of,
    evidence_text,
    median_text,
    none_decided,
)
from fedstep.server.report.lineage import Stretch, Tree
from fedstep.server.report.words import number_text, settings_text
from fedstep.server.storage.base import TrialRecord
from fedstep.v1 import study_pb2

_TRIALS_SHOWN = 6


async def explain(remote: AsyncFedstep, name: str, as_json: bool) -> None:
    """Prints every decision of a study in order, with its evidence, then what its model was trained with."""
    study = await remote.get(name)
    trials = trial_records([trial async for trial in remote.trials(name)])
    events = [event_record(event) async for event in remote.past_events(study)]
    decisions = decisions_of(events, trials, spec_from_proto(study.spec).tuner)
    delivered = study.best_trial.number if study.HasField("best_trial") else None
    schedule = Tree(trials.values(), delivered).schedule()
    if as_json:
        for decision in decisions:
            print_json({"decision": decision_json(decision)})
        for stretch in schedule:
            print_json({"stretch": stretch_json(stretch)})
        return
    console = Console(highlight=False, soft_wrap=True)
    console.print(title_of(study))
    _print_decisions(console, decisions, study)
    _print_schedule(console, schedule, trials, study)


def decision_json(decision: Decision) -> dict[str, object]:
    """A decision for programs."""
    event = decision.event
    return {
        "kind": event.kind,
        "text": event.text,
        "round": decision.round,
        "phase": decision.phase,
        "evidence": dict(decision.evidence),
        "changes": {name: list(change) for name, change in decision.changes.items()},
        "details": event.details,
        "event": event.number,
        "time": event.time.isoformat(),
    }


def stretch_json(stretch: Stretch) -> dict[str, object]:
    """A stretch of the schedule for programs; `rounds` and `hyperparameters` are a stage of the tuner `schedule`."""
    return {
        "first_round": stretch.first,
        "last_round": stretch.last,
        "rounds": stretch.last - stretch.first + 1,
        "trials": list(stretch.trials),
        "phases": list(stretch.phases),
        "hyperparameters": dict(stretch.hyperparameters),
        "averaged_with": [dict(values) for values in stretch.averaged],
    }


def _print_decisions(console: Console, decisions: Sequence[Decision], study: study_pb2.Study) -> None:
    phases = any(decision.phase for decision in decisions)
    console.print("\n[bold]Decisions[/bold], and the rounds of the study before each")
    print_table(
        ["round", *(["phase"] if phases else []), "decision", "what and why"],
        [
            [
                str(decision.round),
                *([decision.phase] if phases else []),
                Text(decision.event.kind.replace("_", " "), style=kind_style(decision.event.kind)),
                _why(decision, study.spec.objective.metric),
            ]
            for decision in decisions
        ],
        f"None. {none_decided(spec_from_proto(study.spec).tuner)}",
    )


def _why(decision: Decision, metric: str) -> Text:
    """The sentence, and below it the evidence and what changed."""
    text = Text(decision.event.text)
    found = decision.evidence
    if "median_of_completed" in found:
        value = f"{metric} {number_text(found['value'])}, " if "value" in found else ""
        text.append(f"\n{value}beside {median_text(found)} there", "dim")
    elif found and decision.event.kind not in ("trial_pruned", "trial_failed"):
        text.append(f"\n{evidence_text(found)}", "dim")
    if decision.changes:
        text.append(f"\n{changes_text(decision.changes)}", "cyan")
    return text


def _print_schedule(
    console: Console, schedule: Sequence[Stretch], trials: Mapping[int, TrialRecord], study: study_pb2.Study
) -> None:
    if not schedule:
        return
    over = study.state in ENDED and study.HasField("result")
    number = study.best_trial.number
    console.print(
        f"\n[bold]{'The model' if over else 'The best model so far'}[/bold]: trial {number}, "
        f"{trials[number].rounds_delivered} rounds behind it, trained with"
    )
    rows: list[list[str | Text]] = []
    before: Stretch | None = None
    for stretch in schedule:
        said = Text(
            changes_text(changes_between(before.hyperparameters, stretch.hyperparameters)) or "as before"
            if before
            else settings_text(stretch.hyperparameters)
        )
        for values in stretch.averaged:
            differs = changes_text(changes_between(stretch.hyperparameters, values))
            said.append(f"\nthen the mean with a model of {differs or 'the same'}", "dim")
        rows.append([f"{stretch.first}–{stretch.last}", _numbers(stretch.trials), ", ".join(stretch.phases), said])
        before = stretch
    print_table(["rounds", "trials", "phases", "hyper-parameters"], rows, "")


def _numbers(trials: Sequence[int]) -> str:
    if len(trials) <= _TRIALS_SHOWN:
        return ", ".join(map(str, trials))
    return f"{trials[0]} … {trials[-1]} ({len(trials)})"
