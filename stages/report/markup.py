"""HTML by small functions that escape everything. Only `Markup` passes unescaped, and only this module and constants make it."""

import base64
from html import escape

from stages.report.data import Picture

VOID = frozenset({"img", "meta", "br", "line", "path", "polyline", "rect", "circle"})


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


def tag(name: str, /, *children: object, **attributes: object) -> Markup:
    """`<name attributes>children</name>`. Children that are not Markup are escaped; None and False are left out.

    Attribute names lose a trailing `_` (`class_`), and other `_` become `-`; True writes the bare name.
    """
    written = "".join(_attribute(key, value) for key, value in attributes.items() if value not in (None, False))
    if name in VOID:
        return Markup(f"<{name}{written}>" if name in ("img", "meta", "br") else f"<{name}{written}/>")
    return Markup(f"<{name}{written}>{join(*children)}</{name}>")


def join(*children: object) -> Markup:
    """Children one after another; lists and generators are opened."""
    return Markup("".join(_flat(child) for child in children))


def with_code(text: str) -> Markup:
    """Text in which what stands between backticks is code."""
    return join(tag("code", part) if i % 2 else part for i, part in enumerate(text.split("`")))


def data_uri(picture: Picture) -> str:
    """The picture as an address that holds it, so the page asks nothing of any server."""
    return f"data:{picture.mime};base64,{base64.b64encode(picture.data).decode()}"


def image(picture: Picture, alt: str) -> Markup:
    """An `<img>` with the picture inside."""
    return tag("img", src=data_uri(picture), alt=alt, loading="lazy", decoding="async")


def _flat(child: object) -> str:
    match child:
        case None | False:
            return ""
        case Markup():
            return child
        case str():
            return escape(child)
        case int() | float():
            return escape(str(child))
        case _ if hasattr(child, "__iter__"):
            return "".join(_flat(c) for c in child)
        case _:
            raise TypeError(f"{child!r} is not text, a number or markup")


def _attribute(key: str, value: object) -> str:
    name = key.rstrip("_").replace("_", "-")
    return f" {name}" if value is True else f' {name}="{escape(str(value))}"'
