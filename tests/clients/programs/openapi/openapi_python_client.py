"""A client that openapi-python-client generates."""

# /// script
# dependencies = ["openapi-python-client==0.29.1"]
# ///

import io
import subprocess
import sys
from pathlib import Path

from scenario import URL, run

FOLDER = "generated"
COMMANDS = Path(sys.executable).parent


def generate():
    """Generate the client in FOLDER, and return what the generator prints."""
    command = [COMMANDS / "openapi-python-client", "generate", "--url", f"{URL}/openapi.json", "--fail-on-warning"]
    result = subprocess.run(
        [*command, "--output-path", FOLDER, "--overwrite"],
        env={"PATH": str(COMMANDS), "HOME": "home"},  # of the formatter that the generator calls
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout + result.stderr


def read_pages(get_messages, client):
    page = get_messages.sync("s1", client=client, limit=1)
    pages = [page.data]
    while page.more:
        page = get_messages.sync("s1", client=client, limit=1, after=page.next_)
        pages.append(page.data)
    return pages


def use():
    output = generate()
    sys.path.insert(0, FOLDER)
    from hubbub_client import Client
    from hubbub_client.api.files import get_file, post_file
    from hubbub_client.api.sessions import get_messages, post_chat, post_session, show_session
    from hubbub_client.models import ChatBody, ErrorBody, NewSessionBody
    from hubbub_client.types import File

    client = Client(base_url=URL)
    session = post_session.sync(client=client, body=NewSessionBody(session_id="s1"))
    chat = ChatBody(agent_id="echo", message="hello there")
    answer = post_chat.sync("s1", client=client, body=chat, wait=True)
    pages = read_pages(get_messages, client)
    content = File(io.BytesIO(b"Otters hold hands."))
    file = post_file.sync(client=client, body=content, session_id="s1", name="notes.txt")
    unknown = show_session.sync_detailed("unknown", client=client)
    assert isinstance(unknown.parsed, ErrorBody)
    return {
        "output": output,
        "session": session.session_id,
        "answer": answer.content,
        "pages": [[message.content for message in page] for page in pages],
        "file": [file.name, get_file.sync(file.file_id, client=client).payload.read().decode()],
        "error": [unknown.status_code, unknown.parsed.code],
    }


run({"use": use})
