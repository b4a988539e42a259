"""Python programs in processes of their own that do not have to import everything again.

One process per test run has imported what takes long and reads no settings. For each program it forks, and the child
goes on as `python PROGRAM` would, with an environment, streams and an exit of its own. A program is what follows
`python`: a file with arguments, or -m or -c with theirs.
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import warnings
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import IO, Any, NoReturn

PROJECT = Path(__file__).resolve().parent.parent
IMPORTED = """
    aiohttp anyio._backends._asyncio channels.generic.websocket channels.routing channels_redis.core croniter
    csp.middleware discord discord.ext.commands django.contrib.admin.options django.contrib.auth.hashers
    django.contrib.sessions.middleware django.contrib.staticfiles.finders django.contrib.staticfiles.handlers
    django.core.asgi django.core.management.commands.migrate django.db.backends.sqlite3.base
    django.db.models.sql.compiler django.middleware.common django.template.defaulttags
    django.template.loader_tags django.views.generic httpcore httpx psycopg psycopg_pool rq segno
    slack_bolt.adapter.socket_mode.aiohttp slack_bolt.async_app slack_sdk.web.async_client telegram.ext
    uvicorn.lifespan.on uvicorn.loops.auto uvicorn.main uvicorn.protocols.http.h11_impl
    uvicorn.protocols.websockets.websockets_sansio_impl whitenoise.middleware
"""


class Forked:
    """A program that runs, with as much of subprocess.Popen as tests need."""

    def __init__(self, pid: int, ended: socket.socket, stdin: IO[str] | None, stdout: IO[str] | None) -> None:
        self.pid, self.stdin, self.stdout = pid, stdin, stdout
        self.returncode: int | None = None
        self._ended = ended
        self._reading = threading.Lock()

    def wait(self, timeout: float | None = None) -> int:
        """The exit status; negative for a signal."""
        with self._reading:
            if self.returncode is None:
                self._ended.settimeout(timeout)
                try:
                    word = self._ended.recv(16)
                except (TimeoutError, BlockingIOError):
                    raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0.0) from None
                self._ended.close()
                self.returncode = int(word or b"-9")
            return self.returncode

    def poll(self) -> int | None:
        try:
            return self.wait(0.0)
        except subprocess.TimeoutExpired:
            return None

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def start(
    program: Sequence[object],
    *,
    environment: Mapping[str, str],
    stdin: int | None = None,
    stdout: int | None = None,
    stderr: int | None = None,
    folder: Path = PROJECT,
) -> Forked:
    """Begin a program. The streams are as for subprocess.Popen, in text; a file is given by its number."""
    given, kept = _pipe(stdin, writes=True)
    output, read = _pipe(stdout, writes=False)
    errors = output if stderr == subprocess.STDOUT else _opened(stderr, 2)
    theirs, ours = socket.socketpair()
    order = {"program": [str(word) for word in program], "environment": dict(environment), "folder": str(folder)}
    pid = _zygote().fork(order, [theirs.fileno(), given, output, errors])
    theirs.close()
    for number in {given, output, errors} - {0, 1, 2, stdin, stdout, stderr}:
        os.close(number)
    return Forked(pid, ours, kept, read)


def run(
    program: Sequence[object],
    *,
    environment: Mapping[str, str],
    told: str = "",
    timeout: float = 120.0,
    check: bool = False,
    folder: Path = PROJECT,
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end, as subprocess.run does with `capture_output` and `text`."""
    with _temporary() as output, _temporary() as errors, _temporary(told) as given:
        streams = {"stdin": given.fileno(), "stdout": output.fileno(), "stderr": errors.fileno()}
        process = start(program, environment=environment, folder=folder, **streams)
        try:
            status = process.wait(timeout)
        finally:
            process.kill()
            process.wait()
        output.seek(0)
        errors.seek(0)
        done = subprocess.CompletedProcess([str(word) for word in program], status, output.read(), errors.read())
    if check and status:
        raise AssertionError(f"{done.args} ended with {status}:\n{done.stdout}{done.stderr}")
    return done


def _temporary(text: str = "") -> IO[str]:
    file = tempfile.TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115 - its user closes it
    file.write(text)
    file.seek(0)
    return file


def _pipe(wanted: int | None, *, writes: bool) -> tuple[int, IO[str] | None]:
    """The child's end, and ours."""
    if wanted != subprocess.PIPE:
        return _opened(wanted, 0 if writes else 1), None
    reading, writing = os.pipe()
    if writes:
        return reading, os.fdopen(writing, "w", encoding="utf-8")
    return writing, os.fdopen(reading, encoding="utf-8")


def _opened(wanted: int | None, own: int) -> int:
    if wanted == subprocess.DEVNULL:
        return os.open(os.devnull, os.O_RDWR)
    return own if wanted is None else wanted


class _Zygote:
    """Our side of the process that forks."""

    def __init__(self) -> None:
        theirs, self._control = socket.socketpair()
        self._one_at_a_time = threading.Lock()
        command = [sys.executable, "-m", "tests.zygote", str(theirs.fileno())]
        self._process = subprocess.Popen(command, cwd=PROJECT, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)
        theirs.close()

    def fork(self, order: dict[str, Any], streams: list[int]) -> int:
        words = json.dumps(order).encode()
        with self._one_at_a_time:
            socket.send_fds(self._control, [len(words).to_bytes(4, "big")], streams)
            self._control.sendall(words)
            return int.from_bytes(_exactly(self._control, 4), "big")

    def end(self) -> None:
        self._control.close()
        self._process.wait()


@cache
def _zygote() -> _Zygote:
    made = _Zygote()
    atexit.register(made.end)
    return made


def _exactly(source: socket.socket, count: int) -> bytes:
    found = b""
    while len(found) < count:
        more = source.recv(count - len(found))
        if not more:
            raise EOFError("the zygote has ended")
        found += more
    return found


# --- The other side


def _serve(control: socket.socket) -> dict[str, Any]:
    """Fork for each order. Returns in the child, with the order; the parent never returns."""
    running: dict[int, socket.socket] = {}
    woken, wake = os.pipe()
    os.set_blocking(woken, False)
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    waited_for: list[Any] = [control, woken]
    while True:
        ready, _, _ = select.select(waited_for, [], [])
        if woken in ready:
            os.read(woken, 512)
            _tell_ended(running)
        if control not in ready:
            continue
        head, descriptors, _, _ = socket.recv_fds(control, 4, 4)
        if not head:
            os._exit(0)
        ended, *streams = descriptors
        order: dict[str, Any] = json.loads(_exactly(control, int.from_bytes(head, "big")))
        pid = os.fork()
        if not pid:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            _keep_only(streams, without=[woken, wake, ended, *(one.detach() for one in (control, *running.values()))])
            return order
        running[pid] = socket.socket(fileno=ended)
        for stream in streams:
            os.close(stream)
        control.sendall(pid.to_bytes(4, "big"))


def _keep_only(streams: list[int], without: list[int]) -> None:
    """Make these the standard streams, and close what is the zygote's."""
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
    for one in (*streams, *without):
        os.close(one)


def _tell_ended(running: dict[int, socket.socket]) -> None:
    while running:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if not pid:
            return
        with running.pop(pid) as ended:
            try:
                ended.sendall(str(os.waitstatus_to_exitcode(status)).encode())
            except OSError:  # nobody waits for it any more
                continue


def _become(order: dict[str, Any]) -> None:
    os.environ.clear()
    os.environ.update(order["environment"])
    os.chdir(order["folder"])
    if os.environ.get("PYTHONWARNINGS") == "ignore":
        warnings.simplefilter("ignore")
    sys.path[1:1] = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
    program: list[str] = order["program"]
    if program[0] == "-c":
        sys.argv = ["-c", *program[2:]]
        sys.path[0] = ""
        exec(compile(program[1], "<string>", "exec"), {"__name__": "__main__"})
    elif program[0] == "-m":
        sys.argv = program[1:]
        runpy.run_module(program[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = program
        sys.path[0] = str(Path(program[0]).resolve().parent)
        runpy.run_path(program[0], run_name="__main__")


def main() -> NoReturn:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in IMPORTED.split():
            import_module(name)
    gc.collect()
    gc.freeze()  # so that children share these pages
    _become(_serve(socket.socket(fileno=int(sys.argv[1]))))
    sys.exit()


if __name__ == "__main__":
    main()
