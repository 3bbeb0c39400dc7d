"""Reads the words of a shell command: quotes, substitutions, and the placeholders in them.

Each placeholder is replaced by a reference to a variable, quoted for the place where it stands. This module
knows nothing of commands and here-documents (``commands`` does), and runs nothing. Used in the client,
while the configuration is read.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from rbit.shell_text.parts import Command, Mode, Place, TooDeep, Use, Word

DEEPEST = 60  # levels of nesting; each takes up to eight frames of Python's stack
PERCENT = re.compile(r"%(%|[A-Z]+)?")
_VARIABLE = re.compile(r"\$(?:[A-Za-z_][A-Za-z0-9_]*|[0-9@*#?$!-])")
_PARAMETER = re.compile(r"\$\{(?:#?(?:[A-Za-z_][A-Za-z0-9_]*|[0-9]+|[@*?$!#-])(?=[}:=+?#%-])|#?)")
_VALUE_OPERATOR = re.compile(r":?[-=+?]")
_PATTERN_OPERATOR = re.compile(r"##?|(?:%%){1,2}|%(?![A-Z])")


class WordReader:
    """The part of a scanner that reads pieces of words.

    Arguments:
        text: the shell's text, with placeholders.
        variables: the environment variable behind each placeholder's name.
        depth: how deep this text stands inside another one.
    """

    def __init__(self, text: str, variables: Mapping[str, str], depth: int = 0) -> None:
        self.text, self.variables, self.depth = text, variables, depth
        self.position = 0
        self.out: list[str] = []
        self.uses: list[Use] = []
        self.commands: list[Command] = []
        self.unknown: list[str] = []  # names of placeholders that do not exist
        self.notes: list[str] = []  # sentences about signs that may surprise
        self.evaluated = 0  # how many arithmetic expressions are open
        self._bracket = -1  # where an old arithmetic `$[ ]` ends
        self._refused = 0  # how many `${ }` are open in which no placeholder may stand
        self.disputed = False  # from here on shells disagree on what is quoted

    def read_commands(self, closing: str) -> None:
        """Read commands up to the closing character, which is left; ``""``: to the end of the text."""
        raise NotImplementedError

    def read_document(self) -> None:
        """Read the whole text as the body of a here-document whose delimiter was not quoted."""
        word = Word()
        while self.position < len(self.text):
            self.piece(Mode.DOCUMENT, word)

    def copy(self, count: int = 1) -> str:
        """Pass the next characters on as they are, and return them."""
        taken = self.text[self.position : self.position + count]
        self.out.append(taken)
        self.position += count
        return taken

    def peek(self) -> str:
        """Return the next character, or ``""`` at the end."""
        return self.text[self.position : self.position + 1]

    def absorb(self, inner: WordReader) -> None:
        """Take over what a reader of an inner text found."""
        self.uses += inner.uses
        self.commands += inner.commands
        self.unknown += inner.unknown
        self.notes += inner.notes
        self.disputed |= inner.disputed

    def piece(self, mode: Mode, word: Word) -> None:
        """Read one character, or one quotation, substitution or placeholder.

        Raises TooDeep.
        """
        self.depth += 1
        if self.depth > DEEPEST:
            raise TooDeep
        char = self.peek()
        if char == "\\":
            self._backslash(mode, word)
        elif char == "'" and mode is Mode.BARE:
            self._single(word)
        elif char == '"' and mode is not Mode.DOCUMENT:
            self._double(word)
        elif char == "$":
            self._dollar(mode, word)
        elif char == "`":
            self._backquotes(mode, word)
        elif char == "%":
            self.percent(mode, word)
        else:
            word.plain += self.copy()
        self.depth -= 1

    def percent(self, mode: Mode, word: Word, keep: Place | None = None) -> None:
        """Read a percent sign; with ``keep`` a placeholder is left as it is and noted with that place."""
        match = PERCENT.match(self.text, self.position)
        assert match is not None
        self.position = match.end()
        name = match[1]
        if name in self.variables:
            word.dynamic = True
            place = keep or self._place(match.start())
            self.uses.append(Use(name, place))
            self.out.append(match[0] if keep else mode.value.rstrip("\0").format(self.variables[name]))
            return
        text = "%" if name == "%" else match[0]
        if name != "%" and len(text) > 2:
            self.unknown.append(name)
        self.out.append(text)
        word.plain += text

    def _place(self, position: int) -> Place:
        if self.disputed:
            return Place.DISPUTED
        if self.evaluated or position < self._bracket:
            return Place.ARITHMETIC
        return Place.OPERATOR if self._refused else Place.ORDINARY

    def _placeholder_at(self, position: int) -> str | None:
        match = PERCENT.match(self.text, position)
        return match[1] if match and match[1] in self.variables else None

    def _backslash(self, mode: Mode, word: Word) -> None:
        name = self._placeholder_at(self.position + 1)
        following = self.text[self.position + 1 : self.position + 2]
        if name or following == "%":
            # A kept backslash must not quote the `$` of the reference; a bare one only quotes the `%`.
            if name:
                self.notes.append(f"a backslash does not keep %{name} from being replaced; %%{name} does")
                self.out.append("" if mode is Mode.BARE else "\\\\")
            else:
                self.out.append("\\")
            self.position += 1
            word.plain += "" if mode is Mode.BARE else "\\"
            return
        taken = self.copy(2)
        if following == "\n":
            return
        word.plain += following if mode is Mode.BARE or following in ("$", "`", '"', "\\") else taken

    def _single(self, word: Word) -> None:
        self.copy()
        while self.peek() not in ("'", ""):
            if self.peek() == "%":
                self.percent(Mode.SINGLE, word)
            else:
                word.plain += self.copy()
        self.copy()

    def _double(self, word: Word) -> None:
        self.copy()
        while self.peek() not in ('"', ""):
            self.piece(Mode.DOUBLE, word)
        self.copy()

    def _dollar(self, mode: Mode, word: Word) -> None:
        rest = self.text[self.position : self.position + 3]
        variable = _VARIABLE.match(self.text, self.position)
        if rest[:2] in ("$(", "${"):
            word.dynamic = True
            if rest == "$((":
                self._arithmetic(word)
            elif rest[1] == "(":
                self.copy(2)
                self.read_commands(")")
                self.copy()
            else:
                self._brace(mode, word)
        elif rest[:2] == "$'" and mode is Mode.BARE:
            self._dollar_quotes(word)
        elif variable:
            word.dynamic = True
            self.copy(len(variable[0]))
        elif rest[:2] == '$"' and mode is Mode.BARE:
            self.copy()  # a string to translate; its quotes are the usual ones
        else:
            if rest[:2] == "$[":
                self._bracket = max(self._bracket, self.text.find("]", self.position))
            if self._placeholder_at(self.position + 1):
                self.out.append("\\")  # or the shell sees `$$` or `$"`
            word.plain += self.copy()

    def _arithmetic(self, word: Word) -> None:
        self.evaluated += 1
        self.copy(3)
        depth = 2
        while depth and self.peek():
            depth += {"(": 1, ")": -1}.get(self.peek(), 0)
            self.piece(Mode.DOUBLE, word)
        self.evaluated -= 1

    def _dollar_quotes(self, word: Word) -> None:
        self.copy(2)
        while self.peek() not in ("'", ""):
            if self.peek() == "\\":
                # Only some shells take \' for a quote, so from here on it is open what is quoted.
                self.disputed |= self.copy(2) == "\\'"
                word.dynamic = True
            elif self.peek() == "%":
                self.percent(Mode.SINGLE, word, Place.DISPUTED)
            else:
                word.plain += self.copy()
        self.copy()

    def _brace(self, mode: Mode, word: Word) -> None:
        start = self.position
        parameter = _PARAMETER.match(self.text, self.position)
        self.copy(len(parameter[0]) if parameter else 2)
        value = _VALUE_OPERATOR.match(self.text, self.position)
        pattern = _PATTERN_OPERATOR.match(self.text, self.position)
        refused = 1
        if value:
            refused = 0
            self.copy(len(value[0]))
        elif pattern:
            # Quotes start afresh in a pattern, except in a here-document, where shells differ.
            refused = int(mode is Mode.DOCUMENT)
            mode = mode if refused else Mode.BARE
            self.position = pattern.end()
            self.out.append(pattern[0].replace("%%", "%"))
            if pattern[0] == "%%":
                name = self.text[start : pattern.start()]
                self.notes.append(f"{name}%%...}} reaches the shell as {name}%...}}; write %%%% for two signs")
        self._refused += refused
        while self.peek() not in ("}", ""):
            self.piece(mode, word)
        self.copy()
        self._refused -= refused

    def _backquotes(self, mode: Mode, word: Word) -> None:
        word.dynamic = True
        end = self.position + 1
        while end < len(self.text) and self.text[end] != "`":
            end += 2 if self.text[end] == "\\" else 1
        inner = self.text[self.position + 1 : end]
        escaped = r'\\([\\`$"])' if mode is Mode.DOUBLE else r"\\([\\`$])"
        plain = re.sub(escaped, r"\1", inner)
        reader = self.inside(plain)
        reader.read_commands("")
        changed = "".join(reader.out)
        for use in reader.uses:
            use.backquotes = True
        self.absorb(reader)
        self.out.append("`" + (inner if changed == plain else re.sub(r"([\\`])", r"\\\1", changed)))
        self.position = end
        self.copy()

    def inside(self, text: str) -> WordReader:
        """Return a reader of the same kind, for a text that stands inside this one."""
        reader = type(self)(text, self.variables, self.depth)
        reader.evaluated, reader._refused, reader.disputed = self.evaluated, self._refused, self.disputed
        return reader
