"""Convert the request of a client to the options of a request to an endpoint."""

from typing import Any

from hub.adapters.chat_options import Options
from hub.messages import Request

# The sampling of a client that is passed through. Others would change the account, the model or the form of the answer.
SAMPLING_NAMES = (
    *("temperature", "top_p", "top_k", "min_p", "stop", "seed", "logit_bias"),
    *("presence_penalty", "frequency_penalty", "repetition_penalty", "reasoning_effort", "verbosity"),
)
MAX_TOKENS_NAMES = ("max_completion_tokens", "max_tokens")


def make_options(options: Options, request: Request, *, takes_tools: bool) -> dict[str, Any]:
    """Return the options of a request to an endpoint; those without a value are None.

    The sampling of the client counts before that of the agent, but `max_tokens` of the agent is the most.
    """
    sampling = {name: request.sampling[name] for name in SAMPLING_NAMES if request.sampling.get(name) is not None}
    return {
        "stream_options": {"include_usage": True} if options.stream_options else None,
        options.max_tokens_name: _choose_max_tokens(options, request),
        "temperature": options.temperature,
        "frequency_penalty": options.frequency_penalty,
        **sampling,
        "response_format": _make_response_format(request),
        **(_make_tools(request) if takes_tools else {}),
    }


def list_client_options(request: Request) -> frozenset[str]:
    """Return the names of options that come from the client, and not from the agent's file."""
    return frozenset([*request.sampling, "response_format", "tools", "tool_choice", "parallel_tool_calls"])


def _choose_max_tokens(options: Options, request: Request) -> Any:
    limit = next((value for name in MAX_TOKENS_NAMES if (value := request.sampling.get(name)) is not None), None)
    if isinstance(limit, int) and options.max_tokens is not None:
        return min(limit, options.max_tokens)
    return options.max_tokens if limit is None else limit


def _make_response_format(request: Request) -> dict[str, Any] | None:
    response_format = request.response_format
    if response_format is None or response_format.type == "text":
        return None
    if response_format.type == "json_object":
        return {"type": "json_object"}
    fields = {
        "name": response_format.name or "answer",
        "description": response_format.description or None,
        "schema": response_format.schema,
        "strict": response_format.strict,
    }
    return {"type": "json_schema", "json_schema": _drop_none(fields)}


def _make_tools(request: Request) -> dict[str, Any]:
    if not request.tools:
        return {}
    tools = [
        {
            "type": "function",
            "function": _drop_none(
                {
                    "name": tool.name,
                    "description": tool.description or None,
                    "parameters": tool.parameters,
                    "strict": tool.strict,
                }
            ),
        }
        for tool in request.tools
    ]
    choice: Any = request.tool_choice
    if choice in request.tool_names:
        choice = {"type": "function", "function": {"name": choice}}
    return {"tools": tools, "tool_choice": choice, "parallel_tool_calls": request.sampling.get("parallel_tool_calls")}


def _drop_none(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}
