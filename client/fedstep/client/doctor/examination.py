"""All the checks of `fedstep doctor`, in the order in which a client meets what they look at."""

from collections.abc import Callable
from dataclasses import dataclass

from fedstep.client.doctor import machine, network, throughput
from fedstep.client.doctor.checks import Checkup, Finding
from fedstep.common.channel import Endpoint
from fedstep.common.task import ClientInfo


@dataclass(frozen=True)
class Patient:
    """A client that is to be, as its command describes it.

    Attributes:
        coordinator: Whom it is to work for.
        task: What it is to train, as `--task` has it; None where nobody has said.
        info: Its name, its share and the task's options.
        device: As `--device` has it.
        threads: As `--threads` has it.
    """

    coordinator: Endpoint
    task: str | None
    info: ClientInfo
    device: str | None = None
    threads: int | None = None


async def examine(patient: Patient, listener: Callable[[Finding], None]) -> list[Finding]:
    """Runs every check.

    Args:
        patient: The client.
        listener: Is told of each finding at once.
    """
    checkup, there = Checkup(listener), patient.coordinator
    name = await checkup.run("name", lambda: network.resolve(there))
    reach = await checkup.run("reach", lambda: network.dial(there, name.value), name)
    tls = await checkup.run("tls", lambda: network.secure(there), reach)
    access = await checkup.run("access", lambda: network.ask(there, patient.info.name), tls)
    await checkup.run("versions", lambda: machine.compare_versions(access.value), access)
    device = await checkup.run("device", lambda: machine.try_device(patient.device))
    data = await checkup.run(
        "data", lambda: machine.load(patient.task, patient.info, patient.device, patient.threads), device
    )
    await checkup.run("task", lambda: machine.find_task(there, access.value, data.value), access, data)
    model = data.value.manifest if data.found else None
    await checkup.run("throughput", lambda: throughput.measure(there, model), access)
    return checkup.findings
