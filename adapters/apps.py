from __future__ import annotations

import logging

from django.apps import AppConfig
from django.conf import settings
from django.core.checks import register

log = logging.getLogger(__name__)


class AdaptersConfig(AppConfig):
    name = "adapters"

    def ready(self) -> None:
        from adapters import checks  # needs the settings and the models, which are there from now on

        register(checks.check_tokens)
        for sentence in settings.ENV.unknown():
            log.warning("%s", sentence)
