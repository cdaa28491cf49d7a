"""Random frames of WebSockets: legal commands in any order, mutated commands, and bytes that break the rules."""

import json
import random
import struct
from collections.abc import Callable
from typing import Any

import attrs

TEXT, BINARY, CLOSE, PING, PONG, CONTINUATION = 1, 2, 8, 9, 10, 0
SHARED = "shared"  # the session that several principals write in
AGENTS = ("echo", "asker", "slow", "missing", None)
FREE_SESSIONS = tuple(f"free{number}" for number in range(20))  # whoever begins one of them owns it
# Values that take the place of a field.
ODD_VALUES: tuple[Any, ...] = (
    *(None, True, -1, 0, 2**53, 2**53 + 1, 2**70, 1.5, "", "x" * 3000, "a/b", "..", "ünïcode", "\x00", "agent:echo"),
    *([], {}, [[]] * 300, {str(key): key for key in range(300)}, "null", "m_1", "r_1", [{"type": "text", "text": "x"}]),
)
# Texts that take the place of a value in the JSON.
ODD_TEXTS = ("NaN", "-Infinity", "1e999", '"\\ud800"', "[" * 40 + "]" * 40, "'x'", "01", "\ufeff", '"\t"', "{")


def encode_frame(
    payload: bytes, opcode: int = TEXT, *, is_last: bool = True, reserved_bits: int = 0, is_masked: bool = True
) -> bytes:
    """Return a frame (RFC 6455, 5.2)."""
    first, mask_bit = (0x80 if is_last else 0) | reserved_bits << 4 | opcode, 0x80 if is_masked else 0
    if len(payload) < 126:
        head = struct.pack("!BB", first, mask_bit | len(payload))
    elif len(payload) < 2**16:
        head = struct.pack("!BBH", first, mask_bit | 126, len(payload))
    else:
        head = struct.pack("!BBQ", first, mask_bit | 127, len(payload))
    if not is_masked:
        return head + payload
    mask = b"\x5a\x00\xa5\xff"
    stream = mask * (len(payload) // 4 + 1)
    number = int.from_bytes(payload, "big") ^ int.from_bytes(stream[: len(payload)], "big")
    return head + mask + number.to_bytes(len(payload), "big")


@attrs.define
class Grammar:
    """The frames of one connection of a principal. The chance alone decides, and the ids that the connection saw.

    *secret* is in every text, but not in those for the shared session. *tokens* are those of other principals and wrong
    ones, *token* is the own one.
    """

    chance: random.Random
    secret: str
    sessions: tuple[str, ...]
    token: str
    tokens: tuple[str, ...]
    seen: dict[str, list[Any]] = attrs.Factory(dict)

    def note(self, frame: dict[str, Any]) -> None:
        """Remember the ids of a frame of the hub, for later commands."""
        for name in ("messageId", "runId", "sessionId", "epoch", "seq", "id"):
            if frame.get(name) is not None:
                values = self.seen.setdefault(name, [])
                values.append(frame[name])
                del values[:-20]

    def make(self) -> bytes:
        """Return the bytes of one frame, or of the pieces of one."""
        kinds: dict[Callable[[], bytes], int] = {
            self._make_command: 120,
            self._make_mutation: 60,
            self._make_rubbish: 6,
            self._make_pieces: 6,
            self._make_control: 6,
            self._break_rules: 1,
        }
        (kind,) = self.chance.choices([*kinds], [*kinds.values()])
        return kind()

    # --- commands -----------------------------------------------------------------------------------------------------

    def _make_command(self) -> bytes:
        opcode = self.chance.choice((TEXT, TEXT, TEXT, BINARY))
        return encode_frame(json.dumps(self._choose_command()).encode(), opcode)

    def _choose_command(self) -> dict[str, Any]:
        kinds = {
            "chat": 10,
            "subscribe": 6,
            "unsubscribe": 3,
            "cancel": 3,
            "resume": 3,
            "regenerate": 3,
            "edit": 3,
            "fork": 2,
            "typing": 2,
            "ping": 2,
            "hello": 1,
            "auth": 1,
        }
        (kind,) = self.chance.choices([*kinds], [*kinds.values()])
        session = self._choose_session()
        command = {"type": kind, "ref": self.chance.choice((None, 1, "r")), **self._choose_fields(kind, session)}
        return {name: value for name, value in command.items() if value is not None}

    def _choose_fields(self, kind: str, session: str) -> dict[str, Any]:
        chance, text = self.chance, "hello" if session == SHARED else f"{self.secret} hello"
        message, agent = self._choose_seen("messageId", "m_1"), chance.choice(AGENTS)
        key = chance.choice((None, None, "c1", "c2", "c3"))
        content = {
            "message": text,
            "agentId": agent,
            "clientMsgId": key,
            "metadata": chance.choice((None, {"a": text})),
        }
        fields: dict[str, dict[str, Any]] = {
            "chat": {
                **content,
                "sessionId": chance.choice((session, session, session, None if session != SHARED else session)),
                "ifBusy": chance.choice((None, "enqueue", "reject", "replace", "rollback", "parallel")),
                "stream": chance.choice((None, True, False)),
            },
            "subscribe": {
                **chance.choice(({"sessionId": session}, {"sessionId": session}, {"agentId": agent}, {})),
                "afterSeq": chance.choice((None, 0, self._choose_seen("seq", 1), 10**9)),
                "epoch": chance.choice((None, None, self._choose_seen("epoch", "e"), "e")),
                "history": chance.choice((None, 0, 5, 10**6)),
            },
            "unsubscribe": chance.choice(({"sessionId": session}, {"agentId": agent}, {})),
            "cancel": {"sessionId": session, "runId": chance.choice((None, self._choose_seen("runId", "r_1")))},
            "resume": {
                "sessionId": session,
                "interruptId": self._choose_seen("id", "i_1"),
                "status": chance.choice(("resolved", "cancelled")),
                "payload": text,
            },
            "regenerate": {"sessionId": session, "messageId": message, "agentId": agent, "clientMsgId": key},
            "edit": {**content, "sessionId": session, "messageId": message},
            "fork": {
                "sessionId": session,
                "messageId": message,
                "newSessionId": chance.choice((None, session, "free1")),
            },
            "typing": {"sessionId": session},
            "hello": {"client": "fuzz", "token": chance.choice((None, self.token, *self.tokens))},
            "auth": {"token": chance.choice((self.token, *self.tokens))},
        }
        return fields.get(kind, {})

    def _choose_session(self) -> str:
        seen = [session for session in self.seen.get("sessionId", ()) if isinstance(session, str)]
        return self.chance.choice((*self.sessions, *seen[-3:], self.chance.choice(FREE_SESSIONS), "nothing"))

    def _choose_seen(self, name: str, default: Any) -> Any:
        return self.chance.choice(self.seen.get(name) or [default])

    # --- wrong frames -------------------------------------------------------------------------------------------------

    def _make_mutation(self) -> bytes:
        command = self._choose_command()
        for _ in range(self.chance.randint(1, 2)):
            name = self.chance.choice((*command, "extra", "sessionId", "agentId"))
            if self.chance.random() < 0.3:
                command.pop(name, None)
            else:
                command[name] = self.chance.choice(ODD_VALUES)
        if command.get("sessionId", SHARED) == SHARED:  # a text for another session must not get into the shared one
            command = json.loads(json.dumps(command).replace(self.secret, "-"))
        text = json.dumps(command)
        if self.chance.random() < 0.3:
            position = self.chance.randrange(len(text))
            text = text[:position] + self.chance.choice(ODD_TEXTS) + text[position + self.chance.randint(0, 3) :]
        return encode_frame(text.encode(), self.chance.choice((TEXT, BINARY)))

    def _make_rubbish(self) -> bytes:
        size = self.chance.choice((0, 1, 10, 200, 5000, 70_000))
        data = self.chance.randbytes(size)
        return encode_frame(data, BINARY) if self.chance.random() < 0.5 else encode_frame(data.hex().encode())

    def _make_pieces(self) -> bytes:
        """Return a command in several frames, with control frames between them."""
        payload = json.dumps(self._choose_command()).encode()
        cuts = sorted(self.chance.randrange(len(payload) + 1) for _ in range(3))
        pieces = [payload[start:end] for start, end in zip([0, *cuts], [*cuts, len(payload)], strict=True)]
        frames = [
            encode_frame(piece, CONTINUATION if number else TEXT, is_last=number == len(pieces) - 1)
            for number, piece in enumerate(pieces)
        ]
        return encode_frame(b"between", PING).join(frames)

    def _make_control(self) -> bytes:
        return encode_frame(self.chance.randbytes(self.chance.choice((0, 1, 125))), self.chance.choice((PING, PONG)))

    def _break_rules(self) -> bytes:
        """Return a frame after which the hub closes the socket, or that ends it."""
        ping = encode_frame(b"", PING)
        return self.chance.choice(
            (
                encode_frame(b"{}", reserved_bits=self.chance.randint(1, 7)),
                encode_frame(b"{}", self.chance.choice((3, 7, 11, 15))),
                encode_frame(b"x" * 126, PING),
                encode_frame(b"x", PING, is_last=False),
                encode_frame(b"x", CONTINUATION),
                encode_frame(b"{", TEXT, is_last=False) + encode_frame(b"}", TEXT),
                encode_frame(b"\xff\xfe" * 3),
                encode_frame(b'{"type":"ping"}', is_masked=False),
                encode_frame(b"\x03", CLOSE),
                encode_frame(struct.pack("!H", self.chance.choice((0, 999, 1000, 1005, 1006, 4999, 65535))), CLOSE)
                + ping,
                struct.pack("!BBQ", 0x81, 0xFF, 2**40) + b"\0" * 4,
                encode_frame(b" " * (2**20 + 1)),
            )
        )
