"""What stands in TensorBoard's event files."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.tensorboard import SummaryWriter

from contract.store_kit import trial
from fedstep.server.metrics.tensorboard import run_name, write_round


def test_a_round_is_scalars_choices_are_texts_and_what_is_not_finite_is_left_out(tmp_path: Path) -> None:
    writer = SummaryWriter(str(tmp_path))
    point = {"lr": 0.25, "nesterov": True, "batch_size": 16, "optimizer": "adam"}
    write_round(writer, 7, 0.5, {"loss": 1.5, "train_loss": math.nan}, {"seconds": 2.0, "updates": 3}, point)
    write_round(writer, 8, None, {}, {"seconds": 1.0, "updates": 2}, {})
    writer.close()
    found = EventAccumulator(str(tmp_path))
    found.Reload()
    read = {(tag, event.step): event.value for tag in found.Tags()["scalars"] for event in found.Scalars(tag)}
    assert read == pytest.approx(
        {
            ("objective", 7): 0.5,
            ("metrics/loss", 7): 1.5,
            ("round/seconds", 7): 2.0,
            ("round/updates", 7): 3.0,
            ("hyperparameters/lr", 7): 0.25,
            ("hyperparameters/nesterov", 7): 1.0,
            ("hyperparameters/batch_size", 7): 16.0,
            ("round/seconds", 8): 1.0,
            ("round/updates", 8): 2.0,
        }
    )
    assert [tag for tag in found.Tags()["tensors"] if tag.startswith("hyperparameters/optimizer")]


@pytest.mark.parametrize(
    ("details", "name"),
    [
        ({}, "trials/0003"),
        ({"phase": "fork", "parents": [2]}, "arms/0003-fork"),
        ({"phase": "member 4"}, "arms/0003-member-4"),
        ({"parents": [2]}, "arms/0003-arm"),
    ],
)
def test_a_trial_is_a_run_and_an_arm_says_what_it_is_for(details: dict[str, object], name: str) -> None:
    assert run_name(replace(trial(3), details=details)) == name
