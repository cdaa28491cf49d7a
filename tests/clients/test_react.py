"""The page of docs/react.md, with React in two browsers."""

import pytest
from playwright.async_api import Browser, Page, expect
from support.browser import Tab, needs_browser
from support.documents import DOCS, of_kind
from support.foreign_clients import INSTALL_SECONDS, RUN_SECONDS, ForeignClient, parametrize
from support.foreign_pages import serve_component
from support.hub import Hub

pytestmark = pytest.mark.timeout(INSTALL_SECONDS + 2 * RUN_SECONDS)

MAIN = """
import asyncio, pathlib
from hub import Run

async def main(run: Run):
    if run.message == "ask":
        yield f"{(await run.ask('Shall I?')).status}"
        return
    yield "one "
    while not pathlib.Path(run.message).exists():
        await asyncio.sleep(0.01)
    yield "two"
"""


@needs_browser
@parametrize("react", "bundle")
async def test_the_page_of_the_docs_shows_a_session(hub: Hub, browser: Browser, client: ForeignClient) -> None:
    """Also after a reload in the middle of an answer, and in a second browser."""
    hub.agent("main.py", MAIN)
    await hub.start()
    (block,) = of_kind(DOCS["react"], "jsx", "component")
    async with serve_component(client, hub.url, block.text) as url:
        first, second = [await open_page(browser, url) for _ in range(2)]
        await say(first, str(hub.folder / "go"))
        await expect(first.get_by_role("article").last).to_contain_text("one ...")
        await expect(second.get_by_role("article").last).to_contain_text("one ...")
        await first.reload()
        await expect(first.get_by_role("article").last).to_contain_text("one ...")
        (hub.folder / "go").touch()
        for page in (first, second):
            await expect(page.locator("article.assistant p")).to_have_text("one two")
        await say(second, "ask")
        await first.get_by_role("button", name="Yes").click()
        for page in (first, second):
            await expect(page.locator("article.assistant p").last).to_have_text("resolved")
        await say(first, str(hub.folder / "never"))
        await second.get_by_role("button", name="Stop").click()
        for page in (first, second):
            await expect(page.get_by_role("button", name="Send")).to_be_visible()
            await expect(page.locator("article")).to_have_count(6)


async def open_page(browser: Browser, url: str) -> Page:
    """Open the page in a browser context of its own."""
    tab = Tab(await (await browser.new_context()).new_page())
    await tab.page.goto(url)
    await expect(tab.page.get_by_role("status")).to_have_text("live")
    return tab.page


async def say(page: Page, text: str) -> None:
    await page.get_by_role("textbox").fill(text)
    await page.get_by_role("textbox").press("Enter")
