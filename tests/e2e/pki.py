"""A certificate authority in a test's folder, and what is made with it."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

from fedstep.common.errors import InvalidInputError
from fedstep.common.identity import Identity, Role
from fedstep.common.security import Security
from fedstep.common.tls import Pair, read_authorities, read_pair
from fedstep.server.api.access import Tokens
from fedstep.server.authority import Made, enroll, make_authority, make_coordinator
from fedstep.server.protection import Protection

DAY = timedelta(days=1)
PAST = timedelta(minutes=-1)
"""A lifetime that is over when the certificate is made."""
TOKENS = {Role.CLIENT: "client-" + "c" * 32, Role.OPERATOR: "operator-" + "o" * 32}


class Pki:
    """A CA.

    Args:
        folder: Where its files are made.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ca = make_authority(folder, 10 * DAY)
        self._coordinators = 0

    def coordinator(self, *hosts: str, lifetime: timedelta = DAY) -> Pair:
        self._coordinators += 1
        return pair_of(make_coordinator(self.folder, hosts, f"coordinator-{self._coordinators}", lifetime))

    def protection(self, tokens: bool = False) -> Protection:
        """TLS, with callers known by certificates or by TOKENS."""
        if tokens:
            return Protection(self.coordinator(), tokens=Tokens({role: [token] for role, token in TOKENS.items()}))
        return Protection(self.coordinator(), read_authorities(self.ca.certificate))

    def caller(self, role: Role, name: str, lifetime: timedelta = DAY) -> Security:
        """Somebody with a certificate."""
        made = enroll(self.folder, Identity(role, name), lifetime)
        return Security(read_authorities(self.ca.certificate), pair_of(made))

    def stranger(self, token: str | None = None) -> Security:
        """Somebody without one."""
        return Security(read_authorities(self.ca.certificate), token=token)


def pair_of(made: Made) -> Pair:
    """As `read_pair` does, but one that has expired is taken too."""
    try:
        return read_pair(made.certificate, made.key)
    except InvalidInputError:
        in_time = datetime.now(UTC) + DAY
        return Pair(made.certificate.read_bytes(), made.key.read_bytes(), made.certificate, made.key, in_time, None)
