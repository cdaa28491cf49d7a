"""The Python client: sessions that several clients share, and that survive lost connections.

async with connect() as hub:
    session = await hub.session("s1", agent="main")
    async for event in session.chat("hi"):
        ...
"""

from hub.client.answer import Answer
from hub.client.client import Client
from hub.client.failures import (
    Closed,
    ConnectionCut,
    Failure,
    Forgotten,
    Refusal,
    RunFailed,
    TooSlow,
    Unreachable,
)
from hub.client.frames import Unknown
from hub.client.opening import connect
from hub.client.session import Session

__all__ = [
    "Answer",
    "Client",
    "Closed",
    "ConnectionCut",
    "Failure",
    "Forgotten",
    "Refusal",
    "RunFailed",
    "Session",
    "TooSlow",
    "Unknown",
    "Unreachable",
    "connect",
]
