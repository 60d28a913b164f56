"""What is wrong with the committed notebooks, found without running them."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import nbformat

from nb_names import PackageNames
from nb_outputs import faults
from nb_package import SourceError
from nb_prose import Known, allowed_names, prose_problems
from nb_shown import shown_names
from nb_source import (
    Target,
    code_cells,
    expected,
    is_notebook_source,
    parse_cell,
    read_source,
    tags_of,
    targets,
)

CODE_WIDTH = 72  # columns: wider code scrolls sideways in the book
PYTHON_FENCE = re.compile(
    r"^```(?:python|\{code-block\} python)\n(.*?)^```", re.MULTILINE | re.DOTALL
)
NOTEBOOK_FOLDERS = ("book", "solutions", "exercises")


def problems(root: Path, chosen: list[Target]) -> list[str]:
    """One line for each fault of the chosen notebooks and of the folders."""
    found = []
    for target in chosen:
        found += notebook_problems(root, target)
    for page in dict.fromkeys(target.source for target in chosen):
        found += code_width_problems(root, page)
    return found + orphans(root)


def notebook_problems(root: Path, target: Target) -> list[str]:
    """How a notebook differs from what its source asks for."""
    where = target.notebook.relative_to(root)
    source = target.source.relative_to(root)
    try:
        wanted = expected(root, target)
    except SourceError as error:
        return [f"{source}: {error}"]
    if not target.notebook.exists():
        return [f"{where}: missing, its source is {source}"]
    stored = nbformat.read(target.notebook, 4)
    found = [f"{where}: {fault}" for fault in _differences(wanted, stored, source)]
    for count, cell in enumerate(code_cells(stored), start=1):
        if cell.execution_count is None and "nbval-skip" not in tags_of(cell):
            found.append(f"{where}: was not run (code cell {count})")
            break
    for count, cell in enumerate(code_cells(stored), start=1):
        found += [f"{where}: code cell {count}: {fault}" for fault in faults(cell, root)]
    return found


def same_source(a: nbformat.NotebookNode, b: nbformat.NotebookNode) -> bool:
    """Whether two notebooks have the same cells, outputs aside."""
    return [_key(cell) for cell in a.cells] == [_key(cell) for cell in b.cells]


def same_package(a: nbformat.NotebookNode, b: nbformat.NotebookNode) -> bool:
    """Whether two notebooks were made with the same code of the package."""
    return a.metadata.get("tf_mamba_edu") == b.metadata.get("tf_mamba_edu")


def _key(cell: nbformat.NotebookNode) -> tuple:
    return cell.cell_type, cell.get("id"), cell.source, dict(cell.metadata)


def _differences(
    wanted: nbformat.NotebookNode, stored: nbformat.NotebookNode, source: Path
) -> Iterator[str]:
    """Say what differs: source cells by their names, all else at once."""
    if len(wanted.cells) != len(stored.cells):
        yield f"differs from {source}"
        return
    shown = []
    for a, b in zip(wanted.cells, stored.cells, strict=True):
        if _key(a) != _key(b):
            names = shown_names(a.source)
            if not names or names != shown_names(b.source):
                yield f"differs from {source}"
                return
            shown += names
    for name in shown:
        yield f"a source cell differs from the package: {name}"


def code_width_problems(root: Path, page: Path) -> list[str]:
    """The code lines of a text, the package's included, that are too wide."""
    where = page.relative_to(root)
    try:
        cells = code_cells(read_source(root, page))
    except SourceError:
        return []  # reported with the notebook
    found = []
    for cell in cells:
        shown = ", ".join(shown_names(cell.source))
        place = f"{where}: {shown}" if shown else f"{where}"
        for line in cell.source.split("\n"):
            if len(line) > CODE_WIDTH and not line.startswith("# source:"):
                width = f"code line of {len(line)} columns, {CODE_WIDTH} fit"
                found.append(f"{place}: {width}: {line.strip()}")
    return found


def orphans(root: Path) -> list[str]:
    """The notebooks that no source makes."""
    made = {target.notebook for target in targets(root)}
    there = [path for folder in NOTEBOOK_FOLDERS for path in (root / folder).glob("*.ipynb")]
    return [f"{path.relative_to(root)}: has no source" for path in there if path not in made]


def pages(root: Path) -> list[Path]:
    """All texts whose prose is checked: also those without code."""
    found = [path for folder in NOTEBOOK_FOLDERS for path in (root / folder).glob("*.md")]
    return sorted(found) + [path for path in [root / "README.md"] if path.exists()]


def all_prose_problems(root: Path, chosen: list[Path]) -> list[str]:
    """The names in the prose of pages that do not exist."""
    package, allowed = PackageNames(root), allowed_names(root)
    found = []
    for page in chosen:
        known = Known(_page_code(root, page), package, allowed)
        found += prose_problems(page, str(page.relative_to(root)), known)
    return found


def _page_code(root: Path, page: Path) -> list[ast.Module]:
    """The code of a page: its cells, or the Python fences of plain text."""
    if is_notebook_source(page):
        try:
            return [parse_cell(cell.source) for cell in code_cells(read_source(root, page))]
        except SourceError:
            return []
    fences = PYTHON_FENCE.findall(page.read_text("utf-8"))
    return [parse_cell(fence) for fence in fences]
