"""An echo bot with pyTelegramBotAPI."""

from __future__ import annotations

import os

import telebot
from telebot.types import CallbackQuery, InlineKeyboardButton, InlineKeyboardMarkup, Message

telebot.apihelper.API_URL = os.environ["TELEGRAM_API_URL"] + "/bot{0}/{1}"
bot = telebot.TeleBot(os.environ["TELEGRAM_BOT_TOKEN"])


@bot.message_handler(func=lambda _: True)
def echo(message: Message) -> None:
    markup = InlineKeyboardMarkup().add(InlineKeyboardButton("Press", callback_data="yes"))
    bot.send_message(message.chat.id, f"echo: {message.text}", reply_markup=markup)


@bot.callback_query_handler(func=lambda _: True)
def pressed(query: CallbackQuery) -> None:
    bot.answer_callback_query(query.id)
    bot.send_message(query.message.chat.id, f"pressed: {query.data}")


bot.infinity_polling()
