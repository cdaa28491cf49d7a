"""Every limit of the hub with its unit."""

from typing import Annotated

import attrs
import msgspec

KiB = 1024
MiB = 1024 * KiB

MAX_LIMIT = 2**53  # of any limit: what JSON holds exactly everywhere
Count = Annotated[int, msgspec.Meta(ge=1, le=MAX_LIMIT, description="a whole number, 1 or more")]
CountOrZero = Annotated[int, msgspec.Meta(ge=0, le=MAX_LIMIT, description="a whole number, 0 or more")]
# orjson, which writes the log, goes 254 levels deep: a value past it stops the log for everyone.
Depth = Annotated[int, msgspec.Meta(ge=1, le=128, description="a whole number from 1 to 128")]
# aiohttp keeps the largest size of a frame in 32 bits.
FrameSize = Annotated[int, msgspec.Meta(ge=1, le=2**31, description="a whole number from 1 to 2147483648")]
Seconds = Annotated[float, msgspec.Meta(gt=0, le=1e9, description="a number of seconds, more than 0")]


@attrs.frozen(kw_only=True)
class Limits:
    """What the hub bounds; each can be set in `[limits]` of hubbub.toml, or as HUBBUB_LIMITS_NAME.

    Where a number comes from a measurement, the comment names it.
    """

    frame_bytes: FrameSize = 1 * MiB  # a client's frame: people paste documents; more closes with 1009
    # of a frame to a plain client: websockets' and aiohttp's clients close at 1 and 4 MiB
    out_frame_bytes: Annotated[int, msgspec.Meta(ge=4096, le=MAX_LIMIT, description="a whole number, 4096 or more")] = (
        512 * KiB
    )
    body_bytes: Count = 64 * KiB  # of a request over HTTP
    chat_bytes: Count = 1 * MiB  # of a chat over HTTP: as large as a frame
    conversation_bytes: Count = 8 * MiB  # of a request that brings a whole conversation: OpenAI's and AG-UI's
    metadata_bytes: Count = 16 * KiB  # of a session or of a message, as JSON
    json_depth: Depth = 32
    object_keys: Count = 256
    max_integer: Count = 2**53  # what JavaScript holds exactly
    high_water_bytes: Count = 64 * KiB  # unsent bytes at which a connection falls behind
    stuck_seconds: Seconds = 10.0  # unsent bytes that do not shrink for so long: the transport is aborted
    ping_seconds: Seconds = 25.0
    pong_seconds: Seconds = 10.0
    header_seconds: Seconds = 10.0
    subscriptions: Count = 128  # per connection
    command_queues: Count = 8  # per connection: sessions whose commands are carried out beside each other
    command_bytes: Count = 1 * MiB  # per connection, of commands that wait or are under way; each counts 1 KiB or more
    commands_per_second: Count = 100  # per connection
    command_burst: Count = 200  # commands of one connection at once
    bad_frames_per_minute: Count = 10  # per connection: one more closes with 4501
    page_rows: Count = 8192
    first_page_rows: Count = 1024  # of a catch-up: one who joins late sees something soon
    page_bytes: Count = 256 * KiB  # of replay; also the longest merged chunk
    kept_page_bytes: CountOrZero = 8 * MiB  # of pages read lately, per node: those who come a little later share them
    # of streamed text in one event; a code point takes up to 4
    chunk_bytes: Annotated[int, msgspec.Meta(ge=4, le=MAX_LIMIT, description="a whole number, 4 or more")] = 32 * KiB
    pending_bytes: Count = 1 * MiB  # of text of one run not yet in the log: beyond it the agent waits
    content_bytes: Count = 256 * KiB  # of one event of an agent that is no text and no tool's result
    reply_bytes: Count = 64 * KiB  # of the payload of an answer to a question, as JSON
    open_questions: CountOrZero = 32  # per run
    result_bytes: Count = 32 * KiB  # of a tool's result in its event: beyond it the result is kept as a file
    result_start_bytes: CountOrZero = 1 * KiB  # of such a result, which its event still has
    file_bytes: Count = 32 * MiB
    session_files_bytes: Count = 256 * MiB
    files_bytes: Count = 4096 * MiB  # of all sessions
    file_name_length: Count = 200  # characters
    upload_seconds: Seconds = 600.0  # for a file to arrive: 32 MiB at half a megabit a second
    run_bytes: Count = 8 * MiB  # of text of one run: beyond it the run ends with an error
    queued_runs: CountOrZero = 20  # per session
    message_parts: CountOrZero = 64
    taken_messages: Count = 10_000  # taken back at once: more make the event that says so too long
    fork_messages: Count = 1000  # copied into a fork, the newest
    fork_bytes: Count = 9 * MiB  # of their text and parts: the longest answer fits
    run_seconds: Seconds = 3600.0
    silence_seconds: Seconds = 600.0
    grace_seconds: Seconds = 5.0  # between a cancel and the end of work that will not stop
    drain_seconds: Seconds = 15.0
    close_seconds: Seconds = 2.0  # for the closing handshakes of a drain
    retry_seconds: Seconds = 0.5  # before what the log refused is tried again
    agent_threads: Count = 128  # of all agents, for asyncio.to_thread() and run_in_executor()
    call_depth: CountOrZero = 8  # agents that call agents
    history_messages: CountOrZero = 100
    history_bytes: Count = 1 * MiB  # of text and parts in a history; the newest messages win
    list_size: Count = 100  # sessions or messages on one page of a list
    title_length: Count = 200  # characters of a session's title
    presence_members: CountOrZero = 50
    presence_seconds: Seconds = 1.0


def size_text(size: int) -> str:
    """Return a size in bytes for people, exactly: in MiB or KiB where it is a whole number of these."""
    for unit, name in ((MiB, "MiB"), (KiB, "KiB")):
        if size and size % unit == 0:
            return f"{size // unit} {name}"
    return f"{size} byte{'' if size == 1 else 's'}"
