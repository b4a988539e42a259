from __future__ import annotations

import logging
import sys

from django.apps import AppConfig
from django.conf import settings
from django.core.checks import register

from identity.support import platforms

log = logging.getLogger(__name__)

# Commands without a warning about names of settings: the first runs just before runbots, the second lists them itself.
WITHOUT_WARNING = {"bootstrap", "doctor"}


class AdaptersConfig(AppConfig):
    name = "adapters"

    def ready(self) -> None:
        from adapters import checks, registry  # need the settings and the models, which are there from now on

        platforms.read_from(registry.known)
        register(checks.check_tokens)
        if WITHOUT_WARNING.intersection(sys.argv[1:2]):
            return
        for sentence in filter(None, [settings.ENV.outdated(), *settings.ENV.unknown()]):
            log.warning("%s", sentence)
