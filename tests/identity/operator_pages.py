"""The pages of an operator who is signed in with exactly the permissions that a test is about."""

from __future__ import annotations

from typing import Any

from django.apps import apps
from django.contrib.auth.models import Permission, User
from django.test import Client
from django.urls import reverse

from identity import operators
from identity.flows import linking, pair_in_chat
from identity.models import AccountLink, Pairing, PlatformAccount, UnifiedUser
from identity.pairing import codes
from identity.pairing import requests as pairing_requests
from identity.pairing.secrets import secrets_of


def operator(*permissions: str, name: str = "carol") -> Client:
    """A browser in which a member of staff is signed in, who may do this and nothing else."""
    user = User.objects.create(username=name, is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    return signed_in(user)


def chief() -> Client:
    """The same for a superuser."""
    return signed_in(User.objects.create(username="chief", is_staff=True, is_superuser=True))


def signed_in(user: User) -> Client:
    client = Client()
    client.force_login(user)
    return client


def all_permissions() -> set[str]:
    permissions = Permission.objects.filter(content_type__app_label="identity")
    return set(permissions.values_list("codename", flat=True))


def url(name: str, *args: Any) -> str:
    return reverse(f"admin:identity_{name}", args=args)


def rows() -> dict[str, list[Any]]:
    """All that is stored about identity."""
    models = apps.get_app_config("identity").get_models()
    return {model.__name__: list(model._default_manager.order_by("pk").values()) for model in models}


def person(unified_user_id: str = "alice", **fields: Any) -> UnifiedUser:
    return UnifiedUser.objects.create(unified_user_id=unified_user_id, **fields)


def account(platform: str = "telegram", number: int = 1, **fields: Any) -> PlatformAccount:
    return PlatformAccount.objects.create(platform=platform, platform_user_id=f"{number:05d}", **fields)


def linked(unified_user_id: str = "alice", platform: str = "telegram", number: int = 1) -> AccountLink:
    return linking.link(
        platform=platform,
        platform_user_id=f"{number:05d}",
        unified_user_id=unified_user_id,
        method="import",
        actor="test",
    )


def invited(whom: UnifiedUser, platform: str = "") -> Pairing:
    issued = operators.invite(person=whom, operator="carol", platform=platform)
    return Pairing.objects.select_related("person", "responder").get(pk=issued.pk)


def claimed(whom: UnifiedUser, by: PlatformAccount) -> Pairing:
    issued = invited(whom)
    assert pair_in_chat.claim(account=by, secret=secrets_of(issued).code) == pairing_requests.Outcome.CLAIMED
    issued.refresh_from_db()
    return issued


def number_of(request: Pairing) -> str:
    return codes.shown_number(secrets_of(request).number)


def another_number(request: Pairing) -> str:
    return f"{(int(secrets_of(request).number) + 1) % 1_000_000:06d}"


def spelled(request: Pairing) -> list[str]:
    """Every way in which a secret of this request could be written."""
    secret = secrets_of(request)
    return [
        secret.code,
        codes.shown_code(secret.code),
        secret.token,
        secret.number,
        codes.shown_number(secret.number),
        bytes(request.nonce).hex(),
    ]
