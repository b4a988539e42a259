#!/usr/bin/env python
from __future__ import annotations

import os
import sys

if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "botos_project.settings")
    from botos_project import mistakes

    mistakes.explain()
    mistakes.Management(sys.argv).execute()
