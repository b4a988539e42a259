#!/usr/bin/env bash
# slack_sdk 3.47.0: an answer with status 200 that is not JSON (a proxy's or a captive portal's page) makes AsyncWebClient
# raise AttributeError, which is neither a SlackApiError nor an error of aiohttp; the synchronous WebClient raises
# SlackApiError for the same answer. Code that catches SlackApiError and aiohttp.ClientError lets it through.
# Found with slack_sdk 3.47.0 and aiohttp 3.14.5 on Python 3.11.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check slack_sdk==3.47.0 aiohttp==3.14.5 2> /dev/null
"$folder/venv/bin/python" - << 'PYTHON'
import asyncio
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

from slack_sdk import WebClient
from slack_sdk.version import __version__
from slack_sdk.web.async_client import AsyncWebClient


class Portal(BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", "7")
        self.end_headers()
        self.wfile.write(b"sign in")

    def log_message(self, *_):
        pass


async def in_async(url):
    try:
        await AsyncWebClient("xoxb-1", base_url=url).auth_test()
    except Exception as error:
        return type(error).__name__


def in_sync(url):
    try:
        WebClient("xoxb-1", base_url=url).auth_test()
    except Exception as error:
        return type(error).__name__


server = HTTPServer(("127.0.0.1", 0), Portal)
threading.Thread(target=server.serve_forever, daemon=True).start()
url = f"http://127.0.0.1:{server.server_port}/api/"
found = asyncio.run(in_async(url)), in_sync(url)
print(f"slack_sdk {__version__}: text/plain with 200 raises {found[0]} (async) and {found[1]} (sync)")
assert found == ("AttributeError", "SlackApiError"), found
PYTHON
