"""The step-wise tuner against the kit of program tuners."""

from typing import Any, ClassVar

from contract.program_kit import ProgramKit


class TestStepwise(ProgramKit):
    tuner: ClassVar[dict[str, Any]] = {"name": "stepwise"}


class TestStepwiseWithTpe(ProgramKit):
    tuner: ClassVar[dict[str, Any]] = {"name": "stepwise", "sampler": "TPESampler"}


class TestStepwiseOfALargerBudget(ProgramKit):
    tuner: ClassVar[dict[str, Any]] = {"name": "stepwise"}
    budget: ClassVar[dict[str, Any]] = {"rounds": 100, "client_rounds": 900}


class TestStepwiseOfASmallBudget(ProgramKit):
    tuner: ClassVar[dict[str, Any]] = {"name": "stepwise", "constants": {"fork_rounds_left": 0}}
    budget: ClassVar[dict[str, Any]] = {"rounds": 20}
