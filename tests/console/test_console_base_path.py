"""The console of a hub under a path, behind proxies that pass the path on or remove it, in a real Chromium."""

import contextlib
import re
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import pytest
from playwright.async_api import Browser, Page, expect
from support.browser import Tab, needs_browser
from support.hub import Hub
from support.path_proxy import PathProxy

from hub.access.principal import OPERATOR
from hub.commands import table as commands

pytestmark = needs_browser
BASE = "/team/hubbub"
LONG_RESULT = """
from hub import ToolCallEnd, ToolCallResult, ToolCallStart

async def tooled(message: str):
    yield ToolCallStart("t1", "search")
    yield ToolCallEnd("t1")
    yield ToolCallResult("t1", "x" * 500_000)
    yield "done"
"""


@contextlib.asynccontextmanager
async def open_tab(browser: Browser, address: str) -> AsyncIterator[Tab]:
    """Open an address in a browser of its own. At the end, all its requests were for the path of the hub."""
    async with await browser.new_context() as context:
        tab = Tab(await context.new_page())
        await tab.page.goto(address)
        yield tab
        assert [line for line in tab.errors if "status of 401" not in line] == []
        for url in map(urlsplit, tab.urls):
            assert url.netloc == urlsplit(address).netloc and f"{url.path}/".startswith(f"{BASE}/"), url


async def expect_connected(page: Page) -> None:
    await expect(page.get_by_role("status")).to_have_text(re.compile("Connected|answering"))


@pytest.mark.parametrize("strips", [False, True], ids=["keeps", "strips"])
async def test_two_people_use_the_console_under_a_path(hub: Hub, browser: Browser, strips: bool) -> None:
    """They sign in with a link and an invite, write, read a file and the reference, reload, and sign out."""
    hub.options |= {"base_path": BASE, "sign_in": True, "trusted_proxies": ("127.0.0.1",)}
    hub.agent("tooled.py", LONG_RESULT)
    await hub.start()
    async with PathProxy(hub.port, BASE, strips).running() as proxy:
        hub.door.base_url = proxy.url
        link = await commands.invite_person(hub.door, OPERATOR, "Ann", role="admin")
        async with open_tab(browser, link) as ann:
            page = ann.page
            await page.get_by_role("button", name="Sign in").click()
            await expect_connected(page)
            await page.goto(f"{proxy.url}?agent=tooled&session=s1")  # without a slash after the path
            await expect_connected(page)
            await write(page, "Hello")
            await expect(page.locator(".md", has_text="done")).to_be_visible()
            await expect_file_and_reference(page, proxy)
            invite = await make_invite(page)
            assert invite.startswith(f"{proxy.url}/sign-in#")
            async with open_tab(browser, invite) as guest:
                await guest.page.get_by_label("Your name").fill("Bob")
                await guest.page.get_by_role("button", name="Join").click()
                await expect(guest.page.locator(".md", has_text="done")).to_be_visible()
                await write(guest.page, "From Bob")
                await expect(page.get_by_text("From Bob")).to_be_visible()
            await expect_client(page)
            await page.reload()
            await expect(page.get_by_text("From Bob")).to_be_visible()
            await page.get_by_role("button", name="Sign out").click()
            await expect(page).to_have_url(f"{proxy.url}/sign-in")
            await expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
        assert proxy.foreign_paths == []


async def test_the_console_works_under_a_path_that_the_hub_does_not_know(hub: Hub, browser: Browser) -> None:
    """If the proxy removes the path. Only addresses that the hub writes in full are wrong then."""
    hub.options |= {"sign_in": True, "trusted_proxies": ("127.0.0.1",)}
    await hub.start()
    async with PathProxy(hub.port, BASE, strips=True).running() as proxy:
        hub.door.base_url = proxy.url
        async with open_tab(browser, await commands.invite_person(hub.door, OPERATOR, "Ann")) as ann:
            await ann.page.get_by_role("button", name="Sign in").click()
            await expect_connected(ann.page)
            assert ann.page.url.startswith(f"{proxy.url}/?")
        assert proxy.foreign_paths == []


async def write(page: Page, text: str) -> None:
    await page.get_by_role("textbox", name="Message", exact=True).fill(text)
    await page.keyboard.press("Enter")


async def expect_client(page: Page) -> None:
    """The JavaScript client connects without an address: the hub has written its path into the script."""
    path = f"{BASE}/client.js"
    state = (
        "async (path) => { const hub = (await import(path)).connect(); await hub.ready; hub.close(); return 'live' }"
    )
    assert await page.evaluate(state, path) == "live"


async def make_invite(page: Page) -> str:
    await page.get_by_role("button", name="Share").click()
    await page.get_by_role("button", name="Make a link").click()
    link = await page.get_by_label("New invite link").input_value()
    await page.keyboard.press("Escape")
    return link


async def expect_file_and_reference(page: Page, proxy: PathProxy) -> None:
    """The complete result of a tool is a file. The reference shows example requests with the path."""
    await page.get_by_text("search").first.click()
    async with page.expect_download() as download:
        await page.get_by_role("link", name=re.compile("KiB")).click()
    assert (await download.value).url.startswith(f"{proxy.url}/api/v1/files/")
    async with page.expect_popup() as popup:
        await page.get_by_role("link", name="How programs use this hub").click()
    reference = await popup.value
    await expect(reference.locator("body")).to_contain_text(f"curl '{proxy.url}/api/v1/sessions'")
    await expect(reference.locator("body")).to_contain_text(f'new WebSocket("ws://{proxy.url[7:]}/api/v1/ws")')
    await reference.close()
