"""Models for whoever has asked for one by a study's name or by its digest."""

from dataclasses import dataclass

import torch

from fedstep.common.errors import FieldViolation, InvalidInputError, NotFoundError, PreconditionError
from fedstep.common.tensors import Manifest
from fedstep.server.coordination.parts import Parts
from fedstep.server.storage.base import Store, StudyRecord, all_studies, all_trials
from fedstep.server.tuning.ranking import best_trial

_LOOKED = 3
"""How often a study's best model is looked for: it may be taken over by a better one at any moment."""


@dataclass(frozen=True)
class KeptModel:
    """A model as it is kept.

    Attributes:
        manifest: What the payload holds.
        payload: uint8 [payload_bytes], verified.
        sha256: Its digest.
    """

    manifest: Manifest
    payload: torch.Tensor
    sha256: bytes


async def find_model(parts: Parts, study: str, sha256: bytes) -> KeptModel:
    """The model that is asked for.

    Args:
        parts: The coordinator's.
        study: A study's name; "" for any.
        sha256: A model's digest; b"" for the study's final model, or its best so far.

    Raises:
        InvalidInputError: Neither is given, or the digest is none.
        NotFoundError: There is no such study, or no such model of it any more.
        PreconditionError: The study has no model yet.
        DataLossError: The model's file is damaged.
    """
    if not study and not sha256:
        text = "give a study's name, or a model's SHA-256 in `sha256`."
        raise InvalidInputError(f"study: {text}", [FieldViolation("study", text)])
    if sha256 and len(sha256) != 32:
        text = f"a SHA-256 has 32 bytes, not {len(sha256)}."
        raise InvalidInputError(f"sha256: {text}", [FieldViolation("sha256", text)])
    storage, files = parts.executors.storage, parts.executors.files
    for looked in range(_LOOKED):
        digest = await storage.run(_named if sha256 else _best, parts.store, study, sha256)
        try:
            return await files.run(_load, parts, digest)
        except NotFoundError:
            if sha256 or looked == _LOOKED - 1:
                raise NotFoundError(
                    f"The model {digest.hex()[:16]} is not kept any more: a study keeps its result, "
                    "its best trial's model and those it may go on from."
                ) from None
    raise AssertionError("unreachable")


def _load(parts: Parts, digest: bytes) -> KeptModel:
    """On the one thread that model files are written and deleted on: none changes while it is read."""
    return KeptModel(parts.blobs.manifest(digest), parts.blobs.get(digest), digest)


def _best(store: Store, study: str, _: bytes) -> bytes:
    record = store.study(study)
    if record.result is not None:
        return record.result.model_sha256
    best = best_trial(record.spec, all_trials(store, study))
    if best is not None and best.model_sha256:
        return best.model_sha256
    if record.state.ended:
        raise PreconditionError(f"Study {study} is {record.state} and has no model: there is none to download.")
    raise PreconditionError(f"Study {study} has no model yet ({record.state}): ask again after its first round.")


def _named(store: Store, study: str, sha256: bytes) -> bytes:
    for record in [store.study(study)] if study else all_studies(store):
        if sha256 in _models_of(store, record):
            return sha256
    whose = f"Study {study}" if study else "No study here"
    has = "has no model" if study else "has a model"
    raise NotFoundError(f"{whose} {has} {sha256.hex()[:16]}: `GetStudy` says which one its result is.")


def _models_of(store: Store, record: StudyRecord) -> set[bytes]:
    results = {record.result.model_sha256} if record.result is not None else set()
    return results | {trial.model_sha256 for trial in all_trials(store, record.spec.name)}
