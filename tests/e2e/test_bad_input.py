"""What bad input gets: an exit code that is not 0 and one plain sentence, or one line a mistake; no traceback."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from e2e.inside import query
from e2e.processes import Programs, Ran, fedstep
from e2e.studies import write_study

from fedstep.api.aio import connect
from fedstep.common.errors import UnavailableError
from fedstep.common.spec_proto import spec_to_proto
from fedstep.common.study_file import read_study
from fedstep.server.cli import study as study_commands

NOBODY = "127.0.0.1:9"


def one_sentence(ran: Ran, *words: str, code: int = 2) -> None:
    """It was refused in one line that holds these words."""
    assert ran.code == code, ran
    assert "Traceback" not in ran.err + ran.out
    said = ran.err.strip().splitlines()
    assert len(said) == 1, ran.err
    for word in words:
        assert word in said[0], ran.err


def one_error(ran: Ran, *words: str) -> None:
    """A slip in the command line itself: its usage, then one line that says what is wrong."""
    assert ran.code == 2, ran
    assert "Traceback" not in ran.err + ran.out
    errors = [line for line in ran.err.splitlines() if line.startswith("Error: ")]
    assert len(errors) == 1, ran.err
    for word in words:
        assert word in errors[0], ran.err


# study files: refused before anything starts, so nobody needs to be there


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("nmae = 's'\ntask = 'digits'\n[space]\nlr = {type = 'float', low = 0.1, high = 1.0}\n", (":1:", "`name`")),
        (
            "name = 's'\ntask = 'digits'\n[space.lr]\ntype = 'float'\nlow = 3.0\nhigh = 1.0\n",
            (":5:", "space.lr.low", "3", "high"),
        ),
        (
            "name = 's'\ntask = 'digits'\n[space.lr]\ntype = 'flaot'\nlow = 0.1\nhigh = 1.0\n",
            (":4:", "flaot", "`float`"),
        ),
        (
            "name = 's'\ntask = 'digits'\n[space]\nlr = {type = 'float', low = 0.1, high = 1.0}\n"
            "[round]\nquorum = 1.5\n",
            (":6:", "quorum", "1.5", "at most 1"),
        ),
        ("name = 's\n", (":1:", "TOML")),
    ],
    ids=["unknown key", "impossible range", "misspelt type", "impossible share", "no toml"],
)
def test_a_study_file_with_a_mistake_names_its_line_its_value_and_the_fix(
    tmp_path: Path, text: str, words: tuple[str, ...]
) -> None:
    file = tmp_path / "study.toml"
    file.write_text(text)
    one_sentence(fedstep("study", "run", file, "--coordinator", NOBODY), str(file), *words)


def test_several_mistakes_are_one_line_each(tmp_path: Path) -> None:
    file = tmp_path / "study.toml"
    file.write_text(
        "name = 's'\ntask = 'digits'\nsed = 3\n[space]\nlr = {type = 'float', low = 0.1, high = 1.0}\n"
        "[budget]\ntrails = 3\nrounds_per_trial = 0\n"
    )
    ran = fedstep("study", "run", file, "--coordinator", NOBODY)
    assert ran.code == 2
    lines = ran.err.strip().splitlines()
    assert len(lines) == 3, ran.err
    for line, words in zip(lines, ((":3:", "`seed`"), (":7:", "`trials`"), (":8:", "at least 1")), strict=True):
        assert all(word in line for word in (str(file), *words)), line


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    one_sentence(fedstep("study", "run", tmp_path / "none.toml"), "none.toml", "no such file")


async def test_study_run_waits_for_a_coordinator_that_is_only_starting(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(study_commands, "START_S", 5.0)
    spec = spec_to_proto(read_study(write_study(tmp_path / "study.toml")))
    async with connect(NOBODY) as remote:
        with pytest.raises(UnavailableError, match=f"{NOBODY}.*fedstep coordinator.*--coordinator"):
            await study_commands.create(remote, spec)
    assert capsys.readouterr().err == f"Nobody answers at {NOBODY} yet; trying for 5 s.\n"


def test_a_coordinator_that_nobody_runs() -> None:
    for command in (("fleet", "list"), ("study", "watch", "s")):
        one_sentence(fedstep(*command, "--coordinator", NOBODY), NOBODY, "fedstep coordinator", "--coordinator")


@pytest.mark.parametrize(
    ("command", "option"), [("watch", "--after"), ("steps", "--trial"), ("steps", "--round")], ids=lambda word: word
)
@pytest.mark.parametrize("value", ["-3", "99999999999999999999"])
def test_a_number_out_of_range(command: str, option: str, value: str) -> None:
    ran = fedstep("study", command, "s", option, value, "--coordinator", NOBODY)
    one_error(ran, option, f"{value} is not in the range 0<=x<=")


def test_an_error_for_programs_is_json(tmp_path: Path) -> None:
    ran = fedstep("study", "run", tmp_path / "none.toml", "--json")
    assert ran.code == 2
    assert ran.json == [{"error": ran.json[0]["error"], "code": "INVALID_ARGUMENT"}]
    assert "none.toml" in ran.json[0]["error"]


# what only a coordinator can tell


@pytest.fixture(scope="module")
def coordinator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    folder = tmp_path_factory.mktemp("coordinator")
    with Programs(folder / "logs") as programs:
        _, address = programs.coordinator(folder / "data")
        yield address, folder / "data"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"task": "digit"}, (":2:", "task", "`digits`")),
        ({"tuner": {"name": "optna"}}, ("tuner", "`optuna`")),
        ({"tuner": {"name": "optuna", "sampler": "TPESamler"}}, ("sampler", "`TPESampler`")),
        ({"tuner": {"name": "optuna", "pruner_options": {"n_warmup": 2}}}, ("pruner_options",)),
        ({"selector": {"name": "randon"}}, ("selector", "`random`")),
        ({"aggregator": {"name": "fedadamm"}}, ("aggregator", "`fedadam`")),
        ({"space": {"learning": {"type": "float", "low": 0.1, "high": 1.0}}}, ("space.learning", "learning")),
        ({"hyperparameters": {"momentun": 0.5}}, ("hyperparameters.momentun", "`momentum`")),
    ],
    ids=["task", "tuner", "sampler", "pruner option", "selector", "aggregator", "tuned name", "fixed name"],
)
def test_a_name_that_the_coordinator_does_not_know_is_named_with_its_line(
    coordinator: tuple[str, Path], tmp_path: Path, changes: dict[str, object], words: tuple[str, ...]
) -> None:
    file = write_study(tmp_path / "study.toml", **{"task": "digits", **changes})
    ran = fedstep("study", "run", file, "--coordinator", coordinator[0])
    one_sentence(ran, f"{file}:", *words)


def test_a_refused_study_is_not_there(coordinator: tuple[str, Path], tmp_path: Path) -> None:
    file = write_study(tmp_path / "study.toml", name="refused", task="digit")
    assert fedstep("study", "run", file, "--coordinator", coordinator[0]).code == 2
    one_sentence(fedstep("study", "show", "refused", "--coordinator", coordinator[0]), "refused")


def test_a_study_that_is_not_there(coordinator: tuple[str, Path]) -> None:
    for command in ("show", "trials", "steps", "watch", "stop"):
        one_sentence(fedstep("study", command, "nome", "--coordinator", coordinator[0]), "nome")


def test_a_second_coordinator_on_the_same_database(coordinator: tuple[str, Path]) -> None:
    ran = fedstep("coordinator", "--port", "0", "--data-dir", coordinator[1])
    one_sentence(ran, "fedstep.db", "in use by another coordinator", "process", "--database")


def test_a_port_in_use(coordinator: tuple[str, Path], tmp_path: Path) -> None:
    port = coordinator[0].rpartition(":")[2]
    ran = fedstep("coordinator", "--port", port, "--data-dir", tmp_path / "other")
    one_sentence(ran, coordinator[0], "another program has the port", "--port")


# a coordinator that cannot start


def test_a_database_that_is_not_ours_is_left_as_it_is(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "fedstep.db")) as database:
        database.execute("CREATE TABLE recipes (name TEXT)")
        database.commit()
    one_sentence(fedstep("coordinator", "--port", "0", "--data-dir", tmp_path), "fedstep.db", "recipes")
    assert query(tmp_path, "SELECT name FROM sqlite_master") == [("recipes",)]


@pytest.mark.parametrize(
    "content", [b"hello\n" * 1000, b"SQLite format 3\0" + b"\xff" * 5000], ids=["a text", "a damaged database"]
)
def test_a_file_that_is_no_database(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "fedstep.db").write_bytes(content)
    one_sentence(fedstep("coordinator", "--port", "0", "--data-dir", tmp_path), "fedstep.db")
    assert (tmp_path / "fedstep.db").read_bytes() == content


@pytest.mark.parametrize("url", ["nonsense", "sqlite:///no/such/folder/x.db"])
def test_a_database_url_that_leads_nowhere(tmp_path: Path, url: str) -> None:
    one_sentence(fedstep("coordinator", "--port", "0", "--data-dir", tmp_path / "d", "--database", url, cwd=tmp_path))


@pytest.mark.parametrize("command", [("coordinator", "--port", "0"), ("demo",)], ids=["coordinator", "demo"])
def test_a_folder_that_cannot_be_made(tmp_path: Path, command: tuple[str, ...]) -> None:
    (tmp_path / "file").touch()
    folder = tmp_path / "file" / "data"  # no right to write is no hindrance to root, this is
    one_sentence(fedstep(*command, "--data-dir", folder), str(folder), "--data-dir")


def test_an_address_that_is_not_this_machines(tmp_path: Path) -> None:
    ran = fedstep("coordinator", "--host", "203.0.113.7", "--port", "0", "--data-dir", tmp_path)
    one_sentence(ran, "203.0.113.7", "no address of this machine", "--host")


# clients


@pytest.mark.parametrize("share", ["0/8", "9/8", "3"])
def test_a_share_that_cannot_be(share: str) -> None:
    one_error(fedstep("client", "--task", "digits", "--partition", share), share, "I/N")


@pytest.mark.parametrize("command", [("client", "--task", "digits"), ("coordinator",), ("compare", "s.toml")])
def test_an_option_that_is_no_pair(tmp_path: Path, command: tuple[str, ...]) -> None:
    write_study(tmp_path / "s.toml")
    one_error(fedstep(*command, "--option", "writers", cwd=tmp_path), "writers", "KEY=VALUE")


def test_an_address_that_is_none() -> None:
    one_sentence(fedstep("client", "--task", "digits", "--coordinator", "somewhere"), "somewhere", "HOST:PORT")


def test_a_misspelt_task() -> None:
    one_sentence(fedstep("client", "--task", "digist"), "digist", '"digits"')


@pytest.mark.parametrize(
    ("content", "words"),
    [(None, ("No such file",)), (b"not an npz", ("not an npz",)), (b"PK\x03\x04broken", ("not an npz",))],
    ids=["missing", "a text", "a damaged archive"],
)
def test_data_that_cannot_be_read(tmp_path: Path, content: bytes | None, words: tuple[str, ...]) -> None:
    data = tmp_path / "writers.npz"
    if content is not None:
        data.write_bytes(content)
    one_sentence(fedstep("client", "--task", "mnist-writers", "--data", data), str(data), "--data", *words)


def test_a_misspelt_command() -> None:
    one_error(fedstep("stduy", "run"), "stduy")
    one_error(fedstep("study", "rnu"), "rnu")
    one_error(fedstep("coordinator", "--prot", "1"), "--prot", "--port")


@pytest.mark.parametrize("command", [("client", "--task", "digits"), ("study", "list")])
def test_an_address_without_its_option(command: tuple[str, ...]) -> None:
    assert "Did you mean --coordinator here:7433?" in fedstep(*command, "here:7433").err
