"""What a study file may say of the step-wise tuner."""

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from fedstep.common.errors import FieldViolation
from fedstep.common.hyperparameters import Value
from fedstep.common.spec import StudySpec
from fedstep.common.validation import MistakesError, one_of, show
from fedstep.server.tuning.proposers import RANDOM, check_sampler
from fedstep.server.tuning.ray_proposer import PREFIX, check_ray_sampler
from fedstep.server.tuning.stepwise_settings import StepwiseSettings, constant_faults

_EARLIEST_SCREEN = 30  # algorithm.md, screen: a smaller budget goes straight to the generations


def _checked(raw: object) -> object:
    faults = list(constant_faults(raw)) if isinstance(raw, Mapping) else []
    if faults:
        raise MistakesError(faults)
    return raw


Constants = Annotated[dict[str, int | float], BeforeValidator(_checked)]
"""Numbers of the method by name, each within its bounds."""


class StepwiseOptions(BaseModel):
    """What a study file may say of the step-wise tuner.

    Attributes:
        sampler: Who proposes challengers inside the trust region: "random", the class name of an Optuna sampler, or
            "ray:" and that of a searcher of Ray Tune's.
        sampler_options: The sampler's keyword arguments.
        start: Values of the default configuration, where they are not the task's.
        screen_only: Parameters that are chosen by the screen and stay: those that change the model's shape.
        use_probe: See `StepwiseSettings`.
        use_middle: See `StepwiseSettings`.
        use_rewind: See `StepwiseSettings`.
        use_hint: See `StepwiseSettings`.
        use_forks: See `StepwiseSettings`.
        use_guard: See `StepwiseSettings`.
        use_settle: See `StepwiseSettings`.
        use_average: See `StepwiseSettings`.
        use_averaged_evidence: See `StepwiseSettings`.
        screen_members: See `StepwiseSettings`.
        screen_default: See `StepwiseSettings`.
        constants: Any other of the settings, by name.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    sampler: str = RANDOM
    sampler_options: dict[str, Any] = Field(default_factory=dict)
    start: dict[str, Value] = Field(default_factory=dict)
    screen_only: list[str] = Field(default_factory=list)
    use_probe: bool = Field(default=True, strict=True)
    use_middle: bool = Field(default=True, strict=True)
    use_rewind: bool = Field(default=True, strict=True)
    use_hint: bool = Field(default=True, strict=True)
    use_forks: bool = Field(default=True, strict=True)
    use_guard: bool = Field(default=True, strict=True)
    use_settle: bool = Field(default=True, strict=True)
    use_average: bool = Field(default=True, strict=True)
    use_averaged_evidence: bool = Field(default=True, strict=True)
    screen_members: int = Field(default=8, strict=True, ge=0, le=100)
    screen_default: bool = Field(default=True, strict=True)
    constants: Constants = Field(default_factory=dict)

    def settings(self) -> StepwiseSettings:
        """The constants with what the study file says; what only a screen can choose has one as soon as it can be."""
        names = {field.name for field in fields(StepwiseSettings)}
        own = {name: getattr(self, name) for name in names if name in type(self).model_fields}
        if self.screen_only:
            own["screen_from_rounds"] = _EARLIEST_SCREEN
        numbers: dict[str, Any] = dict(self.constants)
        return replace(StepwiseSettings(**own), **numbers)

    def check(self, spec: StudySpec) -> None:
        """Checks what needs the study.

        Raises:
            MistakesError: The sampler cannot be made, or a name or a value is wrong; the fields are relative to
                `tuner`.
        """
        faults = spec.space.value_faults(self.start, "tuner.start")
        for name in self.screen_only:
            if name not in spec.space:
                said = f"there is no parameter {show(name)}: {one_of(name, spec.space.parameters)}"
                faults.append(FieldViolation("tuner.screen_only", said))
        try:
            check = check_ray_sampler if self.sampler.startswith(PREFIX) else check_sampler
            check(self.sampler, self.sampler_options, spec)
        except MistakesError as error:
            faults += error.violations
        if faults:
            raise MistakesError(faults)
