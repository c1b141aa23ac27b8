"""The clients of a federation, and what is kept of them."""

import gc
import weakref

import pytest
import torch
from unit.simulation.kit import Clouds, study

from fedstep.simulation import population as module
from fedstep.simulation.population import Population
from fedstep.simulation.run import Federation, simulate


def test_however_many_clients_train_only_so_many_keep_models() -> None:
    population = Population(Clouds(), 40)
    trainers = [weakref.ref(population.trainer(client)) for client in range(40)]
    gc.collect()
    assert [client for client in range(40) if trainers[client]() is not None] == list(range(8, 40))
    assert population.trainer(8) is trainers[8]()


def test_a_study_is_the_same_whoever_keeps_models(monkeypatch: pytest.MonkeyPatch) -> None:
    federation = Federation(12, vectorised=False)
    found = simulate(study(), Clouds(), federation)
    monkeypatch.setattr(module, "_TRAINERS", 1)
    again = simulate(study(), Clouds(), federation)
    assert found.weights is not None
    assert again.weights is not None
    assert torch.equal(found.weights, again.weights)


def test_while_shares_are_loaded_it_is_told_how_many_there_are() -> None:
    told: list[int] = []
    Population(Clouds(), 4, tell=told.append)
    assert told == [1, 2, 3, 4]
