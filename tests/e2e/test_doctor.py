"""`fedstep doctor`, at coordinators that are well and at all that may be wrong: real sockets, real TLS."""

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import grpc.aio
import pytest
from e2e.inside import inside
from e2e.pki import PAST, TOKENS, Pki
from e2e.processes import ROOT, Programs, fedstep
from e2e.tunnels import tunnels

from fedstep.client.doctor import machine, network, throughput
from fedstep.client.doctor.checks import Finding, SkipError, Status
from fedstep.client.doctor.examination import Patient, examine
from fedstep.common.channel import Endpoint
from fedstep.common.errors import UnavailableError
from fedstep.common.identity import Role
from fedstep.common.security import PLAIN, Security
from fedstep.common.task import ClientInfo
from fedstep.common.tasks import load_task
from fedstep.common.tls import read_authorities
from fedstep.server.api import probe
from fedstep.server.protection import Protection
from fedstep.v1 import fleet_pb2 as pb
from fedstep.v1 import fleet_pb2_grpc

CHECKS = ["name", "reach", "tls", "access", "versions", "device", "data", "task", "throughput"]
MY_TASK = str(ROOT / "examples" / "my_task.py")
OK, WARNING, FAILED, SKIPPED = Status.OK, Status.WARNING, Status.FAILED, Status.SKIPPED


@pytest.fixture
def pki(tmp_path: Path) -> Pki:
    return Pki(tmp_path / "pki")


@pytest.fixture(autouse=True)
def a_little(monkeypatch: pytest.MonkeyPatch) -> None:
    """No need to move much."""
    monkeypatch.setattr(throughput, "MOST_BYTES", 1 << 20)


async def examined(
    address: str, security: Security = PLAIN, task: str | None = None, name: str = "ann"
) -> dict[str, Finding]:
    """What the doctor finds, by check."""
    told: list[Finding] = []
    patient = Patient(Endpoint(address, security), task, ClientInfo(name, (0, 2)), "cpu")
    findings = await examine(patient, told.append)
    assert told == findings
    assert [finding.check for finding in findings] == CHECKS
    for finding in findings:
        assert "\n" not in finding.text
        assert finding.status is not FAILED or (finding.text.endswith((".", "?")) and ": " in finding.text)
    return {finding.check: finding for finding in findings}


def fails(found: dict[str, Finding], check: str, *words: str) -> None:
    """Asserts that it is this check that fails, that the fix is named, and that what builds on it is passed over."""
    way = CHECKS[: CHECKS.index("device")]
    assert found[check].status is FAILED, found
    for word in words:
        assert word in found[check].text
    for later in [*way[way.index(check) + 1 :], "task", "throughput"]:
        assert found[later] == Finding(later, SKIPPED, f"it needs what the check {check} finds")
    assert all(found[earlier].status in (OK, WARNING) for earlier in way[: way.index(check)])
    assert found["device"].status is OK  # this machine is looked at all the same


@asynccontextmanager
async def another_program(answer: bytes) -> AsyncIterator[str]:
    """Something that listens and is no coordinator; it says this to whatever it hears, and then no more."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(1000):
            writer.write(answer)
            if answer:
                break
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


# all is well ---------------------------------------------------------------------------------------------------------


async def test_nothing_is_wrong(tmp_path: Path) -> None:
    async with inside(tmp_path, tasks=[load_task(MY_TASK)]) as host:
        found = await examined(host.address, task=MY_TASK)
        assert {finding.status for finding in found.values()} == {OK}
        assert not host.coordinator.parts.fleet.records()  # it has not joined
    assert "asks nobody who calls" in found["access"].text
    assert "on both sides" in found["versions"].text
    assert found["device"].text == "cpu"
    assert found["data"].text.startswith("task tumours: 2")
    assert "MB/s down" in found["throughput"].text
    assert "the model takes" in found["throughput"].text


@pytest.mark.parametrize("tokens", [False, True], ids=["certificates", "tokens"])
async def test_nothing_is_wrong_with_a_coordinator_that_is_protected(tmp_path: Path, pki: Pki, tokens: bool) -> None:
    caller = pki.stranger(TOKENS[Role.CLIENT]) if tokens else pki.caller(Role.CLIENT, "ann")
    async with inside(tmp_path, protection=pki.protection(tokens)) as host:
        found = await examined(host.address, caller)
    assert found["access"] == Finding("access", OK, "let in by a token" if tokens else "let in as client ann")
    assert found["tls"].status is WARNING  # a day is not much
    assert "TLSv1.3, trusted as 127.0.0.1; certificates until" in found["tls"].text
    assert "make a new one" in found["tls"].text
    assert found["throughput"].status is OK


async def test_without_a_task_the_rest_is_looked_at(tmp_path: Path) -> None:
    async with inside(tmp_path) as host:
        found = await examined(host.address)
    assert (found["data"].status, found["task"].status) == (SKIPPED, SKIPPED)
    assert "--task" in found["data"].text
    assert found["throughput"].status is OK


# the way -------------------------------------------------------------------------------------------------------------


async def test_a_name_that_nobody_has() -> None:
    fails(await examined("nobody.invalid:7433"), "name", "nobody.invalid", "--coordinator", "hosts file")


async def test_nobody_is_there(tmp_path: Path) -> None:
    async with inside(tmp_path) as host:
        address = host.address
    fails(await examined(address), "reach", address, "nothing listens", "fedstep coordinator", "--host 0.0.0.0")


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (TimeoutError(), ("does not answer within 5 s", "firewall", "port 7433")),
        (OSError(101, "Network is unreachable"), ("network is unreachable", "this machine's network")),
    ],
    ids=["silence", "no way"],
)
async def test_a_machine_that_cannot_be_reached(
    monkeypatch: pytest.MonkeyPatch, fault: OSError, words: tuple[str, ...]
) -> None:
    async def no_way(*_: object, **__: object) -> None:
        raise fault

    monkeypatch.setattr(asyncio, "open_connection", no_way)  # no test can have a firewall of its own
    fails(await examined("127.0.0.1:7433"), "reach", "127.0.0.1:7433", *words)


async def test_a_coordinator_on_one_of_two_addresses(tmp_path: Path) -> None:
    async with inside(tmp_path) as host:
        endpoint = Endpoint(host.address)
        found = await network.dial(endpoint, ["127.0.0.2", "127.0.0.1"])
    assert found.warning
    assert "not at 127.0.0.2" in found.text


@pytest.mark.parametrize(
    ("answer", "words"),
    [(b"HTTP/1.1 400 Bad Request\r\n\r\n", "--coordinator"), (b"", "no answer in time")],
    ids=["says something else", "says nothing"],
)
async def test_another_program_is_there(monkeypatch: pytest.MonkeyPatch, answer: bytes, words: str) -> None:
    if not answer:
        monkeypatch.setattr(network, "TIMEOUT_S", 0.3)
        monkeypatch.setattr("fedstep.common.handshake.TIMEOUT_S", 0.3)
    async with another_program(answer) as address:
        fails(await examined(address), "access", f"No coordinator answers at {address}", words)


async def test_another_program_is_there_that_speaks_grpc() -> None:
    server = grpc.aio.server()
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    fails(await examined(f"127.0.0.1:{port}"), "access", "no coordinator, or one older", "--upgrade")
    await server.stop(None)


# a proxy on the way ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("protected", [False, True], ids=["plain", "TLS"])
async def test_through_a_proxy(tmp_path: Path, pki: Pki, monkeypatch: pytest.MonkeyPatch, protected: bool) -> None:
    caller, protection = (pki.caller(Role.CLIENT, "ann"), pki.protection()) if protected else (PLAIN, None)
    async with inside(tmp_path, protection=protection) as host, tunnels() as proxy:
        monkeypatch.setenv("grpc_proxy", f"http://ann:secret@127.0.0.1:{proxy.port}")
        found = await examined(host.address, caller)
    assert {found[check].status for check in CHECKS if check != "tls"} <= {OK, SKIPPED}
    assert found["tls"].status is (WARNING if protected else OK)  # a day is not much
    assert f"the proxy 127.0.0.1:{proxy.port} connects to {host.address}" in found["reach"].text
    assert proxy.asked  # by gRPC as well
    assert all(f"CONNECT {host.address} " in head and "Basic YW5uOnNlY3JldA==" in head for head in proxy.asked)


async def test_a_proxy_that_will_not(monkeypatch: pytest.MonkeyPatch) -> None:
    async with tunnels("403 Forbidden") as proxy:
        monkeypatch.setenv("grpc_proxy", f"http://127.0.0.1:{proxy.port}")
        found = await examined("fed.clinic.example:7433")
    fails(found, "reach", "403 Forbidden", "grpc_proxy", "CONNECT to port 7433", "no_proxy")


async def test_a_proxy_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    async with tunnels() as proxy:
        monkeypatch.setenv("grpc_proxy", f"http://127.0.0.1:{proxy.port}")
    fails(
        await examined("fed.clinic.example:7433"), "reach", "correct grpc_proxy", "add fed.clinic.example to no_proxy"
    )


async def test_a_proxy_that_nobody_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("grpc_proxy", "http://nobody.invalid:3128")
    fails(await examined("127.0.0.1:7433"), "name", "nobody.invalid", "correct grpc_proxy")


# TLS -----------------------------------------------------------------------------------------------------------------


async def test_a_certificate_that_is_not_trusted(tmp_path: Path, pki: Pki) -> None:
    other = Pki(tmp_path / "other")
    async with inside(tmp_path, protection=other.protection()) as host:
        fails(await examined(host.address, pki.caller(Role.CLIENT, "ann")), "tls", "another CA", "ca.crt")


async def test_a_certificate_for_another_name(tmp_path: Path, pki: Pki) -> None:
    async with inside(tmp_path, host="0.0.0.0", protection=pki.protection()) as host:
        found = await examined(f"127.0.0.2:{host.coordinator.port}", pki.caller(Role.CLIENT, "ann"))
    fails(found, "tls", "not for 127.0.0.2", "`fedstep pki coordinator 127.0.0.2`")


async def test_a_certificate_that_has_expired(tmp_path: Path, pki: Pki) -> None:
    coordinator = Protection(pki.coordinator(lifetime=PAST), read_authorities(pki.ca.certificate))
    async with inside(tmp_path, protection=coordinator) as host:
        fails(await examined(host.address, pki.caller(Role.CLIENT, "ann")), "tls", "has expired", "pki coordinator")


async def test_a_certificate_of_ones_own_that_has_expired(tmp_path: Path, pki: Pki) -> None:
    async with inside(tmp_path, protection=pki.protection()) as host:
        found = await examined(host.address, pki.caller(Role.CLIENT, "ann", PAST))
    fails(found, "tls", "does not take the certificate", "ann.crt")


def test_a_certificate_that_cannot_be_read_is_one_finding_among_others(tmp_path: Path, pki: Pki) -> None:
    files = (
        "--tls-ca",
        tmp_path / "pki" / "ca.crt",
        "--tls-cert",
        tmp_path / "no.crt",
        "--tls-key",
        tmp_path / "no.key",
    )
    ran = fedstep("doctor", "--coordinator", "127.0.0.1:9", "--task", "digits", *files, "--json")
    found = {finding["check"]: finding for finding in ran.json[:-1]}
    assert list(found) == CHECKS
    assert [check for check in CHECKS if found[check]["status"] == FAILED] == ["reach", "tls"]
    assert f"{tmp_path / 'no.crt'} cannot be read" in found["tls"]["text"]
    assert found["data"]["status"] == OK


async def test_no_certificate_where_one_is_asked_for(tmp_path: Path, pki: Pki) -> None:
    async with inside(tmp_path, protection=pki.protection()) as host:
        fails(await examined(host.address, pki.stranger()), "tls", "--tls-cert", "fedstep pki enroll")


async def test_plain_text_to_a_coordinator_that_speaks_tls(tmp_path: Path, pki: Pki) -> None:
    async with inside(tmp_path, protection=pki.protection()) as host:
        fails(await examined(host.address), "tls", "speaks TLS only", "--tls-ca")


async def test_tls_to_a_coordinator_that_speaks_plain_text(tmp_path: Path, pki: Pki) -> None:
    async with inside(tmp_path) as host:
        fails(await examined(host.address, pki.stranger()), "tls", "speaks no TLS", "--tls-ca")


async def test_tls_to_a_program_that_says_nothing(monkeypatch: pytest.MonkeyPatch, pki: Pki) -> None:
    monkeypatch.setattr(network, "_DIAL_S", 0.3)
    monkeypatch.setattr("fedstep.common.handshake.TIMEOUT_S", 0.3)
    async with another_program(b"") as address:
        fails(await examined(address, pki.stranger()), "tls", "does not end a TLS handshake", "--coordinator")


async def test_plain_text_to_another_machine_is_told_of(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    async with inside(tmp_path) as host:
        monkeypatch.setattr(network, "_is_this_machine", lambda host: False)
        found = await network.secure(Endpoint(host.address), None)
    assert found.warning
    assert "--tls-ca" in found.text


# access --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tokens", [False, True], ids=["certificates", "tokens"])
async def test_the_wrong_role(tmp_path: Path, pki: Pki, tokens: bool) -> None:
    caller = pki.stranger(TOKENS[Role.OPERATOR]) if tokens else pki.caller(Role.OPERATOR, "olga")
    async with inside(tmp_path, protection=pki.protection(tokens)) as host:
        fails(
            await examined(host.address, caller, name="olga"),
            "access",
            "is for the role client",
            "role operator" if tokens else "operator olga",
        )


async def test_a_token_that_is_nobodys(tmp_path: Path, pki: Pki) -> None:
    async with inside(tmp_path, protection=pki.protection(tokens=True)) as host:
        found = await examined(host.address, pki.stranger("x" * 40))
    fails(found, "access", "knows no such token", "--client-token-file")
    assert "xxx" not in str(found)


async def test_the_name_of_another_client(tmp_path: Path, pki: Pki) -> None:
    async with inside(tmp_path, protection=pki.protection()) as host:
        found = await examined(host.address, pki.caller(Role.CLIENT, "ann"), name="bob")
    fails(found, "access", "client ann", "--name ann")


# this machine, and the task ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("there", "fix"), [("99.0.1", "here, `pip install fedstep==99.0.1`"), ("0.0.1", "on the coordinator, `pip")]
)
async def test_another_version_is_told_of(there: str, fix: str) -> None:
    found = await machine.compare_versions(pb.ProbeAnswer(version=there))
    assert found.warning
    assert fix in found.text


BROKEN = {
    "no_such_name.py": ("import torch\n\ntask = Missing()\n", "line 3"),
    "raises.py": (
        "from fedstep.common.task import Task\n\n\nclass Mine(Task):\n    name = 'mine'\n\n"
        "    def build_model(self, hyperparameters):\n        ...\n\n"
        "    def load_data(self, client):\n        raise KeyError('age')\n",
        "KeyError: 'age' (raises.py, line 11).",
    ),
    "cannot_step.py": (
        "import torch\nfrom torch import nn\nfrom torch.utils.data import TensorDataset\n"
        "from fedstep.common.task import ClientData, Task\n\n\nclass Mine(Task):\n    name = 'mine'\n\n"
        "    def build_model(self, hyperparameters):\n        return nn.Linear(1, 2)\n\n"
        "    def load_data(self, client):\n"
        "        some = TensorDataset(torch.zeros(4, 1), torch.zeros(4, dtype=torch.long))\n"
        "        return ClientData(some, some)\n\n"
        "    def loss(self, model, batch):\n        raise KeyError('age')\n",
        "KeyError: 'age' (cannot_step.py, line 18).",
    ),
    "nobody.py": (
        "import torch\nfrom torch import nn\nfrom torch.utils.data import TensorDataset\n"
        "from fedstep.common.task import ClientData, Task\n\n\nclass Mine(Task):\n    name = 'mine'\n\n"
        "    def build_model(self, hyperparameters):\n        return nn.Linear(1, 1)\n\n"
        "    def load_data(self, client):\n"
        "        none = TensorDataset(torch.zeros(0, 1), torch.zeros(0, dtype=torch.long))\n"
        "        return ClientData(none, none)\n",
        "no training samples for ann: give it a larger share",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
async def test_a_task_that_does_not_load(tmp_path: Path, name: str) -> None:
    text, said = BROKEN[name]
    (tmp_path / name).write_text(text)
    async with inside(tmp_path / "data") as host:
        found = await examined(host.address, task=str(tmp_path / name))
    assert found["data"].status is FAILED
    assert said in found["data"].text
    assert (found["task"].status, found["throughput"].status) == (SKIPPED, OK)


async def test_a_task_that_the_coordinator_does_not_know(tmp_path: Path) -> None:
    async with inside(tmp_path) as host:
        found = await examined(host.address, task=MY_TASK)
    assert found["task"].status is FAILED
    assert "does not know the task tumours: start it with --task" in found["task"].text
    assert "it knows tiny." in found["task"].text


# throughput ----------------------------------------------------------------------------------------------------------


async def test_a_coordinator_that_others_ask_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "AT_ONCE", 0)
    async with inside(tmp_path) as host:
        with pytest.raises(SkipError, match="try again in a minute"):
            await throughput.measure(Endpoint(host.address), None)


async def test_a_way_that_breaks_off() -> None:
    class Breaking(fleet_pb2_grpc.FleetServiceServicer):
        async def Probe(  # noqa: N802  # the protocol's name
            self, requests: object, context: object
        ) -> AsyncIterator[pb.ProbeResponse]:
            yield pb.ProbeResponse(answer=pb.ProbeAnswer(version="0"))

    server = grpc.aio.server()
    fleet_pb2_grpc.add_FleetServiceServicer_to_server(Breaking(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    with pytest.raises(UnavailableError, match="broke while bytes were moved: look for a proxy"):
        await throughput.measure(Endpoint(f"127.0.0.1:{port}"), None)
    await server.stop(None)


# the command ---------------------------------------------------------------------------------------------------------


def test_the_command_says_how_it_went(programs: Programs, tmp_path: Path) -> None:
    _, address = programs.coordinator(tmp_path / "data")
    arguments = ("doctor", "--coordinator", address, "--task", "digits", "--partition", "1/8")
    well = fedstep(*arguments, "--json")
    assert well.code == 0, well.out + well.err
    assert [line["status"] for line in well.json[:-1]] == ["ok"] * len(CHECKS)
    assert well.json[-1] == {"ok": True, "failed": []}
    ill = fedstep(*arguments, "--option", "writers=40", "--task", "digist")
    assert ill.code == 1
    assert "failed   data        " in ill.out
    assert 'did you mean "digits"' in ill.out
    assert "1 of 9 checks failed (data): mend the first, then ask again." in ill.out
    assert max(map(len, ill.out.splitlines())) <= 120
    assert ill.err == ""
    assert fedstep("fleet", "list", "--coordinator", address, "--json").json == []


def test_an_option_that_cannot_be_used_is_one_sentence() -> None:
    ran = fedstep("doctor", "--coordinator", "somewhere")
    assert ran.code == 2
    assert ran.err.count("\n") == 1
    assert "HOST:PORT" in ran.err


def test_a_machine_that_only_trains_has_all_that_it_needs(programs: Programs, tmp_path: Path) -> None:
    _, address = programs.coordinator(tmp_path / "data")
    program = (
        "import sys\n"
        "for name in ('optuna', 'sqlalchemy', 'alembic', 'scipy', 'matplotlib', 'fedstep.server'):\n"
        "    sys.modules[name] = None\n"
        "from fedstep.common.cli import main; main()"
    )
    arguments = ["doctor", "--coordinator", address, "--task", "digits", "--json"]
    ran = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, timeout=60, check=False
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert json.loads(ran.stdout.splitlines()[-1])["ok"] is True


def test_help_needs_no_torch() -> None:
    program = "import sys, fedstep.client.doctor.cli; print('torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert result.stdout == "False\n"
