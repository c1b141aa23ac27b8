"""Step reports into the coordinator: kept, watched for divergence, and stored with their round.

python -m tests.bench steps [--clients 8] [--steps 150000] [--runs 3]

Each client is a bare control stream in one of two processes; it reports its steps in batches of 100, as fast as the
coordinator takes them. `into` is the time until all have been taken in; `stored`, until the round that they belong to
is committed with every step in the database.
"""

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import time

import torch

from fedstep.api.aio import connect
from fedstep.common import wire
from fedstep.common.channel import open_channel
from fedstep.common.loop import run
from fedstep.common.spec_proto import spec_to_proto
from fedstep.common.tensors import Manifest, as_bytes, checksum
from fedstep.v1 import fleet_pb2, study_pb2
from tests.bench.echo import task
from tests.bench.fleet import ROOT, echo_fleet, echo_spec
from tests.bench.probe import Probe, probe

BATCH = 100
MEGABYTES = 0.01
PROCESSES = 2


async def one_client(address: str, name: str, steps: int) -> tuple[float, float]:
    """Reports and pushes; answers with when it began and when the last report had been taken in."""
    manifest = Manifest.of(task.build_model({}).state_dict())
    async with probe(address, name, manifest, samples=1) as control:
        assignment = (await control.read("assignment")).assignment
        batches = [
            fleet_pb2.StepReport(
                ref=assignment.ref, first_step=first, loss=[1.0] * BATCH, samples=[16] * BATCH, step_ms=[5.0] * BATCH
            )
            for first in range(0, steps, BATCH)
        ]
        began = time.time()
        for batch in batches:
            await control.report(batch)
        await control.round_trip()
        ended = time.time()
        await push(address, control, assignment.ref, manifest)
        return began, ended


async def push(address: str, control: Probe, ref: fleet_pb2.AssignmentRef, manifest: Manifest) -> None:
    """The smallest update there is, so that the round can end."""
    update = torch.zeros(manifest.elements)
    header = fleet_pb2.UpdateHeader(
        session_id=control.session_id,
        ref=ref,
        checksum=checksum(update),
        payload_bytes=manifest.update_bytes,
        summary=fleet_pb2.TrainingSummary(samples=1, steps=1, loss=1.0),
    )
    async with open_channel(address) as channel:
        call = channel.stream_unary(
            "/fedstep.v1.FleetService/PushUpdate",
            request_serializer=wire.serialize,
            response_deserializer=fleet_pb2.PushUpdateResponse.FromString,
        )()
        await call.write(fleet_pb2.PushUpdateRequest(header=header))
        for frame in wire.frames(as_bytes(update)):
            await call.write(frame)
        await call.done_writing()
        assert (await call).accepted


async def some_clients(address: str, names: list[str], steps: int) -> None:
    """The clients of one process."""
    spans = await asyncio.gather(*(one_client(address, name, steps) for name in names))
    print(json.dumps({"began": min(a for a, _ in spans), "ended": max(b for _, b in spans)}))


async def one_round(address: str, clients: int, steps: int) -> tuple[float, float, int]:
    """Seconds until all steps were taken in, until they were committed, and how many are in the database."""
    spec = echo_spec(clients, 1)
    async with connect(address) as remote:
        await remote.create(spec_to_proto(spec))
        names = [[f"stream-{i}" for i in range(p, clients, PROCESSES)] for p in range(PROCESSES)]
        programs = [
            subprocess.Popen(  # noqa: ASYNC220  # started before anything is measured
                [sys.executable, "-m", "tests.bench.steps", address, str(steps), *some],
                stdout=subprocess.PIPE,
                cwd=ROOT,
            )
            for some in names
        ]
        committed = 0.0
        async for event in remote.watch(spec.name, lambda error: None):
            if event.kind == "round_committed":
                committed = time.time()
        said = [json.loads(program.communicate()[0]) for program in programs]
        stored = 0
        async for answer in remote.steps(study_pb2.ListStepsRequest(study=spec.name)):
            stored += len(answer.steps.loss)
    began, ended = min(s["began"] for s in said), max(s["ended"] for s in said)
    return ended - began, committed - began, stored


def main(arguments: list[str]) -> None:
    """Prints rates."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench steps")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--steps", type=int, default=150_000)
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args(arguments)
    total = options.clients * options.steps
    os.environ["FEDSTEP_ECHO_MB"] = str(MEGABYTES)  # of the processes that report, too
    rates = []
    for number in range(1, options.runs + 1):
        with echo_fleet(0, MEGABYTES) as fleet:
            into_s, committed_s, stored = run(one_round(fleet.address, options.clients, options.steps))
        assert stored == total, f"{stored} of {total} steps are in the database"
        rates.append(total / into_s)
        print(
            f"run {number}: {total:,} steps: into the coordinator at {total / into_s:,.0f} a second, "
            f"stored at {total / committed_s:,.0f} a second",
            flush=True,
        )
    print(f"into: median {statistics.median(rates):,.0f} a second ({min(rates):,.0f} to {max(rates):,.0f})")


if __name__ == "__main__":
    run(some_clients(sys.argv[1], sys.argv[3:], int(sys.argv[2])))
