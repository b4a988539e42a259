"""How long a turn takes, whether that grows with history, and how many people can be answered at once.

`python -m tests.bench` makes databases of its own, measures, prints tables and removes the databases.
"""

from __future__ import annotations

import os

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")
django.setup()
