"""All the checks of `fedstep doctor`, in the order in which a client meets what they look at."""

from collections.abc import Callable

from fedstep.client.doctor import machine, network, throughput
from fedstep.client.doctor.checks import Checkup, Finding
from fedstep.client.doctor.patient import Patient


async def examine(
    patient: Patient, listener: Callable[[Finding], None], begins: Callable[[str], None] = lambda check: None
) -> list[Finding]:
    """Runs every check.

    Args:
        patient: The client.
        listener: Is told of each finding at once.
        begins: Is told of each check that begins.
    """
    checkup, there = Checkup(listener, begins), patient.coordinator
    name = await checkup.run("name", lambda: network.resolve(there))
    reach = await checkup.run("reach", lambda: network.dial(there, name.value), name)
    needs = () if patient.unusable else (reach,)
    tls = await checkup.run("tls", lambda: network.secure(there, patient.unusable), *needs)
    access = await checkup.run("access", lambda: network.ask(there, patient.info.name), tls)
    await checkup.run("versions", lambda: machine.compare_versions(access.value), access)
    device = await checkup.run("device", lambda: machine.try_device(patient.device, patient.precision))
    data = await checkup.run("data", lambda: machine.load(patient), device)
    await checkup.run("task", lambda: machine.find_task(there, access.value, data.value), access, data)
    model = data.value.manifest if data.found else None
    await checkup.run("throughput", lambda: throughput.measure(there, model), access)
    return checkup.findings
