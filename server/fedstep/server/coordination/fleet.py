"""Who is there: the clients of the fleet, their sessions and their leases."""

import asyncio
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from fedstep.common.clock import Clock
from fedstep.common.errors import AlreadyExistsError, InvalidInputError, NotFoundError, PreconditionError
from fedstep.common.identity import MAX_NAME_LENGTH
from fedstep.common.tensors import Manifest
from fedstep.server.coordination.roll import Roll
from fedstep.server.storage.base import ClientRecord
from fedstep.v1 import fleet_pb2

OUTBOX_MESSAGES = 256

QUIET_INTERVALS = 2
"""Of heartbeats: who lets so many pass in silence is given nothing new until it is heard of."""

_ON_THE_ROLL = frozenset(
    {"presence", "quiet", "busy", "late", "drained", "session_id", "train_samples", "validation_samples"}
)
"""What of a member is kept in the roll's columns too."""


@dataclass(frozen=True)
class LeasePolicy:
    """The terms of a session.

    Attributes:
        lease: A client unheard of for this long is taken to be gone.
        heartbeat_interval: How often it is asked to say that it is alive; 0 where one that is connected always is.
        report_interval: Step reports come at the latest after this time.
        report_max_steps: And at the latest after this many steps.
    """

    lease: timedelta = timedelta(seconds=12)
    heartbeat_interval: timedelta = timedelta(seconds=3)
    report_interval: timedelta = timedelta(milliseconds=50)
    report_max_steps: int = 100


class Presence(StrEnum):
    """Whether a client can be reached."""

    CONNECTED = "connected"
    LOST_TOUCH = "lost touch"
    GONE = "gone"


class State(StrEnum):
    """What a client is doing, in a word."""

    IDLE = "idle"
    WORKING = "working"
    LOST_TOUCH = "lost_touch"
    MISMATCHED = "mismatched"
    GONE = "gone"


@dataclass(frozen=True)
class Fetch:
    """A model on its way to a client.

    Attributes:
        sha256: The model's digest.
        size_bytes: What went on its way.
        seconds: How long that took, by the coordinator's clock.
    """

    sha256: bytes
    size_bytes: int
    seconds: float


@dataclass(eq=False)
class Member:
    """One client of the fleet, through all its sessions.

    Attributes:
        outbox: What is still to be sent to it; its Connect call empties it. None in it ends the call.
        stream: Counts its Connect calls: the number of the live one.
        streaming: Its Connect call is open.
        quiet: It has let `QUIET_INTERVALS` heartbeats pass, and its lease still runs.
        busy: The assignment it trains on; "" when it could be given one.
        late: That assignment's round is over, and what it has is still taken.
        drained: It finishes what it has and is given nothing new.
        working: How many assignments of any kind it has.
        message: Why it gets no work, if it gets none.
        fetch: The last model that went to it, until a training's end tells of it.
        row: Its place in the roll, and in whatever else is kept of clients in columns.
    """

    name: str
    instance_id: str
    session_id: str
    task: str
    manifest: Manifest
    train_samples: int
    validation_samples: int
    device: str
    heard_at: float
    seen_at: datetime
    presence: Presence = Presence.CONNECTED
    quiet: bool = False
    outbox: asyncio.Queue[fleet_pb2.ConnectResponse | None] = field(
        default_factory=lambda: asyncio.Queue(OUTBOX_MESSAGES)
    )
    stream: int = 0
    streaming: bool = False
    busy: str = ""
    late: bool = False
    drained: bool = False
    working: int = 0
    message: str = ""
    updates_accepted: int = 0
    faults: int = 0
    fetch: Fetch | None = None
    roll: Roll | None = None
    row: int = -1

    def __setattr__(self, name: str, value: Any) -> None:
        """Keeps the roll's columns as they should be, whoever changes the member."""
        super().__setattr__(name, value)
        if name in _ON_THE_ROLL and self.roll is not None:
            self.roll.write(self)

    @property
    def connected(self) -> bool:
        """Whether it can be reached."""
        return self.presence is Presence.CONNECTED and not self.quiet

    @property
    def lost_touch(self) -> bool:
        """Whether its stream is cut, or it has fallen quiet, and its lease still runs."""
        return self.presence is not Presence.GONE and not self.connected

    @property
    def state(self) -> State:
        """What it is doing."""
        if self.presence is Presence.GONE:
            return State.GONE
        if self.lost_touch:
            return State.LOST_TOUCH
        if self.message:
            return State.MISMATCHED
        return State.WORKING if self.working else State.IDLE

    def record(self) -> ClientRecord:
        """What is kept of it while it is away."""
        return ClientRecord(
            name=self.name,
            task=self.task,
            device=self.device,
            train_samples=self.train_samples,
            validation_samples=self.validation_samples,
            last_seen_at=self.seen_at,
            updates_accepted=self.updates_accepted,
            faults=self.faults,
        )


class Fleet:
    """The clients that are there, and those that were a moment ago.

    A cut stream does not end a client's work: it keeps its lease and may come back. A client whose lease has run
    out is gone, whatever its connection says, until it is heard of again.

    Args:
        clock: For leases.
        policy: The terms of a session.
        history: What is known of clients from earlier lives of the coordinator.

    Attributes:
        roll: Its members in columns.
    """

    def __init__(self, clock: Clock, policy: LeasePolicy, history: list[ClientRecord]) -> None:
        self._clock = clock
        self.policy = policy
        self.roll = Roll()
        self._members: dict[str, Member] = {}
        self._by_row: list[Member] = []
        self._sessions: dict[str, Member] = {}
        self._history = {record.name: record for record in history}
        self._changed = asyncio.Event()
        self._on_gone: list[Callable[[Member], None]] = []
        self._on_join: list[Callable[[Member], None]] = []

    def when_gone(self, call: Callable[[Member], None]) -> None:
        """Has `call` told of every client whose lease runs out."""
        self._on_gone.append(call)

    def when_joined(self, call: Callable[[Member], None]) -> Callable[[], None]:
        """Has `call` told of every client that joins or comes back; answers with what ends it."""
        self._on_join.append(call)
        return lambda: self._on_join.remove(call)

    async def join(self, hello: fleet_pb2.Hello) -> Member:
        """A client's new session, on its first or a further stream.

        Raises:
            InvalidInputError: Its hello cannot be used.
            AlreadyExistsError: Another live process has its name.
        """
        if not 0 < len(hello.client_name) <= MAX_NAME_LENGTH or not hello.client_name.isprintable():
            raise InvalidInputError(
                f"A client's name has 1 to {MAX_NAME_LENGTH} printable characters, not {hello.client_name!r:.80}: "
                "give one with --name."
            )
        manifest = Manifest.from_proto(hello.model)
        known = self._members.get(hello.client_name)
        if known is not None and known.instance_id != hello.instance_id and known.presence is Presence.CONNECTED:
            raise AlreadyExistsError(
                f"A client named {hello.client_name} is connected already: give this one another name with --name."
            )
        member = known or self._new_member(hello, manifest)
        if known is not None:
            self._sessions.pop(known.session_id, None)
            known.drained = known.drained and known.instance_id == hello.instance_id
            _end_stream(known.outbox)  # of a process that was taken to be gone, or of a connection that is
            known.instance_id, known.task, known.manifest = hello.instance_id, hello.task, manifest
            known.train_samples, known.validation_samples = hello.train_samples, hello.validation_samples
            known.device = hello.device
            known.outbox = asyncio.Queue(OUTBOX_MESSAGES)
        member.session_id = uuid.uuid4().hex
        member.stream += 1
        member.streaming = True
        member.presence, member.quiet = Presence.CONNECTED, False
        member.heard_at, member.seen_at = self._clock.monotonic(), self._clock.now()
        self._sessions[member.session_id] = member
        if known is None:
            self._members[member.name] = member
            self._by_row.append(member)
            self.roll.add(member)
        for call in list(self._on_join):
            call(member)
        self.wake()
        return member

    def _new_member(self, hello: fleet_pb2.Hello, manifest: Manifest) -> Member:
        past = self._history.get(hello.client_name)
        return Member(
            name=hello.client_name,
            instance_id=hello.instance_id,
            session_id="",
            task=hello.task,
            manifest=manifest,
            train_samples=hello.train_samples,
            validation_samples=hello.validation_samples,
            device=hello.device,
            heard_at=self._clock.monotonic(),
            seen_at=self._clock.now(),
            updates_accepted=past.updates_accepted if past else 0,
            faults=past.faults if past else 0,
        )

    async def left(self, member: Member, stream: int) -> None:
        """A stream of the client has ended; its lease still runs. An older stream's end means nothing."""
        if member.stream != stream:
            return
        member.streaming = False
        if member.presence is Presence.CONNECTED:
            member.presence = Presence.LOST_TOUCH
            self.wake()

    def heard(self, member: Member) -> None:
        """Something came from the client."""
        member.heard_at, member.seen_at = self._clock.monotonic(), self._clock.now()
        if member.presence is Presence.GONE:
            member.presence = Presence.CONNECTED if member.streaming else Presence.LOST_TOUCH
            self.wake()
        if member.quiet:
            member.quiet = False
            self.wake()

    def in_doubt(self, member: Member, heard_at: float) -> bool:
        """Whether a client that was last heard of then may be gone, and is not known to be."""
        if member.presence is Presence.CONNECTED and not self.policy.heartbeat_interval:
            return False
        return member.presence is not Presence.GONE and member.heard_at == heard_at

    def session(self, session_id: str) -> Member:
        """The client of a session.

        Raises:
            PreconditionError: The session is over or never was.
        """
        member = self._sessions.get(session_id)
        if member is None:
            raise PreconditionError("This session is over: connect again and use the new session_id.")
        self.heard(member)
        return member

    def drain_client(self, name: str, drained: bool) -> Member:
        """Has a client be given nothing new, or again what there is. A new process of that name begins undrained.

        Raises:
            NotFoundError: No client of that name has come in this life of the coordinator, or it is gone.
        """
        member = self._members.get(name)
        if member is None or member.presence is Presence.GONE:
            known = "is gone" if name in self._history or member is not None else "has never come"
            raise NotFoundError(f"The client {name!r:.140} {known}: `fedstep fleet list` shows who is here.")
        member.drained = drained
        self.wake()
        return member

    def send(self, member: Member, message: fleet_pb2.ConnectResponse) -> None:
        """Puts a message into the client's outbox. One that takes nothing off for so long is cut off."""
        if member.presence is not Presence.CONNECTED:
            return
        try:
            member.outbox.put_nowait(message)
        except asyncio.QueueFull:
            member.presence = Presence.LOST_TOUCH
            _end_stream(member.outbox)

    def members(self) -> list[Member]:
        """Every client heard of in this life of the coordinator, by name."""
        return [self._by_row[row] for row in self.roll.by_name.tolist()]

    def member(self, name: str) -> Member:
        """The client of that name, which must have been heard of in this life of the coordinator."""
        return self._members[name]

    def find(self, name: str) -> Member | None:
        """The client of that name; None when it has not been heard of in this life of the coordinator."""
        return self._members.get(name)

    def at(self, row: int) -> Member:
        """The client in that row of the roll."""
        return self._by_row[row]

    def records(self) -> list[ClientRecord]:
        """Every client ever heard of, by name."""
        merged = self._history | {member.name: member.record() for member in self._members.values()}
        return [merged[name] for name in sorted(merged)]

    def wake(self) -> None:
        """Has whoever waits for a change of the fleet look again."""
        self._changed.set()
        self._changed = asyncio.Event()

    async def wait_until(self, ready: Callable[[], bool], timeout_s: float) -> bool:
        """Waits for a condition of the fleet; answers whether it came true in time."""
        try:
            async with asyncio.timeout(timeout_s):
                while not ready():
                    await self._changed.wait()
        except TimeoutError:
            return ready()
        return True

    async def expire_leases(self) -> None:
        """Runs for ever: finds clients that have fallen quiet, and those whose lease has run out."""
        lease_s = self.policy.lease.total_seconds()
        quiet_s = QUIET_INTERVALS * self.policy.heartbeat_interval.total_seconds()
        while True:
            await asyncio.sleep(lease_s / 8)
            now = self._clock.monotonic()
            for member in self.members():
                silent_s = now - member.heard_at
                if member.presence is not Presence.GONE and silent_s > lease_s:
                    self.expire(member)
                elif member.connected and 0 < quiet_s < silent_s:
                    member.quiet = True

    def expire(self, member: Member) -> None:
        """The client's lease has run out."""
        member.presence, member.quiet = Presence.GONE, False
        member.drained = False
        for call in self._on_gone:
            call(member)
        self.wake()

    def drain(self, reason: str) -> None:
        """Tells every client that the coordinator goes away, and ends its stream."""
        for member in self._members.values():
            if member.presence is Presence.CONNECTED:
                self.send(member, fleet_pb2.ConnectResponse(drain=fleet_pb2.Drain(reason=reason)))
                member.outbox.put_nowait(None) if not member.outbox.full() else None


def _end_stream(outbox: asyncio.Queue[fleet_pb2.ConnectResponse | None]) -> None:
    """Ends the Connect call that empties this outbox; what is still in it is dropped."""
    while not outbox.empty():
        outbox.get_nowait()
    outbox.put_nowait(None)
