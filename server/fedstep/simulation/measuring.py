"""Evaluation of one model by a whole cohort, in one pass over everybody's validation samples."""

from collections.abc import Sequence

import torch
from torch import nn

from fedstep.client.models import ModelShelf
from fedstep.client.work import Evaluated
from fedstep.common.evaluate import evaluate
from fedstep.common.hyperparameters import Hyperparameters
from fedstep.common.task import Task
from fedstep.common.tasks import build_model, full_hyperparameters
from fedstep.common.tensors import Manifest, unpack
from fedstep.simulation.local import Order
from fedstep.simulation.population import CPU, Pool, Population

_COHORTS_KEPT = 4
_BATCH = 4096


class CohortEvaluation:
    """Measures a model for many clients at once: equal to one by one up to the order of additions.

    Args:
        population: The clients.
    """

    def __init__(self, population: Population) -> None:
        self._task = population.task
        self._shelf = ModelShelf(population.task, CPU)
        self._cohorts: dict[tuple[int, ...], tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = {}
        self._pool: Pool | None = None
        pool = population.validation
        if type(population.task).metrics is Task.metrics and pool is not None and pool.labelled:
            self._pool = pool

    def can_measure(self, order: Order) -> bool:
        """Whether the order can be carried out together with others that have the same model."""
        return self._pool is not None and self._pool.sizes[order.client] > 0

    def measure(self, orders: Sequence[Order]) -> list[Evaluated] | None:
        """Each client's metrics; None where the model is not the task's, or its samples see one another.

        Args:
            orders: Of the same model and hyper-parameters.
        """
        job = orders[0].job
        model = self._shelf.for_evaluating(full_hyperparameters(self._task, job.hyperparameters)).eval()
        if Manifest.of(model.state_dict()) != job.model.manifest or _sees_the_batch(model):
            return None
        model.load_state_dict(unpack(job.model.payload, job.model.manifest))
        inputs, targets, owners = self._samples(tuple(order.client for order in orders))
        with torch.inference_mode():
            outputs = torch.cat([model(inputs[start : start + _BATCH]) for start in range(0, len(inputs), _BATCH)])
            losses = nn.functional.cross_entropy(outputs, targets, reduction="none")
            hits = outputs.argmax(dim=-1) == targets
            sums = torch.zeros(len(orders), 3, dtype=torch.float64)
            sums.index_add_(0, owners, torch.stack([losses, hits, torch.ones_like(losses)], dim=1).double())
        return [
            Evaluated({"loss": loss / size, "accuracy": right / size}, int(size)) for loss, right, size in sums.tolist()
        ]

    def _samples(self, clients: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Inputs, targets and whose they are: [samples]. The last cohorts' are kept: they measure again and again."""
        found = self._cohorts.pop(clients, None)
        if found is None:
            assert self._pool is not None
            shares = [self._pool.share(client).tensors for client in clients]
            owners = [torch.full((len(targets),), owner) for owner, (_, targets) in enumerate(shares)]
            inputs, targets = (torch.cat([share[column] for share in shares]) for column in (0, 1))
            found = inputs, targets, torch.cat(owners)
        self._cohorts[clients] = found
        while len(self._cohorts) > _COHORTS_KEPT:
            del self._cohorts[next(iter(self._cohorts))]
        return found


def _sees_the_batch(model: nn.Module) -> bool:
    """Whether a layer normalises with the batch at hand even when it only measures."""
    norms = (module for module in model.modules() if isinstance(module, nn.modules.batchnorm._NormBase))
    return any(not norm.track_running_stats for norm in norms)


def held_out_metrics(
    population: Population, hyperparameters: Hyperparameters, payload: torch.Tensor, manifest: Manifest
) -> dict[str, float]:
    """A model's metrics on the samples that no client trains on; {} where there are none.

    Args:
        population: Whose held-out samples.
        hyperparameters: The model's; defaults are filled in.
        payload: uint8 [payload_bytes].
        manifest: The model's layout.
    """
    if population.held_out is None:
        return {}
    model = build_model(population.task, full_hyperparameters(population.task, hyperparameters))
    model.load_state_dict(unpack(payload, manifest))
    metrics, _ = evaluate(population.task, model, population.held_out, CPU)
    return metrics
