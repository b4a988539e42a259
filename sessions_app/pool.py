"""Works on lanes, many at once: claims what waits, asks the agent, writes the turn down."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass

from django.conf import settings

from identity.resolvers import IdentityUnavailable, Resolves
from sessions_app import agents, bridge, inbox, turns
from sessions_app.inbox import Claim
from sessions_app.messages import Agent
from sessions_app.models import InboundEvent
from sessions_app.outbox import TEXT_LIMIT

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Service:
    """Who answers on a platform, by which resolver, and how long a message may be there (UTF-16 code units)."""

    agent: Agent
    resolver: Resolves | None
    text_limit: int = TEXT_LIMIT


class TurnPool:
    """Runs up to `size` turns at once for the platforms in `services`. `on_outgoing` is called when a delivery was
    queued.

    `notify` tells it where something waits; a sweep finds the rest (another process's, and what is due again).
    """

    def __init__(self, services: Mapping[str, Service], *, size: int, on_outgoing: Callable[[], None]) -> None:
        self.owner = secrets.token_hex(8)
        self._services = services
        self._on_outgoing = on_outgoing
        self._slots = asyncio.Semaphore(size)
        self._hints: dict[int, None] = {}  # conversation ids, in order of arrival
        self._refused: set[int] = set()  # hints that came while the lane was held
        self._wake = asyncio.Event()
        self._turns: set[asyncio.Task[None]] = set()
        self._serving: set[int] = set()  # hints that became a turn, or are about to
        self._leases: dict[int, inbox.Lease] = {}  # of the turns that run, and of no others

    def notify(self, conversation_id: int) -> None:
        """Something waits in this conversation."""
        self._hints[conversation_id] = None
        self._wake.set()

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop` is set; then finish what runs, within BOTOS_DRAIN_SECONDS, and give the rest back."""
        finding = [asyncio.create_task(job()) for job in (self._start_hinted, self._sweep)]
        keeping = asyncio.create_task(self._keep_leases())
        await stop.wait()
        for job in finding:
            job.cancel()
        await asyncio.gather(*finding, return_exceptions=True)
        await self._drain()
        keeping.cancel()

    async def _drain(self) -> None:
        if self._turns:
            await asyncio.wait(self._turns, timeout=settings.BOTOS_DRAIN_SECONDS)
        for turn in self._turns:
            turn.cancel()
        await asyncio.gather(*self._turns, return_exceptions=True)

    async def _start_hinted(self) -> None:
        """A task for each hint, as slots allow. This job is cancelled only where it waits for one or the other."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._hints:
                await self._slots.acquire()
                conversation_id = next(iter(self._hints))
                del self._hints[conversation_id]
                self._serving.add(conversation_id)
                task = asyncio.create_task(self._serve(conversation_id))
                self._turns.add(task)
                task.add_done_callback(self._turns.discard)

    async def _serve(self, conversation_id: int) -> None:
        """Claim what waits in a lane, and answer it."""
        try:
            claim = await bridge.call(inbox.claim, conversation_id, owner=self.owner, platforms=self._services.keys())
            if claim is not None:
                await self._work(claim)
        except inbox.Busy:
            self._refused.add(conversation_id)
        except Exception:
            log.exception("a lane could not be claimed; the next sweep tries again")
        finally:
            self._serving.discard(conversation_id)
            self._slots.release()

    async def _work(self, claim: Claim) -> None:
        self._leases[id(claim)] = claim.lease
        try:
            await self._answer(claim)
        except asyncio.CancelledError:
            await bridge.call(turns.release, claim)
            raise
        except turns.LeaseLost:
            log.warning("event %s: the lease was lost, its new holder answers", claim.head.pk)
        except Exception:
            log.exception(
                "event %s: the turn could not be written; it is done again when its lease ends", claim.head.pk
            )
        finally:
            del self._leases[id(claim)]
            self._wake_waiting(claim)

    def _wake_waiting(self, claim: Claim) -> None:
        """Look again at what was refused because of this turn, and at what waits behind it."""
        together = self._refused.intersection(claim.lease.together)
        self._refused -= together
        if claim.more:
            together.add(claim.lease.conversation.pk)
        for conversation_id in together:
            self.notify(conversation_id)

    async def _answer(self, claim: Claim) -> None:
        service = self._services[claim.head.platform]
        try:
            await self._take_turn(claim, service)
        except (agents.AgentError, IdentityUnavailable) as error:
            log.warning("event %s: not answered: %s: %s", claim.head.pk, type(error).__name__, error)
            await bridge.call(turns.fail, claim)
        self._on_outgoing()

    async def _take_turn(self, claim: Claim, service: Service) -> None:
        if turns.is_poison(claim):
            log.error("event %s: put aside, it ended the process %d times", claim.head.pk, claim.head.starts)
            await bridge.call(turns.quarantine, claim)
            return
        turn = await bridge.call(turns.begin, claim, resolver=service.resolver)
        if claim.head.kind == InboundEvent.Kind.COMMAND:
            await bridge.call(turns.answer_command, claim, turn, limit=service.text_limit)
            return
        try:
            text = await agents.ask(service.agent, turn, limit=settings.BOTOS_TURN_SECONDS)
        finally:
            await bridge.drain()  # what the agent mirrored is written before its answer
        await bridge.call(turns.finish, claim, text, limit=service.text_limit)

    async def _sweep(self) -> None:
        while True:
            try:
                for conversation_id in await bridge.call(inbox.waiting, self._services.keys()):
                    if conversation_id not in self._serving:
                        self.notify(conversation_id)
            except Exception:
                log.exception("the sweep failed; it goes on")
            await asyncio.sleep(settings.BOTOS_SWEEP_SECONDS)

    async def _keep_leases(self) -> None:
        while True:
            await asyncio.sleep(settings.BOTOS_LEASE_SECONDS / 3)
            with suppress(Exception):  # the fence decides; a lost lease shows when the turn is written
                await bridge.call(inbox.renew, list(self._leases.values()))
