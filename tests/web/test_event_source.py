"""The EventSource of a browser reads the events of a session."""

import pytest
from playwright.async_api import Browser
from support.browser import needs_browser
from support.hub import Hub

# Read a session to the end of its stream. Delete the session after its first answer.
READ = """async () => {
  await fetch('/api/v1/sessions/s1/chat?wait=true', { method: 'POST', body: '{"agentId": "echo", "message": "hello"}' })
  const source = new EventSource('/api/v1/sessions/s1/events?afterSeq=0')
  const texts = []
  source.addEventListener('stream', ({ data }) => texts.push(JSON.parse(data).content))
  source.addEventListener('run_finished', () => fetch('/api/v1/sessions/s1', { method: 'DELETE' }))
  const notice = await new Promise((resolve) => {
    source.addEventListener('hub_error', resolve)
    source.onerror = (event) => resolve(event)  // also when the connection is lost
  })
  source.close()
  return [texts.join(''), notice.type, JSON.parse(notice.data ?? '{}').code]
}"""


@needs_browser
@pytest.mark.timeout(60)
async def test_an_error_reaches_a_listener_of_its_own(hub: Hub, browser: Browser) -> None:
    """It does not call `onerror`, which is for a lost connection."""
    await hub.start()
    page = await browser.new_page()
    await page.goto(f"{hub.url}/docs")
    assert await page.evaluate(READ) == ["hello ", "hub_error", "session_deleted"]
