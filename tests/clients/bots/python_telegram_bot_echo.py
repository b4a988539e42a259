"""An echo bot with python-telegram-bot and its own polling."""

from __future__ import annotations

import os

from telegram import InlineKeyboardButton, InlineKeyboardMarkup, Update
from telegram.ext import Application, CallbackQueryHandler, ContextTypes, MessageHandler, filters


async def echo(update: Update, _: ContextTypes.DEFAULT_TYPE) -> None:
    button = InlineKeyboardButton("Press", callback_data="yes")
    markup = InlineKeyboardMarkup([[button]])
    await update.effective_message.reply_text(f"echo: {update.effective_message.text}", reply_markup=markup)


async def pressed(update: Update, _: ContextTypes.DEFAULT_TYPE) -> None:
    await update.callback_query.answer()
    await update.effective_chat.send_message(f"pressed: {update.callback_query.data}")


builder = Application.builder().token(os.environ["TELEGRAM_BOT_TOKEN"])
application = builder.base_url(os.environ["TELEGRAM_API_URL"] + "/bot").build()
application.add_handler(MessageHandler(filters.TEXT, echo))
application.add_handler(CallbackQueryHandler(pressed))
application.run_polling()
