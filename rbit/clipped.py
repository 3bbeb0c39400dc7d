"""A file that keeps the head and the tail of what is written to it. Knows nothing of what that is."""

from __future__ import annotations

import contextlib
import os

CHUNK = 1 << 20  # bytes that are moved at once
LONGEST = 1 << 18  # bytes in which the end of a line is looked for
MARK = b"\n[... %20d bytes are left out here ...]\n\n"
MARKED = len(MARK % 0)


class Clipped:
    """Writes to a file that never becomes larger than a limit.

    When it is full, its last quarter moves up to the first one, and a mark between the two says how much is left
    out. After each ``write`` it is in order; who reads it while its tail moves may see lines of that twice.

    Arguments:
        fd: of a file, open for reading and writing; ``close`` closes it.
        size: bytes that are in it, less than a quarter of the limit.
        limit: bytes, at least 1,000,000.
    """

    def __init__(self, fd: int, size: int, limit: int) -> None:
        self.fd = fd
        self.kept = 0  # bytes of what was written last
        self._limit = limit
        self._part = limit // 4
        self._size = size
        self._border = size  # where the head ends
        self._rest = size  # where what follows the head, and the mark, begins
        self._lost = 0

    def write(self, data: bytes) -> None:
        """Writes whole lines, less than a quarter of the limit.

        Errors: OSError; ``kept`` says how many bytes of it are in the file, whole lines too.
        """
        self.kept = 0
        if self._size + len(data) > self._limit:
            self._clip()
        if self._size <= self._part:
            self._border = self._rest = self._size
        view = memoryview(data)
        try:
            while self.kept < len(data):
                self.kept += os.pwrite(self.fd, view[self.kept :], self._size + self.kept)
        except OSError:
            self.kept = data.rfind(b"\n", 0, self.kept) + 1
            with contextlib.suppress(OSError):
                os.ftruncate(self.fd, self._size + self.kept)
            raise
        finally:
            self._size += self.kept

    def close(self) -> None:
        """Closes the file. Errors: OSError, though it is closed."""
        os.close(self.fd)

    def _clip(self) -> None:
        """Moves the tail up to the head. Errors: OSError; then it is as long as before."""
        at = self._size - self._part
        at += os.pread(self.fd, LONGEST, at).find(b"\n") + 1
        to = self._border + MARKED
        lost = self._lost + at - self._rest
        os.pwrite(self.fd, MARK % lost, self._border)
        while at < self._size:
            chunk = os.pread(self.fd, min(CHUNK, self._size - at), at)
            count = os.pwrite(self.fd, chunk, to)
            if not count:
                break
            at += count
            to += count
        os.ftruncate(self.fd, to)
        self._lost = lost
        self._size, self._rest = to, self._border + MARKED
