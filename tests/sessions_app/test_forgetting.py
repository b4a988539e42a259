"""Somebody wants to be forgotten: nothing of theirs is found afterwards, and nothing of others' is missing."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import threading
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from django.conf import LazySettings
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User
from django.contrib.contenttypes.models import ContentType
from django.db import connection, connections, transaction
from django.db.backends.utils import CursorWrapper
from django.test.utils import CaptureQueriesContext

from identity import audit
from identity.browsers import sessions as browser_sessions
from identity.flows import linking, pair_in_chat
from identity.models import AccountLink, AuditEvent, Browser, Pairing, PlatformAccount, UnifiedUser
from identity.notices import Template
from identity.pairing import codes, rate_limits
from identity.pairing import requests as pairing_requests
from identity.pairing.settings import limits
from identity.support import clock
from sessions_app import inbox
from sessions_app.commands import linking as linking_commands
from sessions_app.commands.intent import classify
from sessions_app.history import conversations
from sessions_app.models import Conversation, ForgetRequest, HistoryEntry, InboundEvent, OutboundDelivery, Watermark
from sessions_app.outbox import queue as outbox_queue
from sessions_app.privacy import confirmation, forgetting, sqlite_vacuum
from sessions_app.privacy.forgetting import Answer, Outcome
from sessions_app.receiving import group as receiving_group
from sessions_app.receiving import watermarks
from sessions_app.turns import lifecycle
from tests import database_files
from tests.identity import pairs
from tests.sessions_app import browsing
from tests.sessions_app.racing import at_once
from tests.sessions_app.talk import DATABASE, PLATFORMS, claim, message, receive, say, time_passes

pytestmark = pytest.mark.django_db(transaction=True)

WORDS = ("octarine", "wizzard", "Zaphod", "zaphod", "chat-zaphod", "luggage")


def account(who: str = "zaphod", platform: str = "telegram") -> PlatformAccount:
    return PlatformAccount.objects.get(platform=platform, platform_user_id=who)


def asked(who: str = "zaphod", platform: str = "telegram") -> ForgetRequest:
    assert inbox.receive(message(who, "/forget", platform=platform), resolver=DATABASE) is None
    return ForgetRequest.objects.get(account=account(who, platform), state="asked")


def deliver(*platforms: str) -> list[str]:
    """Send what is in line for these platforms, or all, as a delivery worker does. What people read."""
    read = []
    while taken := outbox_queue.claim(owner="worker", platforms=platforms or PLATFORMS):
        read += [outbox_queue.outgoing(one).text for one in taken]
        outbox_queue.settle([outbox_queue.Sent(one, f"sent-{one.pk}") for one in taken])
    return read


def go_on() -> int:
    """As housekeeping does, and again a while later. How many people are done."""
    step_to_the_end()
    return clean_later()


def clean_later() -> int:
    ForgetRequest.objects.filter(state="cleaning").update(expires_at=clock.now())
    return forgetting.clean()


def texts_of(who: str, platform: str) -> list[str]:
    """What is left of what was said in a private chat."""
    said = HistoryEntry.objects.filter(conversation__account=account(who, platform)).order_by("pk")
    return list(said.values_list("text", flat=True))


def type_number(number: str, who: str = "zaphod", platform: str = "telegram") -> None:
    assert inbox.receive(message(who, number, platform=platform), resolver=DATABASE) is None


def link(who: str, platform: str, person: str) -> None:
    linking.link(platform=platform, platform_user_id=who, unified_user_id=person, method="pairing", actor="test")


@pytest.fixture
def two() -> None:
    """Zaphod on Telegram and Discord, linked for long, who also spoke in a group where bob did."""
    say("zaphod", "my colour is octarine", answer="octarine it is")
    say("zaphod", "and the luggage", answer="noted", platform="discord")
    say("zaphod", "a wizzard here", answer="hello wizzard", group="pub")
    say("bob", "I am bob", answer="hello bob", group="pub")
    say("bob", "mine", answer="yours")
    link("zaphod", "telegram", "u-1")
    link("zaphod", "discord", "u-1")
    pairs.later(2 * 86_400, AccountLink.objects.all())


def everything() -> bytes:
    """All bytes that the database has: its files, or a dump."""
    if connection.vendor == "sqlite":
        return database_files.read_all()
    these = connection.settings_dict
    command = ["pg_dump", "-h", these["HOST"], "-p", str(these["PORT"] or 5432), "-U", these["USER"], these["NAME"]]
    environment = os.environ | {"PGPASSWORD": these["PASSWORD"] or ""}
    return subprocess.run(command, env=environment, check=True, capture_output=True).stdout


def found_of_zaphod() -> set[str]:
    dump = everything()
    return {word for word in WORDS if word.encode() in dump}


def forget(who: str = "zaphod") -> None:
    request = asked(who)
    deliver()
    type_number(confirmation.number_of(request), who)
    deliver()
    assert go_on() == 1


def confirmed(who: str = "zaphod") -> ForgetRequest:
    """Somebody asked on Telegram, and has typed the number when the others were warned."""
    request = asked(who)
    deliver()
    answer = forgetting.confirm(account=account(who), number=confirmation.number_of(request))
    assert answer == Answer(Outcome.CONFIRMED)
    return request


def test_it_leaves_nothing_of_a_person_and_all_of_others(two: None) -> None:
    deliver()
    for number in range(60):  # pages split, and words move within the files
        say("zaphod", f"octarine {number} " + "luggage " * 40, answer="wizzard " * 60)
        say("bob", f"mine {number}", answer="yours")
    deliver()
    assert found_of_zaphod() == set(WORDS)
    kept = set(HistoryEntry.objects.filter(author__platform_user_id="bob").values_list("pk", "text"))

    forget()

    assert found_of_zaphod() == set()
    assert set(HistoryEntry.objects.values_list("pk", "text")) == kept
    assert not AccountLink.objects.live().exists()


def test_it_deletes_a_message_that_steps_aside_with_its_entry(two: None) -> None:
    lifecycle.fail(claim(receive("zaphod", "zaphod's hard question")))
    forget()

    assert not InboundEvent.objects.filter(text__contains="hard question").exists()
    assert not HistoryEntry.objects.filter(text__contains="hard question").exists()


def test_a_repeated_turn_writes_nothing_of_a_message_that_was_deleted_meanwhile(two: None) -> None:
    conversation = receive("zaphod", "hard question")
    lifecycle.fail(claim(conversation))
    time_passes()
    repeated = claim(conversation)
    forget()

    for ends in (partial(lifecycle.finish, repeated, "hi", limit=2000), partial(lifecycle.fail, repeated)):
        with pytest.raises(lifecycle.LeaseLost):
            ends()
    assert not HistoryEntry.objects.filter(text__in=["hard question", "hi"]).exists()


def test_it_deletes_what_waits_for_them_at_an_older_address(two: None) -> None:
    """A platform gave the chat another id after the notice was put in line."""
    outbox_queue.queue_notice(account(), Template.FORGET_ASKED, {"by": account("bob").pk})
    OutboundDelivery.objects.filter(template=Template.FORGET_ASKED).update(chat_id="the older one")
    assert not Conversation.objects.filter(chat_id="the older one").exists()

    forget()

    assert not OutboundDelivery.objects.filter(chat_id="the older one").exists()


def test_it_signs_out_every_browser_of_theirs_and_no_other(two: None) -> None:
    pages = [browsing.browser_of(account("zaphod", platform)) for platform in ("telegram", "discord")]
    other = browsing.browser_of(account("bob"))

    forget()

    assert [browser_sessions.attached(one) for one in (*pages, other)] == [[], [], [account("bob")]]
    assert browser_sessions.alive([one.pk for one in (*pages, other)]) == {other.pk}


def test_it_ends_what_they_had_begun(two: None) -> None:
    begun = [pairs.offered(account("zaphod", "discord")), pairs.offered(account("bob"))]

    forget()

    assert [pairs.state(one) for one in begun] == ["cancelled", "offered"]


def test_it_leaves_a_person_without_accounts_no_name(two: None) -> None:
    UnifiedUser.objects.update(display_name="Zaphod")

    forget()

    person = UnifiedUser.objects.get()
    assert person.display_name == ""
    assert person.unified_user_id != "u-1"


def test_it_leaves_the_person_to_the_account_that_stays(two: None) -> None:
    UnifiedUser.objects.update(display_name="Zaphod", preferred=account())
    AccountLink.objects.filter(account=account()).update(since=clock.read())  # too new to speak for the other one

    forget()

    person = UnifiedUser.objects.get()
    assert (person.unified_user_id, person.display_name, person.preferred) == ("u-1", "Zaphod", None)
    assert AccountLink.objects.live().get().account == account("zaphod", "discord")


def test_it_sends_a_number_and_says_farewell(two: None) -> None:
    deliver()
    request = asked()
    [told, _warned] = deliver()
    assert codes.shown_number(confirmation.number_of(request)) in told
    assert "Telegram account" in told
    assert "Discord account" in told

    type_number(confirmation.number_of(request))
    assert go_on() == 0  # before the farewell is sent
    assert "my last message here" in deliver()[0]
    assert go_on() == 1
    assert deliver() == []


def test_it_stores_the_number_nowhere(two: None) -> None:
    request = asked()
    number = confirmation.number_of(request)
    type_number(f"is it {number}?")

    assert number.encode() not in everything()
    assert codes.shown_number(number).encode() not in everything()


def test_it_ends_with_the_third_wrong_number(two: None) -> None:
    request = asked()
    right = confirmation.number_of(request)
    wrong = f"{(int(right) + 1) % 1_000_000:06d}"
    outcomes = [forgetting.confirm(account=account(), number=wrong) for _ in range(3)]

    assert outcomes == [Answer(Outcome.WRONG, 2), Answer(Outcome.WRONG, 1), Answer(Outcome.LOCKED)]
    assert forgetting.confirm(account=account(), number=right).outcome == Outcome.NOTHING


def test_it_counts_the_tries_that_the_operator_allows(two: None, settings: LazySettings) -> None:
    settings.BOTOS_PAIRING = {"number_tries": "5"}
    right = confirmation.number_of(asked())
    wrong = f"{(int(right) + 1) % 1_000_000:06d}"

    told = [forgetting.words_for(forgetting.confirm(account=account(), number=wrong)) for _ in range(2)]

    assert told == ["That's not the right number. 4 tries left.", "That's not the right number. 3 tries left."]


def test_it_takes_a_number_once_and_in_its_time(two: None) -> None:
    number = confirmation.number_of(asked())
    ForgetRequest.objects.update(expires_at=clock.now())
    assert forgetting.confirm(account=account(), number=number).outcome == Outcome.NOTHING

    number = confirmation.number_of(asked())
    assert forgetting.confirm(account=account(), number=number).outcome == Outcome.CONFIRMED
    assert forgetting.confirm(account=account(), number=number).outcome == Outcome.NOTHING


def test_it_takes_the_number_of_a_browser_only_there(two: None) -> None:
    here, there = (Browser.objects.create(name=name) for name in ("here", "there"))
    request = forgetting.ask(account=account(), browser=here)
    assert request
    number = confirmation.number_of(request)

    assert forgetting.confirm(account=account(), number=number).outcome == Outcome.ELSEWHERE
    assert forgetting.confirm(account=account(), number=number, browser=there).outcome == Outcome.ELSEWHERE
    assert forgetting.confirm(account=account(), number=number, browser=here).outcome == Outcome.CONFIRMED


def test_it_does_not_forget_others_by_a_link_of_today(two: None) -> None:
    AccountLink.objects.filter(account=account()).update(since=clock.now())
    forget()

    assert found_of_zaphod() >= {"luggage", "zaphod"}
    assert set(HistoryEntry.objects.values_list("text", flat=True)) >= {"and the luggage", "noted", "I am bob", "mine"}
    assert not HistoryEntry.objects.filter(text__contains="octarine").exists()
    assert AccountLink.objects.live().get().account == account(platform="discord")


def test_it_does_not_forget_what_was_linked_after_it_was_asked(two: None) -> None:
    request = asked()
    say("trillian", "hers", answer="ok", platform="slack")
    link("trillian", "slack", "u-1")
    forgetting.confirm(account=account(), number=confirmation.number_of(request))
    deliver()
    go_on()

    assert HistoryEntry.objects.filter(text="hers").exists()
    assert account("trillian", "slack").platform_user_id == "trillian"


def test_it_forgets_nobody_who_could_not_be_warned(two: None) -> None:
    deliver()
    request = asked()
    deliver("telegram")  # Discord is down
    type_number(confirmation.number_of(request))
    [told] = deliver("telegram")
    go_on()

    assert 'Not deleted: Discord account "Zaphod"' in told
    assert texts_of("zaphod", "discord") == ["and the luggage", "noted"]
    assert not HistoryEntry.objects.filter(text__contains="octarine").exists()
    [warned, unlinked] = deliver("discord")
    assert (warned, "no longer shares" in unlinked) == ("That request has ended.", True)


def test_it_forgets_nobody_whose_warning_came_to_nothing(two: None) -> None:
    deliver()
    request = asked()
    for warning in outbox_queue.claim(owner="worker", platforms=["discord"]):
        outbox_queue.settle([outbox_queue.Failed(warning, "blocked by the user", permanent=True)])

    answer = forgetting.confirm(account=account(), number=confirmation.number_of(request))

    assert answer.kept == (account("zaphod", "discord"),)


def test_it_forgets_nobody_who_has_no_chat_to_be_warned_in(two: None) -> None:
    say("ford", "don't panic", platform="slack", group="pub")
    link("ford", "slack", "u-1")
    pairs.later(2 * 86_400, AccountLink.objects.all())
    request = asked()
    deliver()

    answer = forgetting.confirm(account=account(), number=confirmation.number_of(request))

    assert answer.kept == (account("ford", "slack"),)


def test_it_does_not_forget_what_was_unlinked_before_it_was_confirmed(two: None) -> None:
    request = asked()
    linking.unlink(platform="discord", platform_user_id="zaphod", actor="test")
    forgetting.confirm(account=account(), number=confirmation.number_of(request))
    deliver()
    go_on()

    assert HistoryEntry.objects.filter(text="and the luggage").exists()


def test_it_does_not_forget_what_was_unlinked_before_it_began(two: None) -> None:
    confirmed()
    linking.leave(account=account("zaphod", "discord"), platform="telegram")
    deliver()
    go_on()

    assert HistoryEntry.objects.filter(text="and the luggage").exists()
    assert account("zaphod", "discord").display_name == "Zaphod"
    assert not HistoryEntry.objects.filter(text__contains="octarine").exists()


def test_it_does_not_forget_what_was_unlinked_and_linked_anew(two: None) -> None:
    confirmed()
    linking.leave(account=account("zaphod", "discord"), platform="telegram")
    link("zaphod", "telegram", "u-1")
    deliver()
    go_on()

    assert HistoryEntry.objects.filter(text="and the luggage").exists()


def test_it_ends_what_an_account_has_joined_while_it_was_being_forgotten(
    two: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    say("trillian", "hers", answer="ok", platform="slack")
    confirmed()
    deliver()
    with monkeypatch.context() as patch:
        patch.setattr(forgetting, "_forget_account", _crash)
        with pytest.raises(SystemExit):
            go_on()
    link("trillian", "slack", "u-2")
    link("zaphod", "discord", "u-2")

    assert go_on() == 1
    assert AccountLink.objects.live().get().account == account("trillian", "slack")
    assert HistoryEntry.objects.filter(text="hers").exists()
    assert found_of_zaphod() == set()


def test_it_warns_the_others_when_it_is_asked(two: None) -> None:
    deliver()
    asked()
    [told] = OutboundDelivery.objects.filter(template="forget_asked")
    assert (told.platform, told.chat_id) == ("discord", "chat-zaphod")
    notice = outbox_queue.outgoing(told)

    assert 'Telegram account "Zaphod"' in notice.text
    assert "once the number" in notice.text
    assert "To prevent it, send /unlink telegram" in notice.text
    assert [button.command for button in notice.buttons] == ["/unlink telegram"]


def test_it_warns_nobody_whom_it_does_not_reach(two: None) -> None:
    AccountLink.objects.filter(account=account()).update(since=clock.now())
    asked()

    assert not OutboundDelivery.objects.filter(template="forget_asked").exists()


def test_it_does_not_reach_whoever_has_just_been_linked(two: None) -> None:
    """What was said before that is theirs: nobody talks them into a link and has it deleted a minute later."""
    say("bob", "years of a diary", platform="slack")
    link("bob", "slack", "u-1")

    forget()

    bob = account("bob", "slack")
    assert HistoryEntry.objects.filter(author=bob, text="years of a diary").exists()
    assert [one.account for one in AccountLink.objects.live()] == [bob]
    assert not OutboundDelivery.objects.filter(template="forget_asked", platform="slack").exists()


def test_it_takes_names_out_of_the_operators_log(two: None) -> None:
    operator = User.objects.create(username="carol")
    LogEntry.objects.create(
        user=operator,
        content_type=ContentType.objects.get_for_model(PlatformAccount),
        object_id=str(account().pk),
        object_repr="telegram:zaphod",
        action_flag=2,
    )
    forget()

    assert LogEntry.objects.get().object_repr == ""


def test_it_keeps_no_number_that_an_edit_brings(two: None) -> None:
    number = confirmation.number_of(asked())

    assert linking_commands.is_secret(classify(f"or {number}"), account())


def test_it_does_not_take_back_a_message_that_comes_again(two: None) -> None:
    receive("zaphod", "octarine once more", key="update-7")
    forget()
    again = inbox.receive(message("zaphod", "octarine once more", key="update-7"), resolver=DATABASE)

    assert again is None
    assert not InboundEvent.objects.filter(text__contains="octarine").exists()
    assert not PlatformAccount.objects.filter(platform_user_id="zaphod").exists()


def test_it_reads_nothing_back_from_before(two: None) -> None:
    chat = "chat-zaphod"
    Watermark.objects.create(platform="telegram", chat_id=chat, position=7)
    began = clock.read()

    forget()

    assert watermarks.known("telegram")[chat].since > began


def test_it_begins_anew_with_whoever_comes_back(two: None) -> None:
    forget()
    conversation = say("zaphod", "hello again", answer="who are you?")

    assert [entry.text for entry in HistoryEntry.objects.filter(conversation=conversation)] == [
        "hello again",
        "who are you?",
    ]


def test_whoever_comes_back_has_guessed_already(two: None) -> None:
    for _ in range(limits().guesses):
        pair_in_chat.claim(account=account(), secret="BBBBBBBB")
    forget()
    say("zaphod", "hello again", answer="who are you?")

    assert pair_in_chat.claim(account=account(), secret="BBBBBBBB") == pairing_requests.Outcome.WAIT


def test_whoever_comes_back_has_started_already(two: None) -> None:
    pair_in_chat.offer(account=account())
    forget()
    say("zaphod", "hello again", answer="who are you?")

    assert pair_in_chat.offer(account=account()) == pairing_requests.Outcome.WAIT


def test_whoever_comes_back_has_been_denied_already(two: None) -> None:
    for who in ("bob", "charlie", "dora"):
        request = pairs.claimed(pairs.account(who, "slack"), account())
        pair_in_chat.deny(account=pairs.account(who, "slack"), pairing_id=request.pk)
        pairs.later(31, Pairing.objects.all())
    forget()
    say("zaphod", "hello again", answer="who are you?")

    assert rate_limits.rejections(account()) == limits().strikes
    assert pair_in_chat.offer(account=account()) == pairing_requests.Outcome.WAIT


def test_it_keeps_the_log_by_its_keyed_hash(two: None) -> None:
    known = audit.account_hash(account())
    forget()

    kinds = list(AuditEvent.objects.filter(account_hash=known).values_list("kind", flat=True))
    assert kinds[-4:] == ["forget_asked", "forget_confirmed", "unlinked", "forgotten"]


def test_it_goes_on_after_a_crash_at_any_step(two: None, monkeypatch: pytest.MonkeyPatch) -> None:
    request = asked()
    deliver()
    forgetting.confirm(account=account(), number=confirmation.number_of(request))
    deliver()
    for place, step in ((forgetting, "_forget_some"), (forgetting, "_forget_account"), (sqlite_vacuum, "clean")):
        with monkeypatch.context() as patch:
            patch.setattr(place, step, _crash)
            with pytest.raises(SystemExit):
                go_on()
        deliver()

    assert go_on() == 1
    assert found_of_zaphod() == set()


def _crash(*args: object) -> None:
    raise SystemExit


def test_it_says_when_others_hold_the_files_and_tries_again(two: None, monkeypatch: pytest.MonkeyPatch) -> None:
    if connection.vendor != "sqlite":
        pytest.skip("only SQLite has a log that readers hold")
    monkeypatch.setattr(sqlite_vacuum, "_PAUSE", 0.0)
    connection.cursor().execute("PRAGMA busy_timeout=50")
    reader = connections.create_connection("default")
    cursor = reader.cursor()
    cursor.execute("BEGIN DEFERRED")
    cursor.execute("SELECT COUNT(*) FROM sessions_app_historyentry")
    request = asked()
    deliver()
    forgetting.confirm(account=account(), number=confirmation.number_of(request))
    deliver()

    with CaptureQueriesContext(connection) as queries:
        assert go_on() == 0
    request.refresh_from_db()
    assert request.state == "cleaning"
    asked_for = [query["sql"] for query in queries.captured_queries if "PRAGMA" in query["sql"]]
    # Nobody writes while it waits for the reader: not for as long as everything else waits for a lock.
    assert asked_for[1:] == ["PRAGMA busy_timeout=500", "PRAGMA wal_checkpoint(TRUNCATE)", "PRAGMA busy_timeout=50"]
    cursor.execute("COMMIT")
    reader.close()
    assert go_on() == 1
    assert found_of_zaphod() == set()


def test_it_leaves_the_files_alone_where_there_is_no_room(
    two: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Writing them anew would fill the disk, and nobody could be heard any more."""
    if connection.vendor != "sqlite":
        pytest.skip("only SQLite writes its files anew")
    confirmed()
    deliver()
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda _: Mock(free=sqlite_vacuum.SPARE))
        with CaptureQueriesContext(connection) as queries:
            assert go_on() == 0
    assert "VACUUM" not in [query["sql"] for query in queries.captured_queries]
    assert "free some space" in caplog.text
    ForgetRequest.objects.update(confirmed_at=clock.seconds_from_now(-3601))
    assert forgetting.stuck() == 1

    assert go_on() == 1
    assert forgetting.stuck() == 0
    assert found_of_zaphod() == set()


def test_it_cuts_the_log_also_when_the_files_could_not_be_written_anew(
    two: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if connection.vendor != "sqlite":
        pytest.skip("only SQLite has such a log")
    monkeypatch.setattr(sqlite_vacuum, "_PAUSE", 0.0)
    monkeypatch.setattr(sqlite_vacuum, "_rewrite", lambda: bool(say("bob", "meanwhile")) and False)
    log = Path(f"{connection.settings_dict['NAME']}-wal")

    assert sqlite_vacuum.clean() == sqlite_vacuum.HELD
    assert log.stat().st_size == 0


@pytest.mark.parametrize(("times", "is_done"), [(1, False), (2, True)])
def test_it_wants_room_for_two_copies_where_both_are_on_one_disk(
    two: None, monkeypatch: pytest.MonkeyPatch, times: int, is_done: bool
) -> None:
    """SQLite takes /var/tmp, whatever Python would take."""
    if connection.vendor != "sqlite":
        pytest.skip("only SQLite writes its files anew")
    folder, file = Path(str(connection.settings_dict["NAME"])).parent, Path(str(connection.settings_dict["NAME"]))
    monkeypatch.setattr(sqlite_vacuum, "VAR_TMP", folder)
    monkeypatch.setattr(sqlite_vacuum, "gettempdir", lambda: "/tmp")
    size = file.stat().st_size + Path(f"{file}-wal").stat().st_size
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Mock(free=size * times + sqlite_vacuum.SPARE))

    assert (sqlite_vacuum.clean() == "") is is_done


def test_it_writes_nothing_anew_while_somebody_reads_the_log(two: None, monkeypatch: pytest.MonkeyPatch) -> None:
    if connection.vendor != "sqlite":
        pytest.skip("only SQLite has such a log")
    monkeypatch.setattr(sqlite_vacuum, "_cut_log", lambda: False)
    monkeypatch.setattr(sqlite_vacuum, "_rewrite", _crash)

    assert sqlite_vacuum.clean() == sqlite_vacuum.HELD


def test_it_forgets_a_portion_at_a_time(two: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forgetting, "AT_ONCE", 1)
    say("zaphod", "tell me all", answer="wizzard " * 1000, group="pub")  # more deliveries than a portion
    confirmed()
    deliver()

    portions = sum(1 for _ in iter(forgetting.step, False))

    assert portions > 3
    assert forgetting.clean() == 0  # what is being received at this moment may still be theirs
    assert clean_later() == 1
    assert found_of_zaphod() == set()


@pytest.mark.parametrize("group", ["", "pub"])
def test_it_forgets_what_is_stored_in_the_moment_of_forgetting(
    two: None, monkeypatch: pytest.MonkeyPatch, group: str
) -> None:
    if connection.vendor == "sqlite":
        pytest.skip("SQLite has one writer at a time")
    confirmed()
    deliver()
    PlatformAccount.objects.update(seen_at=clock.seconds_from_now(-2 * 86_400))  # so that names are noted anew
    look_up = conversations.conversation_for

    def erase_meanwhile(*args: Any) -> Any:
        monkeypatch.setattr(conversations, "conversation_for", look_up)
        assert at_once(step_to_the_end)[1] == []
        return look_up(*args)

    monkeypatch.setattr(conversations, "conversation_for", erase_meanwhile)
    inbox.receive(message("zaphod", "octarine", group=group), resolver=DATABASE)
    assert found_of_zaphod() >= {"octarine", "Zaphod"}

    assert clean_later() == 1
    assert found_of_zaphod() == set()


_WAITING = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"


@pytest.mark.parametrize("group", ["", "pub"])
def test_it_forgets_what_is_stored_together_in_the_moment_of_forgetting(
    two: None, monkeypatch: pytest.MonkeyPatch, group: str
) -> None:
    if connection.vendor == "sqlite":
        pytest.skip("SQLite has one writer at a time")
    say("zaphod", "hello", answer="hi", group=group)
    confirmed()
    deliver()
    insert = receiving_group._insert
    erasing = threading.Thread(target=at_once, args=(step_to_the_end,))

    def erase_meanwhile(*args: Any) -> Any:
        """It waits for the account, which stays as it is until the message is stored."""
        erasing.start()
        with connection.cursor() as cursor:
            for _ in range(500):
                cursor.execute(_WAITING)
                if cursor.fetchone() or not erasing.is_alive():
                    break
                erasing.join(0.02)
        assert erasing.is_alive()
        return insert(*args)

    monkeypatch.setattr(receiving_group, "_insert", erase_meanwhile)
    assert inbox.receive_together([message("zaphod", "octarine", group=group)], resolver=DATABASE) != [None]
    monkeypatch.undo()
    erasing.join(20)

    assert found_of_zaphod() == set()
    assert clean_later() == 1


def test_what_comes_late_takes_nothing_from_a_stranger(two: None) -> None:
    confirmed()
    deliver()
    step_to_the_end()
    nameless = PlatformAccount.objects.get(platform="telegram", platform_user_id__startswith="forgotten-")
    say("zaphod", "hello", answer="who are you?")  # in the same chat, and not sent yet
    kept = Conversation.objects.get(account=account())
    Conversation.objects.create(account=nameless, kind="dm", key="late", platform=kept.platform, chat_id=kept.chat_id)

    assert clean_later() == 1
    assert not Conversation.objects.filter(account=nameless).exists()
    assert "who are you?" in deliver()


def test_two_forget_at_once_and_leave_nothing(two: None, monkeypatch: pytest.MonkeyPatch) -> None:
    if connection.vendor == "sqlite":
        pytest.skip("SQLite has one writer at a time")
    for number in range(60):
        say("zaphod", f"octarine {number}", answer="wizzard", group="pub")
    monkeypatch.setattr(forgetting, "AT_ONCE", 5)
    confirmed()
    deliver()

    assert at_once(step_to_the_end, step_to_the_end)[1] == []

    assert clean_later() == 1
    assert found_of_zaphod() == set()


def step_to_the_end() -> None:
    while forgetting.step():
        pass


def test_it_asks_nothing_that_takes_reading_whole_tables(two: None) -> None:
    confirmed()
    deliver()
    with CaptureQueriesContext(connection) as queries:
        forgetting.step()

    with transaction.atomic(), connection.cursor() as cursor:
        if connection.vendor == "postgresql":  # of a few rows it would read all
            cursor.execute("SET LOCAL enable_seqscan = off")
        asked = [query["sql"] for query in queries.captured_queries if query["sql"].startswith("SELECT")]
        plans = {sql: plan_of(cursor, sql) for sql in asked if re.search('FROM "sessions_app_(?!forget)', sql)}
    read = {
        sql
        for sql, plan in plans.items()
        if "Seq Scan" in plan or re.search(r"SCAN sessions_app_\w+$", plan, re.MULTILINE)
    }
    assert plans
    assert not read


def plan_of(cursor: CursorWrapper, sql: str) -> str:
    cursor.execute(f"{'EXPLAIN QUERY PLAN' if connection.vendor == 'sqlite' else 'EXPLAIN'} {sql}")
    return "\n".join(str(row[-1]) for row in cursor.fetchall())


def test_it_cleans_the_files_once_for_all_who_are_forgotten(two: None, monkeypatch: pytest.MonkeyPatch) -> None:
    clean = Mock(return_value="")
    monkeypatch.setattr(sqlite_vacuum, "clean", clean)
    for who in ("zaphod", "bob"):
        confirmed(who)
    deliver()

    assert (go_on(), clean.call_count) == (2, 1)
    assert (go_on(), clean.call_count) == (0, 1)


def test_it_does_not_ask_for_ever(two: None) -> None:
    made = [forgetting.ask(account=account()) for _ in range(6)]

    assert [bool(one) for one in made] == [True] * 5 + [False]
    assert ForgetRequest.objects.filter(ended_at=None).count() == 1


def test_it_writes_no_answer_of_a_turn_that_was_under_way(two: None) -> None:
    waiting = claim(receive("zaphod", "octarine?"))
    forget()

    with pytest.raises(lifecycle.LeaseLost):
        lifecycle.finish(waiting, "octarine!", limit=2000)
    assert not Conversation.objects.filter(platform="telegram", kind="dm").exclude(key="telegram:bob").exists()
    assert not OutboundDelivery.objects.filter(chat_id="chat-zaphod").exists()
