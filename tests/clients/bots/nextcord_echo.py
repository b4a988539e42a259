"""An echo bot with nextcord."""

from __future__ import annotations

import os

import nextcord
from nextcord.http import Route

Route.BASE = os.environ["DISCORD_API_URL"]
client = nextcord.Client(intents=nextcord.Intents(guilds=True, guild_messages=True, dm_messages=True))


class Buttons(nextcord.ui.View):
    @nextcord.ui.button(label="Press", custom_id="yes")
    async def yes(self, button: nextcord.ui.Button, interaction: nextcord.Interaction) -> None:
        await interaction.response.send_message(f"pressed: {button.custom_id}")


@client.event
async def on_message(message: nextcord.Message) -> None:
    if message.author != client.user:
        await message.channel.send(f"echo: {message.content}", view=Buttons())


client.run(os.environ["DISCORD_BOT_TOKEN"])
