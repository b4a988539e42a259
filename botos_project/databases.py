"""DATABASE_URL as Django's dictionary."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from botos_project.env import BadSetting

# IMMEDIATE: a transaction that reads before it writes would fail at once, without waiting, when another process wrote.
# secure_delete: what is deleted is overwritten, from the first row on; pages keep what was moved within them before.
# FULL: what a platform was told is received must survive a power cut; WAL's own default may lose the last commits.
_SQLITE_OPTIONS = {
    "transaction_mode": "IMMEDIATE",
    "timeout": 20,
    "init_command": (
        "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA busy_timeout=20000; PRAGMA foreign_keys=ON; "
        "PRAGMA secure_delete=ON;"
    ),
}

# A server that falls silent (a dead host, a lost route) shows within half a minute, and not after the kernel's hours.
# A process that is frozen within a transaction holds people's rows: the server takes them back before leases run out.
_POSTGRESQL_OPTIONS = {
    "options": "-c idle_in_transaction_session_timeout=10s",
    "connect_timeout": "10",
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "20000",  # milliseconds
}

# Connections beside those of the pages: the thread of the bots, the one that writes, webhooks, health and agents.
RESERVED_CONNECTIONS = 10

_OTHERS = {"MySQL": ("mysql", "mariadb"), "Oracle": ("oracle",), "SQL Server": ("mssql", "sqlserver")}
# Seconds. A call that gets no connection in `timeout` counts as one without a database (identity/support/db_errors.py).
# A growing pool tries again at once after an outage: longer pauses would outlast it.
_POOL_OPTIONS = {"min_size": 0, "timeout": 5.0, "max_idle": 5.0, "reconnect_timeout": 1.0}


def parse(url: str, *, web_requests: int = 20) -> dict[str, Any]:
    """The database at an address. `web_requests` is how many pages may use it at once.

    `sqlite:///relative`, `sqlite:////absolute` or `postgres://user:password@host:port/name?option=value`.
    """
    try:
        parts = urlsplit(url)
        if parts.scheme == "sqlite" and not parts.netloc and len(parts.path) > 1:
            return sqlite(Path(unquote(parts.path[1:])))
        if parts.scheme in {"postgres", "postgresql"} and len(parts.path) > 1:
            return _postgresql(parts, pool_size=web_requests + RESERVED_CONNECTIONS)
    except ValueError:  # a port that is no number, an open bracket
        pass
    engine = next((name for name in _OTHERS if url.lower().startswith(_OTHERS[name])), "")
    raise BadSetting(
        "E007",
        f"DATABASE_URL names a {engine} database, but BotOS works only with SQLite and PostgreSQL."
        if engine
        else "DATABASE_URL is not an address that BotOS understands.",
        hint="write sqlite:////path/to/file or postgres://user:password@host:5432/name, with %40 for @ in a password.",
    )


def sqlite(path: Path) -> dict[str, Any]:
    return {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": str(path),
        "CONN_MAX_AGE": None,
        "OPTIONS": dict(_SQLITE_OPTIONS),
    }


def _postgresql(parts: SplitResult, *, pool_size: int) -> dict[str, Any]:
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": unquote(parts.path[1:]),
        "USER": unquote(parts.username or ""),
        "PASSWORD": unquote(parts.password or ""),
        # ?host=/run/postgresql: the folder of a Unix socket cannot stand before the name.
        "HOST": options.pop("host", parts.hostname or ""),
        "PORT": str(parts.port or ""),
        "CONN_MAX_AGE": 0,  # back to the pool, which keeps it open
        "CONN_HEALTH_CHECKS": True,  # a connection is tried before it leaves the pool: the server may have restarted
        "OPTIONS": {
            **_POSTGRESQL_OPTIONS,
            # The server plans a statement once and not at each turn. A pooler that changes connections between
            # transactions needs ?prepare_threshold=none, and one that passes no options on ?options=.
            "server_side_binding": True,
            "prepare_threshold": _count(options.pop("prepare_threshold", "5")),
            **options,
            "pool": {**_POOL_OPTIONS, "max_size": pool_size},
        },
    }


def _count(text: str) -> int | None:
    """How often a statement is run before it is prepared; None for never."""
    return None if text == "none" else int(text)
