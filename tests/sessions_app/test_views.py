"""My page: shown to whoever has confirmed lately, changed by POST alone, under the rules of linking."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.conf import settings
from django.contrib.sessions.models import Session
from django.db import connection
from django.db.models import F
from django.test import Client
from django.urls import reverse

from identity.browsers import attachments
from identity.browsers import sessions as browser_sessions
from identity.models import AccountLink, AuditEvent, Browser, BrowserAccount, LiveEvent, Pairing, PlatformAccount
from identity.support import clock
from sessions_app.history import export, window
from sessions_app.models import Conversation, ForgetRequest, HistoryEntry, OutboundDelivery
from sessions_app.privacy import confirmation, forgetting, sqlite_vacuum
from tests.identity import pairs
from tests.sessions_app.talk import say

pytestmark = pytest.mark.django_db

LOOKS = ("me", "me-now", "me-history", "me-search", "me-forget", "me-export-parts")
NAMES = ("search", "export", "forget-ask", "forget-number", "share", "unlink", "not-me", "prefer", "sign-out")
POSTS = tuple(f"me-{name}" for name in NAMES)
TABLES = (Session, Browser, BrowserAccount, AccountLink, AuditEvent, LiveEvent, ForgetRequest, OutboundDelivery)


def account(who: str = "alice", platform: str = "telegram") -> PlatformAccount:
    return PlatformAccount.objects.get(platform=platform, platform_user_id=who)


def attach(client: Client, *accounts: PlatformAccount) -> None:
    """As if the handshakes were over."""
    browser = Browser.objects.create(name="Firefox on Linux")
    for one in accounts:
        now = {"expires_at": clock.read(), "last_at": clock.read(), "ended_at": clock.read()}
        request = Pairing.objects.create(initiator=one, responder_browser=browser, state="attached", **now)
        attachments.attach(browser=browser, account=one, pairing=request)
    session = client.session
    session[browser_sessions.SESSION_KEY] = str(browser.pk)
    session.save()


def post(client: Client, name: str, **fields: object) -> str:
    answer = client.post(reverse(name), fields, follow=True)
    assert answer.status_code == 200
    return answer.content.decode()


def look(client: Client, name: str = "me", **query: str | int) -> str:
    answer = client.get(reverse(name), query)
    assert answer.status_code == 200
    return answer.content.decode()


@pytest.fixture
def alice(client: Client) -> Client:
    """Alice's browser with her Telegram account, which has been linked with the Discord one for two days."""
    say("alice", "before here", answer="ok before here")
    say("alice", "before there", answer="ok before there", platform="discord")
    pairs.person("alice", account(), account(platform="discord"))
    say("alice", "together there", answer="octarine <b>", platform="discord")
    AccountLink.objects.update(since=clock.seconds_from_now(-2 * 86_400))
    entries = HistoryEntry.objects.filter(text__contains="before")
    entries.update(said_at=clock.seconds_from_now(-3 * 86_400))
    attach(client, account())
    return client


@pytest.mark.parametrize("name", [*LOOKS, *POSTS])
def test_it_shows_nothing_to_a_browser_that_has_not_confirmed_lately(alice: Client, name: str) -> None:
    BrowserAccount.objects.update(confirmed_at=clock.seconds_from_now(-901))
    stranger = Client()
    before = pairs.dump(AccountLink, AuditEvent, ForgetRequest, OutboundDelivery)
    for browser in (alice, stranger):
        for answer in (browser.get(reverse(name), follow=True), browser.post(reverse(name), follow=True)):
            page = answer.content.decode()
            assert "Alice" not in page
            assert "together" not in page
            assert answer.status_code == 405 or "verify that it's you" in page

    assert pairs.dump(AccountLink, AuditEvent, ForgetRequest, OutboundDelivery) == before


@pytest.mark.parametrize("name", [*LOOKS, *POSTS])
def test_it_changes_nothing_when_somebody_looks(alice: Client, name: str) -> None:
    before = pairs.dump(*TABLES)
    for method in ("get", "head", "options"):
        for _ in range(3):
            getattr(alice, method)(reverse(name))

        assert pairs.dump(*TABLES) == before, method


@pytest.mark.parametrize("name", POSTS)
def test_it_takes_no_change_from_another_site(name: str) -> None:
    assert Client(enforce_csrf_checks=True).post(reverse(name)).status_code == 403


@pytest.mark.parametrize("name", LOOKS)
def test_it_is_stored_nowhere_and_runs_own_scripts_alone(alice: Client, name: str) -> None:
    page = alice.get(reverse(name))

    assert "no-store" in page["Cache-Control"]
    assert "script-src 'self'" in page["Content-Security-Policy"]
    assert "default-src 'none'" in page["Content-Security-Policy"]
    assert " style=" not in page.content.decode()


def test_it_stays_fresh_while_in_use(alice: Client) -> None:
    BrowserAccount.objects.update(confirmed_at=clock.seconds_from_now(-800))
    post(alice, "me-search", words="octarine")
    BrowserAccount.objects.update(confirmed_at=F("confirmed_at") - timedelta(seconds=800))

    assert "Alice" in look(alice)


def test_it_shows_accounts_with_their_links(alice: Client) -> None:
    page = look(alice)

    assert "Telegram account &quot;Alice&quot;" in page
    assert "Discord account &quot;Alice&quot;" in page
    assert "by an import" in page
    assert "ID ..lice" in page


def test_it_shows_what_may_be_read_newest_last_with_a_badge(alice: Client) -> None:
    page = look(alice, "me-history")

    assert page.index("before here") < page.index("together there") < page.index("octarine &lt;b&gt;")
    assert "before there" not in page
    assert page.count('class="badge discord"') == page.count('class="badge telegram"') == 2


def test_it_pages_with_a_cursor(alice: Client) -> None:
    for number in range(30):
        say("alice", f"number {number}.", answer="ok")
    newest = look(alice, "me-history")
    cursor = newest.split("before=")[1].split('"')[0]
    older = look(alice, "me-history", before=cursor)

    assert ("number 29." in newest, "number 4." in newest, "number 5." in newest) == (True, False, True)
    assert ("number 4." in older, "number 5." in older) == (True, False)


def test_it_shows_no_conversation_of_another(alice: Client) -> None:
    mallory = say("mallory", "hers", answer="ok")

    assert "hers" not in look(alice, "me-history", chat=mallory)
    assert "Mallory" not in look(alice, "me", **{"as": account("mallory").pk})


def test_it_lists_groups_and_shows_there_what_one_wrote_oneself(alice: Client) -> None:
    group = say("alice", "mine, to all", answer="to alice, before all", group="the pub")
    say("mallory", "hers, to all", answer="to mallory, before all", group="the pub")
    other = say("alice", "elsewhere", group="the club")
    say("mallory", "not yours", group="the den")
    page, words = look(alice), look(alice, "me-history", group=group)

    assert "What you wrote in the pub" in page
    assert "What you wrote in the club" in page
    assert "the den" not in page
    assert "mine, to all" in words
    others = ("before all", "hers, to all", "elsewhere", "together there", "not yours")
    assert not [one for one in others if one in words]
    assert "mine, to all" not in look(alice, "me-history") + look(alice, "me-history", chat=group)
    assert "elsewhere" in look(alice, "me-history", group=other)


def test_it_shows_no_words_of_another_account_in_a_group(alice: Client) -> None:
    """Nor of the person's own other account: those are shown where that one has confirmed."""
    group = say("alice", "there, to all", group="the pub", platform="discord")
    hers = say("mallory", "hers, to all", group="the den")

    assert "the pub" not in look(alice)
    assert "there, to all" not in look(alice, "me-history", group=group)
    assert "hers, to all" not in look(alice, "me-history", group=hers)


def test_it_pages_in_a_group(alice: Client) -> None:
    group = say("alice", "number 0.", group="the pub")
    for number in range(1, 52):
        say("alice", f"number {number}.", group="the pub")
    newest = look(alice, "me-history", group=group)
    cursor = newest.split("before=")[1].split('"')[0]
    older = look(alice, "me-history", group=group, before=cursor)

    assert ("number 51." in newest, "number 1." in newest, "number 2." in newest) == (True, False, True)
    assert ("number 1." in older, "number 2." in older) == (True, False)


def test_it_tells_open_pages_what_their_account_wrote_in_a_group(alice: Client) -> None:
    before = alice.get(reverse("me-now")).content
    LiveEvent.objects.all().delete()
    say("alice", "to all", group="the pub")

    assert LiveEvent.objects.filter(topic=f"account:{account().pk}", kind="messages").exists()
    assert re.findall(r'data-version="([^"]+)', before.decode()) != re.findall(
        r'data-version="([^"]+)', look(alice, "me-now")
    )


def test_it_marks_where_a_new_conversation_begins(alice: Client) -> None:
    PlatformAccount.objects.update(window_from=clock.seconds_from_now(-86_400))

    assert look(alice).count("A new conversation starts here") == 1
    assert "before here" in look(alice)


@pytest.mark.parametrize("name", ["me", "me-history", "me-now"])
def test_it_asks_as_often_for_many_rows_as_for_few(alice: Client, name: str, count_queries: Callable[..., int]) -> None:
    few = count_queries(alice, name)
    pairs.person("alice", pairs.account("alice", "slack"))
    for number in range(60):
        say("alice", f"number {number}", answer="ok", platform=("telegram", "discord")[number % 2])

    assert count_queries(alice, name) == few


@pytest.fixture
def count_queries(django_assert_max_num_queries: Any) -> Callable[..., int]:
    def count(client: Client, name: str) -> int:
        with django_assert_max_num_queries(60) as asked:
            look(client, name)
        return len(asked.captured_queries)

    return count


def test_it_finds_words(alice: Client) -> None:
    assert "octarine &lt;b&gt;" in post(alice, "me-search", words="OCTARINE")
    assert "before there" not in post(alice, "me-search", words="before")


# --- Accounts


def link_of(platform: str) -> AccountLink:
    return AccountLink.objects.live().get(account=account(platform=platform))


def test_it_unlinks_another_account(alice: Client) -> None:
    assert "no longer linked" in post(alice, "me-unlink", link=link_of("discord").pk)
    assert not AccountLink.objects.live().filter(account__platform="discord").exists()


def test_it_unlinks_no_older_account_within_a_day(alice: Client) -> None:
    AccountLink.objects.filter(account__platform="telegram").update(since=clock.now())
    page = look(alice)
    for name in ("me-unlink", "me-not-me"):
        assert "change older ones for a day" in post(alice, name, link=link_of("discord").pk)

    assert "too new to end it" in page
    assert AccountLink.objects.live().count() == 2


def test_it_unlinks_as_the_attached_account_that_may(alice: Client) -> None:
    AccountLink.objects.filter(account__platform="telegram").update(since=clock.now())
    attach(alice, account(), account(platform="discord"))

    assert "no longer linked" in post(alice, "me-unlink", link=link_of("discord").pk)


def test_it_unlinks_nobody_elses_account(alice: Client) -> None:
    say("mallory", "hers")
    pairs.person("mallory", account("mallory"))
    post(alice, "me-unlink", link=AccountLink.objects.live().get(account=account("mallory")).pk)

    assert AccountLink.objects.live().filter(account=account("mallory")).exists()


def test_it_disowns(alice: Client) -> None:
    link = link_of("discord")
    post(alice, "me-not-me", link=link.pk)
    link.refresh_from_db()

    assert link.disowned


def test_it_shares_the_past_of_an_account_that_is_here_alone(alice: Client) -> None:
    post(alice, "me-share", account=account(platform="discord").pk)
    post(alice, "me-share", account=account().pk)

    assert link_of("telegram").shares_past
    assert not link_of("discord").shares_past


def test_it_keeps_where_to_write(alice: Client) -> None:
    post(alice, "me-prefer", account=account(platform="discord").pk)
    assert link_of("discord").user.preferred == account(platform="discord")

    say("mallory", "hers")
    post(alice, "me-prefer", account=account("mallory").pk)
    assert link_of("discord").user.preferred == account(platform="discord")

    post(alice, "me-prefer", account="last")
    assert link_of("discord").user.preferred is None


def test_it_keeps_no_wish_of_a_new_link(alice: Client) -> None:
    AccountLink.objects.filter(account=account()).update(since=clock.now())

    assert "change older ones for a day" in post(alice, "me-prefer", account=account().pk)
    assert link_of("discord").user.preferred is None


def test_it_signs_out_everywhere(alice: Client) -> None:
    other = Client()
    attach(other, account())
    post(alice, "me-sign-out")

    assert "verify that it's you" in look(alice)
    assert "verify that it's you" in look(other)


# --- Export


def exported(client: Client, **fields: object) -> dict[str, Any]:
    answer = client.post(reverse("me-export"), fields)
    assert "attachment" in answer["Content-Disposition"]
    found: dict[str, Any] = json.loads(answer.content)
    return found


def test_it_exports_all_that_may_be_read_once_the_link_is_a_day_old(alice: Client) -> None:
    say("alice", "to all", answer="to alice", group="pub")
    file = exported(alice)

    assert [one["text"] for one in file["entries"]] == [
        "before here",
        "ok before here",
        "together there",
        "octarine <b>",
    ]
    assert [one["text"] for one in file["own_words_in_groups"]] == ["to all"]
    assert {one["platform"] for one in file["accounts"]} == {"telegram", "discord"}
    audit = AuditEvent.objects.get(kind="exported")
    assert audit.details == {"entries": 4, "shared": 1}


def test_it_exports_own_rows_alone_by_a_link_of_today(alice: Client) -> None:
    AccountLink.objects.filter(account__platform="telegram").update(since=clock.now())
    say("alice", "today there", answer="which chats may read", platform="discord")
    file = exported(alice)

    assert [one["text"] for one in file["entries"]] == ["before here", "ok before here"]
    assert [one["platform"] for one in file["accounts"]] == ["telegram"]


def test_it_exports_a_page_without_script(alice: Client) -> None:
    say("alice", "<script>alert(1)</script>", answer="ok")
    page = alice.post(reverse("me-export"), {"kind": "html"}).content.decode()

    assert "&lt;script&gt;" in page
    assert "<script" not in page
    assert "octarine &lt;b&gt;" in page


def test_it_exports_in_parts_when_there_is_much(alice: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "MAX_ENTRIES", 2)
    first = alice.post(reverse("me-export"))
    second = alice.post(reverse("me-export"), {"before": first["X-BotOS-Older"]})

    assert json.loads(first.content)["is_complete"] is False
    assert [one["text"] for one in json.loads(second.content)["entries"]] == ["before here", "ok before here"]
    assert "X-BotOS-Older" not in second


def test_it_leads_to_all_parts_of_an_export(alice: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "All parts" not in look(alice)
    monkeypatch.setattr(export, "MAX_ENTRIES", 2)
    assert "All parts" in look(alice)
    newest = look(alice, "me-export-parts")
    [cursor] = re.findall(r"before=([^\"]+)", newest)
    oldest = look(alice, "me-export-parts", before=cursor)

    assert f'name="before" value="{cursor}"' in oldest
    assert ("Next older part" in newest, "Next older part" in oldest) == (True, False)
    parts = [json.loads(alice.post(reverse("me-export"), {"before": one}).content) for one in ("", cursor)]
    assert [len(one["entries"]) for one in parts] == [2, 2]


def test_it_ends_a_file_before_it_is_too_long(alice: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "AT_ONCE", 1)
    monkeypatch.setattr(export, "MAX_CHARACTERS", len("octarine <b>") + 1)
    first = alice.post(reverse("me-export"))

    assert [one["text"] for one in json.loads(first.content)["entries"]] == ["together there", "octarine <b>"]
    assert first["X-BotOS-Older"]
    assert "All parts" in look(alice)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("kind", ["json", "html"])
def test_it_lets_others_write_while_it_makes_a_file(alice: Client, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    read, was_open = window.page, []

    def watched(*args: Any, **options: Any) -> window.Page:
        was_open.append(connection.in_atomic_block)
        return read(*args, **options)

    monkeypatch.setattr(window, "page", watched)
    alice.post(reverse("me-export"), {"kind": kind})

    assert was_open == [False]


@pytest.mark.parametrize("name", POSTS)
def test_it_does_nothing_to_an_account_that_was_not_named(alice: Client, name: str) -> None:
    """The one that was named may have been readable a moment ago."""
    before = pairs.dump(AccountLink, AuditEvent, ForgetRequest, OutboundDelivery)
    mallory = PlatformAccount.objects.create(platform="slack", platform_user_id="U666")
    answer = alice.post(reverse(name), {"as": str(mallory.pk)})

    assert answer.headers["Location"] == reverse("me")
    assert pairs.dump(AccountLink, AuditEvent, ForgetRequest, OutboundDelivery) == before


def test_it_leaves_the_cookie_alone_when_a_script_asks_with_an_old_one(alice: Client) -> None:
    """Another tab may just have got a new one."""
    old = alice.cookies[settings.SESSION_COOKIE_NAME].value
    session = alice.session
    session.cycle_key()
    alice.cookies[settings.SESSION_COOKIE_NAME] = old

    assert settings.SESSION_COOKIE_NAME not in alice.get(reverse("me-now")).cookies


def test_it_says_of_no_part_that_may_not_be_carried_off(alice: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "MAX_ENTRIES", 2)
    AccountLink.objects.filter(account__platform="discord").update(shares_past=True)
    assert "There is an older one." in look(alice, "me-export-parts")
    AccountLink.objects.filter(account__platform="telegram").update(since=clock.now())

    assert "There is no older one." in look(alice, "me-export-parts")


# --- Forgetting


def test_it_forgets_after_the_number_that_the_chat_was_sent(alice: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_vacuum, "clean", _fail)  # takes long, and nobody waits for it
    page = post(alice, "me-forget-ask")
    warn_others()
    request = ForgetRequest.objects.get()
    number = confirmation.number_of(request)
    assert "number in your Telegram chat" in page
    assert number not in page.replace(" ", "")
    assert OutboundDelivery.objects.get(template="forget_number").chat_id == "chat-alice"

    wrong = f"{(int(number) + 1) % 1_000_000:06d}"
    assert "2 tries left" in post(alice, "me-forget-number", number=wrong)
    assert "six digits" in post(alice, "me-forget-number", number="12")
    assert "Deleted: messages" in post(alice, "me-forget-number", number=f"{number[:3]} {number[3:]}")
    assert ForgetRequest.objects.get().state == "cleaning"
    assert "verify that it's you" in look(alice)
    assert not HistoryEntry.objects.exists()
    assert not Conversation.objects.exists()


def warn_others() -> None:
    """As a delivery worker does."""
    warnings = OutboundDelivery.objects.filter(template="forget_asked")
    assert warnings.update(status="sent", settled_at=clock.now()) == 1


def test_it_says_who_is_not_forgotten(alice: Client) -> None:
    post(alice, "me-forget-ask")
    page = post(alice, "me-forget-number", number=confirmation.number_of(ForgetRequest.objects.get()))

    assert 'data-why="untold">Discord account' in page
    assert HistoryEntry.objects.filter(text="before there").exists()


def test_it_says_when_forgetting_takes_longer(alice: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forgetting, "_forget_some", _fail)
    post(alice, "me-forget-ask")
    number = confirmation.number_of(ForgetRequest.objects.get())

    assert "continues automatically" in post(alice, "me-forget-number", number=number)


def _fail(*args: object) -> None:
    raise RuntimeError
