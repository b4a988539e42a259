from __future__ import annotations

import pytest
from django.db import connection
from hypothesis import given
from hypothesis import strategies as st

from identity.flows import linking
from sessions_app.history import search, window
from sessions_app.models import Conversation, HistoryEntry
from tests.sessions_app.talk import command, say

pytestmark = pytest.mark.django_db


def found(conversation: int, words: str, *, limit: int = 10, for_agent: bool = False) -> list[str]:
    hits = search.find(Conversation.objects.get(pk=conversation), words, limit=limit, for_agent=for_agent)
    return [hit.line.text for hit in hits]


def link(who: str, platform: str) -> None:
    linking.link(platform=platform, platform_user_id=who, unified_user_id="alice", method="pairing", actor="test")


def test_it_finds_all_words_whatever_their_case_newest_first() -> None:
    alice = say("alice", "Octarine is a colour", answer="Noted")
    say("alice", "my colour is octarine, see colours.example", answer="ok")

    assert found(alice, "OCTARINE colour") == ["my colour is octarine, see colours.example", "Octarine is a colour"]
    assert found(alice, "octarine blue") == []
    assert found(alice, "octarine", limit=1) == ["my colour is octarine, see colours.example"]


@pytest.mark.parametrize("words", ["octar", "example", "c/octarine", "octarine-colour"])
def test_it_finds_beginnings_and_parts_of_addresses(words: str) -> None:
    alice = say("alice", "https://example.org/c/octarine-colour", answer="ok")

    assert len(found(alice, words)) == 1


def test_it_finds_what_may_be_read_and_nothing_else() -> None:
    telegram = say("alice", "secret old", answer="ok")
    discord = say("alice", "secret too", answer="ok", platform="discord")
    mallory = say("mallory", "secret of another", answer="ok")
    group = say("alice", "secret to all", answer="ok", group="pub")
    link("alice", "telegram")
    link("alice", "discord")
    say("alice", "secret new", answer="ok", platform="discord")

    assert found(telegram, "secret") == ["secret new", "secret old"]
    assert found(discord, "secret") == ["secret new", "secret too"]
    assert found(mallory, "secret") == ["secret of another"]
    assert found(group, "secret") == ["secret to all"]


def test_an_agent_finds_nothing_that_is_withheld() -> None:
    alice = say("alice", "octarine paint", answer="ok")
    say("alice", "octarine poison", answer="ok")
    HistoryEntry.objects.filter(text="octarine poison").update(is_withheld=True)

    assert found(alice, "octarine") == ["octarine poison", "octarine paint"]
    assert found(alice, "octarine", for_agent=True) == ["octarine paint"]


def test_it_follows_edits_and_deletions() -> None:
    alice = say("alice", "first words", answer="ok")
    HistoryEntry.objects.filter(text="first words").update(text="other words")
    assert (found(alice, "first"), found(alice, "other")) == ([], ["other words"])

    HistoryEntry.objects.filter(text="other words").delete()
    assert found(alice, "other") == []


def test_it_says_where_in_the_history_it_stands() -> None:
    alice = say("alice", "octarine", answer="ok")
    say("alice", "later", answer="ok")
    conversation = Conversation.objects.get(pk=alice)
    [hit] = search.find(conversation, "octarine", limit=5)

    assert window.page(conversation, limit=5, before=hit.place).lines == (hit.line,)


HOSTILE = ["", " ", '"', "'", "''", "\\", "\\'", "*", "a*", "(", ")", "AND", "a AND", "NOT", "NEAR(a b)", "text:a"]
HOSTILE += ["{a}", "a:*", "a & | !", "<->", "%", "%s", "%(words)s", "\0", "a\0b", "\ud800", "x" * 10_000, "a " * 5_000]
HOSTILE += ["²", "🙂", "^a"]


@pytest.mark.parametrize("words", HOSTILE)
def test_it_takes_whatever_is_typed_for_words(words: str) -> None:
    alice = say("alice", "hello", answer="ok")

    assert found(alice, words) == []
    assert found(alice, f"{words[:1000]} hello") in ([], ["hello"])


def test_it_raises_for_nothing() -> None:
    conversation = Conversation.objects.get(pk=say("alice", "hello", answer="ok"))

    @given(st.text(st.characters(codec=None), max_size=30))
    def whatever(words: str) -> None:
        search.find(conversation, words, limit=3)

    whatever()


def test_it_uses_the_index() -> None:
    conversation = Conversation.objects.get(pk=say("alice", "octarine", answer="ok"))
    with connection.cursor() as cursor:
        if connection.vendor == "sqlite":
            cursor.execute("SELECT name FROM sqlite_master WHERE type = 'trigger' AND tbl_name LIKE '%historyentry'")
            assert len(cursor.fetchall()) == 3
            return
        HistoryEntry.objects.bulk_create(
            [window.entry(conversation, text=f"words {number}") for number in range(3_000)]
        )
        cursor.execute("SET LOCAL enable_seqscan = off; SET LOCAL enable_indexscan = off; ANALYZE")
        wanted = window.ENTRIES + search._POSTGRESQL.format(bounds="")
    with connection.execute_wrapper(_explained):
        plan = window.select(conversation, wanted, {"words": "'octarine':*"})
    assert "entries_by_words" in str(plan)


def _explained(execute, sql, params, many, context):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    return execute(f"EXPLAIN {sql}", params, many, context)


def test_it_is_there_in_chat() -> None:
    say("alice", "my colour is octarine", answer="ok")

    assert "You, on Telegram: my colour is octarine" in command("alice", "/search octarine")
