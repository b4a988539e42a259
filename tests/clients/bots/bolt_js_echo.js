// An echo bot with Bolt for JavaScript, in Socket Mode.
const { App, SocketModeReceiver } = require("@slack/bolt");

const clientOptions = { slackApiUrl: process.env.SLACK_API_URL };
const receiver = new SocketModeReceiver({
  appToken: process.env.SLACK_APP_TOKEN,
  installerOptions: { clientOptions },
});
const app = new App({ token: process.env.SLACK_BOT_TOKEN, receiver, clientOptions });
app.message(async ({ message, say }) => {
  const text = `echo: ${message.text}`;
  const button = { type: "button", action_id: "echo-yes", text: { type: "plain_text", text: "Press" }, value: "yes" };
  const section = { type: "section", text: { type: "plain_text", text } };
  await say({ text, blocks: [section, { type: "actions", block_id: "row", elements: [button] }] });
});
app.action({ block_id: "row", action_id: "echo-yes" }, async ({ ack, action, respond }) => {
  await ack();
  await respond({ text: `pressed: ${action.value}`, response_type: "in_channel", replace_original: false });
});
app.start();
