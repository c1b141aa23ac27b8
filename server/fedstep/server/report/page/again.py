"""The last section: what it takes to make the study again."""

import hashlib
from collections.abc import Sequence

import tomli_w

from fedstep.common.phrases import count_text
from fedstep.common.spec import StudySpec
from fedstep.common.version import VERSION
from fedstep.server.report.page.blocks import Block, Code, Section, Table, Words
from fedstep.server.report.page.story import Holding, Story

_STARTED = ("study_started", "study_resumed")


def again_section(story: Story) -> Section:
    """Versions, seeds, digests and the study file."""
    spec, result = story.study.spec, story.study.result
    train = sum(holding.train_samples for holding in story.holdings)
    validation = sum(holding.validation_samples for holding in story.holdings)
    rows = [
        ["study", spec.name],
        ["task", spec.task],
        ["seed", str(spec.seed)],
        *_times(story),
        ["model, SHA-256", result.model_sha256.hex() if result is not None else "no model yet"],
        ["study file, SHA-256", hashlib.sha256(study_toml(spec).encode()).hexdigest()],
    ]
    if story.holdings:
        have = count_text(len(story.holdings), "client")
        rows += [
            ["data", f"{have}, {train:,} training and {validation:,} validation samples"],
            ["who has how much, SHA-256", holdings_digest(story.holdings)],
        ]
    blocks: list[Block] = [
        Table(["", ""], rows),
        _versions(story),
        Words(
            "Clients keep their data to themselves: what can be compared is who had how many samples. The same seed "
            "gives the same study, bit for bit, where the same clients answer in the same order."
        ),
        Code(study_toml(spec), "The study file", f"{spec.name}.toml"),
        *_commands(story),
    ]
    see = "The same versions, seed, data and study file make the same study; the digests say whether they are the same."
    return Section("again", "To make it again", see, blocks)


def _times(story: Story) -> list[list[str]]:
    if story.simulated is not None:
        return [["begun", "in virtual time, at 0 s"]]
    study = story.study
    return [
        ["begun", f"{study.created_at:%Y-%m-%d %H:%M:%S} UTC"],
        ["last commit", f"{study.updated_at:%Y-%m-%d %H:%M:%S} UTC"],
    ]


def _commands(story: Story) -> list[Code]:
    if story.simulated is not None:
        return [Code(story.simulated, "To simulate it again")] if story.simulated else []
    spec = story.study.spec
    program = ", and the program that stepped its runs beside it" if spec.tuner.name == "outside" else ""
    said = f"To run it again, by a coordinator that has no study of that name{program}"
    return [Code(f"fedstep study run {spec.name}.toml", said)]


def study_toml(spec: StudySpec) -> str:
    """The study file that describes exactly this study, with every default written out."""
    tables = spec.model_dump(mode="json", exclude_none=True)
    for parameter in tables["space"].values():
        if not parameter["when"]:
            del parameter["when"]
    return tomli_w.dumps({key: value for key, value in tables.items() if value != {}})


def holdings_digest(holdings: Sequence[Holding]) -> str:
    """The SHA-256 of who has how many samples: `NAME TRAIN VALIDATION`, a line a client, by name."""
    lines = (f"{h.client} {h.train_samples} {h.validation_samples}\n" for h in sorted(holdings, key=lambda h: h.client))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _versions(story: Story) -> Table:
    """Of the coordinator, as its study's events tell them, from each of its lives where they differ."""
    told = [event.details["versions"] for event in story.of_kind(*_STARTED) if event.details.get("versions")]
    lives: list[dict[str, str]] = []
    for versions in told:
        if versions not in lives:
            lives.append(versions)
    names = dict.fromkeys(name for versions in lives for name in versions)
    rows = [[name, " then ".join(dict.fromkeys(versions.get(name, "–") for versions in lives))] for name in names]
    rows.append(["this report, fedstep", VERSION])
    return Table(["version of", ""], rows, title="Versions", see="Of the coordinator that ran it.")
