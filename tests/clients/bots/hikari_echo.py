"""An echo bot with hikari."""

from __future__ import annotations

import os

import hikari

intents = hikari.Intents.GUILDS | hikari.Intents.GUILD_MESSAGES | hikari.Intents.DM_MESSAGES
bot = hikari.GatewayBot(
    os.environ["DISCORD_BOT_TOKEN"], rest_url=os.environ["DISCORD_API_URL"], intents=intents, banner=None
)


@bot.listen()
async def echo(event: hikari.MessageCreateEvent) -> None:
    if event.is_human:
        row = bot.rest.build_message_action_row()
        row.add_interactive_button(hikari.ButtonStyle.PRIMARY, "yes", label="Press")
        await event.message.respond(f"echo: {event.content}", component=row)


@bot.listen()
async def pressed(event: hikari.InteractionCreateEvent) -> None:
    interaction = event.interaction
    words = f"pressed: {interaction.custom_id}"
    await interaction.create_initial_response(hikari.ResponseType.MESSAGE_CREATE, words)


bot.run(check_for_updates=False)
