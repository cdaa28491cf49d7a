"""The files of a session: their check in messages, and the FileAccess with which agents read and store them."""

from hub.errors import AgentError, HubError, UnknownFile
from hub.hosting.contract import FileAccess
from hub.ids import Key, id_of
from hub.messages import Chat
from hub.messages.parts import list_file_ids
from hub.storage.blobs import Files
from hub.text import cut


async def check_files(files: Files, key: Key, chat: Chat) -> None:
    """Raise UnknownFile if a message names a file that its session does not have. It may be deleted at any time."""
    for file_id in list_file_ids(chat.parts):
        try:
            is_known = (await files.find(file_id)).key == key
        except UnknownFile:
            is_known = False
        if not is_known:  # one text: nobody learns which files other sessions have
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
