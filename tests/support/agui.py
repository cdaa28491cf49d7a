"""A client of AG-UI: requests made with its own package, and the events of the response."""

import json
from typing import Any

import aiohttp
from ag_ui.core import RunAgentInput, UserMessage
from support.hub import Hub
from support.waiting import PATIENCE


def run_request(message: Any, run_id: str = "run-1", thread_id: str = "t1") -> dict[str, Any]:
    """Return a request body as AG-UI's package for Python makes it."""
    run_input = RunAgentInput(
        thread_id=thread_id,
        run_id=run_id,
        state={},
        messages=[UserMessage(id="u1", role="user", content=message)],
        tools=[],
        context=[],
        forwarded_props={},
    )
    body: dict[str, Any] = json.loads(run_input.model_dump_json(by_alias=True))
    return body


async def events(hub: Hub, agent: str, body: dict[str, Any], most: int = 10**6, **headers: str) -> list[dict[str, Any]]:
    """Run an agent and return its events, each with its `id`; disconnect after *most* events."""
    received: list[dict[str, Any]] = []
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(PATIENCE)) as http:
        async with http.post(f"{hub.url}/api/v1/agents/{agent}/agui", json=body, headers=headers) as response:
            assert response.status == 200 and response.content_type == "text/event-stream"
            event_id = ""
            async for line in response.content:
                name, _, value = line.decode().rstrip("\n").partition(": ")
                if name == "id":
                    event_id = value
                if name == "data":
                    received.append(json.loads(value) | {"id": event_id})
                    if len(received) == most:
                        break
    return received


def text(run_events: list[dict[str, Any]]) -> str:
    return "".join(event["delta"] for event in run_events if event["type"] == "TEXT_MESSAGE_CONTENT")


def outline(run_events: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    """Return events without what may differ between two deliveries: consecutive pieces of one message are joined."""
    lines: list[tuple[Any, ...]] = []
    for event in run_events:
        kind, message_id, delta = event["type"], event.get("messageId"), event.get("delta")
        if kind.endswith("_CONTENT") and lines and lines[-1][:2] == (kind, message_id):
            lines[-1] = (kind, message_id, lines[-1][2] + delta)
        else:
            lines.append((kind, message_id, delta))
    return lines


def check_messages(run_events: list[dict[str, Any]]) -> None:
    """Check that each message has one START, then its content, then one END, and that messages do not overlap."""
    open_ids: list[str] = []
    started: list[str] = []
    for event in run_events:
        kind, message_id = event["type"], event.get("messageId", "")
        if kind in ("TEXT_MESSAGE_START", "REASONING_START"):
            assert not open_ids and message_id not in started, event
            open_ids, started = [message_id], [*started, message_id]
        elif kind in ("TEXT_MESSAGE_END", "REASONING_END"):
            assert open_ids == [message_id], event
            open_ids = []
        elif kind.startswith(("TEXT_MESSAGE", "REASONING")):
            assert open_ids == [message_id], event
        elif kind != "CUSTOM":
            assert not open_ids, event
    assert not open_ids
