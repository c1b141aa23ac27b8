"""The coordinator's metrics for Prometheus: what they are, and where they come from.

They have a registry of their own. Events, ended assignments and the loop's lag are counted as they come; the rest is
read once a second, on the event loop. A scrape reads what stands there, in a thread of its own.
"""

import asyncio
import errno
import logging
import socket
import threading
from collections import Counter as Tally
from collections.abc import Sequence
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, start_http_server

from fedstep.common.errors import FedstepError, UnavailableError
from fedstep.server.coordination.fleet import State
from fedstep.server.coordination.ledger import OpenAssignment, Status
from fedstep.server.coordination.parts import Parts
from fedstep.server.coordination.studies import Studies
from fedstep.server.report.cost import StudyCost
from fedstep.server.storage.base import (
    Event,
    StudyState,
    all_studies,
)
from fedstep.server.storage.costs import Overhead

log = logging.getLogger(__name__)

READ_EVERY_S = 1.0
COSTS_EVERY = 60
"""The costs of studies are read once in so many of these: each reads all that clients did."""

STUDIES_KEPT = 20
"""Studies whose costs are told; the ones that ended first are left out beyond it."""

_OUTCOMES = ("accepted", "accepted_late", "late", "refused", "diverged", "abandoned", "failed", "lost")
_STATES = {state.value for state in StudyState}
_ROUND_S = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800)
_LAG_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1)
_COSTS = {
    "rounds": "Rounds",
    "payload_bytes": "Bytes of models and updates",
    "tuning_rounds": "Rounds that only tuning needs",
    "tuning_payload_bytes": "Bytes of models and updates that only tuning needs",
    "tuning_seconds": "Seconds of rounds that only tuning needs, and of the tuner's calls",
    "tuning_cpu_seconds": "Seconds of the coordinator's CPU that tuning adds, an estimate",
}


class Exporter:
    """Counts, and answers Prometheus.

    Args:
        parts: What is counted.
        studies: Whose costs are told.
    """

    def __init__(self, parts: Parts, studies: Studies) -> None:
        self._parts = parts
        self._studies = studies
        self._states: dict[str, StudyState] = {}
        self._to_read: dict[str, None] = {}
        self._costed: dict[str, None] = {}
        self._overhead = Overhead()
        self._server: tuple[WSGIServer, threading.Thread] | None = None
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self._rounds = Counter("fedstep_rounds", "Rounds committed.", registry=registry)
        self._round_s = Histogram(
            "fedstep_round_duration_seconds",
            "Time of committed rounds.",
            buckets=_ROUND_S,
            registry=registry,
        )
        self._updates = Counter(
            "fedstep_updates",
            "Trainings asked of clients, by what came of them; accepted_late: taken into a later round.",
            ["outcome"],
            registry=registry,
        )
        for outcome in _OUTCOMES:
            self._updates.labels(outcome)
        self._bytes = Counter(
            "fedstep_payload_bytes",
            "Bytes of models given out (down) and of updates taken (up), counted when the work ends.",
            ["direction"],
            registry=registry,
        )
        self._clients = Gauge("fedstep_clients", "Clients heard of since the start.", ["state"], registry=registry)
        self._study_states = Gauge("fedstep_studies", "Studies in the database.", ["state"], registry=registry)
        self._lag_s = Histogram(
            "fedstep_event_loop_lag_seconds", "By how much a timer of 10 ms is late.", buckets=_LAG_S, registry=registry
        )
        self._queues = Gauge(
            "fedstep_executor_queue_length", "Calls that wait for a thread.", ["executor"], registry=registry
        )
        self._tuner_s = Counter("fedstep_tuner_seconds", "In tuners, Optuna's database included.", registry=registry)
        self._tuner_cpu_s = Counter("fedstep_tuner_cpu_seconds", "CPU time in the same calls.", registry=registry)
        self._commit_s = Counter(
            "fedstep_database_commit_seconds", "Time of the commits of studies.", registry=registry
        )
        self._cost = {
            name: Gauge(f"fedstep_study_{name}", f"{text} (fedstep study cost).", ["study"], registry=registry)
            for name, text in _COSTS.items()
        }

    def start(self, host: str, port: int) -> str:
        """Counts from here on, and listens; answers with `HOST:PORT`.

        Args:
            host: The address.
            port: 0 for any free one.

        Raises:
            UnavailableError: Nothing can listen there.
        """
        try:
            self._server = start_http_server(port, host, self.registry)
        except OSError as error:
            taken = error.errno == errno.EADDRINUSE
            why = "another program has the port" if taken else (error.strerror or str(error)).lower()
            if isinstance(error, socket.gaierror):
                why = "it is no address of this machine's"
            raise UnavailableError(
                f"Metrics cannot be served on {host}:{port}: {why}. "
                "Choose others with --metrics-host and --metrics-port."
            ) from error
        self._parts.feed.when_published(self._heard)
        self._parts.ledger.when_closed(self._closed)
        self._parts.lag.when_late(self._lag_s.observe)
        return f"{host}:{self._server[0].server_port}"

    def stop(self) -> None:
        """Ends the answers; blocks for half a second at most."""
        if self._server is not None:
            server, thread = self._server
            server.shutdown()
            server.server_close()
            thread.join()

    async def keep_up(self) -> None:
        """Reads what nothing tells of, for ever."""
        records = await self._parts.executors.storage.run(all_studies, self._parts.store)
        self._states = {record.spec.name: record.state for record in records} | self._states
        ended = sorted((record for record in records if record.state.ended), key=lambda record: record.updated_at)
        self._to_read |= dict.fromkeys(record.spec.name for record in ended[-STUDIES_KEPT:])
        reads = 0
        while True:
            self._read()
            if reads % COSTS_EVERY == 0:
                self._to_read |= dict.fromkeys(name for name, state in self._states.items() if not state.ended)
            reads += 1
            while self._to_read:
                name = next(iter(self._to_read))
                del self._to_read[name]
                await self._read_cost(name)
            await asyncio.sleep(READ_EVERY_S)

    def _read(self) -> None:
        clients = Tally(member.state for member in self._parts.fleet.members())
        for state in State:
            self._clients.labels(state).set(clients[state])
        studies = Tally(self._states.values())
        for study_state in StudyState:
            self._study_states.labels(study_state.value).set(studies[study_state])
        for name, executor in self._parts.executors.named().items():
            self._queues.labels(name).set(executor.waiting)
        before, now = self._overhead, self._parts.overhead.so_far
        self._overhead = now
        self._tuner_s.inc(now.tuner_seconds - before.tuner_seconds)
        self._tuner_cpu_s.inc(now.tuner_cpu_seconds - before.tuner_cpu_seconds)
        self._commit_s.inc(now.commit_seconds - before.commit_seconds)

    async def _read_cost(self, study: str) -> None:
        try:
            cost = await self._studies.cost(study)
        except FedstepError as error:  # a database that has gone is told of by others
            log.debug("the cost of study %s cannot be read: %s", study, error)
            return
        self._costed.pop(study, None)
        self._costed[study] = None
        for name, value in _costs(cost).items():
            self._cost[name].labels(study).set(value)
        while len(self._costed) > STUDIES_KEPT:
            oldest = next(iter(self._costed))
            del self._costed[oldest]
            for gauge in self._cost.values():
                gauge.remove(oldest)

    def _heard(self, study: str, events: Sequence[Event]) -> None:
        for event in events:
            if event.kind == "round_committed":
                self._rounds.inc()
                self._round_s.observe(event.details["seconds"])
            elif event.kind in ("study_started", "study_resumed"):
                self._states[study] = StudyState.RUNNING
            elif event.kind.removeprefix("study_") in _STATES:
                self._states[study] = state = StudyState(event.kind.removeprefix("study_"))
                if state.ended:
                    self._to_read[study] = None

    def _closed(self, assignment: OpenAssignment) -> None:
        self._bytes.labels("down").inc(assignment.model_bytes)
        self._bytes.labels("up").inc(assignment.payload_bytes)
        if assignment.is_training:
            accepted = assignment.status is Status.ACCEPTED
            late = "accepted_late" if accepted else Status.LATE.value
            self._updates.labels(late if assignment.late else assignment.status.value).inc()


def _costs(cost: StudyCost) -> dict[str, float]:
    """By the names of the metrics."""
    return {
        "rounds": cost.total.rounds,
        "payload_bytes": cost.total.payload_bytes,
        "tuning_rounds": cost.tuning.rounds,
        "tuning_payload_bytes": cost.tuning.payload_bytes,
        "tuning_seconds": cost.added_seconds,
        "tuning_cpu_seconds": cost.added_cpu_seconds,
    }
