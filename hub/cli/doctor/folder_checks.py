"""Check the data folder: who can read it, on which disk it is, and how much space is left."""

import os
import shlex
import shutil
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

from hub.cli.doctor.findings import Finding
from hub.limits import MiB
from hub.settings import Settings

MIN_FREE_BYTES = 256 * MiB
MIN_FREE_FILES = 1000
MOUNTS = Path("/proc/self/mountinfo")
# SQLite's write-ahead log needs memory that all processes share, which these do not have.
NETWORK_DISKS = ("nfs", "nfs4", "cifs", "smb3", "9p", "ceph", "glusterfs", "fuse.sshfs", "fuse.glusterfs")
PRIVATE_FILES = ("hub.db*", "files*", "control.sock", "model.log")


def check_data_folder(settings: Settings) -> Iterator[Finding]:
    """Check the data folder, and the space of its disk, also if the folder does not exist yet."""
    folder = settings.data
    existing = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    if existing != folder.absolute():
        if not os.access(existing, os.W_OK):
            remedy = f"sudo install -d -m 700 -o $USER {shlex.quote(str(folder.absolute()))}"
            yield Finding("wrong", f"this account cannot make the data folder {folder}", remedy)
    elif not folder.is_dir():
        yield Finding("wrong", f"the data folder {folder} is a file", "move the file away, or choose another --data")
        return
    else:
        yield from _check_owner(folder)
        yield from _check_modes(folder)
    yield from _check_disk(existing)
    yield from _check_space(settings, existing)


def _check_owner(folder: Path) -> Iterator[Finding]:
    if sys.platform == "win32":
        return
    owner = folder.stat().st_uid
    if owner != os.geteuid() and os.geteuid() != 0:
        text = f"the data folder {folder} belongs to the account {_find_name(owner)}, not to this one"
        yield Finding("wrong", text, f"sudo -u {_find_name(owner)} hubbub doctor")
    elif owner != os.geteuid():
        text = f"the data folder {folder} belongs to {_find_name(owner)}: files that root makes there stop the hub"
        yield Finding("advice", text, f"sudo -u {_find_name(owner)} hubbub doctor")


def _find_name(uid: int) -> str:
    import pwd  # there is none on Windows

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _check_modes(folder: Path) -> Iterator[Finding]:
    """Check that other accounts can read nothing. If they can open the folder, check each file of the hub."""
    if sys.platform == "win32":
        return
    is_shared = bool(folder.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO))
    files = sorted(path for pattern in PRIVATE_FILES for path in folder.glob(pattern))
    open_files = [str(path) for path in files if is_shared and path.lstat().st_mode & 0o077]
    if open_files:
        paths = shlex.join(open_files)
        yield Finding("wrong", f"other accounts can read the data of the hub: {paths}", f"chmod -R go-rwx {paths}")
    elif is_shared:
        mode = stat.S_IMODE(folder.stat().st_mode)
        yield Finding("advice", f"other accounts can list the data folder {folder} ({mode:o})", f"chmod 700 {folder}")
    else:
        yield Finding("ok", f"the data folder {folder} is private")


def check_agents_folder(settings: Settings) -> Iterator[Finding]:
    """Check that other accounts cannot change agents, whose code has the rights of the hub."""
    if sys.platform == "win32":
        return
    folder = settings.agents
    for path in (folder, *sorted(folder.glob("*"))):
        if path.exists() and path.stat().st_mode & stat.S_IWOTH:
            text = f"other accounts can change {path}, and so run code with the account of the hub"
            yield Finding("wrong", text, f"chmod -R o-w {shlex.quote(str(folder))}")
            return


def _check_disk(folder: Path) -> Iterator[Finding]:
    kind = find_disk_kind(folder.resolve())
    if kind in NETWORK_DISKS:
        text = f"{folder} is on a network disk ({kind}), where SQLite can lose or damage the log"
        yield Finding("wrong", text, 'data = "FOLDER" on a local disk')


def find_disk_kind(folder: Path, mounts: Path = MOUNTS) -> str:
    """Return the file system of a folder, or "" where the system does not tell."""
    try:
        lines = mounts.read_text(errors="replace").splitlines()
    except OSError:
        return ""
    kinds = {}
    for line in lines:  # proc(5): the fifth field is the mount point, and the first after " - " the file system
        place, _, disk = line.partition(" - ")
        kinds[place.split()[4].replace("\\040", " ")] = disk.split()[0]
    return next((kinds[str(path)] for path in (folder, *folder.parents) if str(path) in kinds), "")


def _check_space(settings: Settings, folder: Path) -> Iterator[Finding]:
    free_bytes = shutil.disk_usage(folder).free
    wish = max(settings.retention_mb * MiB, MIN_FREE_BYTES)
    free = f"the disk of {folder} has {_format_gib(free_bytes)} free"
    if free_bytes < MIN_FREE_BYTES:
        yield Finding("wrong", f"{free}: soon the hub refuses every message", "make space, or move the data folder")
    elif free_bytes < wish:
        text = f"{free}, but the log may grow to {_format_gib(settings.retention_mb * MiB)} (retention_mb)"
        yield Finding("advice", text, f"make space, or set retention_mb = {free_bytes // MiB // 2}")
    else:
        yield Finding("ok", free)
    if hasattr(os, "statvfs"):
        disk = os.statvfs(folder)
        if disk.f_files and disk.f_favail < MIN_FREE_FILES:
            yield Finding(
                "wrong", f"the disk of {folder} can take only {disk.f_favail} more files", "delete some files"
            )


def _format_gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"
