"""What a study has cost as a message of the protocol."""

from fedstep.server.report.cost import Spending, StudyCost
from fedstep.v1 import study_pb2


def cost_to_proto(cost: StudyCost) -> study_pb2.Cost:
    """The message."""
    overhead = cost.overhead
    return study_pb2.Cost(
        text=cost.text,
        total=_spending(cost.total),
        purposes=[
            study_pb2.PurposeCost(purpose=one.purpose, trials=one.trials, spent=_spending(one.spent), tuning=one.tuning)
            for one in cost.purposes
        ],
        tuning=study_pb2.TuningCost(
            spent=_spending(cost.tuning),
            byte_share=cost.byte_share,
            tuner_seconds=overhead.tuner_seconds,
            tuner_cpu_seconds=overhead.tuner_cpu_seconds,
            commit_seconds=overhead.commit_seconds,
            coordinator_cpu_seconds=overhead.cpu_seconds,
            added_cpu_seconds=cost.added_cpu_seconds,
            added_seconds=cost.added_seconds,
            journal_bytes=cost.journal_bytes,
            event_bytes=cost.event_bytes,
        ),
        clients=[
            study_pb2.ClientCost(
                client_name=one.client,
                trainings=one.trainings,
                measurements=one.measurements,
                model_bytes=one.model_bytes,
                update_bytes=one.update_bytes,
                training_seconds=one.training_seconds,
                measuring_seconds=one.measuring_seconds,
            )
            for one in cost.clients
        ],
        wall_seconds=cost.wall_seconds,
    )


def _spending(spent: Spending) -> study_pb2.Spending:
    return study_pb2.Spending(**vars(spent))
