"""Everything that an operator would look at when something is wrong, one finding for each, with what to do."""

from __future__ import annotations

import asyncio
import re
import shutil
from collections.abc import Callable, Iterable
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
from adapters.checks import FORMS
from adapters.protocols import Checkable, NeedsConfiguration
from adapters.runtime import health
from identity.support import clock
from sessions_app.agents.base import AgentMisconfigured
from sessions_app.models import InboundEvent, Lane
from sessions_app.privacy import forgetting
from sessions_app.wakeups import redis as redis_wakeups

MAX_CLOCK_DIFFERENCE = 5.0  # seconds
MAX_PLATFORM_DIFFERENCE = 60.0  # seconds; the header has whole ones, and answers take time
SERVERS = {"telegram": "https://api.telegram.org", "discord": "https://discord.com", "slack": "https://slack.com"}
MEGABYTE = 10**6
MIN_ROOM = 200 * MEGABYTE
ONLINE_SECONDS = 10.0  # for what a platform is asked
WAY_OUT = "try again; if it stays so, look at the platform's status page, and at this machine's way out."
EVENTS = "manage.py events list; events redrive has them answered after all, events dismiss leaves them."


@dataclass(frozen=True, slots=True)
class Finding:
    """How one thing is. A `hint` says what to do, and that it is a problem. Neither holds a secret."""

    about: str
    detail: str
    hint: str = ""


def findings(*, online: bool = False) -> Iterable[Finding]:
    """All of them. What needs a database that does not answer is left out. online: whether to ask the platforms too."""
    yield from _configuration()
    yield from map(_platform, registry.names())
    yield from _no_platform()
    if online:
        yield from asyncio.run(_ask_all())
        yield from (_clock_of(name) for name in registry.names() if name in SERVERS and registry.is_configured(name))
    yield _redis()
    try:
        connection.ensure_connection()
    except DatabaseError as error:
        yield Finding("database", f"does not answer ({type(error).__name__})", "check DATABASE_URL, and that it is up.")
        return
    if not health.is_migrated():
        yield Finding("migrations", "some are missing", "run manage.py migrate.")
        return
    yield from (look() for look in WITH_DATABASE)
    yield from _duties()


def _configuration() -> Iterable[Finding]:
    found = [one for one in checks.run_checks() if one.level >= checks.WARNING]
    for one in found:
        yield Finding(
            "configuration", str(one.msg), one.hint or f"look {one.id} up in the documentation of Django's checks."
        )
    unknown = settings.ENV.unknown()
    for problem, _, hint in (sentence.partition(" Hint: ") for sentence in unknown):
        yield Finding("configuration", problem, hint)
    if not found and not unknown:
        yield Finding("configuration", "makes sense")


def _no_platform() -> Iterable[Finding]:
    wanted = [name for name in registry.names() if any(getattr(settings, key, "") for key in registry.needs(name))]
    if not wanted:
        tokens = "TELEGRAM_BOT_TOKEN, DISCORD_BOT_TOKEN, or SLACK_BOT_TOKEN and SLACK_APP_TOKEN"
        yield Finding("platforms", "none has a token, so the bot answers nobody", f"set {tokens} in .env.")


def _platform(name: str) -> Finding:
    keys = registry.needs(name)
    missing = [key for key in keys if not getattr(settings, key, "")]
    odd = [key for key in keys if key in FORMS and not re.fullmatch(FORMS[key], getattr(settings, key, ""))]
    if keys and missing == list(keys):
        return Finding(name, "not wanted: no token is set")
    if missing:
        return Finding(name, f"lacks {' and '.join(missing)}", f"set {' and '.join(missing)}.")
    if odd:
        return Finding(name, f"{' and '.join(odd)} cannot be right", "copy it anew from the platform.")
    return Finding(name, f"has {' and '.join(keys) or 'no need of tokens'}")


async def _ask_all() -> list[Finding]:
    wanted = [name for name in registry.names() if registry.get(name).needs and registry.is_configured(name)]
    model = [_ask_model()] if settings.BOTOS_MODEL else []
    return await asyncio.gather(*map(_ask, wanted), *model)


async def _ask_model() -> Finding:
    """Whether the model answers one small question, which costs next to nothing."""
    try:
        from sessions_app.agents import model_check  # here, since it takes a second to import

        async with asyncio.timeout(ONLINE_SECONDS):
            await model_check.ask()
    except AgentMisconfigured as error:
        detail, _, hint = str(error).partition(" Hint: ")
        return Finding("model online", detail, hint or "correct BOTOS_MODEL.")
    except TimeoutError:
        hint = "check OPENAI_BASE_URL, and whether the server has too much to do."
        return Finding("model online", f"the server does not answer within {ONLINE_SECONDS:g} s", hint)
    return Finding("model online", f"{settings.BOTOS_MODEL} answers")


async def _ask(name: str) -> Finding:
    """Whether the platform takes the credentials."""
    about = f"{name} online"
    try:
        adapter = registry.build(name, {})
        if not isinstance(adapter, Checkable):
            return Finding(about, "cannot be asked")
        async with asyncio.timeout(ONLINE_SECONDS):
            return Finding(about, f"takes the credentials of {await adapter.check()}")
    except NeedsConfiguration as refused:
        return Finding(about, "does not take the credentials", _masked(name, f"{refused}."))
    except TimeoutError:
        return Finding(about, f"does not answer within {ONLINE_SECONDS:g} s", WAY_OUT)
    except Exception as error:  # noqa: BLE001 - whatever an adapter meets is what is wrong
        return Finding(about, _masked(name, str(error)) or type(error).__name__, WAY_OUT)


def _clock_of(name: str) -> Finding:
    """This machine's clock against that of the platform's server, by the header `Date` of any answer."""
    about = f"{name} clock"
    try:
        answer = httpx.head(getattr(settings, f"{name.upper()}_API_URL") or SERVERS[name], timeout=ONLINE_SECONDS)
        theirs = parsedate_to_datetime(answer.headers["Date"])
        seconds = (datetime.now(tz=UTC) - theirs).total_seconds()
    except (httpx.HTTPError, KeyError, ValueError, TypeError) as error:
        return Finding(about, f"cannot be compared ({type(error).__name__})")
    hint = "set this machine's clock, and the database's: /link counts only what was written just now."
    return Finding(about, f"{seconds:+.0f} s here", hint if abs(seconds) > MAX_PLATFORM_DIFFERENCE else "")


def _masked(name: str, text: str) -> str:
    """Our adapters show no credentials; somebody's own may do so."""
    for secret in filter(None, (str(getattr(settings, key, "")) for key in registry.get(name).needs)):
        text = text.replace(secret, "***")
    return text


def _redis() -> Finding:
    if not settings.REDIS_URL:
        return Finding("Redis", "not used")
    client = redis_wakeups.connect(settings.REDIS_URL)
    try:
        client.ping()
    except (RedisError, OSError) as error:
        hint = "check REDIS_URL, and that it is up; until then work is found by sweeps."
        return Finding("Redis", f"does not answer ({type(error).__name__})", hint)
    finally:
        client.close()
    return Finding("Redis", "answers")


def _database() -> Finding:
    return Finding("database", f"{connection.display_name} answers, with all tables")


def _disk() -> Finding:
    if connection.vendor != "sqlite" or not Path(file := connection.settings_dict["NAME"]).exists():
        return Finding("disk", "the database's own affair")
    free = shutil.disk_usage(file).free
    hint = "make room: what cannot be written down is not received." if free < MIN_ROOM else ""
    return Finding("disk", f"{free // MEGABYTE:,} MB free for the database", hint)


def _clock() -> Finding:
    seconds = (datetime.now(tz=UTC) - clock.read()).total_seconds()
    hint = "set this machine's clock." if abs(seconds) > MAX_CLOCK_DIFFERENCE else ""
    return Finding("clock", f"{seconds:+.1f} s against the database's", hint)


def _leases() -> Finding:
    # What nothing waits for, such as the lane of a program that ended while it asked the agent, nobody needs to take.
    waited_for = Lane.objects.filter(pk__in=InboundEvent.objects.filter(done_at=None).values("conversation"))
    held = waited_for.filter(lease_until__gt=clock.now())
    left = waited_for.exclude(owner="").filter(lease_until__lte=clock.now())
    hint = "no worker takes over: is one running?" if left.exists() else ""
    holders = held.values("owner").distinct().count()
    return Finding("leases", f"{held.count()} held by {holders} workers, {left.count()} run out", hint)


def _receivers() -> Finding:
    receivers = health.receivers()
    detail = ", ".join(f"{name} by {owner or 'nobody'}" for name, owner in receivers.items()) or "nobody has to"
    hint = "" if all(receivers.values()) else "is runbots running? Its log says why it is not connected, if it is."
    return Finding("receiving", detail, hint)


def _lag() -> Finding:
    waiting = health.backlog()
    hint = "is a worker running, and quick enough?" if waiting.lag >= health.MAX_LAG else ""
    return Finding("messages", f"{waiting.lanes} conversations wait, the longest for {waiting.lag:.0f} s", hint)


def _deliveries() -> Finding:
    waiting = health.backlog()
    hint = "is runbots running and its platforms up?" if waiting.oldest_delivery >= health.MAX_LAG else ""
    detail = f"{waiting.deliveries} wait, the oldest for {waiting.oldest_delivery:.0f} s, {waiting.ambiguous} ambiguous"
    return Finding("deliveries", detail, hint)


def _dead_letters() -> Finding:
    count = health.dead_deliveries()
    hint = "manage.py deliveries list says why; deliveries redrive sends them after all, deliveries dismiss does not."
    return Finding("dead letters", str(count), hint if count else "")


def _quarantined() -> Finding:
    count = health.quarantined()
    hint = f"processes ended again and again while they worked on these: look at the log, then at {EVENTS}"
    return Finding("put aside", str(count), hint if count else "")


def _given_up() -> Finding:
    count = health.given_up()
    hint = f"the agent failed at these messages again and again: look at the log, then at {EVENTS}"
    return Finding("given up", str(count), hint if count else "")


def _agents() -> Finding:
    """No problem by itself: the processes may have been started again since."""
    left = health.agents_ever_left_behind()
    if not any(left.values()):
        return Finding("agents", "all have ended in time")
    counts = ", ".join(f"{count} {kind}" for kind, count in left.items())
    return Finding("agents", f"left behind since they did not end in time: {counts}; the log names them")


def _forgetting() -> Finding:
    count = forgetting.stuck()
    hint = "the log says why: the database's files need room to be written anew, or others hold them." if count else ""
    return Finding("forgetting", f"{count} waiting for longer than an hour", hint)


def _duties() -> Iterable[Finding]:
    """One for each periodic duty that ever ran. None has run before the first start."""
    moment = clock.read()
    for duty in health.periodic_duties():
        is_failing = duty.failed_at and (duty.succeeded_at is None or duty.succeeded_at < duty.failed_at)
        done = f"done {_ago(duty.succeeded_at, moment)}" if duty.succeeded_at else "never done"
        failed = f"failed {_ago(duty.failed_at, moment)} ({duty.error})" if duty.failed_at else "never failed"
        hint = "the log says why; it is tried again by itself." if is_failing else ""
        yield Finding(f"duty: {duty.name}", f"{done}, {failed}", hint)


def _ago(when: datetime, now: datetime) -> str:
    return f"{max(0.0, (now - when).total_seconds()):.0f} s ago"


WITH_DATABASE: tuple[Callable[[], Finding], ...] = (
    _database,
    _disk,
    _clock,
    _leases,
    _receivers,
    _lag,
    _deliveries,
    _dead_letters,
    _quarantined,
    _given_up,
    _agents,
    _forgetting,
)
