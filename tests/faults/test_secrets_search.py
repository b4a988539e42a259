"""After everything that can be done with codes, none of them is anywhere: not in a row, a log, Redis, a job, a cookie,
an address or a cache.

The same session is played small here and, with everybody on all platforms, in `make faults`.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from django.conf import settings
from django.contrib.sessions.backends.db import SessionStore
from django.core.cache import cache
from django.db import connection

from identity.flows import link_maintenance, pair_in_chat
from identity.models import AccountLink, Pairing, PlatformAccount, UnifiedUser
from identity.pairing import codes
from identity.pairing.secrets import secrets_of
from sessions_app import inbox
from sessions_app.messages import Address, MessageEdit
from sessions_app.models import HistoryEntry, InboundEvent
from sessions_app.outbox import queue as outbox_queue
from sessions_app.turns import leases, lifecycle
from tests.faults import secret_pages
from tests.identity import pairs
from tests.sessions_app.talk import DATABASE, PLATFORMS, message

pytestmark = pytest.mark.django_db

_NUMBERS = re.compile(r"(?<![\w.])[0-9]{6}(?!\w)")
BOT_TOKENS = {"TELEGRAM_BOT_TOKEN": "1234567:fake-telegram-token-for-the-search", "SLACK_BOT_TOKEN": "xoxb-fake-search"}


@pytest.fixture(autouse=True)
def bots(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bots with tokens."""
    for name, token in BOT_TOKENS.items():
        monkeypatch.setenv(name, token)


class Session:
    """What is said, and every secret that was shown meanwhile."""

    def __init__(self) -> None:
        self.shown: set[str] = set()
        self.cookies: list[str] = []  # and all headers that browsers were sent

    def receive(self, who: str, text: str, platform: str, *, group: str = "", firsthand: bool = True) -> None:
        said = replace(message(who, text, platform=platform, group=group), is_firsthand=firsthand)
        waits = inbox.receive(said, resolver=DATABASE)
        if waits is not None:
            (claimed,) = leases.claim([waits], owner="search", platforms=PLATFORMS).claims
            lifecycle.finish(claimed, f"You said: {text}", limit=2000)

    def request(self, who: str, platform: str) -> Pairing:
        """A new code, after any pause that it takes."""
        pairs.everything_later(3601)
        self.receive(who, "/link", platform)
        return self.note(Pairing.objects.get(initiator=self.account(who, platform), state="offered"))

    def note(self, request: Pairing) -> Pairing:
        one = secrets_of(request)
        self.shown |= {one.code, codes.shown_code(one.code), one.token, one.number, codes.shown_number(one.number)}
        return request

    def account(self, who: str, platform: str) -> PlatformAccount:
        return PlatformAccount.objects.get(platform=platform, platform_user_id=who)

    def deliver(self) -> list[str]:
        """Send what is in line, as a delivery worker does. What people read."""
        read = []
        while taken := outbox_queue.claim(owner="worker", platforms=PLATFORMS):
            read += [outbox_queue.outgoing(one).text for one in taken]
            outbox_queue.settle([outbox_queue.Sent(one, f"sent-{one.pk}") for one in taken])
        return read


def shown(request: Pairing) -> tuple[str, str, str]:
    one = secrets_of(request)
    return codes.shown_code(one.code), one.token, codes.shown_number(one.number)


def play(session: Session, who: str, here: str, there: str) -> None:
    """Everything that can go right and wrong between two accounts."""
    for platform in (here, there):
        session.receive(who, "hello", platform)
    code, token, number = shown(session.request(who, here))
    session.receive(who, code, here)  # the own code
    session.receive("mallory", f"look, {code}", there, group="friends")  # burned
    for text in (code, f"is it {code}?", f"/link {code}", f"/start {token}", f"https://t.me/bot?start={token}"):
        session.receive(who, text, there)

    code, token, number = shown(session.request(who, here))
    session.receive(who, f"Forwarded: {code}", there, firsthand=False)
    session.receive(who, code.lower().replace("-", " "), there)
    session.deliver()
    for text in (number, f"it says {number}", number.replace(" ", "")):
        session.receive(who, text, there)
    session.receive(who, number, there, group="friends")
    session.receive(who, f"it is {number}", here)
    wrong = codes.shown_number(f"{(int(number.replace(' ', '')) + 1) % 10**6:06d}")
    session.receive(who, wrong, here)
    session.receive(who, "/cancel", here)
    for text in (number, f"I meant {number}"):  # too late
        session.receive(who, text, here)
        session.receive(who, text, there)
    session.receive(who, code, there)  # used
    session.receive(who, f"look, {code}", there, group="friends")  # dead, and still nobody's business

    code, token, number = shown(session.request(who, here))
    session.receive(who, f"/start {token}", there)
    session.deliver()
    session.receive(who, number, here)
    session.receive(who, f"what was {number} for?", here)
    session.receive(who, "we are one now", there)
    session.receive(who, "/share", here)
    session.receive(who, "/accounts", here)
    session.receive(
        who, f"/undo {AccountLink.objects.live().filter(account__platform_user_id=who)[0].pairing_id}", here
    )


def edit(session: Session, who: str, platform: str) -> None:
    """A message that becomes a code afterwards."""
    code, token, _ = shown(session.request(who, platform))
    session.receive(who, "wait", platform)
    last = InboundEvent.objects.filter(account=session.account(who, platform)).latest("pk")
    for text in (code, f"here: {code}", f"https://t.me/bot?start={token}"):
        inbox.edit(MessageEdit(Address(platform, last.chat_id), last.message_id, text))


def invite(session: Session, who: str, platform: str) -> None:
    person = UnifiedUser.objects.create(unified_user_id=f"{who}-invited")
    request = session.note(pair_in_chat.invite(person=person, operator="root"))
    session.receive(f"{who}-new", shown(request)[0], platform)
    pair_in_chat.confirm_as_operator(pairing=request, number=pairs.wrong(request), operator="root")
    pair_in_chat.confirm_as_operator(pairing=request, number=pairs.number(request), operator="root")
    again = session.note(pair_in_chat.invite(person=person, operator="root"))
    session.receive(f"{who}-new", shown(again)[0], platform)
    link_maintenance.suspend(user=person, operator="root")


def guess(session: Session, platform: str) -> None:
    """Wrong codes, and a right one while locked."""
    code, _, _ = shown(session.request("mallory", "telegram"))
    for nth in range(6):
        session.receive("mallory-2", "".join("BCDFGH"[nth] * 4 for _ in range(2)), platform)
    session.receive("mallory-2", code, platform)


def everything_in_the_database() -> str:
    """All rows of all tables, whatever application they belong to."""
    rows: list[Any] = []
    with connection.cursor() as cursor:
        for table in connection.introspection.table_names(cursor):
            cursor.execute(f'SELECT * FROM "{table}"')
            rows += [[_readable(value) for value in row] for row in cursor.fetchall()]
    return json.dumps(rows, ensure_ascii=False, default=str)


def _readable(value: object) -> object:
    return bytes(value).decode("latin-1") if isinstance(value, (bytes, memoryview)) else value


def everything_in_redis() -> str:
    """All keys and values, and with them all jobs."""
    import redis

    client = redis.Redis.from_url(settings.REDIS_URL)
    try:
        return "\n".join(f"{key!r} {client.dump(key)!r}" for key in client.scan_iter("*"))
    finally:
        client.close()


def tidy() -> None:
    """What PostgreSQL does by itself where time goes by: moving all rows in time leaves a dead one of each."""
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("VACUUM ANALYZE")


@pytest.fixture
def session(caplog: pytest.LogCaptureFixture) -> Iterator[Session]:
    with caplog.at_level(logging.DEBUG):
        for name in ("django.db.backends", "asyncio"):  # a query with a hash is no secret, but says nothing here either
            logging.getLogger(name).setLevel(logging.INFO)
        yield Session()


def assert_found_nowhere(session: Session, caplog: pytest.LogCaptureFixture) -> None:
    places = {
        "the database": everything_in_the_database(),
        "the logs": caplog.text,
        "the sessions": secret_pages.everything_in_sessions(),
        "the cookies and headers": "\n".join(session.cookies),
        "the caches": secret_pages.everything_in_caches(),
    }
    if settings.REDIS_URL:
        places["Redis"] = everything_in_redis()
    assert len(session.shown) >= 10
    assert "we are one now" in places["the database"]
    for place, text in places.items():
        found = found_in(text, {*session.shown, *BOT_TOKENS.values()})
        assert not found, f"{found} in {place}: {_around(text, found.pop())}"


def found_in(text: str, secrets: set[str]) -> set[str]:
    """Numbers where they stand by themselves: moments and hashes have six digits in a row by chance."""
    numbers = {secret for secret in secrets if secret.isdigit()}
    return {secret for secret in secrets - numbers if secret in text} | (numbers & {*_NUMBERS.findall(text)})


def _around(text: str, secret: str) -> str:
    at = text.index(secret)
    return text[max(0, at - 120) : at + 40]


def test_no_secret_is_kept_anywhere(session: Session, caplog: pytest.LogCaptureFixture) -> None:
    play(session, "alice", "telegram", "discord")
    edit(session, "alice", "telegram")
    invite(session, "bob", "slack")
    guess(session, "slack")
    secret_pages.play(session, "bob", "telegram", "discord")

    read = "\n".join(session.deliver())

    assert_found_nowhere(session, caplog)
    assert HistoryEntry.objects.filter(text="hello").count() == 4
    assert InboundEvent.objects.filter(text="we are one in the browser").exists()
    assert len(session.cookies) > 100
    assert "Linked." in read


def test_it_would_find_one(session: Session, caplog: pytest.LogCaptureFixture) -> None:
    """The search itself: what is kept on purpose is found."""
    play(session, "alice", "telegram", "discord")
    secret = min(session.shown)
    HistoryEntry.objects.filter(text="we are one now").update(metadata={"edited": f"so {secret}"})

    with pytest.raises(AssertionError, match="in the database"):
        assert_found_nowhere(session, caplog)


@pytest.mark.parametrize("kept", ["{}", "number={}&", '"number": "{}"', "it is {}.", "<b>{}</b>"])
def test_it_would_find_a_number(kept: str) -> None:
    assert found_in(kept.format("482913"), {"482913"}) == {"482913"}
    assert not found_in("12:00:01.482913 a482913f 4829131", {"482913"})


@pytest.mark.parametrize("place", ["sessions", "cookies and headers", "caches"])
def test_it_would_find_one_in_the(place: str, session: Session, caplog: pytest.LogCaptureFixture) -> None:
    play(session, "alice", "telegram", "discord")
    secret = min(session.shown)
    if place == "sessions":
        stored = SessionStore()
        stored["words"] = [secret] * 50  # long enough to be packed
        stored.save()
    if place == "cookies and headers":
        session.cookies.append(f"/pair/?code={secret}")
    if place == "caches":
        cache.set("page", f"<b>{secret}</b>")

    with pytest.raises(AssertionError, match=f"in the {place}"):
        assert_found_nowhere(session, caplog)
    cache.clear()


@pytest.mark.faults
@pytest.mark.django_db(transaction=True)
def test_no_secret_is_kept_anywhere_after_a_long_session(session: Session, caplog: pytest.LogCaptureFixture) -> None:
    for nth in range(20):
        tidy()
        for here in PLATFORMS:
            for there in set(PLATFORMS) - {here}:
                play(session, f"alice-{nth}-{here}-{there}", here, there)
                secret_pages.play(session, f"carol-{nth}-{here}-{there}", here, there)
        edit(session, f"alice-{nth}-telegram-slack", "telegram")
        invite(session, f"bob-{nth}", PLATFORMS[nth % 3])
    guess(session, "slack")
    session.deliver()

    assert_found_nowhere(session, caplog)
