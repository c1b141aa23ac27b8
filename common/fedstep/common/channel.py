"""gRPC settings that both sides must agree on."""

import json
from dataclasses import dataclass

import grpc
import grpc.aio

from fedstep.common.errors import InvalidInputError
from fedstep.common.security import PLAIN, Security

MAX_MESSAGE_BYTES = 8 << 20
"""The largest single message either side takes; payloads travel in chunks well below it."""

DEFAULT_PORT = 7433
"""Where a coordinator listens unless told otherwise."""

_KEEPALIVE_MS = 20_000

_COMMON: list[tuple[str, int | str]] = [
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.keepalive_time_ms", _KEEPALIVE_MS),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.http2.bdp_probe", 0),
    ("grpc.http2.lookahead_bytes", 1 << 20),
]

SERVER_OPTIONS: list[tuple[str, int | str]] = [
    *_COMMON,
    # Agrees with the clients' keepalive: a server that thinks the pings too many cuts the connection.
    ("grpc.http2.min_ping_interval_without_data_ms", _KEEPALIVE_MS // 2),
    ("grpc.so_reuseport", 0),
]


@dataclass(frozen=True)
class Endpoint:
    """A coordinator, as a command is told of it.

    Attributes:
        address: `HOST:PORT`.
        security: How it is known, and what is shown to it.
    """

    address: str
    security: Security = PLAIN

    @property
    def host_and_port(self) -> tuple[str, int]:
        """The two parts of `HOST:PORT`; an IPv6 address without its brackets.

        Raises:
            ValueError: It has no port: a Unix socket's.
        """
        host, _, port = self.address.rpartition(":")
        return host.strip("[]"), int(port)

    def __str__(self) -> str:
        return self.address


def check_address(address: str) -> None:
    """Raises unless it is `HOST:PORT`.

    Raises:
        InvalidInputError: It is not.
    """
    if not isinstance(address, str):
        raise InvalidInputError(f"{address} is no address of a coordinator: give HOST:PORT as a text.")
    host, _, port = address.rpartition(":")
    scheme, divider, _ = address.partition("://")
    if divider:
        fix = f"leave {scheme}{divider} out"
    elif not host or not port.isdecimal() or not 0 < int(port) < 65536:
        fix = "give one such as 192.168.1.5:7433"
    else:
        return
    raise InvalidInputError(f"The coordinator's address {address} is not HOST:PORT: {fix}.")


_SERVICE_CONFIG = {
    "methodConfig": [
        {
            "name": [{"service": "fedstep.v1.StudyService"}, {"service": "fedstep.v1.RunService"}],
            "retryPolicy": {
                "maxAttempts": 4,
                "initialBackoff": "0.2s",
                "maxBackoff": "2s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ]
}

_CALLER_OPTIONS: list[tuple[str, int | str]] = [
    *_COMMON,
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_retries", 1),
    ("grpc.service_config", json.dumps(_SERVICE_CONFIG)),
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 5_000),
]


def open_channel(address: str, security: Security = PLAIN) -> grpc.aio.Channel:
    """A channel on a connection of its own; connecting starts with the first call.

    A client opens two: one for the control stream, one for bulk, so that neither delays the other.

    Args:
        address: `HOST:PORT`.
        security: How the coordinator is known, and what is shown to it.

    Raises:
        InvalidInputError: The address is another kind of text.
    """
    check_address(address)
    credentials = security.credentials()
    if credentials is None:
        return grpc.aio.insecure_channel(address, options=_CALLER_OPTIONS)
    return grpc.aio.secure_channel(address, credentials, options=_CALLER_OPTIONS)


def open_blocking_channel(address: str, security: Security = PLAIN) -> grpc.Channel:
    """The same for programs without an event loop, or with one of their own that is not to be blocked.

    Args:
        address: `HOST:PORT`.
        security: How the coordinator is known, and what is shown to it.

    Raises:
        InvalidInputError: The address is another kind of text.
    """
    check_address(address)
    credentials = security.credentials()
    if credentials is None:
        return grpc.insecure_channel(address, options=_CALLER_OPTIONS)
    return grpc.secure_channel(address, credentials, options=_CALLER_OPTIONS)
