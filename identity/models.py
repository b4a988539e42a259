"""Who is talking: people, their accounts on the platforms, the links between them, and what was done about them."""

from __future__ import annotations

from typing import Any, NoReturn

from django.core.exceptions import ValidationError
from django.core.validators import RegexValidator
from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from identity import clock

# Without ":" and not starting with "bot_", so that a person is never mistaken for a stranger's or a legacy key.
UNIFIED_USER_ID = r"^(?!bot_)[^:\s\x00-\x1f\x7f]+\Z"
NOT_A_UNIFIED_USER_ID = r"^bot_|:|^$"
PLATFORM_NAME = r"^[a-z][a-z0-9-]*$"


class UnifiedUser(models.Model):
    """One person, however many accounts they have linked."""

    unified_user_id = models.CharField(max_length=150, unique=True, validators=[RegexValidator(UNIFIED_USER_ID)])
    display_name = models.CharField(max_length=150, blank=True)
    created_at = models.DateTimeField(default=clock.now, editable=False)

    class Meta:
        verbose_name = _("person")
        verbose_name_plural = _("people")
        constraints = [
            models.CheckConstraint(
                condition=~Q(unified_user_id__regex=NOT_A_UNIFIED_USER_ID), name="user_id_is_no_stranger_key"
            )
        ]

    def __str__(self) -> str:
        return self.display_name or self.unified_user_id


class PlatformAccount(models.Model):
    """One account on one platform. The id is the platform's stable one; the names are labels of the last message."""

    platform = models.CharField(max_length=40, validators=[RegexValidator(PLATFORM_NAME)])
    platform_user_id = models.CharField(max_length=190)
    display_name = models.CharField(max_length=150, blank=True)
    username = models.CharField(max_length=150, blank=True)
    # `/new` puts everything said until then behind: out of the agent's window, still readable.
    window_from = models.DateTimeField(default=clock.EPOCH, editable=False)
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
    """That an account is a person's, from `since` until `ended_at`. Linking adds a row and unlinking ends it."""

    account = models.ForeignKey(PlatformAccount, on_delete=models.PROTECT, related_name="links")
    user = models.ForeignKey(UnifiedUser, on_delete=models.PROTECT, related_name="links")
    since = models.DateTimeField(default=clock.now, editable=False)
    ended_at = models.DateTimeField(null=True, blank=True, editable=False)
    # What the account said before it was linked may be read by the person's other accounts.
    shares_past = models.BooleanField(default=False)
    # "That wasn't me": what was said while this link lived stays out of every agent's window.
    disowned = models.BooleanField(default=False)
    method = models.CharField(max_length=20, help_text=_("pairing, operator, resolver or import"))
    actor = models.CharField(max_length=150, help_text=_("who made it: an account, an operator, or a program"))

    objects = AccountLinkQuerySet.as_manager()

    class Meta:
        verbose_name = _("link")
        constraints = [
            models.UniqueConstraint(fields=["account"], condition=Q(ended_at=None), name="account_has_one_live_link"),
            models.CheckConstraint(
                condition=Q(disowned=False) | Q(ended_at__isnull=False), name="link_disowned_has_ended"
            ),
        ]
        indexes = [models.Index(fields=["user"], condition=Q(ended_at=None), name="live_links_of_a_user")]

    def __str__(self) -> str:
        return f"{self.account} is {self.user.unified_user_id}"


class AuditEventQuerySet(models.QuerySet["AuditEvent"]):
    def update(self, **kwargs: Any) -> NoReturn:
        raise ValidationError(_("The audit log is never changed."))

    def delete(self) -> NoReturn:
        raise ValidationError(_("The audit log is never shortened by hand."))


class AuditEvent(models.Model):
    """One thing that was done about identity, and by whom. Rows are added and never changed.

    `account_hash` is keyed (see identity.audit), so that the log outlives a person's wish to be forgotten without
    naming them.
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
