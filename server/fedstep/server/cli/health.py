"""`fedstep health`: whether a coordinator serves, for probes of Docker, Kubernetes and systemd."""

import click
import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from fedstep.common.channel import Endpoint, open_channel
from fedstep.common.errors import UnavailableError, from_rpc
from fedstep.common.handshake import why_not
from fedstep.common.loop import run as run_loop
from fedstep.server.cli.show import coordinator_option, json_option, print_json

TIMEOUT_S = 5.0


@click.command()
@coordinator_option
@json_option
def health(coordinator: Endpoint, as_json: bool) -> None:
    """Ask a coordinator whether it serves, by gRPC's own health check; exits 0 when it does.

    Any certificate that the coordinator's CA has signed will do, and no token is needed.
    """
    run_loop(_ask(coordinator))
    print_json({"serving": True}) if as_json else print(f"The coordinator at {coordinator} serves.")


async def _ask(coordinator: Endpoint) -> None:
    """Returns when it serves.

    Raises:
        UnavailableError: It does not, or nobody answers.
        UntrustedError: It is not the one that was meant.
        UnauthenticatedError: It does not take this caller.
    """
    async with open_channel(coordinator.address, coordinator.security) as channel:
        stub: health_pb2_grpc.HealthAsyncStub = health_pb2_grpc.HealthStub(channel)
        try:
            answer = await stub.Check(health_pb2.HealthCheckRequest(), timeout=TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            fault = await why_not(coordinator.address, coordinator.security)
            raise fault or from_rpc(error, coordinator.address) from None
    if answer.status != health_pb2.HealthCheckResponse.SERVING:
        raise UnavailableError(f"The coordinator at {coordinator} has not started yet, or is stopping: ask again.")
