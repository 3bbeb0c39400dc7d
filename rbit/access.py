"""What lets rbit in at RabbitMQ and PyBit: the passwords and the TLS keys in the sections of the INI file.

What they name is looked at once, so that a mistake shows at the start. Runs in the client's process.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator, Mapping
from typing import Any

from rbit import inherited, tls
from rbit.files import Named
from rbit.ini import Document, printable
from rbit.secret import Secret
from rbit.tls import Tls, Unusable

PASSWORD_KEYS = ("password", "password_file", "password_env")
FILE_KEYS = ("ca_file", "cert_file", "key_file")
READERS = ((stat.S_IRGRP, "its group"), (stat.S_IROTH, "others"))


def secret(document: Document, section: str, values: dict[str, Any]) -> Secret:
    """Takes the keys of the password out of the values of a section; returns the password."""
    given = [key for key in PASSWORD_KEYS if key in document.sections.get(section, {})]
    text, file, variable = (values.pop(key) for key in PASSWORD_KEYS)
    if variable:
        inherited.hide(variable)
    if len(given) > 1:
        document.mistake(f"expected only one of {' and '.join(given)}", section, given[0])
    elif file or variable:
        made = Secret(file=_named(document, file), variable=variable or "")
        try:
            made.read()
        except ValueError as error:
            document.mistake(str(error), section, made.key)
        return made
    return Secret(text or "")


def protection(document: Document, section: str, values: dict[str, Any], wanted: bool, advice: str) -> Tls | None:
    """Takes the keys of TLS out of the values of a section; returns what they say, None without TLS.

    Arguments:
        wanted: whether there is to be TLS.
        advice: what would have to be written for it, in words.
    """
    files = {key: _named(document, values.pop(key)) for key in FILE_KEYS}
    made = Tls(**files, verify=values.pop("verify") is not False)
    given = [key for key in (*FILE_KEYS, "verify") if key in document.sections.get(section, {})]
    if not wanted:
        for key in given:
            document.mistake(f"expected {advice}, for without TLS this key means nothing", section, key)
        return None
    if made.key_file and not made.cert_file:
        document.mistake("missing, for key_file is the key of its certificate", section, "cert_file")
    try:
        tls.context(made)
    except Unusable as error:
        document.mistake(str(error), section, error.key)
    return made


def warnings(document: Document, protections: Mapping[str, Tls | None], known: str) -> Iterator[str]:
    """Yields a line for each thing that lets others read a password, or a key.

    Arguments:
        protections: of each section.
        known: a password that is no secret.
    """
    for section, made in protections.items():
        if made and not made.verify:
            yield document.line(
                "no certificate is checked, so whoever is in between can read the password and everything else; "
                "verify = yes, with ca_file for an authority of your own, ends that", section, "verify"
            )
    readers = _readers(document.path)
    for section, made in protections.items():
        if readers and document.sections.get(section, {}).get("password", "") not in ("", known):
            path = printable(document.path)
            yield document.line(
                f"{readers} can read it in this file: chmod 600 {path}, or name a password_file instead",
                section, "password",
            )
        for key in ("password_file", "key_file" if made and made.key_file else "cert_file"):
            yield from _warning(document, section, key)


def _warning(document: Document, section: str, key: str) -> Iterator[str]:
    """Yields a line if others can read the file that a key names."""
    named = _named(document, document.sections.get(section, {}).get(key))
    with contextlib.suppress(ValueError):  # it is gone since it was read
        if named and (readers := _readers(path := named.path())):
            yield document.line(f"{readers} can read this file: chmod 600 {printable(path)}", section, key)


def _named(document: Document, name: str | None) -> Named | None:
    return Named(name, os.path.dirname(os.path.abspath(document.path))) if name else None


def _readers(path: str) -> str:
    """Returns who may read a file besides its owner, in words; '' for nobody."""
    try:
        found = os.stat(path)
    except OSError:
        return ""
    # Another user's file, root's perhaps, is readable for rbit through its group.
    mode = found.st_mode if found.st_uid == os.geteuid() else found.st_mode & ~stat.S_IRGRP
    return " and ".join(who for bit, who in READERS if mode & bit)
