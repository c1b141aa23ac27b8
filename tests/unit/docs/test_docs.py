"""The documentation says what the code does: its links, paths, commands, study files, tables and snippets hold."""

import importlib.util
import re
import shlex
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import click
import pytest
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from fedstep.common.cli import fedstep
from fedstep.common.errors import InvalidInputError
from fedstep.common.spec import Plugin, StudySpec
from fedstep.common.standard import STANDARD
from fedstep.common.study_file import read_study
from fedstep.common.validation import show
from fedstep.server.aggregation.registry import validate_aggregator
from fedstep.server.coordination.ledger import Status
from fedstep.server.selection.deadline import DeadlineOptions
from fedstep.server.selection.oort import OortOptions
from fedstep.server.selection.power_of_choice import PowerOfChoiceOptions
from fedstep.server.selection.registry import validate_selector
from fedstep.server.storage.base import StudyState, TrialState
from fedstep.server.tuning.fedex import FedexOptions
from fedstep.server.tuning.fixed import FixedOptions, ScheduleOptions
from fedstep.server.tuning.grid_search import GridOptions
from fedstep.server.tuning.optuna_study import OptunaOptions
from fedstep.server.tuning.outside import OutsideOptions
from fedstep.server.tuning.population import PopulationOptions
from fedstep.server.tuning.ray_options import RayOptions
from fedstep.server.tuning.registry import validate_tuner
from fedstep.server.tuning.stepwise_options import StepwiseOptions
from fedstep.server.tuning.stepwise_settings import BOUNDS, StepwiseSettings

ROOT = Path(__file__).resolve().parents[3]
PAGES = sorted(
    [
        *ROOT.glob("*.md"),
        # The preface is read as a part of docs/protocol.md.
        *(page for page in (ROOT / "docs").rglob("*.md") if page.name != "protocol_preface.md"),
        *(page for page in (ROOT / "examples").rglob("*.md") if "node_modules" not in page.parts),
    ]
)
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)
INLINE = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
FOLDERS = ("proto", "common", "client", "server", "tests", "docs", "examples", "deploy", ".ci")
MINIMAL = {"name": "fragment", "task": "digits", "space": {"lr": {"low": 0.1, "high": 1.0}}}


@dataclass(frozen=True)
class Snippet:
    """A piece of a page: a fenced block, or a command."""

    page: Path
    text: str

    def __str__(self) -> str:
        return f"{self.page.name}: {' '.join(self.text.split())[:60]}"


def blocks(language: str) -> list[Snippet]:
    return [
        Snippet(page, body)
        for page in PAGES
        for kind, body in FENCE.findall(page.read_text(encoding="utf-8"))
        if kind == language
    ]


def prose(page: Path) -> str:
    """A page without its fenced blocks."""
    return FENCE.sub("", page.read_text(encoding="utf-8"))


def commands() -> list[Snippet]:
    """Every command line in a shell block that is fedstep's; a comment or an `&` at its end is not part of it."""
    lines = [Snippet(block.page, line) for block in blocks("sh") for line in block.text.splitlines()]
    return [line for line in lines if line.text.startswith("fedstep ")]


def inline(start: str) -> list[Snippet]:
    return [Snippet(p, code) for p in PAGES for code in INLINE.findall(prose(p)) if code.startswith(start)]


# links and paths -----------------------------------------------------------------------------------------------------


def slugs(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.+)$", prose(page), re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    for target in LINK.findall(prose(page)):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.exists(), f"{page.name} links to {target}, which does not exist"
        assert not anchor or anchor in slugs(there), f"{page.name} links to {target}, which has no such heading"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_path_that_is_named_exists(page: Path) -> None:
    for code in INLINE.findall(prose(page)):
        if re.fullmatch(r"[\w./-]+", code) and code.split("/")[0] in FOLDERS and "/" in code.rstrip("/"):
            assert (ROOT / code).exists(), f"{page.name} names {code}, which does not exist"


def test_every_make_target_that_is_named_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    lines = [*inline("make "), *(Snippet(b.page, line) for b in blocks("sh") for line in b.text.splitlines())]
    for line in lines:
        if line.text.startswith("make "):
            named = {word for word in line.text.split()[1:] if "=" not in word}
            assert named <= targets, f"{line}: the Makefile has no such target"


# commands ------------------------------------------------------------------------------------------------------------


def parse(line: str, partial: bool) -> None:
    """Reads a command line as fedstep would, without running it.

    Args:
        line: From `fedstep` on.
        partial: It may end before its arguments do.

    Raises:
        click.ClickException: There is no such command, or it does not take such an option.
    """
    arguments = [word for word in shlex.split(line.split(" > ")[0], comments=True) if word != "&"][1:]
    context = click.Context(fedstep, info_name="fedstep")
    command: click.Command = fedstep
    while isinstance(command, click.Group) and arguments and not arguments[0].startswith("-"):
        found = command.get_command(context, arguments[0])
        if found is None:
            raise click.UsageError(f"there is no command {arguments[0]}")
        command, context = found, click.Context(found, parent=context, info_name=arguments[0])
        arguments = arguments[1:]
    try:
        if arguments not in ([], ["--help"], ["--version"]) or not isinstance(command, click.Group):
            command.make_context(command.name or "", arguments, parent=context.parent)
    except click.MissingParameter:
        if not partial:
            raise


@pytest.mark.parametrize("line", commands(), ids=str)
def test_every_command_line_is_one_that_fedstep_takes(line: Snippet) -> None:
    parse(line.text, partial=False)


@pytest.mark.parametrize("line", inline("fedstep "), ids=str)
def test_every_command_in_a_sentence_is_one_that_fedstep_has(line: Snippet) -> None:
    parse(line.text, partial=True)


def test_an_option_that_does_not_exist_would_be_noticed() -> None:
    with pytest.raises(click.NoSuchOption):
        parse("fedstep study run study.toml --colour", partial=False)


def test_the_guide_names_every_command() -> None:
    context = click.Context(fedstep, info_name="fedstep")
    for name in fedstep.list_commands(context):
        assert f"fedstep {name}" in (ROOT / "docs/guide.md").read_text(encoding="utf-8")


# study files ---------------------------------------------------------------------------------------------------------


def check(spec: StudySpec) -> None:
    """What the coordinator checks before it starts a study."""
    validate_tuner(spec)
    validate_selector(spec.selector)
    validate_aggregator(spec.aggregator)


@pytest.mark.parametrize("block", blocks("toml"), ids=str)
def test_every_study_file_in_a_page_is_a_study(block: Snippet, tmp_path: Path) -> None:
    content = tomllib.loads(block.text)
    if "name" in content:
        path = tmp_path / "study.toml"
        path.write_text(block.text, encoding="utf-8")
        check(read_study(path))
    else:  # a table or two of one
        check(StudySpec.model_validate(MINIMAL | content))


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.toml")), ids=lambda path: path.name)
def test_every_example_is_a_study(path: Path) -> None:
    check(read_study(path))


# python --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("block", blocks("python"), ids=str)
def test_every_python_snippet_compiles_and_imports_what_there_is(block: Snippet) -> None:
    compile(block.text, str(block.page), "exec")
    for module, names in re.findall(r"^from (fedstep[\w.]*) import (.+)$", block.text, re.M):
        found = importlib.import_module(module)
        for name in names.split(", "):
            assert hasattr(found, name), f"{module} has no {name}"


def test_the_readmes_task_is_the_examples() -> None:
    example = (ROOT / "examples/my_task.py").read_text()
    snippet = next(block.text for block in blocks("python") if "class Tumours" in block.text)
    for line in snippet.splitlines():
        if line.strip() and "..." not in line:
            assert line.split("  #")[0].strip() in example, f"README says {line.strip()!r}; the example does not"


# tables of the guide -------------------------------------------------------------------------------------------------


def table(name: str) -> list[list[str]]:
    """The rows of the guide's table behind `<!-- checked: name -->`, without its head."""
    text = (ROOT / "docs/guide.md").read_text(encoding="utf-8")
    found = re.search(rf"^<!-- checked: {name} -->\n((?:\|.*\n)+)", text, re.M)
    assert found, f"docs/guide.md has no table that is marked {name}"
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in found[1].splitlines()[2:]]


def value_of(cell: str) -> object:
    """A default as a table writes it."""
    return None if cell == "none" else tomllib.loads(f"value = {cell.strip('`')}")["value"]


OPTIONS: dict[str, type[BaseModel]] = {
    "optuna": OptunaOptions,
    "grid": GridOptions,
    "ray": RayOptions,
    "stepwise": StepwiseOptions,
    "fedex": FedexOptions,
    "population": PopulationOptions,
    "fixed": FixedOptions,
    "outside": OutsideOptions,
    "schedule": ScheduleOptions,
}
SELECTORS: dict[str, type[BaseModel]] = {
    "deadline": DeadlineOptions,
    "oort": OortOptions,
    "power_of_choice": PowerOfChoiceOptions,
}
PARTS: dict[str, type[BaseModel]] = {
    name: type(field.default)
    for name, field in StudySpec.model_fields.items()
    if name in ("objective", "round", "evaluation", "budget", "guard")
}
NEEDED: dict[str, dict[str, object]] = {"schedule": {"stages": [{"rounds": 1}]}}
"""What a model has no default for."""


@pytest.mark.parametrize(("name", "model"), [*OPTIONS.items(), *SELECTORS.items(), *PARTS.items()])
def test_a_tables_keys_and_defaults_are_the_codes(name: str, model: type[BaseModel]) -> None:
    rows = {row[0].strip("`"): row[1] for row in table(name)}
    assert list(rows) == list(model.model_fields)
    needed = NEEDED.get(name, {})
    assert {key for key, cell in rows.items() if cell == "required"} == needed.keys()
    given = {key: value_of(cell) for key, cell in rows.items() if key not in needed}
    said = {key: value for key, value in given.items() if value is not None}
    assert model.model_validate(needed | said) == model.model_validate(needed)
    assert {key for key, value in given.items() if value is None} == {
        key for key, field in model.model_fields.items() if field.default is None
    }


def test_every_tuner_with_options_has_a_table() -> None:
    with pytest.raises(InvalidInputError) as refusal:
        validate_tuner(StudySpec.model_validate(MINIMAL | {"tuner": {"name": "?"}}))
    tuners = set(INLINE.findall(refusal.value.message.split("known are")[1]))
    assert tuners - {"random"} == OPTIONS.keys()


def test_every_selector_with_options_has_a_table() -> None:
    with pytest.raises(InvalidInputError) as refusal:
        validate_selector(Plugin(name="?"))
    selectors = set(INLINE.findall(refusal.value.message.split("known are")[1]))
    assert selectors - {"random", "all"} == SELECTORS.keys()


def test_the_step_wise_constants_in_the_guide_are_the_codes() -> None:
    settings = vars(StepwiseSettings())
    rows = {row[0].strip("`"): value_of(row[1]) for row in table("constants")}
    assert rows == {name: settings.get(name) for name in rows}
    ranges = {row[0].strip("`"): row[2] for row in table("constants")}
    assert ranges == {name: f"{show(BOUNDS[name].least)} to {show(BOUNDS[name].most)}" for name in rows}
    assert not rows.keys() & StepwiseOptions.model_fields.keys(), "an option of its own is no constant"


def test_the_keys_of_a_study_are_the_codes() -> None:
    rows = {row[0].strip("`"): row[1] for row in table("StudySpec")}
    plain = {key: field for key, field in StudySpec.model_fields.items() if key in rows}
    rest = set(StudySpec.model_fields) - set(rows)
    assert rest == {*PARTS, "space", "hyperparameters", "tuner", "selector", "aggregator"}
    for key, cell in rows.items():
        default = plain[key].default
        assert (cell == "required") if default is PydanticUndefined else value_of(cell) == default


def test_the_guide_lists_the_standard_hyperparameters() -> None:
    rows = [(name.strip("`"), scope, value_of(default), meaning) for name, scope, default, meaning in table("STANDARD")]
    assert rows == [(name, str(s.scope), s.default, s.meaning) for name, s in STANDARD.items()]


def test_the_guide_lists_every_tuner_selector_and_aggregator() -> None:
    guide = (ROOT / "docs/guide.md").read_text(encoding="utf-8")
    unknown = Plugin(name="?")

    def known() -> Iterator[str]:
        for validate in (
            lambda: validate_tuner(StudySpec.model_validate(MINIMAL | {"tuner": {"name": "?"}})),
            lambda: validate_selector(unknown),
            lambda: validate_aggregator(unknown),
        ):
            with pytest.raises(InvalidInputError) as refusal:
                validate()
            yield from INLINE.findall(refusal.value.message.split("known are")[1])

    names = list(known())
    assert len(names) >= 10
    assert [name for name in names if f"`{name}`" not in guide] == []


# the protocol's page -------------------------------------------------------------------------------------------------


def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("fedstep_reference", ROOT / "proto/reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_the_protocols_page_is_current(tmp_path: Path) -> None:
    generator().main([str(tmp_path / "protocol.md")])
    made = (tmp_path / "protocol.md").read_text(encoding="utf-8")
    assert made == (ROOT / "docs/protocol.md").read_text(encoding="utf-8"), "run `python proto/reference.py`"


def test_the_protocols_page_lists_every_kind_of_event() -> None:
    source = "\n".join(
        path.read_text(encoding="utf-8") for path in sorted((ROOT / "server/fedstep/server").rglob("*.py"))
    )
    kinds = set(re.findall(r'NewEvent\(\s*"([a-z_]+)"', source))
    kinds |= set(re.findall(r'\.fault\([^"]*"([a-z_]+)"', source))
    assert {"round_committed", "update_stale"} <= kinds
    # A tuner's decisions: a word, or one of two.
    notes = re.findall(r'\.note\(\s*("[a-z]+"[^,]*),', source)
    decided = {kind for note in notes for kind in re.findall(r'"([a-z]+)"', note)}
    assert {"window", "adoption", "rejection", "exploitation"} <= decided
    kinds |= decided
    kinds |= {f"study_{state}" for state in StudyState if state.ended} | {f"study_{StudyState.INTERRUPTED}"}
    kinds |= {f"trial_{state}" for state in TrialState if state is not TrialState.RUNNING}
    fine = (Status.OPEN, Status.ACCEPTED, Status.ABANDONED, Status.GOES_ON)
    kinds |= {f"client_{status}" for status in Status if status not in fine}
    rows = re.findall(r"^\| (`[a-z_]+`[^|]*) \|", (ROOT / "docs/protocol_preface.md").read_text(encoding="utf-8"), re.M)
    listed = {kind for row in rows for kind in INLINE.findall(row)}
    assert kinds - listed == set()
