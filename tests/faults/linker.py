"""Links and unlinks as a deployer's own code does: `link PLATFORM ID PERSON` or `unlink PLATFORM ID`, one a line."""

from __future__ import annotations

import sys

import botos_project.setup  # noqa: F401 - makes Django ready
from identity.resolvers import DatabaseIdentityResolver


def main() -> None:
    resolver = DatabaseIdentityResolver()
    for line in sys.stdin:
        order, *words = line.split()
        if order == "link":
            resolver.link(*words)
        else:
            resolver.unlink(*words)


if __name__ == "__main__":
    main()
