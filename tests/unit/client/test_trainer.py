"""Local training: what it computes, how it is steered, what it reports."""

import itertools
import math
import threading
from collections.abc import Mapping
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.utils.data import Dataset, TensorDataset

from fedstep.client.trainer import Trainer
from fedstep.client.work import AbandonedError, Control, DivergedError, Instruction, Job, Model
from fedstep.common.errors import ExhaustedError, InvalidInputError
from fedstep.common.hyperparameters import Hyperparameters, Value
from fedstep.common.task import Batch, ClientData, ClientInfo, Progress, Task
from fedstep.common.tensors import Manifest, pack

CPU = torch.device("cpu")


class Line(Task):
    """A linear model with dropout and a counter among its buffers."""

    name = "line"
    defaults = {"width": 3, "dropout": 0.0, "lr": 0.1}  # noqa: RUF012

    def __init__(self) -> None:
        self.built = 0

    def build_model(self, hyperparameters: Hyperparameters) -> nn.Module:
        self.built += 1
        width = int(hyperparameters["width"])
        return nn.Sequential(nn.Linear(4, width), nn.Dropout(float(hyperparameters["dropout"])), nn.Linear(width, 2))

    def load_data(self, client: ClientInfo) -> ClientData:
        generator = torch.Generator().manual_seed(1)
        inputs, targets = torch.randn(50, 4, generator=generator), torch.randint(2, (50,), generator=generator)
        return ClientData(TensorDataset(inputs[:40], targets[:40]), TensorDataset(inputs[40:], targets[40:]))


class Steps:
    def __init__(self, act: object = None) -> None:
        self.rows: list[tuple[float, int, float]] = []
        self.act = act

    def step(self, loss: float, samples: int, step_ms: float) -> None:
        self.rows.append((loss, samples, step_ms))
        if callable(self.act):
            self.act(len(self.rows))


@pytest.fixture
def task() -> Line:
    return Line()


@pytest.fixture
def trainer(task: Line) -> Trainer:
    return Trainer(task, task.load_data(ClientInfo("ann")), CPU)


def job(task: Task, max_steps: int = 0, seed: int = 7, **hyperparameters: Value) -> Job:
    torch.manual_seed(3)
    state = task.build_model({**task.defaults, **hyperparameters}).state_dict()
    manifest = Manifest.of(state)
    return Job("study s", Model(manifest, pack(state, manifest)), hyperparameters, seed, max_steps)


def forever() -> Control:
    return Control(math.inf)


def test_the_model_is_measured_before_and_after_training_where_it_is_asked(task: Line, trainer: Trainer) -> None:
    plain = job(task, dropout=0.5)
    asked = replace(plain, local_validation=True)
    trained = trainer.train(asked, forever(), Steps())
    assert torch.equal(trained.update, trainer.train(plain, forever(), Steps()).update)  # measuring leaves no trace
    before = trainer.evaluate(plain, forever()).metrics["loss"]
    state = pack(_state(asked), asked.model.manifest).view(torch.float32) + trained.update
    after = trainer.evaluate(
        replace(plain, model=Model(asked.model.manifest, state.view(torch.uint8))), forever()
    ).metrics["loss"]
    assert trained.validation_loss == pytest.approx((before, after), rel=1e-5)
    assert trainer.train(plain, forever(), Steps()).validation_loss is None


def test_one_step_of_sgd_is_minus_lr_times_the_gradient(task: Line, trainer: Trainer) -> None:
    work = job(task, max_steps=1, batch_size=40, lr=0.5)
    trained = trainer.train(work, forever(), Steps())
    model = task.build_model(task.defaults)
    model.load_state_dict(_state(work))
    task.loss(model, _all(task)).backward()
    gradient = torch.cat([parameter.grad.view(-1) for parameter in model.parameters() if parameter.grad is not None])
    torch.testing.assert_close(trained.update, -0.5 * gradient)


def test_the_same_seed_gives_the_same_update_bit_for_bit(task: Line, trainer: Trainer) -> None:
    other = Trainer(task, task.load_data(ClientInfo("ann")), CPU)
    first = trainer.train(job(task, dropout=0.5, local_epochs=2), forever(), Steps())
    again = trainer.train(job(task, dropout=0.5, local_epochs=2), forever(), Steps())
    torch.manual_seed(99)
    elsewhere = other.train(job(task, dropout=0.5, local_epochs=2), forever(), Steps())
    different = trainer.train(job(task, dropout=0.5, local_epochs=2, seed=8), forever(), Steps())
    assert torch.equal(first.update, again.update)
    assert torch.equal(first.update, elsewhere.update)
    assert not torch.equal(first.update, different.update)


def test_an_evaluation_in_between_does_not_change_an_update(task: Line, trainer: Trainer) -> None:
    work = job(task, dropout=0.5)
    others = [job(task, width=4 + step) for step in range(3)]
    undisturbed = trainer.train(work, forever(), Steps())
    # Each builds a model, which draws its weights.
    disturbed = trainer.train(work, forever(), Steps(lambda step: trainer.evaluate(others[step - 1], forever())))
    assert torch.equal(undisturbed.update, disturbed.update)


def test_every_step_is_reported(task: Line, trainer: Trainer) -> None:
    steps = Steps()
    trained = trainer.train(job(task, batch_size=16, local_epochs=2), forever(), steps)
    assert [samples for _, samples, _ in steps.rows] == [16, 16, 8] * 2
    assert trained.steps == 6
    assert trained.samples == 40
    assert trained.loss == pytest.approx(sum(loss for loss, _, _ in steps.rows[3:]) / 3)
    assert all(step_ms > 0 for _, _, step_ms in steps.rows)


def test_a_steps_time_is_the_whole_step(task: Line) -> None:
    ticks = itertools.count()
    trainer = Trainer(task, task.load_data(ClientInfo("ann")), CPU, timer_s=lambda: float(next(ticks)))
    steps = Steps()
    trained = trainer.train(job(task, max_steps=3), forever(), steps)
    assert [step_ms for _, _, step_ms in steps.rows] == [1000.0] * 3
    assert trained.train_time_s == 7.0


def test_max_steps_ends_it(task: Line, trainer: Trainer) -> None:
    assert trainer.train(job(task, max_steps=2, local_epochs=5), forever(), Steps()).steps == 2


def test_abandon_holds_before_the_next_step(task: Line, trainer: Trainer) -> None:
    control = forever()

    def abandon(step: int) -> None:
        if step == 2:
            control.reason = "pruned"
            control.instruction = Instruction.ABANDON

    steps = Steps(abandon)
    with pytest.raises(AbandonedError, match="pruned"):
        trainer.train(job(task, batch_size=1), control, steps)
    assert len(steps.rows) == 2


def test_stop_and_send_gives_what_there_is(task: Line, trainer: Trainer) -> None:
    control = forever()

    def stop(step: int) -> None:
        control.instruction = Instruction.STOP_AND_SEND

    assert trainer.train(job(task, batch_size=1), control, Steps(stop)).steps == 1
    with pytest.raises(AbandonedError):  # before the first step there is nothing to send
        trainer.train(job(task), control, Steps())


def test_the_deadline_ends_it(task: Line, trainer: Trainer) -> None:
    now = 0.0
    control = Control(2.5, clock=lambda: now)

    def later(step: int) -> None:
        nonlocal now
        now += 1.0

    steps = Steps(later)
    with pytest.raises(AbandonedError, match="out of time"):
        trainer.train(job(task, batch_size=1), control, steps)
    assert len(steps.rows) == 3


def test_a_loss_that_is_not_a_number_is_reported_and_then_ends_it(task: Line, trainer: Trainer) -> None:
    steps = Steps()
    with pytest.raises(DivergedError, match=r"The loss became (nan|inf) at step \d+") as caught:
        trainer.train(job(task, lr=1e30, local_epochs=50), forever(), steps)
    assert not math.isfinite(steps.rows[-1][0])
    assert f"at step {len(steps.rows) - 1}:" in caught.value.message


def test_the_proximal_term_pulls_towards_the_received_model(task: Line, trainer: Trainer) -> None:
    mu, lr = 0.5, 0.1
    work = job(task, lr=lr, batch_size=40, local_epochs=2, proximal_mu=mu)
    trained = trainer.train(work, forever(), Steps())
    # By hand: the objective is loss + mu/2 · ‖w − w₀‖², and its gradient is autograd's own.
    model = task.build_model(task.defaults)
    model.load_state_dict(_state(work))
    origin = [parameter.detach().clone() for parameter in model.parameters()]
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    for _ in range(2):
        optimizer.zero_grad()
        pairs = zip(model.parameters(), origin, strict=True)
        distance = torch.stack([((now - before) ** 2).sum() for now, before in pairs]).sum()
        (task.loss(model, _all(task)) + mu / 2 * distance).backward()
        optimizer.step()
    flat = [(now - before).view(-1) for now, before in zip(model.parameters(), origin, strict=True)]
    torch.testing.assert_close(trained.update, torch.cat(flat).detach())


def test_gradient_clip_bounds_a_step(task: Line, trainer: Trainer) -> None:
    trained = trainer.train(job(task, max_steps=1, lr=1.0, gradient_clip=0.01), forever(), Steps())
    assert float(trained.update.norm()) == pytest.approx(0.01, rel=1e-3)


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_every_optimizer_learns(task: Line, trainer: Trainer, optimizer: str) -> None:
    steps = Steps()
    trainer.train(job(task, optimizer=optimizer, lr=0.05, batch_size=40, local_epochs=30), forever(), steps)
    assert steps.rows[-1][0] < steps.rows[0][0]


def test_a_task_may_bring_its_own_optimizer(task: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(task, "optimizer", lambda model, values: torch.optim.SGD(model.parameters(), lr=0.0))
    trainer = Trainer(task, task.load_data(ClientInfo("ann")), CPU)
    assert not trainer.train(job(task), forever(), Steps()).update.any()


def test_structure_follows_the_hyperparameters_and_models_are_kept(task: Line, trainer: Trainer) -> None:
    works = [job(task, width=5), job(task, width=5, lr=0.3), job(task, width=6)]
    built = task.built
    sizes = [trainer.train(work, forever(), Steps()).update.numel() for work in works]
    assert sizes == [5 * 4 + 5 + 2 * 5 + 2] * 2 + [6 * 4 + 6 + 2 * 6 + 2]
    assert task.built - built == 2  # lr changes no structure


def test_buffers_are_part_of_the_update() -> None:
    class Normed(Line):
        defaults: Mapping[str, Value] = {"lr": 0.1}

        def build_model(self, hyperparameters: Hyperparameters) -> nn.Module:
            return nn.Sequential(nn.Linear(4, 2), nn.BatchNorm1d(2))

    task = Normed()
    trainer = Trainer(task, task.load_data(ClientInfo("ann")), CPU)
    work = job(task, batch_size=20)
    update = trainer.train(work, forever(), Steps()).update
    assert update.numel() == work.model.manifest.elements
    assert update[-1] == 2.0  # num_batches_tracked, an integer, counted two steps


def test_what_was_received_is_not_changed(task: Line, trainer: Trainer) -> None:
    work = job(task)
    before = work.model.payload.clone()
    trainer.train(work, forever(), Steps())
    assert torch.equal(work.model.payload, before)


def test_a_model_of_another_task_is_refused_by_name(task: Line, trainer: Trainer) -> None:
    stranger = job(task, width=9)
    with pytest.raises(InvalidInputError, match=r"0\.weight is \[9, 4\] instead of \[3, 4\]"):
        trainer.train(Job("study s", stranger.model, {}), forever(), Steps())


@pytest.mark.parametrize("bad", [{"batch_size": 0}, {"lr": "fast"}, {"optimizer": "lion"}, {"local_epochs": 1.5}])
def test_an_illegal_hyperparameter_is_refused_by_name(task: Line, trainer: Trainer, bad: dict[str, Value]) -> None:
    with pytest.raises(InvalidInputError, match=next(iter(bad))):
        trainer.train(job(task, **bad), forever(), Steps())


def test_a_client_without_samples_says_so(task: Line) -> None:
    empty = TensorDataset(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))
    trainer = Trainer(task, ClientData(empty, empty), CPU)
    with pytest.raises(InvalidInputError, match="no training samples"):
        trainer.train(job(task), forever(), Steps())
    assert trainer.evaluate(job(task), forever()).samples == 0


def test_a_plain_data_set_trains_too(task: Line) -> None:
    class Plain(Dataset[tuple[torch.Tensor, ...]]):
        def __len__(self) -> int:
            return 10

        def __getitem__(self, index: int) -> tuple[torch.Tensor, ...]:
            return torch.full((4,), float(index)), torch.tensor(index % 2)

    trainer = Trainer(task, ClientData(Plain(), Plain()), CPU)
    first = trainer.train(job(task, batch_size=4), forever(), Steps())
    assert first.steps == 3
    assert torch.equal(first.update, trainer.train(job(task, batch_size=4), forever(), Steps()).update)


def test_evaluation_measures_the_validation_set(task: Line, trainer: Trainer) -> None:
    work = job(task)
    result = trainer.evaluate(work, forever())
    model = task.build_model(task.defaults)
    model.load_state_dict(_state(work))
    inputs, targets = task.load_data(ClientInfo("ann")).validation[:]
    assert result.samples == 10
    assert result.metrics["loss"] == pytest.approx(float(nn.functional.cross_entropy(model(inputs), targets).detach()))


def test_evaluation_is_abandoned_too(task: Line, trainer: Trainer) -> None:
    with pytest.raises(AbandonedError):
        trainer.evaluate(job(task), Control(math.inf, Instruction.ABANDON))


def _state(work: Job) -> dict[str, torch.Tensor]:
    from fedstep.common.tensors import unpack

    return unpack(work.model.payload, work.model.manifest)


def _all(task: Line) -> Batch:
    inputs, targets = task.load_data(ClientInfo("ann")).train[:]
    return inputs, targets


class Own(Line):
    """Trains by itself: as many steps as it is let, and notes what it was given."""

    name = "own"

    def __init__(self, steps: int = 6, obey: bool = True) -> None:
        super().__init__()
        self.steps = steps
        self.obey = obey
        self.given: tuple[Progress, ClientData, Hyperparameters] | None = None

    def train(self, progress: Progress, model: nn.Module, data: ClientData, hyperparameters: Hyperparameters) -> None:
        self.given = (progress, data, hyperparameters)
        optimizer = torch.optim.SGD(model.parameters(), lr=float(hyperparameters["lr"]))
        inputs, targets = data.train[:]
        for step in range(self.steps):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(inputs), targets)
            loss.backward()
            optimizer.step()
            if not progress.step(loss, 8 + step) and self.obey:
                break


def own_trainer(task: Own) -> Trainer:
    ticks = itertools.count()
    return Trainer(task, task.load_data(ClientInfo("ann")), CPU, timer_s=lambda: float(next(ticks)))


def test_a_loop_of_ones_own_trains_the_model_and_tells_its_steps() -> None:
    task, steps = Own(), Steps()
    trained = own_trainer(task).train(job(task, lr=0.5, seed=9, max_steps=7), forever(), steps)
    assert trained.steps == 0  # it ended by itself: all is done, and the rows below say in how many
    assert [(samples, step_ms) for _, samples, step_ms in steps.rows] == [(8 + step, 1000.0) for step in range(6)]
    assert trained.loss == pytest.approx(sum(loss for loss, _, _ in steps.rows[2:]) / 4)  # the last 40 samples or more
    assert steps.rows[-1][0] < steps.rows[0][0]
    assert trained.update.any()
    assert task.given is not None
    progress, data, hyperparameters = task.given
    assert (progress.device, progress.seed, progress.max_steps) == (CPU, 9, 7)
    assert len(data.validation) == 10  # type: ignore[arg-type]
    assert (hyperparameters["lr"], hyperparameters["local_epochs"]) == (0.5, 1)


def test_a_loop_of_ones_own_gives_the_same_update_for_the_same_seed() -> None:
    task = Own()
    first, again = (own_trainer(task).train(job(task, dropout=0.5), forever(), Steps()) for _ in range(2))
    assert torch.equal(first.update, again.update)


def test_a_loop_of_ones_own_lets_a_measurement_build_its_model_between_its_steps() -> None:
    task = Own()
    trainer, work = own_trainer(task), job(task, dropout=0.5)
    undisturbed = trainer.train(work, forever(), Steps())
    others = [job(task, width=4 + step) for step in range(6)]
    disturbed = trainer.train(work, forever(), Steps(lambda step: trainer.evaluate(others[step - 1], forever())))
    assert torch.equal(undisturbed.update, disturbed.update)


def test_a_loop_of_ones_own_is_told_to_stop() -> None:
    task, control = Own(), forever()

    def stop(step: int) -> None:
        control.instruction = Instruction.STOP_AND_SEND if step == 2 else control.instruction

    assert own_trainer(task).train(job(task), control, Steps(stop)).steps == 2
    assert own_trainer(task).train(job(task, max_steps=4), forever(), Steps()).steps == 4
    with pytest.raises(AbandonedError):
        own_trainer(task).train(job(task), control, Steps())  # before the first step there is nothing to send


def test_a_loop_of_ones_own_is_abandoned_by_an_error_that_passes_through_it() -> None:
    task, control = Own(), forever()
    with pytest.raises(AbandonedError, match="pruned"):
        own_trainer(task).train(job(task), control, Steps(lambda step: control.tell(Instruction.ABANDON, "pruned")))


def test_a_loop_of_ones_own_that_diverges_says_so() -> None:
    task, steps = Own(steps=200), Steps()
    with pytest.raises(DivergedError, match=r"The loss became (nan|inf) at step \d+"):
        own_trainer(task).train(job(task, lr=1e30), forever(), steps)
    assert not math.isfinite(steps.rows[-1][0])


@pytest.mark.parametrize(
    ("task", "sentence"),
    [(Own(obey=False), "went on after progress.step"), (Own(steps=0), "train.. of the task own reported no step")],
)
def test_a_loop_of_ones_own_that_does_not_keep_to_it_is_told_how(task: Own, sentence: str) -> None:
    with pytest.raises(InvalidInputError, match=sentence):
        own_trainer(task).train(job(task, max_steps=2), forever(), Steps())


def test_training_by_bfloat16_keeps_parameters_in_float32_and_measures_in_it() -> None:
    seen: dict[str, set[torch.dtype]] = {"train": set(), "measure": set()}

    class Watched(Line):
        def loss(self, model: nn.Module, batch: Batch) -> torch.Tensor:
            seen["train"].add(model(batch[0]).dtype)
            return super().loss(model, batch)

        def metrics(self, model: nn.Module, batch: Batch) -> Mapping[str, torch.Tensor]:
            seen["measure"].add(model(batch[0]).dtype)
            return super().metrics(model, batch)

    task = Watched()
    data = task.load_data(ClientInfo("ann"))
    plain, mixed = (Trainer(task, data, CPU, bfloat16=mixed) for mixed in (False, True))
    work = replace(job(task, lr=0.1), local_validation=True)
    exact = plain.train(work, forever(), Steps()).update
    assert seen == {"train": {torch.float32}, "measure": {torch.float32}}
    rough = mixed.train(work, forever(), Steps()).update
    assert seen == {"train": {torch.float32, torch.bfloat16}, "measure": {torch.float32}}
    assert rough.dtype is torch.float32
    assert not torch.equal(rough, exact)
    torch.testing.assert_close(rough, exact, atol=0.01, rtol=0.1)


def test_memory_that_is_used_up_is_a_sentence(task: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")

    trainer = Trainer(task, task.load_data(ClientInfo("ann")), CPU)
    monkeypatch.setattr(task, "loss", full)
    monkeypatch.setattr(task, "metrics", full)
    for work in (lambda: trainer.train(job(task), forever(), Steps()), lambda: trainer.evaluate(job(task), forever())):
        with pytest.raises(ExhaustedError, match="The memory of cpu is used up: run fewer clients on it"):
            work()


def test_every_job_is_prepared_in_the_thread_that_does_it(task: Line) -> None:
    prepared: list[int] = []
    trainer = Trainer(
        task, task.load_data(ClientInfo("ann")), CPU, prepare=lambda: prepared.append(threading.get_ident())
    )
    thread = threading.Thread(target=lambda: trainer.train(job(task), forever(), Steps()))
    thread.start()
    thread.join()
    trainer.evaluate(job(task), forever())
    assert prepared == [thread.ident, threading.get_ident()]
