"""Which messages of a session a model sees."""

from itertools import groupby

from hub.adapters.chat_options import Options
from hub.hosting.contract import Run

MESSAGE_BYTES = 16  # what a model's template may put around a message


def window(run: Run, options: Options) -> list[dict[str, str]]:
    """Return the newest messages that fit, the question last; a question too long for the window loses its beginning.

    Neighbours of one role become one message, and an answer never comes first: many models' templates refuse both.
    """
    told = [options.system, *(past.content for past in run.history if past.role == "system")]
    instructions = "\n\n".join(text for text in told if text)
    room = options.window_bytes - len(instructions.encode()) - 2 * MESSAGE_BYTES
    question = run.message.encode()[-room:].decode(errors="ignore")
    kept = [("user", question)]
    room -= len(question.encode())
    count = options.history
    for past in reversed(run.history[-count:] if count else ()):
        room -= len(past.content.encode()) + MESSAGE_BYTES
        if room < 0:
            break
        if past.content and past.role != "system":
            kept.append((past.role, past.content))
    while kept[-1][0] == "assistant":
        kept.pop()
    system = [{"role": "system", "content": instructions}] if instructions else []
    return system + [
        {"role": role, "content": "\n\n".join(text for _, text in turns)}
        for role, turns in groupby(reversed(kept), key=lambda turn: turn[0])
    ]
