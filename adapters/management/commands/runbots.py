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
from django.db import DatabaseError, connection
from django.db.migrations.executor import MigrationExecutor
from django.utils.module_loading import import_string

from adapters import registry
from adapters.botos import BotOS, configured_agent
from adapters.supervisor import State
from adapters.webserver import WebServer
from identity.resolvers import Resolves
from sessions_app import bridge
from sessions_app.agents import AgentError

log = logging.getLogger(__name__)

LONGEST_STOP = 28.0  # seconds; supervisors kill after 30


class Command(BaseCommand):
    help = "Run the bots until SIGTERM or Ctrl+C."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--platforms", nargs="+", metavar="NAME", help="only these (default: all with tokens)")
        parser.add_argument("--web", nargs="?", const="", metavar="HOST:PORT", help="serve the pages too")
        parser.add_argument("--playground", action="store_true", help="with local servers in place of the platforms")
        parser.add_argument("--workers", type=int, default=settings.BOTOS_WORKERS, metavar="N", help="turns at once")

    def handle(self, *args: Any, **options: Any) -> None:
        _check_database()
        platforms = _platforms(options["platforms"], playground=options["playground"])
        if options["workers"] < 1:
            raise CommandError("--workers takes a number from 1.")
        web = None if options["web"] is None else _web(options["web"], playground=options["playground"])
        botos = _botos(platforms if not options["playground"] else (), options["workers"])
        asyncio.run(_serve(botos, platforms if options["playground"] else (), web))
        if all(health.state == State.NEEDS_CONFIGURATION for health in botos.health()):
            raise CommandError("No platform could be connected. Hint: the lines above say what to set.")


def _check_database() -> None:
    try:
        plan = MigrationExecutor(connection)
        missing = plan.migration_plan(plan.loader.graph.leaf_nodes())
    except DatabaseError as error:
        kind = type(error).__name__
        raise CommandError(f"The database cannot be used ({kind}). Hint: is DATABASE_URL right, is it up?") from None
    if missing:
        raise CommandError("The database lacks tables. Hint: run manage.py migrate.")


def _platforms(named: list[str] | None, *, playground: bool) -> list[str]:
    """The platforms to run. Raises CommandError with a hint when there are none."""
    for name in named or []:
        try:
            registry.get(name)
        except LookupError as error:
            raise CommandError(f"{str(error.args[0]).capitalize()}.") from None
    if named or playground:
        return list(dict.fromkeys(named or ("telegram", "discord", "slack")))
    configured = [name for name in registry.names() if registry.is_configured(name)]
    if not configured:
        hint = "set TELEGRAM_BOT_TOKEN, DISCORD_BOT_TOKEN, or SLACK_BOT_TOKEN and SLACK_APP_TOKEN in .env"
        raise CommandError(f"No platform is configured. Hint: {hint}, or try everything with --playground --web.")
    return configured


def _botos(platforms: list[str] | tuple[()], workers: int) -> BotOS:
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
    await bridge.call(stage.link_personas)
    await playground.start()
    for platform in played:
        botos.add_bot(playground.bot(platform))
    try:
        yield
    finally:
        await playground.stop()
