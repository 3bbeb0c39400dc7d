"""Files below one folder, with names that strangers have chosen: none is made or removed outside it.

Each folder is opened by its name in the one above, and no link is followed. Knows nothing of what is in the files.
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import itertools
import os
import re
import secrets
import stat
import time
from collections.abc import Iterator, Sequence

LONGEST = 200  # bytes of a name; file systems take 255, and an ending follows
DIGEST = 8  # characters that tell names apart which look the same
NUMBERED = 20  # files of one name that are numbered; further ones get a random number
FILE_MODE = 0o640  # less what the umask takes
FOLDER_MODE = 0o750
DAY = 86400.0  # seconds

_UNWANTED = re.compile(r"[^\w.+=@#,-]")
_ENTER = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
_CREATE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_LOOK = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


def component(name: str) -> str:
    """Returns a name as one that a file or a folder may have, the same for the same name.

    Letters, digits and some signs stay. A name that had to be changed ends with a digest, so that two names which
    differ hardly ever become one.
    """
    plain = _UNWANTED.sub("_", name)
    if plain[:1] in ("", ".", "-"):
        plain = f"_{plain[1:]}"
    if plain == name and len(plain.encode()) <= LONGEST:
        return plain
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:DIGEST]
    return f"{plain.encode()[: LONGEST - DIGEST - 1].decode('utf-8', 'ignore')}-{digest}"


def create(root: str, folders: Sequence[str], name: str, ending: str, head: bytes) -> int:
    """Makes a new file, and the folders below the root that are missing; returns its descriptor.

    It is open for reading and writing, and not there if its head cannot be written.

    Arguments:
        root: the folder; it must be there.
        folders: below each other; each a ``component``.
        name, ending: of the file; there is a number between the two when the name is taken.
        head: what it begins with.

    Errors: OSError.
    """
    with contextlib.ExitStack() as stack:
        here = _enter(stack, root, _ENTER)
        # As bytes, here and below: a locale may not be able to say a name.
        for folder in (folder.encode() for folder in folders):
            with contextlib.suppress(FileExistsError):
                os.mkdir(folder, FOLDER_MODE, dir_fd=here)
            here = _enter(stack, folder, _ENTER | os.O_NOFOLLOW, here)
        for number in itertools.count(1):
            between = "" if number == 1 else f".{number}" if number <= NUMBERED else f".{secrets.token_hex(4)}"
            path = f"{name}{between}{ending}".encode()
            with contextlib.suppress(FileExistsError):
                fd = os.open(path, _CREATE, FILE_MODE, dir_fd=here)
                break
        try:
            write(fd, head, 0)
        except BaseException:
            os.close(fd)
            with contextlib.suppress(OSError):
                os.unlink(path, dir_fd=here)
            raise
        return fd


def write(fd: int, data: bytes, at: int) -> None:
    """Writes all of something at a place in a file. Errors: OSError; a part may be written."""
    view = memoryview(data)
    while view:
        count = os.pwrite(fd, view, at)
        at += count
        view = view[count:]


def remove_old(root: str, days: int, ending: str, first: bytes) -> int:
    """Removes files in ``FOLDER/YYYY-MM-DD`` below the root; returns how many.

    Only those that begin with given bytes, of days that are over for so long, and not written since; and the
    folders of these days, when they become empty.

    Arguments: the root; the number of days; how the names end; the bytes.

    Errors: OSError when the root cannot be looked at.
    """
    last = (datetime.date.today() - datetime.timedelta(days)).isoformat()
    count = 0
    with contextlib.ExitStack() as stack:
        here = _enter(stack, root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        for _, folder in _folders(here, os.listdir(here)):
            names = [name for name in os.listdir(folder) if _is_day(name) and name < last]
            for day, inside in _folders(folder, names):
                removed = sum(_remove(inside, name, days, first) for name in os.listdir(inside)
                              if name.endswith(ending))
                count += removed
                if removed:
                    with contextlib.suppress(OSError):  # something else is in it
                        os.rmdir(day, dir_fd=folder)
    return count


def _enter(stack: contextlib.ExitStack, name: str | bytes, flags: int, above: int | None = None) -> int:
    fd = os.open(name, flags, dir_fd=above)
    stack.callback(os.close, fd)
    return fd


def _folders(above: int, names: Sequence[str]) -> Iterator[tuple[str, int]]:
    """Yields those of some names that are folders, and no links to one, each with its descriptor."""
    for name in names:
        try:
            fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=above)
        except OSError:
            continue
        try:
            yield name, fd
        finally:
            os.close(fd)


def _is_day(name: str) -> bool:
    try:
        return datetime.date.fromisoformat(name).isoformat() == name
    except ValueError:
        return False


def _remove(folder: int, name: str, days: int, first: bytes) -> bool:
    """Removes a file if it is one of ours and old; returns whether it did."""
    try:
        fd = os.open(name, _LOOK, dir_fd=folder)
        try:
            found = os.fstat(fd)
            old = found.st_mtime < time.time() - days * DAY
            if not (stat.S_ISREG(found.st_mode) and old and os.read(fd, len(first)) == first):
                return False
        finally:
            os.close(fd)
        os.unlink(name, dir_fd=folder)
    except OSError:  # another client has removed it, or it may not be read
        return False
    return True
