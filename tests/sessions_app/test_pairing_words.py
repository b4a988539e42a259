"""Codes and numbers inside of longer texts: what comes of them, and that nothing keeps them while they live."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from time import thread_time

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from identity import audit
from identity.flows import pair_in_chat
from identity.models import GuessLimit, Pairing, PlatformAccount
from identity.pairing import requests as pairing_requests
from identity.pairing.secrets import Secrets, secrets_of
from identity.support import clock
from sessions_app import inbox
from sessions_app.messages import Address, MessageEdit
from sessions_app.models import InboundEvent, OutboundDelivery
from tests.sessions_app.talk import DATABASE, message
from tests.sessions_app.test_pairing_chat import code_of, number_of, pair, receive, told

pytestmark = pytest.mark.django_db

# As codes are shown: answered inside a longer text, too.
SHOWN = ["{a}\u2014{b} it is", "it is {a}\u00ad-{b}", "it is `{a}-{b}`"]
LOOSE = [
    "my code is {a} {b}",
    "my code is {a}{b}",
    "/start {a}{b}",
    "/whoami {a} {b}",
    "use {token} please",
    "use *{token}*",
    "code:{a}-{b}-x",
    "**{a} {b}** please",
    "_{a}{b}_ please",
    "what is HTML HTTP? and {a} {b}",
]

# No spelling of a code: so it is neither looked up nor counted, and kept like other words.
ODD = ["my code is {spaced}", "it is {a}--{b}", "{a} - {b} is it", "{a}.{b}", "**{a}**-**{b}**"]

SPELLINGS: list[Callable[[str], str]] = [
    lambda number: "".join(chr(0x660 + int(digit)) for digit in number),
    lambda number: f"{number[:3]}.{number[3:]}",
    " ".join,
]
MORE: list[Callable[[str], str]] = [
    lambda number: "it is " + " ".join(number),
    lambda number: f"{number[:2]}-{number[2:4]}-{number[4:]} ok",
    lambda number: f"x{number}",
    lambda number: "\u0966" + number,
    lambda number: number * 2,
    lambda number: f"{number}, {number}",
    lambda number: f"{number[:3]} {number[3:]} " * 3,
]


def asked() -> Secrets:
    """Alice has asked for a code."""
    receive("alice", "/link")
    return secrets_of(Pairing.objects.get())


def with_code(form: str, secrets: Secrets) -> str:
    return form.format_map(spellings(secrets.code) | {"token": secrets.token})


def spellings(code: str) -> dict[str, str]:
    return {"a": code[:4], "b": code[4:], "spaced": " ".join(code)}


def kept() -> str:
    """The words of the last message. Those behind a command are an event of their own."""
    last = InboundEvent.objects.latest("pk")
    events = InboundEvent.objects.filter(platform=last.platform, message_id=last.message_id).order_by("pk")
    return " ".join(events.values_list("text", flat=True))


def guesses(who: str, platform: str) -> int:
    """How many wrong codes are counted against somebody."""
    account = PlatformAccount.objects.get(platform=platform, platform_user_id=who)
    limit = GuessLimit.objects.filter(guesser=audit.actor(account)).first()
    return len(limit.times) if limit else 0


@pytest.mark.parametrize("form", [*SHOWN, *LOOSE])
@pytest.mark.parametrize("case", [str.upper, str.lower])
def test_it_claims_letters_that_are_a_live_code(form: str, case: Callable[[str], str]) -> None:
    secrets = asked()
    written = form if "{token}" in form else case(with_code(form, secrets))

    receive("bob", with_code(written, secrets), platform="discord")

    assert (kept(), Pairing.objects.get().state) == ("", "claimed")


@pytest.mark.parametrize("form", ["{a}{b}", "{a} {b}", "{a}-{b}"])
def test_it_answers_to_letters_that_stand_alone_as_to_a_code(form: str) -> None:
    receive("bob", form.format(a="HMMM", b="PFFT"), platform="discord")

    assert kept() == ""
    assert told("bob", "discord").startswith("That code doesn't work.")
    assert guesses("bob", "discord") == 1


@pytest.mark.parametrize("form", [*SHOWN, *LOOSE])
def test_it_keeps_no_live_code_of_ones_own(form: str) -> None:
    secrets = asked()

    receive("alice", with_code(form, secrets))

    assert (kept(), Pairing.objects.get().state) == ("", "offered")
    assert told("alice") == "That code is from this chat: send it in your other app."


@pytest.mark.parametrize("form", LOOSE)
def test_it_keeps_letters_that_are_no_code_and_counts_them_in_silence(form: str) -> None:
    text = with_code(form, Secrets("HMMMPFFT", "L" + "a" * 22, ""))

    receive("bob", text, platform="discord")

    assert kept() == text
    assert not OutboundDelivery.objects.exclude(template="").exists()  # a command is answered as ever
    assert guesses("bob", "discord") == (2 if "HTTP" in form else 1)


@pytest.mark.parametrize("form", ODD)
@pytest.mark.parametrize("group", ["", "friends"])
def test_it_keeps_a_code_in_another_spelling_like_other_words(form: str, group: str) -> None:
    text = with_code(form, asked())

    if group:
        inbox.receive(message("bob", text, group=group), resolver=DATABASE)
    else:
        receive("bob", text, platform="discord")

    assert (kept(), Pairing.objects.get().state) == (text, "offered")
    assert not GuessLimit.objects.exclude(times=[]).exists()


def test_it_looks_all_codes_of_a_message_up_at_once_and_counts_each() -> None:
    text = "hmmm pfft brrr html xml http " * 20
    receive("bob", "hello", platform="discord")
    with CaptureQueriesContext(connection) as queries:
        receive("bob", text, platform="discord")

    assert len(lookups(queries)) == 1
    assert guesses("bob", "discord") == 4
    assert kept() == text


def lookups(queries: CaptureQueriesContext) -> list[str]:
    """The look-ups of codes among these queries."""
    return [query["sql"] for query in queries.captured_queries if '"code_hash" IN' in query["sql"]]


@pytest.mark.parametrize("place", [0, 4, 5, 19, 1500])
def test_it_looks_at_none_of_many_codes_in_one_message_and_keeps_none(place: int) -> None:
    secrets = asked()
    wrong = [f"BCDFGH{one}{other}" for one in "BCDFGHJKLMNPQRSTVWXZ" for other in "BCDFGHJKLMNPQRSTVWXZ"]
    wrong = [f"{letter}{code[1:]}" for letter in "BCDFG" for code in wrong]
    wrong[place] = secrets.code

    with CaptureQueriesContext(connection) as queries:
        receive("bob", "; ".join(f"a {one}" for one in wrong), platform="discord")

    assert lookups(queries) == []
    assert (kept(), Pairing.objects.get().state) == ("", "offered")
    assert "If you mean one of them, send it alone" in told("bob", "discord")
    assert guesses("bob", "discord") == 0


def test_it_looks_at_as_many_codes_of_a_message_as_lock_nobody_out() -> None:
    secrets = asked()
    receive("bob", "hmmm pfft", platform="discord")

    receive("bob", f"a BCDFGHJK, a BCDFGHJL, a {secrets.code[:4]}-{secrets.code[4:]}", platform="discord")
    assert Pairing.objects.get().state == "claimed"

    for _ in range(2):
        receive("mallory", "hmmm pfft", platform="discord")
    receive("mallory", "a BCDFGHJK, a BCDFGHJL, a BCDFGHJM", platform="discord")
    assert guesses("mallory", "discord") == 2


def test_it_reads_a_hostile_text_in_no_time() -> None:
    codes = "BCDFGHJK"
    for text in ("S-" * 32_000, "S        " * 7_000, "STSB." * 13_000, "ST " * 21_000, "\ufdfa" * 21_000):
        began = thread_time()  # of its own, whatever else the machine does
        receive("bob", f"{text}{codes}", platform="discord")
        assert thread_time() - began < 10, "it takes longer than a text is long"


def test_it_answers_whoever_guesses_too_much_and_keeps_nothing() -> None:
    secrets = asked()
    for _ in range(5):
        receive("bob", "hmmm pfft, I see", platform="discord")

    for text in ("hmmm pfft, I see", with_code("it is {a} {b}", secrets)):
        with CaptureQueriesContext(connection) as queries:
            receive("bob", text, platform="discord")
        assert not lookups(queries)
        assert kept() == ""
        assert told("bob", "discord") == "Too many wrong codes. Wait 15 minutes."
    receive("bob", "hello", platform="discord")
    assert kept() == "hello"


def test_it_keeps_no_live_code_that_was_forwarded_and_does_not_take_it() -> None:
    secrets = asked()
    said = message("bob", with_code("my code is {a} {b}", secrets), platform="discord")

    inbox.receive(replace(said, is_firsthand=False), resolver=DATABASE)

    assert (kept(), Pairing.objects.get().state) == ("", "offered")
    assert told("bob", "discord").startswith("Please type that yourself")


def test_it_answers_what_is_too_old_with_something_that_is_true() -> None:
    secrets = asked()
    said = message("bob", secrets.token, platform="discord")

    inbox.receive(replace(said, sent_at=clock.read() - timedelta(minutes=11)), resolver=DATABASE)

    assert told("bob", "discord").startswith("Your message seems to have taken very long to reach me")


# --- In groups


@pytest.mark.parametrize("form", ["{a} {b}", "_{token}_", "*{a}-{b}*", "{small}, now", "/start {a}{b}"])
@pytest.mark.parametrize("is_addressed", [True, False])
def test_it_burns_a_code_that_is_posted_in_any_of_its_spellings(form: str, is_addressed: bool) -> None:
    secrets = asked()
    text = with_code(form.replace("{small}", secrets.code.lower()), secrets)

    inbox.receive(replace(message("bob", text, group="friends"), is_addressed=is_addressed), resolver=DATABASE)

    assert Pairing.objects.get().state == "burned"


def test_it_burns_a_code_that_a_message_is_edited_to() -> None:
    secrets = asked()
    inbox.receive(message("bob", "hello", group="friends"), resolver=DATABASE)

    assert edited(f"it is {secrets.code.lower()}", platform="telegram") == ("hello", "")
    assert Pairing.objects.get().state == "burned"
    assert told("alice").startswith("Your code was posted in a group")


# --- Edits in private


def edited(text: str, *, platform: str = "discord") -> tuple[str, str]:
    """What is kept of a message "hello" that is edited to `text`."""
    event = InboundEvent.objects.get(text="hello")
    inbox.edit(MessageEdit(Address(platform, event.chat_id), event.message_id, text))
    event.refresh_from_db()
    return event.text, event.edited


@pytest.mark.parametrize("form", ["{a}-{b}", *SHOWN, *LOOSE])
def test_it_leaves_a_code_alone_that_a_private_message_is_edited_to(form: str) -> None:
    secrets = asked()
    asking = OutboundDelivery.objects.get()
    receive("bob", "hello", platform="discord")

    assert edited(with_code(form, secrets)) == ("hello", "")

    assert Pairing.objects.get().state == "offered"
    assert told("bob", "discord").startswith("Please type that yourself")
    assert OutboundDelivery.objects.filter(account=asking.account).get() == asking
    assert guesses("bob", "discord") == form.count("HTML HTTP")  # which looks like one, too


@pytest.mark.parametrize("text", ["HMMM-PFFT", "it is hmmm pfft", "L" + "a" * 22])
def test_it_counts_a_wrong_code_that_a_private_message_is_edited_to(text: str) -> None:
    secrets = asked()
    receive("bob", "hello", platform="discord")

    for count in range(1, 6):
        assert edited(text) == ("hello", "")
        assert guesses("bob", "discord") == count

    assert not OutboundDelivery.objects.exclude(account__platform="telegram").exists()
    assert edited(secrets.code) == ("hello", "")
    assert told("bob", "discord") == "Too many wrong codes. Wait 15 minutes."


@pytest.mark.parametrize("spelled", [*SPELLINGS, *MORE])
@pytest.mark.parametrize("has_ended", [False, True])
def test_it_keeps_no_number_that_a_private_message_is_edited_to(spelled: Callable[[str], str], has_ended: bool) -> None:
    receive("alice", "hello", platform="discord")
    number = shown()
    if has_ended:
        Pairing.objects.update(state="denied", ended_at=clock.now())

    assert edited(spelled(number)) == ("hello", "")


def test_it_hashes_each_code_of_a_long_text_once(monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: list[str] = []

    def count(secret: str) -> list[str]:
        hashed.append(secret)
        return [secret]

    monkeypatch.setattr(pairing_requests, "lookup_hashes", count)

    inbox.receive(message("bob", "WDJB-MJHT " * 10_000, group="friends"), resolver=DATABASE)

    assert len(hashed) == len(set(hashed)) < 10


# --- Numbers


def shown() -> str:
    """Alice's Discord account has been shown the number that her Telegram account is to type."""
    receive("alice", "/link")
    receive("alice", code_of(told("alice")), platform="discord")
    return number_of(told("alice", "discord")).replace(" ", "")


@pytest.mark.parametrize("spelled", SPELLINGS)
def test_it_takes_the_number_in_whatever_spelling(spelled: Callable[[str], str]) -> None:
    receive("alice", spelled(shown()))

    assert (kept(), Pairing.objects.get().state) == ("", "linked")


@pytest.mark.parametrize("spelled", MORE)
def test_it_keeps_no_number_in_whatever_spelling(spelled: Callable[[str], str]) -> None:
    receive("alice", spelled(shown()))

    assert (kept(), Pairing.objects.get().state) == ("", "claimed")
    assert told("alice") == "If you mean the number, send it alone, without other words."


@pytest.mark.parametrize("spelled", MORE)
@pytest.mark.parametrize("platform", ["telegram", "discord"])
def test_it_keeps_no_number_that_has_just_ended(spelled: Callable[[str], str], platform: str) -> None:
    number = shown()
    Pairing.objects.update(state="denied", ended_at=clock.now())

    receive("alice", spelled(number), platform=platform)

    assert kept() == ""
    assert told("alice", platform) == "You have no pending request or link like that."


@pytest.mark.parametrize("spelled", [*SPELLINGS, *MORE])
def test_it_takes_figures_for_a_message_when_nobody_waits_for_a_number(spelled: Callable[[str], str]) -> None:
    receive("alice", spelled("482913"))

    assert kept() == spelled("482913")


def test_it_answers_the_number_in_another_app_of_the_responders() -> None:
    pair("discord", "slack")
    receive("alice", "/link")
    receive("alice", code_of(told("alice")), platform="discord")
    number = number_of(told("alice", "discord"))

    receive("alice", number, platform="slack")

    assert kept() == ""
    assert told("alice", "slack") == "Type this in your other app, in the chat where you started."


def test_it_keeps_no_number_whose_request_ends_while_it_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    number, awaits = shown(), pair_in_chat.awaits_number

    def then_it_ends(account: PlatformAccount) -> bool:
        monkeypatch.setattr(pair_in_chat, "awaits_number", awaits)
        found = awaits(account)
        Pairing.objects.update(state="denied", ended_at=clock.now())
        return found

    monkeypatch.setattr(pair_in_chat, "awaits_number", then_it_ends)
    receive("alice", number)

    assert kept() == ""
    assert told("alice") == "You have no pending request or link like that."
