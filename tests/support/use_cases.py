"""How to call each use case of hub.commands.table, for the tests of the table and of the permissions."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs

from hub.access.permissions import Action
from hub.access.probes import ProbeReport
from hub.commands.client import ClientHandle
from hub.commands.complete import Conversation
from hub.commands.directory import ForeignUser
from hub.messages import (
    Auth,
    Cancel,
    Chat,
    Edit,
    Fork,
    Hello,
    PageRequest,
    Regenerate,
    Resume,
    Subscribe,
    Typing,
    Unsubscribe,
)

MESSAGE = "m_1"
NO_FOLDER = Path(__file__)
PROBE_REPORT = ProbeReport(
    method="GET",
    version="1.1",
    path="/api/v1/echo",
    headers=(),
    peer="127.0.0.1",
    peerPort=None,
    address="127.0.0.1",
    scheme="http",
    host="localhost",
    refusal=None,
)


def make_chat(session: str) -> Chat:
    return Chat(message="hello", agentId="echo", sessionId=session)


@attrs.frozen
class Row:
    """How to call a use case, with a client and the id of a session. If *is_served*, it works while the hub drains."""

    action: Action
    arguments: Callable[[ClientHandle, str], tuple[Any, ...]]
    is_served: bool = False


class ClientOpened(Exception):
    """A use case opened the client for its answer, so it was not refused."""


async def open_for_run(run_id: str, cursor_event: object) -> ClientHandle:
    raise ClientOpened


# Each use case with the action that it needs.
ROWS: dict[str, Row] = {
    "chat": Row("write", lambda client, session: (make_chat(session), client)),
    "stream_chat": Row("write", lambda client, session: (make_chat(session), open_for_run)),
    "ask": Row("write", lambda client, session: (make_chat(session),)),
    "complete": Row("use", lambda client, session: ("echo", Conversation(run_id="r1", message="hello"))),
    "regenerate": Row("write", lambda client, session: (Regenerate(sessionId=session, messageId=MESSAGE), client)),
    "edit": Row("write", lambda client, session: (Edit(sessionId=session, messageId=MESSAGE, message="x"), client)),
    "fork": Row("write", lambda client, session: (Fork(sessionId=session, messageId=MESSAGE), client)),
    "cancel": Row("write", lambda client, session: (Cancel(sessionId=session),), True),
    "resume": Row(
        "write", lambda client, session: (Resume(sessionId=session, interruptId="i", status="cancelled"),), True
    ),
    "answer_questions": Row(
        "write", lambda client, session: (session, [Resume(sessionId=session, interruptId="i", status="cancelled")])
    ),
    "typing": Row("write", lambda client, session: (Typing(sessionId=session), client), True),
    "upload": Row("write", lambda client, session: (session, "x.txt", "text/plain")),
    "delete_file": Row("write", lambda client, session: (f"f_{session}",)),
    "create_session": Row("read", lambda client, session: (session,)),
    "relabel": Row("write", lambda client, session: (session, {"title": "x"}), True),
    "welcome": Row("enter", lambda client, session: (client,), True),
    "hello": Row("enter", lambda client, session: (Hello(), client), True),
    "subscribe": Row("read", lambda client, session: (Subscribe(sessionId=session), client), True),
    "unsubscribe": Row("join", lambda client, session: (Unsubscribe(sessionId=session), client), True),
    "follow_session": Row("read", lambda client, session: (session, client.get_open_client), True),
    "connect_session": Row("read", lambda client, session: (session, client.get_open_client, lambda start: None), True),
    "follow_run": Row("read", lambda client, session: (session, "r1", 0, open_for_run), True),
    "list_sessions": Row("join", lambda client, session: (PageRequest(9),), True),
    "get_session": Row("read", lambda client, session: (session,), True),
    "list_messages": Row("read", lambda client, session: (session, PageRequest(9)), True),
    "read_events": Row("read", lambda client, session: (session, 0), True),
    "list_files": Row("read", lambda client, session: (session, PageRequest(9)), True),
    "open_file": Row("read", lambda client, session: (f"f_{session}",), True),
    "list_agents": Row("join", lambda client, session: (PageRequest(9),), True),
    "get_agent": Row("join", lambda client, session: ("echo",), True),
    "get_working_agent": Row("join", lambda client, session: ("echo",), True),
    "delete_session": Row("manage", lambda client, session: (session,)),
    "clear_sessions": Row("join", lambda client, session: ()),
    "reload_agent": Row("administer", lambda client, session: ("echo",)),
    "broadcast": Row("administer", lambda client, session: ("echo", "hello")),
    "change_settings": Row("operate", lambda client, session: (client.hub.first_settings,)),
    "reload_agents": Row("operate", lambda client, session: ()),
    "inspect_agents": Row("operate", lambda client, session: (), True),
    "read_metrics": Row("operate", lambda client, session: (), True),
    "check_data": Row("operate", lambda client, session: (), True),
    "list_log_risks": Row("operate", lambda client, session: (), True),
    "back_up": Row("operate", lambda client, session: (NO_FOLDER, print), True),
    "restore": Row("operate", lambda client, session: (NO_FOLDER, print), True),
    "authenticate": Row("enter", lambda client, session: ("hk_wrong",), True),
    "find_foreign_user": Row(
        "enter", lambda client, session: (ForeignUser(kind="proxy", subject="x", name="x"),), True
    ),
    "auth": Row("enter", lambda client, session: (Auth(token="hk_wrong"), client), True),
    "use_link": Row("enter", lambda client, session: ("hi_wrong",)),
    "redeem_ticket": Row("enter", lambda client, session: ("ht_wrong", None, None), True),
    "get_me": Row("join", lambda client, session: (), True),
    "sign_out": Row("join", lambda client, session: (), True),
    "create_probe": Row("operate", lambda client, session: (), True),
    "find_probe": Row("operate", lambda client, session: ("0123456789abcdef",), True),
    "receive_probe": Row("enter", lambda client, session: ("hp_wrong", PROBE_REPORT), True),
    "make_ticket": Row("join", lambda client, session: (None,), True),
    "list_members": Row("read", lambda client, session: (session,), True),
    "change_member": Row("manage", lambda client, session: (session, "p_1", None), True),
    "create_invite": Row("manage", lambda client, session: (session, "member")),
    "list_invites": Row("manage", lambda client, session: (session,), True),
    "revoke_invite": Row("manage", lambda client, session: (session, "i1"), True),
    "create_key": Row("operate", lambda client, session: ("ann",), True),
    "list_credentials": Row("operate", lambda client, session: (), True),
    "revoke_credential": Row("operate", lambda client, session: ("k1",), True),
    "invite_person": Row("operate", lambda client, session: ("ann",), True),
    "list_principals": Row("operate", lambda client, session: (), True),
    "change_principal": Row("operate", lambda client, session: ("nobody here",), True),
    "remove_principal": Row("operate", lambda client, session: ("nobody here",), True),
    "erase_principal": Row("operate", lambda client, session: ("nobody here",)),
    "read_usage": Row("join", lambda client, session: (), True),
    "read_audit": Row("administer", lambda client, session: (), True),
    "read_quota": Row("administer", lambda client, session: ("p_1",), True),
    "set_quota": Row("administer", lambda client, session: ("p_1", {"runs": 1}), True),
    "adopt_sessions": Row("operate", lambda client, session: ("nobody here",), True),
    "export_principal": Row("operate", lambda client, session: ("nobody here",), True),
    "export_messages": Row("operate", lambda client, session: ("p_1",), True),
}
