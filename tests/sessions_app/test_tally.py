from __future__ import annotations

import threading

import pytest
from django.db import DatabaseError, connection
from pytest_django import DjangoAssertNumQueries

from sessions_app import tally


@pytest.fixture(autouse=True)
def _nothing_counted() -> None:
    tally._counts.clear()


@pytest.mark.django_db
def test_it_counts_without_the_database(django_assert_num_queries: DjangoAssertNumQueries) -> None:
    with django_assert_num_queries(0):
        tally.up("turns", "telegram")

    assert tally.written("turns") == {}


@pytest.mark.django_db
def test_it_adds_to_what_was_written_before() -> None:
    for platform in ("telegram", "telegram", "slack"):
        tally.up("turns", platform)
    tally.write()
    tally.up("turns", "telegram")
    tally.up("failures", "telegram")
    tally.write()
    tally.write()

    assert tally.written("turns") == {"slack": 1, "telegram": 3}
    assert tally.written("failures") == {"telegram": 1}


@pytest.mark.django_db
def test_it_keeps_what_could_not_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first row is written, the second is not: neither is lost, and none counts twice."""
    add = tally._add

    def fail(what: str, platform: str, count: int) -> None:
        if platform == "telegram":
            raise DatabaseError
        add(what, platform, count)

    tally.up("turns", "slack")
    tally.up("turns", "telegram")
    monkeypatch.setattr(tally, "_add", fail)
    with pytest.raises(DatabaseError):
        tally.write()
    monkeypatch.undo()
    tally.up("turns", "telegram")
    tally.write()

    assert tally.written("turns") == {"slack": 1, "telegram": 2}


@pytest.mark.django_db(transaction=True)
def test_it_counts_what_several_write_at_once() -> None:
    barrier = threading.Barrier(4)

    def add() -> None:
        barrier.wait()
        try:
            for _ in range(10):
                tally._add("turns", "telegram", 1)
        finally:
            connection.close()

    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert tally.written("turns") == {"telegram": 40}
