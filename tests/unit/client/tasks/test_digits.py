import numpy as np
import pytest
import torch

from fedstep.client.tasks import digits
from fedstep.client.tasks.digits import task
from fedstep.common.errors import InvalidInputError
from fedstep.common.task import ClientData, ClientInfo, Samples


def tensors(samples: Samples) -> tuple[torch.Tensor, torch.Tensor]:
    assert isinstance(samples, torch.utils.data.TensorDataset)
    inputs, targets = samples.tensors
    return inputs, targets


def everything(data: ClientData) -> tuple[torch.Tensor, torch.Tensor]:
    train, validation = tensors(data.train), tensors(data.validation)
    return torch.cat([train[0], validation[0]]), torch.cat([train[1], validation[1]])


def rows(inputs: torch.Tensor) -> list[bytes]:
    return [row.numpy().tobytes() for row in inputs]


def test_it_is_scikit_learns_digits() -> None:
    from sklearn.datasets import load_digits

    images, labels = digits._read()
    expected_images, expected_labels = load_digits(return_X_y=True)
    np.testing.assert_array_equal(images * 16, expected_images)
    np.testing.assert_array_equal(labels, expected_labels)


@pytest.mark.parametrize("count", [1, 3, 8, 100])
def test_shares_and_held_out_are_disjoint_and_everything(count: int) -> None:
    shares = [rows(everything(task.load_data(ClientInfo("x", (index, count))))[0]) for index in range(count)]
    held_out = rows(tensors(task.load_held_out({}))[0])
    together = sorted([row for share in shares for row in share] + held_out)
    assert together == sorted(rows(torch.from_numpy(digits._read()[0])))
    assert len(held_out) == 359
    assert min(len(share) for share in shares) > 0


def test_the_same_share_is_the_same_in_every_process() -> None:
    info = ClientInfo("x", (2, 8))
    first, again = task.load_data(info), task.load_data(info)
    assert torch.equal(everything(first)[0], everything(again)[0])
    assert torch.equal(tensors(first.validation)[1], tensors(again.validation)[1])


def test_shares_differ_in_their_digits() -> None:
    mixes = []
    for index in range(8):
        _, targets = everything(task.load_data(ClientInfo("x", (index, 8))))
        mixes.append(torch.bincount(targets, minlength=10) / len(targets))
    spread = torch.stack(mixes).std(dim=0).mean()
    assert spread > 0.05  # an even split has about 0.02


def test_a_client_without_a_partition_has_a_share_of_its_own() -> None:
    ann, bob = (everything(task.load_data(ClientInfo(name)))[0] for name in ("ann", "bob"))
    assert len(ann) == len(bob) == 180
    assert rows(ann) != rows(bob)
    assert rows(ann) == rows(everything(task.load_data(ClientInfo("ann")))[0])
    assert not set(rows(ann)) & set(rows(tensors(task.load_held_out({}))[0]))


def test_validation_is_a_part_of_the_share() -> None:
    data = task.load_data(ClientInfo("ann"))
    assert len(tensors(data.validation)[1]) == 27
    assert len(tensors(data.train)[1]) == 153
    inputs, targets = tensors(data.train)
    assert inputs.dtype == torch.float32
    assert targets.dtype == torch.int64
    assert 0 <= inputs.min() < inputs.max() <= 1


def test_more_shares_than_samples_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="2000 shares"):
        task.load_data(ClientInfo("x", (0, 2000)))


def test_the_model_takes_the_samples() -> None:
    inputs, _ = tensors(task.load_held_out({}))
    assert task.build_model(task.defaults)(inputs[:3]).shape == (3, 10)


def test_an_option_that_there_is_not_is_refused_and_where_data_of_others_lie_is_passed_over() -> None:
    task.load_data(ClientInfo("x", (0, 4), {"data": "elsewhere"}))
    with pytest.raises(InvalidInputError, match="no option validaton: did you mean validation"):
        task.load_data(ClientInfo("x", (0, 4), {"validaton": "0"}))
