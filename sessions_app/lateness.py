"""What comes more than a day late names its day, so that nobody takes it for new."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from django.utils import dateformat

from identity.support import clock
from sessions_app import texts

LATE = timedelta(days=1)
CLOCKS_APART = timedelta(hours=1)  # by which this machine's clock may be behind the database's


def is_late(since: datetime) -> bool:
    """Whether what waits since then is late now. The database's clock decides; it is asked where it may be so."""
    return datetime.now(UTC) - since > LATE - CLOCKS_APART and clock.read() - since > LATE


def day(moment: datetime) -> str:
    """The day in words, in UTC: "20 November", with the year if it is not this one."""
    date = moment.astimezone(UTC)
    return dateformat.format(date, "j F" if date.year == datetime.now(UTC).year else "j F Y")


def dated(text: str, asked_at: datetime, *, is_several: bool = False) -> str:
    """The answer to a message of that time, or to several since then. If it is late, it begins with that day."""
    if not is_late(asked_at):
        return text
    about = texts.ABOUT_OLD_MESSAGES if is_several else texts.ABOUT_OLD_MESSAGE
    return f"{about % {'day': day(asked_at)}}\n\n{text}"
