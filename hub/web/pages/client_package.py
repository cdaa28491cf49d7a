"""Packs the JavaScript client as a package that npm installs from its address."""

import io
import json
import struct
import tarfile
import zlib
from collections.abc import Mapping

from hub import __version__

PACKAGE_NAME = "hubbub-client"
PEERS = {
    "react": ">=18",
    "@ag-ui/client": ">=0.0.59",
    "rxjs": ">=7.8.0",
    "@assistant-ui/react": ">=0.15.0",
    "assistant-stream": ">=0.3.45",
}
PACKAGE_JSON = {
    "name": PACKAGE_NAME,
    "version": __version__,
    "description": "The client of a Hubbub hub, for browsers and Node.js",
    "license": "Apache-2.0",
    "private": True,  # npm refuses to publish it
    "type": "module",
    "exports": {
        ".": {"types": "./client.d.ts", "default": "./client.js"},
        "./react": {"types": "./react.d.ts", "default": "./react.js"},
        "./agui": {"types": "./agui.d.ts", "default": "./agui.js"},
        "./assistant-ui": {"types": "./assistant-ui.d.ts", "default": "./assistant-ui.js"},
    },
    "types": "./client.d.ts",
    "peerDependencies": PEERS,
    "peerDependenciesMeta": dict.fromkeys(PEERS, {"optional": True}),
    "sideEffects": False,
    "engines": {"node": ">=20"},
}
NPM_TIME = 499162500  # 1985-10-26, the time of all files in packages of npm
STORED_BYTES = 65535  # the maximum of a stored block (RFC 1951, section 3.2.4)


def pack_client(files: Mapping[str, bytes]) -> bytes:
    """Return a .tgz with package.json and *files*. Equal files give equal bytes, with every version of Python and zlib.

    The lock files of npm have a digest of these bytes.
    """
    package_json = json.dumps(PACKAGE_JSON, indent=2).encode() + b"\n"
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in {"package.json": package_json, **files}.items():
            entry = tarfile.TarInfo(f"package/{name}")
            entry.size, entry.mtime = len(data), NPM_TIME
            tar.addfile(entry, io.BytesIO(data))
    return _store_as_gzip(archive.getvalue())


def _store_as_gzip(data: bytes) -> bytes:
    """Return *data* in the format of gzip, not compressed: what zlib compresses depends on its version."""
    header = b"\x1f\x8b\x08\x00" + bytes(4) + b"\x00\xff"  # no flags, no time, an unknown system
    blocks = []
    for start in range(0, len(data), STORED_BYTES):
        block = data[start : start + STORED_BYTES]
        is_last = start + STORED_BYTES >= len(data)
        blocks.append(struct.pack("<BHH", is_last, len(block), len(block) ^ 0xFFFF) + block)
    return header + b"".join(blocks) + struct.pack("<II", zlib.crc32(data), len(data))
