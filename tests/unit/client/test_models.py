"""Torch's global generator, shared by two threads."""

import threading

import torch

from fedstep.client.models import Randomness

CPU = torch.device("cpu")


def test_draws_aside_leave_no_trace() -> None:
    randomness = Randomness()
    torch.manual_seed(1)
    expected = [torch.rand(1).item() for _ in range(3)]
    torch.manual_seed(1)
    drawn = []
    for number in range(3):
        with randomness.step():
            drawn.append(torch.rand(1).item())
        with randomness.aside(seed=number, device=CPU):
            torch.rand(5)
    assert drawn == expected


def test_quick_steps_do_not_keep_a_builder_waiting_and_nothing_gets_mixed() -> None:
    randomness = Randomness()
    torch.manual_seed(1)
    expected = [torch.rand(1).item() for _ in range(500)]
    built: list[float] = []
    done = threading.Event()

    def build() -> None:
        for _ in range(20):
            with randomness.aside(seed=7, device=CPU):
                built.append(torch.rand(1).item())
        done.set()

    torch.manual_seed(1)
    drawn: list[float] = []
    builder = threading.Thread(target=build)
    builder.start()
    while len(drawn) < 500 or not done.is_set():
        with randomness.step():
            drawn.append(torch.rand(1).item())
    builder.join()
    assert drawn[:500] == expected
    assert len(set(built)) == 1
