"""Files in the console: chosen, sent as parts of a message, and shown to everyone in the session."""

import base64

from playwright.async_api import Browser, FilePayload, expect
from support.browser import needs_browser, start_hub, visit
from support.hub import Hub

pytestmark = needs_browser

PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
PICTURE = FilePayload(name="cat.png", mimeType="image/png", buffer=PIXEL)
NOTES = FilePayload(name="notes.txt", mimeType="text/plain", buffer=b"Otters")
READER = """
from hub import Message, Run

async def reader(run: Run):
    for part in run.parts:
        yield f"{part['type']} {part['metadata']['name']}: {len(await run.file(part))}\\n\\n"
    yield Message("made", parts=[part for part in run.parts if part["type"] == "image"])
"""


async def test_files_are_sent_with_a_message_and_shown_to_all(hub: Hub, browser: Browser) -> None:
    """Pictures are shown, and other files are links; in one's own and in others' messages, also after a reload."""
    hub.agent("reader.py", READER)
    await start_hub(hub)
    async with visit(browser, hub.url, "?agent=reader&session=s1") as one, visit(
        browser, hub.url, "?agent=reader&session=s1"
    ) as two:
        unwanted = FilePayload(name="unwanted.bin", mimeType="application/octet-stream", buffer=b"x")
        await one.page.locator("input[type=file]").set_input_files([PICTURE, unwanted])
        await one.page.locator("input[type=file]").set_input_files([NOTES])
        await expect(one.page.locator(".files li")).to_have_text(["cat.png", "unwanted.bin", "notes.txt"])
        await one.page.get_by_role("button", name="Leave out unwanted.bin").click()
        await one.say("look")
        await expect(one.page.locator(".files li")).to_have_count(0)
        for tab, is_reloaded in ((one, False), (two, False), (two, True)):
            if is_reloaded:
                await tab.page.reload()
            await expect(tab.answers.last).to_have_text("made")
            await expect(tab.answers.first).to_contain_text(f"image cat.png: {len(PIXEL)}")
            await expect(tab.answers.first).to_contain_text("document notes.txt: 6")
            bubble = tab.page.locator(".bubble")
            await expect(bubble).to_contain_text("look")
            for place in (bubble, tab.answers.last):
                picture = place.get_by_role("img", name="cat.png")
                await expect(picture).to_be_visible()
                assert await picture.evaluate("it => it.decode().then(() => it.naturalWidth)") == 1
            async with tab.page.expect_download() as download:
                await bubble.get_by_role("link", name="notes.txt").click()
            file = await download.value
            assert file.suggested_filename == "notes.txt" and (await file.path()).read_bytes() == b"Otters"


async def test_a_message_may_have_only_files_and_an_edit_keeps_them(hub: Hub, browser: Browser) -> None:
    hub.agent("reader.py", READER)
    await start_hub(hub)
    async with visit(browser, hub.url, "?agent=reader&session=s1") as tab:
        await tab.page.locator("input[type=file]").set_input_files([NOTES])
        await tab.page.get_by_role("button", name="Send").click()
        await expect(tab.answers.first).to_have_text("document notes.txt: 6")
        mine = tab.page.get_by_role("article", name="You")
        await mine.hover()
        await mine.get_by_role("button", name="Edit").click()
        await tab.page.get_by_label("New text").fill("once more")
        await tab.page.keyboard.press("Enter")
        await expect(tab.page.locator(".bubble")).to_have_text("once moreattachment: notes.txt")
        await expect(tab.answers.first).to_have_text("document notes.txt: 6")


async def test_pasted_files_are_attached(hub: Hub, browser: Browser) -> None:
    """And dropped ones."""
    await start_hub(hub)
    async with visit(browser, hub.url, "?agent=echo&session=s1") as tab:
        for kind, field in (("paste", "clipboardData"), ("drop", "dataTransfer")):
            await tab.field.evaluate(
                """(it, [kind, field]) => {
                    const files = new DataTransfer()
                    files.items.add(new File(["x"], `${kind}.txt`, { type: "text/plain" }))
                    const event = new Event(kind, { bubbles: true, cancelable: true })
                    it.dispatchEvent(Object.defineProperty(event, field, { value: files }))
                    if (!event.defaultPrevented) throw new Error("the browser would open the file")
                }""",
                [kind, field],
            )
        await expect(tab.page.locator(".files li")).to_have_text(["paste.txt", "drop.txt"])


async def test_a_file_that_is_too_large_is_not_sent_and_can_be_taken_back(hub: Hub, browser: Browser) -> None:
    """The message says why, and goes back into the composer with its files."""
    await hub.start(file_bytes=5)
    async with visit(browser, hub.url, "?agent=echo&session=s1", lost=True) as tab:
        await tab.page.locator("input[type=file]").set_input_files([NOTES])
        await tab.say("look")
        mine = tab.page.get_by_role("article", name="You")
        await expect(mine).to_contain_text("not sent: the file is too large")
        await mine.get_by_role("button", name="Edit").click()
        await expect(tab.field).to_have_value("look")
        await expect(tab.page.locator(".files li")).to_have_text(["notes.txt"])
