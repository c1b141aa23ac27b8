"""How a study ends: the model measured, written out, and the run drawn."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from fedstep.common.evaluate import evaluate, held_out_samples
from fedstep.common.raised import RAISED, in_a_sentence
from fedstep.common.spec import StudySpec
from fedstep.common.task import Task
from fedstep.common.tasks import build_model
from fedstep.common.tensors import unpack
from fedstep.server.coordination.parts import Parts
from fedstep.server.coordination.reporting import report_of
from fedstep.server.coordination.run import Run
from fedstep.server.report.participation import Share
from fedstep.server.storage.base import Change, NewEvent, RoundRecord, StudyRecord, StudyResult, StudyState, TrialRecord

log = logging.getLogger(__name__)


async def measure(spec: StudySpec, task: Task, run: Run, trial: TrialRecord, parts: Parts) -> StudyResult:
    """Measures the final model, on the task's held-out set where it has one. Nothing is written yet.

    Args:
        spec: The study.
        task: Its task.
        run: What is delivered: the best trial's run at its end, or after its best final round.
        trial: That trial.
        parts: The coordinator's.
    """
    metrics, held_out = dict(trial.metrics_delivered), False
    if spec.evaluation.held_out:
        try:
            measured = await parts.executors.compute.run(_held_out, task, run, dict(parts.task_options))
        except RAISED as error:  # the task's own code; a study is not lost because of its last measurement
            measured = {}
            why = in_a_sentence(error)
            log.warning("study %s: the held-out set cannot be used: %s", spec.name, why)
            text = f"The held-out set cannot be used, so the evaluation cohort's metrics stand: {why}"
            change = Change(events=[NewEvent("held_out_unavailable", text)])
            await parts.feed.commit(spec.name, lambda: parts.store.commit(spec.name, change))
        metrics, held_out = (measured, True) if measured else (metrics, False)
    return StudyResult(run.model_sha256, metrics, held_out, model_path="")


async def write(
    spec: StudySpec,
    result: StudyResult,
    trial: int,
    trials: Sequence[TrialRecord],
    shares: Sequence[Share],
    parts: Parts,
    state: StudyState,
) -> StudyResult:
    """Writes the model as safetensors, the picture and the report, where the coordinator has a folder for results.

    Args:
        spec: The study.
        result: As it was measured.
        trial: The one that is delivered.
        trials: All of them.
        shares: Every client's part.
        parts: The coordinator's.
        state: How the study ends.

    Returns:
        The result, with where everything is.
    """
    if parts.folder is None:
        return result
    folder = parts.folder / spec.name
    model_path, picture_path = folder / "model.safetensors", folder / "study.png"
    await parts.executors.files.run(lambda: folder.mkdir(parents=True, exist_ok=True))
    await parts.executors.files.run(parts.blobs.export_safetensors, result.model_sha256, model_path)
    result = replace(result, model_path=str(model_path), picture_path=str(picture_path))
    study = replace(await parts.executors.storage.run(parts.store.study, spec.name), state=state, result=result)
    rounds = await parts.executors.storage.run(parts.store.rounds, spec.name)
    try:
        await parts.executors.drawing.run(_draw, picture_path, study, trials, rounds, shares)
    except Exception:  # a study is not lost because its picture is
        log.exception("study %s: the picture could not be drawn", spec.name)
        result = replace(result, picture_path="")
    try:
        report = await report_of(study, trials, trial, shares, parts, folder)
    except Exception:  # nor because its report is
        log.exception("study %s: the report could not be written", spec.name)
        return result
    return replace(result, report_path=str(report))


def _draw(
    path: Path,
    study: StudyRecord,
    trials: Sequence[TrialRecord],
    rounds: Sequence[RoundRecord],
    shares: Sequence[Share],
) -> None:
    from fedstep.server.report.picture import draw_study  # matplotlib takes a second to load: not before it is used

    draw_study(path, study, trials, rounds, shares)


def _held_out(task: Task, run: Run, options: dict[str, str]) -> dict[str, float]:
    """The final model's metrics on the task's held-out set; {} when it has none."""
    samples = held_out_samples(task, options)
    if samples is None:
        return {}
    model = build_model(task, run.hyperparameters)
    model.load_state_dict(unpack(run.payload(), run.manifest))
    metrics, _ = evaluate(task, model, samples, torch.device("cpu"))
    return metrics
