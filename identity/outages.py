"""Errors that say nothing about what was asked: the database was not there, full, or held by somebody else."""

from __future__ import annotations

from django.db.utils import InterfaceError, OperationalError

STOOD_STILL = "25P03"  # PostgreSQL ended a transaction in which nothing was asked for too long


def is_away(error: BaseException | None) -> bool:
    """Whether it is a matter of time."""
    return isinstance(error, OperationalError | InterfaceError) or sqlstate(error) == STOOD_STILL


def sqlstate(error: BaseException | None) -> str:
    """PostgreSQL's code for what went wrong; empty for another database. Source: PostgreSQL manual, appendix A."""
    return str(getattr(getattr(error, "__cause__", None), "sqlstate", None) or "")
