"""What "Forget me" says of accounts, before and after, is what a search of all tables finds."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from html import unescape
from typing import Any, cast

import pytest
from django.apps import apps
from django.conf import settings
from django.db import connection
from django.test import Client
from django.urls import reverse
from redis import Redis

from identity.browsers import sessions as browser_sessions
from identity.flows import linking
from identity.models import AccountLink, BrowserAccount, PlatformAccount
from identity.support import clock
from sessions_app import inbox
from sessions_app.history import window
from sessions_app.models import Conversation, ForgetRequest, HistoryEntry
from sessions_app.outbox import queue as outbox_queue
from sessions_app.privacy import confirmation, forgetting
from sessions_app.turns import lifecycle
from sessions_app.web import views
from tests.identity import pairs
from tests.sessions_app import browsing
from tests.sessions_app.racing import at_once
from tests.sessions_app.talk import DATABASE, claim, message
from tests.sessions_app.test_forgetting import clean_later, deliver, everything, step_to_the_end

pytestmark = pytest.mark.django_db

PLATFORMS = ("telegram", "discord", "slack")
TELEGRAM, DISCORD, SLACK = (one.title() for one in PLATFORMS)


def words_of(platform: str) -> str:
    """What stands in every row of this account and in no other."""
    return f"quokka{platform}"


def account(platform: str) -> PlatformAccount:
    return PlatformAccount.objects.get(platform=platform, platform_user_id=words_of(platform))


def talks(platform: str, *, group: str = "") -> None:
    words = words_of(platform)
    conversation = inbox.receive(message(words, f"I say {words}", platform=platform, group=group), resolver=DATABASE)
    assert conversation is not None
    lifecycle.finish(claim(conversation), f"you said {words}", limit=outbox_queue.TEXT_LIMIT)


def found() -> set[str]:
    """The platforms whose account is found in any row of any table."""
    rows = "".join(
        str([bytes(one) if isinstance(one, memoryview) else one for one in row]).casefold()
        for model in apps.get_models()
        if model._meta.managed
        for row in model._default_manager.values_list(*(one.attname for one in model._meta.concrete_fields))
    )
    return {platform.title() for platform in PLATFORMS if words_of(platform) in rows}


def listed(page: str, which: str) -> dict[str, str]:
    """The platforms of the accounts in one of the page's lists, each with the reason, if any."""
    part = re.search(f'<ul id="{which}">(.*?)</ul>', page, re.DOTALL)
    items = re.findall(r'<li(?: data-why="(\w+)")?>(\w+) account', unescape(part[1])) if part else []
    return {platform: why for why, platform in items}


class Person:
    """Somebody with a browser in which their accounts are attached."""

    def __init__(self, client: Client, *platforms: str) -> None:
        self.client = client
        for platform in platforms:
            talks(platform)
        self.browser = browsing.browser_of(*map(account, platforms))
        session = client.session
        session[browser_sessions.SESSION_KEY] = str(self.browser.pk)
        session.save()
        for platform in platforms:
            browsing.converse(self.browser, account(platform), f"page {words_of(platform)}", "heard")
        deliver()

    def link(self, *platforms: str, days: float = 0) -> None:
        pairs.linked(*map(account, platforms))
        pairs.later(days * 86_400, AccountLink.objects.all())
        deliver()

    def opens(self, platform: str) -> str:
        return self.client.get(reverse("me-forget"), {"as": account(platform).pk}).content.decode()

    def asks(self, platform: str, **fields: object) -> str:
        values = {"as": account(platform).pk} | fields
        return self.client.post(reverse("me-forget-ask"), values, follow=True).content.decode()

    def types(self, platform: str, **fields: object) -> str:
        values = {"as": account(platform).pk} | fields
        return self.client.post(reverse("me-forget-number"), values, follow=True).content.decode()


def number(platform: str) -> str:
    return confirmation.number_of(ForgetRequest.objects.get(account=account(platform), state="asked"))


def says_what_is_so(page: str, *, deleted: set[str], kept: dict[str, str]) -> None:
    assert (set(listed(page, "deleted")), listed(page, "kept")) == (deleted, kept)
    step_to_the_end()
    assert found() == set(kept)


def forget(person: Person, platform: str, *, deleted: set[str], kept: dict[str, str]) -> None:
    """The whole flow from one tab; the page before the number says the same as the one after it."""
    for page in (person.opens(platform), person.asks(platform)):
        assert (set(listed(page, "deleted")), listed(page, "kept")) == (deleted, kept)
    deliver()
    says_what_is_so(person.types(platform, number=number(platform)), deleted=deleted, kept=kept)


def test_it_keeps_an_account_that_was_linked_today_and_says_so(client: Client) -> None:
    person = Person(client, "telegram", "discord")
    person.link("telegram", "discord")

    forget(person, "discord", deleted={DISCORD}, kept={TELEGRAM: "new"})

    assert texts_of("telegram")[-2:] == ["page quokkatelegram", "heard"]


@pytest.mark.django_db(transaction=True)  # what is deleted must leave the files, which only a commit changes
def test_files_log_and_redis_hold_what_is_kept_and_nothing_more(
    client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    person = Person(client, "telegram", "discord")
    person.link("telegram", "discord")

    forget(person, "discord", deleted={DISCORD}, kept={TELEGRAM: "new"})

    assert clean_later() == 1
    places = {"files": everything().decode("latin-1"), "log": caplog.text, "redis": all_of_redis()}
    held = {place: {one for one in PLATFORMS if words_of(one) in text.casefold()} for place, text in places.items()}
    assert held == {"files": {"telegram"}, "log": set(), "redis": set()}


def all_of_redis() -> str:
    """Every key of the run's database, as Redis would write it to disk."""
    if not settings.REDIS_URL:
        return ""
    with Redis.from_url(settings.REDIS_URL) as redis:
        return "".join(f"{key!r} {redis.dump(key)!r}" for key in redis.scan_iter())


def texts_of(platform: str) -> list[str]:
    lines = window.window_for(Conversation.objects.get(account=account(platform)), limit=100)
    return [line.text for line in lines]


def test_it_deletes_all_that_have_been_linked_for_long(client: Client) -> None:
    person = Person(client, "telegram", "discord")
    person.link("telegram", "discord", days=2)

    forget(person, "discord", deleted={TELEGRAM, DISCORD}, kept={})


def test_it_keeps_an_account_of_the_browser_that_is_linked_to_nobody(client: Client) -> None:
    person = Person(client, "telegram", "discord")

    forget(person, "telegram", deleted={TELEGRAM}, kept={DISCORD: "apart"})


def test_it_names_an_account_that_has_not_confirmed_lately(client: Client) -> None:
    person = Person(client, "telegram", "discord")
    BrowserAccount.objects.filter(account=account("discord")).update(confirmed_at=clock.seconds_from_now(-901))

    forget(person, "telegram", deleted={TELEGRAM}, kept={DISCORD: "apart"})


def test_it_says_that_accounts_stay_that_were_linked_once(client: Client) -> None:
    person = Person(client, "telegram", "discord")
    person.link("telegram", "discord", days=2)
    linking.leave(account=account("discord"))
    deliver()

    page = person.opens("telegram")
    assert "including accounts that used to be" in page
    person.asks("telegram")
    page = person.types("telegram", number=number("telegram"))
    assert (set(listed(page, "deleted")), listed(page, "kept")) == ({TELEGRAM}, {})
    assert found() == {DISCORD}
    assert "including accounts that used to be" in page


def test_it_says_which_account_was_unlinked_meanwhile(client: Client) -> None:
    person = Person(client, "telegram", "discord")
    person.link("telegram", "discord", days=2)
    person.asks("telegram")
    linking.leave(account=account("discord"))
    deliver()

    page = person.opens("telegram")
    assert (set(listed(page, "deleted")), listed(page, "kept")) == ({TELEGRAM}, {DISCORD: "left"})
    says_what_is_so(person.types("telegram", number=number("telegram")), deleted={TELEGRAM}, kept={DISCORD: "left"})


def test_it_says_which_account_could_not_be_warned(client: Client) -> None:
    person = Person(client, "telegram", "discord")
    person.link("telegram", "discord", days=2)
    person.asks("telegram")
    deliver("telegram")

    page = person.types("telegram", number=number("telegram"))
    says_what_is_so(page, deleted={TELEGRAM}, kept={DISCORD: "untold"})


def test_it_says_beforehand_which_account_cannot_be_warned(client: Client) -> None:
    person = Person(client, "telegram", "discord")
    person.link("telegram", "discord", days=2)
    Conversation.objects.filter(account=account("discord")).update(chat_id="")

    forget(person, "telegram", deleted={TELEGRAM}, kept={DISCORD: "untold"})


def test_it_says_that_words_of_others_in_groups_stay(client: Client) -> None:
    person = Person(client, "telegram")
    talks("telegram", group="pub")
    other = inbox.receive(message("bob", "I am bob", group="pub"), resolver=DATABASE)
    assert other
    lifecycle.finish(claim(other), "hello bob", limit=outbox_queue.TEXT_LIMIT)
    deliver()

    assert "What other people wrote in groups" in person.opens("telegram")
    forget(person, "telegram", deleted={TELEGRAM}, kept={})
    assert set(HistoryEntry.objects.values_list("text", flat=True)) == {"I am bob", "hello bob"}


def test_it_deletes_what_was_mirrored_to_a_deleted_account(client: Client) -> None:
    person = Person(client, "telegram", "discord")
    person.link("telegram", "discord")
    for platform in ("telegram", "discord"):
        conversation = Conversation.objects.get(account=account(platform))
        said = {"role": "assistant", "source": "mirror", "text": f"mirrored {words_of(platform)}"}
        window.entry(conversation, **said).save()

    forget(person, "discord", deleted={DISCORD}, kept={TELEGRAM: "new"})
    assert HistoryEntry.objects.get(source="mirror").text == "mirrored quokkatelegram"


def test_it_signs_out_an_older_browser_and_says_so(client: Client) -> None:
    person = Person(client, "telegram", "discord")
    older = browsing.browser_of(account("telegram"))
    deliver()

    forget(person, "telegram", deleted={TELEGRAM}, kept={DISCORD: "apart"})
    assert browser_sessions.alive([older.pk, person.browser.pk]) == set()


def test_it_says_the_same_in_the_chat(client: Client) -> None:
    person = Person(client, "telegram", "discord", "slack")
    person.link("telegram", "discord", days=2)
    person.link("telegram", "slack")
    inbox.receive(message(words_of("telegram"), "/forget"), resolver=DATABASE)
    asked = next(text for text in deliver() if "Type " in text)
    inbox.receive(message(words_of("telegram"), number("telegram")), resolver=DATABASE)
    [farewell] = deliver()

    for text in (asked, farewell):
        first, kept = text.split("Not deleted: ")
        assert (re.findall(r"(\w+) account \"", first), kept.split()[0]) == ([TELEGRAM, DISCORD], SLACK)
        assert "less than a day ago" in kept
        assert "What other people wrote in groups" in kept
    step_to_the_end()
    assert found() == {SLACK}


def test_it_forgets_a_stranger_who_was_forgotten_before(client: Client) -> None:
    person = Person(client, "telegram")
    forget(person, "telegram", deleted={TELEGRAM}, kept={})
    ForgetRequest.objects.all().delete()

    again = Person(Client(), "telegram")
    assert account("telegram").display_name
    forget(again, "telegram", deleted={TELEGRAM}, kept={})


def test_it_deletes_nothing_for_a_wrong_number(client: Client) -> None:
    person = Person(client, "telegram", "discord")
    person.asks("telegram")
    wrong = f"{(int(number('telegram')) + 1) % 1_000_000:06d}"

    page = person.types("telegram", number=wrong)

    assert "2 tries left" in page
    assert listed(page, "deleted") == {TELEGRAM: ""}
    step_to_the_end()
    assert found() == {TELEGRAM, DISCORD}


def numbers(first: str, *others: str) -> dict[str, str]:
    """The fields of the form on the page of the first one."""
    return {"number": number(first)} | {f"number-{account(one).pk}": number(one) for one in others}


def wrong(platform: str) -> str:
    return f"{(int(number(platform)) + 1) % 1_000_000:06d}"


def test_it_forgets_all_that_are_signed_in_here_at_once(client: Client) -> None:
    person = Person(client, "telegram", "discord", "slack")
    person.link("telegram", "discord")

    page = person.asks("discord", each="yes")
    assert (len(listed(page, "deleted")), listed(page, "kept")) == (3, {})
    assert "warns the other accounts first" not in page
    deliver()
    page = person.types("discord", **numbers("discord", "telegram", "slack"))

    says_what_is_so(page, deleted={TELEGRAM, DISCORD, SLACK}, kept={})


def test_it_keeps_an_account_whose_field_is_left_empty(client: Client) -> None:
    person = Person(client, "telegram", "discord", "slack")
    person.link("telegram", "discord")
    person.asks("discord", each="yes")

    page = person.types("discord", **numbers("discord", "telegram"))

    says_what_is_so(page, deleted={TELEGRAM, DISCORD}, kept={SLACK: "untyped"})


def test_it_asks_no_account_here_that_another_one_reaches_and_none_that_is_stale(client: Client) -> None:
    person = Person(client, "telegram", "discord", "slack")
    person.link("telegram", "discord", days=2)
    BrowserAccount.objects.update(confirmed_at=clock.now())
    BrowserAccount.objects.filter(account=account("slack")).update(confirmed_at=clock.seconds_from_now(-901))

    person.asks("discord", each="yes")

    assert ForgetRequest.objects.get(state="asked").account == account("discord")


def test_it_confirms_nothing_if_one_number_is_wrong_and_counts_that_one_alone(client: Client) -> None:
    person = Person(client, "telegram", "discord")
    person.asks("telegram", each="yes")

    page = person.types("telegram", **numbers("telegram", "discord") | {"number": wrong("telegram")})

    assert "2 tries left" in page
    assert listed(page, "deleted") == {TELEGRAM: "", DISCORD: ""}
    tries = dict(ForgetRequest.objects.values_list("account__platform", "tries"))
    assert tries == {"telegram": 1, "discord": 0}
    step_to_the_end()
    assert found() == {TELEGRAM, DISCORD}


def test_it_takes_no_number_of_an_account_that_is_stale_here(client: Client) -> None:
    person = Person(client, "telegram", "discord")
    person.asks("telegram", each="yes")
    BrowserAccount.objects.filter(account=account("discord")).update(confirmed_at=clock.seconds_from_now(-901))

    page = person.types("telegram", **numbers("telegram", "discord"))

    says_what_is_so(page, deleted={TELEGRAM}, kept={DISCORD: "untyped"})


def test_it_says_which_account_was_unlinked_just_before_it_began(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    person = Person(client, "telegram", "discord")
    person.link("telegram", "discord", days=2)
    person.asks("telegram")
    deliver()
    erase = forgetting.erase

    def erase_late(*args: Any, **options: Any) -> bool:
        linking.leave(account=account("discord"))
        return erase(*args, **options)

    monkeypatch.setattr(forgetting, "erase", erase_late)
    page = person.types("telegram", number=number("telegram"))

    says_what_is_so(page, deleted={TELEGRAM}, kept={DISCORD: "left"})


def confirming(person: Person, platform: str) -> Callable[[], Any]:
    """The number is typed when it is called. The account is looked up now, while it has a name."""
    return partial(
        person.client.post, reverse("me-forget-number"), {"as": account(platform).pk, "number": number(platform)}
    )


def test_it_says_that_an_account_is_deleted_which_another_browser_deletes(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = Person(client, "telegram", "discord"), Person(Client(), "telegram", "discord")
    one.link("telegram", "discord", days=2)
    one.asks("telegram")
    other.asks("discord")
    deliver()
    waiting = [confirming(other, "discord")]
    erase = views._erase

    def after_the_other(asked: ForgetRequest) -> bool:
        while waiting:
            waiting.pop()()
        return erase(asked)

    monkeypatch.setattr(views, "_erase", after_the_other)
    page = confirming(one, "telegram")().content.decode()

    says_what_is_so(page, deleted={TELEGRAM, DISCORD}, kept={})


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("is_linked", [False, True])
@pytest.mark.parametrize("turn", range(3))
def test_two_browsers_of_a_person_confirm_at_once(client: Client, turn: int, *, is_linked: bool) -> None:
    """Each for another account. One that comes too late is signed out and shows nothing."""
    if connection.vendor == "sqlite":
        pytest.skip("SQLite has one writer at a time")
    one, other = Person(client, "telegram", "discord"), Person(Client(), "telegram", "discord")
    if is_linked:
        one.link("telegram", "discord", days=2)
    one.asks("telegram")
    other.asks("discord")
    deliver()

    answers, raised = at_once(confirming(one, "telegram"), confirming(other, "discord"))

    assert not raised
    pages = [answer.content.decode() for answer in cast("list[Any]", answers) if answer.status_code == 200]
    assert pages
    for page in pages:
        deleted = set(listed(page, "deleted"))
        assert deleted
        assert deleted == {TELEGRAM, DISCORD} or not is_linked
    assert {TELEGRAM, DISCORD} == {platform for page in pages for platform in listed(page, "deleted")}
    step_to_the_end()
    assert found() == set()
