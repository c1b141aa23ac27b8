"""`fedstep fleet`: who is there."""

import click

from fedstep.api.aio import connect
from fedstep.common.channel import Endpoint
from fedstep.common.loop import run as run_loop
from fedstep.server.cli.show import coordinator_option, enum_word, json_option, print_json, print_table
from fedstep.v1 import study_pb2


@click.group()
def fleet() -> None:
    """See the clients of a coordinator."""


@fleet.command(name="list")
@coordinator_option
@json_option
def list_clients(coordinator: Endpoint, as_json: bool) -> None:
    """Every client ever heard of: state, device, data, updates, faults, pace."""

    async def every() -> None:
        async with connect(coordinator.address, coordinator.security) as remote:
            clients = await remote.clients()
        if as_json:
            for client in clients:
                print_json(client)
            return
        print_table(
            [
                "client",
                "state",
                "task",
                "device",
                "train",
                "validation",
                "updates",
                "faults",
                "step",
                "down, up",
                "note",
            ],
            (
                [
                    client.name,
                    enum_word(client.state, study_pb2.ClientState),
                    client.task,
                    client.device,
                    str(client.train_samples),
                    str(client.validation_samples),
                    str(client.updates_accepted),
                    str(client.faults),
                    _step(client.pace),
                    _rates(client.pace),
                    client.message,
                ]
                for client in clients
            ),
            f"No client has come to {coordinator} yet: fedstep client --coordinator {coordinator} --task digits.",
        )

    run_loop(every())


def _step(pace: study_pb2.Pace) -> str:
    """What a local step takes, and on how large a batch."""
    return f"{pace.step_ms:.3g} ms of {pace.batch_size}" if pace.step_ms else ""


def _rates(pace: study_pb2.Pace) -> str:
    """How fast models come and updates go; a dash where that is not known."""
    rates = (pace.download_bytes_per_second, pace.upload_bytes_per_second)
    return ", ".join(f"{rate / 1e6:.3g} MB/s" if rate else "–" for rate in rates) if any(rates) else ""
