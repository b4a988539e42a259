"""Shows the typing signs of this process, from the receipt of a message until the last part of its answer is sent.

Another process may answer, so the end of a sign is seen in the database: one statement about all signs, at most once a
second and only while a sign is on. The calls come after everything else: they use few connections, they never begin
while a message is being sent to the same address, and an error of one harms nothing.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from time import monotonic

from adapters.aio import is_set_within
from adapters.protocols import DeliveryError, HidesTyping, PlatformAdapter, ShowsTyping
from sessions_app import db
from sessions_app.commands import registry as command_registry
from sessions_app.messages import Address, InboundMessage
from sessions_app.turns.unanswered import unanswered

log = logging.getLogger(__name__)

BEGIN_AFTER = 0.05  # seconds after the receipt: who gets an answer sooner needs no sign
MAX_SECONDS = 120.0  # that a sign is on after the last message
CHECK_SECONDS = 1.0  # between two looks into the database
MAX_SIGNS = 500
MAX_CALLS = 8  # under way on a platform; the SDK for Telegram has 16 connections, and messages need the others
BESIDE_MESSAGES = 0.05  # seconds between two calls while messages are on their way on the platform
CALL_SECONDS = 5.0  # that a call may take
BETWEEN_CALLS = 1.0  # seconds between two calls for a chat, also where a message has ended the sign
REST_OF_OTHERS = 1.0  # seconds that the other chats of a platform rest when it refuses a call as one too many
MAX_REST = 600.0
LOG_SECONDS = 60.0
PACE = 0.01  # seconds between two looks at the signs

Chat = tuple[str, str]  # platform and chat id; the whole platform has an empty chat id


@dataclass(slots=True)
class _Sign:
    """The sign of one address. All times are of the monotonic clock."""

    conversation_id: int
    until: float
    due: float  # when it is to be shown next
    known_until: float  # when the database must be asked whether an answer is still to come
    version: int = 0  # grows with everything that makes an older look into the database worthless
    is_shown: bool = False  # the platform may show it now


class TypingSigns:
    """Shows signs through `adapters()`, the adapters that are up, by platform.

    begin_after, max_seconds, check_seconds: for tests; see the constants.
    """

    def __init__(
        self,
        adapters: Callable[[], Mapping[str, PlatformAdapter]],
        *,
        begin_after: float = BEGIN_AFTER,
        max_seconds: float = MAX_SECONDS,
        check_seconds: float = CHECK_SECONDS,
    ) -> None:
        self._adapters = adapters
        self._begin_after = begin_after
        self._max_seconds = max_seconds
        self._check_seconds = check_seconds
        self._signs: dict[Address, _Sign] = {}
        self._elsewhere: dict[int, None] = {}  # ids of conversations where a page received a message
        self._look_at = math.inf  # when they are looked at
        self._free_at: dict[Chat, float] = {}  # the earliest moment of the next call
        self._rests: dict[Chat, float] = {}  # the same, as the platform asks
        self._on_their_way: Counter[Address] = Counter()  # deliveries
        self._sending: Counter[str] = Counter()  # the same by platform
        self._called_at: dict[Chat, float] = {}  # the moment of the last call
        self._calls: dict[Address, asyncio.Task[None]] = {}
        self._checking: asyncio.Task[None] | None = None
        self._next_check = 0.0
        self._wake = asyncio.Event()
        self._wakes_at = math.inf
        self._logged_at: dict[str, float] = {}

    def begin(self, conversation_id: int, message: InboundMessage) -> None:
        """Show that an answer to this message is to come. It is stored, and waits for its turn."""
        command, words = command_registry.parse(message.text)
        if command is None or command.asks(words):
            self._begin(conversation_id, message.address, after=self._begin_after)

    def look_at(self, conversation_id: int) -> None:
        """Look soon for messages that wait in this conversation: a page received one, maybe in another process."""
        if not self._elsewhere:
            self._look_at = monotonic() + self._begin_after
            self._wake_at(self._look_at)
        if len(self._elsewhere) < MAX_SIGNS:
            self._elsewhere[conversation_id] = None

    def pause(self, address: Address) -> None:
        """Show no sign at the address before `resume`: a message is being sent there, and ends the sign."""
        self._on_their_way[address] += 1
        self._sending[address.platform] += 1
        if call := self._calls.get(address):
            call.cancel()  # it could arrive behind the message

    def resume(self, address: Address, *, rest: float | None = None) -> None:
        """Show the sign again if more is to come there. rest: seconds that the platform asked the sender to wait."""
        now, chat = monotonic(), (address.platform, address.chat_id)
        if self._on_their_way[address]:
            self._on_their_way[address] -= 1
            self._sending[address.platform] -= 1
        if not self._on_their_way[address]:
            del self._on_their_way[address]
        if chat in self._free_at:
            self._free_at[chat] = min(self._free_at[chat], self._called_at.get(chat, 0.0) + BETWEEN_CALLS)
        if rest:
            self._rest(chat, rest)
        if sign := self._signs.get(address):
            sign.version += 1
            sign.due, sign.known_until, sign.is_shown = now, 0.0, False
            self._wake_at(self._next_check)

    async def run(self) -> None:
        """Show signs until cancelled."""
        try:
            while True:
                self._wakes_at = self._next()
                pause = None if self._wakes_at == math.inf else max(self._wakes_at - monotonic(), PACE)
                if await is_set_within(self._wake, pause):
                    await asyncio.sleep(PACE)  # nothing is so urgent that all signs are looked at for each message
                self._wake.clear()
                self._end_old()
                self._check_if_due()
                self._show_due()
        finally:
            tasks = [*self._calls.values(), *filter(None, [self._checking])]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _begin(self, conversation_id: int, address: Address, *, after: float = 0.0) -> None:
        now, sign = monotonic(), self._signs.get(address)
        if sign is None:
            can_show = hasattr(self._adapters().get(address.platform), "show_typing")  # isinstance takes longer
            if not can_show or len(self._signs) >= MAX_SIGNS:
                return
            sign = self._signs[address] = _Sign(conversation_id, until=0.0, due=now + after, known_until=0.0)
        sign.conversation_id = conversation_id
        sign.until = now + self._max_seconds
        sign.known_until = max(sign.known_until, now + after + self._check_seconds)
        sign.version += 1
        self._wake_at(sign.due)

    def _wake_at(self, moment: float) -> None:
        if moment < self._wakes_at:
            self._wake.set()

    def _next(self) -> float:
        """When there is something to do; infinite if only a call, a message or a delivery can change anything."""
        moments = [self._look_at] if self._elsewhere and self._checking is None else []
        for address, sign in self._signs.items():
            moments.append(sign.until)
            if address in self._on_their_way:
                continue
            if self._needs_check(sign, sign.due):
                if self._checking is None:
                    moments.append(max(self._next_check, sign.due - self._check_seconds))
            elif self._has_room(address):
                moments.append(self._may_show_at(address, sign))
                moments.append(max(self._next_check, sign.known_until))
        return min(moments, default=math.inf)

    def _has_room(self, address: Address) -> bool:
        under_way = sum(call.platform == address.platform for call in self._calls)
        return address not in self._calls and under_way < (1 if self._sending[address.platform] else MAX_CALLS)

    def _may_show_at(self, address: Address, sign: _Sign) -> float:
        chats = ((address.platform, address.chat_id), (address.platform, ""))
        moments = [sign.due, *(found.get(chat, 0.0) for found in (self._free_at, self._rests) for chat in chats)]
        if self._sending[address.platform]:
            moments.append(self._called_at.get((address.platform, ""), 0.0) + BESIDE_MESSAGES)
        return max(moments)

    def _needs_check(self, sign: _Sign, moment: float) -> bool:
        """Whether at this moment it is not known that an answer is still to come."""
        return sign.known_until < moment or sign.known_until <= monotonic()

    def _end_old(self) -> None:
        now = monotonic()
        for address in [address for address, sign in self._signs.items() if sign.until <= now]:
            self._end(address)
        for moments, after in ((self._free_at, 0.0), (self._rests, 0.0), (self._called_at, BETWEEN_CALLS)):
            if len(moments) > 2 * MAX_SIGNS:
                for chat in [chat for chat, moment in moments.items() if moment + after <= now]:
                    del moments[chat]

    def _end(self, address: Address) -> None:
        """Forget a sign. Where the platform would keep it, take it back."""
        sign = self._signs.pop(address)
        if call := self._calls.get(address):
            call.cancel()
            return
        adapter: object = self._adapters().get(address.platform)
        if sign.is_shown and isinstance(adapter, HidesTyping):
            self._start(address, adapter.hide_typing)

    # --- What the database says

    def _check_if_due(self) -> None:
        now = monotonic()
        if self._checking is not None:
            return
        soon = now + self._check_seconds
        asked = {
            address: sign.version
            for address, sign in self._signs.items()
            if address not in self._on_their_way and sign.due <= soon and self._needs_check(sign, max(sign.due, now))
        }
        asked = asked if now >= self._next_check else {}
        elsewhere: dict[int, None] = {}
        if now >= self._look_at:
            elsewhere, self._elsewhere, self._look_at = self._elsewhere, {}, math.inf
        if asked or elsewhere:
            self._next_check = soon if asked else self._next_check
            conversations = {self._signs[address].conversation_id for address in asked} | elsewhere.keys()
            self._checking = asyncio.create_task(self._check(asked, conversations, elsewhere))
            self._checking.add_done_callback(self._checked)

    def _checked(self, _task: asyncio.Task[None]) -> None:
        self._checking = None
        self._wake.set()

    async def _check(
        self, asked: Mapping[Address, int], conversations: Collection[int], elsewhere: Collection[int]
    ) -> None:
        """Ask about these signs, which had these versions, and about messages that came elsewhere."""
        began = monotonic()
        try:
            found = await db.call(unanswered, conversations, asked.keys())
        except Exception as error:  # noqa: BLE001 - a sign that may be over is not shown, and ends in time
            self._log("database", error)
            return
        awaited = {address for _, address in found}
        for address, version in asked.items():
            sign = self._signs.get(address)
            if sign is None or sign.version != version:
                continue
            if address in awaited:
                # Of two looks, the second may come late.
                sign.known_until = began + 1.5 * self._check_seconds
            else:
                self._end(address)
        for conversation_id, address in found:
            if conversation_id in elsewhere:
                self._begin(conversation_id, address)

    # --- What the platforms are asked

    def _show_due(self) -> None:
        now, adapters = monotonic(), self._adapters()
        for address, sign in sorted(self._signs.items(), key=lambda item: item[1].due):
            if sign.due > now:
                break
            if sign.known_until <= now or self._may_show_at(address, sign) > now:
                continue
            adapter: object = adapters.get(address.platform)
            if address in self._on_their_way or not self._has_room(address):
                continue
            if not isinstance(adapter, ShowsTyping):  # it connects again
                sign.due = now + self._check_seconds
                continue
            chat = (address.platform, address.chat_id)
            self._called_at[chat] = self._called_at[address.platform, ""] = now
            sign.is_shown = True
            sign.due = self._free_at[chat] = now + adapter.typing_seconds
            self._start(address, adapter.show_typing)

    def _start(self, address: Address, call: Callable[[Address], Awaitable[None]]) -> None:
        task = self._calls[address] = asyncio.create_task(self._carry_out(address, call))
        task.add_done_callback(partial(self._ended, address))

    def _ended(self, address: Address, _task: asyncio.Task[None]) -> None:
        del self._calls[address]
        self._wake.set()

    async def _carry_out(self, address: Address, call: Callable[[Address], Awaitable[None]]) -> None:
        try:
            async with asyncio.timeout(CALL_SECONDS):
                await call(address)
        except DeliveryError as error:
            if error.retry_after is not None:
                chat = (address.platform, address.chat_id)
                self._rest(chat, error.retry_after)
                self._rest((address.platform, ""), min(error.retry_after, REST_OF_OTHERS))
                self._free_at.pop(chat, None)
                if sign := self._signs.get(address):
                    sign.due = monotonic()  # it is shown as soon as the rest is over
            if error.permanent:
                self._signs.pop(address, None)
            self._log(address.platform, error)
        except Exception as error:  # noqa: BLE001 - an adapter's bug, or no answer in time: the sign is missing, no more
            self._log(address.platform, error)

    def _rest(self, chat: Chat, seconds: float) -> None:
        rest = REST_OF_OTHERS if math.isnan(seconds) else min(max(seconds, 0.0), MAX_REST)
        self._rests[chat] = max(self._rests.get(chat, 0.0), monotonic() + rest)

    def _log(self, place: str, error: Exception) -> None:
        """Log a failure, at most one a minute for each platform."""
        now = monotonic()
        if now - self._logged_at.get(place, -math.inf) >= LOG_SECONDS:
            self._logged_at[place] = now
            reason = str(error) if isinstance(error, DeliveryError) else type(error).__name__
            log.warning("%s: show the typing sign failed: %s; messages are sent as usual", place, reason)
