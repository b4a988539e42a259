"""What a text asks for, as a table: no database, no clock."""

from __future__ import annotations

import pytest

from identity.pairing import codes
from sessions_app.commands.intent import Kind, classify
from sessions_app.commands.registry import Unknown

CODE, TOKEN, NUMBER = "WDJBMJHT", "L" + "a" * 22, "482913"


@pytest.mark.parametrize(
    ("text", "kind", "command", "argument", "secret"),
    [
        ("/link", Kind.COMMAND, "link", "", ""),
        (" !LINK  wdjb-mjht ", Kind.COMMAND, "link", "wdjb-mjht", ""),
        ("/wasntme@bot 17", Kind.COMMAND, "wasntme", "17", ""),
        ("/forget", Kind.COMMAND, "forget", "", ""),
        ("wdjb-mjht", Kind.CODE, None, "", CODE),
        (f"\n{CODE} ", Kind.CODE, None, "", CODE),
        (f" {TOKEN} ", Kind.CODE, None, "", TOKEN),
        (f"/start {TOKEN}", Kind.CODE, "start", TOKEN, TOKEN),
        ("482 913", Kind.NUMBER, None, "", NUMBER),
        ("my code: WDJB-MJHT", Kind.CODE_IN_TEXT, None, "", CODE),
        (f"see https://t.me/bot?start={TOKEN}!", Kind.CODE_IN_TEXT, None, "", TOKEN),
        ("/start WDJB-MJHT", Kind.CODE_IN_TEXT, "start", "WDJB-MJHT", CODE),
        ("/search WDJB-MJHT", Kind.CODE_IN_TEXT, "search", "WDJB-MJHT", CODE),
        ("/start", Kind.MESSAGE, "start", "", ""),
        (f"/help {TOKEN}", Kind.MESSAGE, "help", TOKEN, ""),
        ("/search  two words", Kind.MESSAGE, "search", "two words", ""),
        ("/new what is it?", Kind.MESSAGE, "new", "what is it?", ""),
        ("!search two words", Kind.MESSAGE, "search", "two words", ""),
        ("!link wdjb mjht", Kind.COMMAND, "link", "wdjb mjht", ""),
        ("!unlink discord", Kind.COMMAND, "unlink", "discord", ""),
        ("!new laptop arrived", Kind.MESSAGE, None, "", ""),
        ("!Forget it", Kind.MESSAGE, None, "", ""),
        ("!help me, please", Kind.MESSAGE, None, "", ""),
        ("!start\nthe engine", Kind.MESSAGE, None, "", ""),
        ("!history of Rome", Kind.MESSAGE, None, "", ""),
        ("!link to the page", Kind.MESSAGE, None, "", ""),
        ("!undo my last change", Kind.MESSAGE, None, "", ""),
        ("!cancel the meeting", Kind.MESSAGE, None, "", ""),
        ("/unknown word", Kind.MESSAGE, None, "word", ""),
        (f"/unknown {TOKEN}", Kind.MESSAGE, None, TOKEN, ""),
        (f"look: {TOKEN}", Kind.MESSAGE, None, "", ""),
        ("it is 482913", Kind.MESSAGE, None, "", ""),
        ("hello", Kind.MESSAGE, None, "", ""),
        ("", Kind.MESSAGE, None, "", ""),
    ],
)
def test_it_decides_what_a_text_asks_for(
    text: str, kind: Kind, command: str | None, argument: str, secret: str
) -> None:
    intent = classify(text)

    name = intent.command.name if intent.command else None
    assert (intent.kind, name, intent.argument, intent.secret) == (kind, command, argument, secret)
    assert intent.text == text


@pytest.mark.parametrize("text", ["WDJB-MJHT", "/link WDJB-MJHT", "/start WDJB-MJHT", "it is WDJB-MJHT or BCDF-GHJK"])
def test_it_finds_a_code_as_it_is_shown_in_whatever_a_text_asks_for(text: str) -> None:
    assert classify(text).shown_code == CODE
    assert classify(text.replace("-", "")).shown_code is None


def test_it_looks_for_secrets_in_a_text_at_most_once(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[str] = []
    for name in ("secrets_within", "numbers_within"):

        def look(text: str, name: str = name) -> list[str]:
            looks.append(name)
            return [text]

        monkeypatch.setattr(codes, name, look)
    intent = classify("hello")
    assert looks == []

    for _ in range(2):
        assert intent.possible_codes == intent.possible_numbers == ["hello"]

    assert looks == ["secrets_within", "numbers_within"]


@pytest.mark.parametrize(
    ("text", "name", "like"),
    [
        ("/hlep", "hlep", "help"),
        (" /serach two words ", "serach", "search"),
        ("/histroy\nplease", "histroy", "history"),
        ("!hlep", "hlep", "help"),
        ("!whoam", "whoam", "whoami"),
        ("/frobnicate", "frobnicate", ""),
        ("/my_command now", "my_command", ""),
        ("/etc is full", "etc", ""),  # reads like a command with words
        ("/undoo", "undoo", ""),  # hidden commands are not suggested
    ],
)
def test_it_knows_an_unknown_command(text: str, name: str, like: str) -> None:
    intent = classify(text)

    assert intent.unknown == Unknown(name, like)
    assert not intent.is_plain


@pytest.mark.parametrize(
    "text",
    [
        "/etc/hosts is broken",
        "/home/alice",
        "/s",
        "/j that was a joke",
        "oh, great /s",
        "/Users is full",
        "/gpt4",
        "/2 of it",
        "/",
        "/ hlep",
        "//hlep",
        "/hlep?",
        "/hlep@otherbot",
        "/étoile",
        "/" + "a" * 33,
        "!wow",
        "!hlep me",
        "!important: water the plants",
        "!new laptop arrived",
        "!!",
        "hlep",
    ],
)
def test_it_takes_what_only_looks_like_a_command_for_a_message(text: str) -> None:
    intent = classify(text)

    assert intent.unknown is None
    assert intent.is_plain


@pytest.mark.parametrize("text", ["/help", "/help me", "/undo 7", "!new", "/LINK"])
def test_it_knows_its_own_commands(text: str) -> None:
    assert classify(text).unknown is None
