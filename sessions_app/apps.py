from __future__ import annotations

from importlib import import_module

from django.apps import AppConfig
from django.core.checks import register
from django.utils.translation import gettext_lazy as _


class SessionsAppConfig(AppConfig):
    name = "sessions_app"
    verbose_name = _("conversations")

    def ready(self) -> None:
        from identity import notices  # all these need the models, which are there from now on
        from sessions_app import checks, counters
        from sessions_app.agents import loop as agent_loop
        from sessions_app.outbox import queue as outbox_queue
        from sessions_app.privacy import confirmation

        for module in ("turns.stopping", "commands.handlers", "commands.linking"):
            import_module(f"sessions_app.{module}")  # which registers its commands
        agent_loop.count = counters.up
        notices.deliver_by(outbox_queue.queue_notice)
        outbox_queue.render_by(confirmation.TEMPLATE, confirmation.notice)
        register(checks.check_agent)
        register(checks.check_resolver)
