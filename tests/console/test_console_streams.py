"""The console stays responsive with long answers, and does not execute or fetch anything from bad ones."""

import random
import re
from pathlib import Path
from typing import Any, Literal

from playwright.async_api import Browser, expect
from support.browser import needs_browser, start_hub, visit
from support.hub import Hub
from support.payloads import PAYLOADS
from support.waiting import eventually

from hub.ids import Key
from hub.messages import (
    Author,
    HistoryMessage,
    RunFinished,
    RunStarted,
    ToolCallEnd,
    ToolCallStart,
    UserMessage,
    WholeMessage,
)
from hub.sessions.pending import PendingEvent, attach_future

pytestmark = needs_browser

LOCAL = Author("local", "local")


async def test_the_page_follows_an_answer_unless_the_reader_scrolls_up(
    hub: Hub, browser: Browser, tmp_path: Path
) -> None:
    """The position stays after the reader scrolls up; a button leads back to the end."""
    await start_hub(hub)
    (tmp_path / "text").write_text("line\n\n" * 100 + "WAIT" + "more\n\n" * 100 + "last")
    # A function: the policy of the page lets playwright evaluate an expression only once.
    is_at_end = "() => log.scrollHeight - log.scrollTop - log.clientHeight < 2"
    async with visit(browser, hub.url, "?agent=says&session=s16") as tab:
        await tab.say(str(tmp_path / "text"))
        await expect(tab.answers.locator("p")).to_have_count(100)
        await tab.page.wait_for_function(is_at_end)
        await tab.page.mouse.move(600, 300)
        await tab.page.mouse.wheel(0, -600)
        back = tab.page.get_by_role("button", name="To the newest")
        await expect(back).to_be_visible()
        top = await tab.page.evaluate("log.scrollTop")
        (tmp_path / "text.1").touch()
        await expect(tab.answers.locator("p")).to_have_count(201)
        assert await tab.page.evaluate("log.scrollTop") == top
        await back.click()
        await tab.page.wait_for_function(is_at_end)
        await expect(back).to_have_count(0)


async def test_a_session_of_20_000_tokens_stays_usable(hub: Hub, browser: Browser, tmp_path: Path) -> None:
    """Each frame adds elements at the end and changes nothing above; a very long paragraph is split."""
    await start_hub(hub)
    paragraphs = "".join(f"{'word ' * 99}end.\n\n" for _ in range(100))
    (tmp_path / "text").write_text(paragraphs + "word " * 10_000 + "last")
    async with visit(browser, hub.url, "?agent=says&session=s17") as tab:
        await tab.page.evaluate(COUNT)
        await tab.say(str(tmp_path / "text"))
        await expect(tab.answers).to_contain_text("last", timeout=60_000)
        await expect(tab.page.get_by_role("button", name="Stop")).to_have_count(0)
        counts = await tab.page.evaluate("counts")
        blocks = await tab.answers.locator("p").count()
        assert 110 <= blocks < 125 and 0 < counts["added"] < blocks and counts["removed"] == 0
        assert await tab.answers.evaluate("it => it.textContent.split(' ').length") == 99 * 100 + 1 + 10_000
        assert len(counts["tops"]) == 1, "the composer jumped"
        longest = "all => Math.max(...all.map((it) => it.textContent.length))"
        assert await tab.answers.locator("p").evaluate_all(longest) <= 4000
        assert await tab.page.evaluate("document.querySelectorAll('*').length") < 700
        await tab.page.get_by_label("Agent").select_option("echo")
        await tab.say("still there?")
        await expect(tab.answers.last).to_have_text("still there?")


# Counts the blocks that answers add and remove, and records the position of the composer in each frame. While a message
# is in the composer, it may have several lines.
COUNT = """() => {
  window.counts = { added: 0, removed: 0, tops: [] }
  const frame = () => {
    const { top } = document.querySelector('.composer').getBoundingClientRect()
    if (!document.getElementById('message').value && !counts.tops.includes(top)) counts.tops.push(top)
    requestAnimationFrame(frame)
  }
  frame()
  new MutationObserver((records) => {
    for (const { target, addedNodes, removedNodes } of records) {
      if (!(target.nodeType === 1 && target.closest('.md'))) continue
      counts.added += addedNodes.length
      counts.removed += removedNodes.length
    }
  }).observe(document.body, { subtree: true, childList: true })
}"""


async def test_a_long_session_shows_its_end_and_more_on_request(hub: Hub, browser: Browser) -> None:
    """The number of messages on the page is limited; loading earlier ones keeps the visible part in its position."""
    await start_hub(hub)
    client = await hub.connect("?sessionId=s18")
    for number in range(50):
        await client.send(type="chat", agentId="echo", message=f"number {number}")
        await client.until_done()
    async with visit(browser, hub.url, "?session=s18") as tab:
        await expect(tab.page.get_by_role("article")).to_have_count(60)
        await expect(tab.answers.last).to_have_text("number 49")
        await tab.page.get_by_role("button", name="Show earlier").click()
        await expect(tab.page.get_by_role("article")).to_have_count(100)
        await expect(tab.page.get_by_role("button", name="Show earlier")).to_have_count(0)


async def test_a_session_of_20_000_messages_opens_with_its_last_page(hub: Hub, browser: Browser) -> None:
    """The console loads only one page of messages and their events, with the tool calls."""
    await start_hub(hub)
    sizes: list[int] = []
    for count in (100, 10_000):
        await write_turns(hub, f"s{count}", count)
        async with visit(browser, hub.url, f"?agent=echo&session=s{count}") as tab:
            await expect(tab.page.get_by_role("article")).to_have_count(60)
            await expect(tab.answers.last).to_have_text(f"answer {count - 1}")
            await expect(tab.page.locator("details.tool")).to_have_count(30)
            await expect(tab.page.get_by_role("heading", name="question 0")).to_be_visible()
            pages = [url.split("?")[0] for url in tab.urls if f"/s{count}/" in url and "limit=1" not in url]
            assert pages == [f"{hub.url}/api/v1/sessions/s{count}/{kind}" for kind in ("messages", "events")]
            sizes.append(tab.received_chars + await tab.page.evaluate(READ))
            await tab.page.get_by_role("button", name="Show earlier").click()
            await expect(tab.page.get_by_role("article")).to_have_count(120)
            await expect(tab.answers.first).to_have_text(f"answer {count - 60}")
            await expect(tab.page.locator("details.tool")).to_have_count(60)
            await tab.say("hello")
            await expect(tab.answers.last).to_have_text("hello")
    assert 0 < sizes[1] < 1.2 * sizes[0], sizes


READ = """() => {
  const answers = performance.getEntriesByType('resource').filter(({ name }) => /order=|events/.test(name))
  return answers.reduce((sum, { decodedBodySize }) => sum + decodedBodySize, 0)
}"""


async def write_turns(hub: Hub, name: str, count: int) -> None:
    """Append *count* messages and answers, each with a tool call, to a session's log."""
    async with hub.node.loader.use(Key(name)) as session:
        for number in range(count):
            run, question, answer = f"r{number}", f"q{number}", f"a{number}"
            message = UserMessage(messageId=question, author=LOCAL, content=f"question {number}")
            reply = WholeMessage(messageId=answer, content=f"answer {number}")
            bodies = (RunStarted(answer), ToolCallStart(f"t{number}", "look"), ToolCallEnd(f"t{number}"), reply)
            end = PendingEvent(
                "echo",
                run,
                RunFinished(answer, "end_turn"),
                messages=(history_message("assistant", reply, "echo", run),),
            )
            commit = attach_future(end)
            session.outbox.put(
                PendingEvent(None, None, message, messages=(history_message("user", message),)),
                *(PendingEvent("echo", run, body) for body in bodies),
                end,
            )
            if number % 100 == 99:
                await commit


def history_message(
    role: Literal["user", "assistant"],
    body: UserMessage | WholeMessage,
    agent: str | None = None,
    run: str | None = None,
) -> HistoryMessage:
    author = None if run else LOCAL
    fields: Any = {"messageId": body.messageId, "agentId": agent, "runId": run, "author": author}
    return HistoryMessage(role=role, content=body.content, **fields)


async def test_text_of_an_agent_executes_and_fetches_nothing(hub: Hub, browser: Browser, tmp_path: Path) -> None:
    """The text has 200 attempts at scripts and exfiltration, in random pieces; the test prints the seed."""
    await start_hub(hub)
    seed = random.randrange(10**6)
    print("seed", seed)
    chance = random.Random(seed)
    tries = [chance.choice(PAYLOADS) if number >= len(PAYLOADS) else PAYLOADS[number] for number in range(200)]
    assert len(PAYLOADS) <= 200
    async with visit(browser, hub.url, "?agent=says&session=s19") as tab:
        await tab.page.evaluate("() => { window.ran = []; window.alert = (what) => ran.push(what) }")
        tab.page.on("dialog", lambda dialog: tab.errors.append(dialog.message))
        for number in range(0, 200, 40):
            (tmp_path / "tries").write_text("\n\n".join(tries[number : number + 40]) + "\n\nThat was all.")
            await tab.say(f"{tmp_path / 'tries'} {seed + number}")
            await expect(tab.answers.nth(number // 40)).to_contain_text("That was all.", timeout=60_000)
        await tab.page.evaluate(TOUCH_ALL)
        assert await tab.page.evaluate("ran") == []
        markup = await tab.page.evaluate(MARKUP)
        assert set(markup["tags"]) <= ALLOWED, set(markup["tags"]) - ALLOWED
        assert set(markup["attributes"]) <= {"class", "href", "target", "rel", "role", "aria-level", "aria-label"} | {
            *("type", "disabled", "checked", "tabindex", "data-copy", "start")
        }
        assert all(re.match("https?:|mailto:", link) for link in markup["links"]) and markup["links"]


ALLOWED = {
    *("P", "A", "STRONG", "EM", "DEL", "CODE", "PRE", "SPAN", "DIV", "UL", "OL", "LI", "BR", "HR", "BLOCKQUOTE"),
    *("TABLE", "THEAD", "TBODY", "TR", "TH", "TD", "INPUT", "BUTTON"),
}
# Dispatches the events of a mouse that passes over all elements.
TOUCH_ALL = """() => {
  const kinds = ['mouseover', 'focus', 'error', 'load', 'toggle', 'animationstart']
  for (const it of document.querySelectorAll('.md *')) for (const kind of kinds) it.dispatchEvent(new Event(kind))
}"""
MARKUP = """() => {
  const all = [...document.querySelectorAll('.md *')]
  return {
    tags: [...new Set(all.map((it) => it.tagName))],
    attributes: [...new Set(all.flatMap((it) => it.getAttributeNames()))],
    links: [...new Set(all.map((it) => it.getAttribute('href')).filter(Boolean))],
  }
}"""


async def test_a_deeply_nested_answer_does_not_stop_the_page(hub: Hub, browser: Browser, tmp_path: Path) -> None:
    """The page can open the session later, and renders the next answers."""
    await start_hub(hub)
    (tmp_path / "deep").write_text("\n\n".join([">" * 1000, "- " * 1000, "1. " * 1000, "*" * 6000, "end"]))
    async with visit(browser, hub.url, "?agent=says&session=s36") as tab:
        await tab.say(str(tmp_path / "deep"))
        for _ in range(2):
            await expect(tab.answers.first.locator("p").last).to_have_text("end")
            await tab.page.reload()
        await tab.page.get_by_label("Agent", exact=True).select_option("echo")
        await tab.say("**still** there")
        await expect(tab.answers.last.locator("strong")).to_have_text("still")


async def test_an_answer_that_cannot_be_rendered_is_shown_as_text(hub: Hub, browser: Browser) -> None:
    """Only that answer is plain text: the page and later answers work."""
    await start_hub(hub)
    async with visit(browser, hub.url, "?agent=echo&session=s37", lost=True) as tab:
        await tab.page.evaluate("() => void (Number.prototype.toLocaleString = () => { throw new Error('no') })")
        await tab.say("**not** laid out")
        answer = tab.page.get_by_role("article", name="echo")
        await expect(answer.get_by_role("note")).to_have_text(
            "This message could not be laid out. It is shown as plain text."
        )
        await expect(answer.locator(".pre")).to_have_text("**not** laid out")
        await tab.say("and on")
        await expect(answer.last.locator(".pre")).to_have_text("and on")
        assert any("Error: no" in line for line in tab.errors)


async def test_the_page_sends_requests_only_to_its_hub(hub: Hub, browser: Browser) -> None:
    """Parameters of the URL do not change that; the policy forbids other requests, too."""
    await start_hub(hub)
    query = "?url=ws://127.0.0.1:1/&hub=http://127.0.0.1:1&gatewayUrl=ws://127.0.0.1:1&session=s20"
    async with visit(browser, hub.url, query, lost=True) as tab:
        script = "fetch('http://127.0.0.1:1/').then(() => 'sent', (error) => error.name)"
        assert await tab.page.evaluate(script) == "TypeError"
        await eventually(lambda: any("Content Security Policy" in line for line in tab.errors))
