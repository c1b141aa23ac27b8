"""One real model of over 300 MB through a whole round: torchvision's ViT-B/16, to two clients and back.

python -m tests.bench large_model

The final model on the coordinator's disk is held against what the round's arithmetic must give.
"""

import json
import os
import statistics
import sys

import torch
from safetensors.torch import load_file
from torch import nn
from torch.utils.data import TensorDataset

from fedstep.api.aio import connect
from fedstep.client.vision import load_torchvision
from fedstep.common.hyperparameters import Hyperparameters
from fedstep.common.loop import run
from fedstep.common.spec_proto import spec_to_proto
from fedstep.common.task import ClientData, ClientInfo, Task
from tests.bench.fleet import EchoFleet, echo_fleet, echo_spec

CLIENTS = 2
ROUNDS = 4


class LargeTask(Task):
    """ViT-B/16 with its 86.6 million random weights; never run, only moved."""

    name = "echo"

    def build_model(self, hyperparameters: Hyperparameters) -> nn.Module:
        model: nn.Module = load_torchvision("models").vit_b_16()
        return model

    def load_data(self, client: ClientInfo) -> ClientData:
        nothing = TensorDataset(torch.zeros(1), torch.zeros(1))
        return ClientData(nothing, nothing)


task = LargeTask()


async def rounds(fleet: EchoFleet) -> tuple[list[float], str]:
    """The rounds' seconds and the final model's path."""
    spec = echo_spec(CLIENTS, ROUNDS)
    seconds = []
    async with connect(fleet.address) as remote:
        await remote.create(spec_to_proto(spec))
        async for event in remote.watch(spec.name, lambda error: None):
            if event.kind == "round_committed":
                seconds += [event.details.fields["seconds"].number_value]
        return seconds, (await remote.get(spec.name)).result.model_path


def main(arguments: list[str]) -> None:
    """Prints the model's size, the rounds' seconds and whether the model is right."""
    os.environ["FEDSTEP_BENCH_TASK"] = "tests/bench/large_model.py"
    with echo_fleet(CLIENTS, 0) as fleet:
        seconds, path = run(rounds(fleet))
        final = load_file(path)
    torch.manual_seed(0)
    expected = {name: tensor.clone() for name, tensor in task.build_model({}).state_dict().items()}
    for _ in range(ROUNDS):
        for tensor in expected.values():
            tensor.add_(tensor, alpha=1e-3)
    right = all(torch.allclose(final[name], tensor, rtol=1e-6) for name, tensor in expected.items())
    size = sum(tensor.numel() * tensor.element_size() for tensor in final.values())
    print(
        json.dumps(
            {
                "megabytes": round(size / 1e6, 1),
                "clients": CLIENTS,
                "round_s": round(statistics.median(seconds), 3),
                "rounds": [round(s, 3) for s in seconds],
                "right": right,
            }
        )
    )
    if not right:
        sys.exit("the final model is not what the rounds should have made")
