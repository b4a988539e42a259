"""The numbers of `health` and `counters` as Prometheus reads them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping

from adapters.runtime import health
from adapters.runtime.supervisor import State
from sessions_app import counters

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def exposition() -> str:
    """All of them. Which platforms are connected and what goes on of agents is of the asked process.

    The rest is of all processes together.
    """
    return "".join(f"{line}\n" for line in [*_gauges(), *_counters()])


def _gauges() -> Iterable[str]:
    waiting = health.backlog()
    yield from _one("botos_inbound_lag_seconds", "Longest wait of a message whose lane is free", waiting.lag)
    yield from _one("botos_lanes_waiting", "Lanes that are free and where a message waits", waiting.lanes)
    yield from _one("botos_deliveries_pending", "Deliveries that are not settled", waiting.deliveries)
    yield from _one("botos_delivery_oldest_seconds", "Age of the oldest of these", waiting.oldest_delivery)
    yield from _one("botos_deliveries_ambiguous", "Those of these that may have been sent already", waiting.ambiguous)
    yield from _one("botos_dead_letters", "Deliveries that were given up", health.dead_deliveries())
    quarantined, given_up = health.given_up_messages()
    yield from _one("botos_quarantined", "Messages that were put aside", quarantined)
    yield from _one("botos_given_up", "Messages at which the agent failed to the last", given_up)
    receiving = {name: int(bool(owner)) for name, owner in health.receivers().items()}
    yield from _many("botos_receiving", "Whether some process receives", "gauge", receiving)
    up = {one.platform: int(one.state is State.UP) for one in health.connections()}
    done = health.periodic_duties()
    yield from _many(
        "botos_duty_last_success_timestamp_seconds",
        "When a periodic duty last succeeded",
        "gauge",
        {one.name: int(one.succeeded_at.timestamp()) for one in done if one.succeeded_at},
        label="duty",
    )
    yield from _many(
        "botos_duty_last_failure_timestamp_seconds",
        "When a periodic duty last failed",
        "gauge",
        {one.name: int(one.failed_at.timestamp()) for one in done if one.failed_at},
        label="duty",
    )
    left = health.agents_left_behind()
    yield from _many("botos_agents_left_behind", "What does not end of agents here", "gauge", left, label="kind")
    yield from _many("botos_adapter_up", "Whether the platform is connected here", "gauge", up)


def _counters() -> Iterable[str]:
    written = defaultdict(dict, counters.all_written())
    yield from _many("botos_turns_total", "Turns that were answered", "counter", written["turns"])
    yield from _many("botos_failures_total", "Turns that failed", "counter", written["failures"])
    left = health.agents_ever_left_behind(written["left behind"])
    about = "What of agents was left behind since it did not end in time"
    yield from _many("botos_agents_left_behind_total", about, "counter", left, label="kind")
    about = "Agents that were interrupted since they computed without awaiting"
    yield from _many("botos_agents_interrupted_total", about, "counter", written["interrupted"], label="kind")
    about = "Calls that the platform refused for a while"
    yield from _many("botos_rate_limited_total", about, "counter", written["rate limits"])


def _one(name: str, about: str, value: float) -> Iterable[str]:
    return (*_head(name, about, "gauge"), f"{name} {value:g}")


def _many(name: str, about: str, kind: str, values: Mapping[str, int], *, label: str = "platform") -> Iterable[str]:
    # Neither a platform's nor a duty's name has a character that would need a backslash.
    return (*_head(name, about, kind), *(f'{name}{{{label}="{key}"}} {value}' for key, value in values.items()))


def _head(name: str, about: str, kind: str) -> tuple[str, str]:
    return f"# HELP {name} {about}.", f"# TYPE {name} {kind}"
