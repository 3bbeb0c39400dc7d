"""Finds and reads a file that a user has named, whatever it turns out to be. Knows nothing of what is in it."""

from __future__ import annotations

import os
import select
import stat
import time
from dataclasses import dataclass

CREDENTIALS = "CREDENTIALS_DIRECTORY"  # the variable in which systemd names a folder, see LoadCredential=
PIPE_WAIT = 10.0  # seconds in which a pipe must bring its end


@dataclass(frozen=True)
class Named:
    """A file that the configuration names, to be read again and again.

    Arguments:
        name: as it is written there.
        folder: the INI file's, in which a relative name is looked up after the folder of credentials.
    """

    name: str
    folder: str

    def path(self) -> str:
        """Returns where the file is now. Errors: ValueError that says in words that there is none."""
        folders = [folder for folder in (os.environ.get(CREDENTIALS), self.folder) if folder]
        for folder in folders:
            path = os.path.join(folder, self.name)
            try:
                os.lstat(path)
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError:  # reading it will say why
                pass
            return path
        # Without the name: it may be a password in the wrong place.
        raise ValueError("no such file" + ("" if os.path.isabs(self.name) else f" in {' or '.join(folders)}"))

    def read(self, limit: int) -> bytes:
        """Returns the first ``limit`` bytes. Errors: ValueError that says in words why not."""
        return read(self.path(), limit, again=True)


def read(path: str, limit: int, again: bool = False) -> bytes:
    """Returns the first ``limit`` bytes of a file or, if it is not to be read ``again``, of a pipe.

    Errors: ValueError that says in words why not.
    """
    if "\0" in path:
        raise ValueError("embedded null byte")
    try:
        # Not blocking: a FIFO that nobody writes to could not even be opened.
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        try:
            mode = os.fstat(fd).st_mode
            if stat.S_ISDIR(mode) or not (stat.S_ISREG(mode) or stat.S_ISFIFO(mode)):
                raise ValueError(f"expected a file, got {'a directory' if stat.S_ISDIR(mode) else 'a device'}")
            if again and stat.S_ISFIFO(mode):
                raise ValueError("expected a file, got a pipe, and it is read more than once")
            return _read(fd, limit, stat.S_ISFIFO(mode))
        finally:
            os.close(fd)
    except FileNotFoundError as error:
        raise ValueError("no such file") from error
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror}") from error


def _read(fd: int, limit: int, pipe: bool) -> bytes:
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    data, until = b"", time.monotonic() + PIPE_WAIT
    while len(data) < limit:
        if pipe and not poll.poll(max(0.0, until - time.monotonic()) * 1000):
            raise ValueError(f"a pipe that did not come to its end within {PIPE_WAIT:g} s")
        chunk = os.read(fd, limit - len(data))
        if not chunk:
            break
        data += chunk
    return data
