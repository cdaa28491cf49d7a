"""Count responses, sockets and refusals for the metrics, with labels of few values."""

from aiohttp import WSCloseCode, hdrs, web

from hub.observe.counters import DoorCounters
from hub.web.routes import HUB_KEY

OTHER = "other"  # the label of every other method and close code: clients could send any
METHODS = {
    *(hdrs.METH_GET, hdrs.METH_HEAD, hdrs.METH_OPTIONS),
    *(hdrs.METH_POST, hdrs.METH_PUT, hdrs.METH_PATCH, hdrs.METH_DELETE),
}
CLOSE_CODES = {*map(int, WSCloseCode), *range(4001, 4005), *range(4500, 4508)}


async def count_response(request: web.Request, response: web.StreamResponse) -> None:
    """Count a response that begins. A WebSocket counts when it is open, with the status 101."""
    count_status(request.app[HUB_KEY].counters.door, request.method, response.status)


def count_status(counters: DoorCounters, method: str, status: int) -> None:
    counters.responses[method if method in METHODS else OTHER, str(status)] += 1


def count_close(counters: DoorCounters, code: int) -> None:
    """Count the end of a WebSocket. The code 0 stands for a socket without a close frame."""
    code = code or WSCloseCode.ABNORMAL_CLOSURE
    counters.socket_closes[str(int(code)) if code in CLOSE_CODES else OTHER] += 1
