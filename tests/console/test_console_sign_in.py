"""The console on a hub with sign-in, in a real Chromium: links, names, members, roles and sign-out."""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import attrs
import pytest
from playwright.async_api import Browser, Page, expect
from support.browser import ARGUMENTS, CHROMIUM, Tab, hold_answer, needs_browser, start_hub
from support.hub import Hub
from support.proxy import Proxy
from support.waiting import PATIENCE

from hub.access.principal import OPERATOR
from hub.commands import table as commands

pytestmark = needs_browser

# The line that Chromium prints for a response of 400 or more, also if the page handles it.
FAILED_LINE = re.compile(r"Failed to load resource: the server responded with a status of (\d+)")
PLAIN_HTTP_LINE = "The Cross-Origin-Opener-Policy header has been ignored"  # on other names than loopback names


@pytest.fixture
async def signed(hub: Hub) -> Hub:
    """A started hub with sign-in."""
    hub.options["sign_in"] = True
    await start_hub(hub)
    hub.door.base_url = hub.url
    return hub


@contextlib.asynccontextmanager
async def open_tab(browser: Browser, address: str, *refusals: int, **context: Any) -> AsyncIterator[Tab]:
    """Open an address in a browser of its own. At the end, check its errors and its requests.

    *refusals* are the HTTP statuses that the page may get beside 401, from which it learns that nobody is signed in.
    """
    async with await browser.new_context(**context) as browser_context:
        tab = Tab(await browser_context.new_page())
        await tab.page.goto(address)
        yield tab
        statuses = [FAILED_LINE.match(line) for line in tab.errors if not line.startswith(PLAIN_HTTP_LINE)]
        assert all(match and int(match[1]) in (401, *refusals) for match in statuses), tab.errors
        assert {urlsplit(url).netloc for url in tab.urls} == {urlsplit(address).netloc}


async def connected(tab: Tab) -> Tab:
    await expect(tab.page.get_by_role("status")).to_have_text(re.compile("Connected|answering"))
    return tab


async def invite(hub: Hub, name: str = "Ann", **options: Any) -> str:
    return await commands.invite_person(hub.door, OPERATOR, name, **options)


@contextlib.asynccontextmanager
async def ann_of(hub: Hub, browser: Browser, query: str = "?agent=echo&session=s1") -> AsyncIterator[Tab]:
    """The tab of Ann, an admin, who has signed in and opened a session."""
    async with open_tab(browser, await invite(hub, role="admin")) as tab:
        await tab.page.get_by_role("button", name="Sign in").click()
        await connected(tab)
        await tab.page.goto(f"{hub.url}/{query}")
        yield await connected(tab)


async def make_link(ann: Tab, role: str = "member") -> str:
    """Make an invite link in the Share dialog, and close the dialog."""
    await ann.page.get_by_role("button", name="Share").click()
    await ann.page.get_by_label("Role of those who open the link").select_option(role)
    await ann.page.get_by_role("button", name="Make a link").click()
    link = await ann.page.get_by_label("New invite link").input_value()
    await ann.page.keyboard.press("Escape")
    return link


async def join(tab: Tab, name: str) -> Tab:
    await tab.page.get_by_label("Your name").fill(name)
    await tab.page.get_by_role("button", name="Join").click()
    return await connected(tab)


@attrs.frozen
class Pair:
    """The tabs of Ann, who owns the session s1, and of Bob, a guest in it."""

    ann: Tab
    bob: Tab
    link: str

    async def set_role(self, role: str | None) -> None:
        """Change the role of Bob in the Share dialog, or remove him."""
        dialog = self.ann.page.get_by_role("dialog")
        await self.ann.page.get_by_role("button", name="Share").click()
        if role is None:
            await dialog.get_by_role("button", name="Remove Bob").click()
            await expect(dialog.get_by_role("list", name="Members").get_by_role("listitem")).to_have_count(1)
        else:
            await dialog.get_by_label("Role of Bob").select_option(role)
        await self.ann.page.keyboard.press("Escape")


@contextlib.asynccontextmanager
async def pair_in(hub: Hub, browser: Browser) -> AsyncIterator[Pair]:
    async with ann_of(hub, browser) as ann:
        await ann.say("first")
        await expect(ann.answers).to_have_text(["first"])
        link = await make_link(ann)
        async with open_tab(browser, link) as bob:
            await join(bob, "Bob")
            await expect(bob.answers).to_have_text(["first"])
            yield Pair(ann, bob, link)


# --- the page to sign in ----------------------------------------------------------------------------------------------


async def test_a_one_time_link_signs_in_when_its_button_is_pressed(signed: Hub, browser: Browser) -> None:
    """Not when it is opened. The token leaves the address at once; a second use is refused with what to do."""
    link = await invite(signed, role="admin")
    async with open_tab(browser, link, 404) as tab:
        await expect(tab.page.get_by_text("This link signs this browser in. It works once.")).to_be_visible()
        assert tab.page.url == f"{signed.url}/sign-in"
        assert await tab.page.evaluate("history.length") == 2  # no entry with the token: about:blank is the other one
        await tab.page.goto(link)
        await tab.page.get_by_role("button", name="Sign in").click()
        await connected(tab)
        account = tab.page.get_by_role("region", name="Your account")
        await expect(account).to_contain_text("Ann")
        await expect(account).to_contain_text("admin")
        await tab.page.goto(link)
        await expect(tab.page.get_by_text("You are signed in as Ann.")).to_be_visible()
        await tab.page.get_by_role("button", name="Sign in").click()
        await expect(tab.page.get_by_role("alert")).to_contain_text("This link does not work")
        await tab.page.get_by_role("link", name="Open the console").click()
        await connected(tab)


async def test_a_browser_that_has_not_signed_in_comes_to_the_page_for_it(signed: Hub, browser: Browser) -> None:
    """It says what to do. A link that is opened there, in the same tab, works."""
    async with open_tab(browser, f"{signed.url}/?session=s1") as tab:
        await expect(tab.page.get_by_role("heading", name="Sign in")).to_be_visible()
        assert tab.page.url == f"{signed.url}/sign-in"
        await expect(tab.page.get_by_text("hubbub invite NAME")).to_be_visible()
        await expect(tab.page.get_by_role("button")).to_have_count(0)
        token = (await invite(signed)).rpartition("#")[2]
        await tab.page.evaluate("token => { location.hash = token }", token)
        await tab.page.get_by_role("button", name="Sign in").click()
        await connected(tab)


async def test_the_page_to_sign_in_of_a_hub_without_sign_in_leads_to_the_console(hub: Hub, browser: Browser) -> None:
    """There the console shows no account."""
    await start_hub(hub)
    async with open_tab(browser, f"{hub.url}/sign-in#hi_1") as tab:
        await expect(tab.page.get_by_role("heading", name="This hub needs no sign-in")).to_be_visible()
        await expect(tab.page.get_by_role("button")).to_have_count(0)
        await tab.page.get_by_role("link", name="Open the console").click()
        await connected(tab)
        await expect(tab.page.get_by_role("button", name="Sign out")).to_have_count(0)


async def test_a_link_for_guests_says_that_there_are_none(signed: Hub, browser: Browser) -> None:
    """With `guests = false`."""
    signed.door.settings = attrs.evolve(signed.door.settings, guests=False)
    async with ann_of(signed, browser) as ann, open_tab(browser, await make_link(ann)) as tab:
        await tab.page.get_by_label("Your name").fill("Bob")
        await tab.page.get_by_role("button", name="Join").click()
        await expect(tab.page.get_by_role("alert")).to_contain_text("This hub has no guests")


@pytest.mark.parametrize("allow_http", [False, True])
async def test_plain_http_is_refused_or_warned_of(hub: Hub, browser: Browser, allow_http: bool) -> None:
    """On a name other than a loopback name."""
    hub.options |= {"sign_in": True, "hosts": ("hub.test",), "allow_http": allow_http}
    await start_hub(hub)
    hub.door.base_url = f"http://hub.test:{hub.port}"
    arguments = [*ARGUMENTS, "--host-resolver-rules=MAP hub.test 127.0.0.1"]
    other = await browser.browser_type.launch(executable_path=CHROMIUM, args=arguments)
    async with other, open_tab(other, await invite(hub), 403) as tab:
        await expect(tab.page.get_by_text("Others in the network can read")).to_be_visible()
        await tab.page.get_by_role("button", name="Sign in").click()
        if allow_http:
            await connected(tab)
        else:
            await expect(tab.page.get_by_role("alert")).to_contain_text("browsers sign in over https only")
            await expect(tab.page.get_by_role("button", name="Sign in")).to_be_enabled()


# --- sessions with several people -------------------------------------------------------------------------------------


async def test_two_people_see_the_messages_of_each_other_with_names(signed: Hub, browser: Browser) -> None:
    """One is a guest by an invite link. Each sees the own messages as the own ones."""
    async with pair_in(signed, browser) as pair:
        await expect(pair.bob.page).to_have_url(re.compile("session=s1"))
        await expect(pair.bob.page.locator("header .people")).to_contain_text("2 here")
        notice = expect(pair.ann.page.get_by_role("status")).to_have_text("Bob is writing…")  # it stays for 5 s
        await asyncio.gather(notice, pair.bob.field.press_sequentially("hm"))
        await pair.bob.say("hello Ann")
        await expect(pair.ann.page.get_by_role("article", name="Bob").locator(".bubble")).to_have_text("hello Ann")
        await expect(pair.ann.page.get_by_role("article", name="You").locator(".bubble")).to_have_text("first")
        await expect(pair.bob.page.get_by_role("article", name="Ann").locator(".bubble")).to_have_text("first")
        await expect(pair.bob.page.get_by_role("article", name="You").locator(".bubble")).to_have_text("hello Ann")
        await expect(pair.bob.answers).to_have_text(["first", "hello Ann"])
        await expect(pair.ann.page.locator("header .people")).to_have_attribute("title", "Ann, Bob")
        await pair.bob.page.get_by_role("button", name="Share").click()
        members = pair.bob.page.get_by_role("dialog").get_by_role("list", name="Members").get_by_role("listitem")
        await expect(members).to_have_text([re.compile("Ann.*owner", re.S), re.compile(r"Bob \(you\).*member", re.S)])
        await expect(pair.bob.page.get_by_text("Only an owner of the session can invite others.")).to_be_visible()


async def test_a_role_that_is_lowered_during_an_answer_applies_at_once(
    signed: Hub, browser: Browser, tmp_path: Path
) -> None:
    """The composer is disabled and says why; the answer goes on for the viewer. A member again can write."""
    async with pair_in(signed, browser) as pair:
        await pair.ann.page.get_by_label("Agent").select_option("gated")
        await pair.ann.say(str(tmp_path / "gate"))
        await expect(pair.bob.answers.last).to_have_text("one")
        await pair.bob.field.fill("not sent yet")
        await pair.set_role("viewer")
        await expect(pair.bob.field).to_be_disabled()
        await expect(pair.bob.page.locator(".composer")).to_contain_text("You are a viewer of this session")
        await expect(pair.bob.page.get_by_role("alert")).to_contain_text("You are now a viewer of this session")
        for name in ("Stop", "Send", "Edit", "Answer again"):
            await expect(pair.bob.page.get_by_role("button", name=name)).to_have_count(0)
        await expect(pair.bob.page.get_by_role("status")).to_have_text("gated is answering…")
        (tmp_path / "gate").touch()
        await expect(pair.bob.answers.last).to_have_text("one two")
        await pair.set_role("member")
        await expect(pair.bob.field).to_be_enabled()
        await expect(pair.bob.field).to_have_value("not sent yet")


async def test_a_removed_guest_keeps_what_the_page_shows(signed: Hub, browser: Browser, tmp_path: Path) -> None:
    """The page says so, and gets nothing more of the answer. Its owner gets all of it."""
    async with pair_in(signed, browser) as pair:
        await pair.ann.page.get_by_label("Agent").select_option("gated")
        await pair.ann.say(str(tmp_path / "gate"))
        await expect(pair.bob.answers.last).to_have_text("one")
        await pair.set_role(None)
        await expect(pair.bob.page.get_by_role("alert")).to_contain_text("You were removed from this session")
        await expect(pair.bob.field).to_be_disabled()
        await expect(pair.bob.page.locator(".composer")).to_contain_text("You are no longer a member of this session")
        await expect(pair.bob.page.get_by_role("article", name="gated")).to_contain_text("Cut off")
        (tmp_path / "gate").touch()
        await expect(pair.ann.answers.last).to_have_text("one two")
        await expect(pair.bob.answers).to_have_text(["first", "one"])
        await expect(pair.bob.page.get_by_role("status")).to_have_text("Connected")
        await expect(pair.bob.page.get_by_role("button", name="Share")).to_have_count(0)
        await pair.bob.page.reload()
        await expect(pair.bob.page.get_by_role("heading", name="There is no session here")).to_be_visible()
        await expect(pair.bob.page.get_by_role("button", name="New session")).to_have_count(0)  # a guest makes none


async def test_an_invite_that_was_revoked_is_refused(signed: Hub, browser: Browser) -> None:
    """Who has used it stays."""
    async with pair_in(signed, browser) as pair:
        await pair.ann.page.get_by_role("button", name="Share").click()
        dialog = pair.ann.page.get_by_role("dialog")
        await dialog.get_by_role("button", name="Revoke").click()
        await expect(dialog.get_by_role("button", name="Revoke")).to_have_count(0)
        async with open_tab(browser, pair.link, 404) as eve:
            await eve.page.get_by_label("Your name").fill("Eve")
            await eve.page.get_by_role("button", name="Join").click()
            await expect(eve.page.get_by_role("alert")).to_contain_text("This link does not work")
            await expect(eve.page.get_by_text("hubbub invite NAME")).to_be_visible()
        await pair.bob.say("still here")
        await expect(pair.ann.page.get_by_role("article", name="Bob")).to_contain_text("still here")


async def test_the_share_dialog_shows_the_last_state(signed: Hub, browser: Browser) -> None:
    """Even if an older response of the hub comes later."""
    async with ann_of(signed, browser) as ann:
        await ann.say("first")
        await expect(ann.answers).to_have_text(["first"])
        links = ann.page.get_by_role("list", name="Invite links").get_by_role("listitem")
        async with hold_answer(ann.page, "**/invites") as held:
            await ann.page.get_by_role("button", name="Share").click()
            await asyncio.wait_for(held, PATIENCE)
            await ann.page.get_by_role("button", name="Make a link").click()
            await expect(links).to_have_count(1)
        await expect(links).to_have_count(1)


async def test_a_signed_in_person_joins_by_an_invite_without_a_name(signed: Hub, browser: Browser) -> None:
    """As a viewer here. The owner of a new session can invite before the first message."""
    async with ann_of(signed, browser, "?agent=echo") as ann, open_tab(browser, await invite(signed, "Carl")) as carl:
        await carl.page.get_by_role("button", name="Sign in").click()
        await connected(carl)
        link = await make_link(ann, "viewer")
        await carl.page.goto(link)
        await expect(carl.page.get_by_text("You are signed in as Carl.")).to_be_visible()
        await expect(carl.page.get_by_label("Your name")).to_have_count(0)
        await carl.page.get_by_role("button", name="Join").click()
        await connected(carl)
        await expect(carl.field).to_be_disabled()
        await ann.say("hello Carl")
        await expect(carl.page.get_by_role("article", name="Ann")).to_contain_text("hello Carl")
        await expect(carl.answers).to_have_text(["hello Carl"])


async def test_a_session_of_others_looks_missing(signed: Hub, browser: Browser) -> None:
    """The page says what to do. A session that does not exist begins with a message, also after a reload."""
    await commands.create_session(signed.door, OPERATOR, "foreign")
    async with open_tab(browser, await invite(signed, "Carl")) as carl:
        await carl.page.get_by_role("button", name="Sign in").click()
        await connected(carl)
        await expect(carl.page.get_by_role("heading", name="What shall we talk about?")).to_be_visible()
        await carl.page.reload()
        await expect(carl.page.get_by_role("heading", name="What shall we talk about?")).to_be_visible()
        await carl.page.goto(f"{signed.url}/?agent=echo&session=foreign")
        await expect(carl.page.get_by_role("heading", name="There is no session here")).to_be_visible()
        await carl.say("hello?")
        await expect(carl.page.get_by_role("article", name="You")).to_contain_text(
            "not sent: there is no session foreign"
        )
        await carl.page.goto(f"{signed.url}/?agent=echo&session=mine")
        await expect(carl.page.get_by_role("heading", name="There is no session here")).to_be_visible()
        for number, message in enumerate(("one", "two"), 1):
            await carl.say(message)
            await expect(carl.answers).to_have_text(["one", "two"][:number])
        await expect(carl.page.get_by_role("article", name="You")).to_have_count(2)
        await expect(carl.page.get_by_role("navigation").get_by_role("link", name="one")).to_be_visible()


async def test_an_observer_reads_and_cannot_write(signed: Hub, browser: Browser) -> None:
    async with ann_of(signed, browser) as ann, open_tab(browser, await invite(signed, "Olga", role="observer")) as olga:
        await ann.say("hello")
        await expect(ann.answers).to_have_text(["hello"])
        await olga.page.get_by_role("button", name="Sign in").click()
        await connected(olga)
        await olga.page.get_by_role("navigation").get_by_role("link", name="hello").click()
        await expect(olga.answers).to_have_text(["hello"])
        await expect(olga.page.locator(".composer")).to_contain_text("You are an observer")


# --- the end of a sign-in ---------------------------------------------------------------------------------------------


async def test_signing_out_leaves_the_console(signed: Hub, browser: Browser) -> None:
    """The drafts of this person are deleted."""
    async with ann_of(signed, browser) as ann:
        await ann.field.fill("a draft")
        await ann.page.get_by_role("button", name="Sign out").click()
        await expect_sign_in_page(ann.page)
        assert await ann.page.evaluate("sessionStorage.length") == 0
        await ann.page.goto(f"{signed.url}/?session=s1")
        await expect_sign_in_page(ann.page)


async def test_a_revoked_credential_leaves_the_console(signed: Hub, browser: Browser) -> None:
    """The hub closes the connection with 4503."""
    async with ann_of(signed, browser) as ann:
        (credential,) = [
            one for one in await commands.list_credentials(signed.door, OPERATOR, "Ann") if not one.revoked
        ]
        await commands.revoke_credential(signed.door, OPERATOR, credential.id)
        await expect_sign_in_page(ann.page)


async def test_a_credential_that_was_revoked_without_a_network_leaves_the_console(
    signed: Hub, browser: Browser
) -> None:
    """The page learns it when the hub can be reached again."""
    is_down = False
    proxy = await Proxy(lambda: ("127.0.0.1", 1 if is_down else signed.port)).start()
    signed.door.base_url = f"http://127.0.0.1:{proxy.port}"
    async with open_tab(browser, await invite(signed)) as tab:
        await tab.page.get_by_role("button", name="Sign in").click()
        await connected(tab)
        is_down = True
        for link in list(proxy.links):
            link.reset()
        await expect(tab.page.get_by_role("status")).to_contain_text("cannot be reached")
        await commands.remove_principal(signed.door, OPERATOR, "Ann")
        is_down = False
        await expect_sign_in_page(tab.page)
        tab.errors.clear()  # the network was lost
    await proxy.stop()


async def expect_sign_in_page(page: Page) -> None:
    await expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    await expect(page).to_have_url(re.compile("/sign-in$"))
