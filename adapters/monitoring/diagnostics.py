"""Checks of everything that can be wrong with an installation. Each gives a finding, with a hint what to do."""

from __future__ import annotations

import asyncio
import re
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path

import httpx
from django.conf import settings
from django.core import checks
from django.db import DatabaseError, connection
from redis.exceptions import RedisError

from adapters import registry
from adapters.platform import Setting
from adapters.protocols import Checkable, NeedsConfiguration
from adapters.runtime import health
from identity.support import clock
from sessions_app.agents.base import AgentMisconfigured
from sessions_app.models import InboundEvent, Lane
from sessions_app.privacy import forgetting
from sessions_app.wakeups import redis as redis_wakeups

MAX_CLOCK_DIFFERENCE = 5.0  # seconds
MAX_PLATFORM_DIFFERENCE = 60.0  # seconds; the header has whole ones, and answers take time
MEGABYTE = 10**6
MIN_ROOM = 200 * MEGABYTE
ONLINE_SECONDS = 10.0  # for what a platform is asked
WAY_OUT = "try again. If it keeps failing, check the platform's status page and this machine's network."
EVENTS = "manage.py events list; events redrive answers them, events dismiss drops them."


@dataclass(frozen=True, slots=True)
class Finding:
    """The state of one thing. A `hint` marks a problem and says what to do. No field holds a secret."""

    about: str
    detail: str
    hint: str = ""


def findings(*, online: bool = False) -> Iterable[Finding]:
    """All findings; without a working database, those that need none.

    online: whether to ask the platforms and the model too.
    """
    yield from _configuration()
    yield from _platforms()
    if online:
        yield from asyncio.run(_ask_all())
        servers = [name for name in registry.names() if registry.get(name).server]
        yield from (_clock_of(name) for name in servers if registry.is_configured(name))
    yield _redis()
    try:
        connection.ensure_connection()
    except DatabaseError as error:
        yield Finding(
            "database",
            f"does not answer ({type(error).__name__})",
            "check that the database is running and DATABASE_URL is correct.",
        )
        return
    if not health.is_migrated():
        yield Finding("migrations", "not all are applied", "run manage.py migrate.")
        return
    yield from _database()
    yield from _work()
    yield from _failures()
    yield from _duties()


def _configuration() -> Iterable[Finding]:
    warnings = [message for message in checks.run_checks() if message.level >= checks.WARNING]
    for warning in warnings:
        hint = warning.hint or f"look up {warning.id} in the documentation of Django's system checks."
        yield Finding("configuration", str(warning.msg), hint)
    unknown = settings.ENV.unknown()
    for sentence in unknown:
        problem, _, hint = sentence.partition(" Hint: ")
        yield Finding("configuration", problem, hint)
    if not warnings and not unknown:
        yield Finding("configuration", "valid")
    if outdated := settings.ENV.outdated():
        yield Finding("names of settings", outdated)  # no problem yet: this release reads them


def _platforms() -> Iterable[Finding]:
    yield from map(_platform, registry.names())
    if not any(getattr(settings, key, "") for name in registry.names() for key in registry.needs(name)):
        yield Finding(
            "platforms", "none has a token, so the bot receives no messages", f"set {registry.tokens()} in .env."
        )


def _platform(name: str) -> Finding:
    keys = registry.needs(name)
    missing = [key for key in keys if not getattr(settings, key, "")]
    described = registry.settings_by_name()
    malformed = [key for key in keys if key in described and not _can_be(described[key], getattr(settings, key, ""))]
    if keys and missing == list(keys):
        return Finding(name, "off: no token is set")
    if missing:
        return Finding(name, f"lacks {' and '.join(missing)}", f"set {' and '.join(missing)}.")
    if malformed:
        return Finding(name, f"not valid: {' and '.join(malformed)}", described[malformed[0]].hint)
    return Finding(name, f"has {' and '.join(keys)}" if keys else "needs no tokens")


def _can_be(setting: Setting, value: str) -> bool:
    return not setting.pattern or re.fullmatch(setting.pattern, value) is not None


async def _ask_all() -> list[Finding]:
    """Ask every configured platform, and the model, at the same time."""
    configured = [name for name in registry.names() if registry.get(name).needs and registry.is_configured(name)]
    model = [_ask_model()] if settings.BOTOS_MODEL else []
    return await asyncio.gather(*map(_ask, configured), *model)


async def _ask_model() -> Finding:
    """Ask the model one small question, which costs next to nothing."""
    try:
        from sessions_app.agents import model_check  # here, since it takes a second to import

        async with asyncio.timeout(ONLINE_SECONDS):
            await model_check.ask()
    except AgentMisconfigured as error:
        detail, _, hint = str(error).partition(" Hint: ")
        return Finding("model online", detail, hint or "correct BOTOS_MODEL.")
    except TimeoutError:
        hint = "check OPENAI_BASE_URL, and whether the server is overloaded."
        return Finding("model online", f"the server does not answer within {ONLINE_SECONDS:g} s", hint)
    return Finding("model online", f"{settings.BOTOS_MODEL} answers")


async def _ask(name: str) -> Finding:
    """Ask whether the platform accepts the credentials."""
    about = f"{name} online"
    try:
        adapter = registry.build(name, {})
        if not isinstance(adapter, Checkable):
            return Finding(about, "can't be checked")
        async with asyncio.timeout(ONLINE_SECONDS):
            return Finding(about, f"accepts the credentials of {await adapter.check()}")
    except NeedsConfiguration as refused:
        return Finding(about, "rejects the credentials", _masked(name, f"{refused}."))
    except TimeoutError:
        return Finding(about, f"does not answer within {ONLINE_SECONDS:g} s", WAY_OUT)
    except Exception as error:  # noqa: BLE001 - any error of an adapter is a finding
        return Finding(about, _masked(name, str(error)) or type(error).__name__, WAY_OUT)


def _clock_of(name: str) -> Finding:
    """Compare this machine's clock with the platform's, which is in the header `Date` of any response."""
    about, platform = f"{name} clock", registry.get(name)
    try:
        server = getattr(settings, platform.server_setting, "") or platform.server
        response = httpx.head(server, timeout=ONLINE_SECONDS)
        platform_time = parsedate_to_datetime(response.headers["Date"])
        seconds = (datetime.now(tz=UTC) - platform_time).total_seconds()
    except (httpx.HTTPError, KeyError, ValueError, TypeError) as error:
        return Finding(about, f"cannot be compared ({type(error).__name__})")
    hint = "set this machine's clock and the database's: /link accepts only recent messages."
    return Finding(about, f"{seconds:+.0f} s here", hint if abs(seconds) > MAX_PLATFORM_DIFFERENCE else "")


def _masked(name: str, text: str) -> str:
    """The text without the platform's credentials, which a deployer's own adapter may put into an error."""
    platform = registry.get(name)
    keys = {*registry.needs(name), *(setting.name for setting in platform.settings if setting.is_secret)}
    for secret in filter(None, (str(getattr(settings, key, "")) for key in keys)):
        text = text.replace(secret, "***")
    return text


def _redis() -> Finding:
    if not settings.REDIS_URL:
        return Finding("Redis", "not used")
    client = redis_wakeups.connect(settings.REDIS_URL)
    try:
        client.ping()
    except (RedisError, OSError) as error:
        hint = "check that Redis is running and REDIS_URL is correct. Until then, BotOS polls for work."
        return Finding("Redis", f"does not answer ({type(error).__name__})", hint)
    finally:
        client.close()
    return Finding("Redis", "answers")


def _database() -> Iterable[Finding]:
    yield Finding("database", f"{connection.display_name} answers, with all tables")

    if connection.vendor == "sqlite" and Path(file := connection.settings_dict["NAME"]).exists():
        free = shutil.disk_usage(file).free
        hint = "free some space: messages that can't be stored are not received." if free < MIN_ROOM else ""
        yield Finding("disk", f"{free // MEGABYTE:,} MB free for the database", hint)
    else:
        yield Finding("disk", "the database server manages it")

    seconds = (datetime.now(tz=UTC) - clock.read()).total_seconds()
    hint = "set this machine's clock." if abs(seconds) > MAX_CLOCK_DIFFERENCE else ""
    yield Finding("clock", f"{seconds:+.1f} s against the database's", hint)


def _work() -> Iterable[Finding]:
    # Only leases that an event waits for: nobody takes over a lease without one, such as that of a killed program.
    turn_leases = Lane.objects.filter(pk__in=InboundEvent.objects.filter(done_at=None).values("conversation"))
    held = turn_leases.filter(lease_until__gt=clock.now())
    expired = turn_leases.exclude(owner="").filter(lease_until__lte=clock.now())
    hint = "no worker is taking over. Is one running?" if expired.exists() else ""
    holders = held.values("owner").distinct().count()
    yield Finding("leases", f"{held.count()} held by {holders} workers, {expired.count()} expired", hint)

    receivers = health.receivers()
    detail = (
        ", ".join(f"{name} by {owner or 'nobody'}" for name, owner in receivers.items())
        or "no platform needs a receiver"
    )
    hint = "" if all(receivers.values()) else "is runbots running? If it is, its log says why it is not connected."
    yield Finding("receiving", detail, hint)

    backlog = health.backlog()
    hint = "is a worker running, and is it fast enough?" if backlog.lag >= health.MAX_LAG else ""
    yield Finding("messages", f"{backlog.lanes} conversations waiting, the longest for {backlog.lag:.0f} s", hint)

    hint = "is runbots running, and are its platforms up?" if backlog.oldest_delivery >= health.MAX_LAG else ""
    oldest = f"the oldest for {backlog.oldest_delivery:.0f} s"
    yield Finding("deliveries", f"{backlog.deliveries} waiting, {oldest}, {backlog.ambiguous} ambiguous", hint)


def _failures() -> Iterable[Finding]:
    dead = health.dead_deliveries()
    hint = "manage.py deliveries list shows why. deliveries redrive sends them again, deliveries dismiss drops them."
    yield Finding("dead letters", str(dead), hint if dead else "")

    quarantined, given_up = health.given_up_messages()
    hint = f"processes crashed repeatedly while working on these: see the log, then {EVENTS}"
    yield Finding("put aside", str(quarantined), hint if quarantined else "")

    hint = f"the agent failed repeatedly to answer these messages: see the log, then {EVENTS}"
    yield Finding("given up", str(given_up), hint if given_up else "")

    left_behind = health.agents_ever_left_behind()  # no problem: the processes may have been restarted since
    counts = ", ".join(f"{count} {kind}" for kind, count in left_behind.items())
    warning = f"left running because they did not end in time: {counts}; the log names them"
    yield Finding("agents", warning if any(left_behind.values()) else "all ended in time")

    stuck = forgetting.stuck()
    hint = "see the log: rewriting the database's files needs more space, or other processes hold them."
    yield Finding("forgetting", f"{stuck} waiting for longer than an hour", hint if stuck else "")


def _duties() -> Iterable[Finding]:
    """One finding for each periodic duty that has ever run."""
    now = clock.read()

    def ago(moment: datetime) -> str:
        return f"{max(0.0, (now - moment).total_seconds()):.0f} s ago"

    for duty in health.periodic_duties():
        is_failing = duty.failed_at and (duty.succeeded_at is None or duty.succeeded_at < duty.failed_at)
        done = f"done {ago(duty.succeeded_at)}" if duty.succeeded_at else "never done"
        failed = f"failed {ago(duty.failed_at)} ({duty.error})" if duty.failed_at else "never failed"
        hint = "see the log; BotOS retries it automatically." if is_failing else ""
        yield Finding(f"duty: {duty.name}", f"{done}, {failed}", hint)
