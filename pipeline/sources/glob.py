"""Globs over URLs: a fixed root, and a pattern below it that is one regular expression for whole columns of paths.

`*` and `?` stay within a name, `**` spans folders, `[a-z]` and `[!a-z]` are classes, `{jpg,png}` are alternatives.
A URL without any of them is a folder, and everything below it with a wanted suffix; or one file, when it ends in such a suffix.
"""

import re
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from schemas.errors import SourceError

_MAGIC = re.compile(r"[*?\[]|\{[^{}]*,[^{}]*\}")


@dataclass(frozen=True)
class Glob:
    """`root`: URL of the folder that ids are relative to. `parts`: the pattern below it; empty for a folder."""

    root: str
    parts: tuple[str, ...]
    suffixes: tuple[str, ...]

    @classmethod
    def parse(cls, url: str, *, suffixes: tuple[str, ...]) -> "Glob":
        """Splits a URL before its first part with a wildcard. Raises SourceError for a wildcard in a bucket's name
        and for classes that make no sense."""
        scheme, _, path = url.rpartition("://")
        parts = path.split("/")
        fixed = next((i for i, part in enumerate(parts) if _MAGIC.search(part)), len(parts))
        if fixed == len(parts) > 1 and parts[-1].lower().endswith(suffixes):
            fixed -= 1
        if scheme and scheme != "file" and fixed == 0:
            raise SourceError(f"{url}: a bucket's name cannot be a pattern. Fix: name one bucket.")
        wanted = tuple(p for p in parts[fixed:] if p)
        try:
            pc.match_substring_regex(pa.array([""]), f"^{_joined(wanted)}$")
        except pa.ArrowInvalid as error:
            raise SourceError(f"{url}: not a pattern ({error}). Fix: mend its [ ] classes.") from error
        root = "/".join(parts[:fixed]) or ("/" if parts[0] == "" and fixed else "." if not scheme else "")
        head = f"{scheme}://" if scheme else ""
        return cls(head + (root.rstrip("/") or root), wanted, suffixes)

    @property
    def expression(self) -> str:
        """The regular expression (RE2 and `re` alike) of a wanted path relative to the root."""
        if not self.parts:
            endings = "|".join(re.escape(s) for s in sorted(self.suffixes))
            return rf"(?is)^.+({endings})$"
        return f"(?s)^{_joined(self.parts)}$"

    def matches(self, paths: pa.StringArray) -> pa.BooleanArray:
        """Which relative paths are wanted."""
        return pc.match_substring_regex(paths, self.expression)

    def enters(self, folder: str) -> bool:
        """Whether anything below the relative `folder` can be wanted, so that walks skip what cannot."""
        if not self.parts:
            return True
        names = folder.strip("/").split("/")
        for depth, name in enumerate(names):
            if depth >= len(self.parts) or self.parts[depth] == "**":
                return depth < len(self.parts)
            if depth + 1 == len(self.parts) or not re.match(f"(?s)^{_translated(self.parts[depth])}$", name):
                return False
        return True


def _joined(parts: tuple[str, ...]) -> str:
    """Regular expression of several path parts; `**` takes any number of folders, and all files when it is last."""
    text = ""
    for i, part in enumerate(parts):
        last = i + 1 == len(parts)
        if part == "**":
            text += ".+" if last else "(?:[^/]+/)*"
        else:
            text += _translated(part) + ("" if last else "/")
    return text


def _translated(part: str) -> str:
    """Regular expression of one name's pattern."""
    text, at = "", 0
    while at < len(part):
        char = part[at]
        end = part.find({"[": "]", "{": "}"}.get(char, char), at + (2 if char == "[" else 1))
        if char == "[" and end > 0:
            body = part[at + 1 : end].replace("\\", "\\\\")
            text += "[" + ("^/" + body[1:] if body[0] in "!^" else body) + "]"
            at = end + 1
        elif char == "{" and "," in part[at : max(end, 0)]:
            text += "(?:" + "|".join(_translated(choice) for choice in part[at + 1 : end].split(",")) + ")"
            at = end + 1
        else:
            text += {"*": "[^/]*", "?": "[^/]"}.get(char) or re.escape(char)
            at += 1
    return text
