"""What every store must pass. A store's own test inherits from `StoreKit` and gives it the fixture `open_store`."""

import math
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pytest

from fedstep.common.clock import Clock
from fedstep.common.errors import AlreadyExistsError, FedstepError, NotFoundError, StorageError
from fedstep.common.spec import StudySpec
from fedstep.server.storage.base import (
    AssignmentRecord,
    Change,
    ClientRecord,
    NewEvent,
    PaceRecord,
    RoundRecord,
    Spent,
    Steps,
    Store,
    StudyResult,
    StudyState,
    TrialRecord,
    TrialState,
)
from fedstep.server.storage.costs import ArmCost, Overhead

NAN, INF = math.nan, math.inf
START = datetime(2030, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
OpenStore = Callable[[Clock], Store]


class SetClock:
    """Stands where it was set."""

    def __init__(self) -> None:
        self.time = START

    def monotonic(self) -> float:
        return self.time.timestamp()

    def now(self) -> datetime:
        return self.time


def spec(name: str = "s") -> StudySpec:
    return StudySpec.model_validate(
        {
            "name": name,
            "task": "digits",
            "seed": 2**63 - 1,
            "space": {
                "zeta": {"choices": ["x", "y"], "scope": "client"},
                "lr": {"low": 1e-4, "high": 1.0, "log": True},
                "batch_size": {"low": 8, "high": 64, "when": {"zeta": ["x"]}},
            },
            "hyperparameters": {"momentum": 1.0, "local_epochs": 1, "optimizer": "adam"},
            "tuner": {"name": "optuna", "sampler": "TPESampler", "sampler_options": {"gamma": None, "b": [1, 2.5]}},
            "round": {"deadline": "1234567.25s", "wait_for_clients": "0.123457s"},
            "budget": {"time": "2h"},
        }
    )


def trial(number: int = 0, **changes: object) -> TrialRecord:
    fields: dict[str, object] = {
        "number": number,
        "state": TrialState.RUNNING,
        "hyperparameters": {"lr": 0.1, "batch_size": 16, "optimizer": "adam", "nesterov": True, "whole": 1.0},
        "values": (0.5, None, 0.25),
        "metrics": {"loss": 0.25, "accuracy": 1.0},
        "model_sha256": bytes(range(32)),
        "optimizer_sha256": b"",
        "message": "",
        "first_round": 7,
        "details": {"parents": [0, 3], "phase": "screen", "average": 0.8, "delivered": True},
    }
    return TrialRecord(**(fields | changes))  # type: ignore[arg-type]  # the values are those fields'


def a_round(trial: int = 0, round: int = 0, **changes: object) -> RoundRecord:
    fields: dict[str, object] = {
        "trial": trial,
        "round": round,
        "attempts": 2,
        "model_sha256": bytes(32),
        "value": 0.5,
        "metrics": {"loss": 0.5},
        "train_loss": 0.75,
        "cohort": ("b", "a", "ü"),
        "updates": 2,
        "evaluators": (),
        "seconds": 1.5,
        "ended_at": START,
        "payload_bytes": 5 << 30,
    }
    return RoundRecord(**(fields | changes))  # type: ignore[arg-type]  # the values are those fields'


def assignment(name: str, trial: int = 0, round: int = 0, client: str = "c", **changes: object) -> AssignmentRecord:
    fields: dict[str, object] = {
        "assignment_id": name,
        "trial": trial,
        "round": round,
        "attempt": 1,
        "client": client,
        "work": "train",
        "status": "accepted",
        "samples": 100,
        "elapsed_s": 0.5,
        "payload_bytes": 5 << 30,
        "metrics": {"loss": 1.5},
        "steps": Steps((1.5, 0.1), (16, 4), (5.25, 4.0)),
    }
    return AssignmentRecord(**(fields | changes))  # type: ignore[arg-type]  # the values are those fields'


def whole_change() -> Change:
    return Change(
        trials=[trial(0), trial(1, state=TrialState.FAILED, message="It diverged.", optimizer_sha256=bytes(31) + b"x")],
        round=a_round(),
        assignments=[
            assignment("a1", client="a"),
            assignment("b1", client="b", status="late", message="Too late.", steps=None, metrics={}),
            assignment("c1", client="c", work="evaluate", steps=Steps()),
        ],
        events=[NewEvent("first", "One."), NewEvent("second", "Two.", {"n": 1, "list": [1.5, "x", None, {"y": True}]})],
        tuner_state={"seen": [1, 2], "nested": {"a": None}},
        state=StudyState.STOPPING,
        message="Asked to.",
        result=StudyResult(bytes(range(32)), {"accuracy": 0.9}, True, "/tmp/model", "/tmp/picture"),
        seconds=2.5,
        spent=Spent(1, 3, 5 << 40),
    )


def contents(store: Store, study: str = "s") -> list[object]:
    """Everything a store holds of a study."""
    return [
        store.study(study),
        store.trials(study),
        store.rounds(study),
        list(store.assignments(study)),
        store.events(study),
    ]


class StoreKit:
    @pytest.fixture
    def open_store(self) -> OpenStore:
        """Opens a store on the test's own place, the same at each call."""
        raise NotImplementedError

    @pytest.fixture
    def clock(self) -> SetClock:
        return SetClock()

    @pytest.fixture
    def reopen(self, open_store: OpenStore, clock: SetClock) -> Iterator[Callable[[], Store]]:
        """Closes the store that is open and opens it anew, as the next process does."""
        opened: list[Store] = []

        def again() -> Store:
            if opened:
                opened.pop().close()
            opened.append(open_store(clock))
            return opened[-1]

        yield again
        for store in opened:
            store.close()

    @pytest.fixture
    def store(self, reopen: Callable[[], Store]) -> Store:
        store = reopen()
        store.create_study(spec())
        return store

    def test_a_database_keeps_its_identity(self, store: Store, reopen: Callable[[], Store]) -> None:
        identity = store.identity()
        assert identity == store.identity() == reopen().identity() != ""

    def test_a_study_is_found_again_as_it_was_made(self, store: Store, reopen: Callable[[], Store]) -> None:
        made = store.study("s")
        assert made.spec == spec()
        assert list(made.spec.space.parameters) == ["zeta", "lr", "batch_size"]
        assert [made.state, made.message, made.tuner_state, made.result] == [StudyState.RUNNING, "", {}, None]
        assert made.created_at == made.updated_at == START
        assert made == reopen().study("s")

    def test_what_create_answers_is_what_is_kept(self, store: Store) -> None:
        assert store.create_study(spec("t")) == store.study("t")

    def test_a_name_is_taken_once(self, store: Store, clock: SetClock) -> None:
        clock.time += timedelta(hours=1)
        with pytest.raises(AlreadyExistsError, match="named s already"):
            store.create_study(spec())
        assert store.study("s").created_at == START

    def test_studies_come_by_name_and_in_pages(self, store: Store) -> None:
        for name in ("b", "B", "a-1", "a", "a.1", "Z9"):
            store.create_study(spec(name))
        names = sorted(["s", "b", "B", "a-1", "a", "a.1", "Z9"])
        assert [study.spec.name for study in store.studies()] == names
        assert [study.spec.name for study in store.studies(limit=3)] == names[:3]
        assert [study.spec.name for study in store.studies(after=names[2], limit=3)] == names[3:6]
        assert store.studies(after=names[-1]) == []

    @pytest.mark.parametrize(
        "call",
        [
            lambda store: store.study("S"),
            lambda store: store.commit("S", Change()),
            lambda store: store.trials("S"),
            lambda store: store.rounds("S"),
            lambda store: store.assignments("S"),
            lambda store: store.events("S"),
        ],
        ids=["study", "commit", "trials", "rounds", "assignments", "events"],
    )
    def test_an_unknown_study_is_answered_with_those_there_are(
        self, store: Store, call: Callable[[Store], object]
    ) -> None:
        store.create_study(spec("other"))
        with pytest.raises(NotFoundError, match=r"'S'.* other, s\.$"):
            call(store)

    def test_a_change_is_found_again_whole(self, store: Store, reopen: Callable[[], Store], clock: SetClock) -> None:
        clock.time += timedelta(minutes=1)
        change = whole_change()
        events = store.commit("s", change)
        store = reopen()
        study = store.study("s")
        assert [study.state, study.message, study.tuner_state] == [change.state, change.message, change.tuner_state]
        assert [study.result, study.seconds_spent, study.updated_at] == [change.result, 2.5, clock.time]
        assert study.spent == change.spent
        assert study.created_at == START
        assert store.trials("s") == list(change.trials)
        assert [type(value) for value in store.trials("s")[0].hyperparameters.values()] == [
            float,
            int,
            str,
            bool,
            float,
        ]
        assert store.rounds("s") == [change.round]
        assert list(store.assignments("s")) == list(change.assignments)
        assert store.events("s") == events
        assert [(e.kind, e.text, e.details) for e in events] == [(e.kind, e.text, e.details) for e in change.events]
        assert {event.time for event in events} == {clock.time}

    def test_an_empty_change_leaves_everything(self, store: Store) -> None:
        store.commit("s", whole_change())
        before = contents(store)
        assert store.commit("s", Change()) == []
        assert contents(store) == before

    def test_a_study_goes_on_and_what_it_spends_adds_up(self, store: Store) -> None:
        store.commit("s", Change(seconds=1.5, state=StudyState.STOPPING, message="Asked to."))
        store.commit("s", Change(seconds=2.0, tuner_state={"n": 1}))
        study = store.study("s")
        assert [study.seconds_spent, study.state, study.message] == [3.5, StudyState.STOPPING, "Asked to."]
        for _ in range(2):
            store.commit("s", Change(spent=Spent(1, 5, 1 << 40)))
        assert store.study("s").spent == Spent(2, 10, 2 << 40)
        store.commit("s", Change(state=StudyState.RUNNING))
        assert [store.study("s").message, store.study("s").tuner_state] == ["", {"n": 1}]

    def test_what_trials_cost_adds_up_and_is_found_again(self, store: Store, reopen: Callable[[], Store]) -> None:
        assert (store.costs("s"), store.overhead("s")) == ([], Overhead())
        store.commit("s", Change(cost=ArmCost(3, 1, 2, 1 << 40, 5, 0.25), overhead=Overhead(1.0, 0.5, 0.25, 2.0)))
        store.commit("s", Change(cost=ArmCost(1, 0, 0, 7, 0, 0.5)))
        store.commit("s", Change(cost=ArmCost(3, 1, 2, 1 << 40, 5, 0.25), overhead=Overhead(1.0, 0.5, 0.25, 2.0)))
        store = reopen()
        assert store.costs("s") == [ArmCost(1, 0, 0, 7, 0, 0.5), ArmCost(3, 2, 4, 2 << 40, 10, 0.5)]
        assert store.overhead("s") == Overhead(2.0, 1.0, 0.5, 4.0)

    def test_a_trial_is_replaced_by_its_number(self, store: Store) -> None:
        store.commit("s", Change(trials=[trial(0), trial(1)]))
        done = trial(1, state=TrialState.COMPLETED, values=(1.0,))
        store.commit("s", Change(trials=[done, trial(2)]))
        assert store.trials("s") == [trial(0), done, trial(2)]

    def test_trials_come_by_number_and_in_pages(self, store: Store) -> None:
        store.commit("s", Change(trials=[trial(number) for number in (10, 2, 0, 1)]))
        assert [t.number for t in store.trials("s")] == [0, 1, 2, 10]
        assert [t.number for t in store.trials("s", after=0, limit=2)] == [1, 2]
        assert store.trials("s", after=10) == []

    def test_a_round_is_committed_once(self, store: Store) -> None:
        store.commit("s", whole_change())
        before = contents(store)
        again = Change(
            trials=[trial(0, message="changed"), trial(7)],
            round=a_round(value=9.0),
            assignments=[assignment("new")],
            events=[NewEvent("again", "Again.")],
            tuner_state={"changed": True},
            state=StudyState.FAILED,
            seconds=100.0,
            spent=Spent(1, 1, 1),
        )
        with pytest.raises(AlreadyExistsError, match="Round 0 of trial 0"):
            store.commit("s", again)
        assert contents(store) == before
        store.create_study(spec("t"))
        store.commit("t", Change(round=a_round()))  # of another study
        assert store.rounds("t") == [a_round()]

    def test_a_change_that_fails_half_way_has_changed_nothing(self, store: Store, reopen: Callable[[], Store]) -> None:
        store.commit("s", whole_change())
        before = contents(store)
        # The last thing to be written is the one that cannot be.
        broken = Change(
            trials=[trial(0, message="changed"), trial(7)],
            round=a_round(round=1),
            assignments=[assignment("new")],
            events=[NewEvent("good", "Good."), NewEvent("bad", "Bad.", {"thing": object()})],
            tuner_state={"changed": True},
        )
        with pytest.raises(FedstepError):
            store.commit("s", broken)
        assert contents(store) == before
        store = reopen()
        assert contents(store) == before
        store.commit("s", Change(round=a_round(round=1), assignments=[assignment("new")]))

    def test_an_assignment_is_written_once(self, store: Store) -> None:
        store.commit("s", Change(assignments=[assignment("x")]))
        with pytest.raises(AlreadyExistsError):
            store.commit("s", Change(trials=[trial(5)], assignments=[assignment("y"), assignment("x")]))
        assert list(store.assignments("s")) == [assignment("x")]
        assert store.trials("s") == []

    def test_rounds_come_by_trial_and_round(self, store: Store) -> None:
        for place in ((1, 0), (0, 1), (0, 0), (1, 10), (1, 2)):
            store.commit("s", Change(round=a_round(*place)))
        assert [(r.trial, r.round) for r in store.rounds("s")] == [(0, 0), (0, 1), (1, 0), (1, 2), (1, 10)]
        assert [(r.trial, r.round) for r in store.rounds("s", trial=0)] == [(0, 0), (0, 1)]

    def test_event_numbers_grow_over_studies_and_restarts(self, store: Store, reopen: Callable[[], Store]) -> None:
        store.create_study(spec("t"))
        event = NewEvent("k", "T.")
        numbers = [e.number for e in store.commit("s", Change(events=[event, event]))]
        numbers += [e.number for e in store.commit("t", Change(events=[event]))]
        store = reopen()
        numbers += [e.number for e in store.commit("s", Change(events=[event]))]
        assert numbers == sorted(set(numbers))
        assert min(numbers) > 0
        assert [e.number for e in store.events("s")] == [numbers[0], numbers[1], numbers[3]]
        assert [e.number for e in store.events("s", after=numbers[0], limit=1)] == [numbers[1]]
        assert store.events("s", after=numbers[-1]) == []

    def test_events_of_one_kind_are_found_among_others(self, store: Store) -> None:
        kinds = ("late", "other", "late", "other", "late")
        numbers = [e.number for e in store.commit("s", Change(events=[NewEvent(kind, "T.") for kind in kinds]))]
        assert [e.number for e in store.events("s", kind="late")] == numbers[::2]
        assert [e.number for e in store.events("s", after=numbers[0], limit=1, kind="late")] == [numbers[2]]
        assert store.events("s", kind="none") == []

    def test_numbers_that_are_not_finite_come_back(self, store: Store, reopen: Callable[[], Store]) -> None:
        bad = {"nan": NAN, "inf": INF, "minus": -INF, "good": 0.1}
        change = Change(
            trials=[trial(0, values=(NAN, None, INF, -INF, 0.1), metrics=bad)],
            round=a_round(value=NAN, train_loss=-INF, metrics=bad),
            assignments=[assignment("x", metrics=bad, steps=Steps((NAN, INF, -INF, 0.1), (1, 2, 3, 4), (INF,) * 4))],
            events=[NewEvent("k", "T.", {"loss": NAN, "all": [INF, {"a": -INF}]})],
            tuner_state={"best": INF, "bad": bad},
            result=StudyResult(bytes(32), bad, False, ""),
        )
        store.commit("s", change)
        store.commit("s", Change(round=a_round(round=1, value=None, train_loss=NAN)))
        store = reopen()
        # NaN is not equal to itself, but it looks like itself.
        assert repr(store.trials("s")) == repr(change.trials)
        assert repr(store.rounds("s")) == repr([change.round, a_round(round=1, value=None, train_loss=NAN)])
        assert repr(list(store.assignments("s"))) == repr(change.assignments)
        assert repr(store.events("s")[0].details) == repr(change.events[0].details)
        assert repr(store.study("s").tuner_state) == repr(change.tuner_state)
        assert repr(store.study("s").result) == repr(change.result)

    def test_strings_that_look_like_numbers_stay_strings(self, store: Store) -> None:
        words = {"a": "NaN", "b": "Infinity", "c": "1.5", "d": "null"}
        store.commit("s", Change(trials=[trial(hyperparameters=words)], events=[NewEvent("k", "T.", dict(words))]))
        assert store.trials("s")[0].hyperparameters == words
        assert store.events("s")[0].details == words

    def test_steps_come_back_from_any_kind_of_sequence(self, store: Store) -> None:
        loss, samples = np.array([0.1, NAN], dtype=np.float32), np.array([16, 4], dtype=np.uint32)
        steps = Steps(loss, samples, loss + 1)  # type: ignore[arg-type]  # an array is a sequence in all that is used
        store.commit("s", Change(assignments=[assignment("x", steps=steps)]))
        kept = next(store.assignments("s")).steps
        assert kept is not None
        assert repr(kept.loss) == repr((float(loss[0]), NAN))
        assert list(kept.samples) == [16, 4]
        assert {type(number) for number in kept.samples} == {int}

    def test_columns_of_steps_that_differ_in_length_are_refused(self, store: Store) -> None:
        with pytest.raises((FedstepError, ValueError), match="differ in length"):
            store.commit("s", Change(assignments=[assignment("x", steps=Steps((1.0,), (1, 2), (1.0,)))]))
        assert list(store.assignments("s")) == []

    def test_assignments_come_in_order_through_many_pages(self, store: Store) -> None:
        places = [(t, r, c, a) for t in range(2) for r in range(3) for c in ("a", "B", "ä", "b") for a in (1, 2, 3)]
        records = [
            assignment(f"{t}-{r}-{c}-{a}", t, r, c, attempt=a, steps=Steps((t + r / 10,), (a,), (1.0,)))
            for t, r, c, a in places
        ]
        for r in (2, 0, 1):
            store.commit("s", Change(assignments=[record for record in reversed(records) if record.round == r]))
        store.create_study(spec("t"))
        store.commit("t", Change(assignments=[assignment("other")]))
        ordered = sorted(records, key=lambda record: (record.trial, record.round, record.client, record.attempt))
        assert list(store.assignments("s")) == ordered
        assert list(store.assignments("s", trial=1)) == [r for r in ordered if r.trial == 1]
        assert list(store.assignments("s", round=0)) == [r for r in ordered if r.round == 0]
        assert list(store.assignments("s", client="ä")) == [r for r in ordered if r.client == "ä"]
        assert list(store.assignments("s", 1, 2, "B")) == [
            r for r in ordered if (r.trial, r.round, r.client) == (1, 2, "B")
        ]

    def test_a_reader_that_pauses_stops_nobody(self, store: Store) -> None:
        store.commit("s", Change(assignments=[assignment(f"{number:03}", round=number) for number in range(100)]))
        reading = store.assignments("s")
        first = next(reading)
        store.commit("s", Change(round=a_round(), assignments=[assignment("last", trial=1)]))
        rest: list[AssignmentRecord] = []
        thread = threading.Thread(target=lambda: rest.extend(reading))
        thread.start()
        thread.join(30)
        assert [first.assignment_id, *(r.assignment_id for r in rest)][:100] == [
            f"{number:03}" for number in range(100)
        ]

    def test_times_are_aware_and_utc(self, store: Store, clock: SetClock) -> None:
        elsewhere = timezone(timedelta(hours=-7))
        clock.time = (START + timedelta(days=1)).astimezone(elsewhere)
        store.commit("s", Change(round=a_round(ended_at=clock.time), events=[NewEvent("k", "T.")]))
        store.save_clients([ClientRecord("c", "digits", "cpu", 1, 2, clock.time)])
        times = [
            store.study("s").updated_at,
            store.rounds("s")[0].ended_at,
            store.events("s")[0].time,
            store.clients()[0].last_seen_at,
        ]
        assert times == [START + timedelta(days=1)] * 4
        assert {time.tzinfo for time in times} == {UTC}

    def test_what_a_client_says_is_kept_whatever_it_is(self, store: Store) -> None:
        said = "nul \0 then 😀 and \u2028" + "x" * 100_000
        record = assignment("x", message=said, samples=2**64 - 1, status="failed")
        store.commit("s", Change(assignments=[record], events=[NewEvent("k", said, {"said": "😀 'quoted' %s"})]))
        kept = next(store.assignments("s"))
        assert kept.message == said.replace("\0", "\ufffd") or kept.message == said
        assert kept.samples >= 2**63 - 1
        assert store.events("s")[0].details == {"said": "😀 'quoted' %s"}
        store.save_clients([ClientRecord("c", "t", "d\0", 2**64 - 1, 2**64 - 1, START)])
        assert store.clients()[0].train_samples >= 2**63 - 1

    def test_clients_are_added_and_replaced(self, store: Store, reopen: Callable[[], Store]) -> None:
        many = [ClientRecord(f"c{number}", "digits", "cpu", number, 2, START) for number in range(1200)]
        store.save_clients(many)
        changed = ClientRecord("c7", "mnist-writers", "cuda:0", 5, 6, START, updates_accepted=3, faults=1)
        older = ClientRecord("B", "digits", "cpu", 0, 0, START)
        store.save_clients([older, changed, ClientRecord("B", "digits", "cpu", 1, 1, START)])
        store.save_clients([])
        kept = {client.name: client for client in reopen().clients()}
        assert list(kept) == sorted([*(client.name for client in many), "B"])
        assert kept["c7"] == changed
        assert kept["B"].train_samples == 1
        assert kept["c8"] == many[8]

    def test_paces_are_added_and_replaced(self, store: Store, reopen: Callable[[], Store]) -> None:
        many = [PaceRecord(f"c{number}", {"steps": {"8": [-4.5, 0.01, number]}}) for number in range(1200)]
        store.save_paces(many)
        changed = PaceRecord("c7", {"task": "digits", "upload": [1.25, 0.25, 1], "rest": [NAN, INF, 2]})
        store.save_paces([PaceRecord("B", {}), changed, PaceRecord("B", {"task": "ü"})])
        store.save_paces([])
        kept = {record.client: record for record in reopen().paces()}
        assert list(kept) == sorted([*(record.client for record in many), "B"])
        assert repr(kept["c7"]) == repr(changed)
        assert kept["B"].pace == {"task": "ü"}
        assert kept["c8"] == many[8]

    def test_assignments_come_without_their_steps_when_nobody_wants_these(self, store: Store) -> None:
        records = [assignment(f"{number:04}", round=number // 3, client=f"c{number % 3}") for number in range(1500)]
        store.commit("s", Change(assignments=records))
        bare = [replace(record, steps=None) for record in records]
        assert list(store.assignments("s", with_steps=False)) == bare
        assert list(store.assignments("s", round=3, with_steps=False)) == bare[9:12]

    def test_each_call_may_come_from_another_thread(self, store: Store) -> None:
        failed: list[BaseException] = []

        def work(number: int) -> None:
            try:
                store.commit("s", Change(round=a_round(round=number)))
                assert len(store.rounds("s")) == number + 1
            except BaseException as error:
                failed.append(error)

        for number in range(5):
            thread = threading.Thread(target=work, args=(number,))
            thread.start()
            thread.join(30)
        assert failed == []

    def test_a_second_coordinator_is_refused_until_the_first_has_gone(
        self, store: Store, open_store: OpenStore, clock: SetClock
    ) -> None:
        with pytest.raises(StorageError, match="in use by another coordinator"):
            open_store(clock)
        store.commit("s", Change(round=a_round()))  # the first one noticed nothing
        store.close()
        second = open_store(clock)
        assert second.rounds("s") == [a_round()]
        second.close()

    def test_a_closed_store_says_so(self, store: Store) -> None:
        store.close()
        store.close()
        with pytest.raises(StorageError, match="closed"):
            store.study("s")
        with pytest.raises(StorageError, match="closed"):
            store.commit("s", Change())
