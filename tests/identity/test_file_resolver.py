"""The file: shared by processes, whole at every moment, and never overwritten when it is not understood."""

from __future__ import annotations

import errno
import json
import os
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from identity.resolvers import FileIdentityResolver, IdentityLink, IdentityUnavailable, parse, render

# argv: the file, the worker's number. Reads with the one resolver it was started with until it has seen all links.
WORKER = """
import sys, time
from identity.resolvers import FileIdentityResolver

resolver = FileIdentityResolver(sys.argv[1])
resolver.resolve("telegram", "0-0")
for number in range(50):
    resolver.link("telegram", f"{sys.argv[2]}-{number}", f"user{sys.argv[2]}")
deadline = time.monotonic() + 60
missing = {(worker, number) for worker in range(4) for number in range(50)}
while missing and time.monotonic() < deadline:
    missing = {(w, n) for w, n in missing if resolver.resolve("telegram", f"{w}-{n}") != f"user{w}"}
    time.sleep(0.01)
sys.exit(len(missing))
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "identity.json"


def started(script: str, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.Popen(command, cwd=Path(__file__).parents[2], stdout=subprocess.PIPE, text=True)


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_it_loses_no_link_of_four_processes_and_shows_each_to_all(path: Path) -> None:
    workers = [started(WORKER, path, number) for number in range(4)]

    assert [worker.communicate(timeout=90)[0] for worker in workers] == [""] * 4
    assert [worker.returncode for worker in workers] == [0, 0, 0, 0]

    assert len(json.loads(path.read_text())["links"]) == 200


def test_it_writes_what_the_documentation_shows(path: Path) -> None:
    FileIdentityResolver(path).link("telegram", "12345", "alice")

    assert json.loads(path.read_text()) == {"links": {"telegram::12345": "alice"}}


def test_it_lets_only_its_owner_read(tmp_path: Path) -> None:
    path = tmp_path / "praisonai" / "identity.json"
    resolver = FileIdentityResolver(path)
    resolver.link("telegram", "12345", "alice")
    path.chmod(0o644)

    resolver.link("discord", "snowflake-1", "alice")

    assert mode_of(path) == 0o600
    assert mode_of(path.parent) == 0o700
    assert mode_of(path.with_name("identity.json.lock")) == 0o600


def test_it_finds_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("PRAISONAI_IDENTITY_PATH", raising=False)
    by_default = FileIdentityResolver()
    monkeypatch.setenv("PRAISONAI_IDENTITY_PATH", "~/elsewhere.json")
    by_environment = FileIdentityResolver()

    assert by_default.path == tmp_path / ".praisonai" / "identity.json"
    assert by_environment.path == tmp_path / "elsewhere.json"
    assert FileIdentityResolver(str(tmp_path / "given.json")).path == tmp_path / "given.json"


def test_it_keeps_what_else_is_in_the_file(path: Path) -> None:
    path.write_text('{"version": 3, "links": {"telegram::12345": "alice"}, "note": {"by": "bob"}}')

    FileIdentityResolver(path).link("discord", "snowflake-1", "alice")

    assert json.loads(path.read_text()) == {
        "version": 3,
        "links": {"telegram::12345": "alice", "discord::snowflake-1": "alice"},
        "note": {"by": "bob"},
    }


def test_it_does_not_write_what_is_there_already(path: Path) -> None:
    path.write_text('{"links":{"telegram::12345":"alice"}}')
    resolver = FileIdentityResolver(path)

    resolver.link("telegram", "12345", "alice")
    resolver.unlink("telegram", "666")

    assert path.read_text() == '{"links":{"telegram::12345":"alice"}}'


def test_it_writes_through_a_symbolic_link(path: Path, tmp_path: Path) -> None:
    alias = tmp_path / "alias.json"
    alias.symlink_to(path)

    FileIdentityResolver(alias).link("telegram", "12345", "alice")

    assert alias.is_symlink()
    assert FileIdentityResolver(path).resolve("telegram", "12345") == "alice"


def test_it_reads_an_unchanged_file_once(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path.write_text('{"links": {"telegram::12345": "alice"}}')
    os.utime(path, (1_000_000_000, 1_000_000_000))
    resolver = FileIdentityResolver(path)
    resolver.resolve("telegram", "12345")
    monkeypatch.delattr(resolver.__class__, "_load")

    assert resolver.resolve("telegram", "12345") == "alice"


def test_it_sees_a_change_that_the_clock_of_the_disk_cannot_show(path: Path) -> None:
    path.write_text('{"links": {"telegram::12345": "alice"}}')
    before = path.stat()
    resolver = FileIdentityResolver(path)
    assert resolver.resolve("telegram", "12345") == "alice"

    path.write_text('{"links": {"telegram::12345": "bobby"}}')
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))

    assert resolver.resolve("telegram", "12345") == "bobby"


def test_it_sees_a_file_that_came_or_went(path: Path) -> None:
    resolver = FileIdentityResolver(path)
    assert resolver.resolve("telegram", "12345") == "telegram:12345"

    FileIdentityResolver(path).link("telegram", "12345", "alice")
    assert resolver.resolve("telegram", "12345") == "alice"

    path.unlink()
    assert resolver.resolve("telegram", "12345") == "telegram:12345"


CORRUPT = [
    b"",
    b"{",
    b"\xff\xfe",
    b"[]",
    b'{"links": []}',
    b'{"links": {"telegram:12345": "alice"}}',
    b'{"links": {"telegram::": "alice"}}',
    b'{"links": {"::12345": "alice"}}',
    b'{"links": {"telegram::12345": ""}}',
    b'{"links": {"telegram::12345": 7}}',
    b"[" * 100_000,
]


@pytest.mark.parametrize("content", CORRUPT, ids=range(len(CORRUPT)))
def test_it_answers_nothing_from_a_corrupt_file_and_leaves_it_whole(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    resolver = FileIdentityResolver(path)

    with pytest.raises(IdentityUnavailable, match=r"identity\.json is corrupt .* Repair it"):
        resolver.resolve("telegram", "12345")
    with pytest.raises(IdentityUnavailable, match=r"identity\.json is corrupt"):
        resolver.link("telegram", "12345", "mallory")
    with pytest.raises(IdentityUnavailable, match=r"identity\.json is corrupt"):
        resolver.unlink("telegram", "12345")
    with pytest.raises(IdentityUnavailable, match=r"identity\.json is corrupt"):
        resolver.links_for("alice")

    assert path.read_bytes() == content


def test_it_keeps_one_copy_of_a_corrupt_file_and_logs_it_once(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path.write_bytes(b'{"links": {"telegr')
    resolver = FileIdentityResolver(path)

    for asked in (resolver, resolver, FileIdentityResolver(path)):
        with pytest.raises(IdentityUnavailable):
            asked.resolve("telegram", "12345")

    (copy,) = path.parent.glob("identity.json.corrupt-*")
    assert copy.read_bytes() == path.read_bytes()
    assert mode_of(copy) == 0o600
    assert [record.levelname for record in caplog.records] == ["ERROR", "ERROR"]  # one for each resolver
    assert str(copy) in caplog.text


def test_it_goes_on_when_the_file_is_repaired(path: Path) -> None:
    resolver = FileIdentityResolver(path)
    resolver.link("telegram", "12345", "alice")
    whole = path.read_bytes()
    path.write_bytes(whole[:-9])
    with pytest.raises(IdentityUnavailable):
        resolver.resolve("telegram", "12345")

    path.write_bytes(whole)

    assert resolver.resolve("telegram", "12345") == "alice"


def test_it_says_why_it_cannot_read(path: Path) -> None:
    path.mkdir()

    with pytest.raises(IdentityUnavailable, match=r"identity\.json cannot be read: Is a directory"):
        FileIdentityResolver(path).resolve("telegram", "12345")


# argv: the file. Root, whom permissions do not bind, becomes nobody.
READER = """
import os, sys
from identity.resolvers import FileIdentityResolver, IdentityUnavailable

resolver = FileIdentityResolver(sys.argv[1])
print(resolver.resolve("telegram", "12345"))
if os.geteuid() == 0:
    os.seteuid(65534)
try:
    resolver.link("discord", "snowflake-1", "alice")
except IdentityUnavailable as error:
    print(error)
"""


def test_it_says_why_it_cannot_write() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "identity.json"
        path.write_text('{"links": {"telegram::12345": "alice"}}')
        path.parent.chmod(0o555)

        output, _ = started(READER, path).communicate(timeout=30)

        path.parent.chmod(0o700)
        assert output.splitlines() == ["alice", f"{path} cannot be written: Permission denied."]
        assert path.read_text() == '{"links": {"telegram::12345": "alice"}}'


# argv: the file. The limit makes the kernel refuse the write half way, as a full disk does.
ON_A_FULL_DISK = """
import resource, sys
from identity.resolvers import FileIdentityResolver, IdentityUnavailable

resolver = FileIdentityResolver(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
try:
    resolver.link("discord", "snowflake-1", "alice")
except IdentityUnavailable as error:
    print(error)
print(resolver.resolve("telegram", "9"))
"""


def test_it_keeps_the_old_file_whole_on_a_full_disk(path: Path) -> None:
    path.write_bytes(render({("telegram", str(number)): "alice" for number in range(20)}))
    before = path.read_bytes()

    output, _ = started(ON_A_FULL_DISK, path).communicate(timeout=30)

    assert output.splitlines() == [f"{path} cannot be written: File too large.", "alice"]
    assert path.read_bytes() == before
    assert sorted(file.name for file in path.parent.iterdir()) == ["identity.json", "identity.json.lock"]


def test_it_replaces_the_file_only_when_the_new_one_is_on_disk(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    resolver = FileIdentityResolver(path)
    resolver.link("telegram", "12345", "alice")

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(IdentityUnavailable, match="No space left on device"):
        resolver.link("telegram", "12345", "bob")

    assert resolver.resolve("telegram", "12345") == "alice"


platforms = st.text(st.characters(exclude_categories=["Cs"], exclude_characters=":"), min_size=1).filter(str.strip)
ids = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(str.strip)
links = st.dictionaries(st.tuples(platforms, ids), platforms.filter(lambda person: not person.startswith("bot_")))


@given(links)
def test_it_reads_back_any_ids(links: dict[tuple[str, str], str]) -> None:
    assert parse(render(links)) == (json.loads(render(links)), links)


@given(platforms, ids, platforms.map(lambda person: f"u{person}"))
def test_it_stores_any_ids(platform: str, platform_user_id: str, person: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        FileIdentityResolver(Path(folder) / "identity.json").link(platform, platform_user_id, person)
        resolver = FileIdentityResolver(Path(folder) / "identity.json")

        assert resolver.links_for(person) == [IdentityLink(platform, platform_user_id, person)]
        assert resolver.resolve(platform, platform_user_id) == person


def test_it_does_not_confuse_colons_of_the_platform_with_those_of_the_id(path: Path) -> None:
    resolver = FileIdentityResolver(path)
    resolver.link("slack", "T1::U1", "alice")
    resolver.link("slack", ":U1", "bob")

    assert resolver.resolve("slack", "T1::U1") == "alice"
    assert resolver.resolve("slack", ":U1") == "bob"
    assert resolver.resolve("slack::T1", "U1") == "slack::T1:U1"
    assert resolver.resolve("slack:", "U1") == "slack::U1"
