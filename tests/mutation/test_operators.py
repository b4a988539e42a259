"""The operators of the mutation run: each removes what it names, and leaves source that can be compiled."""

from __future__ import annotations

import ast

import pytest
from cosmic_ray.mutating import mutate_code
from cosmic_ray.operators.operator import Example

from tests.mutation.operators import REMOVALS, Provider, Removal

EXAMPLES = [(operator, example) for operator in REMOVALS for example in operator.examples()]


@pytest.mark.parametrize(("operator", "example"), EXAMPLES)
def test_it_makes_the_mutant_of_its_example(operator: type[Removal], example: Example) -> None:
    mutant = mutate_code(example.pre_mutation_code, operator(), example.occurrence)

    assert mutant == example.post_mutation_code
    ast.parse(mutant)


@pytest.mark.parametrize("operator", REMOVALS)
def test_it_makes_nothing_where_nothing_can_be_removed(operator: type[Removal]) -> None:
    assert mutate_code("x = 1\n", operator(), 0) is None


def test_it_is_found_by_its_name() -> None:
    provider = Provider()

    assert [provider[name] for name in provider] == list(REMOVALS)
