"""Resolvers: they tell which person an account belongs to, from memory, a file or the database.

A pair (platform, platform user id) without a link resolves to `"{platform}:{id}"`; a look-up creates nothing. Ids are
strings; a number stands for its decimal text. All resolvers but `DatabaseIdentityResolver` work without Django.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import logging
import os
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

logger = logging.getLogger(__name__)

DEFAULT_PATH = "~/.praisonai/identity.json"
PATH_VARIABLE = "PRAISONAI_IDENTITY_PATH"
SEPARATOR = "::"
# Some file systems store times in steps of up to two seconds: two changes within a step look the same.
SETTLED_NS = 2_000_000_000

Pair = tuple[str, str]  # platform, platform user id
Links = dict[Pair, str]  # ... to unified user id, oldest link first
Signature = tuple[int, int, int]  # of a file's content, by its inode


class IdentityUnavailable(Exception):
    """The resolver cannot answer or store now. Keep nothing under a guessed id; try again later."""


@dataclass(frozen=True)
class IdentityLink:
    """A link: one account belongs to one person."""

    platform: str
    platform_user_id: str
    unified_user_id: str


@runtime_checkable
class Resolves(Protocol):
    """The interface that BotOS needs of a resolver."""

    def resolve(self, platform: str, platform_user_id: str) -> str:
        """Return the person's id, or `"{platform}:{platform_user_id}"` for an account without a link."""
        ...


@runtime_checkable
class IdentityResolverProtocol(Resolves, Protocol):
    """The interface of the shipped resolvers."""

    def link(self, platform: str, platform_user_id: str, unified_user_id: str) -> None:
        """Link the account to this person; a link to another person ends. Raises ValueError for invalid ids."""
        ...

    def unlink(self, platform: str, platform_user_id: str) -> None:
        """End the account's link, if it has one."""
        ...

    def links_for(self, unified_user_id: str) -> list[IdentityLink]:
        """Return the person's links, oldest first; empty for an unknown person."""
        ...


def stranger_key(platform: str, platform_user_id: str) -> str:
    return f"{platform}:{platform_user_id}"


def key_without_resolver(platform: str, platform_user_id: str) -> str:
    """Return the key of an account's private conversation where no resolver is configured."""
    return f"bot_{platform}_{platform_user_id}"


def resolve_with(resolver: Resolves, platform: str, platform_user_id: str) -> str:
    """Return the answer of any resolver, a deployer's own included. Raises IdentityUnavailable for every failure."""
    try:
        answer: object = resolver.resolve(*_pair(platform, platform_user_id))
    except IdentityUnavailable:
        raise
    except Exception as error:
        raise IdentityUnavailable(f"{type(resolver).__name__}.resolve failed: {error!r}") from error
    if not isinstance(answer, str) or not answer.strip():
        raise IdentityUnavailable(f"{type(resolver).__name__}.resolve returned {answer!r} instead of an id.")
    if answer.startswith("bot_") and answer != key_without_resolver(*_pair(platform, platform_user_id)):
        # Messages under such a key are shown to the account that it names.
        raise IdentityUnavailable(f"{type(resolver).__name__}.resolve returned {answer!r}, the key of another account.")
    return answer


def _pair(platform: str, platform_user_id: str) -> Pair:
    # None would become the id "None", and all accounts without an id would be one person.
    if None in (platform, platform_user_id):
        raise ValueError("An account needs a platform and an id; None is neither.")
    return str(platform), str(platform_user_id)


def _linkable(platform: str, platform_user_id: str, unified_user_id: str) -> tuple[Pair, str]:
    """Return the pair and the person's id as text. Raises ValueError for ids that could be mistaken for others."""
    pair, person = _pair(platform, platform_user_id), str(unified_user_id)
    if not all(text.strip() for text in (*pair, person)) or unified_user_id is None:
        raise ValueError("A link needs a platform, an id on it and a unified user id.")
    if ":" in pair[0]:
        raise ValueError(f'The platform name {pair[0]!r} contains ":".')
    if ":" in person or person.startswith("bot_"):
        raise ValueError(f"{person!r} could be mistaken for an unlinked account's key.")
    "".join((*pair, person)).encode()  # half a surrogate pair is no text: UnicodeEncodeError, which is a ValueError
    return pair, person


def _of_person(links: Mapping[Pair, str], unified_user_id: str) -> list[IdentityLink]:
    wanted = str(unified_user_id)
    return [IdentityLink(*pair, person) for pair, person in links.items() if person == wanted]


class InMemoryIdentityResolver:
    """Links in memory, for the lifetime of this object. Threads may share it."""

    def __init__(self) -> None:
        self._links: Links = {}
        self._lock = threading.Lock()

    def resolve(self, platform: str, platform_user_id: str) -> str:
        pair = _pair(platform, platform_user_id)
        with self._lock:
            return self._links.get(pair) or stranger_key(*pair)

    def link(self, platform: str, platform_user_id: str, unified_user_id: str) -> None:
        pair, person = _linkable(platform, platform_user_id, unified_user_id)
        with self._lock:
            self._links.pop(pair, None)
            self._links[pair] = person

    def unlink(self, platform: str, platform_user_id: str) -> None:
        with self._lock:
            self._links.pop(_pair(platform, platform_user_id), None)

    def links_for(self, unified_user_id: str) -> list[IdentityLink]:
        with self._lock:
            return _of_person(self._links, unified_user_id)


def parse(content: bytes) -> tuple[dict[str, Any], Links]:
    """Return the document of an identity file, and its links. Raises ValueError that names the first bad entry."""
    try:
        document = json.loads(content.decode("utf-8-sig"))
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    entries = document.get("links", {}) if isinstance(document, dict) else None
    if not isinstance(entries, dict):
        raise ValueError('it is not an object with an object "links"')
    links: Links = {}
    for key, person in entries.items():
        platform, _, platform_user_id = key.partition(SEPARATOR)
        if not platform or not platform_user_id:
            raise ValueError(f'links[{key!r}]: the key is not "platform::id"')
        if not isinstance(person, str) or not person.strip():
            raise ValueError(f"links[{key!r}]: the value is not a unified user id")
        links[platform, platform_user_id] = person
    return document, links


def render(links: Mapping[Pair, str], document: Mapping[str, Any] | None = None) -> bytes:
    """Return the content of an identity file with these links, and with everything else that `document` holds."""
    entries = {SEPARATOR.join(pair): person for pair, person in links.items()}
    return json.dumps({**(document or {}), "links": entries}, indent=2).encode() + b"\n"


def replace_file(path: Path, content: bytes) -> None:
    """Replace the file, with mode 0600: readers see the whole old or the whole new content, even after a power cut."""
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # makes it 0600
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


class FileIdentityResolver:
    """Links in one JSON file, `{"links": {"telegram::12345": "alice"}}`, shared by all processes of one machine.

    The file is `path`, else the value of `PRAISONAI_IDENTITY_PATH`, else `~/.praisonai/identity.json`. No file means no
    links. While the file cannot be read or parsed, every method raises IdentityUnavailable, nothing overwrites the
    file, and a copy of it is kept beside it as `identity.json.corrupt-<digest>`.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None) -> None:
        self.path = Path(path or os.environ.get(PATH_VARIABLE) or DEFAULT_PATH).expanduser()
        # One attribute, replaced as a whole, so that threads need no lock.
        self._known: tuple[Signature | None, Links] = (None, {})
        self._reported: set[str] = set()

    def resolve(self, platform: str, platform_user_id: str) -> str:
        pair = _pair(platform, platform_user_id)
        return self._links().get(pair) or stranger_key(*pair)

    def link(self, platform: str, platform_user_id: str, unified_user_id: str) -> None:
        pair, person = _linkable(platform, platform_user_id, unified_user_id)
        with self._changing() as links:
            links.pop(pair, None)
            links[pair] = person

    def unlink(self, platform: str, platform_user_id: str) -> None:
        pair = _pair(platform, platform_user_id)
        if pair in self._links():
            with self._changing() as links:
                links.pop(pair, None)

    def links_for(self, unified_user_id: str) -> list[IdentityLink]:
        return _of_person(self._links(), unified_user_id)

    def _links(self) -> Links:
        signature, links = self._known
        with contextlib.suppress(OSError):  # _load reports it
            if signature and signature == _signature(self.path.stat()):
                return links
        return self._load()[1]

    def _load(self) -> tuple[dict[str, Any], Links]:
        """Return the document and its links as they are now. Raises IdentityUnavailable."""
        try:
            with self.path.open("rb") as file:
                stat = os.fstat(file.fileno())  # before the content: the next look sees a change in between
                content = file.read()
        except FileNotFoundError:
            return {}, {}
        except OSError as error:
            raise IdentityUnavailable(f"{self.path} cannot be read: {error.strerror}.") from error
        try:
            document, links = parse(content)
        except ValueError as error:
            self._keep_copy(content)
            advice = "Repair it or put a backup in its place."
            raise IdentityUnavailable(f"{self.path} is corrupt ({error}). {advice}") from error
        # A file that has just changed has no signature yet: the next change might look the same.
        is_settled = time.time_ns() - stat.st_mtime_ns > SETTLED_NS
        self._known = (_signature(stat) if is_settled else None, links)
        return document, links

    def _keep_copy(self, content: bytes) -> None:
        digest = hashlib.sha256(content).hexdigest()[:12]
        if digest in self._reported:
            return
        self._reported.add(digest)
        copy = self.path.with_name(f"{self.path.name}.corrupt-{digest}")
        logger.error("Reading identity file %s failed: it is corrupt; keeping a copy as %s", self.path, copy)
        try:
            if not copy.exists():
                replace_file(copy, content)
        except OSError as error:
            logger.error("Copying %s failed: %s; going on without a copy", self.path, error)

    @contextlib.contextmanager
    def _changing(self) -> Iterator[Links]:
        """Yield the present links for changes, and write the file at the end, if they changed.

        No other thread or process changes the file meanwhile. The lock is on a sibling, as the file itself is replaced.
        """
        target = Path(os.path.realpath(self.path))  # a symbolic link stays one, and all its names share one lock
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = os.open(target.with_name(f"{target.name}.lock"), flags, 0o600)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX)
                document, before = self._load()
                links = dict(before)
                yield links
                if links != before:
                    replace_file(target, render(links, document))
            finally:
                os.close(lock)
        except OSError as error:
            raise IdentityUnavailable(f"{target} cannot be written: {error.strerror}.") from error


def _signature(stat: os.stat_result) -> Signature:
    return stat.st_mtime_ns, stat.st_ino, stat.st_size


class DatabaseIdentityResolver:
    """The links in this application's database, as pairing makes them. Needs Django; one query for each call."""

    def __init__(self) -> None:
        from identity import models
        from identity.flows import linking  # here: the other resolvers work without Django

        self._live = models.AccountLink.objects.live
        self._link, self._unlink = linking.link, linking.unlink

    def resolve(self, platform: str, platform_user_id: str) -> str:
        platform, platform_user_id = _pair(platform, platform_user_id)
        links = self._live().filter(account__platform=platform, account__platform_user_id=platform_user_id)
        people = links.values_list("user__unified_user_id", flat=True)
        return next(iter(people), stranger_key(platform, platform_user_id))

    def link(self, platform: str, platform_user_id: str, unified_user_id: str) -> None:
        (platform, platform_user_id), person = _linkable(platform, platform_user_id, unified_user_id)
        account = {"platform": platform, "platform_user_id": platform_user_id}
        self._link(**account, unified_user_id=person, method="resolver", actor="resolver")

    def unlink(self, platform: str, platform_user_id: str) -> None:
        platform, platform_user_id = _pair(platform, platform_user_id)
        self._unlink(platform=platform, platform_user_id=platform_user_id, method="resolver", actor="resolver")

    def links_for(self, unified_user_id: str) -> list[IdentityLink]:
        links = self._live().filter(user__unified_user_id=str(unified_user_id)).order_by("pk")
        fields = ("account__platform", "account__platform_user_id", "user__unified_user_id")
        return [IdentityLink(*row) for row in links.values_list(*fields)]
