"""Faults of a client's transport, injected into a running hub."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from hub.delivery.transport import Transport


class Wire:
    """An asyncio transport with some methods replaced."""

    def __init__(self, inner: Any, **faults: Callable[..., Any]) -> None:
        self._inner, self._faults = inner, faults

    def __getattr__(self, name: str) -> Any:
        return self._faults.get(name) or getattr(self._inner, name)


@contextmanager
def faulty(transport: Transport, **faults: Callable[..., Any]) -> Iterator[None]:
    """Replace some methods of a client's transport within the context."""
    wire = transport.asyncio_transport
    transport.asyncio_transport = Wire(wire, **faults)  # type: ignore[assignment]
    try:
        yield
    finally:
        transport.asyncio_transport = wire
