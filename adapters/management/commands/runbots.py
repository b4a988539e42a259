"""`manage.py runbots`: the bots, and if asked for the pages and the playground, in one process until SIGTERM."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import os
import signal
from argparse import ArgumentParser
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.utils.module_loading import import_string

from adapters import registry, vitals
from adapters.botos import BotOS, configured_agent
from adapters.supervisor import State
from adapters.webserver import WebServer
from identity.resolvers import Resolves
from sessions_app import browser_chat
from sessions_app.agents import AgentError

log = logging.getLogger(__name__)

LONGEST_STOP = 28.0  # seconds; supervisors kill after 30


class Command(BaseCommand):
    help = "Run the bots until SIGTERM or Ctrl+C."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--platforms", nargs="+", metavar="NAME", help="only these (default: all with tokens)")
        parser.add_argument("--web", nargs="?", const="", metavar="HOST:PORT", help="serve the pages too")
        parser.add_argument("--playground", action="store_true", help="with local servers in place of the platforms")
        turns_help = "turns at once; with 0, manage.py rqworker answers"
        parser.add_argument("--workers", type=int, default=settings.BOTOS_WORKERS, metavar="N", help=turns_help)

    def handle(self, *args: Any, **options: Any) -> None:
        vitals.check_database()
        platforms = _platforms(options["platforms"], playground=options["playground"])
        _check_workers(options["workers"])
        web = None if options["web"] is None else _web(options["web"], playground=options["playground"])
        own = [] if options["playground"] else platforms
        pages = [browser_chat.PLATFORM] if web and browser_chat.PLATFORM not in own else []
        botos = _botos([*own, *pages], options["workers"])
        asyncio.run(_serve(botos, platforms if options["playground"] else (), web))
        chats = [health for health in botos.health() if health.platform != browser_chat.PLATFORM]
        if chats and all(health.state == State.NEEDS_CONFIGURATION for health in chats):
            raise CommandError("No platform could be connected. Hint: the lines above say what to set.")


def _check_workers(workers: int) -> None:
    if workers < 0:
        raise CommandError("--workers takes a number from 0.")
    if not workers and not settings.REDIS_URL:
        raise CommandError("--workers 0 leaves the answers to manage.py rqworker. Hint: set REDIS_URL for both.")


def _platforms(named: list[str] | None, *, playground: bool) -> list[str]:
    """The platforms to run. Raises CommandError with a hint when there are none."""
    for name in named or []:
        try:
            registry.get(name)
        except LookupError as error:
            raise CommandError(f"{str(error.args[0]).capitalize()}.") from None
    if named or playground:
        return list(dict.fromkeys(named or ("telegram", "discord", "slack")))
    chats = [name for name in registry.names() if name != browser_chat.PLATFORM]
    configured = [name for name in chats if registry.is_configured(name)]
    if not configured:
        hint = "set TELEGRAM_BOT_TOKEN, DISCORD_BOT_TOKEN, or SLACK_BOT_TOKEN and SLACK_APP_TOKEN in .env"
        raise CommandError(f"No platform is configured. Hint: {hint}, or try everything with --playground --web.")
    return configured


def _botos(platforms: list[str], workers: int) -> BotOS:
    """Answers on every platform there is: another process may hold the connection that a message came by."""
    resolver: Resolves = import_string(settings.BOTOS_RESOLVER)()
    try:
        agent = configured_agent()
    except AgentError as error:
        raise CommandError(str(error)) from error
    return BotOS(agent, platforms, resolver, serves=registry.names(), workers=workers)


def _web(address: str, *, playground: bool) -> WebServer:
    host, _, port = (address or settings.BOTOS_WEB).rpartition(":")
    host = host.strip("[]") or "127.0.0.1"
    if not port.isdecimal():
        raise CommandError("--web takes HOST:PORT, for example 127.0.0.1:8000.")
    if playground and not _is_loopback(host):
        raise CommandError("The playground is for this machine alone: use --web 127.0.0.1:PORT with it.")
    try:
        web = WebServer(host, int(port))
    except (OSError, OverflowError) as error:
        raise CommandError(f"The pages cannot be served on {host}:{port}: {error}.") from None
    log.info("pages: http://%s:%d/%s", host, web.port, "playground/" if playground else "")
    return web


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


async def _serve(botos: BotOS, played: list[str] | tuple[()], web: WebServer | None) -> None:
    loop, asked_to_stop = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, _stop_or_quit, loop, asked_to_stop)
    async with _playground(botos, played):
        pages = asyncio.create_task(web.run()) if web else None
        bots = asyncio.create_task(botos.start())
        stopping = asyncio.create_task(asked_to_stop.wait())
        await asyncio.wait([stopping, bots], return_when=asyncio.FIRST_COMPLETED)
        if web and bots.done() and not bots.exception():
            await stopping  # an operator must be able to see in the pages why no platform is connected
        botos.request_stop()
        await bots
        stopping.cancel()
        if web and pages:
            web.stop()
            await pages


def _stop_or_quit(loop: asyncio.AbstractEventLoop, asked_to_stop: asyncio.Event) -> None:
    """Stop in good order, but not for ever, and at once when asked again. Leases and fences make up for the
    disorder.
    """
    if asked_to_stop.is_set():
        os._exit(1)
    asked_to_stop.set()
    loop.call_later(LONGEST_STOP, os._exit, 1)


@contextlib.asynccontextmanager
async def _playground(botos: BotOS, played: list[str] | tuple[()]) -> Any:
    if not played:
        yield
        return
    from adapters.playground import stage  # the local servers, which nobody needs in production

    playground = stage.Playground()
    await playground.start()
    for platform in played:
        botos.add_bot(playground.bot(platform))
    try:
        yield
    finally:
        await playground.stop()
