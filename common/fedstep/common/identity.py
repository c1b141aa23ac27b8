"""Who a certificate says somebody is: a role and a name, as one URI in it."""

from dataclasses import dataclass
from enum import StrEnum
from urllib.parse import quote, unquote

_SCHEME = "fedstep://"
MAX_NAME_LENGTH = 128
"""Of a client's name, and of an operator's."""


class Role(StrEnum):
    """What somebody may be to a coordinator."""

    CLIENT = "client"
    """Trains."""
    OPERATOR = "operator"
    """Runs studies and looks at the fleet."""


@dataclass(frozen=True)
class Identity:
    """Somebody whom a coordinator knows.

    Attributes:
        role: What they may do.
        name: What they are enrolled as; None where a token says the role and nothing else.
    """

    role: Role
    name: str | None

    def __str__(self) -> str:
        return f"{self.role} {self.name}" if self.name else f"known by a token of the role {self.role}"


def uri_of(identity: Identity) -> str:
    """The URI that stands in a certificate, such as `fedstep://client/hospital-3`."""
    assert identity.name
    return f"{_SCHEME}{identity.role}/{quote(identity.name, safe='')}"


def identity_of(uris: list[str]) -> Identity | None:
    """Whom a certificate names, by its URIs; None where it is nobody, or more than one."""
    ours = [uri for uri in uris if uri.startswith(_SCHEME)]
    if len(ours) != 1:
        return None
    role, _, name = ours[0].removeprefix(_SCHEME).partition("/")
    if role not in list(Role) or not name or quote(unquote(name), safe="") != name:
        return None
    return Identity(Role(role), unquote(name))
