from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.utils.data import Dataset, IterableDataset, TensorDataset

from fedstep.common.errors import InvalidInputError
from fedstep.common.evaluate import batches, evaluate, sample_count
from fedstep.common.hyperparameters import Hyperparameters
from fedstep.common.task import Batch, ClientData, ClientInfo, Task

CPU = torch.device("cpu")


class Means(Task):
    """Its metric is the mean of the inputs; dropout tells whether it is in eval mode."""

    name = "means"

    def build_model(self, hyperparameters: Hyperparameters) -> nn.Module:
        return nn.Dropout(0.9)

    def load_data(self, client: ClientInfo) -> ClientData:
        raise NotImplementedError

    def metrics(self, model: nn.Module, batch: Batch) -> Mapping[str, torch.Tensor]:
        assert torch.is_inference_mode_enabled()
        return {"loss": model(batch[0]).mean(), "targets": batch[1].float().mean()}


class Plain(Dataset[tuple[torch.Tensor, ...]]):
    """Not a TensorDataset."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[torch.Tensor, ...]:
        return torch.tensor(float(index)), torch.tensor(index)


def tensor_samples(count: int) -> TensorDataset:
    return TensorDataset(torch.arange(count, dtype=torch.float32), torch.arange(count))


@given(st.integers(1, 30), st.integers(1, 40), st.booleans())
def test_metrics_are_weighted_by_samples(count: int, batch_size: int, plain: bool) -> None:
    samples = Plain(count) if plain else tensor_samples(count)
    metrics, total = evaluate(Means(), nn.Dropout(0.9), samples, CPU, batch_size)
    assert total == count
    assert metrics == pytest.approx({"loss": (count - 1) / 2, "targets": (count - 1) / 2})


def test_no_samples_have_no_metrics() -> None:
    assert evaluate(Means(), nn.Dropout(), tensor_samples(0), CPU) == ({}, 0)
    assert evaluate(Means(), nn.Dropout(), Plain(0), CPU) == ({}, 0)


@pytest.mark.parametrize("training", [True, False])
def test_the_model_comes_back_in_the_mode_it_was_in(training: bool) -> None:
    model = nn.Dropout().train(training)
    evaluate(Means(), model, tensor_samples(3), CPU)
    assert model.training is training


def test_it_can_be_stopped_before_any_batch() -> None:
    seen = 0

    def before_batch() -> None:
        nonlocal seen
        seen += 1
        if seen == 2:
            raise InterruptedError

    model = nn.Dropout()
    with pytest.raises(InterruptedError):
        evaluate(Means(), model, tensor_samples(30), CPU, 10, before_batch)
    assert model.training


@given(st.integers(0, 30), st.integers(1, 40), st.booleans(), st.one_of(st.none(), st.integers(0, 9)))
def test_a_pass_visits_every_sample_once(count: int, batch_size: int, plain: bool, seed: int | None) -> None:
    samples = Plain(count) if plain else tensor_samples(count)
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    drawn = list(batches(samples, batch_size, generator, CPU))
    order = [int(target) for _, targets in drawn for target in targets]
    assert sorted(order) == list(range(count))
    if seed is None:
        assert order == list(range(count))
    assert all(len(inputs) == batch_size for inputs, _ in drawn[:-1])
    assert all(torch.equal(inputs, targets.float()) for inputs, targets in drawn)


@pytest.mark.parametrize("plain", [True, False])
def test_the_same_generator_gives_the_same_order_and_the_next_pass_another(plain: bool) -> None:
    samples = Plain(50) if plain else tensor_samples(50)

    def orders(seed: int) -> list[list[int]]:
        generator = torch.Generator().manual_seed(seed)
        return [[int(t) for _, ts in batches(samples, 7, generator, CPU) for t in ts] for _ in range(2)]

    assert orders(1) == orders(1)
    assert orders(1) != orders(2)
    assert orders(1)[0] != orders(1)[1]


@pytest.mark.parametrize("plain", [True, False])
@pytest.mark.parametrize("seed", [None, 3])
def test_torchs_global_generator_is_left_alone(plain: bool, seed: int | None) -> None:
    before = torch.get_rng_state()
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    list(batches(Plain(9) if plain else tensor_samples(9), 4, generator, CPU))
    assert torch.equal(torch.get_rng_state(), before)


def test_batches_lie_on_the_device_wherever_the_samples_do() -> None:
    drawn = list(batches(tensor_samples(5), 2, torch.Generator().manual_seed(0), torch.device("meta")))
    assert [len(inputs) for inputs, _ in drawn] == [2, 2, 1]
    assert all(tensor.device.type == "meta" for batch in drawn for tensor in batch)


def test_a_data_set_without_a_length_is_refused() -> None:
    class Endless(IterableDataset[tuple[torch.Tensor, ...]]):
        def __iter__(self) -> Iterator[tuple[torch.Tensor, ...]]:
            return iter(())

    with pytest.raises(InvalidInputError, match="Endless has no length"):
        sample_count(Endless())


@pytest.mark.parametrize("stops", [0, 3, 5])
def test_a_data_set_that_ends_before_its_length_is_told(stops: int) -> None:
    class Stopping(Plain):
        def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
            if index == stops:
                raise StopIteration
            return super().__getitem__(index)

    with pytest.raises(InvalidInputError, match=f"Stopping gave {stops - stops % 2} of its 6 samples: a StopIteration"):
        list(batches(Stopping(6), 2, None, CPU))


@pytest.mark.parametrize(
    ("value", "kind"), [("low", "a str"), (torch.zeros(2), "a Tensor"), (None, "None"), (10**400, "an int")]
)
def test_a_metric_that_is_no_number_is_told(value: object, kind: str) -> None:
    class Odd(Means):
        def metrics(self, model: nn.Module, batch: Batch) -> Any:
            return {"loss": value}

    samples = TensorDataset(torch.zeros(2, 1), torch.zeros(2))
    with pytest.raises(
        InvalidInputError, match=rf"metrics\(\) of the task means returned {kind} as loss: let it be one"
    ):
        evaluate(Odd(), nn.Identity(), samples, CPU)


def test_a_task_that_measures_no_loss_is_told_so() -> None:
    class Lossless(Means):
        def metrics(self, model: nn.Module, batch: Batch) -> Mapping[str, torch.Tensor]:
            return {"f1": torch.tensor(0.5)}

    samples = TensorDataset(torch.zeros(2, 1), torch.zeros(2))
    with pytest.raises(
        InvalidInputError, match=r"The task means measures f1: let its metrics\(\) return a loss as well"
    ):
        evaluate(Lossless(), nn.Identity(), samples, CPU)
