import pytest
import torch
from torch import nn

from fedstep.client.sgd import PlainSGD


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("weight_decay", [0.0, 0.01])
def test_it_is_torchs_bit_for_bit(momentum: float, weight_decay: float) -> None:
    torch.manual_seed(0)
    ours, theirs, unused = nn.Linear(5, 3), nn.Linear(5, 3), nn.Parameter(torch.ones(2))
    theirs.load_state_dict(ours.state_dict())
    plain = PlainSGD([*ours.parameters(), unused], 0.1, momentum, weight_decay)
    torchs = torch.optim.SGD(theirs.parameters(), lr=0.1, momentum=momentum, weight_decay=weight_decay)
    for _ in range(5):
        inputs = torch.randn(4, 5)
        for model, optimizer in ((ours, plain), (theirs, torchs)):
            model.zero_grad()
            model(inputs).square().sum().backward()
            optimizer.step()
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(mine, other)
    assert torch.equal(unused, torch.ones(2))
