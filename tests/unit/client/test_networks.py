import pytest
import torch

from fedstep.client.networks import cifar_cnn, fedavg_cnn, leaf_cnn, perceptron, small_cnn


@pytest.mark.parametrize(
    ("model", "shape", "classes", "parameters"),
    [
        (leaf_cnn(62), (1, 28, 28), 62, 6_603_710),
        (leaf_cnn(10, hidden=512), (1, 28, 28), 10, 1_663_370),
        (cifar_cnn(10), (3, 32, 32), 10, 62_006),
        (fedavg_cnn(10, side=24), (3, 24, 24), 10, 1_068_298),  # about a million, as the paper says
        (fedavg_cnn(10), (3, 32, 32), 10, 1_756_426),
        (small_cnn(10), (1, 28, 28), 10, 56_714),
        (perceptron(30, (16, 8), 2), (30,), 2, 650),
        (perceptron(30, (), 2), (30,), 2, 62),
    ],
)
def test_networks_have_the_parameters_of_their_papers(
    model: torch.nn.Module, shape: tuple[int, ...], classes: int, parameters: int
) -> None:
    assert model(torch.zeros(3, *shape)).shape == (3, classes)
    assert sum(weights.numel() for weights in model.parameters()) == parameters
