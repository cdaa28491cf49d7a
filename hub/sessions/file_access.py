"""The files of a session: the parts of messages that name them, and the FileAccess through which agents use them."""

from msgspec.structs import replace

from hub.errors import AgentError, HubError, UnknownFile
from hub.hosting.contract import FileAccess
from hub.ids import Key, id_of
from hub.messages import Chat
from hub.messages.parts import fill_file_part, find_hub_source
from hub.storage.blobs import Files
from hub.storage.records import FileRecord
from hub.text import cut


async def fill_file_parts(files: Files, key: Key, chat: Chat) -> Chat:
    """Return the chat with the media types and the names of the hub's files, where its parts have none.

    Raises UnknownFile if the session has no such file. The file may be deleted at any time.
    """
    parts = []
    for part in chat.parts or ():
        if (source := find_hub_source(part)) is not None:
            record = await _find_file(files, key, source.value, chat)
            part = fill_file_part(part, record.type, record.name)
        parts.append(part)
    return replace(chat, parts=tuple(parts)) if parts else chat


async def _find_file(files: Files, key: Key, file_id: str, chat: Chat) -> FileRecord:
    try:
        if (record := await files.find(file_id)).key == key:
            return record
    except UnknownFile:
        pass
    # One text: nobody learns which files other sessions have.
    text = f"session {id_of(key)} has no file {cut(file_id, 128)}: upload the file to this session first"
    raise UnknownFile(text, sessionId=id_of(key), clientMsgId=chat.clientMsgId)


def make_file_access(files: Files, key: Key) -> FileAccess:
    """Return the FileAccess for the agents of a session. Its functions raise AgentError if the hub refuses the call."""

    async def read(file_id: str) -> bytes:
        try:
            record = await files.find(file_id)
            if record.key != key:
                raise UnknownFile(f"there is no file {cut(file_id, 128)}")
            return await files.read(record)
        except HubError as refusal:
            raise AgentError(refusal.message, refusal.code) from None

    async def store(name: str, type: str, data: bytes) -> str:
        # Copy a bytearray or a memoryview: the agent must not change the data between the digest and the write.
        content = data if isinstance(data, bytes) else bytes(memoryview(data))
        try:
            return (await files.save(key, name, type, content)).fileId
        except HubError as refusal:
            raise AgentError(refusal.message, refusal.code) from None

    return FileAccess(read, store)
