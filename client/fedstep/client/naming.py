"""What a client is called when nobody says."""

import getpass
import os
import socket
from contextlib import ExitStack
from pathlib import Path

from fedstep.client.claims import claim_number, common_folder

_MOST = 1000


def default_name(partition: tuple[int, int] | None, held: ExitStack, folder: Path | None = None) -> str:
    """A name that is the same after a restart and differs from the other clients' on this machine.

    With a partition it is the host's name and the share's number: `laptop-3`. Without one it is the host's name for
    the first client, `laptop-2` for the second and so on: the first that no running client holds.

    Args:
        partition: The client's share as (index, count), counted from 0.
        held: Keeps the name for as long as it is open.
        folder: Where running clients note which name they hold; the machine's temporary folder unless given.
    """
    host = socket.gethostname() or "client"
    if partition is not None:
        return f"{host}-{partition[0] + 1}"
    at, user = folder or common_folder(), user_name()

    def name_of(number: int) -> str:
        return host if number == 1 else f"{host}-{number}"

    number = claim_number(lambda number: at / f"fedstep-{user}-{name_of(number)}.lock", _MOST, held)
    return name_of(number or 1)  # without a claim the coordinator will say so if the name is taken


def user_name() -> str:
    """Whose files in a common folder they are: two users of a machine cannot write each other's."""
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):  # an id without a name, as in a container; no such thing as ids
        return str(os.getuid()) if hasattr(os, "getuid") else "anybody"
