"""A client of AG-UI: the request as its own package makes it, and the events of the answer."""

import json
from typing import Any

import aiohttp
from ag_ui.core import RunAgentInput, UserMessage
from support.hub import Hub
from support.waiting import PATIENCE


def asked(message: Any, run_id: str = "run-1", thread_id: str = "t1") -> dict[str, Any]:
    """Return a request as AG-UI's package for Python makes it."""
    said = UserMessage(id="u1", role="user", content=message)
    given = RunAgentInput(
        thread_id=thread_id, run_id=run_id, state={}, messages=[said], tools=[], context=[], forwarded_props={}
    )
    body: dict[str, Any] = json.loads(given.model_dump_json(by_alias=True))
    return body


async def events(hub: Hub, agent: str, body: dict[str, Any], most: int = 10**6, **headers: str) -> list[dict[str, Any]]:
    """Run an agent and return its events, each with the `id` of its place; at most so many, then hang up."""
    found: list[dict[str, Any]] = []
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(PATIENCE)) as http:
        async with http.post(f"{hub.url}/api/v1/agents/{agent}/agui", json=body, headers=headers) as response:
            assert response.status == 200 and response.content_type == "text/event-stream"
            place = ""
            async for line in response.content:
                name, _, value = line.decode().rstrip("\n").partition(": ")
                if name == "id":
                    place = value
                if name == "data":
                    found.append(json.loads(value) | {"id": place})
                    if len(found) == most:
                        break
    return found


def text(said: list[dict[str, Any]]) -> str:
    return "".join(event["delta"] for event in said if event["type"] == "TEXT_MESSAGE_CHUNK")
