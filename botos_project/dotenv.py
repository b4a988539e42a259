"""The `.env` file: reading it, and making the first one (`python -m botos_project.dotenv`)."""

from __future__ import annotations

import os
import re
import secrets
from pathlib import Path

from botos_project.env import BadSetting

PROJECT = Path(__file__).resolve().parent.parent
_LINE = re.compile(
    r"""(?:export\s+)?(?P<name>[A-Za-z_]\w*)\s*=\s*(?P<value>"[^"]*"|'[^']*'|[^"'\s#].*?|)(?:\s+\#.*)?"""
)


def environment() -> dict[str, str]:
    """The file's variables, and over them those of the process."""
    path = location()
    return {**(read(path) if path else {}), **os.environ}


def location() -> Path | None:
    """`.env` in the project folder, or what BOTOS_ENV_FILE names; None if that is set to nothing."""
    named = os.environ.get("BOTOS_ENV_FILE", str(PROJECT / ".env"))
    return Path(named) if named else None


def read(path: Path) -> dict[str, str]:
    """`KEY=VALUE` lines with optional `export`, quotes and `# comments`; a missing file is an empty one."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    pairs = [_parse(line.strip(), where=f"Line {number} of {path}") for number, line in enumerate(lines, start=1)]
    return dict(pair for pair in pairs if pair)


def _parse(line: str, *, where: str) -> tuple[str, str] | None:
    if not line or line.startswith("#"):
        return None
    match = _LINE.fullmatch(line)
    if match is None:
        raise BadSetting(
            "E006", f"{where} is not KEY=VALUE.", hint="put a value with quotes or # in it between quotes."
        )
    value = match["value"]
    return match["name"], value[1:-1] if value[:1] in {'"', "'"} else value


def ensure_secret_key() -> bool:
    """Make the file, or complete it, when nothing sets SECRET_KEY. True if something was written."""
    path, known = location(), environment()
    if path is None or known.get("SECRET_KEY") or known.get("SECRET_KEY_FILE"):
        return False
    start = path.read_text(encoding="utf-8") if path.is_file() else _example()
    line = f"SECRET_KEY={secrets.token_urlsafe(50)}"
    text, replaced = re.subn(r"(?m)^SECRET_KEY=\s*$", line, start, count=1)
    _write_private(path, text if replaced else f"{start.rstrip()}\n{line}\n")
    return True


def _example() -> str:
    return (PROJECT / ".env.example").read_text(encoding="utf-8")


def _write_private(path: Path, text: str) -> None:
    draft = path.with_name(f"{path.name}.{os.getpid()}")  # whole or not at all, and never readable for others
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
    draft.replace(path)


if __name__ == "__main__" and ensure_secret_key():
    print(f"Wrote {location()} with a new SECRET_KEY.")
