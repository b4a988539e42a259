"""Other projects in environments of their own, at fixed versions."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from tests.bench.measuring import Sample

# By the name that peer.py knows. What these need themselves is not fixed.
REQUIREMENTS = {
    "praisonai": ("praisonaiagents==1.7.17", "praisonai-bot==0.1.16"),
    "nanobot": ("nanobot-ai==0.3.5",),
    "hermes": ("hermes-agent==0.19.0",),
}
_SCRIPT = Path(__file__).resolve().parent / "peer.py"


class NotInstalled(Exception):
    """A peer could not be installed or run. The text says why."""


class Peers:
    """Installs each peer when it is first measured."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._python = cache(self._install)

    def sample(self, name: str, options: Mapping[str, object]) -> Sample:
        """Measure a peer with an empty home. Raises NotInstalled."""
        python = self._python(name)
        with tempfile.TemporaryDirectory(prefix=f"{name}-", dir=self._folder) as home:
            variables = dict.fromkeys(("HOME", "PRAISONAI_HOME", "HERMES_HOME"), home) | {"PATH": os.environ["PATH"]}
            command = [str(python), "-P", str(_SCRIPT), name, json.dumps(options)]
            output = _run(command, home, variables)
        sample: Sample = json.loads(output.splitlines()[-1])
        return sample

    def _install(self, name: str) -> Path:
        environment = self._folder / name
        python = environment / "bin" / "python"
        _run([sys.executable, "-m", "venv", str(environment)], str(self._folder), os.environ)
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *REQUIREMENTS[name]]
        _run(pip, str(self._folder), os.environ)
        return python


def _run(command: list[str], folder: str, environment: Mapping[str, str]) -> str:
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise NotInstalled((done.stderr.strip() or "no message").splitlines()[-1])
    return done.stdout


@contextmanager
def peers() -> Iterator[Peers]:
    with tempfile.TemporaryDirectory(prefix="botos-bench-peers-") as folder:
        yield Peers(Path(folder))
