#!/usr/bin/env bash
# redis 8.1.0 (redis.asyncio) on Python 3.11: a task that is cancelled while it sends a command does not end if the client
# has a socket_timeout, which is 5 seconds unless one is given. The command is carried out, the cancellation is lost, and
# the task goes on. The client sends with asyncio.wait_for, which loses it up to Python 3.11; asyncio.timeout does not.
# A loop that listens until it is cancelled therefore needs socket_timeout=None, and a limit of its own elsewhere.
# Found with redis 8.1.0 and a Redis server 7 on Python 3.11. Python 3.12 loses none. Needs redis-server.
set -euo pipefail
folder="$(mktemp -d)"
trap 'kill "$(cat "$folder/pid" 2> /dev/null)" 2> /dev/null || true; rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check redis==8.1.0 2> /dev/null
redis-server --port 0 --unixsocket "$folder/redis.sock" --save "" --dir "$folder" --pidfile "$folder/pid" \
    --daemonize yes > /dev/null
"$folder/venv/bin/python" - "$folder/redis.sock" << 'PYTHON'
import asyncio
import platform
import sys
from importlib.metadata import version

from redis.asyncio import Redis
from redis.exceptions import ConnectionError

TRIES = 40


async def lost(**options):
    """At how many of the first steps of a command a cancellation of its task is lost."""
    client = Redis(unix_socket_path=sys.argv[1], **options)
    for _ in range(100):
        try:
            await client.ping()
            break
        except ConnectionError:
            await asyncio.sleep(0.05)
    count = 0
    for steps in range(TRIES):
        task = asyncio.create_task(client.ping())
        for _ in range(steps):
            await asyncio.sleep(0)
        if task.done():
            break
        task.cancel()
        await asyncio.wait({task})
        count += not task.cancelled()
    await client.aclose()
    return count


limited, unlimited = asyncio.run(lost()), asyncio.run(lost(socket_timeout=None))
print(f"redis {version('redis')}, Python {platform.python_version()}: cancellations lost with the default socket_timeout")
print(f"at {limited} of the first steps of a command; with socket_timeout=None at {unlimited}")
assert unlimited == 0, unlimited
assert (limited > 0) == (sys.version_info < (3, 12)), limited
PYTHON
