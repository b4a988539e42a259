#!/usr/bin/env bash
# python-telegram-bot 22.8: a 429 whose body is not JSON becomes a NetworkError and not a RetryAfter. The header
# Retry-After, with which proxies and rate limiters in front of the Bot API ask to wait, is not read at all.
# Found with python-telegram-bot 22.8 and httpx 0.28.1 on Python 3.11.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check python-telegram-bot==22.8 httpx==0.28.1 2> /dev/null
"$folder/venv/bin/python" - << 'PYTHON'
import asyncio
import logging
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import telegram
from telegram.error import NetworkError, RetryAfter

logging.disable(logging.CRITICAL)
BODIES = {
    "application/json": b'{"ok":false,"error_code":429,"description":"slow down","parameters":{"retry_after":7}}',
    "text/plain": b"slow down",
}


class Limiter(BaseHTTPRequestHandler):
    kind = ""

    def do_POST(self):
        body = BODIES[self.kind]
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.send_response(429)
        self.send_header("Retry-After", "7")
        self.send_header("Content-Type", self.kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


async def raised(port):
    bot = telegram.Bot("1:a", base_url=f"http://127.0.0.1:{port}/bot")
    try:
        await bot.send_message(chat_id=1, text="hello")
    except telegram.error.TelegramError as error:
        return type(error)


server = HTTPServer(("127.0.0.1", 0), Limiter)
threading.Thread(target=server.serve_forever, daemon=True).start()
found = {}
for Limiter.kind in BODIES:
    found[Limiter.kind] = asyncio.run(raised(server.server_port))
    print(f"python-telegram-bot {telegram.__version__}: 429 as {Limiter.kind} raises {found[Limiter.kind].__name__}")
assert found == {"application/json": RetryAfter, "text/plain": NetworkError}, found
PYTHON
