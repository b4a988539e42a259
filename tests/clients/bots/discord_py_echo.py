"""An echo bot with discord.py."""

from __future__ import annotations

import os

import discord
import yarl
from discord.gateway import DiscordWebSocket
from discord.http import Route

Route.BASE = os.environ["DISCORD_API_URL"]
DiscordWebSocket.DEFAULT_GATEWAY = yarl.URL(os.environ["DISCORD_GATEWAY_URL"])
client = discord.Client(intents=discord.Intents(guilds=True, guild_messages=True, dm_messages=True))


class Buttons(discord.ui.View):
    @discord.ui.button(label="Press", custom_id="yes")
    async def yes(self, interaction: discord.Interaction, button: discord.ui.Button) -> None:
        await interaction.response.send_message(f"pressed: {button.custom_id}")


@client.event
async def on_message(message: discord.Message) -> None:
    if message.author != client.user:
        await message.channel.send(f"echo: {message.content}", view=Buttons())


client.run(os.environ["DISCORD_BOT_TOKEN"])
