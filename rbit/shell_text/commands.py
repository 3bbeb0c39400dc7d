"""Reads the commands of a shell text: lists, pipelines, compound commands, redirections, here-documents.

It follows the grammar of POSIX shells as far as is needed to know where a quote or a substitution ends and which
words make one command. It does not know what the commands do. Used in the client, while the configuration is read.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from rbit.shell_text.parts import Command, Mode, Pipeline, Place, Use, Word
from rbit.shell_text.words import PERCENT, WordReader

_BLANK_OR_OPERATOR = " \t\n;&|()<>"
_OPERATOR = re.compile(r";;&|;;|;&|&&|\|\||\|&|<<<|<<-|<<|<&|<>|>>|>&|>\||[;&|()<>]")
_DELIMITER = re.compile(r"""(?:\\.|'[^']*'|"(?:\\.|[^"\\])*"|[^\s;&|()<>\\'"])+""", re.DOTALL)
_ENDS = {
    "{": "}", "if": "fi", "while": "done", "until": "done", "for": "done", "select": "done", "case": "esac",
}  # fmt: skip
_BETWEEN = {"then", "do", "else", "elif", "!"}  # reserved words after which a command begins


@dataclass
class _Compound:
    end: str
    stage: str = ""  # of a case: subject, in, pattern, body


@dataclass
class _Document:
    delimiter: str
    quoted: bool
    tabs: bool
    pipelines: tuple[Pipeline, ...]


@dataclass
class _Level:
    closing: str
    words: list[Word] = field(default_factory=list)
    nest: list[_Compound] = field(default_factory=list)
    pipelines: list[Pipeline] = field(default_factory=lambda: [Pipeline()])
    documents: list[_Document] = field(default_factory=list)
    target: str = ""  # the redirection that takes the next word
    reads_file: bool = False
    piped: bool = False  # the last token was a pipe: a newline ends nothing

    def stage(self) -> str:
        return self.nest[-1].stage if self.nest else ""


class CommandReader(WordReader):
    """Reads a whole text: after ``read_commands("")`` its attributes hold what was found."""

    def read_commands(self, closing: str) -> None:
        level = _Level(closing)
        evaluated = self.evaluated
        while char := self.peek():
            if char in " \t" or self.text.startswith("\\\n", self.position):
                self.copy(1 if char in " \t" else 2)
            elif char == "\n":
                self._newline(level)
            elif char == "#":
                self._comment()
            elif char not in _BLANK_OR_OPERATOR:
                self._word(level)
            elif self._operator(level):
                break
        self._end_command(level)
        self.evaluated = evaluated
        if level.documents and closing:
            self.disputed = True

    def _end_command(self, level: _Level) -> None:
        if level.words:
            self.commands.append(Command(level.words, tuple(level.pipelines), level.reads_file))
        level.words, level.reads_file, level.target = [], False, ""

    def _newline(self, level: _Level) -> None:
        self._end_command(level)
        if not level.piped:
            level.pipelines[-1] = Pipeline()
        self.copy()
        for document in level.documents:
            self._document(document)
        level.documents = []

    def _comment(self) -> None:
        end = self.text.find("\n", self.position)
        self._kept(len(self.text) if end < 0 else end, Place.COMMENT)

    def _kept(self, end: int, place: Place) -> None:
        word = Word()
        while self.position < end:
            if self.peek() == "%":
                self.percent(Mode.SINGLE, word, place)
            else:
                self.copy()

    def _word(self, level: _Level) -> None:
        word, start, first = Word(), self.position, len(self.uses)
        while (char := self.peek()) and char not in _BLANK_OR_OPERATOR:
            self.piece(Mode.BARE, word)
        word.source, word.uses = self.text[start : self.position], self.uses[first:]
        level.piped = False
        if word.source == "]]":
            self.evaluated = max(0, self.evaluated - 1)
        if level.target:
            if level.target == "<<<":
                for use in word.uses:
                    use.document = tuple(level.pipelines)
            level.target = ""
        elif not (self.peek() and self.peek() in "<>" and word.source.isdigit()):
            self._place_word(level, word)

    def _place_word(self, level: _Level, word: Word) -> None:
        source = word.source
        if level.stage() in ("subject", "in", "pattern"):
            self._word_of_case(level, source)
            return
        head = level.words[0].source if level.words else ""
        if len(level.words) == 2 and (
            (source == "do" and head in ("for", "select")) or (source == "{" and head == "function")
        ):
            self._end_command(level)
        if level.words:
            level.words.append(word)
        elif source in _ENDS:
            self._open(level, _ENDS[source], "subject" if source == "case" else "")
            if source in ("for", "select"):
                level.words.append(word)
        elif level.nest and source == level.nest[-1].end:
            self._close(level)
        elif source not in _BETWEEN:
            self.evaluated += source == "[["
            level.words.append(word)

    def _word_of_case(self, level: _Level, source: str) -> None:
        top = level.nest[-1]
        if top.stage == "subject":
            top.stage = "in"
        elif top.stage == "in":
            top.stage = "pattern" if source == "in" else "in"
        elif source == "esac":
            self._close(level)

    def _open(self, level: _Level, end: str, stage: str = "") -> None:
        level.nest.append(_Compound(end, stage))
        level.pipelines.append(Pipeline())

    def _close(self, level: _Level) -> None:
        level.nest.pop()
        level.pipelines.pop()

    def _operator(self, level: _Level) -> bool:
        """Read one operator; True: it is the character that closes this level, and was left."""
        match = _OPERATOR.match(self.text, self.position)
        assert match is not None
        token = match[0]
        if token == "(":
            self._open_parenthesis(level)
        elif token == ")":
            return self._close_parenthesis(level)
        elif token in ("<<", "<<-"):
            self.copy(len(token))
            self._delimiter(level, token)
        elif token[0] in "<>":
            self.copy(len(token))
            level.target = token
            level.reads_file = level.reads_file or token in ("<", "<>", "<&")
        else:
            self.copy(len(token))
            self._separate(level, token)
        return False

    def _separate(self, level: _Level, token: str) -> None:
        self._end_command(level)
        level.piped = token in ("|", "|&")
        if level.stage() == "body" and token in (";;", ";&", ";;&"):
            level.nest[-1].stage = "pattern"
        if not level.piped:
            level.pipelines[-1] = Pipeline()

    def _open_parenthesis(self, level: _Level) -> None:
        opens = level.stage() != "pattern"
        doubled = self.text.startswith("((", self.position)
        self.copy()
        if opens:
            self._end_command(level)
            self._open(level, "((" if doubled else "(")
            self.evaluated += doubled

    def _close_parenthesis(self, level: _Level) -> bool:
        if level.stage() == "pattern":
            level.nest[-1].stage = "body"
            self.copy()
            return False
        self._end_command(level)
        if not any(compound.end[0] == "(" for compound in level.nest):
            if level.closing:
                return True
            self.copy()
            return False
        while level.nest[-1].end[0] != "(":
            self._close(level)
        self.evaluated -= level.nest[-1].end == "(("
        self._close(level)
        self.copy()
        return False

    def _delimiter(self, level: _Level, token: str) -> None:
        while self.peek() in (" ", "\t"):
            self.copy()
        match = _DELIMITER.match(self.text, self.position)
        if match is None:
            return
        raw = self.copy(len(match[0]))
        for placeholder in PERCENT.finditer(raw):
            if placeholder[1] in self.variables:
                self.uses.append(Use(placeholder[1], Place.DELIMITER))
        plain = re.sub(r"\\(.)|['\"]", r"\1", raw, flags=re.DOTALL)
        level.documents.append(_Document(plain, plain != raw, token == "<<-", tuple(level.pipelines)))

    def _document(self, document: _Document) -> None:
        end = self._end_of(document)
        first = len(self.uses)
        if document.quoted:
            self._kept(end, Place.QUOTED_DOCUMENT)
        else:
            reader = self.inside(self.text[self.position : end])
            reader.read_document()
            self.absorb(reader)
            self.out += reader.out
            self.position = end
        for use in self.uses[first:]:
            use.document = document.pipelines
        line_end = self.text.find("\n", end)
        self.copy((len(self.text) if line_end < 0 else line_end + 1) - end)

    def _end_of(self, document: _Document) -> int:
        """Return where the line with the delimiter begins; the text's end when there is none."""
        start, joined = self.position, False
        while start < len(self.text):
            line_end = self.text.find("\n", start)
            line = self.text[start : line_end if line_end >= 0 else None]
            if not joined and (line.lstrip("\t") if document.tabs else line) == document.delimiter:
                return start
            if line_end < 0:
                break
            backslashes = len(line) - len(line.rstrip("\\"))
            joined = not document.quoted and backslashes % 2 == 1
            start = line_end + 1
        return len(self.text)


def read(text: str, variables: Mapping[str, str]) -> CommandReader:
    """Read a whole command.

    Arguments:
        text: what stands behind ``shell!``.
        variables: the environment variable behind each placeholder's name.

    Raises TooDeep.
    """
    reader = CommandReader(text, variables)
    reader.read_commands("")
    return reader
