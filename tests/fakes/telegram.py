"""The local Telegram for tests: failures, redelivery, malformed updates, webhooks, and records of the calls."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from aiohttp import web

from adapters.playground.server import Person
from adapters.playground.telegram import TelegramServer, error_response, user_json
from adapters.playground.telegram.api import BotApi, Parameters, bad_request
from adapters.playground.telegram.queue import JSON, TERMINATED, ApiError, Pending, UpdateQueue
from tests.fakes.faults import Fault, FaultPlan, LostResponse
from tests.fakes.telegram_webhook import Caller

REMEMBERED_CALLS = 1000
WEBHOOKED = "can't use getUpdates method while webhook is active; use deleteWebhook to delete the webhook first"
DESCRIPTIONS = {
    401: "Unauthorized",
    403: "Forbidden: bot was blocked by the user",
    404: "Not Found",
    409: f"Conflict: {TERMINATED}",
    429: "Too Many Requests: retry after",
    500: "Internal Server Error",
    503: "Service Unavailable",
}


@dataclass(slots=True)
class Pushed(Pending):
    """An update that an offset must not remove unseen: a redelivery, or one without a usable id (0), which any offset
    takes once the bot was given it.
    """

    is_delivered: bool = False

    def hand_out(self) -> object:
        self.is_delivered = True
        return self.event

    def is_confirmed_by(self, offset: int) -> bool:
        return self.is_delivered and self.update_id < offset


class FakeQueue(UpdateQueue):
    """Also takes updates that Telegram tells again. `conflicts`: how many polls another one ended."""

    def __init__(self) -> None:
        super().__init__()
        self.conflicts = 0
        self.update_of: dict[str, JSON] = {}  # by message id, the update that told of it first

    async def put(self, event: JSON) -> JSON:
        update = await super().put(event)
        if "message" in event:
            self.update_of[str(event["message"]["message_id"])] = update
        return update

    async def put_again(self, message_id: str) -> None:
        """Queue a redelivery where its id belongs, since Telegram hands out in the order of ids."""
        update = self.update_of[message_id]
        later = (place for place, pending in enumerate(self.pending) if pending.update_id > update["update_id"])
        self.pending.insert(next(later, len(self.pending)), Pushed(update, update["update_id"]))
        await self.announce()

    async def poll(self, offset: int, limit: int, seconds: float) -> list[object]:
        try:
            return await super().poll(offset, limit, seconds)
        except ApiError:
            self.conflicts += 1
            raise


class FakeBotApi(BotApi):
    """Also calls webhooks, and lets people block the bot.

    sends: every accepted sendMessage as it was given, with `chat_id` as a number and `reply_markup` decoded.
    answered: the pressed buttons that the bot took note of. blocked: the chats that refuse the bot.
    """

    def __init__(self) -> None:
        super().__init__()
        self.updates: FakeQueue = FakeQueue()
        self.webhook = Caller(self.updates, self.call)
        self.sends: list[JSON] = []
        self.answered: list[str] = []
        self.blocked: set[int] = set()

    def _table(self) -> dict[str, Callable[[Parameters], Awaitable[object]]]:
        return {**super()._table(), "setwebhook": self._set_webhook, "deletewebhook": self._delete_webhook}

    async def call(self, method: str, given: JSON) -> object:
        result = await super().call(method, given)
        if method.lower() == "sendmessage" and isinstance(result, dict):
            markup = Parameters(given).structure("reply_markup", dict)
            self.sends.append(given | {"chat_id": result["chat"]["id"], "reply_markup": markup or None})
        elif method.lower() == "answercallbackquery":
            self.answered.append(str(given["callback_query_id"]))
        return result

    def _chat(self, given: Parameters) -> JSON:
        chat = super()._chat(given)
        if chat["id"] in self.blocked:
            raise ApiError(403, DESCRIPTIONS[403])
        return chat

    async def _get_updates(self, given: Parameters) -> list[object]:
        if self.webhook.url:
            raise ApiError(409, f"Conflict: {WEBHOOKED}")
        return await super()._get_updates(given)

    async def _set_webhook(self, given: Parameters) -> bool:
        url, secret = str(given.given.get("url", "")), str(given.given.get("secret_token", ""))
        if url and not re.match(r"https://|http://127\.0\.0\.1[:/]", url):
            raise bad_request("bad webhook: An HTTPS URL must be provided for webhook")
        if secret and not re.fullmatch(r"[A-Za-z0-9_-]{1,256}", secret):
            raise bad_request("secret token contains unallowed characters")
        if "allowed_updates" in given.given:
            self.updates.allowed = given.structure("allowed_updates", list)
        await self.webhook.set(url, secret)
        return True

    async def _delete_webhook(self, given: Parameters) -> bool:
        await self.webhook.set("", "")
        if str(given.given.get("drop_pending_updates", "")).lower() == "true":
            self.updates.pending.clear()
        return True

    async def _get_webhook_info(self, given: Parameters) -> JSON:
        return await super()._get_webhook_info(given) | {"url": self.webhook.url} | self.webhook.last_error


class FakeTelegram(TelegramServer):
    """Fulfils FakeServer. `calls`: the latest calls, answered or not. Fault names are the Bot API's method names."""

    api: FakeBotApi

    def __init__(self) -> None:
        super().__init__()
        self.api = FakeBotApi()
        self.said = self.api.said
        self.typing = self.api.typing
        self.faults = FaultPlan()
        self.calls: deque[tuple[str, JSON]] = deque(maxlen=REMEMBERED_CALLS)

    async def stop(self) -> None:
        await self.api.webhook.stop()
        await super().stop()

    async def forward(self, person: Person, text: str) -> str:
        """A person passes on, in private, what somebody else wrote."""
        origin = {"type": "hidden_user", "sender_user_name": "Somebody", "date": 1_700_000_000}
        message = self.api.new_message(user_json(person), self._private(person), text, forward_origin=origin)
        return await self._tell("message", message)

    async def redeliver(self, message_id: str) -> None:
        """Tell of a message again, under the update id of the first time."""
        await self.api.updates.put_again(message_id)

    async def push_raw(self, event: object, *, number: bool = True) -> None:
        """Queue any JSON value as an update; an object without an id gets the next one unless `number` is False."""
        if number and isinstance(event, dict) and "update_id" not in event:
            event = {"update_id": self.api.updates.next_id(), **event}
        given = event.get("update_id") if isinstance(event, dict) else None
        if isinstance(given, int) and not isinstance(given, bool) and 0 < given < 2**31:
            await self.api.updates.add(Pending(event, given))
        else:
            await self.api.updates.add(Pushed(event, 0))

    async def acknowledged(self, message_id: str, timeout: float = 10.0) -> None:
        """Wait until an offset passed the update of a message, or a webhook took it. Raises TimeoutError."""
        wanted = self.api.updates.update_of[message_id]["update_id"]
        await self._until(lambda: all(pending.update_id != wanted for pending in self.api.updates.pending), timeout)

    async def answered(self, query_id: str, timeout: float = 10.0) -> None:
        """Wait until the bot took note of a pressed button. Raises TimeoutError."""
        await self._until(lambda: query_id in self.api.answered, timeout)

    async def _carry_out(self, method: str, given: JSON) -> web.StreamResponse:
        self.calls.append((method, given))
        fault = self.faults.take(method)
        if fault is not None and fault.status:
            return _planned(fault)
        answer = await super()._carry_out(method, given)
        if self.faults.outage:  # began while a long poll was waiting
            return error_response(503, DESCRIPTIONS[503])
        return LostResponse() if fault is not None and fault.lose_response else answer


def _planned(fault: Fault) -> web.Response:
    description = DESCRIPTIONS.get(fault.status, "Error")
    if not fault.retry_after:
        return error_response(fault.status, description)
    seconds = int(fault.retry_after) if float(fault.retry_after).is_integer() else fault.retry_after
    return error_response(fault.status, f"{description} {seconds}", retry_after=seconds)
