"""The Bot API as a bot meets it: the methods that BotOS calls, and the chats, messages and updates behind them.

As strict as the real one about what it is sent, and with its words, so that a test fails where Telegram would refuse.
https://core.telegram.org/bots/api
"""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Awaitable, Callable
from typing import Any

from adapters.playground.rate_limits import Limiter, RateLimit
from adapters.playground.server import Said, Typing
from adapters.playground.telegram.queue import JSON, ApiError, UpdateQueue
from identity.support.buttons import Button
from identity.support.text import utf16_length

TEXT_LIMIT = 4096  # UTF-16 code units
# https://core.telegram.org/bots/faq#my-bot-is-hitting-limits-how-do-i-avoid-this
PER_BOT, PER_CHAT, PER_GROUP = RateLimit(30, 1.0), RateLimit(1, 1.0), RateLimit(20, 60.0)
TYPING_SECONDS = 5.0  # "or less (when a message arrives from your bot, Telegram clients clear its typing status)"
BOT: JSON = {"id": 777001, "is_bot": True, "first_name": "BotOS", "username": "BotosPlaygroundBot"}
ACTIONS = ("typing", "upload_photo", "upload_document", "record_voice", "upload_voice", "find_location")


def bad_request(description: str) -> ApiError:
    return ApiError(400, f"Bad Request: {description}")


class Parameters:
    """What a call was given, by form, query or JSON; reads each value as the type that the method wants."""

    def __init__(self, given: JSON) -> None:
        self.given = given

    def integer(self, name: str, default: int | None = None) -> int:
        value = self.given.get(name, default)
        if isinstance(value, bool) or not re.fullmatch(r"-?[0-9]{1,18}", str(value)):
            raise bad_request(f"invalid {name} specified")
        return int(str(value))

    def flag(self, name: str) -> bool:
        return str(self.given.get(name, "")).lower() in ("true", "1")

    def text(self) -> str:
        value = self.given.get("text")
        if not isinstance(value, str) or not value.strip():
            raise bad_request("message text is empty")
        if utf16_length(value) > TEXT_LIMIT:
            raise bad_request("message is too long")
        if self.given.get("parse_mode") not in (None, "", "HTML", "Markdown", "MarkdownV2"):
            raise bad_request("unsupported parse_mode")
        return value

    def structure(self, name: str, kind: type) -> Any:
        """An array or object, which a form carries as JSON text; an empty one when it is not given."""
        value = self.given.get(name) or kind()
        try:
            value = json.loads(value) if isinstance(value, str) else value
        except ValueError:
            value = None
        if not isinstance(value, kind):
            raise bad_request(f"can't parse {name}: {'object' if kind is dict else 'array'} expected")
        return value


class BotApi:
    """The state of the platform and the methods on it.

    said: what stands in the chats, both sides, in order. replies: the bot's share of it, by chat.
    """

    def __init__(self) -> None:
        self.updates = UpdateQueue()
        self.chats: dict[int, JSON] = {}
        self.threads: dict[int, set[int]] = {}
        self.messages: dict[int, JSON] = {}
        self._first_id = time.time_ns() // 1_000_000  # a server that starts again must not repeat ids
        self.said: list[Said] = []
        self.replies: dict[str, list[Said]] = {}
        self.queries: set[str] = set()  # of pressed buttons that the bot may answer
        self.commands: list[JSON] = []
        self.typing = Typing(TYPING_SECONDS)
        self.limiter = Limiter()
        self._methods = self._table()

    def _table(self) -> dict[str, Callable[[Parameters], Awaitable[object]]]:
        return {
            "getme": self._get_me,
            "getupdates": self._get_updates,
            "sendmessage": self._send_message,
            "editmessagetext": self._edit_message_text,
            "deletemessage": self._delete_message,
            "sendchataction": self._send_chat_action,
            "answercallbackquery": self._answer_callback_query,
            "setmycommands": self._set_my_commands,
            "getwebhookinfo": self._get_webhook_info,
        }

    def knows(self, method: str) -> bool:
        """Method names are case-insensitive."""
        return method.lower() in self._methods

    async def call(self, method: str, given: JSON) -> object:
        """The `result` of a call. Raises ApiError."""
        if wait := math.ceil(self.limiter.take(_limits(method.lower(), str(given.get("chat_id"))))):
            raise ApiError(429, f"Too Many Requests: retry after {wait}", wait)
        return await self._methods[method.lower()](Parameters(given))

    def new_message(self, author: JSON, chat: JSON, text: str, **more: object) -> JSON:
        """Write a message into a chat. Ids count over all chats here; Telegram's do so only in private."""
        message_id = self._first_id + len(self.messages)
        base = {"message_id": message_id, "date": int(time.time()), "from": author, "chat": chat, "text": text}
        entities = find_entities(text)
        message = self.messages[message_id] = base | ({"entities": entities} if entities else {}) | more
        self._lists_of(as_said(message), append=True)
        return message

    def change_text(self, message: JSON, text: str, **more: object) -> None:
        """Put new words in the place of a message's old ones."""
        message.pop("entities", None)
        message.update(text=text, edit_date=int(time.time()), **more)
        if entities := find_entities(text):
            message["entities"] = entities
        said = as_said(message)
        for listing in self._lists_of(said):
            listing[_place(listing, said)] = said

    def _lists_of(self, said: Said, *, append: bool = False) -> list[list[Said]]:
        listings = [self.said]
        if said.author_id == "bot":
            listings.append(self.replies.setdefault(said.chat_id, []))
        for listing in listings if append else ():
            listing.append(said)
        return listings

    async def _get_me(self, _given: Parameters) -> JSON:
        return BOT | {"can_join_groups": True, "can_read_all_group_messages": True, "supports_inline_queries": False}

    async def _get_updates(self, given: Parameters) -> list[object]:
        if "allowed_updates" in given.given:
            self.updates.allowed = given.structure("allowed_updates", list)
        limit = min(max(given.integer("limit", 100), 1), 100)
        return await self.updates.poll(given.integer("offset", 0), limit, min(given.integer("timeout", 0), 50))

    async def _send_message(self, given: Parameters) -> JSON:
        chat, text = self._chat(given), given.text()
        markup = _keyboard(given)
        given.structure("link_preview_options", dict)
        more: JSON = {"reply_markup": markup} if "inline_keyboard" in markup else {}
        more |= self._reply(chat, given)
        if "message_thread_id" in given.given:
            more |= self._thread(chat, given.integer("message_thread_id"))
        message = self.new_message(BOT, chat, text, **more)
        self.typing.end(str(chat["id"]), str(more.get("message_thread_id", "")))
        await self.updates.announce()
        return message

    def _chat(self, given: Parameters) -> JSON:
        if not given.given.get("chat_id"):
            raise bad_request("chat_id is empty")
        chat = self.chats.get(given.integer("chat_id"))
        if chat is None:
            raise bad_request("chat not found")
        return chat

    def _thread(self, chat: JSON, thread: int) -> JSON:
        if thread not in self.threads.get(chat["id"], ()):
            raise bad_request("message thread not found")
        return {"message_thread_id": thread, "is_topic_message": True}

    def _reply(self, chat: JSON, given: Parameters) -> JSON:
        """What a message that answers another one shows of that. The original comes without what it answered itself."""
        parameters: JSON = given.structure("reply_parameters", dict)
        if "message_id" not in parameters:
            return {}
        original = self.messages.get(Parameters(parameters).integer("message_id"))
        if original is None or original["chat"]["id"] != chat["id"]:
            if Parameters(parameters).flag("allow_sending_without_reply"):
                return {}
            raise bad_request("message to be replied not found")
        return {"reply_to_message": {key: value for key, value in original.items() if key != "reply_to_message"}}

    def _own_message(self, given: Parameters, complaint: str) -> JSON:
        chat, message = self._chat(given), self.messages.get(given.integer("message_id"))
        if message is None or message["chat"]["id"] != chat["id"]:
            raise bad_request(f"{complaint} not found")
        if message["from"]["id"] != BOT["id"]:
            raise bad_request(f"{complaint.removesuffix(' to edit').removesuffix(' to delete')} can't be changed")
        return message

    async def _edit_message_text(self, given: Parameters) -> JSON:
        message, text = self._own_message(given, "message to edit"), given.text()
        markup = _keyboard(given)
        if message["text"] == text and message.get("reply_markup", {}) == markup:
            raise bad_request("message is not modified: specified new message content is exactly the same")
        self.change_text(message, text, reply_markup=markup)
        await self.updates.announce()
        return message

    async def _delete_message(self, given: Parameters) -> bool:
        message = self._own_message(given, "message to delete")
        for listing in self._lists_of(said := as_said(message)):
            del listing[_place(listing, said)]
        message["chat"] = {"id": 0}  # no call finds it again, and its id stays taken
        await self.updates.announce()
        return True

    async def _send_chat_action(self, given: Parameters) -> bool:
        chat = self._chat(given)
        if given.given.get("action") not in ACTIONS:
            raise bad_request("wrong parameter action in request")
        thread = ""
        if "message_thread_id" in given.given:
            thread = str(self._thread(chat, given.integer("message_thread_id"))["message_thread_id"])
        self.typing.show(str(chat["id"]), thread)
        await self.updates.announce()
        return True

    async def _answer_callback_query(self, given: Parameters) -> bool:
        query_id = str(given.given.get("callback_query_id"))
        if query_id not in self.queries:
            raise bad_request("query is too old and response timeout expired or query ID is invalid")
        self.queries.remove(query_id)
        await self.updates.announce()
        return True

    async def _set_my_commands(self, given: Parameters) -> bool:
        commands = given.structure("commands", list)
        if not all(isinstance(command, dict) and _is_command(command) for command in commands):
            raise bad_request("BOT_COMMAND_INVALID")
        self.commands = commands
        return True

    async def _get_webhook_info(self, _given: Parameters) -> JSON:
        """The bot asks for updates here: the playground calls no address."""
        return {"url": "", "has_custom_certificate": False, "pending_update_count": len(self.updates.pending)}


def _limits(method: str, chat: str) -> dict[str, RateLimit]:
    """What counts for a call: only what people see in a chat, and a group has a negative id.

    Actions have limits of their own. Telegram documents none, and refuses a bot that repeats them without a pause.
    """
    if method == "sendchataction":
        return {f"action {chat}": PER_CHAT, **({f"actions in {chat}": PER_GROUP} if chat.startswith("-") else {})}
    if method not in ("sendmessage", "editmessagetext"):
        return {}
    in_group = {f"group {chat}": PER_GROUP} if chat.startswith("-") else {}
    return {"bot": PER_BOT, f"chat {chat}": PER_CHAT, **in_group}


def as_said(message: JSON) -> Said:
    author = "bot" if message["from"]["id"] == BOT["id"] else str(message["from"]["id"])
    thread = str(message.get("message_thread_id", ""))
    ids = (str(message["message_id"]), str(message["chat"]["id"]), author)
    answered = str(message.get("reply_to_message", {}).get("message_id", ""))
    return Said(*ids, message["text"], thread, _buttons(message.get("reply_markup", {})), answered)


def _buttons(markup: JSON) -> tuple[Button, ...]:
    """Those that tell the bot when they are pressed; copying happens on the person's own device."""
    row_by_row = [button for row in markup.get("inline_keyboard", []) for button in row]
    return tuple(Button(one["text"], one["callback_data"]) for one in row_by_row if "callback_data" in one)


def _keyboard(given: Parameters) -> JSON:
    """The markup of a message. Raises ApiError for a button that Telegram would not show."""
    markup: JSON = given.structure("reply_markup", dict)
    for button in [button for row in markup.get("inline_keyboard", []) for button in row]:
        if not str(button.get("text", "")).strip():
            raise bad_request("can't parse inline keyboard button: text buttons are unallowed in the inline keyboard")
        if "callback_data" in button and not 1 <= len(button["callback_data"].encode()) <= 64:
            raise bad_request("BUTTON_DATA_INVALID")
        if "copy_text" in button and not 1 <= len(button["copy_text"].get("text", "")) <= 256:
            raise bad_request("BUTTON_COPY_TEXT_INVALID")
    return markup


def _place(listing: list[Said], said: Said) -> int:
    """Where a message stands; from the end, since it is mostly a late one that changes."""
    return next(i for i in range(len(listing) - 1, -1, -1) if listing[i].message_id == said.message_id)


def _is_command(command: JSON) -> bool:
    name, described = str(command.get("command", "")), str(command.get("description", ""))
    return re.fullmatch(r"[a-z0-9_]{1,32}", name) is not None and 1 <= len(described) <= 256


def find_entities(text: str) -> list[JSON]:
    """The commands and mentions that Telegram sees in a text, with places in UTF-16 code units."""
    found = []
    for match in re.finditer(r"(?<!\S)(/[A-Za-z0-9_]{1,32}(@\w{4,32})?|@\w{4,32})", text):
        kind = "bot_command" if match[0].startswith("/") else "mention"
        place = {"offset": utf16_length(text[: match.start()]), "length": utf16_length(match[0])}
        found.append({"type": kind, **place})
    return found
