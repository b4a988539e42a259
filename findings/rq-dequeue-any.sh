#!/usr/bin/env bash
# rq 3.0.0: the docstring of Queue.dequeue_any says that it returns None when nothing comes within the timeout. It raises
# rq.exceptions.DequeueTimeout instead; None comes only without a timeout. And a job that expired in the queue is skipped
# without a word, but its id stays in the list rq:queue:NAME:intermediate, which Worker.run_maintenance_tasks clears
# when the id has been there for a minute.
# A loop of one's own therefore has to catch DequeueTimeout, and to run the maintenance tasks.
# Found with rq 3.0.0, redis 8.1.0 (the client) and a Redis server 7 on Python 3.11. Needs redis-server.
set -euo pipefail
folder="$(mktemp -d)"
trap 'kill "$(cat "$folder/pid" 2> /dev/null)" 2> /dev/null || true; rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check rq==3.0.0 redis==8.1.0 2> /dev/null
redis-server --port 0 --unixsocket "$folder/redis.sock" --save "" --dir "$folder" --pidfile "$folder/pid" \
    --daemonize yes > /dev/null
"$folder/venv/bin/python" - "$folder/redis.sock" << 'PYTHON'
import sys
import time
from importlib.metadata import version

from redis import Redis
from redis.exceptions import ConnectionError
from rq import Queue
from rq.exceptions import DequeueTimeout

connection = Redis(unix_socket_path=sys.argv[1])
for _ in range(100):
    try:
        connection.ping()
        break
    except ConnectionError:
        time.sleep(0.05)

queue, other = Queue("one", connection=connection), Queue("two", connection=connection)

said = " ".join((Queue.dequeue_any.__doc__ or "").split())
assert "returns None" in said or "return None" in said or "or returns None" in said, said


def outcome(queues, timeout):
    try:
        return repr(Queue.dequeue_any(queues, timeout, connection))
    except DequeueTimeout as error:
        return type(error).__name__


empty = {name: outcome(queues, 1) for name, queues in (("one queue", [queue]), ("two queues", [queue, other]))}
at_once = outcome([queue], None)

job = queue.enqueue_call("os.getcwd")
connection.delete(job.key)  # what Redis does by itself when the job's ttl is over
expired = outcome([queue], None)
left = [one.decode() for one in connection.lrange(queue.intermediate_queue_key, 0, -1)]

print(f"rq {version('rq')}: an empty queue, timeout 1 s: {empty}; without a timeout: {at_once}")
print(f"an expired job: {expired}; ids left in {queue.intermediate_queue_key}: {len(left)}")
assert empty == {"one queue": "DequeueTimeout", "two queues": "DequeueTimeout"}, empty
assert at_once == "None", at_once
assert (expired, left) == ("None", [job.id]), (expired, left)
PYTHON
