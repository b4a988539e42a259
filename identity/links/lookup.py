"""Accounts and people by the ids that platforms and operators give; missing ones are created."""

from __future__ import annotations

import re

from identity.models import PLATFORM_NAME, UNIFIED_USER_ID, PlatformAccount, UnifiedUser
from identity.support.text import is_storable


def account_for(*, platform: str, platform_user_id: str) -> PlatformAccount:
    """Return the account with this id, and create it if it is missing. Raises ValueError as `check_account` does."""
    check_account(platform, platform_user_id)
    account, _ = PlatformAccount.objects.get_or_create(platform=platform, platform_user_id=platform_user_id)
    return account


def person_for(*, unified_user_id: str, display_name: str = "") -> UnifiedUser:
    """Return the person with this id, and create it, with this name, if it is missing.

    Raises ValueError as `check_person` does.
    """
    check_person(unified_user_id)
    defaults = {"display_name": display_name[:150]}
    user, _ = UnifiedUser.objects.get_or_create(unified_user_id=unified_user_id, defaults=defaults)
    return user


def check_account(platform: str, platform_user_id: str) -> None:
    """Raise ValueError for a platform or id that no platform sends or no database stores."""
    if not re.fullmatch(PLATFORM_NAME, platform) or len(platform) > 40:
        raise ValueError(f"{platform!r} is no platform name: up to 40 of a-z, 0-9 and -, and a letter first.")
    if not platform_user_id.strip() or len(platform_user_id) > 190 or not is_storable(platform_user_id):
        raise ValueError(f"{platform_user_id!r} is no id on a platform: 1 to 190 characters.")


def check_person(unified_user_id: str) -> None:
    """Raise ValueError for an id that could be mistaken for another key, or looks like another person's."""
    is_valid = re.match(UNIFIED_USER_ID, unified_user_id) and len(unified_user_id) <= 150
    if not is_valid or not unified_user_id.isprintable():
        raise ValueError(
            f"{unified_user_id!r} is no unified user id: 1 to 150 visible characters, "
            'without spaces and ":", and not starting with "bot_".'
        )
