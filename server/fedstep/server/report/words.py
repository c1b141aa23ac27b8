"""What a picture says in words."""

from collections.abc import Sequence

from fedstep.common.hyperparameters import Hyperparameters, Value
from fedstep.common.phrases import count_text
from fedstep.server.report.courses import Course
from fedstep.server.report.units import duration_text
from fedstep.server.storage.base import RoundRecord, StudyRecord, StudyState

_LONGEST_LINE = 145
_MOST_METRICS = 4
_MOST_NAMES = 8


def outcome(study: StudyRecord, best: Course | None) -> str:
    """The result in one line: the metrics of the final model, else the objective of the best trial."""
    metric = study.spec.objective.metric
    if study.result is not None and study.result.metrics:
        metrics = study.result.metrics
        names = sorted(metrics, key=lambda name: (name != metric, name))[:_MOST_METRICS]
        said = ", ".join(f"{name} {number_text(metrics[name])}" for name in names)
        return f"{said} {'on held-out data' if study.result.held_out else 'on the evaluation cohort'}"
    if best is None or best.score is None:
        return "no result" if study.state.ended else "no result yet"
    said = f"{metric} {number_text(best.score)} in trial {best.trial.number}"
    return said if study.state.ended else f"{said}, the best so far"


def settings(best: Course | None, lead: str = "with") -> str:
    """The best trial's hyper-parameters in one line, after that word."""
    if best is None or not best.trial.hyperparameters:
        return ""
    return f"{lead} " + short(settings_text(best.trial.hyperparameters, "  ·  "), _LONGEST_LINE)


def settings_text(values: Hyperparameters, between: str = ", ") -> str:
    """Hyper-parameters in one line."""
    return between.join(f"{name} {say(value, 20)}" for name, value in values.items())


def cost(study: StudyRecord, trials: int, rounds: Sequence[RoundRecord], noun: str = "trial") -> str:
    """What it took in one line: the task, trials, rounds, clients and time; and the state, when not completed."""
    clients = {name for record in rounds for name in (*record.cohort, *record.evaluators)}
    seconds = study.seconds_spent or sum(record.seconds for record in rounds)
    said = [
        short(study.spec.task, 40),
        count_text(trials, noun),
        count_text(len(rounds), "round"),
        count_text(len(clients), "client"),
        duration_text(seconds),
    ]
    if study.state is not StudyState.COMPLETED:
        said.append(study.state.value)
    return "  ·  ".join(said)


def names_text(names: Sequence[str]) -> str:
    """The first names of what may be many."""
    return ", ".join(names[:_MOST_NAMES]) + " and others" * (len(names) > _MOST_NAMES)


def say(value: Value, length: int) -> str:
    """A hyper-parameter's value, cut to that many characters."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"{value:.3g}" if isinstance(value, float) else short(str(value), length)


def number_text(value: float) -> str:
    """A metric."""
    return f"{value:.4f}" if 1e-3 <= abs(value) < 1e3 else f"{value:.4g}"


def short(text: str, length: int) -> str:
    """A text, cut to that many characters, at least two."""
    return text if len(text) <= length else text[: max(length - 1, 1)] + "…"
