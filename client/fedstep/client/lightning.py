"""Lightning's trainer as a task's own training loop: a callback that reports every batch."""

import importlib
from typing import Any

from fedstep.common.errors import InvalidInputError
from fedstep.common.progress import Progress

_PACKAGES = ("lightning.pytorch", "pytorch_lightning")


def step_callback(progress: Progress) -> Any:
    """A `lightning.pytorch.Callback` for the `callbacks` of a Lightning trainer, in a task's `train`.

    After each batch it reports the loss that `training_step` returned and stops the trainer when no other step is
    wanted. A batch's samples are as many as its first tensor has rows. Give the trainer neither `min_epochs` nor
    `min_steps`: it would go on until then.

    Args:
        progress: As `Task.train` was handed it.

    Raises:
        InvalidInputError: Lightning is not installed.
    """

    class Steps(_callback_class()):  # type: ignore[misc]  # a class of a package that need not be there
        """Reports the batches of one training."""

        def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
            """Called by Lightning."""
            loss = outputs["loss"] if isinstance(outputs, dict) else outputs
            if not progress.step(loss, len(batch[0])):
                trainer.should_stop = True

    return Steps()


def _callback_class() -> Any:
    for name in _PACKAGES:
        try:
            return importlib.import_module(name).Callback
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] != name.partition(".")[0]:
                raise
    raise InvalidInputError("This task trains by Lightning, which is not installed: pip install lightning.")
