"""Studies as messages and back.

What is unset in a message takes the default of `fedstep.common.spec`: a sub-message that is not there, an enum of 0,
an empty text, and a 0 where 0 is not a legal value. Where 0 or false is legal, what a sub-message that is there says
counts.
"""

from collections.abc import Iterable
from datetime import timedelta
from typing import Any

from google.protobuf import duration_pb2, struct_pb2
from google.protobuf.message import Message
from pydantic import ValidationError

from fedstep.common.errors import FieldViolation, InvalidInputError
from fedstep.common.hyperparameters import Value, from_proto, map_to_proto, to_proto
from fedstep.common.space import CategoricalParameter, FloatParameter, Parameter
from fedstep.common.spec import Plugin, StudySpec
from fedstep.common.standard import Scope
from fedstep.common.validation import sentences, violations_of
from fedstep.v1 import hyperparameters_pb2, study_pb2

_SCOPES = {
    Scope.CLIENT: hyperparameters_pb2.SCOPE_CLIENT,
    Scope.SERVER: hyperparameters_pb2.SCOPE_SERVER,
    Scope.ROUND: hyperparameters_pb2.SCOPE_ROUND,
}
_SCOPE_NAMES: dict[int, str] = {number: scope.value for scope, number in _SCOPES.items()}
_DIRECTIONS = {"minimize": study_pb2.DIRECTION_MINIMIZE, "maximize": study_pb2.DIRECTION_MAXIMIZE}
_DIRECTION_NAMES: dict[int, str] = {number: name for name, number in _DIRECTIONS.items()}


def spec_to_proto(spec: StudySpec) -> study_pb2.StudySpec:
    """The study as a message, every field set."""
    message = study_pb2.StudySpec(
        name=spec.name,
        task=spec.task,
        seed=spec.seed,
        space=[_parameter_to_proto(name, parameter) for name, parameter in spec.space.parameters.items()],
        hyperparameters=map_to_proto(spec.hyperparameters),
        objective=study_pb2.Objective(metric=spec.objective.metric, direction=_DIRECTIONS[spec.objective.direction]),
        tuner=_plugin_to_proto(spec.tuner),
        selector=_plugin_to_proto(spec.selector),
        aggregator=_plugin_to_proto(spec.aggregator),
        round=study_pb2.RoundPolicy(
            cohort_size=spec.round.cohort_size,
            over_selection=spec.round.over_selection or 0.0,
            quorum=spec.round.quorum,
            deadline=_duration(spec.round.deadline),
            min_clients=spec.round.min_clients,
            wait_for_clients=_duration(spec.round.wait_for_clients),
            late_updates=spec.round.late_updates,
            mode=spec.round.mode,
            buffer_size=spec.round.buffer_size,
            max_staleness=spec.round.max_staleness,
        ),
        evaluation=study_pb2.EvaluationPolicy(
            cohort_size=spec.evaluation.cohort_size,
            deadline=_duration(spec.evaluation.deadline),
            held_out=spec.evaluation.held_out,
        ),
        budget=study_pb2.Budget(
            trials=spec.budget.trials,
            rounds_per_trial=spec.budget.rounds_per_trial,
            final_rounds=spec.budget.final_rounds,
            rounds=spec.budget.rounds,
            client_rounds=spec.budget.client_rounds,
            payload_bytes=spec.budget.payload_bytes,
        ),
        guard=study_pb2.GuardPolicy(
            window=spec.guard.window,
            factor=spec.guard.factor,
            margin=spec.guard.margin,
            max_update_ratio=spec.guard.max_update_ratio,
        ),
        parallel_trials=spec.parallel_trials,
    )
    if spec.budget.time is not None:
        message.budget.time.CopyFrom(_duration(spec.budget.time))
    return message


def spec_from_proto(message: study_pb2.StudySpec) -> StudySpec:
    """The study that a message describes, checked whole.

    Raises:
        InvalidInputError: It holds mistakes; the violations name the fields as a study file does.
    """
    faults: list[FieldViolation] = []
    content: dict[str, Any] = {
        "name": message.name,
        "task": message.task,
        "seed": message.seed,
        "space": _space_from_proto(message.space, faults),
        "hyperparameters": {
            name: _value(value, f"hyperparameters.{name}", faults) for name, value in message.hyperparameters.items()
        },
        "parallel_trials": message.parallel_trials or None,
        "objective": {
            "metric": message.objective.metric or None,
            "direction": _enum(message.objective.direction, _DIRECTION_NAMES, "objective.direction", faults),
        },
        "tuner": _plugin_from_proto(message.tuner),
        "selector": _plugin_from_proto(message.selector),
        "aggregator": _plugin_from_proto(message.aggregator),
    }
    policies: list[tuple[str, Message, tuple[str, ...]]] = [
        ("round", message.round, ("over_selection", "quorum", "min_clients", "late_updates", "mode", "max_staleness")),
        ("evaluation", message.evaluation, ("cohort_size",)),
        ("budget", message.budget, ("trials", "rounds_per_trial")),
        ("guard", message.guard, ("window", "factor", "max_update_ratio")),
    ]
    for name, policy, not_zero in policies:
        if message.HasField(name):  # type: ignore[arg-type]  # the stub lists the names as literals
            content[name] = _policy_from_proto(name, policy, not_zero, faults)
    try:
        spec = StudySpec.model_validate(_without_unset(content))
    except ValidationError as error:
        faults += [fault for fault in violations_of(error, StudySpec) if fault.field not in {f.field for f in faults}]
    if faults:
        raise InvalidInputError(sentences(faults), faults)
    return spec


def _policy_from_proto(
    name: str, message: Message, not_zero: tuple[str, ...], faults: list[FieldViolation]
) -> dict[str, Any]:
    """A flat message as a table; `not_zero` are the fields whose 0 means that they are unset."""
    table: dict[str, Any] = {}
    for field in message.DESCRIPTOR.fields:
        value = getattr(message, field.name)
        if isinstance(value, duration_pb2.Duration):
            if message.HasField(field.name):
                table[field.name] = _timedelta(value, f"{name}.{field.name}", faults)
        elif value or field.name not in not_zero:
            table[field.name] = value
    return table


def _parameter_to_proto(name: str, parameter: Parameter) -> hyperparameters_pb2.Parameter:
    message = hyperparameters_pb2.Parameter(
        name=name,
        scope=_SCOPES[parameter.scope],
        conditions=[
            hyperparameters_pb2.Condition(parameter=parent, values=[to_proto(value) for value in values])
            for parent, values in parameter.when.items()
        ],
    )
    if isinstance(parameter, CategoricalParameter):
        message.categorical.choices.extend(to_proto(choice) for choice in parameter.choices)
    elif isinstance(parameter, FloatParameter):
        message.float_range.CopyFrom(
            hyperparameters_pb2.FloatRange(
                low=parameter.low, high=parameter.high, log=parameter.log, step=parameter.step or 0.0
            )
        )
    else:
        message.int_range.CopyFrom(
            hyperparameters_pb2.IntRange(low=parameter.low, high=parameter.high, log=parameter.log, step=parameter.step)
        )
    return message


def _space_from_proto(
    messages: Iterable[hyperparameters_pb2.Parameter], faults: list[FieldViolation]
) -> dict[str, dict[str, Any]]:
    space: dict[str, dict[str, Any]] = {}
    for message in messages:
        field = f"space.{message.name}"
        if message.name in space:
            faults.append(FieldViolation(field, "stands in the space twice: drop one."))
        table = _range_from_proto(message, field, faults)
        scope = _enum(message.scope, _SCOPE_NAMES, f"{field}.scope", faults)
        when: dict[str, list[Value | None]] = {}
        for condition in message.conditions:
            where = f"{field}.when.{condition.parameter}"
            if condition.parameter in when:
                faults.append(FieldViolation(where, "stands in the conditions twice: name each parameter once."))
            when[condition.parameter] = [_value(value, where, faults) for value in condition.values]
        space[message.name] = {**table, "when": when, **({"scope": scope} if scope else {})}
    return space


def _range_from_proto(
    message: hyperparameters_pb2.Parameter, field: str, faults: list[FieldViolation]
) -> dict[str, Any]:
    match message.WhichOneof("range"):
        case "float_range":
            real = message.float_range
            return {"type": "float", "low": real.low, "high": real.high, "log": real.log, "step": real.step or None}
        case "int_range":
            whole = message.int_range
            return {"type": "int", "low": whole.low, "high": whole.high, "log": whole.log, "step": whole.step or 1}
        case "categorical":
            choices = [_value(choice, f"{field}.choices", faults) for choice in message.categorical.choices]
            return {"type": "categorical", "choices": choices}
        case _:
            faults.append(FieldViolation(field, "has no range: set one of float_range, int_range and categorical."))
            return {}


def _plugin_to_proto(plugin: Plugin) -> study_pb2.Plugin:
    options = struct_pb2.Struct()
    options.update(plugin.options)
    return study_pb2.Plugin(name=plugin.name, options=options)


def _plugin_from_proto(message: study_pb2.Plugin) -> dict[str, Any] | None:
    if not message.name and not message.options.fields:
        return None
    options = {name: _plain(value) for name, value in message.options.fields.items()}
    return {**options, "name": message.name}


def _plain(value: struct_pb2.Value) -> object:
    """A Struct's value; it holds whole numbers as reals, so those come back as what they were."""
    match value.WhichOneof("kind"):
        case "struct_value":
            return {name: _plain(item) for name, item in value.struct_value.fields.items()}
        case "list_value":
            return [_plain(item) for item in value.list_value.values]
        case "number_value":
            number = value.number_value
            return int(number) if number.is_integer() else number
        case "string_value":
            return value.string_value
        case "bool_value":
            return value.bool_value
        case _:
            return None


def _value(message: hyperparameters_pb2.HyperparameterValue, field: str, faults: list[FieldViolation]) -> Value | None:
    try:
        return from_proto(message)
    except ValueError:
        faults.append(FieldViolation(field, "has no value: set one."))
        return None


def _enum(number: int, names: dict[int, str], field: str, faults: list[FieldViolation]) -> str | None:
    """The name that a number stands for; None for 0, which means unset."""
    if number and number not in names:
        faults.append(FieldViolation(field, f"is {number}, which this coordinator does not know: use a smaller one."))
    return names.get(number)


def _duration(value: timedelta) -> duration_pb2.Duration:
    message = duration_pb2.Duration()
    message.FromTimedelta(value)
    return message


def _timedelta(message: duration_pb2.Duration, field: str, faults: list[FieldViolation]) -> timedelta | None:
    try:
        return message.ToTimedelta()
    except (ValueError, OverflowError):
        faults.append(FieldViolation(field, "is not a duration that can be used: make it shorter."))
        return None


def _without_unset(content: dict[str, Any]) -> dict[str, Any]:
    """Drops what is None in a study's tables, so that the defaults stand."""
    return {
        key: {name: item for name, item in value.items() if item is not None} if isinstance(value, dict) else value
        for key, value in content.items()
        if value is not None
    }
