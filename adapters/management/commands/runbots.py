"""`manage.py runbots`: the bots, and if asked for the pages and the playground, in one process until SIGTERM."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import logging
import os
import signal
import socket
from argparse import ArgumentParser
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand
from django.utils.module_loading import import_string

from adapters import registry
from adapters.botos import BotOS
from adapters.runtime import health
from adapters.runtime.services import configured_agent
from identity.resolvers import Resolves
from sessions_app.messages import BROWSER

if TYPE_CHECKING:
    from adapters.runtime.webserver import WebServer

log = logging.getLogger(__name__)

HIGHEST_PORT = 65_535
PORTS_TRIED = 20
MAX_STOP = 28.0  # seconds; supervisors kill after 30


class Command(BaseCommand):
    help = "Run the bots until SIGTERM or Ctrl+C."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--platforms", nargs="+", metavar="NAME", help="only these (default: all with tokens)")
        parser.add_argument("--web", nargs="?", const="", metavar="HOST:PORT", help="also serve the pages")
        parser.add_argument("--playground", action="store_true", help="use local servers instead of the platforms")
        turns_help = "turns at the same time; with 0, manage.py rqworker answers"
        parser.add_argument("--workers", type=int, default=settings.BOTOS_WORKERS, metavar="N", help=turns_help)

    def handle(self, *args: Any, **options: Any) -> None:
        health.check_database()
        platforms = _platforms(options["platforms"], playground=options["playground"])
        _check_workers(options["workers"])
        web = None if options["web"] is None else _web(options["web"], playground=options["playground"])
        own = [] if options["playground"] else platforms
        pages = [BROWSER] if web and BROWSER not in own else []
        botos = _botos([*own, *pages], options["workers"])
        asyncio.run(_serve(botos, platforms if options["playground"] else (), web))
        botos.check_connected([name for name in botos.list_bots() if name != BROWSER])


def _check_workers(workers: int) -> None:
    if workers < 0:
        raise ImproperlyConfigured("--workers takes a number from 0. Hint: leave it out for BOTOS_WORKERS.")
    if not workers and not settings.REDIS_URL:
        raise ImproperlyConfigured(
            "--workers 0 lets manage.py rqworker answer, through Redis. Hint: set REDIS_URL for both."
        )


def _platforms(named: list[str] | None, *, playground: bool) -> list[str]:
    """The platforms to run. Raises ImproperlyConfigured with a hint when there are none."""
    for name in named or []:
        if not registry.get(name).playground and playground:
            hint = "leave --platforms out, or name platforms that have one."
            raise ImproperlyConfigured(f"The playground has no local server for {name}. Hint: {hint}")
    if named or playground:
        return list(dict.fromkeys(named or [name for name, one in registry.known().items() if one.playground]))
    chats = [name for name in registry.names() if name != BROWSER]
    configured = [name for name in chats if registry.is_configured(name)]
    if not configured:
        hint = f"set {registry.tokens()} in .env, or try everything with --playground --web."
        text = f"No platform is configured. Hint: {hint}"
        raise ImproperlyConfigured(text)
    return configured


def _botos(platforms: list[str], workers: int) -> BotOS:
    """Answers on every platform there is: another process may hold the connection that a message came by."""
    resolver: Resolves = import_string(settings.BOTOS_RESOLVER)()
    return BotOS(configured_agent(), platforms, resolver, serves=registry.names(), workers=workers)


def _web(address: str, *, playground: bool) -> WebServer:
    host, _, port = (address or settings.BOTOS_WEB).rpartition(":")
    host = host.strip("[]") or "127.0.0.1"
    if not port.isdecimal() or int(port) > HIGHEST_PORT:
        raise ImproperlyConfigured("--web does not name HOST:PORT. Hint: write --web 127.0.0.1:8000.")
    if playground and not _is_loopback(host):
        raise ImproperlyConfigured(
            f"The playground would be open to other machines on {host}. Hint: use --web 127.0.0.1:{port} with it."
        )
    is_chosen = bool(address) or settings.ENV.is_set("BOTOS_WEB")
    # A proxy or a bookmark counts on a chosen port, and on the port of real bots.
    web = _listen(host, int(port), tries=PORTS_TRIED if playground and not is_chosen else 1)
    if port not in ("0", str(web.port)):
        log.info("port %s is in use, so the pages are on port %d", port, web.port)
    log.info(
        "pages: http://%s:%d/%s", f"[{host}]" if ":" in host else host, web.port, "playground/" if playground else ""
    )
    return web


def _listen(host: str, port: int, *, tries: int) -> WebServer:
    """On the first free port of so many."""
    from adapters.runtime.webserver import WebServer  # only processes with pages need it

    last = port + tries - 1
    for candidate in range(port, last + 1):
        try:
            return WebServer(host, candidate)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or candidate == last:
                raise ImproperlyConfigured(_why_not(host, candidate, error)) from None
    raise AssertionError("unreachable")


def _why_not(host: str, port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        hint = f"stop the program that uses it, or choose another, as in --web {host}:{port + 1} or BOTOS_WEB."
        return f"Port {port} on {host} is in use. Hint: {hint}"
    if error.errno == errno.EACCES:
        return f"This user may not serve on port {port}. Hint: choose a port from 1024 with --web or BOTOS_WEB."
    if error.errno == errno.EADDRNOTAVAIL or isinstance(error, socket.gaierror):
        return f"{host} is not an address of this machine. Hint: write 127.0.0.1 or 0.0.0.0 in --web or BOTOS_WEB."
    return f"The pages cannot be served on {host}:{port} ({error.strerror}). Hint: choose another --web or BOTOS_WEB."


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
    """Stop in order within a time limit, and at once when asked again. Leases and fences make up for the
    disorder.
    """
    if asked_to_stop.is_set():
        os._exit(1)
    asked_to_stop.set()
    loop.call_later(MAX_STOP, os._exit, 1)


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
