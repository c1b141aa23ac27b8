"""Checks of this machine: what is installed, what it trains on, whether its data are there."""

import asyncio
import platform
import time
from contextlib import ExitStack, suppress
from functools import partial
from importlib.metadata import PackageNotFoundError, version

from fedstep.client.agent import Profile
from fedstep.client.cli import prepare
from fedstep.client.cores import take_cores
from fedstep.client.device import choose_bfloat16, choose_device, describe_device
from fedstep.client.doctor.checks import Found, SkipError
from fedstep.client.doctor.patient import Patient
from fedstep.client.trainer import Trainer
from fedstep.client.work import AbandonedError, Control, Job
from fedstep.common.channel import Endpoint
from fedstep.common.errors import InvalidInputError, PreconditionError
from fedstep.common.raised import awaited
from fedstep.common.version import VERSION
from fedstep.v1 import fleet_pb2 as pb

_TRY_S = 20.0
"""The longest that a local step, or a measurement, is tried out."""

_PACKAGES = ("grpcio", "protobuf", "torch")


async def compare_versions(answer: pb.ProbeAnswer) -> Found[None]:
    """fedstep's on both sides, and what else of this one somebody would be asked for."""
    there = answer.version
    here = ", ".join(f"{package} {_version_of(package)}" for package in _PACKAGES)
    rest = f"here Python {platform.python_version()}, {here}"
    if there == VERSION:
        return Found(None, f"fedstep {VERSION} on both sides; {rest}")
    fix = f"pip install fedstep=={there}" if _parts(VERSION) < _parts(there) else f"pip install fedstep=={VERSION}"
    where = "here" if _parts(VERSION) < _parts(there) else "on the coordinator"
    text = f"fedstep {VERSION} here, {there} on the coordinator; run one on both: {where}, `{fix}`; {rest}"
    return Found(None, text, warning=True)


def _parts(text: str) -> list[int]:
    return [int(part) for part in text.split(".") if part.isdecimal()]


def _version_of(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "missing"


async def try_device(name: str | None, precision: str | None) -> Found[None]:
    """Whether something can be computed on the device.

    Args:
        name: As `--device` has it.
        precision: As `--precision` has it.

    Raises:
        InvalidInputError: There is none of that name, it does not compute so, or it is there and cannot be used.
    """
    import torch

    def compute() -> str:
        device = choose_device(name)
        words = describe_device(device, choose_bfloat16(precision, device))
        try:
            square = torch.ones(8, 8, device=device)
            assert float((square @ square).sum().item()) == 8**3
        except RuntimeError as error:
            why = str(error).splitlines()[0].rstrip(".")
            raise InvalidInputError(
                f"The device {words} is there and cannot be used ({why}): mend its driver, or give --device cpu."
            ) from error
        return words

    return Found(None, await asyncio.to_thread(compute))


class _Unheard:
    """Takes steps that nobody wants to hear of."""

    def step(self, loss: float, samples: int, step_ms: float) -> None:
        """Forgets it."""


def _try_out(trainer: Trainer) -> None:
    """One local step, and the model measured: whatever the task's own code raises there, it raises here."""
    job = Job("one step", trainer.initial(), {}, max_steps=1)
    with suppress(AbandonedError):  # it takes too long to wait for, and that is all that is known
        trainer.train(job, Control(time.monotonic() + _TRY_S), _Unheard())
        if trainer.validation_samples:
            trainer.evaluate(job, Control(time.monotonic() + _TRY_S))


async def load(patient: Patient) -> Found[Profile]:
    """Whether the task and its data are there, as a client loads them, and can be trained and measured with.

    Raises:
        SkipError: No task is given.
        InvalidInputError: The task or its data cannot be had, or there is nothing to train on.
        Exception: Whatever the task raises in a local step, or where it measures.
    """
    reference, info = patient.task, patient.info
    if reference is None:
        raise SkipError("no --task is given: give the one that the client is to train")
    with ExitStack() as held:
        set_threads = take_cores(patient.threads, held)
        made = partial(prepare, reference, info, patient.device, patient.precision, set_threads)
        profile, trainer = await asyncio.to_thread(awaited, made)
        if not profile.train_samples:
            raise InvalidInputError(
                f"The task {profile.task} has no training samples for {info.name}: give it a larger share with "
                "--partition, or other data with --data."
            )
        await asyncio.to_thread(awaited, partial(_try_out, trainer))
    counted = f"{profile.train_samples} training and {profile.validation_samples} validation samples"
    text = f"task {profile.task}: {counted}, a model of {profile.manifest.payload_bytes / 1e6:.3g} MB"
    if not profile.validation_samples:
        return Found(profile, f"{text}; without validation samples this client measures no model", warning=True)
    return Found(profile, text)


async def find_task(coordinator: Endpoint, answer: pb.ProbeAnswer, profile: Profile) -> Found[None]:
    """Whether the coordinator may run the client's task.

    Raises:
        PreconditionError: It may not.
    """
    if profile.task in answer.tasks:
        return Found(None, f"the coordinator knows the task {profile.task}")
    raise PreconditionError(
        f"The coordinator at {coordinator} does not know the task {profile.task}: start it with --task and the file or "
        f"module that is given here; it knows {', '.join(answer.tasks) or 'none'}."
    )
