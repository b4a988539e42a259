"""What the Telegram adapter asks of python-telegram-bot."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Coroutine
from http import HTTPStatus
from typing import Any, TypeVar

import httpx
from django.utils.translation import gettext as _
from telegram import (
    Bot,
    BotCommandScopeAllPrivateChats,
    CopyTextButton,
    InlineKeyboardButton,
    InlineKeyboardMarkup,
    LinkPreviewOptions,
    ReplyParameters,
)
from telegram.constants import ChatAction
from telegram.error import BadRequest, NetworkError, RetryAfter
from telegram.request import HTTPXRequest

from adapters.duplicate_marker import marked
from adapters.telegram import MAX_TEXT
from adapters.telegram.events import BotIdentity
from identity.support.text import storable
from sessions_app.commands import registry as command_registry
from sessions_app.messages import Address, OutgoingMessage

T = TypeVar("T")


class AddressError(ValueError):
    """A chat or thread id that is no number, and so none of Telegram's."""


class UnreadableAnswerError(Exception):
    """Telegram says that a message was sent, and not which one."""


async def send_text(bot: Bot, message: OutgoingMessage) -> str:
    """Send plain text, with buttons below. A possible repeat says so. The id of the message.

    Raises AddressError, UnreadableAnswerError, and whatever the SDK does.
    """
    text = storable(message.text)
    form = {
        "chat_id": _numeric(message.address.chat_id),
        "text": marked(text, MAX_TEXT) if message.possibly_sent else text,
        "message_thread_id": _numeric(message.address.thread_id) if message.address.thread_id else None,
        "link_preview_options": LinkPreviewOptions(is_disabled=True),
        "reply_parameters": _reply_parameters(message.reply_to),
        "reply_markup": _keyboard(message),
    }
    wanted = {name: value for name, value in form.items() if value is not None}
    # The answer as it is: what the SDK cannot make a message of was sent all the same. It warns at `sendMessage`, for
    # which it has a method, and makes one out of this.
    sent = await bot.do_api_request("send_Message", api_kwargs=wanted)
    sent_id = sent.get("message_id") if isinstance(sent, dict) else None
    if not isinstance(sent_id, int):
        raise UnreadableAnswerError("the answer names no message")
    return str(sent_id)


async def send_typing(bot: Bot, address: Address) -> None:
    """Show the typing sign in a chat or topic. Raises AddressError, and whatever the SDK does."""
    topic = _numeric(address.thread_id) if address.thread_id else None
    await bot.send_chat_action(_numeric(address.chat_id), ChatAction.TYPING, message_thread_id=topic)


def _reply_parameters(message_id: str) -> ReplyParameters | None:
    """What makes a message answer another one, if that is still there."""
    if not re.fullmatch(r"[0-9]{1,18}", message_id):
        return None
    return ReplyParameters(int(message_id), allow_sending_without_reply=True)


def _keyboard(message: OutgoingMessage) -> InlineKeyboardMarkup | None:
    copy = [InlineKeyboardButton(_("Copy code"), copy_text=CopyTextButton(message.copy))] if message.copy else []
    buttons = [InlineKeyboardButton(button.label, callback_data=button.command) for button in message.buttons]
    return InlineKeyboardMarkup.from_column([*copy, *buttons]) if copy or buttons else None


async def register_commands(bot: Bot) -> None:
    """Put the commands in the menu of private chats."""
    menu = [(command.name, str(command.summary)) for command in command_registry.menu()]
    await bot.set_my_commands(menu, scope=BotCommandScopeAllPrivateChats())


def where_found(me: BotIdentity) -> dict[str, str]:
    """What the bot is called, and where a private chat with it opens."""
    return {"name": f"@{me.username}", "url": f"https://t.me/{me.username}"} if me.username else {}


def _numeric(native_id: str) -> int:
    try:
        return int(native_id)
    except ValueError:
        raise AddressError("the address is not one of Telegram's") from None


def new_request(*, read_timeout: float) -> HTTPXRequest:
    return HTTPXRequest(
        connection_pool_size=16,
        read_timeout=read_timeout,
        write_timeout=20,
        connect_timeout=10,
        pool_timeout=10,
        httpx_kwargs={"event_hooks": {"response": [_refused_on_the_way]}},
    )


async def _refused_on_the_way(response: httpx.Response) -> None:
    """Raise what a 4xx without JSON says: a proxy refused the call, so Telegram did nothing.

    The SDK reads the wait from JSON alone, and takes an answer that it cannot read for one that may hide a success.
    """
    if not response.is_client_error or "json" in response.headers.get("content-type", ""):
        return
    if response.status_code == HTTPStatus.TOO_MANY_REQUESTS:
        raise RetryAfter(_wait(response.headers.get("retry-after", "")))
    if response.status_code == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        raise BadRequest("a proxy refuses the size of the call (413)")
    raise NetworkError(f"a proxy refuses the call ({response.status_code})")


def _wait(retry_after: str) -> int:
    """Seconds, from 1 to an hour, that a header `Retry-After` asks for."""
    return min(max(int(retry_after), 1), 3600) if retry_after.isascii() and retry_after.isdigit() else 1


async def unless_stopped(work: Coroutine[Any, Any, T], stop: asyncio.Event) -> T | None:
    """The result of `work`, or None as soon as `stop` is set; `work` is cancelled then."""
    task, stopping = asyncio.ensure_future(work), asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait({task, stopping}, return_when=asyncio.FIRST_COMPLETED)
        return task.result() if task.done() else None
    finally:
        task.cancel()
        stopping.cancel()
        await asyncio.gather(task, stopping, return_exceptions=True)
