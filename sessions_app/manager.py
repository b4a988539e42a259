"""BotSessionManager: the interface of earlier session managers, over conversations, history and turns."""

from __future__ import annotations

import asyncio
import logging
import secrets
from contextlib import suppress
from typing import Any, Literal
from weakref import WeakValueDictionary

from django.conf import settings
from django.db import transaction

from identity import labels
from identity.links import lookup
from identity.models import PlatformAccount, UnifiedUser
from identity.resolvers import Pair, Resolves, resolve_with, stranger_key
from identity.support import clock
from identity.support.text import storable
from sessions_app import agents, db, texts
from sessions_app.context import SessionContext
from sessions_app.history import conversations, window
from sessions_app.messages import Address, Agent, Line, Turn
from sessions_app.models import Conversation, HistoryEntry
from sessions_app.turns import leases, lifecycle
from sessions_app.turns.leases import Lease

log = logging.getLogger(__name__)

POLL_SECONDS = 0.05  # how often to look whether another process has given a lane back
REPEATED_SECONDS = 2 * 86_400  # how long a message that is handed in again is recognised

Scope = Literal["", "private", "group"]


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
        *,
        scope: Scope = "",
    ) -> str:
        """What the agent answers `user_id`, once the turns before are through. The caller delivers it.

        scope: `private` or `group`. Without it a chat is private if there is no `chat_id` or it is known to be one to
        one with the bot, else a group. A group (with `thread_id`: one thread in it) has a history of its own, and
        nothing that is said in private enters it, nor the other way round. Nothing is ever sent to `chat_id`.
        A `message_id` that was answered there in the last two days gets the same answer, and no agent is asked.
        Both sides are in history on return. An agent that fails gives an honest text, which is in history too.
        Raises IdentityUnavailable, and then nothing was stored.
        """
        context = SessionContext(self.platform, chat_id, chat_name, thread_id, str(user_id), user_name)
        said = await db.call(self._hear, context, storable(prompt), message_id, scope)
        async with self._queue_of(said.conversation.key):
            return await self._turn(agents.as_agent(agent), context, said)

    @transaction.atomic
    def _hear(self, context: SessionContext, prompt: str, message_id: str, scope: Scope) -> HistoryEntry:
        """What is said at this moment. It is not stored before it is answered."""
        if self._is_private(context.user_id, context.chat_id, scope):
            conversation = self._conversation_to_write(context)
            author = conversation.account
        else:
            conversation = conversations.group(Address(self.platform, context.chat_id, context.thread_id))
            author = self._account(context.user_id, context.user_name)
        place = {"platform": self.platform, "chat_id": context.chat_id, "thread_id": context.thread_id}
        said = {"author": author, "text": prompt, "message_id": message_id, "said_at": clock.read()}
        return window.entry(conversation, **place, **said)

    def _queue_of(self, key: str) -> asyncio.Lock:
        return self._queues.setdefault((id(asyncio.get_running_loop()), key), asyncio.Lock())

    async def _turn(self, agent: Agent, context: SessionContext, said: HistoryEntry) -> str:
        lease = await self._hold(said.conversation)
        keeper = asyncio.create_task(self._keep(lease))
        try:
            if (answered := await db.call(_answer_to, said)) is not None:
                await db.call(lifecycle.abandon, lease)
                return answered
            turn = await db.call(self._begin, lease, context, said.text)
            text = await self._ask(agent, turn)
            await db.drain()
            await db.call(lifecycle.record, lease, said=said, answered=text)
            return text
        except BaseException:
            await asyncio.shield(db.call(lifecycle.abandon, lease))
            raise
        finally:
            keeper.cancel()

    async def _hold(self, conversation: Conversation) -> Lease:
        while True:
            try:
                return await db.call(leases.hold, conversation, owner=self._owner)
            except leases.Busy:
                await asyncio.sleep(POLL_SECONDS)

    async def _keep(self, lease: Lease) -> None:
        while True:
            await asyncio.sleep(settings.BOTOS_LEASE_SECONDS / 3)
            with suppress(Exception):  # the fence decides; a lost lease shows when the turn is written
                await db.call(leases.renew, [lease])

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
        speaker = (self.platform, context.user_id)
        lines = window.window_for(lease.conversation, limit=self.max_history, speaker=speaker)
        return Turn(f"chat-{secrets.token_hex(8)}", prompt, lines, known)

    async def _ask(self, agent: Agent, turn: Turn) -> str:
        try:
            return await agents.ask(agent, turn, limit=settings.BOTOS_TURN_SECONDS)
        except agents.AgentError as error:
            log.warning("the agent failed: %s", type(error).__name__)
            return labels.with_commands(str(texts.GAVE_UP), on=self.platform)

    def history(
        self, user_id: str, chat_id: str = "", thread_id: str = "", *, scope: Scope = ""
    ) -> list[dict[str, Any]]:
        """The window of a person, or of a group as `chat` takes it, oldest first: dicts of role, content, timestamp
        (seconds since 1970).

        Entries that were mirrored have `mirror` (True) and `mirror_source` too. Empty for somebody unknown.
        """
        conversation = self._conversation_at(str(user_id), chat_id, thread_id, scope)
        if conversation is None:
            return []
        speaker = self._speaker(str(user_id), conversation)
        return [_as_dict(line) for line in window.window_for(conversation, limit=self.max_history, speaker=speaker)]

    async def ahistory(
        self, user_id: str, chat_id: str = "", thread_id: str = "", *, scope: Scope = ""
    ) -> list[dict[str, Any]]:
        """`history`, from a coroutine."""
        return await db.call(self.history, user_id, chat_id, thread_id, scope=scope)

    @transaction.atomic
    def reset(self, user_id: str, chat_id: str = "", thread_id: str = "", *, scope: Scope = "") -> bool:
        """Put what was said so far behind, as `/new` does there. False for somebody or a group unknown."""
        conversation = self._conversation_at(str(user_id), chat_id, thread_id, scope)
        if conversation is None:
            return False
        window.reset_context(conversation, at=clock.read(), of_all=True)
        return True

    async def areset(self, user_id: str, chat_id: str = "", thread_id: str = "", *, scope: Scope = "") -> bool:
        """`reset`, from a coroutine."""
        return await db.call(self.reset, user_id, chat_id, thread_id, scope=scope)

    def _conversation_at(self, user_id: str, chat_id: str, thread_id: str, scope: Scope) -> Conversation | None:
        if self._is_private(user_id, chat_id, scope):
            return self.conversation_of(user_id) or conversations.before_resolvers(self.platform, user_id)
        return conversations.find_group(Address(self.platform, chat_id, thread_id))

    def _speaker(self, user_id: str, conversation: Conversation) -> Pair | None:
        """The account that a user id of ours means; None where it is a unified user id."""
        is_own = conversation.key == conversations.storage_key(self.platform, user_id, self.identity_resolver)
        return (self.platform, user_id) if is_own else None

    def _is_private(self, user_id: str, chat_id: str, scope: Scope) -> bool:
        if scope not in {"", "private", "group"}:
            raise ValueError(f'scope is "private", "group" or empty, and not {scope!r}')
        if scope == "group" and not chat_id:
            raise ValueError("a group needs its chat_id")
        return scope == "private" or (not scope and conversations.is_private(self.platform, chat_id, user_id))

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

    def conversation_to_mirror(self, user_id: str) -> Conversation | None:
        """The same, made at no address if there is none yet. None for a person who has no account.

        Raises ValueError for what can be no account's id, and IdentityUnavailable.
        """
        if (found := self.conversation_of(user_id)) is not None:
            return found
        resolver = self.identity_resolver
        if not conversations.is_computed(resolver):
            links_for = getattr(resolver, "links_for", None)
            is_person = links_for is not None and bool(links_for(user_id))
            key = user_id if is_person else conversations.storage_key(self.platform, user_id, resolver)
            return conversations.keyed(key, Address(self.platform, ""))
        account = conversations.account_of(user_id, platform=self.platform)
        if account is None and UnifiedUser.objects.filter(unified_user_id=user_id).exists():
            return None
        account = account or lookup.account_for(platform=self.platform, platform_user_id=user_id)
        return conversations.direct(account, Address(account.platform, ""), resolver)

    def _person(self, user_id: str) -> str:
        if self.identity_resolver is None:
            return stranger_key(self.platform, user_id)
        return resolve_with(self.identity_resolver, self.platform, user_id)

    def _conversation_to_write(self, context: SessionContext) -> Conversation:
        if not conversations.is_computed(self.identity_resolver):
            key = conversations.storage_key(self.platform, context.user_id, self.identity_resolver)
            return conversations.keyed(key, Address(self.platform, context.chat_id, context.thread_id))
        account = self._account(context.user_id, context.user_name)
        # The chat may be a group. Where an account is written to in private, the adapters alone say.
        return conversations.direct(account, Address(self.platform, ""), self.identity_resolver)

    def _account(self, user_id: str, name: str) -> PlatformAccount:
        account, _ = PlatformAccount.objects.get_or_create(
            platform=self.platform, platform_user_id=user_id, defaults={"display_name": name[:150]}
        )
        if name and not account.display_name:
            PlatformAccount.objects.filter(pk=account.pk, display_name="").update(display_name=name[:150])
        return account


def _answer_to(said: HistoryEntry) -> str | None:
    """What was answered to the same message before; None if it is new. The caller holds the lane."""
    if not said.message_id:
        return None
    same = {"platform": said.platform, "chat_id": said.chat_id, "author": said.author, "message_id": said.message_id}
    recent = HistoryEntry.objects.filter(
        conversation=said.conversation, said_at__gte=clock.seconds_from_now(-REPEATED_SECONDS)
    )
    before = recent.filter(**same, role=HistoryEntry.Role.USER).order_by("pk").first()
    if before is None:
        return None
    # Turns of a conversation are written one after the other, each with its answer.
    answers = recent.filter(source=HistoryEntry.Source.REPLY, pk__gt=before.pk).order_by("pk")
    return answers.values_list("text", flat=True).first()


def _as_dict(line: Line) -> dict[str, Any]:
    said: dict[str, Any] = {"role": line.role, "content": line.text, "timestamp": line.said_at.timestamp()}
    if line.source == HistoryEntry.Source.MIRROR:
        said |= {"mirror": True, "mirror_source": line.source_label}
    return said
