from __future__ import annotations

from importlib import import_module

from django.apps import AppConfig
from django.core.checks import register


class SessionsAppConfig(AppConfig):
    name = "sessions_app"
    verbose_name = "conversations"

    def ready(self) -> None:
        from identity import notices  # all these need the models, which are there from now on
        from sessions_app import agent_loop, checks, forget_number, outbox, tally

        for module in ("sessions_app.commands", "sessions_app.pairing_chat"):
            import_module(module)  # which registers its commands
        agent_loop.count = tally.up
        notices.deliver_by(outbox.queue_notice)
        outbox.render_by(forget_number.TEMPLATE, forget_number.notice)
        register(checks.check_agent)
        register(checks.check_resolver)
