"""The window has a bound in size, and counting never reaches for the network."""

from __future__ import annotations

import base64
import hashlib
import inspect
import socket
import threading
from pathlib import Path
from typing import Any

import pytest
import tiktoken_ext.openai_public
from asgiref.sync import async_to_sync
from django.conf import LazySettings
from tiktoken import registry
from tiktoken.load import load_tiktoken_bpe

from sessions_app.history import size
from sessions_app.manager import BotSessionManager
from sessions_app.messages import Turn
from sessions_app.turns import lifecycle
from tests.sessions_app.agent_samples import assistant, user
from tests.sessions_app.talk import DATABASE, claim, receive, say

LINE = "x" * 288  # 100 tokens with what stands around it


@pytest.fixture(autouse=True)
def forgetful(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(size, "_encodings", {})


def fitting(tokens: int, settings: LazySettings, *texts: str, question: str = "") -> list[str]:
    settings.BOTOS_WINDOW_TOKENS = tokens
    lines = [(assistant if number % 2 else user)(text) for number, text in enumerate(texts)]
    return [line.text for line in size.newest_that_fit(lines, question)]


def test_it_keeps_the_newest_lines_that_have_room_beside_the_question(settings: LazySettings) -> None:
    texts = [f"{number}{LINE[1:]}" for number in range(5)]

    assert fitting(500, settings, *texts) == texts
    assert fitting(499, settings, *texts) == texts[1:]
    assert fitting(300, settings, *texts, question="x" * 300) == texts[3:]
    assert fitting(300, settings, *texts, question="x" * 3_000) == []


def test_it_keeps_nothing_before_a_line_that_is_too_long(settings: LazySettings) -> None:
    assert fitting(300, settings, "old", "x" * 3_000, "new") == ["new"]


def test_it_has_no_bound_at_0(settings: LazySettings) -> None:
    assert len(fitting(0, settings, *["x" * 100_000] * 5, question="x" * 100_000)) == 5


@pytest.mark.parametrize(
    ("text", "tokens"),  # of o200k_base and of cl100k_base
    [
        ("The quick brown fox jumps over the lazy dog, and then it rests a while.", (17, 17)),
        ("Быстрая коричневая лиса прыгает через ленивую собаку.", (19, 28)),
        ("我今天去了图书馆，借了三本关于古代历史的书。", (17, 26)),
        ("今日は図書館に行って、本を三冊借りました。", (14, 24)),
        ("1234567890" * 10, (34, 34)),
    ],
)
def test_its_estimate_is_no_less_than_a_model_of_today_counts(text: str, tokens: tuple[int, int]) -> None:
    assert tokens[0] <= size.count(text) <= 2 * tokens[1]


@pytest.mark.django_db
def test_every_agent_gets_what_fits(settings: LazySettings) -> None:
    settings.BOTOS_WINDOW_TOKENS = 300
    for number in range(3):
        say("alice", f"{number}{LINE[1:]}", answer="ok")

    conversation = receive("alice", "how are you?")
    turn = lifecycle.begin(claim(conversation), resolver=DATABASE)

    assert [line.text[0] for line in turn.history] == ["o", "1", "o", "2", "o"]


@pytest.mark.django_db(transaction=True)
def test_an_agent_of_a_script_gets_what_fits(settings: LazySettings) -> None:
    settings.BOTOS_WINDOW_TOKENS = 210
    turns: list[Turn] = []

    class Agent:
        async def reply(self, turn: Turn) -> str:
            turns.append(turn)
            return LINE

    session = BotSessionManager("telegram", identity_resolver=DATABASE)
    for text in ("first", "second", "third"):
        async_to_sync(session.chat)(Agent(), "alice", text)

    assert [line.text for line in turns[-1].history] == [LINE, "second", LINE]


@pytest.fixture
def encoding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: LazySettings) -> Path:
    """The file of an encoding that counts "ab" as one token, and every other byte. Nothing may connect."""
    ranks = [bytes([byte]) for byte in range(256)] + [b"ab"]
    content = b"".join(base64.b64encode(token) + b" %d\n" % rank for rank, token in enumerate(ranks))
    address, sha256 = size._ADDRESS.format("o200k_base"), hashlib.sha256(content).hexdigest()

    def constructor() -> dict[str, Any]:
        ranks = load_tiktoken_bpe(address, expected_hash=sha256)
        return {"name": "o200k_base", "pat_str": r"\S+|\s+", "mergeable_ranks": ranks, "special_tokens": {}}

    def connect(self: socket.socket, address: Any) -> None:
        raise AssertionError("nothing may be downloaded")

    monkeypatch.setattr(registry, "ENCODING_CONSTRUCTORS", {"o200k_base": constructor})
    monkeypatch.setattr(registry, "ENCODINGS", {})
    monkeypatch.setitem(size._SHA256, "o200k_base", sha256)
    monkeypatch.setattr(socket.socket, "connect", connect)
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))
    settings.BOTOS_MODEL = "openai:gpt-5-mini"
    file = tmp_path / hashlib.sha1(address.encode()).hexdigest()
    file.write_bytes(content)
    return file


def counted(text: str, model: str = "gpt-5-mini") -> int:
    """What is counted after the encoding was looked for."""
    size.count(text)
    for thread in threading.enumerate():
        if thread.name == f"load-encoding-{model}":
            thread.join(30)
    return size.count(text)


def test_it_counts_as_the_model_does_if_the_encoding_is_on_disk(encoding: Path) -> None:
    assert counted("abab abc") == 5


def test_it_knows_a_model_behind_another_provider(encoding: Path, settings: LazySettings) -> None:
    settings.BOTOS_MODEL = "openrouter:openai/gpt-5"

    assert counted("abab abc", "gpt-5") == 5


@pytest.mark.parametrize("model", ["openai:gpt-5-mini", "openai:tiny", "test", ""])
@pytest.mark.parametrize("content", [None, b"other"])
def test_it_estimates_and_downloads_nothing(
    encoding: Path, content: bytes | None, model: str, settings: LazySettings
) -> None:
    settings.BOTOS_MODEL = model
    encoding.unlink()
    if content:
        encoding.write_bytes(content)

    assert counted("abab abc", model.removeprefix("openai:")) == 3
    assert encoding.exists() == bool(content)


@pytest.mark.parametrize("folder", [None, ""])
def test_it_estimates_without_a_folder(encoding: Path, folder: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TIKTOKEN_CACHE_DIR") if folder is None else monkeypatch.setenv("TIKTOKEN_CACHE_DIR", folder)

    assert counted("abab abc") == 3


@pytest.mark.parametrize("name", list(size._SHA256))
def test_it_knows_the_files_that_tiktoken_reads(name: str) -> None:
    source = inspect.getsource(getattr(tiktoken_ext.openai_public, name))

    assert size._ADDRESS.format(name) in source
    assert size._SHA256[name] in source
