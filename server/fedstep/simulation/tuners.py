"""The tuners of a comparison, by name: `stepwise`, `optuna:TPESampler:n_startup_trials=4+HyperbandPruner`.

And the selectors, where they are compared as well: `deadline`, `oort:penalty=1`.
"""

import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from pydantic import ValidationError

from fedstep.common.buffers import buffer_faults
from fedstep.common.errors import InvalidInputError
from fedstep.common.hyperparameters import Value
from fedstep.common.spec import Budget, Plugin, StudySpec
from fedstep.common.validation import sentences, show, violations_of
from fedstep.server.selection.registry import validate_selector
from fedstep.server.tuning.registry import validate_tuner
from fedstep.simulation.outcome import Leg

_TRIALS_A_ROUND = 4
"""Client-rounds are to end a study. A number of trials would end it early where some of them diverge or are pruned."""

_OPENING, _CLOSING = "[{", "]}"
_SECOND = re.compile(r"\+(?=[A-Z])")
_IN_TWO_PARTS = {
    "optuna": ("sampler", "pruner", "NopPruner", "enqueue"),
    "ray": ("searcher", "scheduler", "FIFOScheduler", "population"),
}
"""Of these tuners: the options that name their parts, the one that stops nothing, and the option of neither part."""
_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True)
class Contender:
    """A tuner with its options, and with a selector where these are compared as well.

    Attributes:
        text: As it was written; what tables and pictures call it.
        plugin: What a study file would say in `[tuner]`.
        selector: What it would say in `[selector]`; None for what it says.
    """

    text: str
    plugin: Plugin
    selector: Plugin | None = None


def read_contenders(text: str) -> list[Contender]:
    """The tuners of a list such as `stepwise,random,fixed:cosine=true`, each once, in their order.

    A tuner is its name and, after colons, options as in a study file. After `optuna:` come a sampler with its options
    and, after a `+`, a pruner with its own; after `ray:` a searcher and a scheduler. Without the second nothing is
    pruned.

    Raises:
        InvalidInputError: It cannot be read so. Whether such a tuner exists is seen by `check_contender`.
    """
    names = _names("--tuners", text, "tuners", "stepwise,random")
    return [Contender(name, _plugin("--tuners", name)) for name in names]


def with_selectors(contenders: Sequence[Contender], text: str) -> list[Contender]:
    """Every tuner with every selector of a list such as `random,deadline:quantile=0.3`; `stepwise @ random` and so on.

    Raises:
        InvalidInputError: It cannot be read so. Whether such a selector exists is seen by `check_contender`.
    """
    names = _names("--selectors", text, "selectors", "random,deadline")
    selectors = {name: _plugin("--selectors", name) for name in names}
    return [
        replace(contender, text=f"{contender.text} @ {name}", selector=selector)
        for contender in contenders
        for name, selector in selectors.items()
    ]


def check_contender(contender: Contender, study: StudySpec, defaults: Mapping[str, Value] | None = None) -> None:
    """Checks that the study could be tuned so, and its clients be selected so.

    Args:
        contender: The tuner.
        study: As `study_of` makes it.
        defaults: The task's, by name, where it is known.

    Raises:
        InvalidInputError: There is no such tuner, selector or part of it, with the nearest right name, or an option is
            wrong.
    """
    try:
        validate_selector(study.selector)
    except InvalidInputError as error:
        raise InvalidInputError(
            error.message if contender.selector is None else f"--selectors has {study.selector.name}: {error.message}"
        ) from None
    try:
        validate_tuner(study, defaults)
    except InvalidInputError as error:
        name = contender.plugin.name
        faults = error.violations
        if faults and faults[0].field == "tuner.name":
            hint = faults[0].description.removeprefix(f"is {show(name)}: ")
            raise InvalidInputError(f"--tuners has {contender.text}, but there is no tuner {name}: {hint}") from None
        raise InvalidInputError(f"--tuners has {contender.text}: {error.message}") from None
    if mixed := buffer_faults(study):
        of_selector = contender.selector is not None and mixed[0].field.startswith("selector")
        option = "--selectors" if of_selector else "--tuners"
        raise InvalidInputError(f"{option} has {contender.text}: {sentences(mixed)}")


def study_of(study: StudySpec, contender: Contender, seed: int, rounds: int, trial_rounds: int) -> StudySpec:
    """The study tuned by a contender, with a budget that counts everything.

    Args:
        study: What all contenders tune.
        contender: The tuner.
        seed: Of everything that is drawn.
        rounds: The budget, in rounds of the study's cohort.
        trial_rounds: Rounds of a full trial.
    """
    return _budgeted(_selected(study, contender), contender.plugin, seed, rounds, trial_rounds)


def retraining_of(
    study: StudySpec, contender: Contender, stages: Sequence[Leg], average: float, seed: int
) -> StudySpec:
    """The study that trains a schedule from scratch.

    Args:
        study: What was tuned.
        contender: The tuner that found it.
        stages: The schedule, at least one leg.
        average: Decay of the averaged model that is kept beside; 0 for none.
        seed: Another one than that of the tuning.
    """
    legs = [stage.model_dump() for stage in stages]
    plugin = Plugin.model_validate({"name": "schedule", "stages": legs, "average": average})
    rounds = sum(stage.rounds for stage in stages)
    return _budgeted(_selected(study, contender), plugin, seed, rounds, rounds)


def _selected(study: StudySpec, contender: Contender) -> StudySpec:
    return study if contender.selector is None else study.model_copy(update={"selector": contender.selector})


def _budgeted(study: StudySpec, plugin: Plugin, seed: int, rounds: int, trial_rounds: int) -> StudySpec:
    if not study.round.cohort_size:
        raise InvalidInputError(
            f"The study {study.name} has no cohort_size: give its [round] one, so that a round has a price."
        )
    budget = Budget(
        trials=_TRIALS_A_ROUND * rounds,
        rounds_per_trial=trial_rounds,
        client_rounds=rounds * (study.round.buffer_size or study.round.cohort_size),
    )
    return study.model_copy(update={"tuner": plugin, "seed": seed, "budget": budget})


def _names(option: str, text: str, noun: str, such_as: str) -> list[str]:
    """The parts of a list, each once, in their order."""
    names = dict.fromkeys(part.strip() for part in _split(text, ","))
    if "" in names:
        raise InvalidInputError(
            f"{option} {text} has an empty name: write {noun} with commas between them, such as {such_as}."
        )
    return list(names)


def _plugin(option: str, text: str) -> Plugin:
    """A tuner or selector, and what comes after its name."""
    name, *parts = _split(text, ":")
    whole = f"{option} has {text}"
    named = _IN_TWO_PARTS.get(name) if option == "--tuners" else None
    arguments = _two_parts(whole, parts, *named) if named else _options(whole, parts)
    try:
        return Plugin.model_validate({**arguments, "name": name})
    except ValidationError as error:
        raise InvalidInputError(f"{whole}: {violations_of(error, Plugin)[0].description}") from None


def _two_parts(
    whole: str, parts: list[str], first: str, second: str, neither: str, of_neither: str
) -> Mapping[str, object]:
    """What chooses configurations with its options, and what stops trials with its own."""
    chooses, *stops = _SECOND.split(":".join(parts), maxsplit=1)
    arguments: dict[str, object] = {second: neither}
    for kind, said in ((first, chooses), (second, stops[0] if stops else "")):
        if said:
            name, *options = _split(said, ":")
            if "+" in name:
                raise InvalidInputError(f"{whole}, where no {second} comes after the +: write options after colons.")
            if "=" in name:
                raise InvalidInputError(f"{whole}, where no {kind} is named: write its name before its options.")
            own = _options(whole, options)
            if of_neither in own:
                arguments[of_neither] = own.pop(of_neither)
            arguments |= {kind: name, f"{kind}_options": own}
    return arguments


def _options(whole: str, pairs: list[str]) -> dict[str, object]:
    options: dict[str, object] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not _KEY.fullmatch(key) or key == "name":
            raise InvalidInputError(
                f"{whole}, where {show(pair)} is no option: write options after colons as KEY=VALUE."
            )
        if key in options:
            raise InvalidInputError(f"{whole}, where {key} stands twice: give it one value.")
        options[key] = _value(value)
        if isinstance(options[key], str) and value[:1] in ("[", "{"):
            raise InvalidInputError(f"{whole}, where {value} is no TOML: write [1, 2] or {{lr = 0.1}}.")
    return options


def _value(text: str) -> object:
    """A value as TOML writes it; what is none, such as a word without quotes, is a text."""
    loads: Callable[[str], dict[str, object]] = tomllib.loads
    try:
        return loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _split(text: str, mark: str) -> list[str]:
    """The parts between marks, except those inside brackets."""
    parts, depth = [""], 0
    for letter in text:
        depth += (letter in _OPENING) - (letter in _CLOSING)
        if letter == mark and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return parts
