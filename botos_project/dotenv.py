"""The `.env` file: reading it, and making the first one (`python -m botos_project.dotenv`)."""

from __future__ import annotations

import os
import re
import secrets
from pathlib import Path

from botos_project.env import BadSetting

PROJECT = Path(__file__).resolve().parent.parent
KEY = "SECRET_KEY"
_LINE = re.compile(
    r"""(?:export\s+)?(?P<name>[A-Za-z_]\w*)\s*=\s*(?P<value>"[^"]*"|'[^']*'|[^"'\s#].*?|)(?:\s+\#.*)?"""
)


def environment() -> dict[str, str]:
    """The file's variables, and over them those of the process. Raises BadSetting if BOTOS_ENV_FILE names no file."""
    path = location()
    if path and os.environ.get("BOTOS_ENV_FILE") and not path.exists():
        problem = f"BOTOS_ENV_FILE names a file that does not exist: {path}."
        raise BadSetting("E015", problem, hint="correct the path, or unset BOTOS_ENV_FILE to read .env.")
    return _merged(read(path) if path else {})


def location() -> Path | None:
    """`.env` in the project folder, or what BOTOS_ENV_FILE names; None if that is set to nothing."""
    named = os.environ.get("BOTOS_ENV_FILE", str(PROJECT / ".env"))
    return Path(named) if named else None


def names() -> set[str]:
    """The variables that stand in the file."""
    path = location()
    return set(read(path)) if path else set()


def read(path: Path) -> dict[str, str]:
    """`KEY=VALUE` lines with optional `export`, quotes and `# comments`; a missing file is an empty one."""
    return dict(_pairs(path, _text(path).splitlines()))


def _merged(in_file: dict[str, str]) -> dict[str, str]:
    """An empty variable of the process switches off what the file sets, but for the key, which every process needs."""
    own = {name: value for name, value in os.environ.items() if name != KEY or value.strip()}
    return {**in_file, **own}


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")  # an editor of Windows begins a file with a mark
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as error:  # not chained: the text of an error may quote the content
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        hint = "make it a text file that this user may read."
        raise BadSetting("E016", f"{path} cannot be read ({reason}).", hint=hint) from None


def _pairs(path: Path, lines: list[str]) -> list[tuple[str, str]]:
    pairs = [_parse(line.strip(), where=f"Line {number} of {path}") for number, line in enumerate(lines, start=1)]
    return [pair for pair in pairs if pair]


def _parse(line: str, *, where: str) -> tuple[str, str] | None:
    if not line or line.startswith("#"):
        return None
    match = _LINE.fullmatch(line)
    if match is None:
        raise BadSetting("E006", f"{where} is not KEY=VALUE.", hint="quote a value that contains quotes or #.")
    value = match["value"]
    return match["name"], value[1:-1] if value[:1] in {'"', "'"} else value


def ensure_secret_key() -> bool:
    """Make the file, or complete it, when nothing sets SECRET_KEY. True if something was written.

    A file never gets a second key: that would sign everybody out. Raises BadSetting where an empty line hides one.
    """
    path = location()
    if path is None:
        return False
    text = _text(path) if path.exists() else _example()
    lines = text.splitlines(keepends=True)
    pairs = _pairs(path, [line.rstrip("\r\n") for line in lines])
    known = _merged(dict(pairs))
    if known.get(KEY, "").strip() or known.get(f"{KEY}_FILE", "").strip():
        return False
    if any(name == KEY and value.strip() for name, value in pairs):
        problem = f"An empty {KEY}= in {path} hides the one above it."
        raise BadSetting("E017", problem, hint="delete the empty line.")
    _write_private(path, _with_key(lines, f"{KEY}={secrets.token_urlsafe(50)}"))
    return True


def _with_key(lines: list[str], filled: str) -> str:
    """In the place of the empty line if there is one, else at the end; lines end as the others do."""
    ending = "\r\n" if lines and lines[0].endswith("\r\n") else "\n"
    for place, line in reversed(list(enumerate(lines))):  # the last line of a name counts
        match = _LINE.fullmatch(line.strip())
        if match and match["name"] == KEY:
            export = "export " if line.lstrip().startswith("export") else ""
            return "".join([*lines[:place], f"{export}{filled}{ending}", *lines[place + 1 :]])
    return f"{''.join(lines).rstrip()}{ending}{filled}{ending}".lstrip()


def _example() -> str:
    return (PROJECT / ".env.example").read_text(encoding="utf-8")


def _write_private(path: Path, text: str) -> None:
    path = path.resolve()  # a symbolic link stays one
    draft = path.with_name(f"{path.name}.{os.getpid()}")  # whole or not at all, and never readable for others
    try:
        handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w", encoding="utf-8", newline="") as file:
            file.write(text)
        draft.replace(path)
    except OSError as error:
        hint = f"let this user write there, or set {KEY} in the environment."
        raise BadSetting("E016", f"{path} cannot be written ({error.strerror}).", hint=hint) from None


if __name__ == "__main__":
    from botos_project import mistakes  # here, since settings that read the file need nothing of it

    mistakes.explain()
    if ensure_secret_key():
        print(f"Wrote {location()} with a new SECRET_KEY.")
