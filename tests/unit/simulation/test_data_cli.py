import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from matplotlib.image import imread
from torch import nn
from torch.utils.data import Dataset, TensorDataset

from fedstep.common.errors import InvalidInputError
from fedstep.common.hyperparameters import Hyperparameters
from fedstep.common.task import ClientData, ClientInfo, Task
from fedstep.common.tasks import load_task
from fedstep.simulation.data_cli import data
from fedstep.simulation.holdings import Holdings, count_holdings
from fedstep.simulation.holdings_picture import draw_holdings


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


class Ones(Dataset[tuple[torch.Tensor, ...]]):
    """A data set that is no TensorDataset: so many samples of one label."""

    def __init__(self, label: int, count: int) -> None:
        self.label, self.count = label, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[torch.Tensor, ...]:
        if index >= self.count:
            raise IndexError
        return torch.zeros(2), torch.tensor(self.label)


class Stairs(Task):
    """Client i has i + 1 samples of class 10 i to train on, and one of class 5 for validation."""

    name = "stairs"

    def build_model(self, hyperparameters: Hyperparameters) -> nn.Module:
        raise NotImplementedError

    def load_data(self, client: ClientInfo) -> ClientData:
        assert client.partition is not None
        index, _ = client.partition
        return ClientData(Ones(10 * index, index + 1), Ones(5, 1))


class Prices(Stairs):
    """Its targets are no classes."""

    def load_data(self, client: ClientInfo) -> ClientData:
        samples = TensorDataset(torch.zeros(3, 1), torch.zeros(3, 1))
        return ClientData(samples, samples)


def test_every_sample_is_counted_for_whom_it_is() -> None:
    told: list[int] = []
    found = count_holdings(Stairs(), 3, {}, told.append)
    assert told == [1, 2, 3]
    assert found.clients == ("1/3", "2/3", "3/3")
    assert found.classes == (0, 5, 10, 20)
    assert found.counts.tolist() == [[1, 1, 0, 0], [0, 1, 2, 0], [0, 1, 0, 3]]
    assert found.validation.tolist() == [1, 1, 1]
    assert found.summary() == "9 samples, 2 to 4 (median 3) a client; 4 classes, 2 a client."


def test_without_validation_no_sample_counts_twice() -> None:
    task = load_task("digits")
    every, some = (count_holdings(task, 4, options) for options in ({"validation": "0"}, {}))
    assert np.array_equal(every.counts, some.counts)
    assert every.counts.sum() == 1797 - 359


def test_targets_that_are_no_classes_are_refused() -> None:
    with pytest.raises(
        InvalidInputError, match=r"targets of the task stairs are float32 \['samples', 1\], not classes"
    ):
        count_holdings(Prices(), 2, {})


def test_it_shows_a_table_and_draws_a_picture() -> None:
    result = CliRunner().invoke(data, ["show", "digits", "--clients", "5"])
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    assert lines[0].startswith("digits, 5 clients: 1,438 samples, ")
    assert lines[2].split() == ["client", "samples", "classes", *"0123456789"]
    rows = [line.split() for line in lines[3:8]]
    assert [row[0] for row in rows] == ["1/5", "2/5", "3/5", "4/5", "5/5"]
    assert sum(int(row[1]) for row in rows) == 1438
    for row in rows:
        assert sum(int(count) for count in row[3:] if count != "·") == int(row[1])
    assert lines[-1] == "picture  data-digits-5.png"
    assert imread("data-digits-5.png").shape[1] == 1430


def test_many_clients_are_cut_short_and_said_to_be() -> None:
    result = CliRunner().invoke(data, ["show", "digits", "--clients", "60"])
    assert "40/60" in result.output
    assert "41/60" not in result.output
    assert "… and 20 more" in result.output


def test_as_json_it_says_everything_and_draws_where_it_is_told(tmp_path: Path) -> None:
    result = CliRunner().invoke(data, ["show", "digits", "--clients", "60", "--json"])
    found = json.loads(result.output)
    assert found["task"] == "digits"
    assert found["classes"] == list(range(10))
    assert len(found["clients"]) == 60
    assert found["clients"][59]["partition"] == "60/60"
    assert sum(sum(client["counts"]) for client in found["clients"]) == 1438
    assert not list(tmp_path.iterdir())
    CliRunner().invoke(data, ["show", "digits", "--json", "--picture", "here.png"])
    assert Path("here.png").is_file()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["digitz"], "did you mean"),
        (["digits", "--clients", "5000"], "5000 shares"),
        (["digits", "--option", "validation=2"], "from 0 to below 1"),
        (["digits", "--picture", "none/here.png"], "--picture FILE"),
    ],
)
def test_what_cannot_be_shown_is_said_in_one_sentence(arguments: list[str], said: str) -> None:
    result = CliRunner().invoke(data, ["show", *arguments])
    assert isinstance(result.exception, InvalidInputError)
    assert said in result.exception.message


@pytest.mark.parametrize(("clients", "classes"), [(1, 1), (10, 10), (30, 30), (31, 62), (300, 10)])
def test_a_picture_of_any_size_can_be_drawn(clients: int, classes: int) -> None:
    counts = np.random.default_rng(0).integers(0, 5, (clients, classes))
    shares = tuple(f"{number}/{clients}" for number in range(1, clients + 1))
    found = Holdings(shares, tuple(range(classes)), counts, counts.sum(axis=1) // 5)
    draw_holdings(Path("here.png"), "some", "alpha = $1", found)
    height, width, _ = imread("here.png").shape
    assert width == 1430
    assert height < 1.1 * width


def test_a_table_of_many_classes_has_bars(monkeypatch: pytest.MonkeyPatch) -> None:
    class Many(Stairs):
        """Every client has 1, 2, … 20 samples of the classes 0 to 19, but client 0 has none of class 3."""

        def load_data(self, client: ClientInfo) -> ClientData:
            assert client.partition is not None
            labels = torch.arange(20).repeat_interleave(torch.arange(20) + 1)
            labels = labels[(labels != 3) | (client.partition[0] > 0)]
            samples = TensorDataset(torch.zeros(len(labels), 1), labels)
            return ClientData(samples, samples)

    monkeypatch.setattr("fedstep.common.tasks.load_task", lambda _: Many())
    lines = CliRunner().invoke(data, ["show", "many", "--clients", "2"]).output.splitlines()
    assert lines[2].split() == ["client", "samples", "classes", "of", "class", "0", "to", "19"]
    assert lines[3].startswith("1/2     206      19       ▁▁▂ ▂")
    assert lines[4].rstrip().endswith("█")
