"""Training and measuring together gives what one by one gives, up to the order of additions."""

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import nn
from unit.simulation.kit import Clouds

from fedstep.client.work import DivergedError, Job, Model, Trained
from fedstep.common.hyperparameters import Hyperparameters
from fedstep.common.task import Batch, ClientData, Progress, Task
from fedstep.common.tasks import full_hyperparameters
from fedstep.common.tensors import Manifest, pack, sha256
from fedstep.simulation import crew, local
from fedstep.simulation.local import Order, Training
from fedstep.simulation.measuring import CohortEvaluation, held_out_metrics
from fedstep.simulation.population import Population
from fedstep.simulation.vectorised import Stackable, VectorisedTraining

CLIENTS = 6


def model_of(task: Task, seed: int = 0, **values: Any) -> Model:
    torch.manual_seed(seed)
    state = task.build_model(full_hyperparameters(task, values)).state_dict()
    manifest = Manifest.of(state)
    payload = pack(state, manifest)
    return Model(manifest, payload, sha256(payload))


def orders(task: Task, each: Sequence[dict[str, Any]], **job: Any) -> list[Order]:
    """One for each client, with its own hyper-parameters."""
    return [
        Order(
            client, Job("j", model_of(task, **{k: v for k, v in values.items() if k == "width"}), values, client, **job)
        )
        for client, values in enumerate(each)
    ]


def together(population: Population, asked: list[Order]) -> list[Training]:
    training = VectorisedTraining(population)
    stackable = [training.stackable(order) for order in asked]
    assert len({one.kind for one in stackable if one is not None}) == 1
    return training.train([one for one in stackable if one is not None])


def assert_same(found: Sequence[Training], wanted: Sequence[Training]) -> None:
    assert len(found) == len(wanted)
    for ours, theirs in zip(found, wanted, strict=True):
        assert ours.losses == pytest.approx(list(theirs.losses), rel=1e-4, abs=1e-5)
        assert ours.samples == list(theirs.samples)
        assert ours.trained is not None
        assert theirs.trained is not None
        torch.testing.assert_close(ours.trained.update, theirs.trained.update, rtol=1e-3, atol=1e-5)
        assert (ours.trained.samples, ours.trained.steps) == (theirs.trained.samples, theirs.trained.steps)
        assert ours.trained.loss == pytest.approx(theirs.trained.loss, rel=1e-4)
        assert (ours.trained.validation_loss is None) == (theirs.trained.validation_loss is None)
        if ours.trained.validation_loss and theirs.trained.validation_loss:
            assert ours.trained.validation_loss == pytest.approx(theirs.trained.validation_loss, rel=1e-4)


@pytest.mark.parametrize(
    "each",
    [
        [{}] * CLIENTS,
        [{"lr": 0.02 * (1 + client)} for client in range(CLIENTS)],
        [{"momentum": 0.15 * client, "weight_decay": 0.01 * client} for client in range(CLIENTS)],
        [{"local_epochs": 1 + client % 3} for client in range(CLIENTS)],
        [{"batch_size": 64}] * CLIENTS,
        [{"batch_size": 1}] * CLIENTS,
        [{"batch_size": 1 + 3 * client, "local_epochs": 1 + client % 2} for client in range(CLIENTS)],
        [{"width": 3}] * CLIENTS,
    ],
    ids=["same", "lr", "momentum-and-decay", "epochs", "one-batch", "single-samples", "batch-sizes", "structure"],
)
def test_trained_together_equals_trained_one_by_one(each: list[dict[str, Any]]) -> None:
    population = Population(Clouds(), CLIENTS)
    asked = orders(population.task, each)
    assert_same(together(population, asked), [local.train(population, order) for order in asked])


def test_of_large_models_only_as_many_train_together_as_memory_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    population = Population(Clouds(), CLIENTS, {})
    asked = orders(Clouds(), [{}] * CLIENTS)
    at_once: list[int] = []
    train = VectorisedTraining.train

    def counted(self: VectorisedTraining, work: Sequence[Stackable]) -> list[Training]:
        at_once.append(len(work))
        return train(self, work)

    monkeypatch.setattr(VectorisedTraining, "train", counted)
    monkeypatch.setattr(crew, "STACKED_BYTES", 4 * asked[0].job.model.manifest.payload_bytes)
    found = crew.LocalCrew(population, vectorised=True).train(asked)
    assert at_once == [4, 2]
    assert_same(found, [local.train(population, order) for order in asked])


@pytest.mark.parametrize("most", [1, 3, 7])
def test_a_bound_on_steps_holds_for_each(most: int) -> None:
    population = Population(Clouds(), CLIENTS)
    asked = orders(population.task, [{}] * CLIENTS, max_steps=most)
    assert_same(together(population, asked), [local.train(population, order) for order in asked])


def test_losses_before_and_after_training_are_told_where_asked_for() -> None:
    population = Population(Clouds(), CLIENTS)
    asked = orders(population.task, [{}] * CLIENTS, local_validation=True)
    found = together(population, asked)
    assert_same(found, [local.train(population, order) for order in asked])
    assert all(training.trained and training.trained.validation_loss for training in found)


def test_clients_may_start_from_different_models() -> None:
    population = Population(Clouds(), 4)
    task = population.task
    asked = [Order(client, Job("j", model_of(task, seed=client), {}, client)) for client in range(4)]
    assert_same(together(population, asked), [local.train(population, order) for order in asked])


def test_a_client_that_diverges_does_not_touch_the_others() -> None:
    population = Population(Clouds(), 3)
    asked = orders(population.task, [{}, {"lr": 1e30}, {}])
    found = together(population, asked)
    wanted = [local.train(population, order) for order in asked]
    assert_same([found[0], found[2]], [wanted[0], wanted[2]])
    assert found[1].trained is None
    assert isinstance(found[1].error, DivergedError)
    assert len(found[1].losses) == len(wanted[1].losses)
    assert not math.isfinite(found[1].losses[-1])


class Branching(Clouds):
    """No plain chain of layers: the general way."""

    def build_model(self, hyperparameters: Hyperparameters) -> nn.Module:
        class Net(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.left, self.right = nn.Linear(4, 3), nn.Linear(4, 3, bias=False)

            def forward(self, inputs: torch.Tensor) -> torch.Tensor:
                return self.left(inputs) + torch.tanh(self.right(inputs))

        return Net()


def test_any_model_is_vectorised_that_torch_can_map() -> None:
    population = Population(Branching(), CLIENTS)
    asked = orders(population.task, [{}] * CLIENTS)
    assert_same(together(population, asked), [local.train(population, order) for order in asked])


class Dropping(Clouds):
    def build_model(self, hyperparameters: Hyperparameters) -> nn.Module:
        return nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 3))


class Normed(Clouds):
    def build_model(self, hyperparameters: Hyperparameters) -> nn.Module:
        return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 3))


class Peeking(Clouds):
    def build_model(self, hyperparameters: Hyperparameters) -> nn.Module:
        class Net(nn.Linear):
            def forward(self, inputs: torch.Tensor) -> torch.Tensor:
                return super().forward(inputs - inputs.mean(0))

        return Net(4, 3)


class OwnLoss(Clouds):
    def loss(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        return 2 * super().loss(model, batch)


class OwnOptimizer(Clouds):
    def optimizer(self, model: nn.Module, hyperparameters: Hyperparameters) -> torch.optim.Optimizer | None:
        return torch.optim.SGD(model.parameters(), lr=0.1)


class OwnTraining(Clouds):
    def train(self, progress: Progress, model: nn.Module, data: ClientData, hyperparameters: Hyperparameters) -> None:
        progress.step(0.0, 1)


@pytest.mark.parametrize("kind", [Dropping, Normed, Peeking, OwnLoss, OwnOptimizer, OwnTraining])
def test_what_cannot_be_stacked_is_left_to_the_trainer(kind: type[Task]) -> None:
    population = Population(kind(), 2)
    (order,) = orders(population.task, [{}])
    assert VectorisedTraining(population).stackable(order) is None


@pytest.mark.parametrize("values", [{"optimizer": "adam"}, {"proximal_mu": 0.1}, {"gradient_clip": 1.0}, {"lr": -1.0}])
def test_what_plain_sgd_is_not_is_left_to_the_trainer(values: dict[str, Any]) -> None:
    population = Population(Clouds(), 2)
    (order,) = orders(population.task, [values])
    assert VectorisedTraining(population).stackable(order) is None


def test_another_structure_is_another_kind() -> None:
    population = Population(Clouds(), 2)
    training = VectorisedTraining(population)
    first, second = map(training.stackable, orders(population.task, [{}, {"width": 5}]))
    assert first is not None
    assert second is not None
    assert first.kind != second.kind


def test_measured_together_equals_measured_one_by_one() -> None:
    population = Population(Clouds(), CLIENTS)
    asked = orders(population.task, [{}] * CLIENTS)
    evaluation = CohortEvaluation(population)
    assert all(evaluation.can_measure(order) for order in asked)
    found = evaluation.measure(asked)
    assert found is not None
    for ours, order in zip(found, asked, strict=True):
        theirs = local.evaluate(population, order)
        assert not isinstance(theirs, Exception)
        assert ours.samples == theirs.samples
        assert ours.metrics == pytest.approx(theirs.metrics, rel=1e-5)


def test_held_out_metrics_are_the_tasks() -> None:
    population = Population(Clouds(), 1)
    model = model_of(population.task)
    metrics = held_out_metrics(population, {}, model.payload, model.manifest)
    assert set(metrics) == {"loss", "accuracy"}


def test_the_trainer_itself_is_what_is_compared_with() -> None:
    population = Population(Clouds(), 1)
    (order,) = orders(population.task, [{}])
    done = local.train(population, order).trained
    assert isinstance(done, Trained)
    assert done.update.abs().max() > 0
