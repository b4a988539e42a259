"""Rules taken away in the source of their module.

`old` becomes `new` in a copy that is run in the place of the module's functions. So a mutant that no longer fits the
source fails, and is not forgotten.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FunctionType, ModuleType

from identity import linking, pairing_finish
from identity.models import Pairing, PlatformAccount


@dataclass(frozen=True)
class Mutant:
    """`name`: which rule is gone."""

    name: str
    module: ModuleType
    old: str
    new: str
    also: tuple[tuple[str, str], ...] = ()  # what backs the rule, and has to go with it


@contextmanager
def without_its_rule(mutant: Mutant) -> Iterator[None]:
    """The module's functions and constants are those of the changed source, for everybody who calls them."""
    module, source = mutant.module, inspect.getsource(mutant.module)
    for old, new in ((mutant.old, mutant.new), *mutant.also):
        assert old in source, f"{old!r} is no longer in {module.__name__}"
        source = source.replace(old, new)
    changed = ModuleType(module.__name__)
    changed.__dict__.update({"__file__": module.__file__, "_link_at_once": _link_at_once})
    # Its classes stay those that others compare with; dataclasses look their module up.
    sys.modules[module.__name__], original = changed, module
    try:
        exec(compile(source, str(module.__file__), "exec"), changed.__dict__)
    finally:
        sys.modules[module.__name__] = original
    kept = dict(module.__dict__)
    renewed = {name: one for name, one in changed.__dict__.items() if isinstance(one, (FunctionType, str, dict))}
    classes = {name: one for name, one in kept.items() if isinstance(one, type)}
    changed.__dict__.update(classes)
    module.__dict__.update({name: one for name, one in renewed.items() if not name.startswith("__")})
    try:
        yield
    finally:
        module.__dict__.clear()
        module.__dict__.update(kept)


def _link_at_once(request: Pairing, account: PlatformAccount) -> None:
    """What a system with one code does."""
    request.responder = account
    pairing_finish._link(request, account, linking.How("pairing", "nobody"))
