"""The guide's way from nothing to a protected federation, by the commands alone."""

from pathlib import Path

from e2e.processes import Programs, Ran, connected, fedstep
from e2e.studies import write_study


def test_from_nothing_to_a_study_under_tls(tmp_path: Path, programs: Programs) -> None:
    pki = tmp_path / "fedstep-pki"
    assert fedstep("pki", "init", "coordinator.example", cwd=tmp_path).code == 0
    assert fedstep("pki", "enroll", "hospital-3", "--role", "client", cwd=tmp_path).code == 0
    assert fedstep("pki", "enroll", "anna", "--role", "operator", cwd=tmp_path).code == 0

    _, listening = programs.coordinator(
        tmp_path / "data",
        *("--host", "0.0.0.0", "--tls-cert", pki / "coordinator.crt", "--tls-key", pki / "coordinator.key"),
        *("--tls-ca", pki / "ca.crt"),
    )
    address = listening.replace("0.0.0.0", "localhost")

    def showing(role: str, name: str) -> tuple[str | Path, ...]:
        folder = pki / role
        return ("--tls-ca", pki / "ca.crt", "--tls-cert", folder / f"{name}.crt", "--tls-key", folder / f"{name}.key")

    # The client is called what its certificate says.
    client = programs.start(
        *("client", "--coordinator", address, "--task", "digits", "--partition", "1/8", "--threads", "1"),
        *showing("client", "hospital-3"),
    )
    connected(client)
    assert client.says("as hospital-3")

    options = showing("operator", "anna")
    variables = {
        "FEDSTEP_COORDINATOR": address,
        **{f"FEDSTEP_TLS_{name}": str(options[at]) for name, at in (("CA", 1), ("CERT", 3), ("KEY", 5))},
    }
    study = write_study(tmp_path / "s.toml", task="digits", space={"lr": {"low": 0.01, "high": 0.1}})
    ran = fedstep("study", "run", study, "--json", variables=variables)
    assert ran.code == 0, ran
    assert ran.json[-1]["state"] == "STUDY_STATE_COMPLETED"
    for command in (("study", "list"), ("study", "explain", "s"), ("fleet", "list")):
        assert fedstep(*command, variables=variables).code == 0, command
    # An option goes before its variable.
    refused(fedstep("fleet", "list", *showing("client", "hospital-3"), variables=variables), "for the role operator")
    refused(fedstep("fleet", "list", "--coordinator", address), "speaks TLS only", "--tls-ca")


def test_callers_known_by_tokens(tmp_path: Path, programs: Programs) -> None:
    pki = tmp_path / "fedstep-pki"
    fedstep("pki", "init", "coordinator.example", cwd=tmp_path)
    made = [fedstep("pki", "token", tmp_path / name) for name in ("client.token", "operator.token")]
    assert [ran.code for ran in made] == [0, 0]
    token = (tmp_path / "operator.token").read_text().strip()
    assert token not in made[1].out + made[1].err
    coordinator, address = programs.coordinator(
        tmp_path / "data",
        *("--tls-cert", pki / "coordinator.crt", "--tls-key", pki / "coordinator.key", "-v"),
        *("--client-token-file", tmp_path / "client.token", "--operator-token-file", tmp_path / "operator.token"),
    )
    ask = ("fleet", "list", "--coordinator", address, "--tls-ca", pki / "ca.crt")
    assert fedstep(*ask, variables={"FEDSTEP_TOKEN": token}).code == 0
    assert fedstep(*ask, "--token-file", tmp_path / "operator.token").code == 0
    refused(fedstep(*ask, "--token-file", tmp_path / "client.token"), "for the role operator")
    refused(fedstep(*ask, variables={"FEDSTEP_TOKEN": "x" * 40}), "no such token")
    refused(fedstep(*ask[:-2], variables={"FEDSTEP_TOKEN": token}), "over TLS only")
    assert token not in coordinator.out + coordinator.err
    assert "refused" in coordinator.err


def test_a_coordinator_off_loopback_starts_protected_or_aloud(tmp_path: Path, programs: Programs) -> None:
    everywhere = ("coordinator", "--host", "0.0.0.0", "--port", "0", "--data-dir", tmp_path / "data")
    refused(fedstep(*everywhere), "0.0.0.0:0", "without TLS", "fedstep pki init", "--insecure")
    assert not (tmp_path / "data").exists()
    fedstep("pki", "init", "coordinator.example", cwd=tmp_path)
    pki = tmp_path / "fedstep-pki"
    encrypted = ("--tls-cert", pki / "coordinator.crt", "--tls-key", pki / "coordinator.key")
    refused(fedstep(*everywhere, *encrypted), "without knowing who calls", "--tls-ca", "--insecure")
    open_to_all = programs.start(*everywhere, "--insecure")
    open_to_all.until(lambda p: p.says("OPEN to whoever reaches that address"), "it listens, and says what that means")


def refused(ran: Ran, *words: str) -> None:
    """It ended with one sentence that holds these words."""
    assert ran.code == 2, ran
    assert ran.err.startswith("fedstep: "), ran
    assert len(ran.err.splitlines()) == 1, ran
    for word in words:
        assert word in ran.err, ran
