"""Who is examined."""

from dataclasses import dataclass

from fedstep.common.channel import Endpoint
from fedstep.common.errors import FedstepError
from fedstep.common.task import ClientInfo


@dataclass(frozen=True)
class Patient:
    """A client that is to be, as its command describes it.

    Attributes:
        coordinator: Whom it is to work for.
        task: What it is to train, as `--task` has it; None where nobody has said.
        info: Its name, its share and the task's options.
        device: As `--device` has it.
        precision: As `--precision` has it.
        threads: As `--threads` has it.
        unusable: Why its certificate, key or token cannot be used; None where they can be.
    """

    coordinator: Endpoint
    task: str | None
    info: ClientInfo
    device: str | None = None
    precision: str | None = None
    threads: int | None = None
    unusable: FedstepError | None = None
