"""Texts, templates, scripts and documents use none of the words that make English hard to read."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BANNED = re.compile(
    r"\b(?:whoever|whomever|somebody|anew|whence|for\s+ever|by\s+chance|of\s+which|what\s+(?:is|was)\s+said)\b",
    re.IGNORECASE,
)
# Of these only the strings are checked: comments and docstrings there still have some of the words.
STRINGS_ONLY = ("identity/migrations/", "sessions_app/migrations/")
# Not checked: tests say what their data holds.
UNCHECKED = ("tests/",)
SUFFIXES = {".py", ".html", ".js", ".css", ".svg", ".md", ".yaml", ".toml", ".conf", ".service"}
FOREIGN = ("static/pico/", "findings/")
HIDDEN_OR_BUILT = re.compile(r"(?:^|/)(?:\.|__pycache__/|node_modules/|staticfiles/|build/)")


def project_files() -> list[str]:
    """The text files of the project, as paths below its root."""
    paths = (path for path in ROOT.iterdir() if path.name != ".venv" and not path.is_symlink())
    files = (file for path in paths for file in ([path] if path.is_file() else path.rglob("*")))
    names = (file.relative_to(ROOT).as_posix() for file in files if file.suffix in SUFFIXES)
    return sorted(name for name in names if not name.startswith(FOREIGN) and not HIDDEN_OR_BUILT.search(name))


def texts_of(source: str, *, strings_only: bool) -> Iterator[tuple[int, str]]:
    """Line and text of each string in Python, and of each comment and docstring unless only strings are wanted.

    Strings that Python joins are one text, so that words are found across the quotes between them.
    """
    tree = ast.parse(source)
    docstrings = {id(node.body[0].value) for node in ast.walk(tree) if _has_docstring(node)}  # type: ignore[attr-defined]
    for node in ast.walk(tree):
        is_text = isinstance(node, ast.Constant) and isinstance(node.value, str)
        if is_text and not (strings_only and id(node) in docstrings):
            yield node.lineno, node.value  # type: ignore[attr-defined]
    if not strings_only:
        for token in tokenize.generate_tokens(io.StringIO(source).readline):
            if token.type == tokenize.COMMENT:
                yield token.start[0], token.string


def _has_docstring(node: ast.AST) -> bool:
    if not isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
        return False
    first = node.body[0] if node.body else None
    return isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)


def banned_in(name: str, source: str, *, strings_only: bool) -> list[str]:
    """`file:line: word` for each banned word of a file."""
    texts = [(1, source)]
    if name.endswith(".py"):
        texts = list(texts_of(source, strings_only=strings_only))
    return [
        f"{name}:{line + text.count(chr(10), 0, match.start())}: {match[0]}"
        for line, text in texts
        for match in BANNED.finditer(text)
    ]


def test_no_text_has_a_banned_word() -> None:
    files = [name for name in project_files() if not name.startswith(UNCHECKED)]
    checked = {"sessions_app/texts.py", "identity/wording.py", "templates/base.html", "static/chat.js", "manage.py"}
    assert checked | {"docs/reference/configuration-mistakes.md"} <= set(files)

    sources = {name: (ROOT / name).read_text(encoding="utf-8") for name in files}
    found = [
        line
        for name, source in sources.items()
        for line in banned_in(name, source, strings_only=name.startswith(STRINGS_ONLY))
    ]

    assert found == []


@pytest.mark.parametrize(
    ("name", "source", "strings_only", "found"),
    [
        ("page.html", "<p>First.</p>\n<p>Whoever writes</p>", False, ["page.html:2: Whoever"]),
        ("a.py", 'A = _("kept for "\n      "ever")', True, ["a.py:1: for ever"]),
        ("a.py", '"""Whoever asks."""\n\n# by chance', True, []),
        ("a.py", '"""Whoever asks."""\n\n# by chance', False, ["a.py:1: Whoever", "a.py:3: by chance"]),
        ("a.md", "What was\nsaid, of which anewly", False, ["a.md:1: What was\nsaid", "a.md:2: of which"]),
    ],
)
def test_banned_words_are_found_with_their_lines(name: str, source: str, strings_only: bool, found: list[str]) -> None:
    assert banned_in(name, source, strings_only=strings_only) == found
