"""Lightning as a training loop of one's own: its trainer gets a callback that reports every batch.

It needs Lightning (`pip install lightning`). Try it: `fedstep client --task examples/lightning_loop.py`
"""

import lightning.pytorch as pl
import torch
from my_task import Tumours
from torch import nn
from torch.utils.data import DataLoader

from fedstep.client.lightning import step_callback


class Module(pl.LightningModule):
    """The model with its loss and its optimizer, as Lightning wants them."""

    def __init__(self, model, lr):
        """Around the model that is trained in place."""
        super().__init__()
        self.model = model
        self.lr = lr

    def training_step(self, batch, index):
        """The loss of a batch."""
        inputs, targets = batch
        return nn.functional.cross_entropy(self.model(inputs), targets)

    def configure_optimizers(self):
        """Plain SGD."""
        return torch.optim.SGD(self.parameters(), lr=self.lr)


class LightningTumours(Tumours):
    """The tumours of my_task.py, trained by Lightning."""

    name = "tumours-lightning"

    def train(self, progress, model, data, hyperparameters):
        """One `fit`."""
        shuffle = torch.Generator().manual_seed(progress.seed)
        loader = DataLoader(data.train, hyperparameters["batch_size"], shuffle=True, generator=shuffle)
        quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
        trainer = pl.Trainer(
            accelerator="gpu" if progress.device.type == "cuda" else progress.device.type,
            devices=[progress.device.index or 0] if progress.device.type == "cuda" else 1,
            max_epochs=hyperparameters["local_epochs"],
            callbacks=[step_callback(progress)],
            enable_model_summary=False,
            **quiet,
        )
        trainer.fit(Module(model, hyperparameters["lr"]), loader)


task = LightningTumours()
