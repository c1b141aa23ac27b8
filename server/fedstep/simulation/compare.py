"""A comparison of tuners: which studies it takes, which of them are still missing, and what came out."""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from fedstep.common.errors import InvalidInputError
from fedstep.common.names import check_names
from fedstep.common.spec import StudySpec
from fedstep.common.tasks import load_task
from fedstep.server.aggregation.registry import validate_aggregator
from fedstep.server.coordination.run import seed_of
from fedstep.server.coordination.structure import check_structure
from fedstep.simulation.bench import Bench, Job, Setting
from fedstep.simulation.curves import Over, curves_of, draw_curves, write_curves
from fedstep.simulation.hardship import EASE
from fedstep.simulation.legs import stretched
from fedstep.simulation.outcome import Journal, Key, Outcome, Protocol
from fedstep.simulation.statistics import rows_of, target_of
from fedstep.simulation.tables import Part, as_csv, markdown
from fedstep.simulation.tuners import Contender, check_contender, retraining_of, study_of
from fedstep.simulation.workers import carry_out

_OVER: tuple[Over, ...] = ("rounds", "seconds")


@dataclass(frozen=True)
class Comparison:
    """What is compared.

    Attributes:
        study: What every contender tunes; its tuner, seed and budget are replaced.
        contenders: The tuners, each with every selector where these are compared too; the others are compared to the
            first.
        seeds: The same for every contender: of the study, and of the clients' speeds.
        budgets: In rounds of the study's cohort, ascending; a column of the table each.
        trial_rounds: Rounds of a full trial.
        retrain: Whether what was found is trained again from scratch as well.
        setting: The federation.
    """

    study: StudySpec
    contenders: Sequence[Contender]
    seeds: Sequence[int]
    budgets: Sequence[int]
    trial_rounds: int
    retrain: bool
    setting: Setting

    def check(self) -> None:
        """Refuses what could not be run, before anything is.

        Raises:
            InvalidInputError: The study, its task, a contender or the budget cannot be used.
        """
        task = load_task(self.setting.task)
        if self.study.task != task.name:
            raise InvalidInputError(
                f"The study {self.study.name} is for the task {self.study.task}, but --task {self.setting.task} is "
                f"{task.name}: give the other file, or change `task` in the study file."
            )
        if self.setting.clients < self.study.round.cohort_size:
            raise InvalidInputError(
                f"--clients {self.setting.clients} is fewer than the {self.study.round.cohort_size} that a round of "
                f"{self.study.name} takes: give more clients, or a smaller cohort_size."
            )
        check_names(self.study, task.defaults, task.name)
        validate_aggregator(self.study.aggregator)
        for contender in self.contenders:
            spec = study_of(self.study, contender, self.seeds[0], self.budgets[0], self.trial_rounds)
            check_contender(contender, spec, task.defaults)
            check_structure(spec, task)

    def keys(self, budget: int, protocol: Protocol) -> list[Key]:
        """The studies of one budget: seed by seed, so that what is done first can be compared."""
        return [
            Key(tuner=c.text, seed=seed, budget=budget, trial_rounds=self.trial_rounds, protocol=protocol)
            for seed in self.seeds
            for c in self.contenders
        ]

    def every_key(self) -> list[Key]:
        """All studies, the retrainings last."""
        protocols: tuple[Protocol, ...] = ("delivered", "retrained") if self.retrain else ("delivered",)
        return [key for protocol in protocols for budget in self.budgets for key in self.keys(budget, protocol)]

    def found(self, key: Key, outcomes: Mapping[Key, Outcome]) -> Outcome | None:
        """What there is of a study; of a retraining without anything to retrain, the initial model's outcome."""
        tuned = outcomes.get(key.model_copy(update={"protocol": "delivered"}))
        return tuned if tuned is not None and not tuned.schedule else outcomes.get(key)

    def missing(self, outcomes: Mapping[Key, Outcome]) -> deque[Job]:
        """Jobs that can be begun now, and are not done."""
        jobs = deque[Job]()
        for key in self.every_key():
            tuned = outcomes.get(key.model_copy(update={"protocol": "delivered"}))
            if self.found(key, outcomes) is not None:
                continue
            if key.protocol == "delivered":
                jobs.append(self._tuning(key))
            elif tuned is not None:
                jobs.append(self._retraining(tuned))
        return jobs

    def done(self, outcomes: Mapping[Key, Outcome], budget: int, protocol: Protocol) -> list[Outcome]:
        """What there is of one budget and protocol."""
        found = (self.found(key, outcomes) for key in self.keys(budget, protocol))
        return [outcome for outcome in found if outcome is not None]

    def follow_up(self, outcome: Outcome) -> Job | None:
        """The job that an outcome makes possible; None when there is none."""
        again = self.retrain and outcome.key.protocol == "delivered" and outcome.schedule
        return self._retraining(outcome) if again else None

    def _tuning(self, key: Key) -> Job:
        return Job(key, study_of(self.study, self._contender(key), key.seed, key.budget, key.trial_rounds))

    def _retraining(self, outcome: Outcome) -> Job:
        key = outcome.key.model_copy(update={"protocol": "retrained"})
        stages, seed = stretched(outcome.schedule, self.trial_rounds), seed_of(key.seed, "retrained")
        return Job(key, retraining_of(self.study, self._contender(key), stages, outcome.average, seed))

    def _contender(self, key: Key) -> Contender:
        return next(contender for contender in self.contenders if contender.text == key.tuner)


def setting_of(comparison: Comparison) -> dict[str, object]:
    """What every outcome in a folder depends on, beside its key."""
    study = comparison.study.model_dump(mode="json", exclude={"tuner", "seed", "budget"})
    setting = asdict(comparison.setting)
    if comparison.setting.hardship == EASE:
        del setting["hardship"]  # a folder from before there was any goes on
    return {"study": study, **setting}


def run_comparison(comparison: Comparison, journal: Journal, processes: int, tell: Callable[[Outcome], None]) -> None:
    """Does what is missing, and keeps every outcome as it comes.

    Args:
        comparison: What is compared.
        journal: What there is.
        processes: How many at the same time.
        tell: Is told of every outcome.

    Raises:
        FedstepError: A study could not be run; those that ended before are kept.
    """
    jobs = comparison.missing(journal.outcomes)
    for outcome in carry_out(jobs, partial(Bench, comparison.setting), min(processes, max(len(jobs), 1))):
        journal.add(outcome)
        if (job := comparison.follow_up(outcome)) is not None and job.key not in journal.outcomes:
            jobs.append(job)
        tell(outcome)


def parts_of(comparison: Comparison, journal: Journal, target: float | None, at: Sequence[int]) -> list[Part]:
    """The tables of what there is.

    Args:
        comparison: What is compared.
        journal: What came of it.
        target: What counts as reached; None for 95 % of the best that anyone reaches at that budget.
        at: Rounds spent at which the curves are read as well.
    """
    parts = []
    tuners, objective = [contender.text for contender in comparison.contenders], comparison.study.objective
    protocols: tuple[Protocol, ...] = ("delivered", "retrained") if comparison.retrain else ("delivered",)
    for protocol in protocols:
        for budget in comparison.budgets:
            outcomes = comparison.done(journal.outcomes, budget, protocol)
            if not outcomes:
                continue
            aim = None
            if protocol == "delivered":
                aim = target if target is not None else target_of(outcomes, objective)
            ways = at if protocol == "delivered" else ()
            parts.append(Part(budget, protocol, aim, rows_of(outcomes, tuners, objective, aim, ways)))
    return parts


def write_report(
    folder: Path, comparison: Comparison, journal: Journal, parts: Sequence[Part], log: bool
) -> list[Path]:
    """Writes the table as CSV and Markdown, and the curves as CSV and PNG.

    Args:
        folder: Where to.
        comparison: What was compared.
        journal: What came of it.
        parts: Its tables.
        log: Logarithmic horizontal axes.

    Returns:
        The files.

    Raises:
        OSError: A file cannot be written.
    """
    objective, tuners = comparison.study.objective, [contender.text for contender in comparison.contenders]
    files = [folder / "table.csv", folder / "table.md"]
    files[0].write_text(as_csv(parts))
    files[1].write_text(markdown(parts, objective))
    for part in parts:
        if part.protocol != "delivered":
            continue
        outcomes = comparison.done(journal.outcomes, part.budget, part.protocol)
        for over in _OVER:
            curves = curves_of(outcomes, tuners, objective, over)
            stem = folder / f"curves-{part.budget}-{over}"
            title = f"{comparison.study.name}: {part.budget} rounds"
            write_curves(stem.with_suffix(".csv"), curves, part.budget, over)
            draw_curves(stem.with_suffix(".png"), curves, title, objective, over, part.target, log)
            files += [stem.with_suffix(".csv"), stem.with_suffix(".png")]
    return files
