"""Pages of a real Chromium: their console lines, requests and errors."""

import asyncio
import contextlib
import re
import shutil
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit

import attrs
import pytest
from aiohttp import web
from playwright.async_api import APIResponse, Browser, ConsoleMessage, Locator, Page, Route, WebSocket, expect
from support.hub import Hub
from support.waiting import PATIENCE

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
UNUSED_FEATURES = ("gpu", "background-networking", "component-update", "sync")
ARGUMENTS = ["--no-sandbox", "--no-first-run", *(f"--disable-{feature}" for feature in UNUSED_FEATURES)]
expect.set_options(timeout=PATIENCE * 1000)  # playwright's own limit is 5 s
needs_browser = pytest.mark.skipif(not CHROMIUM, reason="no Chromium here: `apt-get install chromium`")


@attrs.define(slots=False)  # playwright sets attributes on objects whose methods are listeners
class Tab:
    """A page, the lines that its scripts print, its requests and its errors."""

    page: Page
    lines: "asyncio.Queue[str]" = attrs.Factory(asyncio.Queue)
    errors: list[str] = attrs.Factory(list)
    urls: list[str] = attrs.Factory(list)
    received_chars: int = 0  # over WebSockets

    def __attrs_post_init__(self) -> None:
        self.page.set_default_timeout(PATIENCE * 1000)
        self.page.on("console", self._console)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("request", lambda request: self.urls.append(request.url))
        self.page.on("websocket", self._websocket)

    def _console(self, message: ConsoleMessage) -> None:
        self.lines.put_nowait(message.text)
        if message.type in ("error", "warning"):
            self.errors.append(message.text)

    def _websocket(self, socket: WebSocket) -> None:
        self.urls.append(socket.url)
        socket.on("framereceived", self._frame)

    def _frame(self, payload: str | bytes) -> None:
        self.received_chars += len(payload)

    async def until(self, ending: str) -> list[str]:
        """Return the next console lines, up to the first one with this ending."""
        lines: list[str] = []
        async with asyncio.timeout(3 * PATIENCE):
            while not (lines and lines[-1].endswith(ending)):
                lines.append(await self.lines.get())
        return lines

    @property
    def field(self) -> Locator:
        return self.page.get_by_role("textbox", name=re.compile("^(Message|消息)$"))

    async def say(self, message: str) -> None:
        await self.field.fill(message)
        await self.field.press("Enter")

    @property
    def answers(self) -> Locator:
        """The messages of agents."""
        return self.page.locator("article.answer > .md")


@contextlib.asynccontextmanager
async def visit(browser: Browser, url: str, query: str = "", lost: bool = False, **context: Any) -> AsyncIterator[Tab]:
    """Open the hub's page in its own browser context; at the end, check its errors and its requests.

    All requests must go to the hub. *lost*: the test cuts the network, so that the page may have errors.
    """
    async with await browser.new_context(**context) as browser_context:
        tab = Tab(await browser_context.new_page())
        await tab.page.goto(f"{url}/{query}")
        await expect(tab.page.get_by_role("status")).to_have_text(re.compile("Connected|已连接|answering"))
        yield tab
        assert lost or not tab.errors
        assert {urlsplit(address).netloc for address in tab.urls} == {urlsplit(url).netloc}


FRAMES = "() => new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve)))"


@contextlib.asynccontextmanager
async def hold_answer(page: Page, pattern: str) -> AsyncIterator["asyncio.Future[tuple[Route, APIResponse]]"]:
    """Hold the hub's answer to the next request for an address of this pattern until the context ends.

    The future is done when the hub has answered. After the context the page has the answer, and has drawn frames.
    """
    held: asyncio.Future[tuple[Route, APIResponse]] = asyncio.get_running_loop().create_future()

    async def hold(route: Route) -> None:
        held.set_result((route, await route.fetch()))

    await page.route(pattern, hold, times=1)
    yield held
    route, answer = held.result()
    async with page.expect_event("requestfinished", lambda request: request == route.request):
        await route.fulfill(response=answer)
    await page.evaluate(FRAMES)


@contextlib.asynccontextmanager
async def serve_other_origin(script: str) -> AsyncIterator[str]:
    """Serve a page with this script from an origin other than the hub's; yield its URL."""

    async def page(request: web.Request) -> web.Response:
        text = f'<!doctype html><link rel="icon" href="data:,"><script>{script}</script>'
        return web.Response(text=text, content_type="text/html")

    app = web.Application()
    app.router.add_get("/", page)
    async with serve_app(app) as url:
        yield url


@contextlib.asynccontextmanager
async def serve_app(app: web.Application) -> AsyncIterator[str]:
    """Serve an application on a free port; yield its URL."""
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{site.port}/"
    finally:
        await runner.cleanup()


SAYS_AGENT = '''
"""Say the text of a file in random pieces, and wait at each WAIT; the message has the file and a seed."""
import asyncio, pathlib, random

async def says(message: str):
    name, _, seed = message.partition(" ")
    chance = random.Random(int(seed or 0))
    for part, text in enumerate(pathlib.Path(name).read_text().split("WAIT")):
        while part and not pathlib.Path(f"{name}.{part}").exists():
            await asyncio.sleep(0.01)
        while text:
            size = chance.randint(1, 12)
            yield text[:size]
            text = text[size:]
            await asyncio.sleep(0)
'''


async def start_hub(hub: Hub) -> Hub:
    hub.agent("says.py", SAYS_AGENT)
    hub.agent("main.py", "async def main(message: str):\n    for word in message.split():\n        yield word + ' '")
    return await hub.start()
