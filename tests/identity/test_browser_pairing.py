"""A browser and a chat prove that one person has both; then two attached chats are linked with one press."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from django.db import IntegrityError, connection, transaction
from django.test.utils import CaptureQueriesContext
from pytest_django import Settings

from identity.browsers import attachments
from identity.browsers import sessions as browser_sessions
from identity.flows import link_maintenance, linking, pair_in_browser, pair_in_chat
from identity.flows.pair_in_browser import Answer
from identity.models import AccountLink, AuditEvent, Browser, BrowserAccount, GuessLimit, LiveEvent, Pairing
from identity.notices import Template
from identity.pairing import rate_limits
from identity.pairing.requests import Outcome
from identity.support import clock
from tests.identity import pairs
from tests.identity.pairs import Told, account, are_one, code, number, offered, state, token

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def told() -> Iterator[Told]:
    with pairs.listening() as told:
        yield told


def browser(address: str = "home") -> Browser:
    return Browser.objects.create(name="Firefox on Linux", address=address)


def request_of(one: Browser) -> Pairing:
    found = pair_in_browser.current(one)
    assert found is not None
    return found


def shown(one: Browser) -> Pairing:
    """The page shows a code."""
    assert pair_in_browser.offer(browser=one).outcome == Outcome.OFFERED
    return request_of(one)


def attached(one: Browser, who: str = "alice", platform: str = "telegram") -> Pairing:
    """A whole handshake, begun on the page."""
    request = shown(one)
    assert pair_in_chat.claim(account=account(who, platform), secret=code(request)) == Outcome.CLAIMED
    assert pair_in_browser.confirm(browser=one, number=number(request)) == Outcome.ATTACHED
    return request_of(one)


# --- from the page to the chat


def test_it_attaches_the_account_that_sent_the_code_of_the_page(told: Told) -> None:
    page, alice = browser(), account("alice")

    request = attached(page)

    assert (state(request), browser_sessions.attached(page)) == ("attached", [alice])
    assert told.to(alice) == [Template.NUMBER, Template.BROWSER_ATTACHED]
    assert not AccountLink.objects.exists()
    assert not Pairing.objects.exclude(code_hash=None, token_hash=None).exists()


def test_it_takes_the_link_token_as_well() -> None:
    page = browser()

    assert pair_in_chat.claim(account=account("alice"), secret=token(shown(page))) == Outcome.CLAIMED


def test_it_tells_the_chat_which_browser_wants_what(told: Told) -> None:
    page, alice = browser(), account("alice")
    pair_in_chat.claim(account=alice, secret=code(shown(page)))

    assert told.text(alice).startswith(
        "A browser (Firefox on Linux) wants to read and write as this Telegram account. If it is yours, go back to "
        "that page and type "
    )


def test_it_answers_a_number_in_the_chat_that_it_belongs_on_the_page(told: Told) -> None:
    page, alice = browser(), account("alice")
    request = shown(page)
    pair_in_chat.claim(account=alice, secret=code(request))

    assert pair_in_chat.confirm(account=alice, number=number(request)) == Outcome.OTHER_SIDE
    assert told.to(alice)[-1] == Template.TYPE_IN_BROWSER
    assert not BrowserAccount.objects.exists()


def test_it_lets_the_third_wrong_number_end_it() -> None:
    page = browser()
    request = shown(page)
    pair_in_chat.claim(account=account("alice"), secret=code(request))

    outcomes = [pair_in_browser.confirm(browser=page, number=pairs.wrong(request, nth)) for nth in (1, 2, 3)]

    assert outcomes == [Outcome.WRONG, Outcome.WRONG, Outcome.LOCKED]
    assert pair_in_browser.confirm(browser=page, number=number(request)) == Outcome.NOTHING
    assert not BrowserAccount.objects.exists()


def test_it_takes_the_number_from_the_page_that_began_alone() -> None:
    page, other = browser(), browser("elsewhere")
    request = shown(page)
    pair_in_chat.claim(account=account("alice"), secret=code(request))

    assert pair_in_browser.confirm(browser=other, number=number(request)) == Outcome.NOTHING
    assert state(request) == "claimed"


def test_it_takes_no_number_from_a_browser_that_has_ended() -> None:
    page = browser()
    request = shown(page)
    pair_in_chat.claim(account=account("alice"), secret=code(request))
    browser_sessions.sign_out(page)

    assert pair_in_browser.confirm(browser=page, number=number(request)) == Outcome.ENDED
    assert state(request) == "cancelled"


def test_it_takes_no_number_after_its_time() -> None:
    page = browser()
    request = shown(page)
    pair_in_chat.claim(account=account("alice"), secret=code(request))
    pairs.later(301, Pairing.objects.all())

    assert pair_in_browser.confirm(browser=page, number=number(request)) == Outcome.NOTHING


def test_it_may_be_denied_in_the_chat(told: Told) -> None:
    page, alice = browser(), account("alice")
    request = shown(page)
    pair_in_chat.claim(account=alice, secret=code(request))

    assert pair_in_chat.deny(account=alice, pairing_id=request.pk) == Outcome.DENIED
    assert pair_in_browser.confirm(browser=page, number=number(request)) == Outcome.NOTHING


def test_it_burns_a_code_of_the_page_that_is_posted_in_public() -> None:
    request = shown(browser())

    assert pair_in_chat.burn(secrets=[code(request)])
    assert state(request) == "burned"


# --- from the chat to the page


def test_it_attaches_the_account_whose_code_was_entered_on_the_page(told: Told) -> None:
    page, alice = browser(), account("alice")
    request = offered(alice)

    assert pair_in_browser.claim(browser=page, secret=code(request), address="home") == Answer(Outcome.CLAIMED)
    assert told.text(alice).startswith("A browser (Firefox on Linux) used your code. Yours? Type the 6-digit number")
    assert pair_in_chat.confirm(account=alice, number=number(request)) == Outcome.ATTACHED
    assert browser_sessions.attached(page) == [alice]
    assert told.to(alice)[-1] == Template.BROWSER_ATTACHED


def test_its_page_is_about_the_number_before_it_is_about_a_code() -> None:
    """In another tab it shows a code of its own."""
    page = browser()
    shown(page)
    begun = offered(account("alice"))
    assert pair_in_browser.claim(browser=page, secret=code(begun), address="home") == Answer(Outcome.CLAIMED)

    assert request_of(page).pk == begun.pk


def test_it_takes_the_number_of_a_page_in_the_chat_alone() -> None:
    page, alice = browser(), account("alice")
    request = offered(alice)
    pair_in_browser.claim(browser=page, secret=code(request), address="home")

    assert pair_in_browser.confirm(browser=page, number=number(request)) == Outcome.NOTHING
    assert pair_in_chat.confirm(account=account("mallory", "slack"), number=number(request)) == Outcome.NOTHING


def test_it_counts_a_denial_on_the_page_against_the_chat() -> None:
    page, mallory = browser(), account("mallory")
    request = offered(mallory)
    pair_in_browser.claim(browser=page, secret=code(request), address="home")

    assert pair_in_browser.deny(browser=page) == Outcome.DENIED
    assert rate_limits.rejections(mallory) == 1


def test_it_never_pairs_two_browsers() -> None:
    page, other = browser(), browser("elsewhere")
    request = shown(page)

    answer = pair_in_browser.claim(browser=other, secret=code(request), address="elsewhere")

    assert (answer, state(request)) == (Answer(Outcome.WRONG), "offered")


def test_it_takes_no_invitation_of_an_operator_on_a_page() -> None:
    request = pair_in_chat.invite(person=pairs.person("alice"), operator="carol")

    answer = pair_in_browser.claim(browser=browser(), secret=code(request), address="home")

    assert (answer, state(request)) == (Answer(Outcome.WRONG), "offered")


def test_it_lets_a_page_hold_one_claim() -> None:
    page = browser()
    first, second = offered(account("alice")), offered(account("bob"))
    pair_in_browser.claim(browser=page, secret=code(first), address="home")
    pair_in_browser.claim(browser=page, secret=code(second), address="home")

    assert (state(first), state(second)) == ("denied", "claimed")


@pytest.mark.parametrize("how", ["unknown", "expired", "used", "of a browser", "of an invitation"])
def test_it_answers_every_code_that_does_not_work_alike(how: str) -> None:
    page, counts = browser(), set()
    for kind in ("unknown", how):
        secret = _useless(kind)
        with CaptureQueriesContext(connection) as queries:
            answer = pair_in_browser.claim(browser=page, secret=secret, address="home")
        assert answer == Answer(Outcome.WRONG)
        counts.add(len(queries))
        GuessLimit.objects.update(times=[])

    assert len(counts) == 1


def _useless(how: str) -> str:
    if how == "unknown":
        GuessLimit.objects.get_or_create(guesser=rate_limits.attempt_key_at("home"))
        return "BBBBBBBB"
    if how == "of a browser":
        return code(shown(browser("elsewhere")))
    if how == "of an invitation":
        return code(pair_in_chat.invite(person=pairs.person("alice"), operator="carol"))
    request = offered(account("alice"))
    if how == "expired":
        pairs.later(601, Pairing.objects.filter(pk=request.pk))
    else:
        pair_in_chat.claim(account=account("alice", "discord"), secret=code(request))
    return code(request)


# --- limits


def test_it_locks_out_an_address_and_no_other() -> None:
    page, request = browser(), offered(account("alice"))
    for _ in range(5):
        pair_in_browser.claim(browser=browser(), secret="BBBBBBBB", address="home")

    locked = pair_in_browser.claim(browser=page, secret=code(request), address="home")
    free = pair_in_browser.claim(browser=page, secret=code(request), address="elsewhere")

    assert (locked.outcome, free.outcome) == (Outcome.WAIT, Outcome.CLAIMED)
    assert 890 <= locked.seconds <= 901


def test_it_limits_the_starts_of_a_browser() -> None:
    page = browser()
    shown(page)

    answer = pair_in_browser.offer(browser=page)

    assert answer.outcome == Outcome.WAIT
    assert 1 <= answer.seconds <= 30


def test_it_goes_on_to_the_next_account_without_a_pause(settings: Settings) -> None:
    settings.BOTOS_PAIRING = {"starts_an_hour": "2"}
    page = browser()
    attached(page)

    shown(page)
    assert pair_in_browser.offer(browser=page).seconds > 30  # the other limits count all starts


def test_it_limits_the_starts_of_an_address(settings: Settings) -> None:
    settings.BOTOS_PAIRING = {"address_starts_an_hour": "3"}
    for _ in range(3):
        shown(browser())

    assert pair_in_browser.offer(browser=browser()).outcome == Outcome.WAIT
    assert pair_in_browser.offer(browser=browser("elsewhere")).outcome == Outcome.OFFERED


def test_it_counts_the_starts_of_an_address_beyond_signing_out(settings: Settings) -> None:
    settings.BOTOS_PAIRING = {"address_starts_an_hour": "3"}
    for _ in range(3):
        page = browser()
        shown(page)
        browser_sessions.sign_out(page)

    assert pair_in_browser.offer(browser=browser()).outcome == Outcome.WAIT


def test_it_forgets_where_a_browser_was_an_hour_after_its_end() -> None:
    page, other = browser(), browser()
    browser_sessions.sign_out(page)
    browser_sessions.end_old()
    assert Browser.objects.exclude(address="").count() == 2

    Browser.objects.filter(pk=page.pk).update(ended_at=clock.seconds_from_now(-3600))
    browser_sessions.end_old()

    assert Browser.objects.exclude(address="").get() == other


# --- linking two


def test_it_links_two_accounts_that_were_attached_lately(told: Told) -> None:
    page, telegram, discord = browser(), account("alice"), account("alice", "discord")
    attached(page)
    attached(page, platform="discord")

    assert pair_in_browser.linkable(page) == [(telegram, discord)]
    assert pair_in_browser.link_these_two(browser=page, accounts=[telegram.pk, discord.pk]) == Outcome.LINKED
    assert are_one(telegram, discord)
    assert set(AccountLink.objects.values_list("method", flat=True)) == {"pairing"}
    assert AuditEvent.objects.filter(kind="linked", actor=browser_sessions.actor(page)).count() == 2
    assert 'in a browser, with: Discord account "' in told.text(telegram)
    assert told.to(telegram)[-1] == told.to(discord)[-1] == Template.LINKED


@pytest.mark.parametrize("is_first", [True, False])
@pytest.mark.parametrize("has_ended", [True, False])
def test_not_me_takes_back_what_the_page_linked(is_first: bool, has_ended: bool) -> None:
    page, alice, mallory = browser("mallorys"), account("alice"), account("mallory", "discord")
    order = [("alice", "telegram"), ("mallory", "discord")][:: 1 if is_first else -1]
    made = {who: attached(page, who, platform) for who, platform in order}
    assert pair_in_browser.link_these_two(browser=page, accounts=[alice.pk, mallory.pk]) == Outcome.LINKED
    if has_ended:
        browser_sessions.sign_out(page)

    pair_in_chat.deny(account=alice, pairing_id=made["alice"].pk)

    assert not are_one(alice, mallory)
    assert AccountLink.objects.get(account=mallory).disowned


def test_not_me_too_late_signs_the_page_out_and_says_so(told: Told) -> None:
    page, alice = browser("mallorys"), account("alice")
    request = attached(page)

    assert pair_in_chat.deny(account=alice, pairing_id=request.pk) == Outcome.DENIED

    assert told.text(alice) == "Signed out of 1 browser."
    assert browser_sessions.attached(page) == []


def test_signing_out_is_written_down_and_told_to_the_page_once() -> None:
    page = browser()

    assert [browser_sessions.sign_out(page), browser_sessions.sign_out(page)] == [True, False]

    assert AuditEvent.objects.filter(kind="browser_ended", actor=browser_sessions.actor(page)).count() == 1
    assert LiveEvent.objects.filter(kind="ended").count() == 1


def test_it_undoes_what_was_linked_on_the_page() -> None:
    page, telegram, discord = browser(), account("alice"), account("alice", "discord")
    attached(page)
    request = attached(page, platform="discord")
    pair_in_browser.link_these_two(browser=page, accounts=[telegram.pk, discord.pk])

    assert pair_in_browser.undo(browser=page, pairing_id=request.pk)
    assert not AccountLink.objects.live().exists()
    assert browser_sessions.attached(page) == []


def test_it_links_no_account_that_was_attached_long_ago() -> None:
    page, telegram, discord = browser(), account("alice"), account("alice", "discord")
    attached(page)
    pairs.later(901, BrowserAccount.objects.all())
    attached(page, platform="discord")

    assert pair_in_browser.link_these_two(browser=page, accounts=[telegram.pk, discord.pk]) == Outcome.NOTHING
    assert not AccountLink.objects.exists()


@pytest.mark.parametrize("platform", ["telegram", "slack"])
def test_it_links_no_account_of_another_browser(platform: str) -> None:
    page, other = browser(), browser("elsewhere")
    attached(page)
    attached(other, "mallory", platform)

    two = [account("alice").pk, account("mallory", platform).pk]
    assert pair_in_browser.link_these_two(browser=page, accounts=two) == Outcome.NOTHING
    assert not AccountLink.objects.exists()


def test_it_links_neither_one_nor_three() -> None:
    page, platforms = browser(), ("telegram", "discord", "slack")
    for platform in platforms:
        attached(page, platform=platform)
    keys = [account("alice", platform).pk for platform in platforms]

    assert pair_in_browser.link_these_two(browser=page, accounts=keys) == Outcome.NOTHING
    assert pair_in_browser.link_these_two(browser=page, accounts=keys[:1] * 2) == Outcome.NOTHING


def test_it_asks_policy_before_it_links() -> None:
    page, alice, bob = browser(), account("alice"), account("bob")
    attached(page)
    attached(page, "bob")

    assert pair_in_browser.linkable(page) == []
    assert pair_in_browser.link_these_two(browser=page, accounts=[alice.pk, bob.pk]) == Outcome.REFUSED


# --- browsers


def test_it_is_fresh_for_a_quarter_of_an_hour_and_longer_while_in_use() -> None:
    page, alice = browser(), account("alice")
    attached(page)
    pairs.later(800, BrowserAccount.objects.all())
    browser_sessions.touch(page)
    pairs.later(800, BrowserAccount.objects.all())
    assert browser_sessions.readable(page) == [alice]

    pairs.later(101, BrowserAccount.objects.all())
    browser_sessions.touch(page)

    assert browser_sessions.readable(page) == []
    assert browser_sessions.attached(page) == [alice]


def test_a_browser_in_use_keeps_no_other_one_alive() -> None:
    page, other, alice = browser(), browser("elsewhere"), account("alice")
    attached(page)
    attached(other, "bob")
    pairs.later(800, BrowserAccount.objects.all(), Browser.objects.all())
    other.refresh_from_db()
    seen_at = other.seen_at

    browser_sessions.touch(page)

    pairs.later(200, BrowserAccount.objects.all())
    assert browser_sessions.readable(page) == [alice]
    assert browser_sessions.readable(other) == []
    other.refresh_from_db()
    assert other.seen_at == seen_at


def test_it_is_not_fresh_for_more_than_eight_hours() -> None:
    page = browser()
    attached(page)
    for _ in range(8 * 6):
        pairs.later(600, BrowserAccount.objects.all())
        browser_sessions.touch(page)

    assert browser_sessions.readable(page) == []


@pytest.mark.parametrize("way", ["unlink", "disown", "revoke", "suspend", "gone", "sign out"])
def test_it_ends_with_what_ends_the_account(way: str) -> None:
    page, telegram, discord = browser(), account("alice"), account("alice", "discord")
    pairs.linked(telegram, discord)
    attached(page, platform="discord")
    link = pairs.live_link(discord)
    ends: dict[str, Callable[[], object]] = {
        "unlink": lambda: linking.leave(account=discord),
        "disown": lambda: linking.disown(account=telegram, link_id=link.pk),
        "revoke": lambda: link_maintenance.revoke(link=link, operator="carol"),
        "suspend": lambda: link_maintenance.suspend(user=link.user, operator="carol"),
        "gone": lambda: link_maintenance.account_is_gone(account=discord),
        "sign out": lambda: browser_sessions.sign_out_everywhere(link.account),
    }

    assert ends[way]()
    assert browser_sessions.attached(page) == []
    assert LiveEvent.objects.filter(topic=f"browser:{page.pk}", kind="links").count() >= 2


def test_it_keeps_one_live_request_of_a_browser_in_the_database() -> None:
    page = browser()
    request = shown(page)
    with pytest.raises(IntegrityError), transaction.atomic():
        Pairing.objects.create(
            initiator_browser=page, expires_at=request.expires_at, last_at=request.last_at, state="offered"
        )


def test_it_keeps_two_browsers_apart_in_the_database() -> None:
    request = shown(browser())
    with pytest.raises(IntegrityError), transaction.atomic():
        Pairing.objects.filter(pk=request.pk).update(responder_browser=browser("elsewhere"))


def test_it_tells_the_page_of_a_wrong_number() -> None:
    page = browser()
    request = shown(page)
    pair_in_chat.claim(account=account("alice"), secret=code(request))
    LiveEvent.objects.all().delete()

    pair_in_browser.confirm(browser=page, number=pairs.wrong(request))

    topics = LiveEvent.objects.values_list("topic", "kind")
    assert set(topics) == {(f"browser:{page.pk}", "pairing"), (f"account:{account('alice').pk}", "pairing")}


def test_it_holds_what_it_detaches_in_one_order() -> None:
    if connection.vendor != "postgresql":
        pytest.skip("SQLite has one writer at a time")
    attached(browser())
    alice = account("alice")
    with CaptureQueriesContext(connection) as queries:
        attachments.detach(account=alice)

    assert 'ORDER BY "identity_browseraccount"."id" ASC FOR NO KEY UPDATE' in queries.captured_queries[0]["sql"]
