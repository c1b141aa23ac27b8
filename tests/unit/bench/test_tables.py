"""The commands of the tables of step-wise tuning, as far as that takes no table."""

import re
from pathlib import Path

import pytest

from fedstep.common.study_file import read_study
from fedstep.common.tasks import load_task
from fedstep.simulation.tuners import check_contender, read_contenders, study_of
from tests.bench.tables import TABLES, main

ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def _in_the_checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


@pytest.mark.parametrize("name", TABLES)
def test_every_table_compares_tuners_that_there_are(name: str) -> None:
    table = TABLES[name]
    study, contenders = read_study(Path("tests/bench/studies", table.federation.study)), ",".join(table.tuners)
    defaults = load_task(table.federation.task or study.task).defaults
    for contender in read_contenders(contenders):
        check_contender(contender, study_of(study, contender, 0, table.budgets[0], 60), defaults)


def test_a_table_of_evaluation_noise_has_others_measure(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tests.bench.tables._RUNS", tmp_path)
    file = Path(TABLES["noise-3"].command("noise-3", Path("data"))[2])
    assert (read_study(file).evaluation.cohort_size, read_study(file).round.cohort_size) == (3, 10)
    assert TABLES["parts"].command("parts", Path("data"))[2] == "tests/bench/studies/real_writers.toml"


def test_the_page_names_all_of_them_and_no_other() -> None:
    named = re.findall(r"tests\.bench tables ([\w-]+)", Path("docs/benchmarks.md").read_text())
    assert sorted(set(named)) == sorted(TABLES)


def test_without_a_name_they_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    main([])
    assert "bad-starts-cifar4k  cifar4k.toml: 6 tuners, 10 seeds, 180 rounds\n" in capsys.readouterr().out
