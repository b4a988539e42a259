"""Mutation operators that remove one rule: a guard, a call, a condition of a query, a lock.

The operators of cosmic-ray change a rule (`<` becomes `<=`, `True` becomes `False`). Most rules of the pairing code
are a call or a condition of a query, and the likely mistake is to lose one. Each operator lists its changes of a
node; cosmic-ray counts them, applies one and restores the file.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from cosmic_ray.operators.operator import Example, Operator
from parso.python.tree import Name

Position = tuple[tuple[int, int], tuple[int, int]]
Node = Any  # of parso's tree, which has no types

QUERIES = {"filter", "exclude", "Q"}
NARROWING = {"filter", "exclude", "distinct", "order_by", "live"}
LOCKS = {"lock_person", "lock_people", "lock_sides", "hold", "hold_attachments", "select_for_update", "attempts_of"}


class Change(NamedTuple):
    """`part` (a node, or something in it) becomes `text`. `at` is the part of it that a report points at."""

    part: Node
    text: str
    at: Node | None = None


class Removal(Operator):  # type: ignore[misc]
    """An operator that replaces one part of a node with other source text."""

    @abstractmethod
    def replacements(self, node: Node) -> Iterator[Change]:
        """Yield each change that this operator can make at a node."""

    def mutation_positions(self, node: Node) -> Iterator[Position]:
        for part, _, at in self.replacements(node):
            yield (at or part).start_pos, (at or part).end_pos

    def mutate(self, node: Node, index: int) -> Node:
        part, text, _ = list(self.replacements(node))[index]
        leaf = Name(text, part.start_pos, prefix=part.get_first_leaf().prefix)
        if part is node:
            return leaf
        siblings = part.parent.children
        siblings[next(nth for nth, one in enumerate(siblings) if one is part)] = leaf
        return node


class RemoveStatement(Removal):
    """Do not make a call whose result nobody uses, do not set an attribute, do not raise."""

    def replacements(self, node: Node) -> Iterator[Change]:
        if node.type != "simple_stmt":
            return
        statement = node.children[0]
        is_call = statement.type == "atom_expr" and not _is_lock(statement)
        sets_attribute = statement.type == "expr_stmt" and "." in _code(statement.children[0])
        if is_call or sets_attribute or statement.type == "raise_stmt":
            yield Change(statement, "pass")

    @classmethod
    def examples(cls) -> Sequence[Example]:
        return Example("record(x)\n", "pass\n"), Example("one.tries = 1\n", "pass\n"), Example("raise E\n", "pass\n")


class RemoveLock(Removal):
    """Do not wait for the rows of an account, a person or a browser."""

    def replacements(self, node: Node) -> Iterator[Change]:
        if node.type == "simple_stmt" and node.children[0].type == "atom_expr" and _is_lock(node.children[0]):
            yield Change(node.children[0], "pass")
        elif node.type == "atom_expr":
            yield from _without_calls(node, {"select_for_update"})

    @classmethod
    def examples(cls) -> Sequence[Example]:
        return (
            Example("locks.lock_person(1)\n", "pass\n"),
            Example("x = a.select_for_update().get()\n", "x = a.get()\n"),
        )


class RemoveArgument(Removal):
    """Drop a condition of a query, or a named argument of any call."""

    def replacements(self, node: Node) -> Iterator[Change]:
        if node.type != "trailer" or node.children[0].value != "(" or len(node.children) < 3:
            return
        given = node.children[1]
        arguments = [one for one in given.children if _code(one) != ","] if given.type == "arglist" else [given]
        named = _name_before(node)
        for nth, one in enumerate(arguments):
            is_named = one.type == "argument" and _code(one.children[1]) == "="
            if is_named or named in QUERIES:
                others = (*arguments[:nth], *arguments[nth + 1 :])
                yield Change(given, ", ".join(_code(other) for other in others), one)

    @classmethod
    def examples(cls) -> Sequence[Example]:
        return (
            Example("x = a.filter(b, c=1)", "x = a.filter(c=1)"),
            Example("x = a.filter(b, c=1)", "x = a.filter(b)", occurrence=1),
            Example("x = stop(b, is_rejection=True)", "x = stop(b)"),
            Example("x = Q(c=1)", "x = Q()"),
        )


class RemoveNarrowing(Removal):
    """Drop a whole `.filter(...)`, `.live()` or `.order_by(...)` of a chain, or a slice."""

    def replacements(self, node: Node) -> Iterator[Change]:
        if node.type != "atom_expr":
            return
        yield from _without_calls(node, NARROWING)
        for nth, one in enumerate(node.children):
            if one.type == "trailer" and one.children[0].value == "[" and ":" in _code(one.children[1]):
                yield Change(node, _joined(node, nth, nth + 1), one)

    @classmethod
    def examples(cls) -> Sequence[Example]:
        return (
            Example("x = a.filter(b).get()", "x = a.get()"),
            Example("x = a.live().order_by(b)", "x = a.order_by(b)"),
            Example("x = a[:3]", "x = a"),
        )


class RemoveOperand(Removal):
    """Drop one side of `and`, `or`, `&` or `|`, or one element of a list, set or tuple."""

    def replacements(self, node: Node) -> Iterator[Change]:
        if node.type in {"and_test", "or_test", "and_expr", "expr"}:
            for nth in range(0, len(node.children), 2):
                start, stop = (nth, nth + 2) if nth == 0 else (nth - 1, nth + 1)
                yield Change(node, _joined(node, start, stop), node.children[nth])
        elif node.type == "testlist_comp" and not any(one.type.endswith("comp_for") for one in node.children):
            elements = [one for one in node.children if _code(one) != ","]
            for nth in range(len(elements)):
                kept = [_code(one) for other, one in enumerate(elements) if other != nth]
                yield Change(node, ", ".join(kept) + ",", elements[nth])

    @classmethod
    def examples(cls) -> Sequence[Example]:
        return (
            Example("x = a and b", "x = b"),
            Example("x = a and b", "x = a", occurrence=1),
            Example("x = Q(a) | Q(b)", "x = Q(a)", occurrence=1),
            Example("x = [a, b]", "x = [b,]"),
        )


class NeverTrue(Removal):
    """Never take a branch: the guard has no effect. What it calls and binds stays."""

    def replacements(self, node: Node) -> Iterator[Change]:
        if node.type == "if_stmt":
            for nth, one in enumerate(node.children):
                if one.type == "keyword" and one.value in {"if", "elif"}:
                    test = node.children[nth + 1]
                    yield Change(test, f"(({_code(test)}) and False)")
        elif node.type in {"ternary", "test"} and len(node.children) == 5:
            yield Change(node.children[2], f"(({_code(node.children[2])}) and False)")

    @classmethod
    def examples(cls) -> Sequence[Example]:
        return (
            Example("if a:\n    b()\n", "if ((a) and False):\n    b()\n"),
            Example("x = a if b else c", "x = a if ((b) and False) else c"),
        )


class AlwaysTrue(Removal):
    """Keep what a comprehension leaves out, and take a branch of an expression whatever its condition says."""

    def replacements(self, node: Node) -> Iterator[Change]:
        if node.type == "comp_if":
            yield Change(node.children[1], f"(({_code(node.children[1])}) or True)")
        elif node.type in {"ternary", "test"} and len(node.children) == 5:
            yield Change(node.children[2], f"(({_code(node.children[2])}) or True)")

    @classmethod
    def examples(cls) -> Sequence[Example]:
        return (Example("x = [a for a in b if c]", "x = [a for a in b if ((c) or True)]"),)


REMOVALS = (
    RemoveStatement,
    RemoveLock,
    RemoveArgument,
    RemoveNarrowing,
    RemoveOperand,
    NeverTrue,
    AlwaysTrue,
)


class Provider:
    """What cosmic-ray asks for the operators of a name such as `botos/RemoveLock`."""

    _by_name = {one.__name__: one for one in REMOVALS}

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_name)

    def __getitem__(self, name: str) -> type[Removal]:
        return self._by_name[name]


def _code(node: Node) -> str:
    return str(node.get_code(include_prefix=False))


def _joined(node: Node, start: int, stop: int) -> str:
    """The text of a node without its children from `start` to before `stop`."""
    children = [*node.children[:start], *node.children[stop:]]
    return "".join(one.get_code(include_prefix=nth > 0) for nth, one in enumerate(children))


def _without_calls(node: Node, names: set[str]) -> Iterator[Change]:
    """The chain without one call of these names, for each of them."""
    for nth, one in enumerate(node.children[:-1]):
        following = node.children[nth + 1]
        is_attribute = one.type == "trailer" and one.children[0].value == "." and one.children[1].value in names
        if is_attribute and following.type == "trailer" and following.children[0].value == "(":
            yield Change(node, _joined(node, nth, nth + 2), one)


def _name_before(trailer: Node) -> str:
    """The name that is called: the last one before the parenthesis."""
    leaf = trailer.get_previous_leaf()
    return str(leaf.value) if leaf else ""


def _is_lock(call: Node) -> bool:
    calls = [one for one in call.children if one.type == "trailer" and one.children[0].value == "("]
    return any(_name_before(one) in LOCKS for one in calls)
