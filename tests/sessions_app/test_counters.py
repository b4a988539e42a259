from __future__ import annotations

import threading

import pytest
from django.db import DatabaseError, connection
from pytest_django import DjangoAssertNumQueries

from sessions_app import counters


@pytest.fixture(autouse=True)
def _nothing_counted() -> None:
    counters._counts.clear()


@pytest.mark.django_db
def test_it_counts_without_the_database(django_assert_num_queries: DjangoAssertNumQueries) -> None:
    with django_assert_num_queries(0):
        counters.up("turns", "telegram")

    assert counters.written("turns") == {}


@pytest.mark.django_db
def test_it_adds_to_what_was_written_before() -> None:
    for platform in ("telegram", "telegram", "slack"):
        counters.up("turns", platform)
    counters.write()
    counters.up("turns", "telegram")
    counters.up("failures", "telegram")
    counters.write()
    counters.write()

    assert counters.written("turns") == {"slack": 1, "telegram": 3}
    assert counters.written("failures") == {"telegram": 1}


@pytest.mark.django_db
def test_it_keeps_what_could_not_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first row is written, the second is not: neither is lost, and none counts twice."""
    add = counters._add

    def fail(what: str, platform: str, count: int) -> None:
        if platform == "telegram":
            raise DatabaseError
        add(what, platform, count)

    counters.up("turns", "slack")
    counters.up("turns", "telegram")
    monkeypatch.setattr(counters, "_add", fail)
    with pytest.raises(DatabaseError):
        counters.write()
    monkeypatch.undo()
    counters.up("turns", "telegram")
    counters.write()

    assert counters.written("turns") == {"slack": 1, "telegram": 2}


@pytest.mark.django_db(transaction=True)
def test_it_counts_what_several_write_at_once() -> None:
    barrier = threading.Barrier(4)

    def add() -> None:
        barrier.wait()
        try:
            for _ in range(10):
                counters._add("turns", "telegram", 1)
        finally:
            connection.close()

    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert counters.written("turns") == {"telegram": 40}
