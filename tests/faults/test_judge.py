"""The judge of the fault tests, judged: rows that were written by hand, each with one thing wrong."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterator

import pytest

from tests.faults.judge import REPEATED, Message, Replies, Verdict, judge

HERE = ("telegram", "chat")
TABLES = """
    CREATE TABLE identity_platformaccount (id, platform_user_id);
    CREATE TABLE sessions_app_inboundevent (id, platform, account_id, text, status, received_at, failures, reason);
    CREATE TABLE sessions_app_historyentry (id INTEGER PRIMARY KEY, role, text, event_id, platform, author_id);
    CREATE TABLE sessions_app_outbounddelivery (id, status);
    INSERT INTO identity_platformaccount VALUES (1, 'alice');
"""


class Books:
    """What a process would have written."""

    def __init__(self) -> None:
        self.database = sqlite3.connect(":memory:")
        self.database.executescript(TABLES)
        self.said: list[Message] = []

    def say(self, number: int, *, at: float = 1_000_000_000.0, platform: str = "telegram") -> None:
        self.said.append(Message(number, platform, "alice", "chat", "lane", at, str(number)))

    def receive(
        self, number: int, *, status: str = "done", platform: str = "telegram", failures: int = 0, reason: str = ""
    ) -> None:
        values = (number, platform, f"m{number:05d}", status, failures, reason)
        self.database.execute(
            "INSERT INTO sessions_app_inboundevent VALUES (?, ?, 1, ?, ?, '2001-09-09 01:46:40', ?, ?)", values
        )

    def enter(self, role: str, *numbers: int, event: int = 0) -> None:
        text = " ".join(f"m{number:05d}" for number in numbers)
        statement = "INSERT INTO sessions_app_historyentry VALUES (NULL, ?, ?, ?, 'telegram', 1)"
        self.database.execute(statement, (role, text, event or numbers[0]))

    def turn(self, *numbers: int) -> None:
        for number in numbers:
            self.enter("user", number)
        self.enter("assistant", *numbers)

    def judge(self, *replies: str, hopeless: Collection[int] = ()) -> Verdict:
        heard: Replies = {HERE: replies}
        return judge(self.said, heard, lambda statement: self.database.execute(statement).fetchall(), hopeless=hopeless)


@pytest.fixture
def books() -> Iterator[Books]:
    """Two messages that were said and received."""
    made = Books()
    for number in (1, 2):
        made.say(number)
        made.receive(number)
    yield made
    made.database.close()


def test_it_finds_nothing_wrong_with_a_burst_that_is_one_turn(books: Books) -> None:
    books.turn(1, 2)

    assert books.judge("m00001\nm00002").is_clean


def test_it_finds_a_lost_message(books: Books) -> None:
    books.turn(1)

    assert books.judge("m00001").lost == [2]


def test_it_tells_what_discord_never_told_from_what_was_lost(books: Books) -> None:
    books.say(3, platform="discord")
    books.turn(1, 2)

    verdict = books.judge("m00001\nm00002")

    assert (verdict.lost, verdict.missed) == ([], [3])


def test_it_counts_as_lost_what_discord_has_in_the_history_of_a_known_chat(books: Books) -> None:
    books.say(3, platform="discord")
    books.receive(3, platform="discord")
    books.say(4, platform="discord")
    books.turn(1, 2)

    verdict = books.judge("m00001\nm00002")

    assert (verdict.lost, verdict.missed) == ([3, 4], [])


def test_it_finds_a_message_that_is_in_history_twice(books: Books) -> None:
    books.turn(1)
    books.turn(2)
    books.turn(2)

    verdict = books.judge("m00001", "m00002")

    assert verdict.twice_in_history == [2]
    assert "event 2 has 2 answers" in verdict.broken


def test_it_finds_a_reply_that_came_twice_unless_it_is_marked(books: Books) -> None:
    books.turn(1)
    books.turn(2)

    verdict = books.judge("m00001", "m00001", "m00002", f"{REPEATED}\nm00002")

    assert (verdict.twice_replied, verdict.repeats) == ([1], 1)


def test_it_finds_an_answer_that_never_came(books: Books) -> None:
    books.turn(1, 2)

    assert books.judge("m00001").undelivered == [2]


def test_it_finds_history_out_of_order(books: Books) -> None:
    books.turn(2)
    books.turn(1)

    assert books.judge("m00001", "m00002").order == ["lane: history [2, 1]"]


def test_it_finds_replies_out_of_order(books: Books) -> None:
    books.turn(1, 2)

    assert books.judge("m00002", "m00001").order == ["lane: replies [2, 1]"]


def test_it_lets_later_replies_pass_a_message_that_the_agent_failed_at(books: Books) -> None:
    books.say(3)
    books.receive(3, failures=1)
    books.say(4)
    books.receive(4)
    for numbers in ((1,), (2,), (3,), (4,)):
        books.turn(*numbers)

    assert books.judge("m00001", "m00002", "m00004", "m00003").is_clean
    assert not books.judge("m00001", "m00004", "m00002", "m00003").is_clean


def test_it_takes_an_apology_for_an_answer_only_where_the_agent_always_fails(books: Books) -> None:
    books.turn(1, 2)
    books.say(3)
    books.receive(3, status="given up", failures=3, reason="given up: AgentFailure")
    books.enter("user", 3)
    books.enter("assistant", event=3)

    verdict = books.judge("m00001\nm00002", "Sorry.", hopeless=[3])

    assert verdict.is_clean, verdict
    assert verdict.given_up == [3]
    assert books.judge("m00001\nm00002", "Sorry.").undelivered == [3]
    assert books.judge("m00001\nm00002", "Sorry.", hopeless=[2, 3]).broken == ["m00002 was not given up"]


def test_it_finds_an_event_that_ended_without_an_answer_or_a_reason(books: Books) -> None:
    books.turn(1, 2)
    books.receive(3, status="quarantined")

    assert books.judge("m00001\nm00002").broken == ["event 3 ended without an answer or a reason"]


def test_it_finds_an_event_that_nobody_ended(books: Books) -> None:
    books.receive(3, status="pending")
    books.turn(1, 2)

    assert books.judge("m00001 m00002").broken == ["event 3 still waits"]
