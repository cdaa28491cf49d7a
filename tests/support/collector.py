"""A collector of OpenTelemetry: an OTLP receiver over HTTP that keeps the spans that it gets."""

from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any

import attrs
from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from support.waiting import eventually

ERROR = 2  # the code of a failed span


@attrs.frozen(kw_only=True)
class Received:
    """A span as the collector got it. The ids are in hex; *parent* is empty for a root."""

    name: str
    trace: str
    id: str
    parent: str
    kind: str
    attributes: dict[str, Any]
    is_failed: bool
    links: tuple[str, ...]
    start: int
    end: int

    def __getitem__(self, name: str) -> Any:
        return self.attributes.get(name)


@attrs.define(eq=False)
class Collector:
    """The receiver. *bytes* is all that it got, *resources* are the attributes of the services."""

    url: str = ""
    bytes: bytes = b""
    spans: list[Received] = attrs.Factory(list)
    resources: list[dict[str, Any]] = attrs.Factory(list)

    async def handle(self, request: web.Request) -> web.Response:
        data = await request.read()
        self.bytes += data
        for group in ExportTraceServiceRequest.FromString(data).resource_spans:
            self.resources.append(_read_attributes(group.resource.attributes))
            for scope in group.scope_spans:
                self.spans += map(_read_span, scope.spans)
        body = ExportTraceServiceResponse().SerializeToString()
        return web.Response(body=body, content_type="application/x-protobuf")

    async def wait(self, count: int, matches: Callable[[Received], Any] = bool) -> list[Received]:
        """Wait for this many spans that match, and return them in the order of their starts."""

        def find() -> list[Received]:
            return sorted((span for span in self.spans if matches(span)), key=lambda span: span.start)

        await eventually(lambda: len(find()) >= count)
        assert len(find()) == count, [span.name for span in find()]
        return find()


def _read_attributes(attributes: Iterable[KeyValue]) -> dict[str, Any]:
    return {pair.key: _read_value(pair.value) for pair in attributes}


def _read_value(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_read_value(one) for one in value.array_value.values]
    return getattr(value, kind) if kind else None


def _read_span(span: Span) -> Received:
    return Received(
        name=span.name,
        trace=span.trace_id.hex(),
        id=span.span_id.hex(),
        parent=span.parent_span_id.hex(),
        kind=Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_"),
        attributes=_read_attributes(span.attributes),
        is_failed=span.status.code == ERROR,
        links=tuple(link.span_id.hex() for link in span.links),
        start=span.start_time_unix_nano,
        end=span.end_time_unix_nano,
    )


@asynccontextmanager
async def serve_collector() -> AsyncIterator[Collector]:
    """Serve the receiver on a port of its own."""
    collector = Collector()
    app = web.Application(client_max_size=64 * 1024 * 1024)
    app.router.add_post("/v1/traces", collector.handle)
    runner = web.AppRunner(app, shutdown_timeout=1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    collector.url = f"http://127.0.0.1:{site.port}"
    try:
        yield collector
    finally:
        await runner.cleanup()
