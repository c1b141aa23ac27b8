"""`fedstep fleet`: who is there."""

import click

from fedstep.api.aio import connect
from fedstep.common.channel import Endpoint
from fedstep.common.loop import run as run_loop
from fedstep.server.cli.show import coordinator_option, enum_word, json_option, print_json, print_table
from fedstep.server.report.units import seconds_text
from fedstep.v1 import study_pb2


@click.group()
def fleet() -> None:
    """See the clients of a coordinator, and give one no more work."""


@fleet.command(name="list")
@coordinator_option
@json_option
def list_clients(coordinator: Endpoint, as_json: bool) -> None:
    """Every client ever heard of: state, device, data, updates, faults, pace."""

    async def every() -> None:
        async with connect(coordinator.address, coordinator.security) as fedstep:
            clients = await fedstep.clients()
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
                    step_text(client.pace),
                    _rates(client.pace),
                    "drained: it is given nothing new" if client.drained else client.message,
                ]
                for client in clients
            ),
            f"No client has come to {coordinator} yet: fedstep client --coordinator {coordinator} --task digits.",
        )

    run_loop(every())


@fleet.command()
@click.argument("client")
@coordinator_option
@json_option
def drain(client: str, coordinator: Endpoint, as_json: bool) -> None:
    """Have CLIENT finish what it has, and give it nothing new.

    Until `fedstep fleet undrain`, or until it leaves: a client that is started again is asked as ever. A coordinator
    that is started again does not remember it.
    """

    async def one() -> None:
        async with connect(coordinator.address, coordinator.security) as fedstep:
            found = await fedstep.drain(client)
        working = found.state == study_pb2.CLIENT_STATE_WORKING
        rest = "finishes what it has and is then idle" if working else "has nothing to do"
        print_json(found) if as_json else print(f"Client {client} is given nothing new; it {rest}.")

    run_loop(one())


@fleet.command()
@click.argument("client")
@coordinator_option
@json_option
def undrain(client: str, coordinator: Endpoint, as_json: bool) -> None:
    """Give CLIENT work again."""

    async def one() -> None:
        async with connect(coordinator.address, coordinator.security) as fedstep:
            found = await fedstep.undrain(client)
        print_json(found) if as_json else print(f"Client {client} is given work again.")

    run_loop(one())


def step_text(pace: study_pb2.Pace) -> str:
    """What a local step takes, and on how large a batch."""
    if not pace.step_ms:
        return ""
    took = f"{pace.step_ms:.3g} ms" if pace.step_ms < 999.5 else seconds_text(pace.step_ms / 1000)
    return f"{took} of {pace.batch_size}"


def _rates(pace: study_pb2.Pace) -> str:
    """How fast models come and updates go; a dash where that is not known."""
    rates = (pace.download_bytes_per_second, pace.upload_bytes_per_second)
    return ", ".join(f"{rate / 1e6:.3g} MB/s" if rate else "–" for rate in rates) if any(rates) else ""
