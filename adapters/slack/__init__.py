"""Slack, by slack-bolt and socket mode, or by HTTP."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.utils.translation import gettext_lazy as _

from adapters.platform import Config, LocalServer, Platform, Setting, Transport

if TYPE_CHECKING:
    from adapters.protocols import PlatformAdapter


def _build(config: Config) -> PlatformAdapter:
    address = {"api_url": config["SLACK_API_URL"]} if config["SLACK_API_URL"] else {}
    if config["BOTOS_SLACK_TRANSPORT"] == "http":
        from adapters.slack.http_adapter import SlackHttpAdapter  # the library takes a good part of a second

        return SlackHttpAdapter(bot_token=config["SLACK_BOT_TOKEN"], **address)
    from adapters.slack.adapter import SlackAdapter

    return SlackAdapter(bot_token=config["SLACK_BOT_TOKEN"], app_token=config["SLACK_APP_TOKEN"], **address)


PLATFORM = Platform(
    name="slack",
    title="Slack",
    build=_build,
    cut_at=(4000,),
    text_limit=4000,  # escaping makes at most five characters of one: still far below the 40,000 that Slack cuts at
    settings=(
        Setting("SLACK_BOT_TOKEN", pattern=r"xoxb-.+", kind="a Slack bot token (xoxb-)"),
        Setting("SLACK_APP_TOKEN", pattern=r"xapp-.+", kind="a Slack app-level token (xapp-)"),
        Setting("SLACK_API_URL", is_secret=False, scheme="http"),
        Setting(
            "SLACK_SIGNING_SECRET",
            pattern=r"[!-~]{32,}",
            form="32 characters or more",
            hint='copy it from "Basic Information" of the Slack app.',
            error="E013",
        ),
    ),
    transport_setting="BOTOS_SLACK_TRANSPORT",
    transports=(
        Transport(name="socket", needs=("SLACK_BOT_TOKEN", "SLACK_APP_TOKEN")),
        Transport(
            name="http",
            needs=("SLACK_BOT_TOKEN", "SLACK_SIGNING_SECRET"),
            view="adapters.webhooks.slack",
            own_server="SLACK_API_URL",
        ),
    ),
    command_prefix="!",  # Slack keeps everything that starts with a slash to itself, unless it is registered there
    privacy_note=_("Your workspace admins may be able to read this chat."),
    private_chat=r"D.*",
    loggers=("slack", "slack_bolt", "slack_sdk"),
    server="https://slack.com",
    server_setting="SLACK_API_URL",
    playground=LocalServer(path="adapters.playground.slack.SlackServer", user_id="U0PLAYGROUND{}"),
)
