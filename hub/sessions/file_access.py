"""Build the FileAccess with which agents read and store the files of a session."""

from hub.errors import AgentError, HubError, UnknownFile
from hub.hosting.contract import FileAccess
from hub.ids import Key
from hub.storage.blobs import Files
from hub.text import cut


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
