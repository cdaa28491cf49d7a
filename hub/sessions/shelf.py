"""Build the Shelf through which agents read and store the files of a session."""

from hub.errors import AgentError, HubError, UnknownFile
from hub.hosting.contract import Shelf
from hub.ids import Key
from hub.storage.blobs import Files
from hub.text import cut


def make_shelf(files: Files, key: Key) -> Shelf:
    """Return the Shelf for the agents of a session. Its methods raise AgentError for every refusal."""

    async def file(file_id: str) -> bytes:
        try:
            record = await files.find(file_id)
            if record.key != key:
                raise UnknownFile(f"there is no file {cut(file_id, 128)}")
            return await files.read(record)
        except HubError as refusal:
            raise AgentError(refusal.message, refusal.code) from None

    async def keep(name: str, type: str, data: bytes) -> str:
        # Copy a bytearray or a memoryview: the agent must not change the data between the digest and the write.
        content = data if isinstance(data, bytes) else bytes(memoryview(data))
        try:
            return (await files.save(key, name, type, content)).fileId
        except HubError as refusal:
            raise AgentError(refusal.message, refusal.code) from None

    return Shelf(file, keep)
