"""A training loop of one's own: fedstep hears of every step by the two lines at its end, and so can stop it.

Try it: `fedstep client --task examples/own_loop.py`
"""

import torch
from my_task import Tumours
from torch import nn
from torch.utils.data import DataLoader


class OwnLoop(Tumours):
    """The tumours of my_task.py, trained by a loop with a learning rate that warms up."""

    name = "tumours-own-loop"
    defaults = {**Tumours.defaults, "warm_up": 5}  # noqa: RUF012

    def train(self, progress, model, data, hyperparameters):
        """Trains the model in place until there is nothing left to do, or no more is wanted."""
        optimizer = torch.optim.Adam(model.parameters(), lr=hyperparameters["lr"])
        warm_up = torch.optim.lr_scheduler.LinearLR(optimizer, total_iters=hyperparameters["warm_up"])
        shuffle = torch.Generator().manual_seed(progress.seed)
        for _ in range(hyperparameters["local_epochs"]):
            for inputs, targets in DataLoader(data.train, hyperparameters["batch_size"], True, generator=shuffle):
                optimizer.zero_grad()
                loss = nn.functional.cross_entropy(model(inputs.to(progress.device)), targets.to(progress.device))
                loss.backward()
                optimizer.step()
                warm_up.step()
                if not progress.step(loss, len(targets)):
                    return


task = OwnLoop()
