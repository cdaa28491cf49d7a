"""The permission matrix: each use case, for each kind of principal, in each kind of session.

The expected answers are written down here a second time, from the words of docs/operations.md, and not read from
hub.access.permissions.
"""

from collections.abc import AsyncIterator
from itertools import count, product
from pathlib import Path
from typing import Any

import aiohttp
import attrs
import pytest
from support.hub import Hub
from support.sse import post
from support.use_cases import MESSAGE, ROWS, ClientOpened

from hub.access.principal import NOBODY, OPERATOR, Principal
from hub.access.records import Grant, SessionRole
from hub.commands import table as commands
from hub.commands.client import ClientHandle
from hub.commands.intake import build_error
from hub.errors import Denied, HubError, Unauthenticated, UnknownAgent, UnknownFile, UnknownSession
from hub.ids import Key
from hub.storage.records import FileRecord

SESSIONS: dict[str, SessionRole | None] = {
    "owner": "owner",
    "member": "member",
    "viewer": "viewer",
    "foreign": None,
    "missing": None,
}
OWN_ROLES = {"owner": "rwm", "member": "rw", "viewer": "r"}  # read, write, manage
# What each principal may do in a session in which it has a grant, and in a foreign one; None: it looks missing.
RIGHTS: dict[str, tuple[dict[str, str], str | None]] = {
    "admin": (dict.fromkeys(OWN_ROLES, "rwm"), "rwm"),
    "observer": (dict.fromkeys(OWN_ROLES, "r"), "r"),
    "member": (OWN_ROLES, None),
    "limited": (OWN_ROLES, None),
    "guest": (OWN_ROLES, None),
    "stranger": ({}, None),
}
KINDS = (*RIGHTS, "expired", "revoked", "none")
IN_TEAM = {"admin": "rwm", "observer": "r", "member": "rw", "limited": "rw", "guest": None, "stranger": None}
CREATORS = {"admin", "member", "limited", "stranger"}
LETTERS = {"read": "r", "write": "w", "manage": "m"}
USES_ECHO = {"chat", "stream_chat", "ask", "complete", "get_agent", "get_working_agent"}
NO_SESSION_RIGHTS = {
    "join": {*RIGHTS},
    "use": CREATORS,
    "administer": {"admin", "stranger"},
    "operate": set[str](),
}


def make_file(session_id: str) -> FileRecord:
    return FileRecord(
        fileId=f"f_{session_id}", key=Key(session_id), name="x", type="text/plain", size=1, digest="0" * 64
    )


@attrs.define
class Stage:
    """A hub with sign-in, and a principal of each kind with an open client."""

    hub: Hub
    principals: dict[str, Principal] = attrs.Factory(dict)
    clients: dict[str, ClientHandle] = attrs.Factory(dict)
    headers: dict[str, dict[str, str]] = attrs.Factory(dict)
    numbers: Any = attrs.Factory(count)

    async def enter(self, kind: str) -> None:
        """Make the principal of a kind, and connect it."""
        options: dict[str, Any] = {"role": kind if kind in ("admin", "observer", "guest") else "member"}
        if kind == "stranger":
            options = {"role": "admin", "tenant": "acme"}
        if kind == "limited":
            options["agents"] = ["gated"]
        key = await self.hub.key(kind, **options | ({"days": -1} if kind == "expired" else {}))
        if kind == "revoked":
            await commands.revoke_credential(self.hub.door, OPERATOR, key.split("_")[1])
        self.headers[kind] = {"Authorization": f"Bearer {key}"} if kind != "none" else {}
        if kind in RIGHTS:
            self.principals[kind] = await self.hub.door.directory.authenticate(key)
            await self.hub.connect(headers=self.headers[kind])
        else:
            with pytest.raises(Unauthenticated):
                await self.hub.door.directory.authenticate(key if kind != "none" else "")
            self.principals[kind] = NOBODY
            await self.hub.connect()
        self.clients[kind] = [*self.hub.door.clients.by_connection.values()][-1]

    async def make_session(self, kind: str, session: str) -> str:
        """Make a session of a kind for every principal. Return its id."""
        session_id, log = f"s{next(self.numbers)}", self.hub.node.log
        if session != "missing":
            await log.sessions.make(Key(session_id), "p_owner")
            await log.files.add(make_file(session_id))
            role = SESSIONS.get(session)
            if role is not None:
                await log.access.save(Grant(Key(session_id), self.principals[kind].id, role))
        return session_id

    async def call(self, kind: str, name: str, session_id: str) -> HubError | None:
        """Call a use case. Return its error, or None."""
        client, principal = self.clients[kind], self.principals[kind]
        try:
            await commands.USE_CASES[name](self.hub.door, principal, *ROWS[name].arguments(client, session_id))
        except HubError as error:
            return error
        except ClientOpened:
            pass
        finally:
            for sub in list(client.connection.subscriptions.values()):
                self.hub.node.registry.unsubscribe(sub)
        return None


@pytest.fixture
async def stage(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Stage]:
    options = {"sign_in": True, "session_access": getattr(request, "param", "private")}
    hub = await Hub(tmp_path, options=options).start(auth_seconds=600.0)
    stage = Stage(hub)
    for kind in KINDS:
        await stage.enter(kind)
    yield stage
    await hub.stop()


def describe(error: HubError | None) -> str:
    """Return the kind of refusal, or `ok` for a result and for any error that is no refusal."""
    kinds = {Unauthenticated: "unauthenticated", Denied: "denied", UnknownSession: "missing", UnknownFile: "missing"}
    return next((text for kind, text in kinds.items() if isinstance(error, kind)), "ok")


def targets_of(name: str, client: ClientHandle, session: str) -> list[Any]:
    scope = commands.USE_CASES[name].scope(*ROWS[name].arguments(client, session))
    return [target for target in scope if target.session_id == session or target.file_id is not None]


def expect(name: str, kind: str, session: str, rights: str | None, targets: list[Any]) -> str:
    """Return what the matrix says about a cell."""
    action = ROWS[name].action
    if kind not in RIGHTS:
        return "unauthenticated"
    if kind == "limited" and name in USES_ECHO:
        return "unknown_agent"
    if not targets:
        if action == "read":  # without a session
            return "ok"
        return "ok" if kind in NO_SESSION_RIGHTS[action] else "denied"
    if rights is None:
        can_create = targets[0].may_create and (session == "missing" or kind == "stranger")
        return "missing" if not can_create or kind == "guest" else "ok" if kind in CREATORS else "denied"
    letter = "r" if targets[0].for_reading else LETTERS[action]
    if letter not in rights:
        return "denied"
    return "ok" if name != "fork" or kind in CREATORS else "denied"  # a fork makes a session, too


def rights_in(kind: str, session: str) -> str | None:
    if kind not in RIGHTS or session == "missing":
        return None
    own, foreign = RIGHTS[kind]
    return own.get(session, foreign)


async def check(stage: Stage, name: str, kind: str, session: str, rights: str | None) -> None:
    session_id = await stage.make_session(kind, session)
    targets = targets_of(name, stage.clients[kind], session_id)
    error = await stage.call(kind, name, session_id)
    outcome = "unknown_agent" if isinstance(error, UnknownAgent) else describe(error)
    assert outcome == expect(name, kind, session, rights, targets), (name, kind, session, error)


def test_each_use_case_is_in_the_matrix() -> None:
    """A use case without a row fails the build."""
    assert ROWS.keys() == commands.USE_CASES.keys()


@pytest.mark.parametrize("kind", KINDS)
async def test_a_principal_may_do_what_the_matrix_says(stage: Stage, kind: str) -> None:
    """Each use case in a session that it owns, is a member of, or views; in a foreign and in a missing one."""
    for name, row in ROWS.items():
        if row.action != "enter":
            for session in SESSIONS:
                await check(stage, name, kind, session, rights_in(kind, session))


@pytest.mark.parametrize("kind", KINDS)
async def test_a_command_over_http_needs_the_same_permission(stage: Stage, kind: str) -> None:
    """The sessions are empty, so a command that is allowed finds no message."""
    message = {"messageId": MESSAGE}
    bodies = {"edit": message | {"message": "x"}, "regenerate": message, "fork": message, "typing": {}}
    async with aiohttp.ClientSession(f"{stage.hub.url}/api/v1/", headers=stage.headers[kind]) as http:
        for name, session in product(bodies, SESSIONS):
            session_id = await stage.make_session(kind, session)
            targets = targets_of(name, stage.clients[kind], session_id)
            status, body = await post(http, f"sessions/{session_id}/{name}", bodies[name])
            outcome = expect(name, kind, session, rights_in(kind, session), targets)
            if outcome == "ok":
                assert (status, body) == (204, None) if name == "typing" else body["code"] == "unknown_message"
            else:
                codes = {"unauthenticated": 401, "denied": 403, "unknown_session": 404}
                code = "unknown_session" if outcome == "missing" else outcome
                assert (status, body["code"]) == (codes[code], code), (name, session)


@pytest.mark.parametrize("stage", ["team"], indirect=True)
@pytest.mark.parametrize("kind", KINDS)
async def test_a_member_of_a_team_is_a_member_of_each_session(stage: Stage, kind: str) -> None:
    for name, row in ROWS.items():
        if row.action != "enter":
            await check(stage, name, kind, "team", IN_TEAM.get(kind))


@pytest.mark.parametrize("kind", ["member", "guest", "stranger"])
async def test_a_foreign_session_answers_exactly_as_a_missing_one(stage: Stage, kind: str) -> None:
    """In each use case that makes no session, and for a guest in all. The errors are equal in all their fields."""
    compared = 0
    for name in ROWS:
        session_id = await stage.make_session(kind, "missing")
        targets = targets_of(name, stage.clients[kind], session_id)
        if targets and (kind == "guest" or not targets[0].may_create):
            missing = await stage.call(kind, name, session_id)
            await stage.hub.node.log.sessions.make(Key(session_id), "p_owner")
            await stage.hub.node.log.files.add(make_file(session_id))
            foreign = await stage.call(kind, name, session_id)
            assert missing is not None and foreign is not None, name
            assert type(missing) is type(foreign) and build_error(missing) == build_error(foreign), name
            compared += 1
    assert compared >= 15
