"""A Sphinx extension: reads docstrings whose equations are plain text.

The docstrings of fmjax are written to be read in an editor: an equation is an indented block, and
norms and products are written ``|x|`` and ``a * b``. In reStructuredText those are a quotation, a
substitution and an emphasis. Before anything else looks at a docstring,

- an indented block outside the sections (``Args:``, ``Returns:``, ...) becomes a literal block;
- ``|``, a lone ``*`` and an underscore that ends a word are escaped outside literals.

Signatures name the type aliases of fmjax instead of spelling them out.
"""

import re

import jaxtyping
import numpy.typing
from sphinx.util.typing import stringify_annotation

from fmjax import conventions

SECTIONS = (
    "Args",
    "Attributes",
    "Example",
    "Examples",
    "Note",
    "Raises",
    "References",
    "Returns",
    "Yields",
)
_SECTION = re.compile(rf"({'|'.join(SECTIONS)}):\s*$")
_LIST_OR_DIRECTIVE = re.compile(r"([-*+]|\d+\.|#\.|\.\.)\s")
# What must stay as it is: ``literal``, `role`, **bold**, *emphasis*, and the lines of a doctest.
_KEPT = re.compile(
    r"(``.+?``|`[^`]+`|(?<![\w)*])(\*\*?)(?=[^\s*])[^*]*[^\s*]\2(?![\w(*])|^ *(?:>>>|\.\.\.).*?$)",
    re.DOTALL | re.MULTILINE,
)
_SPECIAL = re.compile(r"\*|(?<=\w)_(?!\w)|\|")


def escape(text: str) -> str:
    """Escapes what reStructuredText would read as markup, outside literals and bold."""
    out, end = [], 0
    for kept in _KEPT.finditer(text):
        out += [_SPECIAL.sub(r"\\\g<0>", text[end : kept.start()]), kept[0]]
        end = kept.end()
    return "".join([*out, _SPECIAL.sub(r"\\\g<0>", text[end:])])


def as_restructured_text(lines: list[str]) -> list[str]:
    """The docstring with its indented blocks marked as literal and its text escaped."""
    out: list[str] = []
    text: list[str] = []  # the lines of running text since the last literal block
    opener = ""  # the last line that was not indented
    literal = False

    def flush() -> None:
        out.extend(escape("\n".join(text)).split("\n") if text else [])
        text.clear()

    for line in lines:
        if line.strip() and not line[0].isspace():
            if literal:
                out.append("")
            opener, literal = line, False
        elif line.strip() and not literal and opener:
            literal = not (_SECTION.match(opener) or _LIST_OR_DIRECTIVE.match(opener))
            if literal:
                flush()
                out.extend(["", ".. code-block:: none", ""])
        (out if literal else text).append(line)
    flush()
    return out


def _process_docstring(app, what, name, obj, options, lines):
    lines[:] = as_restructured_text(lines)
    if what in ("data", "attribute"):
        # Napoleon takes the first words of a constant, up to a colon, for its type. It stops at the
        # first line, so it gets one of its own: an empty comment.
        lines[:0] = ["..", ""]


_ALIASES = {
    stringify_annotation(alias, "smart"): name
    for name, alias in {
        "ArrayLike": numpy.typing.ArrayLike,
        "PRNGKeyArray": jaxtyping.PRNGKeyArray,
        "ApplyFn": conventions.ApplyFn,
        "Velocity": conventions.Velocity,
    }.items()
} | {
    "jaxlib._jax.Array": "Array",  # as Float[Array, "batch d"] names jax.Array
}


def _process_signature(app, what, name, obj, options, signature, return_annotation):
    def short(text):
        for long, alias in _ALIASES.items():
            text = text.replace(long, alias)
        return text

    return tuple(text and short(text) for text in (signature, return_annotation))


def _skip_member(app, what, name, obj, skip, options):
    """Leaves out the fields of NamedTuples, which their class describes under Attributes."""
    if (getattr(obj, "__doc__", None) or "").startswith("Alias for field number"):
        return True
    return None


def setup(app):
    """Registers the extension; it must come before napoleon, whose priority is 500."""
    app.connect("autodoc-process-docstring", _process_docstring, priority=400)
    app.connect("autodoc-process-signature", _process_signature)
    app.connect("autodoc-skip-member", _skip_member)
    return {"parallel_read_safe": True}
