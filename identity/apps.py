from __future__ import annotations

from django.apps import AppConfig
from django.core.checks import register


class IdentityConfig(AppConfig):
    name = "identity"
    verbose_name = "identity"

    def ready(self) -> None:
        from identity import checks  # needs the settings, which are there from now on

        register(checks.check_limits)
