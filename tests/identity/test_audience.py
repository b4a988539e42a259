from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.sessions.backends.db import SessionStore
from django.contrib.sessions.models import Session
from django.utils import timezone

from identity.browsers import attachments
from identity.browsers import sessions as browser_sessions
from identity.flows import linking
from identity.models import Browser, Pairing, PlatformAccount
from identity.support import clock
from identity.web import subscriptions

pytestmark = pytest.mark.django_db


def page(*accounts: PlatformAccount) -> tuple[str, Browser]:
    """The session key of a new browser to which these are attached."""
    browser, now = Browser.objects.create(name="Firefox"), clock.read()
    times = {"expires_at": now, "last_at": now, "ended_at": now}
    for account in accounts:
        pairing = Pairing.objects.create(initiator_browser=browser, responder=account, state="attached", **times)
        attachments.attach(browser=browser, account=account, pairing=pairing)
    session = SessionStore()
    session[browser_sessions.SESSION_KEY] = str(browser.pk)
    session.save()
    return str(session.session_key), browser


def account(who: str, platform: str = "telegram") -> PlatformAccount:
    return PlatformAccount.objects.create(platform=platform, platform_user_id=who)


def heard(key: str) -> frozenset[str]:
    return subscriptions.topics_of([key]).get(key, subscriptions.NOBODY)


def test_it_hears_of_the_browser_of_what_is_attached_and_of_who_shares_a_conversation_with_that() -> None:
    telegram, discord, bob = account("alice"), account("alice", "discord"), account("bob")
    for one in (telegram, discord):
        linking.link(
            platform=one.platform, platform_user_id="alice", unified_user_id="alice", method="pairing", actor="test"
        )
    key, browser = page(telegram)
    other, of_bob = page(bob)

    found = subscriptions.topics_of([key, other, "unknown"])

    assert found[key] == {f"browser:{browser.pk}", f"account:{telegram.pk}", f"account:{discord.pk}"}
    assert found[other] == {f"browser:{of_bob.pk}", f"account:{bob.pk}"}
    assert "unknown" not in found


def test_it_hears_nothing_once_the_browser_or_its_session_has_ended() -> None:
    (signed_out, browser), (idle, other), (expired, _) = page(), page(), page()
    browser_sessions.sign_out(browser)
    Browser.objects.filter(pk=other.pk).update(seen_at=clock.EPOCH)
    Session.objects.filter(session_key=expired).update(expire_date=timezone.now() - timedelta(seconds=1))

    assert [heard(key) for key in (signed_out, idle, expired, "")] == [subscriptions.NOBODY] * 4


def test_it_hears_no_more_of_what_was_detached_or_unlinked() -> None:
    telegram = account("alice")
    key, browser = page(telegram)

    attachments.detach(browser=browser, account=telegram.pk)

    assert heard(key) == {f"browser:{browser.pk}"}


def test_it_asks_as_many_questions_for_one_page_as_for_many(
    django_assert_max_num_queries: Callable[[int], Any],
) -> None:
    keys = [page(account(f"person-{number}"))[0] for number in range(10)]

    with django_assert_max_num_queries(5):
        assert len(subscriptions.topics_of(keys)) == 10


def test_it_answers_all_who_ask_at_once_with_one_look_and_each_look_begins_after_it_was_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looks: list[set[str]] = []
    begin: list[Callable[[], object]] = []

    def topics_of(keys: Collection[str]) -> dict[str, frozenset[str]]:
        looks.append(set(keys))
        begin[0]()
        return {key: frozenset([f"{key} {len(looks)}"]) for key in keys}

    monkeypatch.setattr(subscriptions, "topics_of", topics_of)

    async def scene() -> list[frozenset[str]]:
        loop, looking = asyncio.get_running_loop(), asyncio.Event()
        begin.append(lambda: loop.call_soon_threadsafe(looking.set))
        first = asyncio.gather(*(subscriptions.topics(key) for key in ("a", "b", "a")))
        await looking.wait()
        return [*await asyncio.gather(subscriptions.topics("a")), *await first]

    late, *early = asyncio.run(scene())

    assert looks == [{"a", "b"}, {"a"}]
    assert early == [{"a 1"}, {"b 1"}, {"a 1"}]
    assert late == {"a 2"}


def test_it_says_to_all_who_asked_that_the_database_is_away_and_goes_on_later(monkeypatch: pytest.MonkeyPatch) -> None:
    outage = [OSError("away")]

    def topics_of(keys: Collection[str]) -> dict[str, frozenset[str]]:
        if outage:
            raise outage.pop()
        return dict.fromkeys(keys, frozenset(["x"]))

    monkeypatch.setattr(subscriptions, "topics_of", topics_of)

    async def scene() -> tuple[list[Any], frozenset[str]]:
        failed = await asyncio.gather(*(subscriptions.topics(key) for key in "ab"), return_exceptions=True)
        return failed, await subscriptions.topics("a")

    failed, later = asyncio.run(scene())

    assert [type(one) for one in failed] == [OSError, OSError]
    assert later == {"x"}


def test_it_answers_the_others_when_one_asks_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subscriptions, "topics_of", lambda keys: dict.fromkeys(keys, frozenset(["x"])))

    async def scene() -> frozenset[str]:
        gone, stays = (asyncio.create_task(subscriptions.topics("a")) for _ in range(2))
        await asyncio.sleep(0)
        gone.cancel()
        return await asyncio.wait_for(stays, 10)

    assert asyncio.run(scene()) == {"x"}
