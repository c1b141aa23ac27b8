"""In which line of a TOML document a key stands: what `tomllib` does not say."""

import re

_KEY_PART = re.compile(r"""\s*(?:"((?:[^"\\\n]|\\.)*)"|'([^'\n]*)'|([A-Za-z0-9_-]+))[ \t]*""")
_STRING = re.compile(
    r'"""(?:[^\\]|\\[\s\S])*?"{3,5}(?!")|' + r"'''[\s\S]*?'{3,5}(?!')|" + r'"(?:[^"\\\n]|\\.)*"|' + r"'[^'\n]*'"
)
_SKIP = re.compile(r"(?:\s+|#[^\n]*)*")
_BARE = re.compile(r"[^\s,\]}#]+(?: [0-9][^\s,\]}#]*)?")


def key_lines(text: str) -> dict[str, int]:
    """The line of every key and table, by dotted path.

    Args:
        text: A valid TOML document: what `tomllib` would refuse may stop the scan early.

    Returns:
        Lines from 1. A table made by dotted keys has the line of the first.
    """
    scanner = _Scanner(text)
    scanner.document()
    return scanner.lines


class _Scanner:
    """Walks a document once, from key to key."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self.lines: dict[str, int] = {}

    def document(self) -> None:
        table: list[str] = []
        while self._skip():
            if self._text.startswith("[", self._at):
                brackets = 2 if self._text.startswith("[[", self._at) else 1
                self._at += brackets
                table = self._key([])
                self._at += brackets
            elif not self._pair(table):
                return

    def _pair(self, table: list[str]) -> bool:
        """`key = value`; False where there is none."""
        start = self._at
        path = self._key(table)
        if self._at == start or not self._text.startswith("=", self._at):
            return False
        self._at += 1
        self._value(path)
        return True

    def _key(self, table: list[str]) -> list[str]:
        """A dotted key; its line is noted, and its tables' where they are new."""
        path = list(table)
        while match := _KEY_PART.match(self._text, self._at):
            path.append(next(part for part in match.groups() if part is not None))
            self.lines.setdefault(".".join(path), self._text.count("\n", 0, match.start(match.lastindex or 0)) + 1)
            self._at = match.end()
            if not self._text.startswith(".", self._at):
                break
            self._at += 1
        return path

    def _value(self, path: list[str]) -> None:
        self._skip()
        if self._text.startswith("{", self._at):
            self._items("}", path)
        elif self._text.startswith("[", self._at):
            self._items("]", path)
        elif match := _STRING.match(self._text, self._at) or _BARE.match(self._text, self._at):
            self._at = match.end()

    def _items(self, closing: str, path: list[str]) -> None:
        """What stands between brackets: pairs of an inline table, or values of an array."""
        self._at += 1
        while self._skip() and not self._text.startswith(closing, self._at):
            start = self._at
            if self._text.startswith(",", self._at):
                self._at += 1
            elif closing == "]":
                self._value(path)
            else:
                self._pair(path)
            if self._at == start:
                return
        self._at += 1

    def _skip(self) -> bool:
        """Goes past space and comments; False at the end."""
        match = _SKIP.match(self._text, self._at)
        self._at = match.end() if match else self._at
        return self._at < len(self._text)
