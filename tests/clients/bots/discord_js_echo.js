// An echo bot with discord.js.
const { ActionRowBuilder, ButtonBuilder, ButtonStyle, Client, Events, GatewayIntentBits, Partials } = require("discord.js");

const { DirectMessages, GuildMessages, Guilds } = GatewayIntentBits;
const client = new Client({
  intents: [Guilds, GuildMessages, DirectMessages],
  partials: [Partials.Channel], // without it private chats are ignored
  rest: { api: process.env.DISCORD_API_URL.replace(/\/v10$/, "") },
});
client.on(Events.MessageCreate, async (message) => {
  if (message.author.bot) return;
  const button = new ButtonBuilder().setCustomId("yes").setLabel("Press").setStyle(ButtonStyle.Primary);
  const row = new ActionRowBuilder().addComponents(button);
  await message.channel.send({ content: `echo: ${message.content}`, components: [row] });
});
client.on(Events.InteractionCreate, (interaction) => interaction.reply(`pressed: ${interaction.customId}`));
client.login(process.env.DISCORD_BOT_TOKEN);
