"""From a MyST text to the notebook that it stands for, not yet run.

book/NN.md      -> book/NN.ipynb
solutions/NN.md -> solutions/NN.ipynb and exercises/NN.ipynb (blanks)
"""

import ast
import copy
import functools
import hashlib
import textwrap
from dataclasses import dataclass
from pathlib import Path

import jupytext
import nbformat
import yaml

from nb_package import SourceError, code_digest
from nb_shown import fill

BEGIN, END = "### BEGIN SOLUTION", "### END SOLUTION"
BLANK = 'raise NotImplementedError("your code here")'
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python", "pygments_lexer": "ipython3"},
}
# A reader on Colab has the notebook and nothing else.
INSTALL = """\
# Installs the book's package where it is missing, as on Colab.
import importlib.util

if importlib.util.find_spec("tf_mamba_edu") is None:
    package = "git+{url}"
    %pip install -q "tf-mamba-edu[data] @ {{package}}"
"""
# What the notebook format must know about our own tags in an exercise.
EXERCISE_TAGS = {
    "check": ["raises-exception"],
    "needs-answer": ["nbval-skip", "raises-exception"],
}


@dataclass(frozen=True)
class Target:
    """One notebook and the text that it is made from."""

    source: Path
    kind: str  # "chapter", "solution" or "exercise"
    notebook: Path


def targets(root: Path) -> list[Target]:
    """All notebooks that the sources below `root` ask for."""
    found = []
    for path in notebook_sources(root / "book"):
        found.append(Target(path, "chapter", path.with_suffix(".ipynb")))
    for path in notebook_sources(root / "solutions"):
        exercise = root / "exercises" / f"{path.stem}.ipynb"
        found.append(Target(path, "solution", path.with_suffix(".ipynb")))
        found.append(Target(path, "exercise", exercise))
    return found


def notebook_sources(folder: Path) -> list[Path]:
    """The texts in a folder that have a jupytext header."""
    pages = sorted(folder.glob("*.md"))
    return [page for page in pages if is_notebook_source(page)]


def is_notebook_source(page: Path) -> bool:
    """Whether a page is the source of a notebook."""
    header = page.read_text("utf-8")[:400]
    return header.startswith("---") and "jupytext:" in header


def tags_of(cell: nbformat.NotebookNode) -> list[str]:
    """The tags of a cell."""
    return list(cell.metadata.get("tags", []))


def read_source(root: Path, page: Path) -> nbformat.NotebookNode:
    """The notebook of a text, answers included, source cells filled."""
    notebook = copy.deepcopy(_parse_text(page.read_text("utf-8")))
    for cell in notebook.cells:
        cell.source = cell.source.rstrip("\n")
        if cell.cell_type == "code":
            cell.source = fill(root, cell.source)
            cell.outputs, cell.execution_count = [], None
    return notebook


def with_install_cell(root: Path, notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Puts a cell that installs the package before the first code; the book hides it."""
    config = root / "_config.yml"
    if not config.exists() or not code_cells(notebook):
        return notebook
    url = yaml.safe_load(config.read_text("utf-8"))["repository"]["url"]
    cell = nbformat.v4.new_code_cell(
        INSTALL.format(url=url).rstrip(), metadata={"tags": ["remove-cell"]}
    )
    notebook.cells.insert(notebook.cells.index(code_cells(notebook)[0]), cell)
    return notebook


@functools.cache
def _parse_text(text: str) -> nbformat.NotebookNode:
    return jupytext.reads(text, fmt="md:myst")


def expected(root: Path, target: Target) -> nbformat.NotebookNode:
    """The notebook that a target should be, without outputs."""
    notebook = variant(with_install_cell(root, read_source(root, target.source)), target.kind)
    trees = [parse_cell(cell.source) for cell in code_cells(notebook)]
    metadata = copy.deepcopy(METADATA)
    metadata["tf_mamba_edu"] = {"package_sha256": code_digest(root, trees)}
    notebook.metadata = nbformat.from_dict(metadata)
    return notebook


def variant(notebook: nbformat.NotebookNode, kind: str) -> nbformat.NotebookNode:
    """The chapter, the solution or the exercise that a text stands for."""
    dropped = {"exercise": "solution-only", "solution": "exercise-only"}.get(kind)
    notebook.cells = [c for c in notebook.cells if dropped not in tags_of(c)]
    for cell in code_cells(notebook):
        if kind == "chapter":
            continue
        cell.source = cut_answers(cell.source, keep=kind == "solution")
        if kind == "exercise":
            tags = tags_of(cell)
            more = [new for tag in tags for new in EXERCISE_TAGS.get(tag, [])]
            if more:
                cell.metadata["tags"] = tags + more
    _number(notebook.cells)
    return notebook


def code_cells(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    """The code cells of a notebook."""
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def _number(cells: list[nbformat.NotebookNode]) -> None:
    """Give cells ids that follow the content, so that a diff stays small."""
    seen = {}
    for cell in cells:
        name = hashlib.sha1(cell.source.encode()).hexdigest()[:8]
        seen[name] = seen.get(name, 0) + 1
        cell.id = name if seen[name] == 1 else f"{name}-{seen[name]}"


def cut_answers(source: str, keep: bool) -> str:
    """A cell without its marker lines: the answers kept, or made blanks."""
    lines, answer = [], None
    for line in source.split("\n"):
        if line.strip().startswith(BEGIN):
            if answer is not None:
                raise SourceError(f"{BEGIN} twice without {END}:\n{source}")
            answer, indent = [], line[: line.index("#")]
        elif line.strip().startswith(END):
            if answer is None:
                raise SourceError(f"{END} without {BEGIN}:\n{source}")
            lines += answer if keep else _blank(answer, indent)
            answer = None
        else:
            (lines if answer is None else answer).append(line)
    if answer is not None:
        raise SourceError(f"{BEGIN} without {END}:\n{source}")
    return "\n".join(lines).rstrip("\n")


def _blank(answer: list[str], indent: str) -> list[str]:
    """What a learner sees in place of an answer.

    Plain assignments at the left margin become `name = ...`, so that the
    cell runs and the check can say what is missing; all else raises.
    """
    if not indent:
        try:
            statements = ast.parse(textwrap.dedent("\n".join(answer))).body
        except SyntaxError:
            statements = []
        names = [_assigned_name(statement) for statement in statements]
        if names and None not in names:
            return [f"{name} = ..." for name in dict.fromkeys(names)]
    return [indent + BLANK]


def _assigned_name(statement: ast.stmt) -> str | None:
    """The name that a plain `name = value` assigns, or None."""
    if isinstance(statement, ast.Assign) and len(statement.targets) == 1:
        target = statement.targets[0]
        return target.id if isinstance(target, ast.Name) else None
    return None


def parse_cell(source: str) -> ast.Module:
    """The syntax tree of a cell; IPython's own lines are left out."""
    lines = source.split("\n")
    lines = ["" if line.lstrip().startswith(("%", "!")) else line for line in lines]
    try:
        return ast.parse("\n".join(lines))
    except SyntaxError:
        # An exercise may show code that does not parse: it has no names.
        return ast.Module(body=[], type_ignores=[])
