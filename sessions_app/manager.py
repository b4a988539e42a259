"""BotSessionManager: the interface of earlier session managers, built on conversations, history and turns."""

from __future__ import annotations

import asyncio
import logging
import secrets
from contextlib import suppress
from dataclasses import replace
from typing import Any, Literal
from weakref import WeakValueDictionary

from django.conf import settings
from django.db import transaction

from identity import labels
from identity.links import lookup
from identity.models import PlatformAccount, UnifiedUser
from identity.resolvers import Resolves, resolve_with, stranger_key
from identity.support import clock
from identity.support.text import storable
from sessions_app import agents, db, texts
from sessions_app.context import SessionContext
from sessions_app.history import conversations, size, window
from sessions_app.messages import Address, Agent, Turn
from sessions_app.models import Conversation, HistoryEntry
from sessions_app.turns import leases, lifecycle
from sessions_app.turns.leases import Lease

log = logging.getLogger(__name__)

POLL_SECONDS = 0.05  # seconds between two attempts to lease a lane that another process holds
REPEATED_SECONDS = 2 * 86_400  # seconds for which a repeated message is recognised

Scope = Literal["", "private", "group"]


class BotSessionManager:
    """One bot's conversations: `chat` with a person, read their `history`, `reset` it.

    platform: the platform of all user ids. store: always None, as history is in the database. identity_resolver: says
    who is who; None keeps accounts apart under the key `bot_{platform}_{user_id}`. max_history: how many entries an
    agent gets.
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
        # They keep the order of calls within an event loop; between loops and processes the lease decides.
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
        """The agent's answer to `user_id`, after all earlier turns. The caller delivers it; nothing goes to `chat_id`.

        scope: `private` or `group`. Without it, a chat is private if there is no `chat_id`, or if it is known to be one
        to one with the bot; else it is a group. A group (with `thread_id`: one thread in it) has a history of its own,
        which shares nothing with private chats. message_id: if it was answered there in the last two days, the result
        is the same answer, and no agent is asked.

        Question and answer are in history on return. If the agent fails, the answer is a text that says so. Raises
        IdentityUnavailable, before anything is stored.
        """
        context = SessionContext(self.platform, chat_id, chat_name, thread_id, str(user_id), user_name)
        question = await db.call(self._question, context, storable(prompt), message_id, scope)
        queue = self._queues.setdefault((id(asyncio.get_running_loop()), question.conversation.key), asyncio.Lock())
        async with queue:
            return await self._turn(agents.as_agent(agent), context, question)

    @transaction.atomic
    def _question(self, context: SessionContext, prompt: str, message_id: str, scope: Scope) -> HistoryEntry:
        """The unsaved entry of what is asked now. It is stored with its answer."""
        if self._is_private(context.user_id, context.chat_id, scope):
            conversation = self._conversation_to_write(context)
            author = conversation.account
        else:
            conversation = conversations.group(Address(self.platform, context.chat_id, context.thread_id))
            author = self._account(context.user_id, context.user_name)
        place = {"platform": self.platform, "chat_id": context.chat_id, "thread_id": context.thread_id}
        question = {"author": author, "text": prompt, "message_id": message_id, "said_at": clock.read()}
        return window.entry(conversation, **place, **question)

    async def _turn(self, agent: Agent, context: SessionContext, question: HistoryEntry) -> str:
        lease = await self._hold(question.conversation)
        keeper = asyncio.create_task(_keep(lease))
        try:
            if (answered := await db.call(_answer_to, question)) is not None:
                await db.call(lifecycle.abandon, lease)
                return answered
            turn = await db.call(self._begin, lease, context, question)
            failed: agents.AgentError | None = None
            try:
                text = await agents.ask(agent, turn, limit=settings.BOTOS_TURN_SECONDS)
            except agents.AgentError as error:
                failed = error
                log.warning("ask the agent failed: %s; the answer says so", type(error).__name__)
                text = labels.with_commands(str(error.words or texts.GAVE_UP), on=self.platform)
            await db.drain()
            await db.call(lifecycle.record, lease, question=question, answered=text, error=failed)
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

    def _begin(self, lease: Lease, context: SessionContext, question: HistoryEntry) -> Turn:
        if self.identity_resolver is None:
            person = stranger_key(self.platform, context.user_id)
        else:
            person = resolve_with(self.identity_resolver, self.platform, context.user_id)
        speaker = (self.platform, context.user_id)
        lines, name = window.window_with_name(
            lease.conversation, limit=self.max_history, speaker=speaker, account=question.author
        )
        about, text = replace(context, unified_user_id=person), question.text
        fitting, place = size.newest_that_fit(lines, text), lease.conversation.pk
        return Turn(f"chat-{secrets.token_hex(8)}", text, fitting, about, name, conversation_id=place)

    def history(
        self, user_id: str, chat_id: str = "", thread_id: str = "", *, scope: Scope = ""
    ) -> list[dict[str, Any]]:
        """The window of a person or group, as for `chat`, oldest first: dicts of role, content and timestamp (seconds
        since 1970). It includes what is withheld from agents: messages that the model's provider refused, and the
        apologies for failures.

        Mirrored entries also have `mirror` (True) and `mirror_source`. An unknown person or group has no entries.
        """
        conversation = self._conversation_at(str(user_id), chat_id, thread_id, scope)
        if conversation is None:
            return []
        # A unified user id names no account.
        is_account = conversation.key == conversations.storage_key(self.platform, str(user_id), self.identity_resolver)
        speaker = (self.platform, str(user_id)) if is_account else None
        entries = []
        for line in window.window_for(conversation, limit=self.max_history, speaker=speaker, for_agent=False):
            entry: dict[str, Any] = {"role": line.role, "content": line.text, "timestamp": line.said_at.timestamp()}
            if line.source == HistoryEntry.Source.MIRROR:
                entry |= {"mirror": True, "mirror_source": line.source_label}
            entries.append(entry)
        return entries

    async def ahistory(
        self, user_id: str, chat_id: str = "", thread_id: str = "", *, scope: Scope = ""
    ) -> list[dict[str, Any]]:
        """`history`, from a coroutine."""
        return await db.call(self.history, user_id, chat_id, thread_id, scope=scope)

    @transaction.atomic
    def reset(self, user_id: str, chat_id: str = "", thread_id: str = "", *, scope: Scope = "") -> bool:
        """Reset the context, as `/new` does. False for an unknown person or group."""
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

    def _is_private(self, user_id: str, chat_id: str, scope: Scope) -> bool:
        if scope not in {"", "private", "group"}:
            raise ValueError(f'scope is "private", "group" or empty, and not {scope!r}')
        if scope == "group" and not chat_id:
            raise ValueError("a group needs its chat_id")
        return scope == "private" or (not scope and conversations.is_private(self.platform, chat_id, user_id))

    def storage_key(self, user_id: str) -> str:
        """The key of the person's history: the resolved id, or `bot_{platform}_{user_id}` without a resolver."""
        if self.identity_resolver is None:
            return conversations.storage_key(self.platform, str(user_id), None)
        return resolve_with(self.identity_resolver, self.platform, str(user_id))

    def conversation_of(self, user_id: str) -> Conversation | None:
        """The private conversation of a platform user id, or the one that a unified user used last."""
        resolver = self.identity_resolver
        own = conversations.find_direct(conversations.storage_key(self.platform, user_id, resolver), resolver)
        if own is not None or resolver is None:
            return own
        if conversations.is_computed(resolver):
            return conversations.last_used_by(user_id)
        return conversations.find_direct(user_id, resolver)

    def conversation_to_mirror(self, user_id: str) -> Conversation | None:
        """As `conversation_of`, but created without an address if missing. None for a person without an account.

        Raises ValueError for an id that no account can have, and IdentityUnavailable.
        """
        if (conversation := self.conversation_of(user_id)) is not None:
            return conversation
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

    def _conversation_to_write(self, context: SessionContext) -> Conversation:
        if not conversations.is_computed(self.identity_resolver):
            key = conversations.storage_key(self.platform, context.user_id, self.identity_resolver)
            return conversations.keyed(key, Address(self.platform, context.chat_id, context.thread_id))
        account = self._account(context.user_id, context.user_name)
        # Without an address, as the chat may be a group: only adapters know the private chat of an account.
        return conversations.direct(account, Address(self.platform, ""), self.identity_resolver)

    def _account(self, user_id: str, name: str) -> PlatformAccount:
        account, _ = PlatformAccount.objects.get_or_create(
            platform=self.platform, platform_user_id=user_id, defaults={"display_name": name[:150]}
        )
        if name and not account.display_name:
            PlatformAccount.objects.filter(pk=account.pk, display_name="").update(display_name=name[:150])
        return account


async def _keep(lease: Lease) -> None:
    while True:
        await asyncio.sleep(settings.BOTOS_LEASE_SECONDS / 3)
        with suppress(Exception):  # the fence decides; a lost lease shows when the turn is written
            await db.call(leases.renew, [lease])


def _answer_to(question: HistoryEntry) -> str | None:
    """The earlier answer to the same message; None if it is new. The caller holds the lane."""
    if not question.message_id:
        return None
    recent = HistoryEntry.objects.filter(
        conversation=question.conversation, said_at__gte=clock.seconds_from_now(-REPEATED_SECONDS)
    )
    same = recent.filter(
        role=HistoryEntry.Role.USER,
        platform=question.platform,
        chat_id=question.chat_id,
        author=question.author,
        message_id=question.message_id,
    )
    earlier = same.select_related("event").order_by("pk").first()
    if earlier is None:
        return None
    # Turns of a conversation are stored one after the other, each with its answer, except one that was repeated.
    answers = recent.filter(source=HistoryEntry.Source.REPLY, pk__gt=earlier.pk).order_by("pk")
    if earlier.event and earlier.event.failures:
        answers = answers.filter(event=earlier.event)
    return answers.values_list("text", flat=True).first()
