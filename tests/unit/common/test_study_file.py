import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedstep.common.errors import FieldViolation, InvalidInputError
from fedstep.common.study_file import locate, read_study
from fedstep.common.toml_lines import key_lines

EXAMPLES = Path(__file__).parents[3] / "examples"

STUDY = """\
name = "a"
task = "digits"

[space]
lr = { low = 0.1, high = 1.0 }
"""


def refusal(path: Path, text: str) -> str:
    """What is said of a study file with that text."""
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InvalidInputError) as caught:
        read_study(path)
    return caught.value.message.replace(str(path), "study.toml")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "study.toml"


@pytest.mark.parametrize("name", ["digits.toml", "mnist_writers.toml"])
def test_the_examples_are_valid(name: str) -> None:
    spec = read_study(EXAMPLES / name)
    assert spec.objective.metric == "accuracy"
    assert spec.objective.direction == "maximize"


def test_the_example_of_size_is_eight_trials_of_fifteen_rounds() -> None:
    budget = read_study(EXAMPLES / "mnist_writers.toml").budget
    assert (budget.trials, budget.rounds_per_trial) == (8, 15)


def test_every_mistake_is_said_with_its_line(path: Path) -> None:
    text = """\
# A [comment] with = signs
name = "a/b"
task = '''
[space]
'''
trials = 3

[space]
lr = { low = 2, high = 1 }   # swapped
optimizer.choices = [
  "sgd",  # ]
  "adm",
]

  [space.momentum]
  low = 0.0
  hihg = 0.9

[round]
"deadline" = "3 fortnights"

[tuner]
name = "optuna"
sampler_options = { n_startup_trials = 3, when = 2024-01-01 }
"""
    assert refusal(path, text).split("\n") == [
        'study.toml:2: name: is "a/b": it may hold letters, digits, - _ and ., at most 64, and starts with a letter or '
        "a digit.",
        "study.toml:6: trials: unknown key `trials`: it belongs into the table `[budget]`.",
        "study.toml:9: space.lr.low: is 2, above high = 1: swap them.",
        'study.toml:10: space.optimizer.choices: is "adm": `optimizer` is not that; did you mean `adam`?',
        "study.toml:17: space.momentum.hihg: unknown key `hihg`: did you mean `high`?",
        'study.toml:20: round.deadline: is "3 fortnights": it must be a duration such as "30s", "5m" or "1h".',
        "study.toml:24: tuner.sampler_options.when: is 2024-01-01: an option is a number, a text, true, false, a list "
        "or a table.",
    ]


def test_what_is_missing_is_said_at_its_table(path: Path) -> None:
    said = refusal(path, 'name = "a"\n[space]\n[space.lr]\nlow = 0.1\n')
    assert "study.toml:3: space.lr.high: is missing: add `high = …`." in said
    assert "study.toml:1: task: is missing: add `task = …`." in said


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("name = \n", 1),
        ('name = "a"\nspace = {\n', 2),
        ('name = "a"\n\n[space\n', 3),
        ('name = "a"\nname = "b"\n', 2),
        ('name = """\nnever closed\n', 2),
        ("name = 2024-99-99\n", 1),
    ],
)
def test_what_is_not_toml_is_said_with_its_line(path: Path, text: str, line: int) -> None:
    said = refusal(path, text)
    assert said.startswith(f"study.toml:{line}: this is not TOML: ")
    assert "\n" not in said
    assert "(at " not in said


def test_a_number_without_end_is_refused(path: Path) -> None:
    assert "shorten it" in refusal(path, f"seed = {'9' * 5000}\n")


def test_brackets_without_end_are_refused(path: Path) -> None:
    assert "study.toml" in refusal(path, "x = " + "[" * 100_000)


def test_a_missing_file_is_one_sentence(path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"study\.toml: there is no such file"):
        read_study(path)


def test_a_folder_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="cannot be read"):
        read_study(tmp_path)


def test_a_file_that_is_no_text_is_one_sentence(path: Path) -> None:
    path.write_bytes(b"name = \xff\xfe")
    with pytest.raises(InvalidInputError, match="byte 7 is not UTF-8"):
        read_study(path)


def test_a_file_from_windows_is_read(path: Path) -> None:
    path.write_bytes(b"\xef\xbb\xbf" + STUDY.replace("\n", "\r\n").encode())
    assert read_study(path).name == "a"


def test_what_a_coordinator_refuses_is_found_in_the_file(path: Path) -> None:
    path.write_text(STUDY + '\n[tuner]\nname = "optuna"\nsampler = "TPE"\n')
    violations = [
        FieldViolation("tuner.sampler_options.seed", "is negative."),
        FieldViolation("tuner.sampler", "did you mean `TPESampler`?"),
        FieldViolation("space.lr.low", "is low."),
        FieldViolation("", "something else."),
    ]
    assert locate(path, violations).replace(str(path), "s").split("\n") == [
        "s:1: something else.",
        "s:5: space.lr.low: is low.",
        "s:7: tuner.sampler_options.seed: is negative.",
        "s:9: tuner.sampler: did you mean `TPESampler`?",
    ]


_WRONG = st.sampled_from(
    ["-1", "0", "nan", "inf", "1e400", '""', '"x"', "true", "[]", "[1, 'a']", "{}", "{ low = 1 }", "2024-01-01", "9e9"]
)


@given(st.sampled_from(["digits.toml", "mnist_writers.toml"]), st.data())
def test_no_mistake_is_met_with_jargon(
    tmp_path_factory: pytest.TempPathFactory, name: str, data: st.DataObject
) -> None:
    lines = (EXAMPLES / name).read_text().split("\n")
    pairs = [number for number, line in enumerate(lines) if "=" in line and not line.startswith("#")]
    at = data.draw(st.sampled_from(pairs))
    key = lines[at].split("=")[0]
    lines[at] = f"{data.draw(st.sampled_from([key, key.strip() + 'x ']))}= {data.draw(_WRONG)}"
    path = tmp_path_factory.mktemp("study") / "study.toml"
    path.write_text("\n".join(lines))
    try:
        read_study(path)
    except InvalidInputError as error:
        for line in error.message.split("\n"):
            assert re.match(rf"{re.escape(str(path))}:\d+: ", line)
            assert not re.search(r"pydantic|Input should|validation error|Traceback|input_value|None", line)


def paths_of(content: dict[str, Any], at: str = "") -> list[str]:
    found = []
    for key, value in content.items():
        found.append(at + key)
        if isinstance(value, dict):
            found += paths_of(value, f"{at}{key}.")
    return found


@pytest.mark.parametrize("name", ["digits.toml", "mnist_writers.toml"])
def test_every_key_has_the_line_it_stands_in(name: str) -> None:
    text = (EXAMPLES / name).read_text()
    lines = key_lines(text)
    for path in paths_of(tomllib.loads(text)):
        assert path.rpartition(".")[2] in text.split("\n")[lines[path] - 1]


def test_keys_in_every_notation_are_found() -> None:
    text = """\
a."b c".d = 1 # x = 2
'e' = [ # f = 3
  { g = 4 },
  "]", '[', ]
[[h]]
i = { j = { k = "}", l = '''
m = 5''' }, n = 1979-05-27 07:32:00 }
[[h]]
i = 6
[o.p]
q = \"\"\"
r = \\\"\"\" 7
\"\"\"\"
s = 8
"""
    expected = {
        "a": 1, "a.b c": 1, "a.b c.d": 1, "e": 2, "h": 5, "h.i": 6, "h.i.j": 6, "h.i.j.k": 6, "h.i.j.l": 6, "h.i.n": 7,
        "o": 10, "o.p": 10, "o.p.q": 11, "o.p.s": 14,
    }  # fmt: skip
    tomllib.loads(text)
    found = key_lines(text)
    assert {path: found.get(path) for path in expected} == expected
    assert not {"f", "m", "r"} & {path.rpartition(".")[2] for path in found}
