"""Networks by name: what they take, what they answer, and what becomes of batch norm."""

import pytest
import torch
from torch import nn

from fedstep.client.image_models import ImageKind, image_model
from fedstep.client.norms import Norm, normalised
from fedstep.client.tasks.femnist import femnist, femnist_digits
from fedstep.client.tasks.images import cifar10, cifar100, mnist
from fedstep.client.tasks.mnist_writers import task as mnist_writers
from fedstep.common.errors import InvalidInputError
from fedstep.common.hyperparameters import Value
from fedstep.common.task import Task

GREY, COLOUR = ImageKind(1, 28, 62), ImageKind(3, 32, 10)


def build(kind: ImageKind, model: str, norm: str = "none", hidden: int = 8) -> nn.Module:
    return image_model(kind, {"model": model, "norm": norm, "hidden": hidden})


def size_of(model: nn.Module) -> int:
    return sum(weights.numel() for weights in model.parameters())


def kinds_in(model: nn.Module) -> set[type[nn.Module]]:
    return {type(module) for module in model.modules()}


@pytest.mark.parametrize("kind", [GREY, COLOUR])
@pytest.mark.parametrize(
    "name", ["leaf_cnn", "cifar_cnn", "fedavg_cnn", "small_cnn", "mlp", "resnet18", "squeezenet1_1"]
)
def test_every_network_takes_every_kind_of_image(name: str, kind: ImageKind) -> None:
    model = build(kind, name, norm="group")
    outputs = model(torch.zeros(3, kind.channels, kind.side, kind.side))
    assert outputs.shape == (3, kind.classes)
    assert model.training


def test_widths_are_hyperparameters() -> None:
    assert size_of(build(GREY, "mlp", hidden=200)) == 784 * 200 + 200 + 200 * 200 + 200 + 200 * 62 + 62
    assert size_of(build(GREY, "leaf_cnn", hidden=2048)) == 6_603_710
    assert size_of(build(GREY, "small_cnn", hidden=64)) == 60_094


@pytest.mark.parametrize("task", [femnist, femnist_digits, mnist, cifar10, cifar100, mnist_writers])
def test_any_task_on_images_takes_another_network(task: Task) -> None:
    side = 32 if task in (cifar10, cifar100) else 28
    channels = 3 if side == 32 else 1
    model = task.build_model({**task.defaults, "model": "mlp", "hidden": 16})
    assert len(model(torch.zeros(1, channels, side, side))[0]) == getattr(task, "classes", 10)


def test_a_model_of_torchvision_is_theirs_but_for_its_ends() -> None:
    from fedstep.client.vision import load_torchvision

    theirs = load_torchvision("models").get_model("resnet18", num_classes=62)
    ours = build(GREY, "resnet18", norm="batch")
    changed = {name for name, tensor in ours.state_dict().items() if theirs.state_dict()[name].shape != tensor.shape}
    assert changed == {"conv1.weight"}
    assert ours.state_dict()["conv1.weight"].shape == (64, 1, 7, 7)
    assert nn.BatchNorm2d in kinds_in(ours)
    # What comes out of the first layer is as large as theirs.
    grey = torch.randn(4, 1, 28, 28)
    with torch.no_grad():
        mine, others = ours.conv1(grey).std(), theirs.conv1(torch.randn(4, 3, 28, 28)).std()
    assert float(mine) == pytest.approx(float(others), rel=0.2)


def test_batch_norm_is_refused_replaced_or_kept() -> None:
    with pytest.raises(InvalidInputError, match=r'resnet18 has batch norm.*norm = "group".*norm = "batch"'):
        build(COLOUR, "resnet18")
    grouped = build(COLOUR, "resnet18", norm="group")
    assert nn.BatchNorm2d not in kinds_in(grouped)
    groups = [module for module in grouped.modules() if isinstance(module, nn.GroupNorm)]
    assert len(groups) == 20
    assert {group.num_groups for group in groups} == {2}
    assert not list(grouped.buffers())  # nothing is left that runs along
    assert size_of(grouped) == size_of(build(COLOUR, "resnet18", norm="batch"))
    assert build(COLOUR, "squeezenet1_1")  # it has none, and needs no word


def test_group_norm_begins_where_batch_norm_did() -> None:
    model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3, eps=1e-3), nn.Sequential(nn.BatchNorm2d(4)))
    nn.init.zeros_(model[1].weight)
    replaced = normalised(model, Norm.GROUP, "mine")
    first, second = replaced[1], replaced[2][0]
    assert isinstance(first, nn.GroupNorm)
    assert (first.num_groups, first.num_channels, first.eps) == (1, 3, 1e-3)
    assert not first.weight.any()
    assert isinstance(second, nn.GroupNorm)
    assert second.num_groups == 2
    assert bool((second.weight == 1).all())


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"model": "resnt18"}, r'model is "resnt18", and there is no such network: did you mean `resnet18`\?'),
        ({"model": "leafcnn"}, r"did you mean `leaf_cnn`\?"),
        ({"norm": "grop"}, r'norm is "grop": did you mean `group`\?'),
        ({"hidden": 0}, "hidden is 0: it must be at least 1"),
        ({"model": "vgg11"}, r"vgg11 cannot take images of 1×28×28 \(.*too small\): take another"),
    ],
)
def test_what_cannot_be_is_one_sentence(values: dict[str, Value], sentence: str) -> None:
    with pytest.raises(InvalidInputError, match=sentence) as caught:
        mnist.build_model(values)
    assert "\n" not in caught.value.message
