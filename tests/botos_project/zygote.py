"""Runs many commands, each in a process of its own that does not have to import everything again.

Reads a JSON list of {"program", "environment"} from stdin; writes a list of [status, stderr] to stdout. A program is
what follows `python`: a file with arguments, or -m or -c with theirs.
"""

from __future__ import annotations

import json
import os
import runpy
import sys
import tempfile
from collections.abc import Callable

import discord  # noqa: F401 - what takes long to import, and reads no settings
import rq  # noqa: F401
import slack_sdk  # noqa: F401
import telegram  # noqa: F401
import uvicorn  # noqa: F401


def run(program: list[str], environment: dict[str, str]) -> tuple[int, str]:
    with tempfile.TemporaryFile("w+") as output:
        sys.stdout.flush()
        child = os.fork()
        if child == 0:
            os.dup2(output.fileno(), 2)
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            os.environ.clear()
            os.environ.update(environment)
            os._exit(status_of(lambda: execute(program)))
        _, ended = os.waitpid(child, 0)
        output.seek(0)
        return os.waitstatus_to_exitcode(ended), output.read()


def execute(program: list[str]) -> None:
    if program[0] == "-c":
        exec(compile(program[1], "script.py", "exec"), {"__name__": "__main__"})
    elif program[0] == "-m":
        sys.argv = program[1:]
        runpy.run_module(program[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = program
        runpy.run_path(program[0], run_name="__main__")


def status_of(work: Callable[[], object]) -> int:
    """As Python's own end of a program: what is not caught goes to the hook, which may choose the status."""
    try:
        work()
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else int(bool(ended.code))
    except BaseException:  # noqa: BLE001 - Python gives any of them to the hook
        error = sys.exc_info()
        return status_of(lambda: sys.excepthook(*error)) or 1
    finally:
        sys.stderr.flush()
    return 0


if __name__ == "__main__":
    sys.path.insert(0, os.getcwd())  # noqa: PTH109
    json.dump([run(one["program"], one["environment"]) for one in json.load(sys.stdin)], sys.stdout)
