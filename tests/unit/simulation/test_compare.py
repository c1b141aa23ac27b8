"""A comparison from the command to its tables, over real simulated studies of a task that takes a blink."""

import csv
import json
import shlex
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from fedstep.common.errors import FedstepError, InternalError, InvalidInputError
from fedstep.simulation.compare_cli import compare

TASK = Path(__file__).with_name("points_task.py")
STUDY = """
name = "points"
task = "points"
seed = 3
[space]
lr = { low = 1e-2, high = 2.0, log = true }
[objective]
metric = "accuracy"
direction = "maximize"
[selector]
name = "random"
[round]
cohort_size = 3
[evaluation]
cohort_size = 4
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "study.toml").write_text(STUDY)
    return tmp_path


def call(folder: Path, arguments: str) -> Result:
    words = ["study.toml", "--task", str(TASK), "--clients", "6", "--jobs", "1", "--out", "out"]
    words += shlex.split(arguments)
    study = [str(folder / word) if word in ("study.toml", "out", "other") else word for word in words]
    result = CliRunner().invoke(compare, study)
    if isinstance(result.exception, FedstepError | KeyboardInterrupt):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result


def outcomes(folder: Path, out: str = "out") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / out / "results.jsonl").read_text().splitlines()]


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "out" / "table.csv").open() as file:
        return list(csv.DictReader(file))


def test_every_tuner_is_run_with_every_seed_and_budget(folder: Path) -> None:
    call(folder, "--tuners random,optuna:RandomSampler --seeds 2 --budgets 4,2 --trial-rounds 2")
    keys = {(o["key"]["tuner"], o["key"]["seed"], o["key"]["budget"]) for o in outcomes(folder)}
    assert keys == {(t, s, b) for t in ("random", "optuna:RandomSampler") for s in (3, 4) for b in (2, 4)}
    assert [(row["tuner"], row["budget"]) for row in rows(folder)] == [
        ("random", "2"),
        ("optuna:RandomSampler", "2"),
        ("random", "4"),
        ("optuna:RandomSampler", "4"),
    ]


def test_a_budget_is_spent_and_not_overspent(folder: Path) -> None:
    call(folder, "--tuners random --seeds 1 --budget 7 --trial-rounds 3")
    (outcome,) = outcomes(folder)
    assert outcome["curve"][0]["rounds"] == 0
    assert outcome["curve"][-1]["rounds"] == 7
    assert [leg["rounds"] for leg in outcome["schedule"]] == [3]


def test_the_curve_ends_with_the_model_delivered(folder: Path) -> None:
    call(folder, "--tuners random --seeds 1 --budget 6 --trial-rounds 3")
    (outcome,) = outcomes(folder)
    assert outcome["curve"][-1]["value"] == outcome["value"] == outcome["metrics"]["accuracy"]
    assert [point["rounds"] for point in outcome["curve"]] == [0, 1, 2, 3, 4, 5, 6]
    seconds = [point["seconds"] for point in outcome["curve"]]
    assert seconds == sorted(seconds)


def test_the_same_seed_gives_every_tuner_the_same_federation(folder: Path) -> None:
    """Two names for one tuner give the same figures to the last digit."""
    call(folder, "--tuners random,optuna:RandomSampler,optuna:RandomSampler+NopPruner --seeds 2 --budget 2")
    figures = {(o["key"]["tuner"], o["key"]["seed"]): (o["value"], o["curve"]) for o in outcomes(folder)}
    for seed in (3, 4):
        assert figures["optuna:RandomSampler", seed] == figures["optuna:RandomSampler+NopPruner", seed]
    assert figures["optuna:RandomSampler", 3] != figures["optuna:RandomSampler", 4]


def test_a_second_call_does_only_what_is_missing(folder: Path) -> None:
    call(folder, "--tuners random --seeds 1 --budget 2")
    before = outcomes(folder)
    result = call(folder, "--tuners random,optuna:RandomSampler --seeds 1 --budget 2")
    assert outcomes(folder)[:1] == before
    assert len(outcomes(folder)) == 2
    assert [row["tuner"] for row in rows(folder)] == ["random", "optuna:RandomSampler"]
    assert "random, seed 3" not in result.stdout.replace("optuna:", "")
    assert call(folder, "--tuners random --seeds 1 --budget 2 --json").stdout.count('"event": "outcome"') == 0


def test_a_folder_goes_on_with_the_same_hardship_only(folder: Path) -> None:
    """One that was written before there was any knows none."""
    budget = "--tuners fixed --seeds 1 --budget 2"
    call(folder, budget)
    assert "hardship" not in json.loads((folder / "out" / "comparison.json").read_text())
    call(folder, f"{budget} --out other --away 0.2 --slowdown 2")
    call(folder, f"{budget} --out other --away 0.2 --slowdown 2")
    assert len(outcomes(folder, "other")) == 1
    assert outcomes(folder, "other") != outcomes(folder)
    with pytest.raises(InvalidInputError, match="differs in hardship"):
        call(folder, f"{budget} --out other --away 0.3 --slowdown 2")


def test_selectors_are_compared_as_tuners_are(folder: Path) -> None:
    """One of the six clients is a hundred times slower: who waits for it takes longer, with the same draws."""
    slow = "--slow-share 0.17 --slowdown 100 --speed-spread 0"
    call(folder, f"--tuners fixed --selectors all,oort --seeds 2 --budget 20 {slow}")
    assert [row["tuner"] for row in rows(folder)] == ["fixed @ all", "fixed @ oort"]
    by_name = {row["tuner"]: row for row in rows(folder)}
    assert by_name["fixed @ oort"]["difference_seeds"] == "2"
    seconds = {(o["key"]["tuner"], o["key"]["seed"]): o["curve"][-1]["seconds"] for o in outcomes(folder)}
    assert all(seconds["fixed @ oort", seed] < seconds["fixed @ all", seed] for seed in (3, 4))
    call(folder, f"--tuners fixed --seeds 2 --budget 20 {slow}")
    assert len(outcomes(folder)) == 6


def test_a_tuner_of_the_file_that_is_not_compared_is_said_to_be_unused(folder: Path) -> None:
    with (folder / "study.toml").open("a") as file:
        file.write('[tuner]\nname = "fixed"\ncosine = true\n')
    unused = "The [tuner] of {}, fixed, is none of those of --tuners: it is not used."
    told = call(folder, "--tuners fixed --seeds 1 --budget 2").stderr
    assert unused.format(folder / "study.toml") in told
    assert "[tuner]" not in call(folder, "--tuners fixed:cosine=true --seeds 1 --budget 2").stderr


def test_an_interrupted_one_says_how_to_go_on(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("fedstep.simulation.compare_show.run_comparison", interrupted)
    monkeypatch.setattr("sys.argv", ["fedstep", "compare", "my study.toml"])
    words = [str(folder / "study.toml"), "--task", str(TASK), "--out", str(folder / "out"), "--tuners", "random"]
    result = CliRunner().invoke(compare, [*words, "--budget", "2", "--seeds", "2"])
    assert "Interrupted; 0 of 2 studies are kept. To go on: fedstep compare 'my study.toml'" in result.stderr


def test_all_that_it_writes_is_there(folder: Path) -> None:
    page = folder / "page.md"
    result = call(folder, f"--tuners random --seeds 2 --budget 2 --at 1 --target 0.4 --log-x --json --markdown {page}")
    last = json.loads(result.stdout.splitlines()[-1])
    assert last["event"] == "table"
    assert [row["target"] for row in last["rows"]] == [0.4]
    assert all(Path(file).stat().st_size for file in last["files"])
    assert sorted(Path(file).name for file in last["files"]) == [
        "curves-2-rounds.csv",
        "curves-2-rounds.png",
        "curves-2-seconds.csv",
        "curves-2-seconds.png",
        "table.csv",
        "table.md",
    ]
    assert page.read_text() == (folder / "out" / "table.md").read_text()
    assert "| `random` | 2 |" in page.read_text()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("--tuners randm --budget 2", "did you mean `random`?"),
        ("--tuners fixed:hyperparameters={lrr=1.0} --budget 2", "did you mean `lr`"),
        ("--tuners random --selectors randm --budget 2", "did you mean `random`?"),
        ("--tuners random --budget 2 --at 1,3", "--at has 3, which is after the 2 rounds of --budget"),
        ("--tuners random --budget 2 --clients 2", "--clients 2 is fewer than the 3 that a round"),
        ("--tuners random --budget 2 --task digits", "is for the task points, but --task digits is digits"),
    ],
)
def test_bad_input_is_refused_before_anything_runs(folder: Path, arguments: str, said: str) -> None:
    with pytest.raises(InvalidInputError) as refused:
        call(folder, arguments)
    assert said in refused.value.message
    assert not (folder / "out").exists()


def test_a_list_of_budgets_holds_whole_numbers() -> None:
    result = CliRunner().invoke(compare, ["study.toml", "--tuners", "random", "--budget", "60,0"])
    assert result.exit_code == 2
    assert "60,180,600" in result.output


@pytest.mark.parametrize("target", ["nan", "inf"])
def test_a_target_is_a_number_that_can_be_reached(target: str) -> None:
    result = CliRunner().invoke(compare, ["study.toml", "--tuners", "random", "--budget", "2", "--target", target])
    assert result.exit_code == 2
    assert f"{target} is no finite number" in result.output


def test_a_task_without_a_held_out_set_cannot_be_compared_on(folder: Path) -> None:
    own = folder / "own_task.py"
    own.write_text(TASK.read_text().replace("return _drawn(200, 9999)", "return None"))
    with pytest.raises(InvalidInputError, match="no held-out set"):
        call(folder, f"--tuners random --budget 2 --task {own}")


def test_what_is_shown_is_of_the_held_out_set_also_where_studies_do_not_measure_on_it(folder: Path) -> None:
    call(folder, "--tuners random --seeds 1 --budget 2")
    (folder / "study.toml").write_text(STUDY + "held_out = false\n")
    call(folder, "--tuners random --seeds 1 --budget 2 --out other")
    (measured,), (other,) = outcomes(folder), outcomes(folder, "other")
    assert other["metrics"] == measured["metrics"]
    assert "train_loss" not in other["metrics"]


def test_a_tuner_whose_trials_all_diverge_delivers_the_initial_model(folder: Path) -> None:
    own = folder / "own_task.py"
    diverging = "    def loss(self, model, batch):\n        return super().loss(model, batch) * float('nan')\n\n"
    own.write_text(TASK.read_text().replace("    def load_held_out", f"{diverging}    def load_held_out"))
    call(folder, f"--tuners random --seeds 1 --budget 2 --task {own}")
    (outcome,) = outcomes(folder)
    assert outcome["value"] == outcome["curve"][0]["value"]
    assert outcome["schedule"] == []
    assert "no trial came to a value" in outcome["note"]


def test_a_stepwise_study_whose_legs_all_fail_delivers_the_initial_model(folder: Path) -> None:
    (folder / "study.toml").write_text(STUDY.replace("low = 1e-2, high = 2.0", "low = 1e6, high = 1e8"))
    call(folder, "--tuners stepwise,fixed --seeds 1 --budget 30")
    stepwise, fixed = outcomes(folder)
    assert stepwise["key"]["tuner"] == "stepwise"
    assert stepwise["value"] == stepwise["curve"][0]["value"] == fixed["curve"][0]["value"]
    assert stepwise["schedule"] == []
    assert "no trial came to a value" in stepwise["note"]


def test_a_study_that_cannot_be_carried_out_is_no_result(folder: Path) -> None:
    (folder / "study.toml").write_text(STUDY.replace("[round]", "[round]\nmin_clients = 9"))
    with pytest.raises(InternalError, match="interrupted before its end"):
        call(folder, "--tuners random --seeds 1 --budget 2")
    assert outcomes(folder) == []
