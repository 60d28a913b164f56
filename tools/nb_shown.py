"""The package's code as a notebook shows it.

A code cell whose first line is `# source: tf_mamba_edu.module.name` (or
several such lines) is filled with the current text of these objects.
"""

import ast
import re
from pathlib import Path

from nb_package import DEFINITIONS, PACKAGE, SourceError, module_file, parse_file

SOURCE_LINE = re.compile(r"^# source: (\S+)[ \t]*$")


def shown_names(cell_source: str) -> list[str]:
    """The dotted names that a cell shows; empty for an ordinary cell."""
    lines = cell_source.strip().split("\n")
    if not SOURCE_LINE.match(lines[0]):
        return []
    return [m[1] for m in map(SOURCE_LINE.match, lines) if m]


def fill(root: Path, cell_source: str) -> str:
    """A cell with the package's code below each of its source lines."""
    names = shown_names(cell_source)
    if not names:
        return cell_source
    for line in cell_source.strip().split("\n"):
        if line.strip() and not SOURCE_LINE.match(line):
            raise SourceError(f"a cell of source lines holds other code: {line}")
    return "\n\n\n".join(f"# source: {name}\n{shown_source(root, name)}" for name in names)


def shown_source(root: Path, dotted: str) -> str:
    """The source of a function, class or method as a notebook shows it.

    Decorators stay, every docstring is cut to its first paragraph, and a
    method is moved to the left margin.
    """
    path, names = _split(root, dotted)
    node = parse_file(path)
    for name in names:
        node = _definition(node, name)
        if node is None:
            where = path.relative_to(root)
            raise SourceError(f"{dotted}: {where} defines no {name}")
    return _text(path, node)


def _split(root: Path, dotted: str) -> tuple[Path, list[str]]:
    """The file of the longest module in a dotted name, and the names left."""
    parts = dotted.split(".")
    if parts[0] == PACKAGE:
        for size in range(len(parts) - 1, 0, -1):
            path = module_file(root, ".".join(parts[:size]))
            if path is not None:
                return path, parts[size:]
    raise SourceError(f"{dotted}: no such module or object")


def _definition(node: ast.AST, name: str) -> ast.AST | None:
    for child in node.body:
        if isinstance(child, DEFINITIONS) and child.name == name:
            return child
    return None


def _text(path: Path, node: ast.AST) -> str:
    lines = path.read_text("utf-8").split("\n")
    first = min([node.lineno] + [each.lineno for each in node.decorator_list])
    last = node.end_lineno
    docstrings = [
        inner.body[0].value
        for inner in ast.walk(node)
        if isinstance(inner, DEFINITIONS) and ast.get_docstring(inner) is not None
    ]
    # From the last docstring to the first, so that line numbers stay true.
    for doc in sorted(docstrings, key=lambda doc: -doc.lineno):
        old = lines[doc.lineno - 1 : doc.end_lineno]
        new = _first_paragraph(old)
        lines[doc.lineno - 1 : doc.end_lineno] = new
        last += len(new) - len(old)
    margin = " " * node.col_offset
    return "\n".join(line.removeprefix(margin) for line in lines[first - 1 : last])


def _first_paragraph(docstring: list[str]) -> list[str]:
    """The lines of a docstring, cut at its first empty line."""
    empty = [n for n, line in enumerate(docstring) if n and not line.strip()]
    if not empty:
        return docstring
    kept = docstring[: empty[0]]
    quotes = docstring[-1].rstrip()[-3:]
    if len(kept) == 1:
        return [kept[0] + quotes]
    indent = kept[0][: len(kept[0]) - len(kept[0].lstrip())]
    return [*kept, indent + quotes]
