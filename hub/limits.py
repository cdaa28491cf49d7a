"""The limits of the hub, with their units."""

from typing import Annotated

import attrs
import msgspec

KiB = 1024
MiB = 1024 * KiB

MAX_LIMIT = 2**53  # the largest value of any limit: JavaScript holds integers up to it exactly
Count = Annotated[int, msgspec.Meta(ge=1, le=MAX_LIMIT, description="a whole number, 1 or more")]
CountOrZero = Annotated[int, msgspec.Meta(ge=0, le=MAX_LIMIT, description="a whole number, 0 or more")]
# orjson writes at most 254 levels: a deeper value in the log would stop all commits.
Depth = Annotated[int, msgspec.Meta(ge=1, le=128, description="a whole number from 1 to 128")]
# aiohttp stores the size limit of a frame in 32 bits.
FrameSize = Annotated[int, msgspec.Meta(ge=1, le=2**31, description="a whole number from 1 to 2147483648")]
OutFrameSize = Annotated[int, msgspec.Meta(ge=4096, le=MAX_LIMIT, description="a whole number, 4096 or more")]
# A code point takes up to 4 bytes.
ChunkSize = Annotated[int, msgspec.Meta(ge=4, le=MAX_LIMIT, description="a whole number, 4 or more")]
Seconds = Annotated[float, msgspec.Meta(gt=0, le=1e9, description="a number of seconds, more than 0")]

SecondsOrZero = Annotated[float, msgspec.Meta(ge=0, le=1e9, description="a number of seconds, 0 or more")]


@attrs.frozen(kw_only=True)
class Limits:
    """The limits of a hub. Each can be set in `[limits]` of hubbub.toml, or in the environment as HUBBUB_LIMITS_NAME.

    Each comment continues the name of its limit: what the limit applies to, and the reason for the default.
    docs/protocol.md says what the hub does when a limit is reached.
    """

    # --- frames and requests: what a client may send ---
    frame_bytes: FrameSize = 1 * MiB  # of a client's frame
    # Of a frame to a client. By default, the client of the package websockets accepts 1 MiB, that of aiohttp 4 MiB.
    out_frame_bytes: OutFrameSize = 512 * KiB
    body_bytes: Count = 64 * KiB  # of an HTTP request
    chat_bytes: Count = 1 * MiB  # of a chat over HTTP: the same as frame_bytes
    conversation_bytes: Count = 8 * MiB  # of an OpenAI or AG-UI request, which has the complete conversation
    body_seconds: Seconds = 150.0  # for the body of a request: 8 MiB at half a megabit per second
    metadata_bytes: Count = 16 * KiB  # of the metadata of a session or a message, as JSON
    request_bytes: Count = 1 * MiB  # of the tools, the state and the rest of a request, as JSON
    json_depth: Depth = 32  # levels in a frame or a request
    object_keys: Count = 256  # keys of one JSON object
    max_integer: Count = 2**53  # of an integer, without its sign: JavaScript holds integers up to it exactly

    # --- one connection ---
    high_water_bytes: Count = 64 * KiB  # unsent bytes above which a connection leaves live delivery (backpressure)
    stuck_seconds: Seconds = 10.0  # a client that reads nothing for so long is disconnected
    ping_seconds: Seconds = 25.0  # of silence before a ping (heartbeat)
    pong_seconds: Seconds = 10.0  # between a ping and its pong
    header_seconds: Seconds = 10.0  # for the header of a request, and between two requests on a connection
    auth_frame_bytes: FrameSize = 4 * KiB  # of a client's frame before its authentication
    auth_seconds: Seconds = 10.0  # for the authentication in the first frame
    subscriptions: Count = 128  # per connection
    principal_connections: Count = 32  # of one principal; not of the local one
    command_queues: Count = 8  # sessions whose commands run concurrently
    command_bytes: Count = 1 * MiB  # of commands that wait or run; each counts as 1 KiB or more
    commands_per_second: Count = 100
    command_burst: Count = 200  # at once, above the rate
    bad_frames_per_minute: Count = 10

    # --- all connections; without sign-in these limits are off ---
    address_connections: Count = 64  # from one IPv4 address, or one IPv6 network of 64 bits
    node_connections: Count = 5000
    new_connections_per_second: Count = 100  # also the largest number at once; one address opens at most half of them

    # --- replay ---
    page_rows: Count = 8192  # events of one page of the log
    first_page_rows: Count = 1024  # events of the first page of a catch-up; few, so that text appears soon
    page_bytes: Count = 256 * KiB  # of one page of the log, and of the longest merged chunk
    kept_page_bytes: CountOrZero = 8 * MiB  # of cached pages; clients that catch up at the same time share them

    # --- an agent's output ---
    chunk_bytes: ChunkSize = 32 * KiB  # of streamed text in one event
    pending_bytes: Count = 1 * MiB  # of uncommitted text of one run: above it the agent waits (backpressure)
    content_bytes: Count = 256 * KiB  # of one event of an agent, other than text and tool results
    reply_bytes: Count = 64 * KiB  # of the payload of a `resume`, as JSON
    open_questions: CountOrZero = 32  # per run
    result_bytes: Count = 32 * KiB  # of a tool result in its event; a larger result is stored as a file
    result_start_bytes: CountOrZero = 1 * KiB  # of a larger result: its start, which its event has

    # --- files ---
    file_bytes: Count = 32 * MiB  # of one file
    session_files_bytes: Count = 256 * MiB  # of all files of a session
    files_bytes: Count = 4096 * MiB  # of the files of all sessions
    file_name_length: Count = 200  # characters
    upload_seconds: Seconds = 600.0  # for one upload: 32 MiB at half a megabit per second

    # --- runs and messages ---
    run_bytes: Count = 8 * MiB  # of text of one run
    queued_runs: CountOrZero = 20  # per session
    node_runs: Count = 200  # answers to clients at once; without sign-in this limit is off
    message_parts: CountOrZero = 64  # per message
    taken_messages: Count = 10_000  # messages that one command removes; with more ids, its event would be too long
    fork_messages: Count = 1000  # messages that a fork copies: the newest ones
    fork_bytes: Count = 9 * MiB  # of text and parts that a fork copies; more than the longest answer

    # --- running agents, and the shutdown ---
    run_seconds: Seconds = 3600.0  # for one answer
    silence_seconds: Seconds = 600.0  # between two outputs of an agent, without the time in which a question is open
    grace_seconds: Seconds = 5.0  # between a cancel and the forced end of the agent's code
    agui_orphan_seconds: SecondsOrZero = 10.0  # that an AG-UI answer goes on without its request, if nobody hears it
    drain_seconds: Seconds = 15.0  # for running answers at a shutdown
    close_seconds: Seconds = 2.0  # for the closing handshakes of a shutdown; for a silent peer after a close frame
    linger_seconds: Seconds = 10.0  # after the hub's close frame, for a peer that still sends
    linger_bytes: Count = 32 * MiB  # read and dropped after the hub's close frame
    retry_seconds: Seconds = 0.5  # before a failed commit is retried
    agent_threads: Count = 128  # of all agents, for asyncio.to_thread() and run_in_executor()
    call_depth: CountOrZero = 8  # nested calls of agents by agents

    # --- histories, lists, presence and audit ---
    history_messages: CountOrZero = 100  # in the history that an agent or a client gets
    history_bytes: Count = 1 * MiB  # of text and parts in a history; older messages are left out
    list_size: Count = 100  # sessions or messages on one page of a list
    title_length: Count = 200  # characters of a session's title
    presence_members: CountOrZero = 50  # in one `presence` notice
    presence_seconds: Seconds = 1.0  # between two `presence` notices of a session, or two of `typing` over HTTP
    audit_entries: Count = 100_000  # kept in the log; the oldest are deleted


def format_size(size: int) -> str:
    """Return a size as text: in MiB or KiB if *size* is a multiple of that unit, else in bytes."""
    for unit, name in ((MiB, "MiB"), (KiB, "KiB")):
        if size and size % unit == 0:
            return f"{size // unit} {name}"
    return f"{size} byte{'' if size == 1 else 's'}"
