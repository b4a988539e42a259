// An echo bot with Telegraf.
const { Markup, Telegraf } = require("telegraf");

const bot = new Telegraf(process.env.TELEGRAM_BOT_TOKEN, { telegram: { apiRoot: process.env.TELEGRAM_API_URL } });
bot.on("text", (ctx) =>
  ctx.reply(`echo: ${ctx.message.text}`, Markup.inlineKeyboard([Markup.button.callback("Press", "yes")])),
);
bot.on("callback_query", async (ctx) => {
  await ctx.answerCbQuery();
  await ctx.reply(`pressed: ${ctx.callbackQuery.data}`);
});
bot.launch();
