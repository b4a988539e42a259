"""An echo bot with aiogram."""

from __future__ import annotations

import asyncio
import os

from aiogram import Bot, Dispatcher
from aiogram.client.session.aiohttp import AiohttpSession
from aiogram.client.telegram import TelegramAPIServer
from aiogram.types import CallbackQuery, InlineKeyboardButton, InlineKeyboardMarkup, Message

session = AiohttpSession(api=TelegramAPIServer.from_base(os.environ["TELEGRAM_API_URL"]))
bot, dispatcher = Bot(os.environ["TELEGRAM_BOT_TOKEN"], session=session), Dispatcher()


@dispatcher.message()
async def echo(message: Message) -> None:
    button = InlineKeyboardButton(text="Press", callback_data="yes")
    await message.answer(f"echo: {message.text}", reply_markup=InlineKeyboardMarkup(inline_keyboard=[[button]]))


@dispatcher.callback_query()
async def pressed(query: CallbackQuery) -> None:
    await query.answer()
    await query.message.answer(f"pressed: {query.data}")


asyncio.run(dispatcher.start_polling(bot))
