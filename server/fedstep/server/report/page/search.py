"""The second section: how the result was found."""

from collections import Counter
from collections.abc import Collection

from fedstep.server.report.decisions import (
    Decision,
    changes_text,
    decisions_of,
    evidence_text,
    median_text,
    none_decided,
)
from fedstep.server.report.page.blocks import Block, Picture, Section, Table, Words
from fedstep.server.report.page.importances import comparison_of
from fedstep.server.report.page.story import Story
from fedstep.server.report.progress import plan_text, progress_text
from fedstep.server.report.words import number_text, settings_text
from fedstep.server.storage.base import TrialRecord, TrialState

_OPEN_ROWS, _MOST_ROWS = 20, 1000
_FEW = 20
"""Trials below which importances are a hint and no more."""


def search_section(story: Story, charts: Collection[str]) -> Section:
    """How it was found.

    Args:
        story: The study.
        charts: Those that there are.
    """
    pictures = [picture for picture in _pictures(story) if picture.name in charts]
    blocks: list[Block] = [*pictures, *_why_missing(story, charts), _decisions(story), _trials(story)]
    return Section("search", "How it was found", _see(story), blocks)


def _see(story: Story) -> str:
    spec = story.study.spec
    ended = sum(trial.state is not TrialState.RUNNING for trial in story.trials)
    how_far = progress_text(spec, ended, len(story.rounds))
    states = Counter(trial.state.value for trial in story.trials)
    if story.of_arms or not states:
        return f"The tuner {spec.tuner.name} had {plan_text(spec)}, and came to {how_far}."
    said = ", ".join(f"{count} {state}" for state, count in states.most_common())
    return f"The tuner {spec.tuner.name} had {plan_text(spec)}, and came to {how_far}: {said}."


def _pictures(story: Story) -> list[Picture]:
    spec = story.study.spec
    metric, better = spec.objective.metric, "lower" if spec.objective.direction == "minimize" else "higher"
    beside = story.beside()
    told = beside.study.spec.objective.metric if beside is not None else ""
    compared = comparison_of(story)
    rests = f"by Optuna's PED-ANOVA, from {len(compared.courses)} {compared.who}"
    hint = "; with so few it is a hint and no more" if len(compared.courses) < _FEW else ""
    searched = " before any final rounds" if spec.budget.final_rounds and not story.of_arms else ""
    lines = f"{len(compared.courses)} {compared.who}" if story.of_arms else "each trial"
    if story.of_arms:
        first = Picture(
            "objective",
            "The fork tree, and the hyper-parameters over rounds",
            f"The orange line is the model that was delivered, {better} is better; what leaves it was tried and left, "
            "and the rows below say with which hyper-parameters.",
        )
    else:
        first = Picture(
            "objective",
            f"{metric} over rounds",
            f"Every line is a trial, {better} is better; the orange one is the best, and short ones were ended early.",
        )
    return [
        first,
        Picture("loss", f"{told} beside it", f"The same trainings by their {told}, lower is better: do both agree?"),
        Picture(
            "tried",
            "Hyper-parameters over the rounds of the study",
            "From left to right what the tuner tried: does it settle, and where?",
        ),
        Picture(
            "hyperparameters",
            f"{metric} by hyper-parameter",
            f"Every mark is a trial's last {metric}{searched}: a slope or a hill says that the hyper-parameter "
            "matters.",
        ),
        Picture(
            "parallel",
            "Parallel coordinates",
            f"A line for {lines}, strong where its {metric}{searched} is good: where strong lines meet, values are "
            "good.",
        ),
        Picture("importances", "Importances", f"The share of each hyper-parameter in what is good, {rests}{hint}."),
    ]


def _why_missing(story: Story, charts: Collection[str]) -> list[Words]:
    """What is not drawn, and why."""
    if "objective" not in charts:
        return [Words("No round has been evaluated, so there is nothing to draw.")]
    if "importances" in charts or len(story.study.spec.space.parameters) < 2:
        return []
    if "parallel" not in charts:
        return [Words("There are no two trials that can be compared, so no hyper-parameter can be said to matter.")]
    return [Words("There are too few trials that can be compared to say which hyper-parameter mattered.")]


def _decisions(story: Story) -> Block:
    decisions = decisions_of(story.events, {trial.number: trial for trial in story.trials}, story.study.spec.tuner)
    if not decisions:
        return Words(f"Decisions: none. {none_decided(story.study.spec.tuner)}")
    phases = any(decision.phase for decision in decisions)
    rows = [
        [
            str(decision.round),
            *([decision.phase] if phases else []),
            decision.event.kind.replace("_", " "),
            decision.event.text,
            _evidence(decision),
        ]
        for decision in decisions[:_MOST_ROWS]
    ]
    left = len(decisions) - len(rows)
    return Table(
        ["round", *(["phase"] if phases else []), "decision", "what and why", "evidence and change"],
        rows,
        title=f"Decisions ({len(decisions):,})",
        see="What the tuner decided, the rounds of the study before it, and the numbers that it rests on.",
        numbers=frozenset({0}),
        folded=len(rows) > _OPEN_ROWS,
        more=f"{left:,} more are left out." if left else "",
    )


def _evidence(decision: Decision) -> str:
    found = decision.evidence
    if "median_of_completed" in found:
        value = f"{number_text(found['value'])} beside " if "value" in found else ""
        return f"{value}{median_text(found)}"
    said = "" if decision.event.kind in ("trial_pruned", "trial_failed") else evidence_text(found)
    return "; ".join(filter(None, (said, changes_text(decision.changes))))


def _trials(story: Story) -> Block:
    if not story.trials:
        return Words("No trial has begun.")
    rows = [_trial(story, trial) for trial in story.trials[:_MOST_ROWS]]
    left = len(story.trials) - len(rows)
    arms = ["phase", "from"] if story.of_arms else []
    noun = "Arms" if story.of_arms else "Trials"
    return Table(
        ["number", *arms, "state", "rounds", story.study.spec.objective.metric, "hyper-parameters"],
        rows,
        title=f"{noun} ({len(story.trials):,})",
        see="All that was trained or measured, in order; the one whose model is delivered has a star.",
        numbers=frozenset({0, len(arms) + 2, len(arms) + 3}),
        folded=len(rows) > _OPEN_ROWS,
        more=f"{left:,} more are left out." if left else "",
    )


def _trial(story: Story, trial: TrialRecord) -> list[str]:
    number = f"★ {trial.number}" if trial is story.best else str(trial.number)
    value = "–" if trial.value_delivered is None else number_text(trial.value_delivered)
    settings = "dealt to its clients" if trial.details.get("discard") else settings_text(trial.hyperparameters)
    if not story.of_arms:
        own = trial.own_rounds_delivered
        rounds = f"{own} of {trial.rounds}" if 0 < own < trial.rounds else str(trial.rounds)
        return [number, trial.state.value, rounds, value, settings]
    phase = str(trial.details.get("phase", "")) or "–"
    parents = "+".join(map(str, trial.details.get("parents", ()))) or "–"
    first = trial.first_round
    rounds = f"{first + 1}–{first + trial.rounds}" if trial.rounds else f"at {first}"
    return [number, phase, parents, trial.state.value, rounds, value, settings]
