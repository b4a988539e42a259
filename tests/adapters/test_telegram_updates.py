"""What is made of raw updates, and that no update, however hostile, holds up the others."""

from __future__ import annotations

import copy
import logging
import re
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.playground.server import Person
from adapters.protocols import MalformedEvent
from adapters.telegram.adapter import TelegramAdapter
from adapters.telegram.events import BotIdentity, parse_update
from identity.support.text import storable
from sessions_app.messages import InboundMessage, MessageEdit
from tests.adapters.recording import running
from tests.fakes.telegram import FakeTelegram

JSON = dict[str, Any]
ME = BotIdentity(777001, "BotosPlaygroundBot")
ALICE = Person("1001", "Alice Liddell", "alice")
SPOKEN = "octarine"  # stands for what people write, which no log may hold
MISSING = object()
NUMBERS: list[object] = [True, -1, 10**30, 10**400, 1.5, float("nan")]
WRONG: list[object] = [MISSING, None, *NUMBERS, "x", "\ud800\x00", [], [1], {}, {"a": {}}]


def update(**message: object) -> JSON:
    """One update with a private message of alice, with some of its fields replaced."""
    person = {"id": 1001, "is_bot": False, "first_name": "Alice", "last_name": "Liddell", "username": "alice"}
    chat = {"id": 1001, "type": "private", "first_name": "Alice"}
    plain = {"message_id": 5, "date": 1_700_000_000, "from": person, "chat": chat, "text": SPOKEN}
    return {"update_id": 1, "message": plain | message}


def in_group(**message: object) -> JSON:
    return update(**{"chat": {"id": -100, "type": "supergroup", "title": "Tea\x00 party"}} | message)


def parsed(raw: object) -> InboundMessage:
    message = parse_update(raw, ME)
    assert isinstance(message, InboundMessage)
    return message


def mention(kind: str, offset: int, length: int, **more: object) -> JSON:
    return {"type": kind, "offset": offset, "length": length, **more}


# -- reading


def test_it_reads_every_field() -> None:
    message = parsed(in_group(is_topic_message=True, message_thread_id=7))

    assert message.native_key == "777001:1"
    assert (message.address.chat_id, message.address.thread_id, message.message_id) == ("-100", "7", "5")
    assert (message.sender.name, message.chat_name, message.text) == ("Alice Liddell", "Tea party", SPOKEN)
    assert message.sent_at == datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)


def test_it_takes_only_the_topic_of_a_forum_for_a_thread() -> None:
    assert parsed(in_group(message_thread_id=7)).address.thread_id == ""


@pytest.mark.parametrize(
    ("text", "entity", "expected"),
    [
        ("😀 @botosplaygroundbot hi", mention("mention", 3, 19), "😀 hi"),
        ("hi, @BotosPlaygroundBot!", mention("mention", 4, 19), "hi, !"),
        ("bye @BotosPlaygroundBot", mention("mention", 4, 19), "bye"),
        ("Botos, hi", mention("text_mention", 0, 5, user={"id": 777001}), ", hi"),
        ("/link@BotosPlaygroundBot AB", mention("bot_command", 0, 24), "/link AB"),
        ("a\x00 @BotosPlaygroundBot b", mention("mention", 3, 19), "a b"),
    ],
)
def test_it_takes_the_mention_out(text: str, entity: JSON, expected: str) -> None:
    for message in (in_group(text=text, entities=[entity, entity]), in_group(caption=text, caption_entities=[entity])):
        if "caption" in message["message"]:
            del message["message"]["text"]
        assert (parsed(message).text, parsed(message).is_addressed) == (expected, True)


@pytest.mark.parametrize(
    ("text", "entity"),
    [
        ("@BotosPlaygroundBot", None),
        ("@BotosPlaygroundBo hi", mention("mention", 0, 18)),
        ("@BotosPlaygroundBot2 hi", mention("mention", 0, 20)),
        ("x@BotosPlaygroundBot hi", mention("mention", 0, 20)),
        ("/new", mention("bot_command", 0, 4)),
        ("/new@OtherBot", mention("bot_command", 0, 13)),
        ("Botos", mention("text_mention", 0, 5, user={"id": 5})),
        ("@BotosPlaygroundBot", mention("code", 0, 19)),
    ],
)
def test_it_leaves_what_is_no_mention_of_the_bot(text: str, entity: JSON | None) -> None:
    message = parsed(in_group(text=text, entities=[entity] if entity else []))

    assert (message.text, message.is_addressed) == (text, False)


def test_it_does_not_take_a_command_for_a_bot_without_username() -> None:
    message = parse_update(in_group(text="/new", entities=[mention("bot_command", 0, 4)]), BotIdentity(777001, ""))

    assert isinstance(message, InboundMessage)
    assert not message.is_addressed


def test_it_cuts_overlapping_mentions_once() -> None:
    entities = [mention("text_mention", offset, 5, user={"id": 777001}) for offset in (0, 3)]

    assert parsed(in_group(text="abcdefgh!", entities=entities)).text == "abc!"


@pytest.mark.parametrize(
    "mark", [{"media_group_id": "1"}, {"forward_origin": {"type": "hidden_user"}}, {"forward_date": 5}], ids=repr
)
def test_it_says_that_others_come_with_a_message(mark: JSON) -> None:
    assert parsed(update(**mark)).more_may_follow
    assert not parsed(update()).more_may_follow


def test_it_bounds_names() -> None:
    message = parsed(in_group(chat={"id": -1, "type": "group", "title": "x" * 1000}))

    assert len(message.chat_name) == 255


def test_it_is_addressed_by_a_reply_but_not_by_the_topic_it_opened() -> None:
    own = {"message_id": 4, "from": {"id": 777001}}

    assert parsed(in_group(reply_to_message=own)).is_addressed
    assert not parsed(in_group(reply_to_message=own | {"forum_topic_created": {}})).is_addressed
    assert not parsed(in_group(reply_to_message={"message_id": 4, "from": {"id": 5}})).is_addressed


def test_it_trusts_a_private_chat_only_with_the_sender() -> None:
    message = parsed(update(chat={"id": 1002, "type": "private", "first_name": "Bob"}))

    assert (message.is_private, message.is_addressed) == (False, False)


@pytest.mark.parametrize(
    "mark",
    [
        {"forward_origin": {"type": "user"}},
        {"forward_date": 1},
        {"via_bot": {"id": 3}},
        {"sender_chat": {"id": -3}},
        {"is_automatic_forward": True},
        {"is_from_offline": True},
    ],
)
def test_it_knows_what_was_not_typed_here_and_now(mark: JSON) -> None:
    assert not parsed(update(**mark)).is_firsthand


@pytest.mark.parametrize(
    "ignored",
    [
        {"update_id": 1},
        {"update_id": 1, "channel_post": update()["message"]},
        {"update_id": 1, "my_chat_member": {"chat": 5}},
        {"update_id": 1, "something_new": [1]},
        {"update_id": 1, "message": None},
        update(text=None, photo=[{"file_id": "x"}]),
        update(text=" \n\x00"),
        update(**{"from": {"id": 1087968824, "is_bot": True, "first_name": "Group"}, "sender_chat": {"id": -100}}),
        update(chat={"id": -5, "type": "channel", "title": "News"}, **{"from": None}),
        in_group(text="@BotosPlaygroundBot", entities=[mention("mention", 0, 19)]),
        {"update_id": 1, "edited_message": update(text=None)["message"]},
    ],
)
def test_it_ignores_what_nobody_wrote_to_it(ignored: JSON) -> None:
    assert parse_update(ignored, ME) is None


@pytest.mark.parametrize("kind", ["message", "edited_message"])
def test_it_hears_what_a_bot_or_an_anonymous_administrator_posts_in_a_group(kind: str) -> None:
    anonymous = {"from": {"id": 1087968824, "is_bot": True, "first_name": "Group"}, "sender_chat": {"id": -100}}
    post = in_group(text="@BotosPlaygroundBot ABCD-EFGH", entities=[mention("mention", 0, 19)], **anonymous)

    heard = parse_update({"update_id": 2, kind: post["message"]}, ME)

    assert isinstance(heard, InboundMessage | MessageEdit)
    assert heard.text == "ABCD-EFGH"
    assert not getattr(heard, "is_addressed", False)


def test_it_reads_an_edit() -> None:
    edit = parse_update({"update_id": 2, "edited_message": update(text="new\x00")["message"]}, ME)

    assert isinstance(edit, MessageEdit)
    assert (edit.address.chat_id, edit.message_id, edit.text) == ("1001", "5", "new")


@pytest.mark.parametrize(
    ("malformed", "reason"),
    [
        (5, "update is not an object"),
        ({}, "update_id is missing"),
        ({"update_id": True}, "update_id is not of type int"),
        ({"update_id": 0}, "update_id is not positive"),
        ({"update_id": 2**63}, "update_id is out of range"),
        ({"update_id": 1, "message": [1]}, "message is not of type dict"),
        (update(chat=None), "chat is missing"),
        (update(chat={"id": 1, "type": "cellar"}), "chat type is unknown"),
        (update(**{"from": None}), "from is missing"),
        (update(date=-1), "date is out of range"),
        (update(text="x" * 1_000_000), "text is too long"),
        (update(entities=[mention("mention", 0, 99)]), "entity is outside of its text"),
        (update(entities=[mention("mention", -1, 2)]), "entity is outside of its text"),
    ],
)
def test_it_names_what_is_malformed(malformed: object, reason: str) -> None:
    with pytest.raises(MalformedEvent, match=f"^{reason}$"):
        parse_update(malformed, ME)


@given(st.text(alphabet=st.characters(), max_size=50), st.integers(-3, 60), st.integers(-3, 60))
def test_it_cuts_any_text_anywhere_or_says_why_not(text: str, offset: int, length: int) -> None:
    raw = in_group(text=text, entities=[mention("text_mention", offset, length, user={"id": 777001})])
    try:
        message = parse_update(raw, ME)
    except MalformedEvent:
        return

    assert message is None or parsed(raw).text.encode()


@given(st.text(alphabet=st.characters(categories=None)))
def test_it_stores_only_what_can_be_stored(text: str) -> None:
    stored = storable(text)

    assert "\x00" not in stored
    assert stored.encode().decode() == stored
    assert storable("\t\x07\x1b\ud83d\ude00") == "\t\x07\x1b😀"


# -- hostile updates


def places(value: object, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """The path of everything inside a JSON value."""
    members = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, member in members:
        yield (*path, key)
        yield from places(member, (*path, key))


def replaced(value: JSON, path: tuple[str | int, ...], wrong: object) -> JSON:
    changed: Any = copy.deepcopy(value)
    holder = changed
    for key in path[:-1]:
        holder = holder[key]
    if wrong is MISSING:
        del holder[path[-1]]
    else:
        holder[path[-1]] = wrong
    return dict(changed)


def hostile_updates() -> list[JSON]:
    """Every field of a rich message missing or wrong in every way, and some wrong as a whole. No update ids."""
    user = {"id": 777001, "is_bot": True, "first_name": "BotOS"}
    rich = in_group(
        entities=[mention("text_mention", 0, 4, user=user)],
        is_topic_message=True,
        message_thread_id=7,
        reply_to_message={"message_id": 4, "from": user},
    )
    del rich["update_id"]
    edited = {"edited_message": rich["message"]}
    wrong = [replaced(raw, path, value) for raw in (rich, edited) for path in places(raw) for value in WRONG]
    deep: list[object] = []
    for _ in range(300):
        deep = [deep]
    texts: list[object] = [SPOKEN * 125_000, "\x00", "\ud800", "".join(map(chr, range(32))), "\u202e" * 4096, deep]
    wrong += [{"message": update(text=text)["message"]} for text in texts]
    return [*wrong, {"strange": deep}, {"message": deep}]


def is_malformed(raw: JSON) -> bool:
    try:
        parse_update({"update_id": 1} | raw, ME)
    except MalformedEvent:
        return True
    return False


@pytest.mark.asyncio
async def test_it_logs_each_malformed_update_once_and_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger="adapters")
    without_id = [5, "x", None, [], 1.5, True, {"update_id": "x"}, {"update_id": -5}, {"update_id": 10**400}]
    hostile = hostile_updates()
    malformed = [is_malformed(raw) for raw in hostile]
    server = FakeTelegram()
    await server.start()
    first = int(server.api.updates.next_id()) + 1
    for raw in [*hostile[:10], *without_id, *hostile[10:]]:
        await server.push_raw(raw)

    async with running(TelegramAdapter(token=server.token, api_url=server.url)) as run:
        await server.acknowledged(await server.say(ALICE, "good morning"))
        await run.inbox.wait_for_text("good morning")
    await server.stop()

    warnings = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    named = Counter(re.findall(r"update (\d+|without id) is skipped: ", "\n".join(warnings)))
    assert len(hostile) >= 300
    assert 300 <= sum(malformed) < len(hostile)
    assert named.pop("without id") == len(without_id)
    assert named == Counter(str(first + place) for place, bad in enumerate(malformed) if bad)
    assert len(warnings) == sum(malformed) + len(without_id)
    assert not any(SPOKEN in line or len(line) > 200 for line in warnings)
