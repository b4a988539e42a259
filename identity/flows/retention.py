"""Deletes what is too old: requests, browsers, sessions and audit rows, a portion at a time."""

from __future__ import annotations

from importlib import import_module

from django.conf import settings
from django.db.models import Exists, OuterRef

from identity.models import AccountLink, AuditEvent, Browser, BrowserAccount, Pairing
from identity.support import clock, portions

DAY = 86_400


def forget_old_requests() -> int:
    """Delete requests and browsers that ended long ago; links stay. Returns how many rows.

    They are kept for at least a day, whatever the setting: starts and rejections of a day are counted by them.
    """
    old = clock.bound(-max(1, settings.BOTOS_RETENTION_PAIRINGS_DAYS) * DAY)
    in_browsers = BrowserAccount.objects.filter(ended_at__lt=old).order_by("ended_at")
    gone = portions.delete("forgetting accounts in browsers", in_browsers)
    is_attached = Exists(BrowserAccount.objects.filter(pairing=OuterRef("pk")))
    may_be_undone = Exists(AccountLink.objects.live().filter(pairing=OuterRef("pk")))
    requests = Pairing.objects.filter(~is_attached, ~may_be_undone, ended_at__lt=old).order_by("ended_at")
    gone += portions.delete("forgetting requests", requests)
    attached = Exists(BrowserAccount.objects.filter(browser=OuterRef("pk")))
    asked = Exists(Pairing.objects.filter(initiator_browser=OuterRef("pk")))
    answered = Exists(Pairing.objects.filter(responder_browser=OuterRef("pk")))
    browsers = Browser.objects.filter(~attached, ~asked, ~answered, ended_at__lt=old).order_by("ended_at")
    return gone + portions.delete("forgetting browsers", browsers)


def forget_sessions() -> int:
    """Delete the expired sessions of browsers and operators. Returns 0, since none is left for another call."""
    import_module(settings.SESSION_ENGINE).SessionStore.clear_expired()
    return 0


def forget_old_audit() -> int:
    """Delete audit rows that are too old. Nothing else deletes any. Returns how many."""
    return AuditEvent.objects.drop_beyond(settings.BOTOS_RETENTION_AUDIT_DAYS * DAY, most=portions.AT_ONCE)
