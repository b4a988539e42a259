// An echo bot with grammY.
const { Bot, InlineKeyboard } = require("grammy");

const bot = new Bot(process.env.TELEGRAM_BOT_TOKEN, { client: { apiRoot: process.env.TELEGRAM_API_URL } });
bot.on("message:text", (ctx) =>
  ctx.reply(`echo: ${ctx.message.text}`, { reply_markup: new InlineKeyboard().text("Press", "yes") }),
);
bot.on("callback_query:data", async (ctx) => {
  await ctx.answerCallbackQuery();
  await ctx.reply(`pressed: ${ctx.callbackQuery.data}`);
});
bot.start();
