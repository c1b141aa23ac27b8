"""What a client answers with, in the protocol's words; a simulated client says the same."""

from fedstep.client.work import AbandonedError, Evaluated, Trained
from fedstep.common.durations import duration_of
from fedstep.common.errors import ExhaustedError, InvalidInputError
from fedstep.common.raised import in_a_sentence
from fedstep.v1 import fleet_pb2 as pb


def summary_of(trained: Trained, train_time_s: float) -> pb.TrainingSummary:
    """What goes with an update.

    Args:
        trained: The training.
        train_time_s: How long it took, by the client's own clock.
    """
    summary = pb.TrainingSummary(
        samples=trained.samples, steps=trained.steps, loss=trained.loss, train_time=duration_of(train_time_s)
    )
    if trained.validation_loss is not None:
        summary.validation_loss_before, summary.validation_loss_after = trained.validation_loss
    return summary


def reported(trained: Trained) -> pb.Outcome:
    """The end of a training that was asked for its reports only."""
    metrics = {"loss": trained.loss}
    return pb.Outcome(status=pb.OUTCOME_STATUS_COMPLETED, metrics=metrics, samples=trained.samples)


def measured(evaluated: Evaluated) -> pb.Outcome:
    """The end of an evaluation."""
    return pb.Outcome(status=pb.OUTCOME_STATUS_COMPLETED, metrics=evaluated.metrics, samples=evaluated.samples)


def ended_by(error: BaseException) -> pb.Outcome:
    """Why nothing comes; a task's own code may raise anything."""
    match error:
        case AbandonedError():
            return pb.Outcome(status=pb.OUTCOME_STATUS_ABANDONED, message=error.message)
        case InvalidInputError() | ExhaustedError():
            return pb.Outcome(status=pb.OUTCOME_STATUS_REFUSED, message=error.message)
        case _:
            return pb.Outcome(status=pb.OUTCOME_STATUS_FAILED, message=in_a_sentence(error))
