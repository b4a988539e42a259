"""Bot and BotOS: one agent on many platforms."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Iterable, Mapping
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from adapters import registry
from adapters.aio import in_background
from adapters.protocols import PlatformAdapter
from adapters.runtime import health, housekeeping
from adapters.runtime.bot_inbox import BotInbox
from adapters.runtime.delivery_worker import DeliveryWorker
from adapters.runtime.polling_lease import PollingLease
from adapters.runtime.services import configured_agent, services_of
from adapters.runtime.supervisor import Health, State, Supervisor
from adapters.runtime.typing_signs import TypingSigns
from identity.resolvers import Resolves
from sessions_app import agents, counters, db
from sessions_app.manager import BotSessionManager
from sessions_app.messages import Address
from sessions_app.outbox import queue as outbox_queue
from sessions_app.turns.pool import Service, TurnPool
from sessions_app.wakeups import local as local_wakeups

if TYPE_CHECKING:
    # Imported only where REDIS_URL is set: the libraries for Redis take about 0.1 s and 7 MB in every process.
    from sessions_app.wakeups.redis import Elsewhere, Notifier

log = logging.getLogger(__name__)

LAST_GOODBYES = 5.0  # seconds that connections are given to end when everything else has stopped


class Bot:
    """One agent on one platform. Construction needs no token and no network.

    agent: an Agent, or any object with `chat(prompt)`; None takes BOTOS_AGENT. token: the bot's token, else the
    setting's. identity_resolver: who is who; None takes that of the BotOS which the bot is added to. config: other
    settings of the platform by name, over those of the environment.
    """

    def __init__(
        self,
        platform: str,
        *,
        agent: object = None,
        token: str = "",
        identity_resolver: Resolves | None = None,
        config: Mapping[str, str] | None = None,
    ) -> None:
        self.platform = platform
        self.agent = agent
        self.identity_resolver = identity_resolver
        needs = registry.get(platform).needs
        self._config = dict(config or {}) | ({needs[0]: token} if token and needs else {})
        self._session = BotSessionManager(platform, identity_resolver=identity_resolver)
        self._botos: BotOS | None = None

    def build_adapter(self) -> PlatformAdapter:
        """A fresh adapter. Raises NeedsConfiguration."""
        return registry.build(self.platform, self._config)

    def missing(self) -> list[str]:
        """The settings without which it cannot connect."""
        return registry.missing(self.platform, self._config)

    def lease(self) -> PollingLease | None:
        """The lease to receive under; None where there is no token to share."""
        token = registry.token_of(self.platform, self._config)
        return PollingLease(token) if token else None

    def join(self, botos: BotOS) -> None:
        """Become one of its bots, with its agent and resolver where this bot has none of its own."""
        self._botos = botos
        if self.agent is None:
            self.agent = botos.agent
        if self.identity_resolver is None:
            self.identity_resolver = self._session.identity_resolver = botos.identity_resolver

    def service(self) -> Service:
        """What the turn pool needs to answer on this platform."""
        agent = agents.as_agent(self.agent) if self.agent is not None else configured_agent()
        platform = registry.get(self.platform)
        return Service(agent, self.identity_resolver, platform.text_limit, platform.streams)

    async def start(self) -> None:
        """Serve this platform alone until `stop` is called."""
        self._botos = BotOS(bots=[self])
        await self._botos.start()

    async def stop(self) -> None:
        """Make `start` return, once what is under way is done."""
        if self._botos is not None:
            await self._botos.stop()

    def run(self) -> None:
        """`start`, for a program that does nothing else."""
        BotOS(bots=[self]).run()

    async def send_message(self, chat_id: str, text: str, thread_id: str = "") -> None:
        """Put a message in line for a chat; sent when the bot is up. On disk on return. Makes no history entry."""
        address = Address(self.platform, str(chat_id), thread_id)
        await db.call(outbox_queue.queue, address, text)
        if self._botos is not None:
            self._botos.delivery_worker.wake()


class BotOS:
    """Runs bots together: one inbox, one pool of turns, one outbox; each adapter under its own supervisor.

    agent: answers wherever a bot has none of its own. platforms: names to make bots for. identity_resolver: for every
    bot that has none. serves: platforms whose waiting messages are answered here although another process connects to
    them. workers: turns at once, BOTOS_WORKERS unless given; with 0 other processes answer, notified through Redis.
    """

    def __init__(
        self,
        agent: object = None,
        platforms: Iterable[str] = (),
        identity_resolver: Resolves | None = None,
        *,
        bots: Iterable[Bot] = (),
        serves: Iterable[str] = (),
        workers: int | None = None,
    ) -> None:
        self.agent = agent
        self.identity_resolver = identity_resolver
        self._serves = tuple(serves)
        self._workers = settings.BOTOS_WORKERS if workers is None else workers
        self._notifier: Notifier | None = None
        self._bots: dict[str, Bot] = {}
        self._supervisors: dict[str, Supervisor] = {}
        self._signs = TypingSigns(self._adapters_that_are_up)
        self.delivery_worker = DeliveryWorker(self._adapters_that_are_up, signs=self._signs)
        self._stop = asyncio.Event()
        self._stopped = asyncio.Event()
        self._stopped.set()
        for bot in (*bots, *(Bot(name) for name in platforms)):
            self.add_bot(bot)

    def add_bot(self, bot: Bot) -> None:
        """Before `start`. One bot a platform: a second Slack workspace is a second platform name."""
        if bot.platform in self._bots:
            raise ValueError(f"there is a bot for {bot.platform!r} already")
        bot.join(self)
        self._bots[bot.platform] = bot

    def list_bots(self) -> list[str]:
        """The platforms, in the order in which they were added."""
        return list(self._bots)

    def get_bot(self, platform: str) -> Bot | None:
        """The bot of a platform, in upper or lower case, if there is one."""
        return self._bots.get(platform.strip().lower())

    def health(self) -> list[Health]:
        """How each adapter is."""
        return [supervisor.health for supervisor in self._supervisors.values()]

    def run(self) -> None:
        """`start`, for a program that does nothing else: SIGTERM and SIGINT stop it.

        Raises ImproperlyConfigured if no bot has its tokens, or if no platform takes them, and for a wrong model.
        """
        self._check_configuration()
        asyncio.run(self._run_with_signals())
        self.check_connected(self._bots)

    def _check_configuration(self) -> None:
        lacking = [bot.missing() for bot in self._bots.values()]
        if lacking and all(lacking):
            names = ", ".join(dict.fromkeys(name for names in lacking for name in names))
            raise ImproperlyConfigured(f"No platform has its tokens. Hint: set {names} in .env or in the environment.")
        for agent in (bot.agent for bot in self._bots.values()):
            problem = agents.configuration_problem(agent.model) if isinstance(agent, agents.Agent) else None
            if problem:
                raise ImproperlyConfigured(problem)

    def check_connected(self, platforms: Iterable[str]) -> None:
        """Raises ImproperlyConfigured if every one of these refused its configuration."""
        ends = [end.state for end in self.health() if end.platform in platforms]
        if ends and all(state == State.NEEDS_CONFIGURATION for state in ends):
            raise ImproperlyConfigured("No platform could be connected. Hint: the lines above say what to set.")

    async def _run_with_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.request_stop)
        await self.start()

    async def start(self) -> None:
        """Serve all platforms until `stop` is called, or until none is left because all refuse their configuration.

        What is under way then is finished first.
        """
        self._stopped.clear()
        if settings.REDIS_URL:
            from sessions_app.wakeups.redis import Notifier

            self._notifier = Notifier(settings.REDIS_URL)
        self.pool = self._build_pool()
        health.watch(self.health)
        try:
            async with counters.kept():
                await self._serve(self._stop)
        finally:
            if self._notifier:
                await asyncio.to_thread(self._notifier.close)
            self._stop.clear()
            self._stopped.set()

    def _build_pool(self) -> TurnPool | Elsewhere:
        if self._notifier is None:
            return TurnPool(
                self._services(),
                size=self._workers,
                on_outgoing=self.delivery_worker.wake,
                sending=self.delivery_worker,
            )
        if not self._workers:
            from sessions_app.wakeups.redis import Elsewhere

            return Elsewhere(self._notifier)
        return TurnPool(
            self._services(),
            size=self._workers,
            on_outgoing=self._wake_all,
            sending=self.delivery_worker,
            is_shared=True,
        )

    def _wake_all(self) -> None:
        """Some other process may have the connection."""
        self.delivery_worker.wake()
        if self._notifier:
            self._notifier.notify_delivery_workers()

    def _look_for_stops(self) -> None:
        """Some other process may run the turn."""
        self.pool.look_for_stops()
        if self._notifier:
            self._notifier.notify_of_stop()

    async def _serve(self, stop: asyncio.Event) -> None:
        """Serve until `stop` is set, then end in the order in which messages flow: turns, deliveries, connections."""
        stop_sending, stop_connecting = asyncio.Event(), asyncio.Event()
        for bot in self._bots.values():
            self._supervisors[bot.platform] = Supervisor(
                bot.platform, bot.build_adapter, lease=bot.lease(), on_change=self.delivery_worker.wake
            )
        async with AsyncExitStack() as ending:  # what is entered first ends last, also where agents end the process
            connections = [
                asyncio.create_task(supervisor.run(self._inbox_of(self._bots[name], supervisor), stop_connecting))
                for name, supervisor in self._supervisors.items()
            ]
            for connection in connections:
                connection.add_done_callback(lambda _: self._stop_without(connections))
            ending.push_async_callback(_disconnect, connections)
            ending.callback(stop_connecting.set)

            sending = asyncio.create_task(self.delivery_worker.run(stop_sending))
            ending.push_async_callback(lambda: sending)
            ending.callback(stop_sending.set)

            ending.push_async_callback(db.drain)
            await ending.enter_async_context(in_background(housekeeping.keep(self.delivery_worker.wake)))
            await ending.enter_async_context(in_background(health.keep_writing()))
            await ending.enter_async_context(in_background(self._signs.run()))
            if settings.REDIS_URL:
                from sessions_app.wakeups.redis import OUTGOING, STOPPED, listen

                wakes = {OUTGOING: self.delivery_worker.wake, STOPPED: self.pool.look_for_stops}
                listening = listen(settings.REDIS_URL, wakes, self._look_for_typing)
                await ending.enter_async_context(in_background(listening))
            ending.enter_context(local_wakeups.answered_by(self._notify, self._wake_all, self._look_for_stops))
            await self.pool.run(stop)

    def _notify(self, conversation_id: int) -> None:
        """A page of this process received a message."""
        self._look_for_typing(conversation_id)
        self.pool.notify(conversation_id)

    def _look_for_typing(self, conversation_id: int) -> None:
        """Show the typing sign for a message that a page received, if a platform of ours calls pages."""
        if any(registry.calls(name) for name in self._bots):
            self._signs.look_at(conversation_id)

    def _inbox_of(self, bot: Bot, supervisor: Supervisor) -> BotInbox:
        notify, wake = self.pool.notify, self.delivery_worker.wake
        return BotInbox(
            bot.platform,
            bot.identity_resolver,
            supervisor,
            on_turn=notify,
            on_outgoing=wake,
            on_waiting=self._signs.begin,
        )

    def _stop_without(self, connections: list[asyncio.Task[None]]) -> None:
        if all(connection.done() for connection in connections):
            self._stop.set()

    def request_stop(self) -> None:
        """Make `start` return, without waiting for it."""
        self._stop.set()

    async def stop(self) -> None:
        """Make `start` return, once what is under way is done or given back; also a start that is about to begin."""
        self.request_stop()
        await self._stopped.wait()

    def _services(self) -> dict[str, Service]:
        own = {name: bot.service() for name, bot in self._bots.items()}
        others = [name for name in self._serves if name not in own]
        if not others:
            return own
        agent = agents.as_agent(self.agent) if self.agent is not None else configured_agent()
        return own | services_of(others, agent, self.identity_resolver)

    def _adapters_that_are_up(self) -> dict[str, PlatformAdapter]:
        running = self._supervisors.items()
        return {name: one.adapter for name, one in running if one.is_up and one.adapter is not None}


async def _disconnect(connections: list[asyncio.Task[None]]) -> None:
    if connections:
        _, clinging = await asyncio.wait(connections, timeout=LAST_GOODBYES)
        for connection in clinging:
            connection.cancel()
    await asyncio.gather(*connections, return_exceptions=True)
