"""StudyService whole, and the Python client as a notebook uses it."""

import asyncio
import gc
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import grpc
import grpc.aio
import pytest
from e2e.inside import SHORT_LEASE, Inside, inside
from e2e.pki import Pki
from e2e.studies import spec, write_study
from e2e.tiny import TinyWork, tiny_agent
from e2e.waiting import until, until_true
from faults.proxy import proxy

from fedstep.api import Fedstep, aio, connect
from fedstep.common.errors import AlreadyExistsError, InvalidInputError, NotFoundError, UnavailableError, from_rpc
from fedstep.common.identity import Role
from fedstep.common.spec_proto import spec_to_proto
from fedstep.v1 import study_pb2 as pb
from fedstep.v1 import study_pb2_grpc


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[Inside]:
    async with inside(tmp_path / "coordinator") as running:
        yield running


# the client without an event loop ---------------------------------------------------------------------------------


async def test_a_notebook_needs_five_lines(host: Inside, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write_study(tmp_path / "study.toml", budget={"trials": 3})

    def notebook() -> None:
        with connect(host.address) as fedstep:
            study = fedstep.create(file).watch()
            model = study.download(tmp_path / "model.safetensors")
            assert study.best is not None
            assert set(study.best.hyperparameters) == {"lr"}
            assert study.state == "completed"
            assert study.result is not None
            assert model.sha256 == study.result.model_sha256
            assert [trial.number for trial in study.trials] == [0, 1, 2]
            assert [trial.state for trial in study.trials] == ["completed"] * 3
            assert study.best in study.trials
            assert study.spec == spec(budget={"trials": 3})
            assert [each.name for each in fedstep.studies] == ["s"]
            assert [client.name for client in fedstep.clients] == ["ann"]
            events = list(study.events())
            assert events[-1].kind == "study_completed"
            committed = [event for event in events if event.kind == "round_committed"]
            assert committed[3].details["trial"] == 1
            assert list(study.events(after=events[-2].number)) == events[-1:]
            assert study.participation.others.clients == 1
            assert fedstep.study("s").name == fedstep.create(file).name == "s"
            fedstep.drain("ann")
            assert fedstep.clients[0].drained
            fedstep.undrain("ann")
            assert not fedstep.clients[0].drained

    async with tiny_agent(host.address, "ann"):
        await asyncio.to_thread(notebook)
    assert "Study s: 3 trials of 2 rounds, tuned by random." in capsys.readouterr().out


async def test_mistakes_are_told_in_a_sentence(host: Inside, tmp_path: Path) -> None:
    file = write_study(tmp_path / "study.toml", task="none")

    def notebook(fedstep: Fedstep) -> None:
        with pytest.raises(InvalidInputError, match=r"study\.toml:\d+: task: the coordinator has no task 'none'"):
            fedstep.create(file)
        with pytest.raises(InvalidInputError, match="there is no such file"):
            fedstep.create(tmp_path / "no.toml")
        with pytest.raises(NotFoundError, match="missing"):
            fedstep.study("missing")
        with pytest.raises(NotFoundError, match="The client 'zoe' has never come"):
            fedstep.drain("zoe")
        fedstep.create(spec())
        with pytest.raises(AlreadyExistsError, match="exists with other settings"):
            fedstep.create(spec(seed=4))
        assert repr(fedstep.study("s")) == f"Study('s' at {host.address})"

    with connect(host.address) as fedstep:
        await asyncio.to_thread(notebook, fedstep)


async def test_paused_resumed_and_stopped_from_a_notebook(host: Inside) -> None:
    def notebook() -> None:
        with connect(host.address) as fedstep:
            study = fedstep.create(spec(budget={"trials": 1, "rounds_per_trial": 500}))
            study.pause()
            assert study.watch().state == "paused"
            study.resume()
            for event in study.events():
                if event.kind == "round_committed":
                    study.stop()
            assert study.state == "stopped"

    async with tiny_agent(host.address, "ann"):
        await asyncio.to_thread(notebook)


async def test_over_tls_as_the_commands_have_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pki = Pki(tmp_path / "pki")
    async with inside(tmp_path, protection=pki.protection()) as host:
        security = pki.caller(Role.OPERATOR, "olga")
        assert security.pair is not None
        ca = tmp_path / "pki" / "copy.crt"
        ca.write_bytes(security.authorities or b"")
        files = {"tls_ca": ca, "tls_cert": security.pair.file, "tls_key": security.pair.key_file}

        def notebook() -> None:
            with connect(host.address, **files) as fedstep:
                assert fedstep.studies == []
            for name, file in files.items():
                monkeypatch.setenv(f"FEDSTEP_{name.upper()}", str(file))
            monkeypatch.setenv("FEDSTEP_COORDINATOR", host.address)
            with connect() as fedstep:
                assert fedstep.studies == []

        await asyncio.to_thread(notebook)


def test_nobody_there_is_told_in_a_sentence() -> None:
    said = r"No coordinator answers at 127\.0\.0\.1:9 \(nothing listens there\)"
    with connect("127.0.0.1:9") as fedstep, pytest.raises(UnavailableError, match=said):
        fedstep.study("s")


def test_it_needs_neither_torch_nor_a_coordinator() -> None:
    code = "import fedstep.api, fedstep.api.aio, sys, json; print(json.dumps(sorted(sys.modules)))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    loaded = set(json.loads(ran.stdout))
    assert not loaded & {"torch", "optuna", "sqlalchemy", "fedstep.server", "fedstep.client"}


# watching ---------------------------------------------------------------------------------------------------------


async def test_over_a_connection_that_is_cut_again_and_again_no_event_is_missed_or_doubled(host: Inside) -> None:
    async with AsyncExitStack() as all_of_them:
        await all_of_them.enter_async_context(tiny_agent(host.address, "ann"))
        between = await all_of_them.enter_async_context(proxy(host.address))
        far = await all_of_them.enter_async_context(aio.connect(between.address))
        blocking = connect(between.address)
        all_of_them.callback(blocking.close)
        lost: list[UnavailableError] = []
        await far.create(spec_to_proto(spec(budget={"trials": 4, "rounds_per_trial": 10})))
        study = await asyncio.to_thread(blocking.study, "s")
        beside = asyncio.create_task(asyncio.to_thread(lambda: [event.number for event in study.events()]))
        numbers = []
        async for event in far.watch("s", lost.append):
            numbers.append(event.number)
            if len(numbers) % 10 == 5:
                between.cut()
        found = [event.number for event in await host.events("s")]
        assert numbers == found
        assert await beside == found
    assert lost


async def test_from_an_event_number_on(host: Inside) -> None:
    async with tiny_agent(host.address, "ann"), aio.connect(host.address) as fedstep:
        await fedstep.create(spec_to_proto(spec()))
        every = [event.number async for event in fedstep.watch("s")]
        for k, number in enumerate(every):
            assert [event.number async for event in fedstep.watch("s", after=number)] == every[k + 1 :]
        assert not [event async for event in fedstep.watch("s", after=2**64 - 1)]


@pytest.mark.parametrize("how", ["cancelled", "over its deadline", "hung up"])
async def test_a_watch_that_its_caller_leaves_leaves_nothing_behind(host: Inside, how: str) -> None:
    """Of 20 watchers of a study in which nothing happens no call, task or generator is left."""
    await host.create(spec(round={"min_clients": 2}))
    await host.until_event("s", "waiting_for_clients")
    gc.collect()
    channel = grpc.aio.insecure_channel(host.address, options=[("grpc.use_local_subchannel_pool", 1)])
    stub: study_pb2_grpc.StudyServiceAsyncStub = study_pb2_grpc.StudyServiceStub(channel)
    before = _tasks()
    request = pb.WatchStudyRequest(name="s")
    watches = [stub.WatchStudy(request, timeout=2.0 if how == "over its deadline" else None) for _ in range(20)]
    for watch in watches:
        await watch.read()
    assert len(_tasks()) > len(before)
    if how == "cancelled":
        for watch in watches:
            watch.cancel()
    elif how == "hung up":
        await channel.close()
    else:
        assert {await watch.code() for watch in watches} == {grpc.StatusCode.DEADLINE_EXCEEDED}
    await channel.close()
    feed = host.coordinator.parts.feed
    waiting = lambda: sum(len(event._waiters) for event in feed._changed.values())  # type: ignore[attr-defined]  # noqa: E731
    await until(lambda: not waiting(), "nobody waits for events")
    await until(lambda: len(_tasks()) <= len(before), "no task of theirs is left")


def _tasks() -> set[asyncio.Task[object]]:
    """What runs on this loop, the test's own calls left out."""
    return {task for task in asyncio.all_tasks() if task is not asyncio.current_task()}


# pages ------------------------------------------------------------------------------------------------------------


async def test_clients_are_listed_in_pages(host: Inside) -> None:
    names = [f"c{number}" for number in range(5)]
    async with AsyncExitStack() as clients, grpc.aio.insecure_channel(host.address) as channel:
        for name in names:
            await clients.enter_async_context(tiny_agent(host.address, name))
        await until(lambda: len(host.coordinator.parts.fleet.members()) == 5, "all are there")
        stub: study_pb2_grpc.StudyServiceAsyncStub = study_pb2_grpc.StudyServiceStub(channel)
        pages, token = [], ""
        while not pages or token:
            answer = await stub.ListClients(pb.ListClientsRequest(page_size=2, page_token=token), timeout=10)
            pages.append([client.name for client in answer.clients])
            token = answer.next_page_token
        assert pages == [["c0", "c1"], ["c2", "c3"], ["c4"]]
        async with aio.connect(host.address) as fedstep:
            assert [client.name for client in await fedstep.clients()] == names


# bad arguments ----------------------------------------------------------------------------------------------------


async def test_every_invalid_argument_names_its_field(host: Inside) -> None:
    good = spec_to_proto(spec())

    def changed(**fields: object) -> pb.StudySpec:
        made = pb.StudySpec()
        made.CopyFrom(good)
        for name, value in fields.items():
            made.ClearField(name)  # type: ignore[arg-type]
            if isinstance(value, str | int):
                setattr(made, name, value)
            elif value is not None:
                getattr(made, name).CopyFrom(value)
        return made

    wrong = pb.Objective(direction=9)  # type: ignore[arg-type]
    requests: list[tuple[str, str, object]] = [
        ("CreateStudy", "name", pb.CreateStudyRequest(spec=changed(name="a/b"))),
        ("CreateStudy", "task", pb.CreateStudyRequest(spec=changed(task="none"))),
        ("CreateStudy", "space", pb.CreateStudyRequest(spec=changed(space=None))),
        ("CreateStudy", "tuner.name", pb.CreateStudyRequest(spec=changed(tuner=pb.Plugin(name="nothing")))),
        ("CreateStudy", "selector.name", pb.CreateStudyRequest(spec=changed(selector=pb.Plugin(name="nothing")))),
        ("CreateStudy", "aggregator.name", pb.CreateStudyRequest(spec=changed(aggregator=pb.Plugin(name="nothing")))),
        ("CreateStudy", "objective.direction", pb.CreateStudyRequest(spec=changed(objective=wrong))),
        ("CreateStudy", "round.quorum", pb.CreateStudyRequest(spec=changed(round=pb.RoundPolicy(quorum=2)))),
        ("ListTrials", "page_token", pb.ListTrialsRequest(study="s", page_token="x")),
        ("ListTrials", "page_token", pb.ListTrialsRequest(study="s", page_token="9" * 30)),
        ("DownloadModel", "study", pb.DownloadModelRequest()),
    ]
    await host.create(spec(name="s"))
    async with grpc.aio.insecure_channel(host.address) as channel:
        stub = study_pb2_grpc.StudyServiceStub(channel)
        for method, field, request in requests:
            call = getattr(stub, method)(request, timeout=20)
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await (call.read() if method == "DownloadModel" else call)
            error = from_rpc(refused.value, host.address)
            assert isinstance(error, InvalidInputError), (method, error)
            assert [violation.field for violation in error.violations] == [field], (method, error)


# draining ---------------------------------------------------------------------------------------------------------


async def test_a_drained_client_finishes_what_it_has_and_is_given_nothing_new(host: Inside) -> None:
    ann, ben = TinyWork(), TinyWork()
    budget = {"trials": 1, "rounds_per_trial": 5}
    async with (
        tiny_agent(host.address, "ann", ann),
        tiny_agent(host.address, "ben", ben),
        aio.connect(host.address) as fedstep,
    ):
        await until(lambda: len(host.coordinator.parts.fleet.members()) == 2, "both are there")
        ann.gate.clear()
        await fedstep.create(spec_to_proto(spec(budget=budget)))
        await until(lambda: ann.begun, "ann trains")
        drained = await fedstep.drain("ann")
        assert (drained.drained, drained.state) == (True, pb.CLIENT_STATE_WORKING)
        ann.gate.set()
        await host.until_over("s")
        rounds = await host.rounds("s")
        assert rounds[0].updates == 2
        assert all(round_.cohort == round_.evaluators == ("ben",) for round_ in rounds[2:])
        trained = len(ann.trained)
        assert trained < 5
        assert not (await fedstep.undrain("ann")).drained
        await fedstep.create(spec_to_proto(spec(name="after", budget=budget)))
        await host.until_over("after")
        assert all(set(round_.cohort) == {"ann", "ben"} for round_ in await host.rounds("after"))


async def test_a_client_that_leaves_is_drained_no_more(tmp_path: Path) -> None:
    async with inside(tmp_path, lease=SHORT_LEASE) as host, aio.connect(host.address) as fedstep:
        async with tiny_agent(host.address, "ann"):
            await until(lambda: host.coordinator.parts.fleet.find("ann"), "ann is there")
            await fedstep.drain("ann")
        async with tiny_agent(host.address, "ann"):  # another process of that name

            async def back() -> bool:
                (client,) = await fedstep.clients()
                return client.state == pb.CLIENT_STATE_IDLE and not client.drained

            await until_true(back, "she is back, and not drained")
        member = host.coordinator.parts.fleet.member("ann")
        await until(lambda: not member.connected, "ann has left")
        await until(lambda: member.presence == "gone", "her lease has run out")
        with pytest.raises(NotFoundError, match="The client 'ann' is gone"):
            await fedstep.drain("ann")
