"""Checks that find a wrong configuration at start."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error
from django.core.checks import Warning as Caution
from django.utils.module_loading import import_string

from identity.resolvers import Resolves
from sessions_app import agents
from sessions_app.history import conversations


def check_agent(app_configs: Sequence[Any] | None, **kwargs: Any) -> list[CheckMessage]:
    """Check that the agent or model in the settings can be built. Needs no network."""
    if settings.BOTOS_AGENT:
        problem, hint = "", "name an agent, class or function, as in BOTOS_AGENT=my_agent.agent."
        try:
            agents.load_agent(settings.BOTOS_AGENT, instructions=settings.BOTOS_INSTRUCTIONS)
        except agents.AgentError as error:
            problem = str(error)
    else:
        problem, _, fix = (agents.configuration_problem() or "").partition(" Hint: ")
        hint = fix or "correct BOTOS_MODEL, or unset it: without a model a small offline agent answers."
    return [Error(problem, hint=hint, id="sessions_app.E001")] if problem else []


def check_resolver(app_configs: Sequence[Any] | None, **kwargs: Any) -> list[CheckMessage]:
    """Check that the resolver can be created, and warn if it is not the database's."""
    try:
        resolver = import_string(settings.BOTOS_RESOLVER)()
    except Exception as error:  # noqa: BLE001 - a deployer's module may raise anything
        problem = f"BOTOS_RESOLVER is {settings.BOTOS_RESOLVER!r}: {type(error).__name__}: {error}."
        return [Error(problem, hint="name a class with resolve(platform, platform_user_id).", id="sessions_app.E002")]
    if not isinstance(resolver, Resolves):
        problem = f"BOTOS_RESOLVER is {settings.BOTOS_RESOLVER!r}, which cannot resolve."
        return [Error(problem, hint="give it resolve(platform, platform_user_id).", id="sessions_app.E003")]
    if conversations.is_computed(resolver):
        return []
    problem = "BOTOS_RESOLVER decides who is who, so people cannot link, unlink or share in the chats."
    return [Caution(problem, hint="only the database's resolver can offer that.", id="sessions_app.W001")]
