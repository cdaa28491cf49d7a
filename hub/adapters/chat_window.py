"""Select the messages of a session that a model gets."""

from itertools import groupby

from hub.adapters.chat_options import Options
from hub.errors import AgentError
from hub.hosting.contract import Run

MESSAGE_BYTES = 16  # an estimate of what a model's template adds to a message


def window_messages(run: Run, options: Options) -> list[dict[str, str]]:
    """Return the `messages` of the request: the instructions, the newest earlier messages, and the question.

    The earlier messages are at most `history`, and as many as fit into `window_bytes` with the rest. A question that is
    too long loses its beginning. Consecutive messages of one role are joined, and answers before the first question are
    dropped: the templates of many models accept no other order. Raises AgentError if the instructions leave less than
    the question needs, and less than a quarter of `window_bytes`.
    """
    instructions = [options.system, *(past.content for past in run.history if past.role == "system")]
    system = "\n\n".join(text for text in instructions if text)
    free_bytes = options.window_bytes - len(system.encode()) - 2 * MESSAGE_BYTES
    if free_bytes < min(len(run.message.encode()), options.window_bytes // 4):
        text = "The system messages are too long for the model: shorten them, or raise `window_bytes` of the agent."
        raise AgentError(text, "model_refused")
    question = run.message.encode()[-free_bytes:].decode(errors="ignore")
    free_bytes -= len(question.encode())
    messages = [("user", question)]  # newest first
    earlier = [past for past in run.history if past.role != "system"]
    for past in reversed(earlier[-options.history :] if options.history else ()):
        free_bytes -= len(past.content.encode()) + MESSAGE_BYTES
        if free_bytes < 0:
            break
        if past.content:
            messages.append((past.role, past.content))
    while messages[-1][0] == "assistant":
        messages.pop()
    first = [{"role": "system", "content": system}] if system else []
    return first + [
        {"role": role, "content": "\n\n".join(text for _, text in group)}
        for role, group in groupby(reversed(messages), key=lambda message: message[0])
    ]
