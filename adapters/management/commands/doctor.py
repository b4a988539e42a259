"""`manage.py doctor`: looks at everything, says what is wrong and what to do. Shows no secret."""

from __future__ import annotations

import json
import sys
from argparse import ArgumentParser
from dataclasses import asdict
from typing import Any

from django.core.management.base import BaseCommand

from adapters.monitoring import diagnostics


class Command(BaseCommand):
    help = "Check configuration, tokens, database, Redis, leases, lag and clock. Exit status 1 if anything is wrong."
    requires_system_checks: list[str] = []  # it reports them itself

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--online", action="store_true", help="also ask the platforms and the model")
        parser.add_argument("--json", action="store_true", help="print JSON")

    def handle(self, *args: Any, **options: Any) -> None:
        found = list(diagnostics.findings(online=options["online"]))
        problems = [finding for finding in found if finding.hint]
        if options["json"]:
            report = {"healthy": not problems, "findings": [asdict(finding) for finding in found]}
            self.stdout.write(json.dumps(report, indent=2))
        else:
            for finding in found:
                self._show(finding)
        if problems:
            sys.exit(1)

    def _show(self, finding: diagnostics.Finding) -> None:
        sign = "PROBLEM" if finding.hint else "ok"
        self.stdout.write(f"{sign:8}{finding.about}: {finding.detail}")
        if finding.hint:
            self.stdout.write(f"{'':8}{finding.hint}")
