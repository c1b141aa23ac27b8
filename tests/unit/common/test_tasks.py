import sys
from pathlib import Path

import pytest

from fedstep.common.errors import InvalidInputError
from fedstep.common.standard import STANDARD
from fedstep.common.task import ClientInfo
from fedstep.common.tasks import available_tasks, build_model, full_hyperparameters, load_client_data, load_task

EXAMPLE = Path(__file__).parents[3] / "examples" / "my_task.py"

TASK = """
from fedstep.common.task import Task

class Mine(Task):
    name = "mine"
    defaults = {defaults}
    def build_model(self, hyperparameters): ...
    def load_data(self, client): ...
"""


def write(folder: Path, text: str, name: str = "mine.py") -> str:
    path = folder / name
    path.write_text(text)
    return str(path)


def test_built_in_tasks_are_known_by_name() -> None:
    assert {"digits", "mnist-writers"} <= set(available_tasks())
    for name in available_tasks():
        assert load_task(name).name == name


def test_a_misspelt_name_gets_the_nearest_right_one() -> None:
    with pytest.raises(InvalidInputError, match='no built-in task "digts": did you mean "digits"'):
        load_task("digts")
    with pytest.raises(InvalidInputError, match=r"digits, .*mnist-writers"):
        load_task("zzz")


def test_a_file_holds_a_task() -> None:
    assert load_task(str(EXAMPLE)).name == "tumours"


def test_a_file_with_one_subclass_needs_no_variable(tmp_path: Path) -> None:
    assert load_task(write(tmp_path, TASK.format(defaults="{'lr': 1, 'width': 3}"))).name == "mine"


def test_two_tasks_in_a_file_need_a_variable(tmp_path: Path) -> None:
    text = TASK.format(defaults="{}")
    path = write(tmp_path, text + text.replace("Mine", "Other"))
    with pytest.raises(InvalidInputError, match=r"several tasks \(Mine, Other\).*task = Mine\(\)"):
        load_task(path)
    assert load_task(write(tmp_path, text + text.replace("Mine", "Other") + "task = Other()")).name == "mine"


def test_a_file_may_import_what_lies_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    write(tmp_path, "WIDTH = 7", "beside_my_task.py")
    text = "from beside_my_task import WIDTH\n" + TASK.format(defaults="{'width': WIDTH}")
    assert load_task(write(tmp_path, text)).defaults == {"width": 7}


def test_a_module_holds_a_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_task("fedstep.client.tasks.digits").name == "digits"
    assert load_task("fedstep.client.tasks.digits:Digits").name == "digits"
    write(tmp_path, TASK.format(defaults="{}") + "other = Mine()", "task_of_a_module.py")
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.chdir(tmp_path)
    assert load_task("task_of_a_module:other").name == "mine"


def test_a_mistake_in_a_file_is_said_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"ModuleNotFoundError: No module named 'no_such' \(mine\.py, line 2\)"):
        load_task(write(tmp_path, "\nimport no_such"))
    with pytest.raises(InvalidInputError, match=r"ZeroDivisionError: division by zero \(mine\.py, line 3\)"):
        load_task(write(tmp_path, "def f():\n\n  1 / 0\nf()"))
    with pytest.raises(InvalidInputError, match=r"SyntaxError: .* \(mine\.py, line 1\)"):
        load_task(write(tmp_path, "def"))
    with pytest.raises(InvalidInputError, match=r"SystemExit: no message \(mine\.py, line 2\)"):
        load_task(write(tmp_path, "import sys\nsys.exit()"))


def test_a_torchvision_of_another_build_is_told_with_what_to_do(tmp_path: Path) -> None:
    text = "raise RuntimeError('operator torchvision::nms does not exist')"
    with pytest.raises(
        InvalidInputError,
        match=r"nms does not exist \(mine\.py, line 1\)\. The torchvision .* install both from one index",
    ):
        load_task(write(tmp_path, text))


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        ("None", r"load_data\(\) of the task mine returned None: let it return ClientData"),
        ("'data'", r"load_data\(\) of the task mine returned a str"),
        ("exit('no data')", r"task mine cannot load its data: SystemExit: no data \(mine\.py, line 8\)"),
        ("open('/no/such')", r"task mine cannot load its data: FileNotFoundError: .*/no/such.* \(mine\.py, line 8\)"),
    ],
)
def test_data_that_a_task_does_not_load_is_said_in_a_sentence(tmp_path: Path, answer: str, sentence: str) -> None:
    text = TASK.format(defaults={}).replace("load_data(self, client): ...", f"load_data(self, client): return {answer}")
    with pytest.raises(InvalidInputError, match=sentence):
        load_client_data(load_task(write(tmp_path, text)), ClientInfo("ann"))


def test_a_model_that_a_task_does_not_build_is_said_in_a_sentence(tmp_path: Path) -> None:
    raising = "build_model(self, hyperparameters): return torch.zeros(hyperparameters['width'])"
    text = "import torch\n" + TASK.format(defaults={}).replace("build_model(self, hyperparameters): ...", raising)
    task = load_task(write(tmp_path, text))
    with pytest.raises(InvalidInputError, match=r"task mine builds no model: KeyError: 'width' \(mine\.py, line 8\)"):
        build_model(task, {"lr": 0.1})
    with pytest.raises(InvalidInputError, match=r"no model with width = -1: RuntimeError: .* \(mine\.py, line 8\)"):
        build_model(task, {"width": -1, "lr": 0.1})


def test_a_model_that_is_none_is_said(tmp_path: Path) -> None:
    task = load_task(write(tmp_path, TASK.format(defaults={})))
    with pytest.raises(
        InvalidInputError, match=r"build_model\(\) of the task mine returned None: let it return a torch"
    ):
        build_model(task, {})


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        (
            "def __init__(self): self.rate = 1 / 0",
            r"Mine in .* cannot be made: ZeroDivisionError: .* \(mine\.py, line 6\)",
        ),
        ("defaults = property(lambda self: {}['lr'])", r"no defaults: KeyError: 'lr' \(mine\.py, line 6\)"),
        ("defaults = ['lr']", r"defaults of the task mine are a list: make them \{\"lr\": 0\.1\}"),
        ("defaults = None", r"defaults of the task mine are None"),
    ],
)
def test_a_task_that_cannot_be_made_is_said_in_a_sentence(tmp_path: Path, line: str, sentence: str) -> None:
    text = TASK.replace("defaults = {defaults}", line)
    with pytest.raises(InvalidInputError, match=sentence):
        load_task(write(tmp_path, text))


def test_an_error_that_cannot_say_what_it_is_is_named(tmp_path: Path) -> None:
    text = TASK.format(defaults={}).replace("load_data(self, client): ...", "load_data(self, client): raise Mute()")
    mute = "\nclass Mute(Exception):\n    def __str__(self): raise ValueError\n"
    with pytest.raises(InvalidInputError, match=r"load its data: Mute: no message \(mine\.py, line 8\)"):
        load_client_data(load_task(write(tmp_path, text + mute)), ClientInfo("ann"))


def test_a_file_or_module_without_a_task_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="no task in"):
        load_task(write(tmp_path, "x = 1"))
    with pytest.raises(InvalidInputError, match=r"task in .* is a int"):
        load_task(write(tmp_path, "task = 1"))
    with pytest.raises(InvalidInputError, match="no task file"):
        load_task(str(tmp_path / "none.py"))
    with pytest.raises(InvalidInputError, match=r"no module no\.such\.module"):
        load_task("no.such.module")
    with pytest.raises(InvalidInputError, match="no nothing in"):
        load_task("fedstep.client.tasks.digits:nothing")


def test_an_abstract_task_is_refused(tmp_path: Path) -> None:
    text = 'from fedstep.common.task import Task\nclass Half(Task):\n    name = "half"\n'
    with pytest.raises(InvalidInputError, match=r"Half .* cannot be made: .*abstract"):
        load_task(write(tmp_path, text))


@pytest.mark.parametrize(
    ("defaults", "sentence"),
    [("{'lr': -1.0}", "lr"), ("{'batch_size': 1.5}", "batch_size"), ("{'own': [1]}", r"own = \[1\]")],
)
def test_defaults_that_are_not_sane_are_refused(tmp_path: Path, defaults: str, sentence: str) -> None:
    with pytest.raises(InvalidInputError, match=sentence):
        load_task(write(tmp_path, TASK.format(defaults=defaults)))


def test_a_task_without_a_name_is_refused(tmp_path: Path) -> None:
    text = TASK.format(defaults="{}").replace('name = "mine"', "pass")
    with pytest.raises(InvalidInputError, match="has no name"):
        load_task(write(tmp_path, text))


def test_values_go_over_the_tasks_defaults_and_those_over_fedsteps(tmp_path: Path) -> None:
    task = load_task(write(tmp_path, TASK.format(defaults="{'lr': 0.3, 'momentum': 0.5, 'width': 3}")))
    values = full_hyperparameters(task, {"momentum": 0.9})
    assert (values["lr"], values["momentum"], values["width"]) == (0.3, 0.9, 3)
    assert set(values) == {*STANDARD, "width"}
