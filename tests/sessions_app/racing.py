"""Several who do something in the same moment."""

from __future__ import annotations

import threading
from collections.abc import Callable

from django.db import connections


def at_once(*jobs: Callable[[], object]) -> tuple[list[object], list[Exception]]:
    """Run the jobs in threads that start together. What they returned and what they raised."""
    together = threading.Barrier(len(jobs))
    returned: list[object] = []
    raised: list[Exception] = []

    def run(job: Callable[[], object]) -> None:
        try:
            together.wait(10)
            returned.append(job())
        except Exception as error:  # noqa: BLE001 - pytest does not look into threads
            raised.append(error)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=run, args=(job,)) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    return returned, raised
