"""The files of a session, as its agents have them."""

from hub.errors import AgentError, HubError, UnknownFile
from hub.hosting.contract import Shelf
from hub.ids import Key
from hub.storage.blobs import Files
from hub.text import cut


def shelf(files: Files, key: Key) -> Shelf:
    """Return what the agents of a session have of its files; each refusal is an AgentError."""

    async def file(file_id: str) -> bytes:
        try:
            record = await files.find(file_id)
            if record.key != key:
                raise UnknownFile(f"there is no file {cut(file_id, 128)}")
            return await files.read(record)
        except HubError as refusal:
            raise AgentError(refusal.message, refusal.code) from None

    async def keep(name: str, type: str, data: bytes) -> str:
        # What is no bytes is copied: nobody may change it between the digest and the disk.
        whole = data if isinstance(data, bytes) else bytes(memoryview(data))
        try:
            return (await files.save(key, name, type, whole)).fileId
        except HubError as refusal:
            raise AgentError(refusal.message, refusal.code) from None

    return Shelf(file, keep)
