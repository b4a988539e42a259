"""What every resolver does, wherever it keeps its links."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from pytest_django import DjangoAssertNumQueries

from identity.models import AccountLink, PlatformAccount, UnifiedUser
from identity.resolvers import (
    DatabaseIdentityResolver,
    FileIdentityResolver,
    IdentityLink,
    IdentityResolverProtocol,
    IdentityUnavailable,
    InMemoryIdentityResolver,
    Resolves,
    resolve_with,
)


@pytest.fixture(params=["memory", "file", "database"])
def resolver(request: pytest.FixtureRequest, tmp_path: Path) -> IdentityResolverProtocol:
    if request.param == "memory":
        return InMemoryIdentityResolver()
    if request.param == "file":
        return FileIdentityResolver(tmp_path / "praisonai" / "identity.json")
    request.getfixturevalue("db")
    return DatabaseIdentityResolver()


class ResolverOfTheDocumentation:
    """The example that the documentation gives to deployers, word for word."""

    def resolve(self, platform: str, platform_user_id: str) -> str:  # type: ignore[empty-body]
        # Query your database
        pass

    def link(self, platform: str, platform_user_id: str, unified_user_id: str) -> None:
        # Store in your database
        pass


class BrokenResolver:
    def resolve(self, platform: str, platform_user_id: str) -> str:
        raise ConnectionError("the directory is down")


def test_it_answers_an_unlinked_pair_with_its_own_key(resolver: IdentityResolverProtocol) -> None:
    assert resolver.resolve("telegram", "12345") == "telegram:12345"
    assert resolver.links_for("alice") == []
    assert resolver.links_for("telegram:12345") == []


@pytest.mark.django_db
def test_it_creates_no_row_by_resolving() -> None:
    DatabaseIdentityResolver().resolve("telegram", "12345")

    assert not PlatformAccount.objects.exists()
    assert not UnifiedUser.objects.exists()
    assert not AccountLink.objects.exists()


def test_it_creates_no_file_by_resolving_or_unlinking(tmp_path: Path) -> None:
    resolver = FileIdentityResolver(tmp_path / "praisonai" / "identity.json")

    resolver.resolve("telegram", "12345")
    resolver.unlink("telegram", "12345")

    assert list(tmp_path.iterdir()) == []


def test_it_resolves_two_linked_accounts_to_one_person(resolver: IdentityResolverProtocol) -> None:
    resolver.link("telegram", "12345", "alice")
    resolver.link("discord", "snowflake-1", "alice")
    resolver.link("slack", "U-B", "bob")

    assert resolver.resolve("telegram", "12345") == resolver.resolve("discord", "snowflake-1") == "alice"
    assert resolver.resolve("slack", "U-B") == "bob"
    assert resolver.resolve("discord", "12345") == "discord:12345"


def test_it_overwrites_a_link(resolver: IdentityResolverProtocol) -> None:
    resolver.link("telegram", "12345", "alice")

    resolver.link("telegram", "12345", "bob")

    assert resolver.resolve("telegram", "12345") == "bob"
    assert resolver.links_for("alice") == []


def test_it_forgets_an_unlinked_account_and_nothing_else(resolver: IdentityResolverProtocol) -> None:
    resolver.link("telegram", "12345", "alice")
    resolver.link("discord", "snowflake-1", "alice")

    resolver.unlink("telegram", "12345")

    assert resolver.resolve("telegram", "12345") == "telegram:12345"
    assert resolver.resolve("discord", "snowflake-1") == "alice"


def test_it_does_nothing_when_asked_to_unlink_a_stranger(resolver: IdentityResolverProtocol) -> None:
    resolver.link("telegram", "12345", "alice")

    resolver.unlink("telegram", "666")
    resolver.unlink("discord", "12345")

    assert resolver.resolve("telegram", "12345") == "alice"


def test_it_lists_a_persons_frozen_links_oldest_first(resolver: IdentityResolverProtocol) -> None:
    resolver.link("telegram", "12345", "bob")
    resolver.link("discord", "snowflake-1", "alice")
    resolver.link("telegram", "12345", "alice")

    links = resolver.links_for("alice")

    assert links == [IdentityLink("discord", "snowflake-1", "alice"), IdentityLink("telegram", "12345", "alice")]
    with pytest.raises(dataclasses.FrozenInstanceError):
        links[0].unified_user_id = "mallory"  # type: ignore[misc]


def test_it_takes_a_number_for_its_text(resolver: IdentityResolverProtocol) -> None:
    resolver.link("telegram", 12345, "alice")  # type: ignore[arg-type]

    assert resolver.resolve("telegram", "12345") == "alice"
    assert resolver.resolve("telegram", 12345) == "alice"  # type: ignore[arg-type]
    assert resolver.links_for("alice") == [IdentityLink("telegram", "12345", "alice")]

    resolver.unlink("telegram", 12345)  # type: ignore[arg-type]

    assert resolver.resolve("telegram", 12345) == "telegram:12345"  # type: ignore[arg-type]


def test_it_takes_none_for_nobodys_id(resolver: IdentityResolverProtocol) -> None:
    with pytest.raises(ValueError, match="None is neither"):
        resolver.resolve("telegram", None)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="None is neither"):
        resolver.link("telegram", None, "alice")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="needs a platform"):
        resolver.link("telegram", "12345", None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("platform", "platform_user_id", "unified_user_id"),
    [
        ("telegram", "666", "discord:12345"),
        ("telegram", "666", "bot_telegram_12345"),
        ("telegram", "666", ""),
        ("telegram", "666", " "),
        ("telegram", "", "mallory"),
        ("", "666", "mallory"),
        ("tele::gram", "666", "mallory"),
        ("telegram:", "666", "mallory"),
        ("telegram", "\ud83d", "mallory"),
    ],
)
def test_it_links_nobody_to_what_could_be_somebody_else(
    resolver: IdentityResolverProtocol, platform: str, platform_user_id: str, unified_user_id: str
) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        resolver.link(platform, platform_user_id, unified_user_id)

    assert resolver.links_for(unified_user_id) == []


def test_it_tells_a_full_resolver_from_one_that_only_resolves(resolver: IdentityResolverProtocol) -> None:
    assert isinstance(resolver, IdentityResolverProtocol)
    assert isinstance(resolver, Resolves)
    assert isinstance(ResolverOfTheDocumentation(), Resolves)
    assert not isinstance(ResolverOfTheDocumentation(), IdentityResolverProtocol)
    assert not isinstance(object(), Resolves)


def test_it_asks_any_resolver(resolver: IdentityResolverProtocol) -> None:
    resolver.link("telegram", "12345", "alice")

    assert resolve_with(resolver, "telegram", "12345") == "alice"
    assert resolve_with(resolver, "telegram", "666") == "telegram:666"


@pytest.mark.parametrize("broken", [ResolverOfTheDocumentation(), BrokenResolver()])
def test_it_guesses_nobody_when_a_resolver_has_no_answer(broken: Resolves) -> None:
    with pytest.raises(IdentityUnavailable, match=type(broken).__name__):
        resolve_with(broken, "telegram", "12345")


def test_it_works_without_django() -> None:
    script = "import sys, identity.resolvers as r; r.InMemoryIdentityResolver(); sys.exit('django' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", script], cwd=Path(__file__).parents[2], check=False).returncode == 0


@pytest.fixture
def _nervous_threads() -> Iterator[None]:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


@pytest.mark.usefixtures("_nervous_threads")
def test_it_may_be_shared_between_threads() -> None:
    resolver = InMemoryIdentityResolver()

    def work(worker: int) -> int:
        for number in range(200):
            resolver.link("telegram", f"{worker}-{number}", "alice")
            resolver.links_for("alice")
        return worker

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(work, range(4))) == [0, 1, 2, 3]

    assert len(resolver.links_for("alice")) == 800


@pytest.mark.django_db
def test_it_resolves_with_one_query(django_assert_num_queries: DjangoAssertNumQueries) -> None:
    resolver = DatabaseIdentityResolver()
    resolver.link("telegram", "12345", "alice")

    with django_assert_num_queries(1):
        assert resolver.resolve("telegram", "12345") == "alice"
    with django_assert_num_queries(1):
        assert resolver.resolve("telegram", "666") == "telegram:666"


@pytest.mark.django_db
def test_it_says_in_the_database_that_code_made_the_link() -> None:
    DatabaseIdentityResolver().link("telegram", "12345", "alice")

    link = AccountLink.objects.get()
    assert (link.method, link.actor) == ("resolver", "resolver")
