from __future__ import annotations

import pytest
from django.db import DataError, IntegrityError, InterfaceError, InternalError, OperationalError
from psycopg import errors

from identity.support.db_errors import is_away, sqlstate


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (OperationalError("disk full"), True),
        (InterfaceError("the connection is closed"), True),
        (caused(InternalError(), errors.IdleInTransactionSessionTimeout()), True),
        (caused(InternalError(), errors.InFailedSqlTransaction()), False),
        (InternalError(), False),
        (DataError(), False),
        (IntegrityError(), False),
        (ValueError(), False),
        (None, False),
    ],
)
def test_it_knows_what_is_a_matter_of_time(error: Exception | None, expected: bool) -> None:
    assert is_away(error) is expected


def test_it_reads_the_code_of_a_driver() -> None:
    assert sqlstate(caused(OperationalError(), errors.QueryCanceled())) == "57014"
    assert sqlstate(OperationalError()) == sqlstate(None) == ""
