"""A real Chromium, and what its pages print, ask for and get wrong."""

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
from playwright.async_api import Browser, ConsoleMessage, Locator, Page, WebSocket, expect
from support.hub import Hub
from support.waiting import PATIENCE

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
QUIET = ("gpu", "background-networking", "component-update", "sync")
ARGUMENTS = ["--no-sandbox", "--no-first-run", *(f"--disable-{what}" for what in QUIET)]
needs_browser = pytest.mark.skipif(not CHROMIUM, reason="no Chromium here: `apt-get install chromium`")


@attrs.define(slots=False)  # playwright puts marks on whoever listens
class Tab:
    """A page, what its scripts print, and what it asks for."""

    page: Page
    printed: "asyncio.Queue[str]" = attrs.Factory(asyncio.Queue)
    wrong: list[str] = attrs.Factory(list)
    asked: list[str] = attrs.Factory(list)
    heard: int = 0  # characters over WebSockets

    def __attrs_post_init__(self) -> None:
        self.page.set_default_timeout(PATIENCE * 1000)
        self.page.on("console", self._console)
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.on("websocket", self._websocket)

    def _console(self, message: ConsoleMessage) -> None:
        self.printed.put_nowait(message.text)
        if message.type in ("error", "warning"):
            self.wrong.append(message.text)

    def _websocket(self, socket: WebSocket) -> None:
        self.asked.append(socket.url)
        socket.on("framereceived", self._frame)

    def _frame(self, payload: str | bytes) -> None:
        self.heard += len(payload)

    async def until(self, ending: str) -> list[str]:
        """Return the lines that are printed, to the first with that ending."""
        lines: list[str] = []
        async with asyncio.timeout(3 * PATIENCE):
            while not (lines and lines[-1].endswith(ending)):
                lines.append(await self.printed.get())
        return lines

    @property
    def field(self) -> Locator:
        return self.page.get_by_role("textbox", name=re.compile("^(Message|消息)$"))

    async def say(self, message: str) -> None:
        await self.field.fill(message)
        await self.field.press("Enter")

    @property
    def answers(self) -> Locator:
        """What the agents have said; each message one of it."""
        return self.page.locator("article.answer > .md")


@contextlib.asynccontextmanager
async def visit(browser: Browser, url: str, query: str = "", lost: bool = False, **context: Any) -> AsyncIterator[Tab]:
    """Open the hub's page in a context of its own; at the end nothing may have gone wrong on it.

    And nothing may have been asked of anyone else. *lost*: the test takes the network away, which a browser reports.
    """
    async with await browser.new_context(**context) as own:
        tab = Tab(await own.new_page())
        await tab.page.goto(f"{url}/{query}")
        await expect(tab.page.get_by_role("status")).to_have_text(re.compile("Connected|已连接|answering"))
        yield tab
        assert lost or not tab.wrong
        assert {urlsplit(address).netloc for address in tab.asked} == {urlsplit(url).netloc}


@contextlib.asynccontextmanager
async def elsewhere(script: str) -> AsyncIterator[str]:
    """Serve a page with that script from an origin that is not the hub's; yield its address."""

    async def page(request: web.Request) -> web.Response:
        text = f'<!doctype html><link rel="icon" href="data:,"><script>{script}</script>'
        return web.Response(text=text, content_type="text/html")

    app = web.Application()
    app.router.add_get("/", page)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{site.port}/"
    finally:
        await runner.cleanup()


SAYS = '''
"""Says what the file holds that the message names, in pieces that a seed draws; waits where it says WAIT."""
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


async def started(hub: Hub) -> Hub:
    hub.agent("says.py", SAYS)
    hub.agent("main.py", "async def main(message: str):\n    for word in message.split():\n        yield word + ' '")
    return await hub.start()
