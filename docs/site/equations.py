"""Equations of docstrings for people who read them on the site.

Docstrings write `w_i x_i`, `v_{i,j}`, `MLP_top` and `e^{-z}`; what is in backquotes is code, and so
is a name such as the `batch_size` at the beginning of an argument's line.
"""

from __future__ import annotations

import re
from typing import Any

import griffe

_CODE = re.compile(r"(```.*?```|``.*?``|`[^`]*`|^ +[\w*, ]+:)", re.DOTALL | re.MULTILINE)
_SPECIAL = str.maketrans({"<": "&lt;", "*": r"\*", "[": r"\[", "]": r"\]"})
# In braces; or one letter or digit, or two with a comma; or a word behind one letter or capitals.
_SCRIPT = re.compile(
    r"(?P<mark>[_^])(?:\{(?P<braced>[^{}]*)\}|(?P<short>[^\W_ᵀ](?:,[a-z])?)(?![^\W_ᵀ]))"
    r"|(?P<base>(?<![^\W_])(?:[^\W\d_]'?|[A-Z]+)|</sup>)_(?P<word>[^\W_ᵀ]{2,})"
)


class Equations(griffe.Extension):
    """Sets subscripts and superscripts in all docstrings."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        if obj.docstring:
            obj.docstring.value = legible(obj.docstring.value)


def legible(text: str) -> str:
    """A docstring with HTML's `<sub>` and `<sup>` in its equations, and code as it was.

    Args:
        text: of the docstring.
    """
    parts = _CODE.split(text)
    parts[::2] = [_scripts(part.translate(_SPECIAL)) for part in parts[::2]]
    return "".join(parts)


def _scripts(text: str) -> str:
    while (changed := _SCRIPT.sub(_script, text)) != text:  # what is in braces has some of its own
        text = changed
    return text


def _script(found: re.Match[str]) -> str:
    if found["word"]:
        return f"{found['base']}<sub>{found['word']}</sub>"
    tag = "sub" if found["mark"] == "_" else "sup"
    return f"<{tag}>{found['braced'] or found['short']}</{tag}>"
