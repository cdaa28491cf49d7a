"""The contract of the access store of a log, for all drivers."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import attrs
import pytest
from support.logs import LOGS, OpenedLog, Opener, chunk, open_logs

from hub.access.records import (
    AuditEntry,
    Credential,
    Grant,
    PrincipalRecord,
    Quota,
    SessionInvite,
    SessionRole,
    UsageRecord,
)
from hub.errors import StorageUnavailable
from hub.ids import Key
from hub.messages import HistoryMessage, PageRequest
from hub.storage.log import EVERYONE
from hub.storage.records import Append, SessionQuery

S, T = Key("s"), Key("acme/t")
ANN = PrincipalRecord(id="p_ann", name="Ann \0\U0001f600", kind="person", role="admin", created=5)
BOT = PrincipalRecord(id="p_bot", name="bot", kind="program", role="member", tenant="acme", created=4)
KEY = Credential(id="k1", principal="p_ann", kind="key", digest="d" * 64, label="laptop", agents=("a", "b"), created=7)
COOKIE = Credential(id="c1", principal="p_ann", kind="browser", created=6, expires=9)
PROXY = Credential(id="x1", principal="p_bot", kind="proxy", agents=())
INVITE = SessionInvite(id="i1", key=S, role="viewer", digest="e" * 64, creator="p_ann", created=3, expires=8)


@pytest.fixture(params=LOGS)
async def opener(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Opener]:
    async with open_logs(request.param(tmp_path)) as opener:
        yield opener


@pytest.fixture
async def hub(opener: Opener) -> OpenedLog:
    opened = await opener()
    await asyncio.gather(*map(opened.log.sessions.make, (S, T)))
    return opened


# --- records --------------------------------------------------------------------------------------------------------


async def test_records_come_back(opener: Opener) -> None:
    """Also after a restart. A record that is not there is None, and its lists are empty."""
    hub = await opener()
    await hub.log.sessions.make(S)
    await hub.log.access.save(
        ANN, BOT, KEY, COOKIE, PROXY, INVITE, Quota(subject="p_ann", tokens=0), Quota(subject="t")
    )
    await hub.log.close()
    access = (await opener()).log.access
    assert [await access.find_principal(id) for id in ("p_ann", "p_bot", "p_x")] == [ANN, BOT, None]
    assert [await access.find_credential(id) for id in ("k1", "c1", "x1", "k2")] == [KEY, COOKIE, PROXY, None]
    assert [await access.find_invite(id) for id in ("i1", "i2")] == [INVITE, None]
    assert [await access.find_quota(id) for id in ("p_ann", "t", "u")] == [
        Quota(subject="p_ann", tokens=0),
        Quota(subject="t"),
        None,
    ]
    assert [*await access.list_credentials("p_x"), *await access.list_principals("x")] == []
    assert [*await access.list_invites(T), *await access.list_grants("p_ann")] == []


async def test_records_are_listed_in_the_order_of_their_creation(hub: OpenedLog) -> None:
    """A record that is saved again is replaced, and keeps its position."""
    access = hub.log.access
    old = attrs.evolve(INVITE, id="i0", created=9)
    await access.save(BOT, ANN, COOKIE, PROXY, KEY, old, INVITE)
    bot, cookie, revoked = (
        attrs.evolve(BOT, name="Bob"),
        attrs.evolve(COOKIE, label="new"),
        attrs.evolve(old, revoked=1),
    )
    await access.save(bot, cookie, revoked)
    assert list(await access.list_principals()) == [bot, ANN]
    assert list(await access.list_principals("default")) == [ANN] and list(await access.list_principals("acme")) == [
        bot
    ]
    assert list(await access.list_credentials()) == [cookie, PROXY, KEY]
    assert list(await access.list_credentials("p_ann")) == [cookie, KEY]
    assert list(await access.list_invites(S)) == [revoked, INVITE]


async def test_the_order_of_changes_is_that_of_the_calls(hub: OpenedLog) -> None:
    """Also if no caller waits between them, so that they share a commit."""
    access = hub.log.access
    grant = Grant(S, "p_ann", "member")
    before = hub.log.commit_totals.commits
    calls = [access.save(grant), access.remove(grant), access.save(attrs.evolve(grant, role="viewer"))]
    await asyncio.gather(*calls, *(access.save(attrs.evolve(ANN, name=f"{n}")) for n in range(20)))
    assert await access.find_grants(S) == {"p_ann": "viewer"}
    assert (await access.find_principal("p_ann")) == attrs.evolve(ANN, name="19")
    assert hub.log.commit_totals.commits - before < 10


async def test_a_removed_principal_takes_its_records_along(hub: OpenedLog) -> None:
    """Those of others stay. Other records are removed alone, by their ids."""
    access = hub.log.access
    grants = [Grant(S, "p_ann", "owner"), Grant(T, "p_ann", "viewer"), Grant(S, "p_bot", "member")]
    await access.save(ANN, BOT, KEY, PROXY, *grants, Quota(subject="p_ann", runs=1), Quota(subject="p_bot", runs=2))
    await access.remove(attrs.evolve(ANN, name="another"))
    assert (await access.find_principal("p_ann"), await access.find_credential("k1")) == (None, None)
    assert await access.find_quota("p_ann") is None and await access.find_quota("p_bot") is not None
    assert await access.find_grants(S) == {"p_bot": "member"} and await access.find_grants(T) == {}
    assert await access.find_credential("x1") == PROXY
    await access.save(INVITE, ANN)
    await access.remove(PROXY, INVITE, grants[2], Quota(subject="p_bot"), attrs.evolve(KEY, id="k9"))
    assert (await access.find_credential("x1"), await access.find_invite("i1")) == (None, None)
    assert await access.find_quota("p_bot") is None
    assert await access.find_grants(S) == {} and await access.find_principal("p_bot") == BOT


async def test_a_use_is_noted(hub: OpenedLog) -> None:
    """For those credentials that exist; nothing else changes."""
    access = hub.log.access
    await access.save(KEY, COOKIE)
    await access.note_use({"k1": 77, "nobody": 8})
    await access.note_use({})
    assert list(await access.list_credentials()) == [attrs.evolve(KEY, used=77), COOKIE]


async def test_a_refused_change_is_refused_alone(hub: OpenedLog) -> None:
    """Nothing of it is saved, and other changes of the commit are."""
    access = hub.log.access
    calls = (access.save(KEY, attrs.evolve(ANN, name="\ud800")), access.save(BOT))
    refused, saved = await asyncio.gather(*calls, return_exceptions=True)
    assert isinstance(refused, StorageUnavailable) and saved is None
    assert list(await access.list_principals()) == [BOT] and await access.find_credential("k1") is None


# --- grants ---------------------------------------------------------------------------------------------------------


async def test_who_makes_a_session_owns_it(opener: Opener) -> None:
    """The grant is in the commit that makes the session, by make() or by an append. Nobody owns an existing session."""
    hub = await opener()
    find_grants = hub.log.access.find_grants
    commits = hub.log.commit_totals.commits
    assert await find_grants(S) is None
    await hub.log.sessions.make(S, "p_ann")
    await hub.put(Append(T, [chunk("x")], owner="p_bot"))
    assert hub.log.commit_totals.commits == commits + 2
    await hub.log.sessions.make(S, "p_bot")
    await hub.put(Append(T, [chunk("x")], owner="p_ann"))
    await hub.log.sessions.make(Key("free"))
    await hub.log.close()
    find_grants = (await opener()).log.access.find_grants
    assert await find_grants(S) == {"p_ann": "owner"} and await find_grants(T) == {"p_bot": "owner"}
    assert await find_grants(Key("free")) == {} and await find_grants(Key("nobody")) is None


async def test_only_one_of_many_becomes_the_owner(opener: Opener) -> None:
    """The one who is told that the session is new."""
    hub = await opener()
    answers = await asyncio.gather(*(hub.log.sessions.make(S, f"p_{n}") for n in range(20)))
    owners = {f"p_{n}": "owner" for n, (_, is_new) in enumerate(answers) if is_new}
    assert len(owners) == 1 and await hub.log.access.find_grants(S) == owners


async def test_a_refused_append_makes_no_owner(opener: Opener) -> None:
    """Neither the session nor the grant is there."""
    hub = await opener()
    with pytest.raises(StorageUnavailable):
        await hub.put(Append(S, [chunk("\ud800")], owner="p_ann"))
    assert await hub.log.access.find_grants(S) is None and list(await hub.log.access.list_grants("p_ann")) == []
    await hub.put(Append(S, [chunk("x")], owner="p_bot"))
    assert await hub.log.access.find_grants(S) == {"p_bot": "owner"}


async def test_a_grant_needs_an_existing_session(hub: OpenedLog) -> None:
    """So does an invite. Without the session they are skipped, also if a later call of the same commit makes it."""
    access, later = hub.log.access, Key("later")
    await asyncio.gather(
        access.save(Grant(later, "p_bot", "viewer"), Grant(S, "p_bot", "viewer"), attrs.evolve(INVITE, key=later), ANN),
        hub.log.sessions.make(later, "p_ann"),
        access.save(Grant(later, "p_eve", "member")),
    )
    assert await access.find_grants(later) == {"p_ann": "owner", "p_eve": "member"}
    assert await access.find_grants(S) == {"p_bot": "viewer"} and await access.find_principal("p_ann") == ANN
    assert list(await access.list_invites(later)) == []
    assert list(await access.list_grants("p_bot")) == [Grant(S, "p_bot", "viewer")]


async def test_grants_and_invites_are_deleted_with_their_session(hub: OpenedLog) -> None:
    """A new session with the id has none of them, and those of other sessions stay."""
    access = hub.log.access
    await access.save(
        Grant(S, "p_ann", "owner"), Grant(T, "p_ann", "viewer"), INVITE, attrs.evolve(INVITE, id="i2", key=T)
    )
    _, _, (_, is_new) = await asyncio.gather(
        hub.log.sessions.delete(S), access.save(Grant(S, "p_bot", "member")), hub.log.sessions.make(S)
    )
    assert is_new and await access.find_grants(S) == {} and list(await access.list_invites(S)) == []
    assert await access.find_invite("i1") is None and await access.find_invite("i2") is not None
    assert list(await access.list_grants("p_ann")) == [Grant(T, "p_ann", "viewer")]


# --- lists of sessions ----------------------------------------------------------------------------------------------


async def list_keys(
    hub: OpenedLog, readers: Sequence[str] | frozenset[str], limit: int = 1000, **query: Any
) -> list[str]:
    """Return the keys of all pages of a list."""
    keys: list[str] = []
    cursor = None
    while True:
        request = PageRequest(limit, cursor, query.get("order", "desc"))
        fields = {"prefix": "", "readers": readers} | {k: v for k, v in query.items() if k != "order"}
        page = await hub.log.sessions.list(SessionQuery(**fields), request)
        keys += [row.key for row in page.rows]
        cursor = page.next_cursor
        if cursor is None:
            return keys


async def test_a_reader_lists_the_sessions_of_its_grants(hub: OpenedLog) -> None:
    """In each role, each session once, in the same order and by the same filters as everyone's list."""
    mine = [Key(f"m{n}") for n in range(7)]
    for key in (*mine, Key("foreign"), Key("acme/mine")):
        message = HistoryMessage(
            messageId="m", role="assistant", content="x", agentId=f"a{key[-1]}", runId="r", author=None
        )
        await hub.put(Append(key, [chunk("x")], [(0, message)]))
    roles: tuple[SessionRole, ...] = ("owner", "member", "viewer")
    await hub.log.access.save(*(Grant(key, "p_ann", roles[n % 3]) for n, key in enumerate(mine)))
    await hub.log.access.save(
        *(Grant(key, "p_bot", "owner") for key in mine[3:]), Grant(Key("acme/mine"), "p_ann", "owner")
    )
    for order in ("asc", "desc"):
        everyone = await list_keys(hub, EVERYONE, order=order)
        for limit in (1, 3, 7, 100):
            assert await list_keys(hub, ["p_ann"], limit, order=order) == [key for key in everyone if key in mine]
            assert await list_keys(hub, ["p_ann", "p_bot"], limit, order=order) == [k for k in everyone if k in mine]
        assert await list_keys(hub, ["p_bot"], order=order) == [key for key in everyone if key in mine[3:]]
    assert await list_keys(hub, ["p_ann"], agent="a4") == ["m4"] and await list_keys(hub, ["p_bot"], agent="a1") == []
    assert await list_keys(hub, ["p_ann"], prefix="acme/") == ["acme/mine"]
    assert await list_keys(hub, ["p_eve"]) == await list_keys(hub, []) == []
    assert len(await list_keys(hub, frozenset({"p_eve", *EVERYONE}))) == 9


# --- usage, stored bytes and audit ----------------------------------------------------------------------------------


def used(day: str = "2026-11-30", **fields: Any) -> UsageRecord:
    return UsageRecord(**{"day": day, "tenant": "default", "principal": "p_ann", "agent": "main"} | fields)


async def test_usage_is_added_in_the_commit_of_an_append(opener: Opener) -> None:
    """To the row with the same day, tenant, principal and agent. A refused append adds nothing."""
    hub = await opener()
    once = used(messages=1, input_tokens=20, output_tokens=3, estimated=4)
    other = used(agent="other", messages=5)
    await asyncio.gather(*(hub.put(Append(Key(f"s{n}"), [chunk("x")], usage=[once, other, once])) for n in range(10)))
    await hub.put(Append(S, [], usage=[used("2026-12-01", messages=1)]))
    with pytest.raises(StorageUnavailable):
        await hub.put(Append(S, [chunk("\ud800")], usage=[once]))
    await hub.log.close()
    access = (await opener()).log.access
    assert list(await access.list_usage(None, "2026-11-30", "2026-12-01")) == [
        used(messages=20, input_tokens=400, output_tokens=60, estimated=80),
        attrs.evolve(other, messages=50),
        used("2026-12-01", messages=1),
    ]


async def test_usage_is_listed_by_day_tenant_and_principal(hub: OpenedLog) -> None:
    """The first and the last day belong to the list; it is sorted by day, agent and principal."""
    rows = [
        used("2026-11-29", messages=1),
        used("2026-11-30", principal="p_bot", agent="a", tenant="acme", messages=2),
        used("2026-11-30", principal="p_ann", agent="b", messages=3),
        used("2026-11-30", principal="p_bot", agent="b", tenant="acme", messages=4),
        used("2026-12-01", messages=5),
        used("2026-12-02", messages=6),
    ]
    await hub.put(Append(S, [], usage=rows[::-1]))
    list_usage = hub.log.access.list_usage
    assert list(await list_usage(None, "2026-11-30", "2026-12-01")) == rows[1:5]
    assert list(await list_usage("acme", "2026-11-01", "2026-12-31")) == [rows[1], rows[3]]
    assert list(await list_usage("default", "2026-11-30", "2026-11-30", "p_ann")) == [rows[2]]
    assert list(await list_usage("acme", "2026-11-30", "2026-11-30", "p_ann")) == []


async def test_usage_outside_sessions_is_added_to_the_same_rows(hub: OpenedLog) -> None:
    """Nothing is added with an empty list."""
    row = used("2026-11-30", messages=1, input_tokens=2, output_tokens=3, estimated=4)
    await hub.put(Append(S, [], usage=[row]))
    await hub.log.access.add_usage([row, row])
    await hub.log.access.add_usage([])
    (total,) = await hub.log.access.list_usage(None, "2026-11-30", "2026-11-30")
    assert total == used("2026-11-30", messages=3, input_tokens=6, output_tokens=9, estimated=12)


def entry(ts: int, **fields: Any) -> AuditEntry:
    whole: dict[str, Any] = {
        "ts": ts,
        "tenant": "default",
        "principal": "p_ann",
        "name": "Ann",
        "action": "chat",
        "target": "s",
    }
    return AuditEntry(**whole | {"address": "::1", "is_allowed": True} | fields)


async def test_the_audit_keeps_the_newest_entries(opener: Opener) -> None:
    """In the order in which they were added, also after a restart, whatever their times are."""
    hub = await opener()
    entries = [entry(n % 7, is_allowed=n % 2 == 0, reason="denied" * (n % 2)) for n in range(30)]
    await asyncio.gather(*(hub.log.access.add_audit(entries[n : n + 3], 12) for n in range(0, 30, 3)))
    assert list(await hub.log.access.list_audit(None, 99)) == entries[18:]
    await hub.log.close()
    access = (await opener()).log.access
    assert list(await access.list_audit(None, 5)) == entries[25:]
    await access.add_audit([], 2)
    assert list(await access.list_audit(None, 99)) == entries[28:]
    await access.add_audit(entries[:3], 2)
    assert list(await access.list_audit(None, 99)) == entries[1:3]


async def test_the_audit_is_listed_by_tenant_principal_and_target(hub: OpenedLog) -> None:
    """The newest entries that match, the oldest of them first."""
    entries = [
        entry(1),
        entry(2, tenant="acme", principal="p_bot", target="acme/t"),
        entry(3, target="p_bot"),
        entry(4, principal="", name="", is_allowed=False, reason="unauthenticated"),
        entry(5),
    ]
    await hub.log.access.add_audit(entries, 100)
    listed = hub.log.access.list_audit
    assert list(await listed("acme", 9)) == [entries[1]] and list(await listed("default", 2)) == entries[3:]
    assert list(await listed(None, 2, "p_ann")) == [entries[2], entries[4]]
    assert list(await listed("default", 9, target="s")) == [entries[0], entries[3], entries[4]]
    assert list(await listed(None, 9, "p_bot", "s")) == []


async def test_an_erased_principal_leaves_only_its_id(hub: OpenedLog) -> None:
    """In the audit and the usage. Those of others stay as they are; a second erasure changes nothing."""
    access, row = hub.log.access, used("2026-11-30", principal="p_ann", messages=1)
    bobs = entry(2, principal="p_bob", name="Bob")
    await access.save(ANN, BOT, KEY, PROXY, Grant(S, "p_ann", "owner"), Quota(subject="p_ann", runs=1))
    await access.add_audit([entry(1, principal="p_ann", name="Ann"), bobs], 10)
    await access.add_usage([row])
    for _ in range(2):
        await access.erase_principal("p_ann")
        assert list(await access.list_principals()) == [BOT] and list(await access.list_credentials()) == [PROXY]
        assert await access.find_quota("p_ann") is None and await access.find_grants(S) == {}
        assert list(await access.list_audit(None, 10)) == [entry(1, principal="p_ann", name=""), bobs]
        assert list(await access.list_usage(None, "2026-11-30", "2026-11-30")) == [row]
