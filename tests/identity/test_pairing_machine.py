"""The handshake at random against the model: whatever people do in whatever order, it is what the protocol says."""

from __future__ import annotations

import os

import pytest
from django.db import transaction
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.identity.handshakes import Handshakes, Relayed
from tests.identity.handshakes_on_pages import OnPages, RelayedOnPages
from tests.identity.page_scenarios import PAGE_SCENARIOS
from tests.identity.scenarios import SCENARIOS, run

ALL_SCENARIOS = SCENARIOS | PAGE_SCENARIOS
pytestmark = pytest.mark.django_db

RANDOM_RUNS = {
    Handshakes: "codes leak",
    Relayed: "numbers leak, too",
    OnPages: "codes leak, with browsers",
    RelayedOnPages: "numbers leak, too, with browsers",
}
FULL = int(os.environ.get("BOTOS_EXAMPLES", "200"))


def run_at_random(machine: type[Handshakes], *, examples: int, steps: int, shrink: bool = True) -> None:
    """Run the machine, each run in a transaction of its own that is undone."""

    class Undone(machine):  # type: ignore[valid-type, misc]
        def __init__(self) -> None:
            self.all = transaction.atomic()
            self.all.__enter__()
            super().__init__()

        def teardown(self) -> None:
            try:
                super().teardown()
            finally:
                transaction.set_rollback(True)
                self.all.__exit__(None, None, None)

    phases = [Phase.generate, Phase.shrink] if shrink else [Phase.generate]
    run_state_machine_as_test(
        Undone,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            database=None,
            phases=phases,
            suppress_health_check=list(HealthCheck),
        ),
    )


@pytest.mark.parametrize("machine", RANDOM_RUNS, ids=RANDOM_RUNS.values())
def test_it_does_what_the_model_does(machine: type[Handshakes]) -> None:
    run_at_random(machine, examples=2, steps=25)


@pytest.mark.parametrize("scenario", ALL_SCENARIOS)
def test_it_does_what_the_model_does_in(scenario: str) -> None:
    run(OnPages(), ALL_SCENARIOS[scenario])


@pytest.mark.slow
@pytest.mark.parametrize("machine", RANDOM_RUNS, ids=RANDOM_RUNS.values())
def test_it_does_what_the_model_does_over_a_few_plays(machine: type[Handshakes]) -> None:
    run_at_random(machine, examples=20, steps=25)


@pytest.mark.faults
@pytest.mark.parametrize("machine", RANDOM_RUNS, ids=RANDOM_RUNS.values())
def test_it_does_what_the_model_does_over_many_plays(machine: type[Handshakes]) -> None:
    run_at_random(machine, examples=FULL, steps=50)
