"""`fedstep health`, as probes call it."""

from pathlib import Path

from e2e.pki import Pki
from e2e.processes import Programs, fedstep
from e2e.test_bad_input import NOBODY, one_sentence

from fedstep.common.identity import Role


def test_a_coordinator_that_serves(tmp_path: Path, programs: Programs) -> None:
    _, address = programs.coordinator(tmp_path / "data")
    ran = fedstep("health", "--coordinator", address)
    assert (ran.code, ran.out) == (0, f"The coordinator at {address} serves.\n")
    assert fedstep("health", "--coordinator", address, "--json").json == [{"serving": True}]


def test_nobody_is_there() -> None:
    one_sentence(fedstep("health", "--coordinator", NOBODY), f"No coordinator answers at {NOBODY}")


def test_under_tls_any_certificate_of_the_ca_will_do(tmp_path: Path, programs: Programs) -> None:
    pki = Pki(tmp_path / "pki")
    own = pki.coordinator("localhost")
    tls_ca = ("--tls-ca", pki.ca.certificate)
    _, address = programs.coordinator(tmp_path / "data", *("--tls-cert", own.file, "--tls-key", own.key_file), *tls_ca)
    probe = pki.caller(Role.CLIENT, "health-check").pair
    assert probe is not None
    shown = (*tls_ca, "--tls-cert", probe.file, "--tls-key", probe.key_file)
    assert fedstep("health", "--coordinator", address, *shown).code == 0
    one_sentence(fedstep("health", "--coordinator", address), "speaks TLS only")
    one_sentence(fedstep("health", "--coordinator", address, *tls_ca), "takes only callers with a certificate")
