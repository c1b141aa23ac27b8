"""What an actor of a Ray cluster does with the orders it is sent, without Ray."""

import os
import pickle
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from unit.simulation import kit
from unit.simulation.kit import Clouds

from fedstep.client.work import Job, Model
from fedstep.common.errors import InternalError, InvalidInputError
from fedstep.common.tensors import Manifest, pack, sha256
from fedstep.simulation.crew import LocalCrew
from fedstep.simulation.local import Order
from fedstep.simulation.population import Population
from fedstep.simulation.ray_shard import PackedModel, Part, Shard, packed_order

CLIENTS, ACTORS = 7, 3


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    """A shard takes its process for its own."""
    threads, folder = torch.get_num_threads(), Path.cwd()
    yield
    torch.set_num_threads(threads)
    os.chdir(folder)


def shard(number: int, vectorised: bool = False, folder: str = ".") -> Shard:
    return Shard(Part(str(kit.__file__), folder, {}, vectorised, CLIENTS, number, ACTORS))


def model(seed: int) -> Model:
    torch.manual_seed(seed)
    state = Clouds().build_model({"width": 7}).state_dict()
    manifest = Manifest.of(state)
    payload = pack(state, manifest)
    return Model(manifest, payload, sha256(payload))


def orders(clients: range) -> list[Order]:
    """Of two models in turn, as when two trials run at once."""
    models = [model(0), model(1)]
    return [Order(client, Job("a round", models[client % 2], {"lr": 0.1}, seed=client)) for client in clients]


def sent(asked: list[Order]) -> tuple[list[Order], list[PackedModel]]:
    """Orders and their models, after a journey."""
    models = {order.job.model.sha256: PackedModel.of(order.job.model) for order in asked}
    travelled: tuple[list[Order], list[PackedModel]] = pickle.loads(  # noqa: S301  # made here
        pickle.dumps(([packed_order(order) for order in asked], list(models.values())))
    )
    for packed in travelled[1]:
        packed.values.flags.writeable = False  # as Ray maps it
    return travelled


@pytest.mark.parametrize("vectorised", [False, True])
def test_every_shard_does_what_one_process_does_for_the_same_clients(vectorised: bool) -> None:
    together = LocalCrew(Population(Clouds(), CLIENTS), vectorised)
    for number in range(ACTORS):
        asked = orders(range(number, CLIENTS, ACTORS))
        packed, models = sent(asked)
        found = [training.unpacked() for training in shard(number, vectorised).train(packed, *models)]
        for ours, theirs in zip(found, together.train(asked), strict=True):
            assert ours.trained is not None
            assert theirs.trained is not None
            assert ours.samples == theirs.samples
            assert ours.losses == pytest.approx(theirs.losses, rel=0 if not vectorised else 1e-4)
            torch.testing.assert_close(
                ours.trained.update, theirs.trained.update, rtol=0 if not vectorised else 1e-3, atol=1e-6 * vectorised
            )
        measured = shard(number, vectorised).measure(packed, *models)
        for one, other in zip(measured, together.measure(asked), strict=True):
            assert not isinstance(one, Exception)
            assert not isinstance(other, Exception)
            assert dict(one.metrics) == pytest.approx(dict(other.metrics), rel=1e-6 * vectorised)


def test_the_shards_rosters_are_the_federations() -> None:
    whole = Population(Clouds(), CLIENTS).roster
    for number in range(ACTORS):
        part = shard(number).roster()
        assert part.names == whole.names[number::ACTORS]
        assert part.train_samples == whole.train_samples[number::ACTORS]
        assert part.validation_samples == whole.validation_samples[number::ACTORS]
        assert part.manifest == whole.manifest


def test_an_update_that_was_sent_may_be_written_to() -> None:
    (training,) = shard(0).train(*_unrolled(sent(orders(range(1)))))
    assert training.update is not None
    training.update.flags.writeable = False
    unpacked = training.unpacked().trained
    assert unpacked is not None
    unpacked.update.zero_()
    assert training.update.any()


def test_work_that_fails_is_a_result_that_can_be_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    class OwnError(Exception):
        """Holds what cannot be pickled, as a task's may."""

        def __init__(self) -> None:
            super().__init__("no luck.\nat all")
            self.held = lambda: None

    def unlucky(*_: object) -> None:
        raise OwnError

    held = shard(0)
    held.roster()
    monkeypatch.setattr(type(held._crew._population.task), "loss", unlucky)
    packed, models = sent(orders(range(1)))
    (training,) = pickle.loads(pickle.dumps(held.train(packed, *models)))  # noqa: S301  # made here
    error = training.unpacked().error
    assert isinstance(error, InternalError)
    assert error.message.startswith("OwnError: no luck (test_ray_shard.py, line ")


def test_paths_are_relative_to_where_the_simulation_was_started(tmp_path: Path) -> None:
    shard(0, folder=str(tmp_path))
    assert Path.cwd() == tmp_path
    shard(0, folder=str(tmp_path / "not here"))
    assert Path.cwd() == tmp_path


def test_a_task_that_is_not_there_is_told_when_it_is_first_needed() -> None:
    held = Shard(Part("/nowhere/task.py", ".", {}, True, CLIENTS, 0, ACTORS))
    with pytest.raises(InvalidInputError, match=r"/nowhere/task\.py"):
        held.roster()


def _unrolled(packed: tuple[list[Order], list[PackedModel]]) -> tuple[object, ...]:
    return packed[0], *packed[1]
