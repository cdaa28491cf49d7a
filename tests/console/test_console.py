"""The console in a real Chromium, with a real hub, used as people do."""

import asyncio
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import aiohttp
import attrs
from playwright.async_api import Browser, expect
from support.browser import Tab, hold_answer, needs_browser, start_hub, visit
from support.hub import Hub
from support.proxy import Proxy
from support.sse import call
from support.tools import HELPER, ask, result
from support.waiting import PATIENCE

from hub.node.expiring import expire_events
from hub.node.upkeep import reload_agent_file

pytestmark = needs_browser

# --- the first visit --------------------------------------------------------------------------------------------------


async def test_a_first_visit_is_ready_for_a_message(hub: Hub, browser: Browser, tmp_path: Path) -> None:
    """The page shows the agents; the composer has the focus, and `main` answers."""
    hub.agent("torn.py", "this is no Python")
    await start_hub(hub)
    async with visit(browser, hub.url) as tab:
        agents = tab.page.get_by_role("complementary")
        for name in ("main", "echo", "gated"):
            await expect(agents.get_by_role("button", name=f"{name} ready")).to_be_visible()
        await expect(agents.get_by_role("button", name="torn broken")).to_be_disabled()
        await expect(tab.field).to_be_focused()
        await tab.page.keyboard.type("one")
        await tab.field.dispatch_event(
            "keydown", {"key": "Enter", "isComposing": True}
        )  # this Enter ends the input of a Chinese character
        await tab.page.keyboard.press("Shift+Enter")
        await tab.page.keyboard.type("two")
        await expect(tab.field).to_have_value("one\ntwo")
        await tab.page.keyboard.press("Enter")
        await expect(tab.page.get_by_role("article", name="You").locator(".bubble")).to_have_text("one\ntwo")
        await expect(tab.page.get_by_role("article", name="main").locator(".md")).to_have_text("one two")
        await expect(tab.page.get_by_role("article", name="main").locator(".figures")).to_contain_text("token")
        await expect(tab.field).to_have_value("")
        await expect(tab.page.locator("[aria-live=polite]")).to_have_text("main: one two")


async def test_the_first_line_keeps_its_indentation(hub: Hub, browser: Browser) -> None:
    """The console removes only empty lines around a message, so that pasted code stays the same."""
    hub.agent("exact.py", "async def exact(message: str):\n    yield repr(message)")
    await start_hub(hub)
    async with visit(browser, hub.url, "?agent=exact") as tab:
        await tab.say("\n  \n    if x:\n        y\n\n")
        await expect(tab.answers.first).to_have_text(repr("    if x:\n        y"))
        await tab.say("  \n ")  # an empty message is not sent
        mine = tab.page.get_by_role("article", name="You").first
        await mine.hover()
        await mine.get_by_role("button", name="Edit").click()
        text = tab.page.get_by_label("New text")
        await text.fill("\n\tz\n")
        await text.press("Enter")
        await expect(tab.answers).to_have_text([repr("\tz")])


GROWS = """# Head

Some **bold** text.

WAIT```py
print(1)
WAITprint(2)
```

- a
- b [link](https://a.example/)
"""


async def test_an_answer_grows_as_rendered_markdown(hub: Hub, browser: Browser, tmp_path: Path) -> None:
    """A finished block stays the same element, and the result is the same as after a reload."""
    await start_hub(hub)
    (tmp_path / "text").write_text(GROWS)
    async with visit(browser, hub.url, "?agent=says&session=s1") as tab:
        await tab.say(str(tmp_path / "text"))
        answer = tab.answers.first
        await expect(answer.get_by_role("heading", name="Head")).to_be_visible()
        await expect(answer.locator("strong")).to_have_text("bold")
        await answer.locator("strong").evaluate("it => (it.same = true)")
        (tmp_path / "text.1").touch()
        await expect(answer.locator("pre code")).to_have_text("print(1)\n")
        (tmp_path / "text.2").touch()
        await expect(answer.locator("pre code")).to_have_text("print(1)\nprint(2)\n")
        await expect(answer.locator("li")).to_have_text(["a", "b link"])
        link = answer.get_by_role("link", name="link")
        assert await link.get_attribute("rel") == "noopener noreferrer"
        assert await link.get_attribute("target") == "_blank"
        assert await answer.locator("strong").evaluate("it => it.same")
        grown = await answer.inner_html()
        await tab.page.reload()
        await expect(tab.answers.first.locator("li")).to_have_count(2)
        assert await tab.answers.first.inner_html() == grown


async def test_the_url_opens_a_session_with_an_agent(hub: Hub, browser: Browser) -> None:
    """A new session changes the URL; for an invalid session or an unknown agent the page shows what to do."""
    await start_hub(hub)
    async with visit(browser, hub.url, "?agent=echo&session=s2") as tab:
        await tab.say("hello")
        await expect(tab.page.get_by_role("article", name="echo").locator(".md")).to_have_text("hello")
        await tab.page.get_by_role("button", name="New session").click()
        await expect(tab.answers).to_have_count(0)
        await expect(tab.page).to_have_url(re.compile(r"agent=echo&session=s-"))
        await tab.page.go_back()
        await expect(tab.answers).to_have_text(["hello"])
        await tab.page.goto(f"{hub.url}/?session=not%20one")
        await expect(tab.page.get_by_role("heading", name="The session in this address")).to_be_visible()
        await tab.page.locator(".empty").get_by_role("button", name="New session").click()
        await tab.page.goto(f"{hub.url}/?agent=nobody&session=s3")
        await expect(tab.page.get_by_role("heading", name="There is no agent “nobody”")).to_be_visible()
        await tab.say("hello?")
        await expect(tab.page.get_by_role("article", name="You")).to_contain_text("not sent")


# --- shared sessions and lost connections -----------------------------------------------------------------------------


async def test_two_people_share_a_session(hub: Hub, browser: Browser, tmp_path: Path) -> None:
    """Each sees the other one's presence and typing, and both see the answer from start to end."""
    await start_hub(hub)
    gate = tmp_path / "gate"
    async with visit(browser, hub.url, "?agent=gated&session=s4") as one:
        await one.page.get_by_role("button", name="Share").click()
        address = await one.page.get_by_label("Address of this session").input_value()
        await one.page.keyboard.press("Escape")
        assert address.endswith("/?agent=gated&session=s4")
        async with visit(browser, hub.url, "?" + address.partition("?")[2]) as two:
            for tab in (one, two):
                await expect(tab.page.locator("header")).to_contain_text("2 here")
            notice = expect(one.page.get_by_role("status")).to_have_text("Someone is writing…")  # it stays for 5 s
            await asyncio.gather(notice, two.field.press_sequentially("hm"))
            await one.say(str(gate))
            await expect(two.answers).to_have_text(["one"])
            gate.touch()
            for tab in (one, two):
                await expect(tab.answers).to_have_text(["one two"])
        await expect(one.page.locator("header")).to_contain_text("Only you")


async def test_a_reload_during_an_answer_loses_nothing(hub: Hub, browser: Browser, tmp_path: Path) -> None:
    """The answer is complete, and the draft is still there."""
    await start_hub(hub)
    gate = tmp_path / "gate"
    async with visit(browser, hub.url, "?agent=gated&session=s5") as tab:
        await tab.say(str(gate))
        await expect(tab.answers).to_have_text(["one"])
        await tab.field.fill("and then")
        await tab.page.reload()
        await expect(tab.answers).to_have_text(["one"])
        await expect(tab.field).to_have_value("and then")
        gate.touch()
        await expect(tab.answers).to_have_text(["one two"])
        await expect(tab.page.get_by_role("button", name="Stop")).to_have_count(0)


async def test_a_lost_network_during_an_answer_loses_nothing(hub: Hub, browser: Browser, tmp_path: Path) -> None:
    """The status line shows the loss; the missing text follows, and messages written meanwhile are sent."""
    await start_hub(hub)
    (tmp_path / "text").write_text("before WAIT meanwhile WAIT after")
    there = True
    proxy = await Proxy(lambda: ("127.0.0.1", hub.port if there else 1)).start()
    try:
        async with visit(browser, f"http://127.0.0.1:{proxy.port}", "?agent=says&session=s6", lost=True) as tab:
            await tab.say(str(tmp_path / "text"))
            await expect(tab.answers).to_have_text(["before"])
            there = False
            for link in list(proxy.links):
                link.reset()
            await expect(tab.page.get_by_role("status")).to_contain_text("cannot be reached")
            witness = await hub.connect("?sessionId=s6")
            (tmp_path / "text.1").touch()
            await witness.until(lambda frame: "meanwhile" in witness.text())
            await tab.page.get_by_label("Agent").select_option("echo")
            await tab.say("written meanwhile")
            await expect(tab.page.get_by_role("article", name="You").last).to_contain_text("sending…")
            there = True
            await expect(tab.answers).to_have_text(["before  meanwhile", "written meanwhile"])
            (tmp_path / "text.2").touch()
            await expect(tab.answers).to_have_text(["before  meanwhile  after", "written meanwhile"])
            await expect(tab.page.get_by_role("status")).to_have_text("Connected")
    finally:
        await proxy.stop()


async def test_the_page_shows_that_the_hub_shuts_down(hub: Hub, browser: Browser, tmp_path: Path) -> None:
    """A running answer is stopped and marked; a queued message is answered when the hub is back."""
    await start_hub(hub)
    gate = tmp_path / "gate"
    gate.touch()
    proxy = await Proxy(lambda: ("127.0.0.1", hub.port)).start()
    try:
        async with visit(browser, f"http://127.0.0.1:{proxy.port}", "?agent=gated&session=s40", lost=True) as tab:
            await tab.say(str(tmp_path / "never"))
            await expect(tab.answers).to_have_text(["one"])
            await tab.say(str(gate))
            await expect(tab.page.locator(".queue").get_by_role("listitem")).to_have_count(1)
            hub.node.drain()
            await expect(tab.page.get_by_role("status")).to_have_text(
                "The hub is shutting down. Answers that do not finish in time are stopped."
                " Queued messages are answered after the restart."
            )
            assert await tab.page.locator(".status").evaluate(  # the complete text is visible
                "it => [...it.children].every((one) => one.scrollWidth <= one.clientWidth && one.offsetWidth > 0)"
            )
            await hub.stop()
            await hub.start()
            first = tab.page.get_by_role("article", name="gated").first
            await expect(first).to_contain_text("Stopped: the hub shut down before the answer was finished")
            await expect(tab.answers).to_have_text(["one", "one two"])
    finally:
        await proxy.stop()


async def test_an_unsent_message_is_not_lost(hub: Hub, browser: Browser) -> None:
    """A person who leaves the session or the page without a network finds the message in the composer later."""
    await start_hub(hub)
    there = True
    proxy = await Proxy(lambda: ("127.0.0.1", hub.port if there else 1)).start()
    try:
        async with visit(browser, f"http://127.0.0.1:{proxy.port}", "?agent=echo&session=s23", lost=True) as tab:
            there = False
            for link in list(proxy.links):
                link.reset()
            await expect(tab.page.get_by_role("status")).to_contain_text("cannot be reached")
            await tab.say("not yet")
            await tab.page.get_by_role("button", name="New session").click()
            await expect(tab.field).to_have_value("")
            await tab.page.go_back()
            await expect(tab.field).to_have_value("not yet")
            await tab.field.press("Enter")
            there = True
            await expect(tab.answers).to_have_text(["not yet"])
    finally:
        await proxy.stop()


# Opens a new session and then the old one, before the page is drawn again.
LEAVE_AND_RETURN = """
document.querySelector('aside .wide-button').click()
document.querySelector('nav a[href="?session=s37"]').click()
"""


async def test_a_message_with_a_lost_confirmation_is_not_a_draft(hub: Hub, browser: Browser) -> None:
    """The page shows it only in the conversation. A person who sends it again gets one answer."""
    await start_hub(hub)
    there = True
    proxy = await Proxy(lambda: ("127.0.0.1", hub.port if there else 1)).start()
    try:
        async with visit(browser, f"http://127.0.0.1:{proxy.port}", "?agent=echo&session=s37", lost=True) as tab:
            for words, again in (("came", False), ("came again", True)):
                witness = await hub.connect("?sessionId=s37")
                if again:
                    await expect(tab.page.locator("nav a[href='?session=s37']")).to_be_visible()
                await tab.field.fill(words)
                for link in list(proxy.links):
                    if link.hub is not None and not link.hub.is_closing():
                        link.hub.pause_reading()
                await tab.field.press("Enter")
                await witness.until_done()
                there = False
                for link in list(proxy.links):
                    link.reset()
                await expect(tab.page.get_by_role("status")).to_contain_text("cannot be reached")
                if again:
                    await tab.page.evaluate(LEAVE_AND_RETURN)
                else:
                    await tab.page.get_by_role("button", name="New session").click()
                    await tab.page.go_back()
                await expect(tab.field).to_have_value(words)
                if again:
                    await tab.field.press("Enter")
                there = True
                await expect(tab.answers.last).to_have_text(words)
                await expect(tab.field).to_have_value("")
            await expect(tab.page.locator(".bubble")).to_have_text(["came", "came again"])
            await expect(tab.answers).to_have_text(["came", "came again"])
            await tab.page.reload()
            await expect(tab.answers).to_have_text(["came", "came again"])
            await expect(tab.field).to_have_value("")
    finally:
        await proxy.stop()


async def test_a_message_that_is_too_long_can_be_edited(hub: Hub, browser: Browser) -> None:
    """The page shows the limit, and puts the text back into the composer, before a draft."""
    hub.limits = attrs.evolve(hub.limits, frame_bytes=4096)
    await start_hub(hub)
    async with visit(browser, hub.url, "?agent=echo&session=s44") as tab:
        await tab.say("long" * 1024)
        mine = tab.page.get_by_role("article", name="You")
        await expect(mine).to_contain_text("not sent: a chat may have at most 4 KiB")
        await tab.field.fill("begun")
        await mine.get_by_role("button", name="Edit").click()
        await expect(mine).to_have_count(0)
        await expect(tab.field).to_be_focused()
        await expect(tab.field).to_have_value("long" * 1024 + "\n\nbegun")
        await tab.say("short")
        await expect(tab.answers).to_have_text(["short"])


# Opens a session from the list, and types before the page has drawn a frame.
OPEN_AND_TYPE = """() => {
  document.querySelector('nav a[href="?session=s46"]').click()
  document.execCommand('insertText', false, 'for s46')
}"""


async def test_a_key_right_after_a_session_is_opened_is_for_this_session(hub: Hub, browser: Browser) -> None:
    """The draft of the previous session stays there."""
    await start_hub(hub)
    client = await hub.connect("?sessionId=s46")
    await client.send(type="chat", agentId="echo", message="first")
    await client.until_done()
    async with visit(browser, hub.url, "?agent=echo&session=s45") as tab:
        await expect(tab.page.locator("nav a[href='?session=s46']")).to_be_visible()
        await tab.field.fill("for s45")
        await tab.page.evaluate(OPEN_AND_TYPE)
        await expect(tab.answers).to_have_text(["first"])
        await expect(tab.field).to_have_value("for s46")
        await tab.field.press("Enter")
        await expect(tab.answers).to_have_text(["first", "for s46"])
        await tab.page.go_back()
        await expect(tab.field).to_have_value("for s45")


FULL = "Storage.prototype.setItem = () => { throw new DOMException('no room', 'QuotaExceededError') }"


async def test_the_page_works_without_storage(hub: Hub, browser: Browser) -> None:
    """If the browser's storage is full, a person can still write, send and leave the session."""
    await start_hub(hub)
    async with visit(browser, hub.url, "?agent=echo&session=s38") as tab:
        await tab.page.evaluate(f"() => void ({FULL})")
        await tab.say("hello")
        await expect(tab.answers).to_have_text(["hello"])
        await tab.page.get_by_role("button", name="New session").click()
        await expect(tab.answers).to_have_count(0)


# --- stop, queue, keys ------------------------------------------------------------------------------------------------


async def test_a_stopped_answer_keeps_its_text(hub: Hub, browser: Browser, tmp_path: Path) -> None:
    """The answer is marked as stopped, and the button disappears."""
    await start_hub(hub)
    async with visit(browser, hub.url, "?agent=gated&session=s7") as tab:
        await tab.say(str(tmp_path / "never"))
        await expect(tab.answers).to_have_text(["one"])
        await tab.page.get_by_role("button", name="Stop").click()
        await expect(tab.page.get_by_role("article", name="gated")).to_contain_text("Stopped")
        await expect(tab.answers).to_have_text(["one"])
        await expect(tab.page.get_by_role("button", name="Stop")).to_have_count(0)
        await expect(tab.field).to_be_focused()


async def test_after_a_reload_an_answer_says_how_it_ended(hub: Hub, browser: Browser) -> None:
    """As it said before: one was stopped, one took too long, and one failed."""
    silent = "    yield message\n    await asyncio.Event().wait()"
    hub.agent("hangs.py", f"import asyncio\nasync def hangs(message):\n{silent}")
    head = "import asyncio\nfrom hub import agent\n@agent(silence_limit=0.02)\n"
    hub.agent("late.py", f"{head}async def late(message):\n{silent}")
    code = "from hub import AgentError\nasync def fails(message):\n    yield message\n"
    hub.agent("fails.py", f"{code}    raise AgentError('The model is gone.')")
    await start_hub(hub)
    client = await hub.connect(extended=True)
    for agent in ("hangs", "late", "fails"):
        await client.send(type="chat", agentId=agent, sessionId="s77", message="half")
        await client.until_type("stream")
        if agent == "hangs":
            await client.send(type="cancel", sessionId="s77")
        await client.until_done()
    async with visit(browser, hub.url, "?agent=echo&session=s77") as tab:
        for _ in range(2):
            for agent, text in (
                ("hangs", "Stopped"),
                ("late", "Stopped: the answer took too long"),
                ("fails", "The model is gone."),
            ):
                article = tab.page.get_by_role("article", name=agent)
                await expect(article.locator(".ending")).to_have_text(text)
                await expect(article.locator(".md")).to_have_text("half")
            await expire_events(hub.node, 2**60)
            await tab.page.reload()


async def test_every_tab_shows_the_text_of_queued_messages(hub: Hub, browser: Browser, tmp_path: Path) -> None:
    """They stay after a reload. A message that is taken back is marked, and `Stop all` empties the queue."""
    await start_hub(hub)
    query = "?agent=gated&session=s33"
    async with visit(browser, hub.url, query) as tab, visit(browser, hub.url, query) as other:
        await tab.say(str(tmp_path / "never"))
        await expect(tab.answers).to_have_text(["one"])
        await tab.say("not this")
        for is_reloaded in (False, True):  # a reload before the hub has the message would make it a draft
            if is_reloaded:
                await tab.page.reload()
            for one in (tab, other):
                await expect(one.page.locator(".queue").get_by_role("listitem")).to_contain_text(
                    "Waiting for gatednot this"
                )
                await expect(one.page.locator(".bubble")).to_have_count(1)  # the conversation does not show it, too
        await other.page.get_by_role("button", name="Take back").click()
        for one in (tab, other):
            await expect(one.page.get_by_role("article", name="You").last).to_contain_text("taken back")
        await tab.say("nor this")
        await tab.page.get_by_role("button", name="Stop all").click()
        mine = other.page.get_by_role("article", name="You")
        await expect(mine).to_have_count(3)
        await expect(mine.last).to_contain_text("taken back")
        await expect(other.page.get_by_role("article", name="gated")).to_contain_text("Stopped")
        await expect(other.page.get_by_role("article", name="gated")).to_have_count(1)


async def test_a_queued_message_can_be_taken_back(hub: Hub, browser: Browser, tmp_path: Path) -> None:
    """Its text returns to the composer, and it is not answered; a message that stays in the queue is answered."""
    await start_hub(hub)
    gate = tmp_path / "gate"
    async with visit(browser, hub.url, "?agent=gated&session=s8") as tab:
        await tab.say(str(gate))
        await expect(tab.answers).to_have_text(["one"])
        await tab.say("not this")
        waiting = tab.page.locator(".queue").get_by_role("listitem")
        await expect(waiting).to_contain_text("not this")
        await waiting.get_by_role("button", name="Take back").click()
        await expect(waiting).to_have_count(0)
        await expect(tab.field).to_have_value("not this")
        await expect(tab.page.get_by_role("article", name="You").last).to_contain_text("taken back")
        await tab.say(str(gate))
        await expect(waiting).to_have_count(1)
        gate.touch()
        await expect(tab.answers).to_have_text(["one two", "one two"])
        await expect(waiting).to_have_count(0)


# Takes a queued message back, and opens a new session before the hub confirms it.
TAKE_BACK_AND_LEAVE = """() => {
  document.querySelector('.queue li button').click()
  document.querySelector('aside .wide-button').click()
}"""


async def test_a_message_that_is_taken_back_is_a_draft_of_its_session(
    hub: Hub, browser: Browser, tmp_path: Path
) -> None:
    """Also if the person leaves the session at the same time."""
    await start_hub(hub)
    async with visit(browser, hub.url, "?agent=gated&session=s47") as tab:
        await tab.say(str(tmp_path / "never"))
        await expect(tab.answers).to_have_text(["one"])
        await tab.say("not this")
        await expect(tab.page.locator(".queue").get_by_role("listitem")).to_contain_text("not this")
        await tab.field.fill("begun")
        await tab.page.evaluate(TAKE_BACK_AND_LEAVE)
        draft = "() => sessionStorage.getItem('draft:s47') === 'not this\\n\\nbegun'"
        await tab.page.wait_for_function(draft)
        await expect(tab.field).to_have_value("")
        await tab.page.go_back()
        await expect(tab.field).to_have_value("not this\n\nbegun")


async def test_the_keyboard_is_enough(hub: Hub, browser: Browser, tmp_path: Path) -> None:
    """A person chooses an agent, writes, stops and uses the dialog without a mouse; the focus is always visible."""
    await start_hub(hub)
    async with visit(browser, hub.url, "?session=s9") as tab:
        keyboard = tab.page.keyboard
        await expect(tab.field).to_be_focused()
        await keyboard.press("Tab")
        await expect(tab.page.get_by_label("Agent")).to_be_focused()
        await keyboard.type("gat")
        await expect(tab.page.get_by_label("Agent")).to_have_value("gated")
        await keyboard.press("Shift+Tab")
        await keyboard.type(str(tmp_path / "never"))
        await keyboard.press("Enter")
        await expect(tab.answers).to_have_text(["one"])
        await keyboard.press("Tab")
        await keyboard.press("Tab")
        await expect(tab.page.get_by_role("button", name="Attach files")).to_be_focused()
        await keyboard.press("Tab")
        stop = tab.page.get_by_role("button", name="Stop")
        await expect(stop).to_be_focused()
        assert await stop.evaluate("it => getComputedStyle(it).outlineStyle") == "solid"
        await keyboard.press("Enter")
        await expect(tab.page.get_by_role("article", name="gated")).to_contain_text("Stopped")
        await tab.page.get_by_role("button", name="Share").press("Enter")
        await expect(tab.page.get_by_role("dialog", name="Share")).to_be_visible()
        await keyboard.press("Escape")
        await expect(tab.page.get_by_role("dialog")).to_have_count(0)
        await expect(tab.page.get_by_role("button", name="Share")).to_be_focused()


async def test_every_control_has_a_name(hub: Hub, browser: Browser) -> None:
    """Controls with only an icon have one, too."""
    await start_hub(hub)
    async with visit(browser, hub.url, "?session=s10") as tab:
        await tab.say("hello ```code``` there")
        answer = tab.page.get_by_role("article", name="main")
        await expect(answer.get_by_role("button", name="Copy").first).to_be_visible()
        tree = await tab.page.locator("body").aria_snapshot()
        assert not re.findall(r"- (?:button|textbox|searchbox|combobox|link)(?::|$| \[)", tree, re.M), tree


# --- devices, agents and lists ----------------------------------------------------------------------------------------

WIDE = "word" * 60 + "\n\n```\n" + "x" * 300 + "\n```\n\n|" + " column |" * 20 + "\n|" + "--|" * 20 + "\n"


async def test_the_page_fits_a_phone(hub: Hub, browser: Browser, tmp_path: Path) -> None:
    """Nothing is wider than the screen, the composer is visible, and one touch opens sessions and agents."""
    await start_hub(hub)
    (tmp_path / "wide").write_text(WIDE)
    phone: dict[str, Any] = {"viewport": {"width": 360, "height": 640}, "has_touch": True, "is_mobile": True}
    async with visit(browser, hub.url, "?agent=says&session=s11", **phone) as tab:
        await expect(tab.page.get_by_role("main").get_by_role("button", name="echo ready")).to_be_visible()
        await tab.say(str(tmp_path / "wide"))
        await expect(tab.answers.locator("th")).to_have_count(20)
        assert await tab.page.evaluate("[document, log].every(it => (it.body ?? it).scrollWidth <= innerWidth)")
        await expect(tab.field).to_be_in_viewport()
        await tab.page.get_by_role("button", name="Menu").tap()
        await expect(tab.page.get_by_role("link", name=re.compile("wide"))).to_be_in_viewport()
        await tab.page.keyboard.press("Escape")
        await expect(tab.page.get_by_role("searchbox")).to_be_hidden()


async def test_a_phone_with_many_agents_shows_the_start_of_the_page(hub: Hub, browser: Browser) -> None:
    """The chosen agent is visible, too."""
    for number in range(12):
        hub.agent(f"more{number:02}.py", f"async def more{number:02}(message: str):\n    yield 'x'")
    await start_hub(hub)
    phone: dict[str, Any] = {"viewport": {"width": 360, "height": 640}, "has_touch": True, "is_mobile": True}
    async with visit(browser, hub.url, "?agent=echo", **phone) as tab:
        agents = tab.page.get_by_role("main").locator(".agent")
        await expect(agents).to_have_count(16)
        await expect(tab.page.get_by_role("heading", name="What shall we talk about?")).to_be_in_viewport()
        await tab.page.goto(f"{hub.url}/?agent=says")
        await expect(agents.last).to_be_in_viewport()
        await expect(agents.last).to_have_attribute("aria-pressed", "true")


async def test_new_and_corrected_agents_appear(hub: Hub, browser: Browser) -> None:
    """The page needs no reload; it shows at once that the chosen agent is broken, and can reload the agent."""
    hub.agent("torn.py", "this is no Python")
    await start_hub(hub)
    async with visit(browser, hub.url, "?agent=torn&session=s34") as tab:
        await expect(tab.page.get_by_role("heading", name="torn is broken")).to_be_visible()
        hub.agent("torn.py", "async def torn(message: str):\n    yield 'whole'")
        await tab.page.get_by_role("main").get_by_role("button", name="Reload torn").click()
        await expect(tab.page.get_by_role("heading", name="What shall we talk about?")).to_be_visible()
        await tab.say("hello")
        await expect(tab.answers).to_have_text(["whole"])
        hub.agent("fresh.py", "async def fresh(message: str):\n    yield 'x'")
        await reload_agent_file(hub.node, "fresh")
        await tab.page.evaluate("dispatchEvent(new Event('focus'))")
        await expect(tab.page.get_by_role("button", name="fresh ready")).to_be_visible()


async def test_an_old_list_of_agents_that_comes_late_changes_nothing(hub: Hub, browser: Browser) -> None:
    """A corrected agent does not become broken again."""
    hub.agent("torn.py", "this is no Python")
    await start_hub(hub)
    async with visit(browser, hub.url, "?agent=torn&session=s48") as tab:
        heading = tab.page.get_by_role("heading", name="What shall we talk about?")
        async with hold_answer(tab.page, "**/api/v1/agents") as held:
            await tab.page.evaluate("dispatchEvent(new Event('focus'))")
            await asyncio.wait_for(held, PATIENCE)
            hub.agent("torn.py", "async def torn(message: str):\n    yield 'whole'")
            await tab.page.get_by_role("main").get_by_role("button", name="Reload torn").click()
            await expect(heading).to_be_visible()
        await expect(heading).to_be_visible()


async def test_a_broadcast_cannot_be_regenerated(hub: Hub, browser: Browser) -> None:
    """It answers no message; an answer to a message in the same session can be regenerated."""
    await start_hub(hub)
    async with visit(browser, hub.url, "?agent=echo&session=agent:echo") as tab:
        await tab.page.request.post(f"{hub.url}/api/v1/agents/echo/broadcast", data={"message": "To all."})
        await expect(tab.answers).to_have_text(["To all."])
        again = tab.page.get_by_role("button", name="Answer again")
        await expect(again).to_have_count(0)
        await tab.say("hello")
        await expect(tab.answers).to_have_text(["To all.", "hello"])
        await expect(again).to_have_count(1)


async def test_the_page_speaks_chinese(hub: Hub, browser: Browser) -> None:
    """The browser's language decides; each English text has a Chinese one with the same values."""
    await start_hub(hub)
    async with visit(browser, hub.url, "?session=s12", locale="zh-CN") as tab:
        assert await tab.page.evaluate("document.documentElement.lang") == "zh-CN"
        await expect(tab.page.get_by_role("textbox", name="消息")).to_be_focused()
        await tab.say("你好")
        await expect(tab.answers).to_have_text(["你好"])
        words = await tab.page.evaluate("import('/console/words.js').then(({ WORDS }) => WORDS)")
        assert words["en"].keys() == words["zh"].keys()
        places = [{key: re.findall(r"\{\w+\}", text) for key, text in words[one].items()} for one in ("en", "zh")]
        assert places[0] == places[1]


async def test_past_sessions_can_be_searched(hub: Hub, browser: Browser) -> None:
    """The search covers first messages; an opened session shows all its answers."""
    await start_hub(hub)
    for session, message in (("s13", "about apples"), ("s14", "about pears")):
        client = await hub.connect(f"?sessionId={session}")
        await client.send(type="chat", agentId="echo", message=message)
        await client.until_done()
    async with visit(browser, hub.url) as tab:
        links = tab.page.get_by_role("navigation").get_by_role("link")
        await expect(links).to_contain_text(["about pears", "about apples"])
        await tab.page.get_by_role("searchbox").fill("APPLE")
        await expect(links).to_have_count(1)  # the next assertion alone would accept the unfiltered list
        await expect(links).to_contain_text(["about apples"])
        await links.click()
        await expect(tab.answers).to_have_text(["about apples"])
        await tab.page.get_by_role("searchbox").fill("plums")
        await expect(tab.page.get_by_text("No session matches.")).to_be_visible()


async def test_lists_are_loaded_to_their_end(hub: Hub, browser: Browser) -> None:
    """The hub returns at most three sessions or messages for a request."""
    hub.limits = attrs.evolve(hub.limits, list_size=3, history_messages=3)
    await start_hub(hub)
    client = await hub.connect()
    for session in ("s33", "s34", "s35", "s36", "s36", "s36", "s36"):
        await client.send(type="chat", agentId="echo", sessionId=session, message="x")
        await client.until_done()
    await client.close()
    await expire_events(hub.node, 2**50)  # messages are not deleted
    async with visit(browser, hub.url, "?session=s36") as tab:
        links, articles = tab.page.get_by_role("navigation").get_by_role("link"), tab.page.get_by_role("article")
        await expect(links).to_have_count(3)
        await tab.page.get_by_role("searchbox").fill("nowhere")
        await expect(tab.page.get_by_text("No match in the newest 3 sessions.")).to_be_visible()
        await tab.page.get_by_role("searchbox").fill("")
        await tab.page.get_by_role("button", name="Show more").click()
        await expect(links).to_have_count(4)
        await tab.page.get_by_role("searchbox").fill("nowhere")
        await expect(tab.page.get_by_text("No session matches.")).to_be_visible()
        for count in (3, 6, 8):
            await expect(articles).to_have_count(count)
            if count < 8:
                await tab.page.get_by_role("button", name="Show earlier").click()


async def test_the_agent_that_answered_last_stays_chosen(hub: Hub, browser: Browser) -> None:
    """This applies to sessions from the list and URLs without an agent; an agent in the URL comes first."""
    await start_hub(hub)
    for session, agent in (("s30", "echo"), ("s31", "main")):
        client = await hub.connect(f"?sessionId={session}")
        await client.send(type="chat", agentId=agent, message=f"of {session}")
        await client.until_done()
    async with visit(browser, hub.url, "?agent=gated&session=s32") as tab:
        chosen = tab.page.get_by_label("Agent", exact=True)
        link = tab.page.get_by_role("navigation").get_by_role("link", name=re.compile("of s30"))
        await expect(link).to_have_attribute("href", "?session=s30")
        await link.click()
        await expect(chosen).to_have_value("echo")
        await expect(tab.page).to_have_url(re.compile(r"agent=echo&session=s30"))
        await tab.page.goto(f"{hub.url}/?session=s31")
        await expect(chosen).to_have_value("main")
        await tab.page.goto(f"{hub.url}/?session=s31&agent=echo")
        await expect(tab.answers).to_have_text(["of s31"])
        await expect(chosen).to_have_value("echo")


async def test_a_hub_without_main_opens_with_an_agent_that_it_has(hub: Hub, browser: Browser) -> None:
    """The page chooses the first agent that works. An agent in the URL is chosen anyway."""
    hub.agent("a_torn.py", "this is no Python")
    await hub.start()
    async with visit(browser, hub.url) as tab:
        await expect(tab.page.get_by_role("heading", name="What shall we talk about?")).to_be_visible()
        await expect(tab.page.get_by_label("Agent", exact=True)).to_have_value("echo")
        await tab.say("hello")
        await expect(tab.answers).to_have_text(["hello"])
        await tab.page.goto(f"{hub.url}/?agent=main&session=s41")
        await expect(tab.page.get_by_role("heading", name="There is no agent “main”")).to_be_visible()


NO_CLIPBOARD = "Object.defineProperty(Navigator.prototype, 'clipboard', { value: undefined })"


async def test_copying_works_over_plain_http(hub: Hub, browser: Browser, tmp_path: Path) -> None:
    """A browser has no navigator.clipboard there. If the browser refuses to copy, the page shows what to do."""
    await start_hub(hub)
    (tmp_path / "text").write_text("Say *this*:\n\n```\nx = 1\n```\n")
    async with visit(browser, hub.url, "?agent=says&session=s42") as tab:
        await tab.page.evaluate(f"() => void {NO_CLIPBOARD}")
        await tab.say(str(tmp_path / "text"))
        answer = tab.page.get_by_role("article", name="says")
        copy = answer.get_by_role("button", name="Copy", exact=True)

        async def paste_and_compare(text: str) -> None:
            await tab.field.fill("")
            await tab.page.keyboard.press("Control+V")
            await expect(tab.field).to_have_value(text)

        is_copied = "() => document.querySelector('article [aria-label=Copied]')"
        notice = tab.page.wait_for_function(is_copied)  # it stays for 1.5 s
        await asyncio.gather(notice, copy.last.click())
        await paste_and_compare((tmp_path / "text").read_text())
        await copy.first.click()
        await paste_and_compare("x = 1")
        await tab.page.get_by_role("button", name="Share").click()
        share = tab.page.get_by_role("dialog", name="Share")
        await share.get_by_role("button", name="Copy").click()
        await expect(share.get_by_role("button", name="Copied")).to_be_visible()
        await tab.page.keyboard.press("Escape")
        await paste_and_compare(tab.page.url)
        await tab.page.evaluate("() => void (document.execCommand = () => false)")
        await copy.first.click()
        await expect(tab.page.get_by_role("alert")).to_have_text(re.compile("does not allow this page to copy"))


async def test_the_share_dialog_names_who_can_join(hub: Hub, browser: Browser) -> None:
    """The host of the URL decides: `localhost` leads only people on this machine to the hub."""
    await start_hub(hub)
    async with visit(browser, hub.url) as tab:
        hosts = ["localhost", "hub.localhost", "127.0.0.1", "[::1]", "hub.example", "127.0.0.1.example", "10.0.0.7"]
        who = "(hosts) => import('/console/views/share.js').then(({ shareText }) => hosts.map(shareText))"
        texts = await tab.page.evaluate(who, hosts)
        assert all("on this machine joins" in text for text in texts[:4])
        for host, text in zip(hosts[4:], texts[4:], strict=True):
            assert text.startswith(f"Everyone who can reach {host} and opens this address joins")


async def test_heading_levels_have_no_gaps(hub: Hub, browser: Browser) -> None:
    """Each heading is at most one level below the one before, also in the text of agents."""
    hub.agent("works.py", WORKS)
    hub.agent("asks.py", HEADS)
    await start_hub(hub)
    async with visit(browser, hub.url, "?agent=works&session=s43") as tab:
        await tab.say(str(Path(__file__)))
        await expect(tab.page.get_by_role("note")).to_have_text("Out of ink.")
        await tab.page.get_by_label("Agent", exact=True).select_option("asks")
        await tab.say("go")
        await expect(tab.page.get_by_role("group", name="A question for you")).to_be_visible()
        await tab.page.get_by_role("button", name="Share").click()
        await expect(tab.page.get_by_role("dialog").get_by_role("heading")).to_be_visible()
        levels = await tab.page.evaluate(LEVELS)
        assert len(levels) >= 9 and all(after <= before + 1 for before, after in pairwise(levels)), levels


HEADS = """
from hub import Run

async def asks(run: Run):
    yield "#### Deep\\n\\n# High\\n\\n### Deep again"
    await run.ask("# Well?")
"""
LEVELS = """() => [...document.querySelectorAll('h1, h2, h3, h4, h5, h6, [role=heading]')]
  .map((it) => Number(it.getAttribute('aria-level') ?? it.tagName[1]))"""


async def test_the_complete_session_is_printed(hub: Hub, browser: Browser) -> None:
    """Ctrl+P loads all earlier messages. If the browser's menu prints, the paper names the missing messages."""
    await start_hub(hub)
    client = await hub.connect("?sessionId=s44")
    for number in range(70):
        await client.send(type="chat", agentId="echo", message=f"number {number}")
        await client.until_done()
    async with visit(browser, hub.url, "?session=s44") as tab:
        await expect(tab.answers).to_have_count(30)
        await expect(tab.page.get_by_text("Earlier messages are not printed")).to_be_hidden()
        some = await count_printed_pages(tab)
        await tab.page.emulate_media(media="print")
        await expect(tab.page.get_by_text("Earlier messages are not printed")).to_be_visible()
        await tab.page.emulate_media(media="null")
        await tab.page.evaluate(
            "() => void (print = () => { window.was = document.querySelectorAll('article').length })"
        )
        await tab.page.keyboard.press("Control+P")
        await tab.page.wait_for_function("() => window.was")
        whole = await count_printed_pages(tab)
        assert 1 < some < whole
        await expect(tab.answers).to_have_count(30)


async def count_printed_pages(tab: Tab) -> int:
    """Return the number of pages that the session has on paper."""
    return len(re.findall(rb"/Type\s*/Page\b", await tab.page.pdf()))


async def test_an_answer_shows_its_details(hub: Hub, browser: Browser, tmp_path: Path) -> None:
    """Thoughts are folded, tools have a state, progress is a bar, and a failure has its message."""
    hub.agent("works.py", WORKS)
    await start_hub(hub)
    gate = tmp_path / "gate"
    async with visit(browser, hub.url, "?agent=works&session=s15") as tab:
        await tab.say(str(gate))
        answer = tab.page.get_by_role("article", name="works")
        await expect(answer.get_by_role("progressbar", name=re.compile("Half"))).to_have_attribute("value", "0.5")
        thought = answer.get_by_text("I wonder.")
        await expect(thought).to_be_hidden()
        await answer.get_by_text("Thought", exact=True).click()
        await expect(thought).to_be_visible()
        tool = answer.locator("details.tool")
        await expect(tool).to_contain_text("lookuprunning")
        gate.touch()
        await expect(tool).to_contain_text("lookupfailed")
        await tool.get_by_text("lookup").click()
        await expect(tool).to_contain_text('"key": "value"')
        await expect(tool).to_contain_text("no such key")
        await expect(answer.get_by_role("note")).to_have_text("Out of ink.")
        await expect(answer.get_by_role("progressbar")).to_have_count(0)


async def test_the_tools_of_a_client_show_their_results(hub: Hub, browser: Browser) -> None:
    """Live, after a reload, and when only the messages are left. A message with results alone is not shown."""
    hub.agent("helper.py", HELPER)
    await start_hub(hub)
    async with visit(browser, hub.url, "?agent=helper&session=s1") as tab:
        await ask(hub, "c1 c2")
        chat = {"message": "", "parts": [result("c1", "sunny"), result("c2", "broken", isError=True)]}
        async with aiohttp.ClientSession(f"{hub.url}/api/v1/") as http:
            assert (await call(http, "POST", "sessions/s1/chat?wait=true", chat))[0] == 200
        tools = tab.page.locator("details.tool")
        for step in ("live", "reload", "messages"):
            if step == "messages":
                await expire_events(hub.node, 10**15)
            if step != "live":
                await tab.page.reload()
            await expect(tools).to_have_count(2)
            await expect(tools.first).to_contain_text("get_weatherdone")
            await expect(tools.first).to_contain_text("sunny")
            await expect(tools.last).to_contain_text("get_weatherfailed")
            await expect(tab.page.get_by_role("article")).to_have_count(3)


WORKS = """
import asyncio, pathlib
from hub import AgentError, Progress, Reasoning, ToolCallArgs, ToolCallEnd, ToolCallResult, ToolCallStart

async def works(message: str):
    yield Reasoning("I wonder.")
    yield ToolCallStart("c1", "lookup")
    yield ToolCallArgs("c1", '{"key": "value"}')
    yield ToolCallEnd("c1")
    yield Progress(0.5, "Half")
    while not pathlib.Path(message).exists():
        await asyncio.sleep(0.01)
    yield ToolCallResult("c1", "no such key", isError=True)
    raise AgentError("Out of ink.", "out_of_ink")
"""
