"""The agent: keeps a client in touch with its coordinator, for ever."""

import asyncio
import math
import random
import uuid
from dataclasses import dataclass, field

from fedstep.client.bucket import Bucket
from fedstep.client.events import ClientEvent, Listener
from fedstep.client.fetch import ModelCache, ModelFetcher
from fedstep.client.link import Link
from fedstep.client.outbox import Outbox
from fedstep.client.push import UpdatePusher
from fedstep.client.retry import Backoff
from fedstep.client.session import Session, SessionEnd
from fedstep.client.slow_work import SlowWork
from fedstep.client.work import Work
from fedstep.client.workload import Workload
from fedstep.common.clock import Clock, SystemClock
from fedstep.common.errors import (
    AlreadyExistsError,
    FedstepError,
    ForbiddenError,
    InvalidInputError,
    UnauthenticatedError,
    UnavailableError,
    UntrustedError,
)
from fedstep.common.handicap import UNHINDERED, Handicap
from fedstep.common.security import PLAIN, Security
from fedstep.common.tensors import Manifest
from fedstep.common.version import VERSION
from fedstep.v1 import fleet_pb2 as pb

_TERMINAL = (InvalidInputError, AlreadyExistsError, UnauthenticatedError, ForbiddenError)

_FAREWELL_S = 0.3
"""On stopping, how long a coordinator has at least to read what it is told last."""


@dataclass(frozen=True)
class Profile:
    """Who this client is and what it can do.

    Attributes:
        client_name: Unique in the fleet, stable over restarts.
        task: The task it serves.
        manifest: The layout of the task's model at its default hyper-parameters.
        train_samples: Size of the local training set.
        validation_samples: Size of the local validation set.
        device: In words.
    """

    client_name: str
    task: str
    manifest: Manifest
    train_samples: int
    validation_samples: int
    device: str = "cpu"


@dataclass(frozen=True)
class AgentSettings:
    """How an agent behaves.

    Attributes:
        backoff: Waits between attempts to connect, and to go on with a transfer.
        settled_s: A session that lasted this long makes the waits short again.
        stall_s: A transfer that has not moved for this long is tried again.
        max_model_bytes: The largest model that is taken.
        stop_s: On stopping, how long a local step under way is waited for.
        handicap: How much poorer a machine it acts as; its clock begins at 0 with the agent.
        security: How the coordinator is known, and what is shown to it.
    """

    backoff: Backoff = field(default_factory=Backoff)
    settled_s: float = 5.0
    stall_s: float = 20.0
    max_model_bytes: int = 8 << 30
    stop_s: float = 1.5
    handicap: Handicap = UNHINDERED
    security: Security = PLAIN


class Agent:
    """One client of a coordinator. Make it on a running event loop."""

    def __init__(
        self,
        address: str,
        profile: Profile,
        work: Work,
        listener: Listener = lambda event: None,
        settings: AgentSettings | None = None,
        clock: Clock | None = None,
        rng: random.Random | None = None,
    ) -> None:
        """Not connected yet.

        Args:
            address: The coordinator's `HOST:PORT`.
            profile: Who this client is.
            work: What trains and evaluates.
            listener: Is told what happens.
            settings: How to behave.
            clock: The machine's own unless given.
            rng: For waits between attempts only; best unseeded, so that clients do not come back in step.
        """
        settings = settings or AgentSettings()
        rng = rng or random.Random()
        clock = clock or SystemClock()
        self._address = address
        self._profile = profile
        self._listener = listener
        self._settings = settings
        self._clock = clock.monotonic
        self._rng = rng
        self._instance_id = uuid.uuid4().hex
        self._stopping = asyncio.Event()
        self._began_s = self._clock()
        self._link = Link()
        self._outbox = Outbox(self._clock)
        down, up = (Bucket(settings.handicap.bytes_per_s, self._clock) for _ in range(2))
        fetcher = ModelFetcher(self._link, rng, settings.max_model_bytes, settings.stall_s, settings.backoff, down)
        pusher = UpdatePusher(self._link, rng, settings.stall_s, settings.backoff, up)
        if settings.handicap.slows_work:
            work = SlowWork(work, settings.handicap, self._clock)
        self._workload = Workload(work, ModelCache(fetcher), pusher, self._outbox, listener, self._clock)
        self._lost_at_s: float | None = None
        self._distrust: str | None = None
        self._welcomed_before = False
        self._connected_at_s = 0.0
        self._session: Session | None = None

    async def run(self) -> bool:
        """Serves the coordinator until `stop`.

        Returns:
            Whether all work has ended; False when a local step is still under way in its thread.

        Raises:
            FedstepError: The coordinator will not have this client (its name is taken, its version does not fit, its
                certificate or token is not accepted), or does not prove that it is the one that was meant.
        """
        connecting = asyncio.create_task(self._stay_connected(), name="stay connected")
        stopping = asyncio.create_task(self._stopping.wait(), name="stop")
        ended = False
        try:
            await asyncio.wait({connecting, stopping}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            until_s = self._clock() + self._settings.stop_s + _FAREWELL_S
            ended = await self._workload.close(self._settings.stop_s)
            if not connecting.done() and self._session is not None:
                await self._session.part(until_s - self._clock())
            for task in (connecting, stopping):
                task.cancel()
            results = await asyncio.gather(connecting, stopping, return_exceptions=True)
        if isinstance(results[0], Exception):
            raise results[0]
        return ended

    def stop(self) -> None:
        """Finishes nothing: abandons what is under way and ends `run` within two seconds."""
        self._stopping.set()

    async def _stay_connected(self) -> None:
        attempt = 0
        while True:
            end = await self._one_session()
            if self._stopping.is_set():
                return
            if end.error is not None and not end.welcomed and self._is_final(end.error):
                raise end.error
            now = self._clock()
            if end.welcomed and now - self._connected_at_s >= self._settings.settled_s:
                attempt = 0
            self._say_lost(end, now)
            await asyncio.sleep(self._settings.backoff.delay_s(attempt, self._rng))
            attempt += 1

    def _is_final(self, error: FedstepError) -> bool:
        """Whether no other attempt will help. A coordinator that was trusted once may get a new certificate."""
        return isinstance(error, _TERMINAL) or (isinstance(error, UntrustedError) and not self._welcomed_before)

    async def _one_session(self) -> SessionEnd:
        """A session, which an absence of the handicap's puts off or cuts."""
        absences = self._settings.handicap.absences
        now_s = self._clock() - self._began_s
        leaves_s, back_s = absences.at(now_s)
        if leaves_s <= now_s:
            await asyncio.sleep(back_s - now_s)
            now_s = back_s
            leaves_s, back_s = absences.at(now_s)
        security = self._settings.security
        session = self._session = Session(
            self._address, self._hello, self, self._outbox, self._link, self._clock, security
        )
        try:
            async with asyncio.timeout(None if math.isinf(leaves_s) else leaves_s - now_s):
                return await session.run()
        except TimeoutError:
            away = f"This machine acts as one that is away for {back_s - leaves_s:g} s."
            return SessionEnd(session.welcomed, UnavailableError(away))

    def _hello(self) -> pb.Hello:
        profile = self._profile
        return pb.Hello(
            client_name=profile.client_name,
            instance_id=self._instance_id,
            version=VERSION,
            task=profile.task,
            model=profile.manifest.to_proto(),
            train_samples=profile.train_samples,
            validation_samples=profile.validation_samples,
            device=profile.device,
            running=[*self._workload.running(), *self._outbox.unconfirmed()],
        )

    def _say_lost(self, end: SessionEnd, now: float) -> None:
        """Once for each time out of touch, however many attempts it takes; why it is distrusted, once too."""
        distrust = end.error.message if isinstance(end.error, UntrustedError) else None
        if self._lost_at_s is not None and distrust in (None, self._distrust):
            return
        self._distrust = distrust
        self._lost_at_s = now if self._lost_at_s is None else self._lost_at_s
        why = _reason(end.error)
        if self._welcomed_before:
            text = f"lost touch with {self._address}{why}; trying again until it answers"
        else:
            text = f"no coordinator answers at {self._address} yet{why}; trying again until one does"
        self._tell("disconnected", text)

    def on_welcome(self, welcome: pb.Welcome) -> None:
        """The session has begun."""
        now = self._clock()
        self._connected_at_s = now
        if self._welcomed_before and self._lost_at_s is not None:
            text = f"connected again after {now - self._lost_at_s:.0f} s"
        else:
            profile = self._profile
            text = (
                f"connected to {self._address} as {profile.client_name}: task {profile.task}, {profile.train_samples} "
                f"training and {profile.validation_samples} validation samples, {profile.device}"
            )
        self._welcomed_before = True
        self._lost_at_s = self._distrust = None
        self._tell("connected", text)

    def on_assignment(self, assignment: pb.Assignment) -> None:
        """There is work."""
        self._workload.assign(assignment)

    def on_directive(self, directive: pb.Directive) -> None:
        """The plan for work under way has changed."""
        self._workload.direct(directive)

    def on_notice(self, notice: pb.Notice) -> None:
        """There is something that the person here should read."""
        self._tell("notice", notice.text)

    def on_drain(self, drain: pb.Drain) -> None:
        """The coordinator is going away and will use nothing of what is under way."""
        self._workload.drop_all("the coordinator is going away", silent=True)
        self._outbox.forget()
        why = f" ({drain.reason})" if drain.reason else ""
        self._lost_at_s = self._clock()
        self._tell("drain", f"{self._address} is going away{why}; trying again until it answers")

    def _tell(self, kind: str, text: str) -> None:
        about = {"coordinator": self._address, "client": self._profile.client_name}
        self._listener(ClientEvent(kind, text, about))


def _reason(error: FedstepError | None) -> str:
    """The refusal in brackets, where it is the coordinator's own sentence and not just silence."""
    if error is None or error.message.startswith("No coordinator answers"):
        return ""
    return f" ({error.message.rstrip('.')})"
