"""Checkouts of BotOS that are measured side by side with the same interpreter and the same packages."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]


def revision(folder: Path = PROJECT) -> str:
    """The short name of the commit that is checked out, with a plus sign if files differ from it."""
    git = ["git", "-C", str(folder)]
    name = subprocess.run([*git, "rev-parse", "--short", "HEAD"], check=True, capture_output=True, text=True).stdout
    is_changed = subprocess.run([*git, "diff", "--quiet", "HEAD"], check=False).returncode
    return name.strip() + "+" * bool(is_changed)


@contextmanager
def worktree(commit: str) -> Iterator[Path]:
    """A temporary checkout of another commit of this repository."""
    git = ["git", "-C", str(PROJECT), "worktree"]
    with tempfile.TemporaryDirectory(prefix="botos-bench-tree-") as parent:
        folder = Path(parent) / "tree"
        subprocess.run([*git, "add", "--quiet", "--detach", str(folder), commit], check=True)
        try:
            yield folder
        finally:
            subprocess.run([*git, "remove", "--force", str(folder)], check=True)
