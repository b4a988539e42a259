"""BotSessionManager: the interface of earlier session managers, over conversations, history and turns."""

from __future__ import annotations

import asyncio
import logging
import secrets
from contextlib import suppress
from typing import Any
from weakref import WeakValueDictionary

from django.conf import settings
from django.db import transaction

from identity import called, clock
from identity.models import PlatformAccount
from identity.resolvers import Resolves, resolve_with, stranger_key
from sessions_app import agents, bridge, conversations, history, lanes, texts, turns
from sessions_app.context import SessionContext
from sessions_app.lanes import Lease
from sessions_app.messages import Address, Agent, Line, Turn
from sessions_app.models import Conversation, HistoryEntry

log = logging.getLogger(__name__)

POLL_SECONDS = 0.05  # how often to look whether another process has given a lane back


class BotSessionManager:
    """One bot's conversations: `chat` with a person, read their `history`, `reset` it.

    platform: whose user ids the methods take. store: None, since history lives in the database. identity_resolver: who
    is who; None keeps accounts apart under the key `bot_{platform}_{user_id}`. max_history: entries that an agent gets.
    """

    def __init__(
        self,
        platform: str = "",
        store: None = None,
        identity_resolver: Resolves | None = None,
        max_history: int = 100,
    ) -> None:
        if store is not None:
            raise TypeError("store must be None: history is kept in the database that DATABASE_URL names")
        self.platform = platform
        self.identity_resolver = identity_resolver
        self.max_history = max_history
        self._owner = secrets.token_hex(8)
        # In the order of asking within an event loop; between loops and processes the lease decides.
        self._queues: WeakValueDictionary[tuple[int, str], asyncio.Lock] = WeakValueDictionary()

    async def chat(
        self,
        agent: object,
        user_id: str,
        prompt: str,
        chat_id: str = "",
        chat_name: str = "",
        thread_id: str = "",
        user_name: str = "",
        message_id: str = "",
    ) -> str:
        """What the agent answers `user_id`, once the turns before are through. The caller delivers it.

        `chat_id` and `thread_id` are noted with what is said there, a group or not; nothing is ever sent to them.
        Both sides are in history on return. An agent that fails gives an honest text, which is in history too.
        Raises IdentityUnavailable, and then nothing was stored.
        """
        context = SessionContext(self.platform, chat_id, chat_name, thread_id, str(user_id), user_name)
        said = await bridge.call(self._hear, context, prompt, message_id)
        async with self._queue_of(said.conversation.key):
            return await self._turn(agents.as_agent(agent), context, said)

    @transaction.atomic
    def _hear(self, context: SessionContext, prompt: str, message_id: str) -> HistoryEntry:
        """What is said at this moment. It is not stored before it is answered."""
        conversation = self._conversation_to_write(context)
        place = {"platform": self.platform, "chat_id": context.chat_id, "thread_id": context.thread_id}
        said = {"author": conversation.account, "text": prompt, "message_id": message_id, "said_at": clock.read()}
        return history.entry(conversation, **place, **said)

    def _queue_of(self, key: str) -> asyncio.Lock:
        return self._queues.setdefault((id(asyncio.get_running_loop()), key), asyncio.Lock())

    async def _turn(self, agent: Agent, context: SessionContext, said: HistoryEntry) -> str:
        lease = await self._hold(said.conversation)
        keeper = asyncio.create_task(self._keep(lease))
        try:
            turn = await bridge.call(self._begin, lease, context, said.text)
            text = await self._ask(agent, turn)
            await bridge.drain()
            await bridge.call(turns.record, lease, said=said, answered=text)
            return text
        except BaseException:
            await asyncio.shield(bridge.call(turns.abandon, lease))
            raise
        finally:
            keeper.cancel()

    async def _hold(self, conversation: Conversation) -> Lease:
        while True:
            try:
                return await bridge.call(lanes.hold, conversation, owner=self._owner)
            except lanes.Busy:
                await asyncio.sleep(POLL_SECONDS)

    async def _keep(self, lease: Lease) -> None:
        while True:
            await asyncio.sleep(settings.BOTOS_LEASE_SECONDS / 3)
            with suppress(Exception):  # the fence decides; a lost lease shows when the turn is written
                await bridge.call(lanes.renew, [lease])

    def _begin(self, lease: Lease, context: SessionContext, prompt: str) -> Turn:
        person = self._person(context.user_id)
        known = SessionContext(
            context.platform,
            context.chat_id,
            context.chat_name,
            context.thread_id,
            context.user_id,
            context.user_name,
            person,
        )
        lines = history.window_for(lease.conversation, limit=self.max_history)
        return Turn(f"chat-{secrets.token_hex(8)}", prompt, lines, known)

    async def _ask(self, agent: Agent, turn: Turn) -> str:
        try:
            return await agents.ask(agent, turn, limit=settings.BOTOS_TURN_SECONDS)
        except agents.AgentError as error:
            log.warning("the agent failed: %s", type(error).__name__)
            return called.with_commands(str(texts.GAVE_UP), on=self.platform)

    def history(self, user_id: str) -> list[dict[str, Any]]:
        """The window of a person, oldest first: dicts of role, content, timestamp (seconds since 1970).

        Entries that were mirrored have `mirror` (True) and `mirror_source` too. Empty for somebody unknown.
        """
        conversation = self.conversation_of(str(user_id))
        if conversation is None:
            return []
        return [_as_dict(line) for line in history.window_for(conversation, limit=self.max_history)]

    async def ahistory(self, user_id: str) -> list[dict[str, Any]]:
        """`history`, from a coroutine."""
        return await bridge.call(self.history, user_id)

    @transaction.atomic
    def reset(self, user_id: str) -> bool:
        """Put what was said so far behind, as `/new` does. False for somebody unknown."""
        conversation = self.conversation_of(str(user_id))
        if conversation is None:
            return False
        history.start_anew(conversation, at=clock.read(), of_all=True)
        return True

    async def areset(self, user_id: str) -> bool:
        """`reset`, from a coroutine."""
        return await bridge.call(self.reset, user_id)

    def storage_key(self, user_id: str) -> str:
        """What the person's history goes by: the resolved id, or `bot_{platform}_{user_id}` without a resolver."""
        if self.identity_resolver is None:
            return conversations.storage_key(self.platform, str(user_id), None)
        return resolve_with(self.identity_resolver, self.platform, str(user_id))

    def conversation_of(self, user_id: str) -> Conversation | None:
        """The private conversation of a platform user id, or the one that a unified user used last."""
        resolver = self.identity_resolver
        found = conversations.find_direct(conversations.storage_key(self.platform, user_id, resolver), resolver)
        if found is not None or resolver is None:
            return found
        if conversations.is_computed(resolver):
            return conversations.last_used_by(user_id)
        return conversations.find_direct(user_id, resolver)

    def _person(self, user_id: str) -> str:
        if self.identity_resolver is None:
            return stranger_key(self.platform, user_id)
        return resolve_with(self.identity_resolver, self.platform, user_id)

    def _conversation_to_write(self, context: SessionContext) -> Conversation:
        if not conversations.is_computed(self.identity_resolver):
            key = conversations.storage_key(self.platform, context.user_id, self.identity_resolver)
            return conversations.keyed(key, Address(self.platform, context.chat_id, context.thread_id))
        account, _ = PlatformAccount.objects.get_or_create(
            platform=self.platform,
            platform_user_id=context.user_id,
            defaults={"display_name": context.user_name[:150]},
        )
        # The chat may be a group. Where an account is written to in private, the adapters alone say.
        return conversations.direct(account, Address(self.platform, ""), self.identity_resolver)


def _as_dict(line: Line) -> dict[str, Any]:
    said: dict[str, Any] = {"role": line.role, "content": line.text, "timestamp": line.said_at.timestamp()}
    if line.source == HistoryEntry.Source.MIRROR:
        said |= {"mirror": True, "mirror_source": line.source_label}
    return said
