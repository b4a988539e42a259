"""What the Discord adapter makes of raw events."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from adapters.discord.events import parse_edit, parse_message
from adapters.protocols import MalformedEvent
from sessions_app.messages import Address
from tests.adapters.discord_payloads import BOB, ME, event, parsed


def test_it_parses_a_private_message() -> None:
    message = parsed()

    assert (message.native_key, message.message_id, message.text) == ("900", "900", "hello")
    assert message.address == Address("discord", "800")
    assert (message.sender.user_id, message.sender.name, message.sender.username) == ("1001", "Alice Liddell", "alice")
    assert (message.is_private, message.is_addressed, message.is_firsthand) == (True, True, True)
    assert message.sent_at == datetime(2026, 1, 2, 3, 4, 5, 678_000, tzinfo=UTC)


def test_it_names_a_person_without_display_name_by_the_username() -> None:
    assert parsed(author={"id": "1", "username": "alice", "global_name": None}).sender.name == "alice"


@pytest.mark.parametrize("where", [{"guild_id": "700", "channel_type": 0}, {"guild_id": "700"}, {"channel_type": 3}])
def test_it_takes_only_a_direct_message_for_private(where: dict[str, object]) -> None:
    message = parsed(**where)

    assert (message.is_private, message.is_addressed) == (False, False)


@pytest.mark.parametrize(
    "meant", [{"mentions": [{"id": "5"}, {"id": ME}]}, {"referenced_message": {"author": {"id": ME}}, "type": 19}]
)
def test_it_is_addressed_by_a_mention_or_a_reply(meant: dict[str, object]) -> None:
    assert parsed(guild_id="700", **meant).is_addressed


def test_it_is_not_addressed_by_a_reply_to_somebody_else() -> None:
    assert not parsed(guild_id="700", referenced_message={"author": {"id": BOB.id}}).is_addressed


def test_it_takes_its_own_mention_out_of_the_text() -> None:
    assert parsed(content=f"<@{ME}> so <@!{ME}>, <@5>?\nYes").text == "so , <@5>?\nYes"


def test_it_keeps_the_blanks_around_a_text_that_may_go_on_elsewhere() -> None:
    assert parsed(content=" and more\n").text == " and more\n"


def test_it_says_that_a_comment_comes_with_a_forward() -> None:
    assert parsed(message_reference={"type": 1, "message_id": "1"}).more_may_follow
    assert not parsed(message_reference={"type": 0, "message_id": "1"}).more_may_follow
    assert not parsed().more_may_follow


@pytest.mark.parametrize(
    "told",
    [
        {"author": {"id": "1", "username": "b", "bot": True}},
        {"author": {"id": "1", "username": "b", "system": True}},
        {"webhook_id": "1"},
        {"type": 7},
        {"content": ""},
        {"content": " \n"},
        {"content": f"<@{ME}>"},
    ],
    ids=["bot", "system", "webhook", "join", "empty", "blank", "only a mention"],
)
def test_it_ignores_what_no_person_wrote(told: dict[str, object]) -> None:
    assert parse_message(event(**told), ME) is None


@pytest.mark.parametrize("by", [{"author": {"id": "1", "username": "b", "bot": True}}, {"webhook_id": "1"}])
def test_it_hears_what_a_bot_posts_in_a_guild_and_answers_nothing(by: dict[str, object]) -> None:
    heard = parsed(guild_id="700", content=f"<@{ME}> ABCD-EFGH", mentions=[{"id": ME}], **by)

    assert (heard.text, heard.is_addressed) == ("ABCD-EFGH", False)


def test_it_hears_what_a_bot_adds_to_its_post() -> None:
    by_bot = event(guild_id="700", content="ABCD-EFGH", edited_timestamp="2026", webhook_id="1")
    edit = parse_edit(by_bot, ME)

    assert edit is not None
    assert edit.text == "ABCD-EFGH"
    assert parse_edit(by_bot | {"author": {"id": ME, "username": "botos", "bot": True}}, ME) is None


def test_it_does_not_hear_itself() -> None:
    assert parse_message(event(guild_id="700", author={"id": ME, "username": "botos", "bot": True}), ME) is None


@pytest.mark.parametrize("origin", [{"message_reference": {"type": 1}}, {"application_id": "1"}])
def test_it_marks_what_is_not_firsthand(origin: dict[str, object]) -> None:
    assert not parsed(**origin).is_firsthand


def test_it_takes_a_reply_for_firsthand() -> None:
    assert parsed(type=19, message_reference={"type": 0, "message_id": "1"}).is_firsthand


def test_it_removes_what_no_database_takes() -> None:
    author = {"id": "1", "username": "a\0b", "global_name": "\ud800"}
    message = parsed(content="a\0b \ud83d c \ud83d\ude00", author=author)

    assert message.text == "ab \N{REPLACEMENT CHARACTER} c \N{GRINNING FACE}"
    assert (message.sender.username, message.sender.name) == ("ab", "\N{REPLACEMENT CHARACTER}")


@pytest.mark.parametrize(
    "changed",
    [
        {"content": "x" * 100_001},
        {"content": ...},
        {"id": 900},
        {"id": "९"},
        {"id": "9" * 21},
        {"channel_id": None},
        {"author": []},
        {"author": {"username": "nobody"}},
        {"author": {"id": "1", "username": 5}},
        {"type": True},
        {"type": ...},
        {"mentions": {}},
        {"mentions": ["me"]},
        {"referenced_message": "yes"},
        {"message_reference": [1]},
        {"timestamp": "yesterday"},
        {"timestamp": 5},
        {"timestamp": "0001-01-01T00:00:00+14:00"},
    ],
    ids=str,
)
def test_it_calls_a_wrong_field_malformed(changed: dict[str, object]) -> None:
    with pytest.raises(MalformedEvent):
        parse_message(event(**changed), ME)


@pytest.mark.parametrize("data", [None, 5, "text", [], [[]], True])
def test_it_calls_what_is_no_object_malformed(data: object) -> None:
    for parse in (parse_message, parse_edit):
        with pytest.raises(MalformedEvent):
            parse(data, ME)


@pytest.mark.parametrize(
    "changed",
    [{}, {"edited_timestamp": "2026", "content": ...}, {"edited_timestamp": "2026", "webhook_id": "1"}],
    ids=["a preview of a link", "no words", "an edit by a webhook"],
)
def test_it_ignores_an_update_that_is_no_edit(changed: dict[str, object]) -> None:
    assert parse_edit(event(**changed), ME) is None
