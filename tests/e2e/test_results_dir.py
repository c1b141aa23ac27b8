"""`fedstep coordinator --results-dir`: results apart from what the coordinator needs itself."""

from pathlib import Path

from e2e.processes import Programs, fedstep
from e2e.studies import write_study
from e2e.test_bad_input import one_sentence


def test_results_go_there_and_nothing_else_does(tmp_path: Path, programs: Programs) -> None:
    data, results = tmp_path / "data", tmp_path / "results"
    _, address = programs.coordinator(data, "--results-dir", results)
    programs.client(address, "c1", "--partition", "1/8")
    study = write_study(tmp_path / "s.toml", task="digits")
    ran = fedstep("study", "run", study, "--coordinator", address, "--json")
    assert ran.code == 0, ran
    assert [path.name for path in results.iterdir()] == ["s"]
    written = {path.name for path in (results / "s").iterdir()}
    assert written == {"model.safetensors", "report", "report.html", "study.png"}
    assert ran.json[-1]["result"]["model_path"] == str(results / "s/model.safetensors")
    assert not (data / "s").exists()
    assert (data / "fedstep.db").exists()


def test_a_folder_that_cannot_be_used_is_refused_before_a_study_needs_it(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    below = tmp_path / "file/results"
    ran = fedstep("coordinator", "--port", "0", "--data-dir", tmp_path / "data", "--results-dir", below)
    one_sentence(ran, f"The folder {below} cannot be made", "--results-dir")
