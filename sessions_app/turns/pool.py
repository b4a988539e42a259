"""Runs many turns at once: claims waiting events, asks the agent, and writes the answer down."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from typing import Any

from django.conf import settings

from identity.resolvers import IdentityUnavailable, Resolves
from identity.support.db_errors import is_out_of_reach
from sessions_app import agents, counters, db, duties
from sessions_app.agents import loop as agent_loop
from sessions_app.agents.base import OnText
from sessions_app.messages import Agent, Reply, Turn
from sessions_app.models import InboundEvent
from sessions_app.outbox.queue import TEXT_LIMIT, SendsAtOnce
from sessions_app.turns import drafts, leases, lifecycle
from sessions_app.turns.batch_writer import Writer
from sessions_app.turns.leases import Claim
from sessions_app.turns.lifecycle import Answer

log = logging.getLogger(__name__)
MAX_AT_ONCE = 20  # lanes that are claimed in one transaction
MAX_LOSSES = 2  # lost leases of a message in this process before its starts count against it
MAX_TROUBLES = 20  # the same for turns that the database did not take: their text may be the cause

MIN_SILENCE = 60.0  # seconds that the whole process may stand still
OTHERS_FIRST = 0.5  # seconds that the worker which was notified of a message has to claim it
STOP_SECONDS = 1.0  # between two looks for stopped turns, while agents work


@dataclass(frozen=True, slots=True)
class Service:
    """Who answers on a platform, and by which resolver.

    text_limit: the longest message of the platform, in UTF-16 code units. streams: whether people see an answer there
    while the agent writes it.
    """

    agent: Agent
    resolver: Resolves | None
    text_limit: int = TEXT_LIMIT
    streams: bool = False


class TurnPool:
    """Runs up to `size` turns at once for the platforms in `services`.

    Answers are handed to `sending`, where it can send them at once. `on_outgoing` is called for deliveries that wait.

    `notify` names a conversation where something waits. A sweep finds the others: those of another process, and those
    to be tried again. is_shared: other processes work too, and may be notified while the lane is held here.
    """

    def __init__(
        self,
        services: Mapping[str, Service],
        *,
        size: int,
        on_outgoing: Callable[[], None],
        sending: SendsAtOnce | None = None,
        is_shared: bool = False,
    ) -> None:
        self.owner = secrets.token_hex(8)
        self._is_shared = is_shared
        self._sweep_seconds = settings.BOTOS_SWEEP_SECONDS / (2 if is_shared else 1)
        self._services = services
        self._on_outgoing = on_outgoing
        self._slots = asyncio.Semaphore(size)
        self._hints: dict[int, None] = {}  # conversation ids, in order of arrival
        self._asked: Collection[int] = ()  # hints that are being claimed
        self._refused: set[int] = set()  # hints whose lane was held
        self._put_off: set[int] = set()  # hints that wait until the turn in `_crashed_before` ends
        self._crashed_before: set[int] = set()  # at most one: the turn of a message that may have crashed a process
        self._wake = asyncio.Event()
        self._turns: set[asyncio.Task[None]] = set()
        self._blameless: list[Claim] = []  # turns that failed for a reason other than their message
        self._losses: Counter[int] = Counter()  # failed turns by message, which may be the cause
        self._writer = Writer(on_outgoing=on_outgoing, sending=sending)
        self._claiming: asyncio.Task[None] | None = None
        self._leases: dict[int, leases.Lease] = {}  # of the running turns
        self._asking: dict[leases.Lease, asyncio.Timeout] = {}  # of the turns whose agents work, each to be ended early
        self._asks = asyncio.Event()  # an agent works
        self._stops = asyncio.Event()  # a person has stopped a turn, here or elsewhere
        self._is_stopping = False
        self._is_hopeless = asyncio.Event()  # this process can ask no agent any more

    def notify(self, conversation_id: int) -> None:
        """Look for waiting events in this conversation soon."""
        self._hints[conversation_id] = None
        self._wake.set()

    def _notify_in(self, seconds: float, conversation_id: int) -> None:
        """Look for waiting events in this conversation when one of them becomes ready."""
        asyncio.get_running_loop().call_later(seconds, self.notify, conversation_id)

    def look_for_stops(self) -> None:
        """Look for turns that a person has stopped, now."""
        self._stops.set()

    async def run(self, stop: asyncio.Event) -> None:
        """Run turns until `stop` is set; then let them end within BOTOS_DRAIN_SECONDS, and release the others.

        Raises AgentsStandStill if agents block so many threads that only a new process helps.
        """
        agent_loop.share_fairly()
        finding = [asyncio.create_task(job()) for job in (self._start_hinted, self._sweep)]
        keeping = [asyncio.create_task(job()) for job in (self._keep_leases, self._end_stopped)]
        reasons = [asyncio.create_task(event.wait()) for event in (stop, self._is_hopeless)]
        try:
            await asyncio.wait(reasons, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._is_stopping = True
            for job in (*finding, *reasons):
                job.cancel()
        try:
            await asyncio.gather(*finding, *reasons, return_exceptions=True)
            if self._claiming:
                await self._claiming
            if self._turns:
                await asyncio.wait(self._turns, timeout=settings.BOTOS_DRAIN_SECONDS)
            for turn in self._turns:
                turn.cancel()
            await asyncio.gather(*self._turns, return_exceptions=True)
            await self._writer.join()
        finally:
            for job in keeping:
                job.cancel()
        if self._is_hopeless.is_set():
            raise agents.AgentsStandStill("the agents' loops stand still; a new process must take over")

    async def _start_hinted(self) -> None:
        """Claim the hinted lanes, oldest hints first, with a slot for each. Cancelled, it lets a running claim end."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._hints:
                hints: list[int] = []
                while self._hints and len(hints) < MAX_AT_ONCE and not (hints and self._slots.locked()):
                    await self._slots.acquire()
                    hints.append(next(iter(self._hints)))
                    del self._hints[hints[-1]]
                self._asked = hints
                self._claiming = asyncio.create_task(self._claim(hints))
                await asyncio.wait([self._claiming])

    async def _claim(self, asked: Collection[int]) -> None:
        """Lease lanes, and start a turn for each lease."""
        claimed = leases.Claimed()
        turns: list[Turn | Exception | None] = []
        try:
            await self._uncount()
            resolvers = {platform: service.resolver for platform, service in self._services.items()}
            claimed, turns = await db.call(
                lifecycle.start,
                asked,
                owner=self.owner,
                resolvers=resolvers,
                has_crashed_before=bool(self._crashed_before),
            )
        except Exception:
            log.exception("claim lanes failed; the next sweep tries again")
        self._crashed_before.update(id(claim) for claim in claimed.claims if claim.crashed_before)
        for claim, turn in zip(claimed.claims, turns, strict=True):
            work = asyncio.create_task(self._work(claim, turn))
            self._turns.add(work)
            work.add_done_callback(self._end)
        for _ in range(len(asked) - len(claimed.claims)):
            self._slots.release()
        self._asked = ()
        self._refused |= claimed.busy
        self._put_off |= claimed.put_off
        for conversation_id in claimed.again:
            self.notify(conversation_id)
        for conversation_id, seconds in claimed.settling.items():
            self._notify_in(seconds, conversation_id)

    def _end(self, turn: asyncio.Task[None]) -> None:
        self._turns.discard(turn)
        self._slots.release()

    async def _work(self, claim: Claim, turn: Turn | Exception | None) -> None:
        self._leases[id(claim)] = claim.lease
        try:
            await self._answer(claim, turn)
            self._losses.pop(claim.head.pk, None)
        except asyncio.CancelledError:
            # The start stays counted if something else cancels the turn, such as the agent.
            if self._is_stopping:
                await db.call(lifecycle.release, claim)
            raise
        except agents.AgentsStandStill:
            self._is_hopeless.set()
            _log(
                logging.CRITICAL,
                claim,
                "ask the agent failed: the agents' loops stand still; the process ends, to be restarted",
            )
            await db.call(lifecycle.release, claim)
        except lifecycle.LeaseLost:
            if self._is_blameless(claim, MAX_LOSSES):
                self._blameless.append(claim)
            _log(logging.WARNING, claim, "turn failed: the lease was lost; its new holder answers")
        except Exception as error:  # noqa: BLE001 - logged with its traceback
            if is_out_of_reach(error) and self._is_blameless(claim, MAX_TROUBLES):
                self._blameless.append(claim)
            problem = f"turn failed: {type(error).__name__}; it is repeated when its lease ends"
            _log(logging.ERROR, claim, problem, exc_info=True)
            with suppress(Exception):  # it may be the database that fails
                await db.call(lifecycle.explain, claim, error)
        finally:
            del self._leases[id(claim)]
            self._wake_waiting(claim)

    def _is_blameless(self, claim: Claim, most: int) -> bool:
        """Count a failed turn of the message. False if there were more than `most`: the message may be the cause."""
        self._losses[claim.head.pk] += 1
        return self._losses[claim.head.pk] <= most

    async def _uncount(self) -> None:
        """Take back the starts of turns that failed for another reason, once the database can be written again."""
        while self._blameless:
            claim = self._blameless.pop()
            try:
                await db.call(lifecycle.uncount, claim)
            except BaseException:
                self._blameless.append(claim)
                raise

    def _wake_waiting(self, claim: Claim) -> None:
        """Notify the conversations that were refused because of this turn, and those that wait behind it."""
        together = self._refused.intersection(claim.lease.together)
        self._refused -= together
        if self._is_shared:
            together.update(claim.lease.together)
        elif claim.more or claim.head.kind == InboundEvent.Kind.COMMAND:  # which may have made a message ready
            together.add(claim.lease.conversation.pk)
        if id(claim) in self._crashed_before:
            self._crashed_before.discard(id(claim))
            together |= self._put_off
            self._put_off.clear()
        for conversation_id in together:
            self.notify(conversation_id)

    async def _answer(self, claim: Claim, turn: Turn | Exception | None) -> None:
        try:
            try:
                await self._take_turn(claim, turn)
            except agents.AgentsStandStill:
                raise
            except (agents.AgentError, IdentityUnavailable) as error:
                _log(logging.WARNING, claim, f"not answered: {type(error).__name__}: {error}")
                counters.up("failures", claim.head.platform)
                seconds = await db.call(lifecycle.fail, claim, error)
                self._on_outgoing()
                if seconds is not None:
                    self._notify_in(seconds, claim.lease.conversation.pk)
        except lifecycle.Stopped:
            await db.call(lifecycle.release, claim)
            _log(logging.INFO, claim, "stopped by the person")

    async def _take_turn(self, claim: Claim, begun: Turn | Exception | None) -> None:
        service = self._services[claim.head.platform]
        if lifecycle.should_quarantine(claim) and not await db.call(lifecycle.has_unrelated_crashes, claim):
            times = claim.head.starts - claim.head.failures
            _log(logging.ERROR, claim, f"quarantined: processes ended {times} times while they worked on it")
            await db.call(lifecycle.quarantine, claim)
            self._on_outgoing()
            return
        if isinstance(begun, Exception):
            raise begun
        turn = await db.call(lifecycle.begin, claim, resolver=service.resolver) if begun is None else begun
        if claim.head.kind == InboundEvent.Kind.COMMAND:
            await db.call(lifecycle.answer_command, claim, turn, limit=service.text_limit)
            self._on_outgoing()
            _log(logging.INFO, claim, "answered")
            return
        try:
            async with drafts.following(claim) if service.streams else nullcontext() as on_text:
                reply = await self._ask(claim, service.agent, turn, on_text)
        finally:
            await db.drain()  # what the agent mirrored is written before its answer
        await self._writer.finish(Answer(claim, reply.text, service.text_limit, reply))
        _log(logging.INFO, claim, "answered")
        counters.up("turns", claim.head.platform)

    async def _ask(self, claim: Claim, agent: Agent, turn: Turn, on_text: OnText | None) -> Reply:
        """The agent's answer. Raises Stopped as soon as it is known that a person has stopped the turn."""
        try:
            async with asyncio.timeout(None) as asking:
                self._asking[claim.lease] = asking
                self._asks.set()
                try:
                    limit = settings.BOTOS_TURN_SECONDS
                    return await agents.reply_to(agent, turn, limit=limit, on_text=on_text, on_own_loop=True)
                finally:
                    self._asking.pop(claim.lease, None)
        except TimeoutError:
            raise lifecycle.Stopped from None

    async def _end_stopped(self) -> None:
        """Cancel the agents of stopped turns. A turn that ends within STOP_SECONDS costs no query."""
        while True:
            await self._asks.wait()
            with suppress(TimeoutError):
                async with asyncio.timeout(STOP_SECONDS):
                    await self._stops.wait()
            if not self._asking:
                self._asks.clear()
                continue
            self._stops.clear()  # only now: a turn that was claimed before the stop may begin to ask after it
            try:
                for lease in await db.call(leases.stopped, list(self._asking)):
                    if asking := self._asking.pop(lease, None):
                        asking.reschedule(asyncio.get_running_loop().time())
                duties.succeeded("stop turns")
            except Exception as error:  # noqa: BLE001 - repeated, and a stopped turn writes nothing
                duties.failed("stop turns", error, then=f"trying again in {STOP_SECONDS:g} s")

    async def _sweep(self) -> None:
        """Find the conversations whose notification was lost, at intervals."""
        while True:
            try:
                await self._uncount()
                # Several workers that look for the same lanes hold each other up. So a shared pool looks only when it
                # has nothing else to do, and only for events that the notified worker seems to have missed.
                if not (self._is_shared and self._hints):
                    missed = OTHERS_FIRST if self._is_shared else 0.0
                    for conversation_id in await db.call(leases.waiting, self._services.keys(), longer_than=missed):
                        if conversation_id not in self._asked:
                            self.notify(conversation_id)
                duties.succeeded("sweep")
            except Exception as error:  # noqa: BLE001 - noted, and repeated
                duties.failed("sweep", error, then=f"trying again in {self._sweep_seconds:g} s")
            await asyncio.sleep(self._sweep_seconds)

    async def _keep_leases(self) -> None:
        longest = settings.BOTOS_TURN_SECONDS + settings.BOTOS_LEASE_SECONDS
        try:
            while True:
                agent_loop.end_if_silent(max(longest, MIN_SILENCE))
                await asyncio.sleep(settings.BOTOS_LEASE_SECONDS / 3)
                try:
                    await db.call(leases.renew, list(self._leases.values()))
                    duties.succeeded("renew leases")
                except Exception as error:  # noqa: BLE001 - a lost lease shows when the turn is written
                    duties.failed("renew leases", error, then="the fence decides who may write the turns")
        finally:
            agent_loop.may_be_silent()


def _log(level: int, claim: Claim, what: str, **details: Any) -> None:
    """Log a line for each message of the turn, so that a search for one finds it."""
    for event in claim.events:
        log.log(level, "event %s: %s", event.pk, what, extra={"event": event.pk}, **details)
