"""The services that the turn pool needs for each platform, from the settings."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.conf import settings
from django.utils.module_loading import import_string

from adapters import registry
from identity.resolvers import Resolves
from sessions_app import agents
from sessions_app.messages import Agent
from sessions_app.turns.pool import Service


def configured_agent() -> Any:
    """The agent that the settings name."""
    return agents.load_agent(settings.BOTOS_AGENT, instructions=settings.BOTOS_INSTRUCTIONS)


def configured_services() -> dict[str, Service]:
    """All platforms, with the agent and the resolver that the settings name. Raises AgentError."""
    return services_of(registry.names(), configured_agent(), import_string(settings.BOTOS_RESOLVER)())


def services_of(platforms: Iterable[str], agent: Agent, resolver: Resolves | None) -> dict[str, Service]:
    """These platforms, with this agent and this resolver. Raises UnknownPlatform."""
    registered = {name: registry.get(name) for name in platforms}
    return {
        name: Service(agent, resolver, platform.text_limit, platform.streams) for name, platform in registered.items()
    }
