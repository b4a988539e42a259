"""How much of the window an agent gets: the newest lines that BOTOS_WINDOW_TOKENS has room for."""

from __future__ import annotations

import hashlib
import logging
import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from django.conf import settings

from sessions_app.messages import Line

if TYPE_CHECKING:
    from tiktoken import Encoding

log = logging.getLogger(__name__)
# Of UTF-8, whatever the script: English and code have 4 bytes for a token, most other scripts from 2.5 to 5.
BYTES_PER_TOKEN = 3
TOKENS_PER_LINE = 4  # around the words of each: who said them
# tiktoken downloads the file of an encoding unless it is on disk and whole. No turn waits for that, and a server may
# have no way out, so the file is checked first.
_ADDRESS = "https://openaipublic.blob.core.windows.net/encodings/{}.tiktoken"
_SHA256 = {
    "o200k_base": "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d",
    "cl100k_base": "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7",
}
_encodings: dict[str, Encoding | None] = {}  # by model; None while one is loaded, and where there is none
os.register_at_fork(after_in_child=_encodings.clear)  # the thread that loads one does not survive a fork


def newest_that_fit(lines: Sequence[Line], text: str) -> tuple[Line, ...]:
    """The newest of these lines that have room beside the question `text`, oldest first.

    They are lines in a row: none before the first that is too long. Tokens are those of BOTOS_MODEL where tiktoken
    knows it and has its encoding on disk, else an estimate.
    """
    if not settings.BOTOS_WINDOW_TOKENS:
        return tuple(lines)
    # A token has at least one byte, so most windows need no count.
    words = "".join([text, *(line.text + line.author for line in lines)])
    if len(words.encode()) + TOKENS_PER_LINE * len(lines) <= settings.BOTOS_WINDOW_TOKENS:
        return tuple(lines)
    room = settings.BOTOS_WINDOW_TOKENS - count(text)
    for kept, line in enumerate(reversed(lines)):
        room -= count(line.text) + count(line.author) + TOKENS_PER_LINE
        if room < 0:
            return tuple(lines[len(lines) - kept :])
    return tuple(lines)


def count(text: str) -> int:
    """How many tokens a text has for BOTOS_MODEL, or about how many. It never waits for the disk or a network."""
    model = settings.BOTOS_MODEL.partition(":")[2].rpartition("/")[2]  # openrouter:openai/gpt-5
    if model and model not in _encodings:
        _encodings[model] = None
        threading.Thread(target=_load, args=(model,), name=f"load-encoding-{model}", daemon=True).start()
    if encoding := _encodings.get(model):
        return len(encoding.encode_ordinary(text))
    return -(-len(text.encode()) // BYTES_PER_TOKEN)


def _load(model: str) -> None:
    """Load the encoding of a model, if tiktoken knows it and it is on disk. It takes half a second and 80 MB."""
    try:
        import tiktoken

        name = tiktoken.encoding_name_for_model(model)
        base = "o200k_base" if name == "o200k_harmony" else name
        # Where tiktoken itself looks, under this name.
        folder = Path(os.environ["TIKTOKEN_CACHE_DIR"])
        file = folder / hashlib.sha1(_ADDRESS.format(base).encode(), usedforsecurity=False).hexdigest()
        if hashlib.sha256(file.read_bytes()).hexdigest() != _SHA256[base]:
            raise ValueError(f"{file} is not the encoding {base}")
        _encodings[model] = tiktoken.get_encoding(name)
    except (ImportError, KeyError, OSError, ValueError) as error:
        log.info("tokens of %s are estimated: %s", model, error)
    else:
        log.info("tokens of %s are counted with %s", model, name)
