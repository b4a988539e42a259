"""Every page in a real browser: no complaint in its console, no barrier that axe-core knows, and in nobody's frame."""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import APIResponse, Browser, BrowserContext, Page, Request

from tests import pages
from tests.browser.visitor import PICTURES, Site

pytestmark = pytest.mark.browser

AXE = (Path(__file__).parent / "vendor/axe-core/axe.min.js").read_text(encoding="utf-8")
SIZES = {
    "1200-light": (1200, "light"),
    "360-dark": (360, "dark"),
    "1200-dark": (1200, "dark"),
    "360-light": (360, "light"),
}
STOCK = "/admin/"  # pages of Django
SAME_AGAIN = re.compile(r"/admin/auth/|/history/$|/delete/$")  # Django's own throughout: only the console is read
# What Django's templates and scripts get wrong, wherever they are used: the search field has no label but an icon, two
# halves of a time share one, and an icon is named that has no role.
DJANGOS = re.compile(r'id="searchbar"|help-tooltip search-label-icon|id="id_\w+_[01]"')


@pytest.fixture(scope="module")
def furnished(db: None) -> tuple[dict[str, str], list[str]]:
    return pages.furnish(), pages.addresses()


@pytest.fixture(scope="module")
def settings_of_site() -> dict[str, str]:
    return {"arguments": "--playground"}


def context_of(visitor: str, browser: Browser, site: Site) -> BrowserContext:
    context = browser.new_context(reduced_motion="reduce", base_url=site.base)
    context.set_default_timeout(20_000)
    keys, _addresses = site.furnished
    if keys[visitor]:
        context.add_cookies([{"name": "sessionid", "value": keys[visitor], "url": site.base}])
    return context


def addresses_for(context: BrowserContext, site: Site) -> list[str]:
    """The addresses that this visitor gets as a page."""
    _keys, addresses = site.furnished
    return [address for address in addresses if _is_page(context.request.get(address, max_redirects=0))]


def _is_page(answer: APIResponse) -> bool:
    """And no part of one."""
    return answer.status == 200 and answer.body()[:15].lower() == b"<!doctype html>"


def complaints_of(page: Page) -> list[str]:
    heard: list[str] = []
    page.on("console", lambda message: heard.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: heard.append(str(error)))
    page.on("requestfailed", lambda request: _note_failure(heard, request))
    return heard


def _note_failure(heard: list[str], request: Request) -> None:
    """What a page was still asking for when it was left has not failed."""
    if request.failure != "net::ERR_ABORTED":
        heard.append(f"failed: {request.url}")


# Colours that fade, as in the admin, are taken at their end. In another width or scheme the same elements are there, so
# of the rules those are asked again for which it makes a difference.
LOOK = """async (only) => {
    await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
    document.getAnimations().forEach((one) => one.finish());
    const rules = only.length ? { runOnly: { type: 'rule', values: only } } : {};
    const { violations } = await axe.run({ preload: false, resultTypes: ['violations'], ...rules });
    const found = violations.flatMap(({ id, impact, nodes }) => nodes.map(({ html }) => [id, impact, html]));
    return [found, document.documentElement.scrollWidth];
}"""
OF_A_SIZE = ["color-contrast", "link-in-text-block", "scrollable-region-focusable", "target-size"]


def problems_at(page: Page, width: int, scheme: Any, rules: list[str]) -> list[str]:
    """What axe-core calls serious or critical, and whether something sticks out at the side."""
    page.set_viewport_size({"width": width, "height": 900})
    page.emulate_media(color_scheme=scheme)
    found, stretch = page.evaluate(LOOK, rules)
    bad = [(rule, html) for rule, impact, html in found if impact in ("serious", "critical")]
    problems = [f"{rule}: {html[:150]}" for rule, html in bad if not DJANGOS.search(html)]
    return [*problems, *([f"{stretch} pixels wide"] if stretch > width else [])]


def _sizes(address: str) -> list[tuple[str, tuple[int, str]]]:
    """Each width and each scheme once, and one of both for a page of Django; all four where pictures are asked for."""
    sizes = list(SIZES.items())
    if SAME_AGAIN.search(address):
        return []
    if PICTURES:
        return sizes
    return [sizes[len(address) % 2]] if address.startswith(STOCK) else sizes[:2]


def _is_looked_at(visitor: str, address: str) -> bool:
    """The operator's own pages; what everybody has, the others have seen. Everything where pictures are asked for."""
    return bool(PICTURES) or visitor != "carol" or (address.startswith(STOCK) and not SAME_AGAIN.search(address))


@pytest.mark.parametrize("visitor", ["stranger", "alice", "carol"])
def test_it_can_be_used_by_everybody(site: Site, chromium: Browser, visitor: str) -> None:
    context, problems = context_of(visitor, chromium, site), []
    addresses = addresses_for(context, site)
    page = context.new_page()
    heard = complaints_of(page)

    for address in filter(partial(_is_looked_at, visitor), addresses):
        page.goto(address)
        page.evaluate("document.fonts.ready.then(() => null)")  # and all that was said until then is heard
        problems += [f"{address} {complaint}" for complaint in heard]  # before axe-core, which has styles of its own
        for nth, (name, (width, scheme)) in enumerate(_sizes(address)):
            if not nth:
                page.evaluate(AXE)
            found = problems_at(page, width, scheme, OF_A_SIZE if nth else [])
            problems += [f"{address} {name} {problem}" for problem in found]
            if PICTURES:
                page.screenshot(path=f"{PICTURES}/{visitor}{address.replace('/', '-')}{name}.png", full_page=True)
        heard.clear()

    assert {"/", "/pair/", "/playground/"} < set(addresses)
    context.close()
    assert not problems, "\n".join(problems)


def test_it_finds_what_is_wrong(chromium: Browser) -> None:
    page = chromium.new_page()
    page.set_content("<html lang=en><title>x</title><main><h1>x</h1><input><p style='width:2000px'>x</p></main>")

    page.evaluate(AXE)
    [label, width] = problems_at(page, 360, "light", [])
    assert label.startswith("label: ")
    assert "pixels wide" in width
    page.close()


def test_it_finds_what_is_wrong_in_one_scheme_alone(chromium: Browser) -> None:
    """Also among colours that fade in."""
    page = chromium.new_page()
    fading = "p { color: #000; transition: color 9s } @media (prefers-color-scheme: dark) { p { color: #eee } }"
    page.set_content(f"<html lang=en><title>x</title><style>{fading}</style><main><h1>x</h1><p>octarine</p></main>")
    page.evaluate(AXE)

    assert problems_at(page, 1200, "light", []) == []
    [contrast] = problems_at(page, 1200, "dark", OF_A_SIZE)
    assert contrast.startswith("color-contrast: ")
    page.close()


@contextlib.contextmanager
def another_site(folder: Path) -> Iterator[str]:
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_it_is_in_nobodys_frame(site: Site, chromium: Browser, tmp_path: Path) -> None:
    context = context_of("carol", chromium, site)
    addresses = addresses_for(context, site)
    (tmp_path / "own.html").write_text("<p>own")
    frames = "".join(f'<iframe src="{site.base}{address}"></iframe>' for address in addresses)
    (tmp_path / "index.html").write_text(f'<iframe src="own.html"></iframe>{frames}')

    with another_site(tmp_path) as other_site:
        page = context.new_page()
        page.goto(f"{other_site}/index.html", wait_until="load")
        shown = [frame.url for frame in page.frames[1:]]
        context.close()

    assert shown[0] == f"{other_site}/own.html"  # it can frame what lets itself be framed
    assert len(shown) == len(addresses) + 1
    assert set(shown[1:]) == {"chrome-error://chromewebdata/"}
