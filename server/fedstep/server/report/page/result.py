"""The first section: what came out."""

from fedstep.common.hyperparameters import Value
from fedstep.common.parameters import CategoricalParameter, Parameter
from fedstep.server.report.decisions import changes_between, changes_text
from fedstep.server.report.page.blocks import Block, Section, Table, Tiles, Words
from fedstep.server.report.page.story import Story
from fedstep.server.report.words import number_text, settings_text
from fedstep.server.storage.base import StudyState, TrialRecord

_MOST_TILES = 5


def result_section(story: Story) -> Section:
    """The model's metrics, and what it was trained with."""
    blocks: list[Block] = []
    tiles = _tiles(story)
    if tiles:
        blocks.append(Tiles(tiles))
    if story.best is not None:
        blocks += [_hyperparameters(story, story.best), *_schedule(story)]
    return Section("result", "Result", _see(story), blocks)


def _see(story: Story) -> str:
    study, best = story.study, story.best
    metric = study.spec.objective.metric
    if study.result is not None and study.result.metrics:
        where = "held-out data that no client has seen" if study.result.held_out else "the clients' validation data"
        value = study.result.metrics.get(metric)
        said = f"{metric} {number_text(value)}" if value is not None else "its metrics"
        return f"The final model reaches {said} on {where}."
    if best is not None and best.value_delivered is not None:
        so_far = "" if study.state.ended else " so far"
        return (
            f"The best model{so_far} is trial {best.number}'s: {metric} {number_text(best.value_delivered)} "
            "on its evaluation cohort's validation data."
        )
    if study.state is StudyState.FAILED:
        return "The study failed before any model was measured."
    return "No model has been measured." if study.state.ended else "No model has been measured yet."


def _tiles(story: Story) -> list[tuple[str, str]]:
    study, best = story.study, story.best
    metric = study.spec.objective.metric
    found: list[tuple[str, str]] = []
    if study.result is not None:
        where = "held-out data" if study.result.held_out else "validation data"
        names = sorted(study.result.metrics, key=lambda name: (name != metric, name))[:_MOST_TILES]
        found = [(number_text(study.result.metrics[name]), f"{name}, on {where}") for name in names]
    elif best is not None and best.value_delivered is not None:
        found = [(number_text(best.value_delivered), f"{metric}, on validation data")]
    if best is not None:
        found += [(f"{best.rounds_delivered:,}", "rounds behind the model"), (str(best.number), "trial")]
    return found


def _hyperparameters(story: Story, best: TrialRecord) -> Table:
    """What the model was trained with, and where each value was looked for."""
    spec = story.study.spec
    schedule = story.tree.schedule()
    values = schedule[-1].hyperparameters if schedule else best.hyperparameters
    rows = [
        [name, _value(values[name]), _searched(parameter)]
        for name, parameter in spec.space.parameters.items()
        if name in values
    ]
    rows += [[name, _value(value), "fixed"] for name, value in spec.hyperparameters.items()]
    last = story.of_arms and len(schedule) > 1
    return Table(
        ["hyper-parameter", "value", "searched in"],
        rows,
        title="Hyper-parameters that the model was trained with last" if last else "Hyper-parameters",
        numbers=frozenset({1}),
    )


def _schedule(story: Story) -> list[Block]:
    """What the model was trained with from its first round on, where that changed."""
    schedule = story.tree.schedule()
    if not story.of_arms or len(schedule) < 2:
        return []
    rows = []
    for before, stretch in zip([None, *schedule], schedule, strict=False):
        said = settings_text(stretch.hyperparameters)
        if before is not None:
            said = changes_text(changes_between(before.hyperparameters, stretch.hyperparameters)) or "as before"
        if stretch.averaged:
            others = " and ".join(
                changes_text(changes_between(stretch.hyperparameters, values)) or "the same"
                for values in stretch.averaged
            )
            said += f"; then the mean with a model of {others}"
        rows.append([f"{stretch.first}–{stretch.last}", ", ".join(stretch.phases) or "–", said])
    return [
        Words("They changed while the model was trained; the same schedule can be trained again without any tuning."),
        Table(["rounds", "phase", "hyper-parameters"], rows, title="The schedule that made the model"),
    ]


def _value(value: Value) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _searched(parameter: Parameter) -> str:
    log = not isinstance(parameter, CategoricalParameter) and parameter.log
    return parameter.describe() + (", on a log scale" if log else "")
