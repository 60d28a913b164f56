"""Names of code in prose: every one must exist.

Prose that names what is no longer there is the commonest fault of a book
about code.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from markdown_it import MarkdownIt
from mdit_py_plugins.colon_fence import colon_fence_plugin
from mdit_py_plugins.dollarmath import dollarmath_plugin
from mdit_py_plugins.myst_role import myst_role_plugin

from nb_names import CodeNames, PackageNames, is_builtin
from nb_outside import exists_outside
from nb_package import PACKAGE

ALLOWED = "tools/prose_names.txt"
NAME = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*(?P<call>\(.*\))?", re.DOTALL)
FILE_SUFFIXES = set(
    "bib cfg css csv html ipynb js json keras lock md npy npz png py safetensors "
    "sh svg toml txt yaml yml zip".split()
)
# Directives whose text is prose are searched; these hold something else.
NOT_PROSE = set(
    "bibliography code code-block code-cell eval-rst glue image list-table "
    "literalinclude math mermaid raw toctree".split()
)


def prose_problems(page: Path, where: str, known: "Known") -> list[str]:
    """One line for each name in a page's prose that does not exist."""
    return [
        f"{where}:{line}: `{name}` in prose is no name that exists"
        for line, name in names_in_prose(page.read_text("utf-8"))
        if not known.has(name)
    ]


def names_in_prose(text: str) -> list[tuple[int, str]]:
    """The texts in backticks that look like names, with their lines."""
    return [(line, code) for line, code in _code_spans(text) if looks_like_name(code)]


def looks_like_name(code: str) -> bool:
    """Whether a text is an identifier, a dotted one, or a call of one."""
    match = NAME.fullmatch(code)
    if match is None:
        return False
    return "." not in code or code.rpartition(".")[2] not in FILE_SUFFIXES


def _parser() -> MarkdownIt:
    parser = MarkdownIt("commonmark").enable("table")
    return parser.use(myst_role_plugin).use(dollarmath_plugin).use(colon_fence_plugin)


def _code_spans(text: str, first_line: int = 1) -> Iterator[tuple[int, str]]:
    """The texts in backticks outside of code, mathematics and roles."""
    lines = text.split("\n")
    for token in _parser().parse(text):
        if token.type in ("fence", "colon_fence"):
            directive = re.match(r"\{([\w:-]+)\}", token.info.strip())
            if directive and directive[1] not in NOT_PROSE:
                yield from _code_spans(token.content, first_line + token.map[0] + 1)
        elif token.type == "inline":
            first, last = token.map
            for child in token.children:
                if child.type == "code_inline":
                    places = [n for n in range(first, last) if child.content in lines[n]]
                    yield first_line + (places or [first])[0], child.content


class Known:
    """All names that the prose of one page may use."""

    def __init__(self, trees: list[ast.Module], package: PackageNames, allowed: set[str]):
        """Take the page's code, the package's names and the allow-list."""
        self.code = CodeNames(trees)
        self.package = package
        self.allowed = allowed

    def has(self, code: str) -> bool:
        """Whether a name, a dotted name, or a call and its keywords exist."""
        name, _, arguments = code.partition("(")
        if not self._has_name(name):
            return False
        keywords = re.findall(r"(\w+)\s*=(?!=)", arguments)
        return all(self._has_name(each) for each in keywords)

    def _has_name(self, name: str) -> bool:
        parts = name.split(".")
        if name in self.allowed or is_builtin(parts):
            return True
        if parts[0] in self.code.imports:
            return self._has_imported(self.code.imports[parts[0]], parts[1:])
        if parts[0] in self.code.names:
            return True
        return parts[0] in self.package.names and self.package.has(parts)

    def _has_imported(self, origin: str, rest: list[str]) -> bool:
        if origin.split(".")[0] == PACKAGE:
            return self.package.has(origin.split(".") + rest)
        return not rest or exists_outside(".".join([origin, *rest]))


def allowed_names(root: Path) -> set[str]:
    """The names in the allow-list: one a line, comments after a `#`."""
    path = root / ALLOWED
    if not path.exists():
        return set()
    lines = path.read_text("utf-8").splitlines()
    return {line.partition("#")[0].strip() for line in lines} - {""}
