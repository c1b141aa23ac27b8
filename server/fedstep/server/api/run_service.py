"""RunService: runs that programs outside step, fork and rewind."""

from fedstep.common import hyperparameters as hp
from fedstep.common.errors import FieldViolation, InvalidInputError
from fedstep.common.hyperparameters import Value
from fedstep.common.validation import sentences
from fedstep.server.api.handlers import Context
from fedstep.server.api.pages import page_size
from fedstep.server.coordination.outside import OutsideRuns, RunView, Step
from fedstep.v1 import run_pb2, run_pb2_grpc


class RunService(run_pb2_grpc.RunServiceServicer):
    """The servicer.

    Args:
        runs: Of all studies.
    """

    def __init__(self, runs: OutsideRuns) -> None:
        self._runs = runs

    async def OpenRun(  # noqa: N802
        self, request: run_pb2.OpenRunRequest, context: Context
    ) -> run_pb2.OpenRunResponse:
        """A run from the study's initial model."""
        return run_pb2.OpenRunResponse(run=_run(await self._runs.open(request.study, request.run)))

    async def GetRun(self, request: run_pb2.GetRunRequest, context: Context) -> run_pb2.GetRunResponse:  # noqa: N802
        """A run as it stands."""
        return run_pb2.GetRunResponse(run=_run(await self._runs.get(request.study, request.run)))

    async def ListRuns(  # noqa: N802
        self, request: run_pb2.ListRunsRequest, context: Context
    ) -> run_pb2.ListRunsResponse:
        """Runs by name, a page at a time."""
        size = page_size(request.page_size)
        views = await self._runs.page(request.study, request.page_token, size)
        return run_pb2.ListRunsResponse(
            runs=[_run(view) for view in views],
            next_page_token=views[-1].run.name if len(views) == size else "",
        )

    async def StepRun(  # noqa: N802
        self, request: run_pb2.StepRunRequest, context: Context
    ) -> run_pb2.StepRunResponse:
        """Trains a run, and answers when that is committed."""
        values, rounds = _values(request), request.rounds or 1
        step = await self._runs.step(request.study, request.run, request.step, values, rounds)
        return run_pb2.StepRunResponse(result=_result(step))

    async def ForkRun(  # noqa: N802
        self, request: run_pb2.ForkRunRequest, context: Context
    ) -> run_pb2.ForkRunResponse:
        """A run from where another one stood."""
        step = request.step if request.HasField("step") else None
        view = await self._runs.fork(request.study, request.run, step, request.new_run)
        return run_pb2.ForkRunResponse(run=_run(view))

    async def RestoreRun(  # noqa: N802
        self, request: run_pb2.RestoreRunRequest, context: Context
    ) -> run_pb2.RestoreRunResponse:
        """Puts a run where it, or another one, stood."""
        view = await self._runs.restore(request.study, request.run, request.step, request.source_run)
        return run_pb2.RestoreRunResponse(run=_run(view))

    async def CloseRun(  # noqa: N802
        self, request: run_pb2.CloseRunRequest, context: Context
    ) -> run_pb2.CloseRunResponse:
        """Lets go of a run."""
        return run_pb2.CloseRunResponse(run=_run(await self._runs.close(request.study, request.run)))


def _values(request: run_pb2.StepRunRequest) -> dict[str, Value]:
    """The hyper-parameters that a step is asked with.

    Raises:
        InvalidInputError: One has no value.
    """
    empty = [name for name, value in request.hyperparameters.items() if value.WhichOneof("kind") is None]
    if empty:
        faults = [FieldViolation(f"hyperparameters.{name}", "has no value: set one of its kinds.") for name in empty]
        raise InvalidInputError(sentences(faults), faults)
    return hp.map_from_proto(request.hyperparameters)


def _run(view: RunView) -> run_pb2.Run:
    run = view.run
    closed = run.closed or view.study.state.ended
    idle = run_pb2.RUN_STATE_IDLE if run.asked is None else run_pb2.RUN_STATE_STEPPING
    return run_pb2.Run(
        study=view.study.spec.name,
        name=run.name,
        state=run_pb2.RUN_STATE_CLOSED if closed else idle,
        step=run.step,
        next_step=run.next_step,
        kept_steps=[] if closed else run.kept_steps,
        result=_result(view.step) if view.step else None,
    )


def _result(step: Step) -> run_pb2.StepResult:
    trial = step.trial
    return run_pb2.StepResult(
        step=step.number,
        trial=trial.number,
        hyperparameters=hp.map_to_proto(trial.hyperparameters),
        rounds=trial.rounds,
        rounds_behind=trial.rounds_behind,
        value=trial.value,
        metrics=trial.metrics,
        model_sha256=trial.model_sha256,
        failed=trial.message,
    )
