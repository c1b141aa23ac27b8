"""Work of a machine that is made a slow one."""

import math
from collections.abc import Callable

from fedstep.client.work import Control, Evaluated, Job, Monotonic, StepSink, Trained, Work
from fedstep.common.handicap import Handicap


class SlowWork:
    """Does what other work does, and waits until a poorer machine would have done it (see `fedstep.client.work.Work`).

    It waits inside every local step, before the step is reported, and at the end of a measurement. What is reported is
    real time, the wait included. A step that is waited for is not taken yet: told to send what there is, it goes on to
    its end; told to abandon, it ends at once and is not reported.

    Args:
        work: What trains and evaluates.
        handicap: How slow it is made; its clock begins at 0 here.
        clock: Monotonic seconds.
    """

    def __init__(self, work: Work, handicap: Handicap, clock: Monotonic) -> None:
        self._work = work
        self._handicap = handicap
        self._clock = clock
        self._began_s = clock()

    def train(self, job: Job, control: Control, steps: StepSink) -> Trained:
        """See `Work.train`."""

        def wait(took_s: float) -> float:
            waited_s = self._wait(control, took_s)
            control.go_on()  # abandoned meanwhile
            return waited_s

        return self._work.train(job, control, _SlowSteps(steps, wait))

    def evaluate(self, job: Job, control: Control) -> Evaluated:
        """See `Work.evaluate`."""
        began_s = self._clock()
        evaluated = self._work.evaluate(job, control)
        self._wait(control, self._clock() - began_s)
        control.go_on()  # abandoned meanwhile
        return evaluated

    def _wait(self, control: Control, took_s: float) -> float:
        """Waits after what took so long; answers with how long it has taken now."""
        now_s = self._clock() - self._began_s
        began_s = now_s - took_s
        control.rest(self._handicap.worked_s(began_s, took_s) - now_s)
        return self._clock() - self._began_s - began_s


class _SlowSteps:
    """Takes the local steps of the other work, and hands each on when it may end."""

    def __init__(self, steps: StepSink, wait: Callable[[float], float]) -> None:
        self._steps = steps
        self._wait = wait

    def step(self, loss: float, samples: int, step_ms: float) -> None:
        """A step that is not a number ends the training: nobody waits for it."""
        took_s = self._wait(step_ms / 1000) if math.isfinite(loss) else step_ms / 1000
        self._steps.step(loss, samples, 1000 * took_s)
