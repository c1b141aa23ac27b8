"""Makes what the services of docker-compose.yml know each other by, in a folder for each; for Kubernetes as well.

A CA and the database's passwords are made once. Certificates are made anew each time, so that none ends before its
service is started again; whoever runs meanwhile goes on with the old one, which the same CA has signed.

    python credentials.py            the services' own, in the folder that FEDSTEP_SECRETS names
    python credentials.py NAME...    those of clients on other machines, in the results' folder
"""

import os
import secrets
import shutil
import sys
import tempfile
from datetime import timedelta
from pathlib import Path

from fedstep.common.errors import FedstepError
from fedstep.common.identity import Identity, Role
from fedstep.server.authority import CA_NAME, COORDINATOR_NAME, Made, enroll, make_authority, make_coordinator

ROOT = Path(os.environ.get("FEDSTEP_SECRETS", "/secrets"))
ELSEWHERE = Path(os.environ.get("FEDSTEP_ENROLLED", "/results/enrolled"))
CA_LIFETIME, LIFETIME = timedelta(days=3650), timedelta(days=365)
DATABASE_USERS = {"fedstep": "coordinator", "dashboard": "dashboard"}


def main(names: list[str]) -> None:
    """Makes everything, or certificates for these clients."""
    authority = ROOT / "authority"
    ROOT.mkdir(mode=0o700, parents=True, exist_ok=True)  # on a machine of one's own nobody else reads what is in it
    if not (authority / f"{CA_NAME}.crt").exists():
        (authority / f"{CA_NAME}.key").unlink(missing_ok=True)  # made a moment before somebody pulled the plug
        make_authority(authority, CA_LIFETIME)
    with tempfile.TemporaryDirectory() as folder:
        signing = Path(folder) / "authority"
        shutil.copytree(authority, signing)
        if names:
            for name in names:
                _publish(signing, ELSEWHERE / name, enroll(signing, Identity(Role.CLIENT, name), LIFETIME))
            print(f"In the folder of the results, enrolled: {', '.join(names)}")
            return
        _certificates(signing)
    for user, folder in DATABASE_USERS.items():
        _password(user, ROOT / folder)


def _certificates(signing: Path) -> None:
    hosts = ["coordinator", *os.environ.get("FEDSTEP_HOSTS", "").split()]
    _publish(signing, ROOT / "coordinator", make_coordinator(signing, hosts, COORDINATOR_NAME, LIFETIME))
    # The health check, which the connection does not let in without one.
    _publish(signing, ROOT / "coordinator", enroll(signing, Identity(Role.CLIENT, "health-check"), LIFETIME))
    _publish(signing, ROOT / "operator", enroll(signing, Identity(Role.OPERATOR, "operator"), LIFETIME))
    for share in range(1, int(os.environ["FEDSTEP_SHARES"]) + 1):
        _publish(signing, ROOT / "client", enroll(signing, Identity(Role.CLIENT, f"client-{share}"), LIFETIME))


def _publish(signing: Path, folder: Path, made: Made) -> None:
    """Copies a certificate, its key and the CA's certificate to where they are used."""
    for file in (signing / f"{CA_NAME}.crt", made.certificate, made.key):
        _write(folder / file.name, file.read_text(), 0o600 if file.suffix == ".key" else 0o644)


def _password(user: str, folder: Path) -> None:
    """The database reads it as it is, whoever connects as libpq has it."""
    plain, passfile = ROOT / "database" / user, folder / "pgpass"
    if not plain.exists():
        # PostgreSQL runs as another user than this one, and no container but these two has the folder.
        _write(plain, secrets.token_urlsafe(32), 0o644)
    _write(passfile, f"*:*:*:{user}:{plain.read_text()}\n", 0o600)


def _write(path: Path, text: str, mode: int) -> None:
    """All of it or nothing."""
    new = path.with_name(path.name + ".new")
    path.parent.mkdir(parents=True, exist_ok=True)
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w") as file:
        file.write(text)
    new.replace(path)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except FedstepError as error:
        sys.exit(error.message)
