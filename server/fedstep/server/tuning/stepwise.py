"""The step-wise adaptive tuner: it changes the hyper-parameters of a training while it trains, on paired evidence.

Saadati and Amini, arXiv 2411.12244, name the parts; `algorithm.md` is the specification. Never starting again is most
of the gain. What is adopted needs evidence over several rounds, paired, on clients that did not train, with a guard
against early decay: a smaller learning rate looks better one round later nearly always.
"""

from collections.abc import Mapping
from dataclasses import replace

from fedstep.common.hyperparameters import Value
from fedstep.common.spec import StudySpec
from fedstep.server.tuning.generations import Generations
from fedstep.server.tuning.lineage import Line, Phases
from fedstep.server.tuning.meter import Meter
from fedstep.server.tuning.opening import probe, screen
from fedstep.server.tuning.program import Program, ProgramTuner
from fedstep.server.tuning.proposers import RANDOM, GaussianProposer, OptunaProposer, Proposer
from fedstep.server.tuning.ray_proposer import PREFIX, RayProposer
from fedstep.server.tuning.returns import begun_anew, recovered
from fedstep.server.tuning.scales import Scales
from fedstep.server.tuning.stepwise_options import StepwiseOptions
from fedstep.server.tuning.substudies import SubStudies


class StepwiseTuner(ProgramTuner):
    """Probe, screen, generations of advance and fork, settle.

    Args:
        spec: The study.
        options: Checked ones, see `StepwiseOptions.check`.
        storage_url: SQLAlchemy's URL of the database for Optuna's sub-studies; "" for none.
        defaults: Values of hyper-parameters where the study says nothing, by name; the task's own stand over fedstep's.

    Raises:
        StorageError: The database cannot be used.
    """

    def __init__(
        self, spec: StudySpec, options: StepwiseOptions, storage_url: str, defaults: Mapping[str, Value]
    ) -> None:
        super().__init__(spec)
        self._options = options
        self._settings = options.settings()
        self._scales = Scales(spec, defaults)
        self._substudies = SubStudies(spec, storage_url)

    def concluded(self, delivered: str) -> None:
        """Notes it in Optuna's tables."""
        self._substudies.concluded(delivered)

    def close(self) -> None:
        """Gives back the connections to the database."""
        self._substudies.close()

    def program(self) -> Program:
        """The whole method, in order."""
        settings = self._settings
        meter = Meter(self.spec, settings.reserve_rounds, self.price)
        phases = Phases(self, settings, self._scales, meter, self._substudies)

        start = self._scales.default_point(self._options.start)
        meter.goes_on_with(start)
        window = yield from probe(phases)
        line = yield from screen(phases, window, start)
        meter.goes_on_with(line.point)

        generations = Generations(phases, self._proposer(), window, frozenset(self._options.screen_only))
        pace = yield from generations.begun(line)
        while meter.rounds_left > 0 and pace.failures < settings.most_failures:
            pace = replace(pace, generation=pace.generation + 1)
            if generations.settling(pace):
                line, pace = yield from generations.settle(line, pace)
            elif generations.forking(line, pace):
                line, pace = yield from generations.fork(line, pace)
            else:
                line, pace = yield from generations.advance(line, pace)
            line, pace = yield from recovered(phases, line, pace)
            line, pace = yield from begun_anew(phases, window, line, pace)
            meter.goes_on_with(line.point)

        return (yield from self._delivery(phases, line, pace.generation + 1))

    def _delivery(self, phases: Phases, line: Line, cohort: int) -> Program:
        """The line's last model, or its average where that measures better on clients not asked before."""
        if line.arm is None:
            return None
        chosen = line.arm
        if line.averaged and self._settings.use_average:
            last, average = yield from phases.train(phases.measured(line, cohort), phases.averaged(line, cohort))
            evidence = phases.compared(average, last)
            better = not average.failed and evidence.mean < 0
            chosen = average.arm.number if better else chosen
            self.note(
                "averaging",
                f"The averaged model is {'better' if better else 'no better'} than the last one: "
                f"{evidence.mean:+.3g} in loss.",
                arms=[average.arm.number, line.arm],
                **evidence.details(),
            )
        self.note(
            "delivery",
            f"Arm {chosen} is delivered after {line.rounds} rounds of its own.",
            arms=[chosen],
            rounds=line.rounds,
            hyperparameters=dict(phases.last_point(line)),
        )
        return chosen

    def _proposer(self) -> Proposer:
        options, settings = self._options, self._settings
        if options.sampler == RANDOM:
            return GaussianProposer(self.spec.seed, settings.move_chance)
        if options.sampler.startswith(PREFIX):
            name = options.sampler.removeprefix(PREFIX)
            return RayProposer(self.spec, name, options.sampler_options, settings.startup_trials)
        return OptunaProposer(self.spec, options.sampler, options.sampler_options, settings.startup_trials)
