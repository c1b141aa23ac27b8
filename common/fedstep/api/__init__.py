"""Steering a coordinator from Python: studies created, watched, paused and read, and their models downloaded.

    from fedstep.api import connect

    with connect("host:7433") as fedstep:
        study = fedstep.create("study.toml").watch()
        study.download("model.safetensors")
        print(study.best.hyperparameters)

`fedstep.api.aio` is the same for programs with an event loop, in the protocol's own messages. Errors are those of
`fedstep.common.errors`. Neither needs a coordinator's packages, nor torch.
"""

from fedstep.api.client import Fedstep, Study, connect
from fedstep.api.model_file import Downloaded
from fedstep.api.values import Event, Result, Trial

__all__ = ["Downloaded", "Event", "Fedstep", "Result", "Study", "Trial", "connect"]
