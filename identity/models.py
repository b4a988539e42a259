"""The tables of identity: people, accounts, links, handshakes, browsers, and the audit log."""

from __future__ import annotations

import uuid
from typing import Any, NoReturn

from django.core.exceptions import ValidationError
from django.core.validators import RegexValidator
from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from identity.support import clock, keys, platforms
from identity.support.sanitize import harmless

# Without ":" and not starting with "bot_", so that no person's id looks like the key of an account.
UNIFIED_USER_ID = r"^(?!bot_)[^:\s\x00-\x1f\x7f]+\Z"
NOT_A_UNIFIED_USER_ID = r"^bot_|:|^$"
PLATFORM_NAME = platforms.NAME


class UnifiedUser(models.Model):
    """One person, with any number of linked accounts."""

    unified_user_id = models.CharField(max_length=150, unique=True, validators=[RegexValidator(UNIFIED_USER_ID)])
    display_name = models.CharField(max_length=150, blank=True)
    # A name that an operator chose stays while the person has an account; any other name leaves with its account.
    is_name_chosen = models.BooleanField(default=False, db_default=False, editable=False)
    # The account that gets reminders and operators' messages, while it is the person's.
    preferred = models.ForeignKey(
        "PlatformAccount", null=True, blank=True, editable=False, on_delete=models.SET_NULL, related_name="+"
    )
    created_at = models.DateTimeField(default=clock.now, editable=False)

    class Meta:
        verbose_name = _("person")
        verbose_name_plural = _("people")
        permissions = [
            ("pair_account", _("Can pair an account with a person")),
            ("invite_people", _("Can invite people together")),
            ("import_people", _("Can import people")),
            ("suspend_person", _("Can suspend a person")),
        ]
        constraints = [
            models.CheckConstraint(
                condition=~Q(unified_user_id__regex=NOT_A_UNIFIED_USER_ID), name="user_id_is_no_stranger_key"
            )
        ]

    def __str__(self) -> str:
        name = harmless(self.display_name)
        return f"{name} ({self.unified_user_id})" if name else self.unified_user_id


class PlatformAccount(models.Model):
    """One account on one platform, by the platform's stable id. The names are those of its last message."""

    platform = models.CharField(max_length=40, validators=[RegexValidator(PLATFORM_NAME)])
    platform_user_id = models.CharField(max_length=190)
    display_name = models.CharField(max_length=150, blank=True)
    username = models.CharField(max_length=150, blank=True)
    # `/new` resets the context to this moment: earlier messages leave the agent's window, and stay readable.
    window_from = models.DateTimeField(default=clock.EPOCH, editable=False)
    # To the day: an account that is silent for long may belong to someone else by now.
    seen_at = models.DateTimeField(default=clock.now, editable=False)
    created_at = models.DateTimeField(default=clock.now, editable=False)

    class Meta:
        verbose_name = _("account")
        constraints = [
            models.UniqueConstraint(fields=["platform", "platform_user_id"], name="account_is_one_per_platform_id"),
            models.CheckConstraint(condition=Q(platform__regex=PLATFORM_NAME), name="account_platform_name"),
            models.CheckConstraint(condition=~Q(platform_user_id=""), name="account_has_an_id"),
        ]

    def __str__(self) -> str:
        return f"{self.platform}:{self.platform_user_id}"


class AccountLinkQuerySet(models.QuerySet["AccountLink"]):
    def live(self) -> AccountLinkQuerySet:
        return self.filter(ended_at=None)


class AccountLink(models.Model):
    """The link of an account to a person, from `since` until `ended_at`. Linking adds a row and unlinking ends it."""

    account = models.ForeignKey(PlatformAccount, on_delete=models.PROTECT, related_name="links")
    user = models.ForeignKey(UnifiedUser, on_delete=models.PROTECT, related_name="links")
    since = models.DateTimeField(default=clock.now, editable=False)
    ended_at = models.DateTimeField(null=True, blank=True, editable=False)
    # The person's other accounts may read what the account said before it was linked.
    shares_past = models.BooleanField(default=False)
    # "That wasn't me": messages from the time of this link stay out of every agent's window.
    disowned = models.BooleanField(default=False)
    pairing = models.ForeignKey("Pairing", null=True, on_delete=models.SET_NULL, related_name="links")
    # When to remind the person's accounts of this link; empty after the last reminder.
    remind_at = models.DateTimeField(null=True, editable=False)
    # When to check whether the account is silent; empty until the first check.
    look_at = models.DateTimeField(null=True, editable=False)
    method = models.CharField(max_length=20, help_text=_("pairing, operator, resolver or import"))
    actor = models.CharField(max_length=150, help_text=_("who made it: an account, an operator, or a program"))

    objects = AccountLinkQuerySet.as_manager()

    class Meta:
        verbose_name = _("link")
        permissions = [("revoke_link", _("Can revoke a link"))]
        constraints = [
            models.UniqueConstraint(fields=["account"], condition=Q(ended_at=None), name="account_has_one_live_link"),
            models.CheckConstraint(
                condition=Q(disowned=False) | Q(ended_at__isnull=False), name="link_disowned_has_ended"
            ),
        ]
        indexes = [
            models.Index(fields=["user"], condition=Q(ended_at=None), name="live_links_of_a_user"),
            # history, which leaves messages from the time of such a link out of the windows
            models.Index(fields=["user"], condition=Q(disowned=True), name="disowned_links_of_a_user"),
            # link_maintenance
            models.Index(
                fields=["remind_at"],
                condition=Q(ended_at=None, remind_at__isnull=False),
                name="live_links_to_remind_of",
            ),
            models.Index(fields=["look_at"], condition=Q(ended_at=None), name="live_links_to_look_at"),
        ]

    def __str__(self) -> str:
        return f"{self.account} is {self.user.unified_user_id}"


class Browser(models.Model):
    """One browser session of the pages, in which attached accounts read and write. It is no account itself.

    It runs out by idleness or age, which `ended_at` may not show yet (see identity.browsers.sessions).
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    name = models.CharField(max_length=32, blank=True, help_text=_("what it says that it is, made harmless"))
    # Keyed hash of its address (see identity.support.client_address); deleted an hour after its end.
    address = models.CharField(max_length=64, blank=True, editable=False)
    created_at = models.DateTimeField(default=clock.now, editable=False)
    seen_at = models.DateTimeField(default=clock.now, editable=False)
    ended_at = models.DateTimeField(null=True, editable=False)

    class Meta:
        verbose_name = _("browser")
        indexes = [
            models.Index(fields=["address", "created_at"], name="browsers_of_an_address"),
            # identity.browsers.sessions.end_old
            models.Index(fields=["seen_at"], condition=Q(ended_at=None), name="browsers_that_may_run_out"),
            models.Index(fields=["created_at"], condition=Q(ended_at=None), name="browsers_that_grow_old"),
            models.Index(fields=["ended_at"], condition=Q(address__gt=""), name="browsers_with_an_address"),
            # retention
            models.Index(fields=["ended_at"], condition=Q(ended_at__isnull=False), name="browsers_by_end"),
        ]

    def __str__(self) -> str:
        return self.name or "browser"


class BrowserAccount(models.Model):
    """An attachment: a handshake allows a browser to read and write as an account."""

    browser = models.ForeignKey(Browser, on_delete=models.PROTECT, related_name="accounts")
    account = models.ForeignKey(PlatformAccount, on_delete=models.PROTECT, related_name="browsers")
    pairing = models.ForeignKey("Pairing", on_delete=models.PROTECT, related_name="attachments")
    attached_at = models.DateTimeField(default=clock.now, editable=False)
    confirmed_at = models.DateTimeField(default=clock.now, editable=False)  # moves on while the browser is in use
    ended_at = models.DateTimeField(null=True, editable=False)

    class Meta:
        verbose_name = _("account in a browser")
        constraints = [
            models.UniqueConstraint(
                fields=["browser", "account"], condition=Q(ended_at=None), name="account_is_in_a_browser_once"
            ),
        ]
        indexes = [
            models.Index(fields=["account"], condition=Q(ended_at=None), name="live_browsers_of_an_account"),
            models.Index(fields=["ended_at"], condition=Q(ended_at__isnull=False), name="attachments_by_end"),
        ]

    def __str__(self) -> str:
        return f"{self.account} in {self.browser}"


def new_nonce() -> bytes:
    """Return the nonce of one request. Its secrets depend on it, so that its id alone derives nothing."""
    return keys.new_nonce()


class Pairing(models.Model):
    """One handshake, which makes a link or attaches an account to a browser (see identity.flows.pair_in_chat).

    Its secrets are derived from `id` and `nonce`, and stored nowhere. The initiating side is an account (`/link` in a
    chat), a browser, or a person (an operator's invitation). The responding side is an account, or a browser if an
    account initiates.
    """

    class State(models.TextChoices):
        OFFERED = "offered", _("waiting for the code")
        CLAIMED = "claimed", _("waiting for the number")
        LINKED = "linked", _("linked")
        ATTACHED = "attached", _("attached to a browser")
        EXPIRED = "expired", _("expired")
        CANCELLED = "cancelled", _("cancelled")
        DENIED = "denied", _("denied")
        LOCKED = "locked", _("too many wrong numbers")
        BURNED = "burned", _("code seen in public")
        REFUSED = "refused", _("refused")

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    nonce = models.BinaryField(max_length=16, default=new_nonce, editable=False)
    state = models.CharField(max_length=9, choices=State.choices, default=State.OFFERED)
    initiator = models.ForeignKey(PlatformAccount, null=True, on_delete=models.PROTECT, related_name="offers")
    # Finds the requests of an account that was forgotten and comes back with another row.
    initiator_hash = models.CharField(max_length=64, blank=True, default="", db_default="", editable=False)
    initiator_browser = models.ForeignKey(Browser, null=True, on_delete=models.PROTECT, related_name="offers")
    person = models.ForeignKey(UnifiedUser, null=True, on_delete=models.PROTECT, related_name="invitations")
    operator = models.CharField(max_length=150, blank=True)
    platform = models.CharField(max_length=40, blank=True, help_text=_("only an account of this platform may take it"))
    responder = models.ForeignKey(PlatformAccount, null=True, on_delete=models.PROTECT, related_name="claims")
    responder_browser = models.ForeignKey(Browser, null=True, on_delete=models.PROTECT, related_name="claims")
    # For look-up only, and NULL when the request ends, since several empty strings would not be unique.
    code_hash = models.CharField(max_length=64, null=True, unique=True, editable=False)  # noqa: DJ001 - see above
    token_hash = models.CharField(max_length=64, null=True, unique=True, editable=False)  # noqa: DJ001 - see above
    tries = models.PositiveSmallIntegerField(default=0)
    # The account against which the end of this request counts.
    strike = models.ForeignKey(PlatformAccount, null=True, on_delete=models.PROTECT, related_name="strikes")
    created_at = models.DateTimeField(default=clock.now, editable=False)
    expires_at = models.DateTimeField(editable=False)  # of the present state
    last_at = models.DateTimeField(editable=False)  # of the whole handshake
    claimed_at = models.DateTimeField(null=True, editable=False)
    ended_at = models.DateTimeField(null=True, editable=False)

    class Meta:
        verbose_name = _("request")
        permissions = [("withdraw_request", _("Can withdraw an invitation"))]
        constraints = [
            models.UniqueConstraint(
                fields=["initiator"],
                condition=Q(state__in=["offered", "claimed"]),
                name="initiator_has_one_live_request",
            ),
            models.UniqueConstraint(
                fields=["responder"], condition=Q(state="claimed"), name="responder_has_one_claimed_request"
            ),
            models.UniqueConstraint(
                fields=["initiator_browser"],
                condition=Q(state__in=["offered", "claimed"]),
                name="browser_has_one_live_request",
            ),
            models.UniqueConstraint(
                fields=["responder_browser"], condition=Q(state="claimed"), name="browser_has_one_claimed_request"
            ),
            models.CheckConstraint(
                condition=Q(initiator__isnull=False, initiator_browser=None, person=None, operator="")
                | Q(initiator=None, initiator_browser__isnull=False, person=None, operator="")
                | (Q(initiator=None, initiator_browser=None, person__isnull=False) & ~Q(operator="")),
                name="request_has_one_initiating_side",
            ),
            models.CheckConstraint(
                condition=Q(responder_browser=None) | Q(responder=None, initiator__isnull=False),
                name="request_with_a_browser_has_an_account",
            ),
            models.CheckConstraint(
                condition=Q(state__in=["offered", "claimed"], ended_at=None)
                | (~Q(state__in=["offered", "claimed"]) & Q(ended_at__isnull=False, code_hash=None, token_hash=None)),
                name="request_keeps_no_hash_after_its_end",
            ),
            models.CheckConstraint(
                condition=Q(responder__isnull=False)
                | Q(responder_browser__isnull=False)
                | ~Q(state__in=["claimed", "linked", "attached", "locked"]),
                name="request_claimed_has_a_responder",
            ),
            models.CheckConstraint(
                condition=~Q(state="linked") | Q(initiator_browser=None, responder_browser=None),
                name="request_linked_joins_accounts",
            ),
            models.CheckConstraint(
                condition=~Q(state="attached")
                | Q(initiator_browser__isnull=False)
                | Q(responder_browser__isnull=False),
                name="request_attached_has_a_browser",
            ),
        ]
        indexes = [
            models.Index(fields=["initiator_hash", "created_at"], name="requests_of_an_initiator"),
            models.Index(fields=["initiator_browser", "created_at"], name="requests_of_a_browser"),
            models.Index(fields=["expires_at"], condition=Q(ended_at=None), name="requests_that_may_expire"),
            # the operators' list
            models.Index(fields=["created_at", "id"], name="requests_by_age"),
            # retention
            models.Index(fields=["ended_at"], condition=Q(ended_at__isnull=False), name="requests_by_end"),
        ]

    def __str__(self) -> str:
        return f"{self.state} request"


class GuessLimit(models.Model):
    """The wrong codes of one account or address. A new code does not reset them, and attempts of others do not count.

    `guesser`, the attempt key, is the keyed hash of an account ("account 3f.."), or of an address ("address 3f..")
    for browsers, as anyone can have many browsers.
    """

    guesser = models.CharField(max_length=80, primary_key=True)
    # The times of the last wrong codes, oldest first, in seconds since 1970: at most as many as lock out.
    times = models.JSONField(default=list)
    last_at = models.DateTimeField(default=clock.EPOCH)
    locked_until = models.DateTimeField(default=clock.EPOCH)
    locks = models.PositiveSmallIntegerField(default=0)

    class Meta:
        verbose_name = _("guess limit")

    def __str__(self) -> str:
        return f"{len(self.times)} wrong codes"


class LiveEvent(models.Model):
    """A change that open pages hear of: that it happened, not what (see identity.live). Kept for an hour."""

    topic = models.CharField(max_length=80)
    kind = models.CharField(max_length=20)
    at = models.DateTimeField(default=clock.now, editable=False, db_index=True)

    class Meta:
        verbose_name = _("live event")
        indexes = [models.Index(fields=["topic", "id"], name="live_events_of_a_topic")]

    def __str__(self) -> str:
        return f"{self.topic} {self.kind}"


class BotProfile(models.Model):
    """The name and address of the bot on a platform, which its adapter learns when it connects."""

    platform = models.CharField(max_length=40, primary_key=True)
    name = models.CharField(max_length=150, blank=True)
    # Opens a private chat with the bot; for Telegram, `?start=` may be added.
    url = models.CharField(max_length=300, blank=True)

    class Meta:
        verbose_name = _("bot")

    def __str__(self) -> str:
        return f"{self.platform} {self.name}"


class AuditEventQuerySet(models.QuerySet["AuditEvent"]):
    def update(self, **kwargs: Any) -> NoReturn:
        raise ValidationError(_("The audit log is never changed."))

    def delete(self) -> NoReturn:
        raise ValidationError(_("The audit log is never shortened by hand."))

    def drop_beyond(self, seconds: float, *, most: int) -> int:
        """Delete those of the `most` oldest rows that are older. Returns how many. For flows.retention only."""
        oldest = list(self.order_by("pk").values_list("pk", flat=True)[:most])
        due = self.filter(pk__in=oldest, at__lt=clock.seconds_from_now(-seconds))
        return due._raw_delete(self.db) or 0  # noqa: SLF001 - `delete` is forbidden above


class AuditEvent(models.Model):
    """One change of identity, and who made it. Rows are added and never changed.

    `account_hash` is keyed (see identity.audit), so that the log stays when a person is forgotten, without naming them.
    """

    at = models.DateTimeField(default=clock.now, editable=False)
    kind = models.CharField(max_length=40)
    actor = models.CharField(max_length=150)
    account_hash = models.CharField(max_length=64, blank=True, db_index=True)
    unified_user_id = models.CharField(max_length=150, blank=True, db_index=True)
    details = models.JSONField(default=dict, blank=True)

    objects = AuditEventQuerySet.as_manager()

    class Meta:
        verbose_name = _("audit event")

    def __str__(self) -> str:
        return f"{self.kind} by {self.actor}"

    def save(self, *args: Any, **kwargs: Any) -> None:
        if not self._state.adding:
            raise ValidationError(_("The audit log is never changed."))
        super().save(*args, **kwargs)

    def delete(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise ValidationError(_("The audit log is never shortened by hand."))
