"""Faults of what the hub stands on, put in where it would meet them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from hub.delivery.transport import Transport


class Wire:
    """An asyncio transport of which some methods do something else."""

    def __init__(self, inner: Any, **faults: Callable[..., Any]) -> None:
        self._inner, self._faults = inner, faults

    def __getattr__(self, name: str) -> Any:
        return self._faults.get(name) or getattr(self._inner, name)


@contextmanager
def faulty(transport: Transport, **faults: Callable[..., Any]) -> Iterator[None]:
    """Let the wire of a client behave otherwise for a while."""
    wire = transport.asyncio_transport
    transport.asyncio_transport = Wire(wire, **faults)  # type: ignore[assignment]
    try:
        yield
    finally:
        transport.asyncio_transport = wire
