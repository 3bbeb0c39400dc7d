"""A password that the configuration gives or names. Knows nothing of who wants it. Used in the client."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from rbit.files import Named

LONGEST = 4096  # bytes, with the end of the line


@dataclass(frozen=True)
class Secret:
    """A password, read anew whenever it is needed, so that it may change meanwhile. Its repr shows no value.

    Arguments:
        text: the password, when it stands in the INI file.
        file: the file that holds it instead.
        variable: the environment variable that holds it instead; '' for none.
    """

    text: str = field(default="", repr=False)
    file: Named | None = field(default=None, repr=False)  # its name may be the password, too
    variable: str = field(default="", repr=False)  # somebody may have written the password there

    @property
    def key(self) -> str:
        """The key that says what it is."""
        return "password_file" if self.file else "password_env" if self.variable else "password"

    def read(self) -> str:
        """Returns the password. Errors: ValueError that says in words why there is none."""
        if self.file:
            return _line(self.file.read(LONGEST + 1))
        if self.variable:
            value = os.environb.get(self.variable.encode())
            if value is None:
                raise ValueError("there is no such variable in the environment of rbit")
            return _line(value)
        return self.text


def _line(data: bytes) -> str:
    if len(data) > LONGEST:
        raise ValueError(f"expected at most {LONGEST} bytes, got more")
    try:
        line = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # Without "from error": it holds the password.
        raise ValueError(f"expected text in UTF-8, got the byte 0x{data[error.start]:02x}") from None
    line = line.removesuffix("\n").removesuffix("\r")
    if not line:
        raise ValueError("expected a password, got nothing")
    if "\n" in line or "\r" in line:
        raise ValueError("expected one line, got more")
    if "\0" in line:
        raise ValueError("expected text, got a NUL character")
    return line
