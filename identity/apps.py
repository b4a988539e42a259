from __future__ import annotations

from django.apps import AppConfig
from django.core.checks import register
from django.utils.translation import gettext_lazy as _


class IdentityConfig(AppConfig):
    name = "identity"
    verbose_name = _("identity")

    def ready(self) -> None:
        from identity import checks  # needs the settings, which are there from now on

        register(checks.check_limits)
        register(checks.check_sqlite)
