"""A hub with sign-in, and the people who use it: each has a key."""

from typing import Any

import aiohttp
import attrs
from support.hub import Client, Hub
from support.waiting import PATIENCE

from hub.access.principal import OPERATOR, Principal
from hub.access.records import TenantRole
from hub.commands import table as commands

# Replies to `plain` without a report of its usage; `metered` reports 7 and 5 tokens.
USAGE_AGENTS = {
    "plain.py": """
        async def plain(message: str):
            yield "abcde"
        """,
    "metered.py": """
        from hub import Finish, Usage

        async def metered(message: str):
            yield "abcde"
            yield Finish(usage=Usage(7, 5))
        """,
    "caller.py": """
        from hub import Run

        async def caller(run: Run):
            for name in run.message.split():
                await run.call(name, "12345")
            yield "done"
        """,
    "raises.py": """
        async def raises(message: str):
            yield "abcde"
            raise ValueError("no")
        """,
}


def bearer(key: str) -> dict[str, str]:
    """Return the header with which a program sends its key."""
    return {"Authorization": f"Bearer {key}"}


@attrs.define(eq=False)
class People:
    """The keys and the ids of principals by their names. The first sessions are made by their first messages."""

    hub: Hub
    keys: dict[str, str] = attrs.Factory(dict)
    ids: dict[str, str] = attrs.Factory(dict)
    _refs: int = 0

    async def add(self, *names: str, role: TenantRole = "member", **options: Any) -> None:
        for name in names:
            new_key = await commands.create_key(self.hub.door, OPERATOR, name, role=role, **options)
            self.keys[name], self.ids[name] = new_key.key, new_key.principal.id

    async def principal(self, name: str) -> Principal:
        return await self.hub.door.directory.authenticate(self.keys[name])

    def headers(self, name: str) -> dict[str, str]:
        return bearer(self.keys[name])

    async def connect(self, name: str, query: str = "", extended: bool = True) -> Client:
        return await self.hub.connect(query, extended=extended, headers=self.headers(name))

    async def send_chat(self, client: Client, agent: str, message: str, session: str, **fields: Any) -> dict[str, Any]:
        """Send a chat, and return its answer: `accepted` or an error."""
        self._refs += 1
        ref = f"people-{self._refs}"
        await client.send(type="chat", agentId=agent, message=message, sessionId=session, ref=ref, **fields)
        return await client.until(lambda frame: frame.get("ref") == ref)

    async def chat(self, client: Client, agent: str, message: str, session: str, **fields: Any) -> dict[str, Any]:
        """Send a chat, wait for the end of its run, and return the end; or return the error."""
        answer = await self.send_chat(client, agent, message, session, **fields)
        if answer["type"] == "error":
            return answer
        run_id = answer["runId"]
        return await client.find(lambda frame: frame["type"] == "run_finished" and frame["runId"] == run_id)

    async def request(self, name: str, method: str, path: str, **options: Any) -> tuple[int, Any]:
        """Send an HTTP request, and return the status and the body."""
        timeout = aiohttp.ClientTimeout(PATIENCE)
        headers = self.headers(name) | options.pop("headers", {})
        async with aiohttp.ClientSession(timeout=timeout) as http:
            async with http.request(method, f"{self.hub.url}/api/v1{path}", headers=headers, **options) as response:
                text = await response.text()
                return response.status, await response.json() if text.startswith("{") else text

    async def usage(self, name: str, query: str = "") -> list[dict[str, Any]]:
        """Return the usage that a principal sees over HTTP, with names in place of ids."""
        status, body = await self.request(name, "GET", f"/usage{query}")
        assert status == 200 and body["more"] is False, body
        names = {id: name for name, id in self.ids.items()}
        return [row | {"principal": names.get(row["principal"], row["principal"])} for row in body["data"]]


async def start_people(hub: Hub, *names: str, **limits: Any) -> People:
    """Start a hub with the agents of this module, and make principals."""
    hub.options = {"sign_in": True, **hub.options}
    for file_name, code in USAGE_AGENTS.items():
        hub.agent(file_name, code)
    await hub.start(**limits)
    people = People(hub)
    await people.add(*names)
    return people
