"""A study in the middle of a round, as a coordinator would send it."""

from datetime import timedelta

from fedstep.common import hyperparameters as hp
from fedstep.v1 import progress_pb2 as pb
from fedstep.v1 import study_pb2


def client(
    name: str,
    state: pb.WorkState.ValueType,
    steps: int,
    finish_s: float | None = None,
    losses: tuple[float, ...] = (),
    asked: int = 100,
    lost_touch: bool = False,
    message: str = "",
) -> pb.ClientProgress:
    found = pb.ClientProgress(
        client_name=name,
        state=state,
        steps=steps,
        steps_asked=asked,
        losses=losses,
        lost_touch=lost_touch,
        message=message,
    )
    if finish_s is not None:
        found.finish.FromTimedelta(timedelta(seconds=finish_s))
    return found


def phase(
    *clients: pb.ClientProgress, kind: pb.PhaseKind.ValueType = pb.PHASE_KIND_TRAIN, trial: int = 4
) -> pb.PhaseProgress:
    found = pb.PhaseProgress(
        kind=kind,
        trial=trial,
        round=2,
        attempt=1,
        wanted=len(clients),
        taken=sum(one.state == pb.WORK_STATE_DONE for one in clients),
        asked=len(clients),
        failed=sum(one.state == pb.WORK_STATE_FAILED for one in clients),
        clients=clients,
    )
    if kind != pb.PHASE_KIND_MEASURE:
        found.first_loss, found.loss = 2.3, 0.51
    found.elapsed.FromTimedelta(timedelta(seconds=2.1))
    found.deadline.FromTimedelta(timedelta(seconds=30))
    return found


def arm(
    number: int, state: str, rounds: int, *values: float, lr: float = 0.1, phase: str = "", momentum: float = 0.5
) -> pb.ArmProgress:
    return pb.ArmProgress(
        number=number,
        state=state,
        phase=phase,
        rounds=rounds,
        rounds_asked=8,
        value=values[-1] if values else None,
        values=values,
        hyperparameters=hp.map_to_proto({"batch_size": 8, "lr": lr, "momentum": momentum}),
    )


def spending(kind: str, spent: float, limit: float = 0) -> pb.BudgetUse:
    return pb.BudgetUse(kind=kind, spent=spent, limit=limit)


COHORT = (
    client("client-1", pb.WORK_STATE_TRAINING, 60, 4.2, (2.3, 1.9, 1.2, 0.8, 0.61)),
    client("client-2", pb.WORK_STATE_DONE, 100, 1.9, (2.3, 1.2, 0.7, 0.5, 0.4123)),
    client("client-3", pb.WORK_STATE_TRAINING, 7, 41.0, (2.3, 2.2)),
    client("client-10", pb.WORK_STATE_BEGINNING, 0),
    client("client-11", pb.WORK_STATE_TOLD_TO_SEND, 40, 55.0, (2.3, 2.0, 1.7)),
    client("client-12", pb.WORK_STATE_FAILED, 3, 1.1, (2.3, 9.0), message="its loss ran away"),
    client("client-13", pb.WORK_STATE_TRAINING, 20, 9.0, (2.1,), lost_touch=True),
    client("client-14", pb.WORK_STATE_SENDING, 100, 2.2, (2.3, 0.9, 0.44)),
)


def snapshot(*phases: pb.PhaseProgress) -> pb.Snapshot:
    """A study of ten trials, in the third round of the fifth."""
    arms = [
        arm(0, "completed", 8, 0.31, 0.55, 0.71, 0.83, 0.88, 0.9, 0.91, 0.9137, lr=0.07),
        arm(1, "pruned", 3, 0.1, 0.12, 0.13, lr=0.001),
        arm(2, "completed", 8, 0.5, 0.7, 0.9, 0.91, 0.93, 0.94, 0.95, 0.9512, lr=0.18),
        arm(3, "failed", 1, lr=0.9),
        arm(4, "running", 2, 0.4, 0.66, lr=0.2),
    ]
    found = pb.Snapshot(
        study="demo",
        state="running",
        task="digits",
        tuner="optuna",
        metric="accuracy",
        by_trials=True,
        fleet=pb.FleetProgress(connected=9, working=6, lost_touch=1, for_study=9, needed=8),
        phases=phases or [phase(*COHORT)],
        arms=arms,
        arm_count=5,
        best=arms[2],
        spent=[
            spending("trials", 4, 10),
            spending("rounds", 22, 64),
            spending("client_rounds", 176),
            spending("payload_bytes", 3.2e6),
            spending("seconds", 74),
        ],
    )
    found.time_left.about.FromTimedelta(timedelta(seconds=140))
    found.time_left.least.FromTimedelta(timedelta(seconds=95))
    found.time_left.most.FromTimedelta(timedelta(seconds=200))
    return found


def event(number: int, kind: str, text: str) -> study_pb2.StudyEvent:
    found = study_pb2.StudyEvent(number=number, kind=kind, text=text)
    found.time.FromJsonString("2026-01-01T12:00:00Z")
    return found


def crowd(count: int) -> pb.PhaseProgress:
    """So many clients, the slowest first, of whom a coordinator names 100."""
    named = [
        client(f"client-{number:04d}", pb.WORK_STATE_TRAINING, 10, 60.0 - number / 10, (2.3, 2.0))
        for number in range(min(count, 100))
    ]
    found = phase(*named)
    found.wanted = found.asked = count
    return found
