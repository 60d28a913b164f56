"""Exercises of a sheet: reads from a notebook's cells which checks it has, and where.

Its exercises are the checks that it imports, by name or a whole module of them: one whose check
cell was deleted still counts. Nothing of the notebook runs here.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tf_mamba_edu.checks.core import Check

CHECKS = "tf_mamba_edu.checks"
COMMENT = re.compile(r"#.*")
# What stands behind `import`, in parentheses (perhaps never closed) or not.
NAMES = r"(\([^)]*\)?|(?:[^\\\n;]|\\\n)*)"
FROM_MODULE = re.compile(
    rf"from\s+tf_mamba_edu\.checks\.(\w+)\s+import\s*{NAMES}"
)
FROM_CHECKS = re.compile(
    rf"from\s+tf_mamba_edu\.checks\s+import\s*{NAMES}"
)
WHOLE_MODULE = re.compile(r"tf_mamba_edu\.checks\.(\w+)")
ONE_NAME = re.compile(r"(\w+|\*)(?:\s+as\s+(\w+))?")
CHAPTER = re.compile(r"chapter (\d+)")


@dataclass(frozen=True)
class Cell:
    """A code cell.

    Attributes:
        index: where it stands among all cells, from 0.
        source: its text.
        tags: its tags.
        heading: number and title of the exercise that it belongs to; empty above the first.
    """

    index: int
    source: str
    tags: frozenset[str] = frozenset()
    heading: tuple[str, str] = ("", "")


@dataclass(frozen=True)
class Exercise:
    """An exercise of a notebook: one check.

    Attributes:
        module: the module of `tf_mamba_edu.checks` that holds its check.
        check: the check's name there.
        number: its number in the notebook; empty if no cell calls the check.
        title: its title there; empty if no cell calls the check.
        cell: index of the cell that calls the check; None if there is none.
    """

    module: str
    check: str
    number: str = ""
    title: str = ""
    cell: int | None = None

    @property
    def key(self) -> str:
        """The check's name in the package."""
        return f"{self.module}.{self.check}"

    @property
    def label(self) -> str:
        """How the exercise is shown."""
        if not self.number:
            return self.check
        return f"{self.number}. {self.title}"

    @property
    def sheet(self) -> str:
        """Number and name of the sheet, whatever the file is called."""
        module = checks_module(self.module)
        number = CHAPTER.search(getattr(module, "__doc__", None) or "")
        return f"{number[1]} {self.module}" if number else self.module


def exercises(cells: Sequence[Cell]) -> list[Exercise]:
    """The exercises in their order; those without a check cell come last."""
    names: dict[tuple[str, str], set[str]] = {}
    for cell in cells:
        for module, check, name in _imports(cell.source):
            names.setdefault((module, check), set()).add(name)
    found = [
        _exercise(cells, module, check, called)
        for (module, check), called in names.items()
    ]
    last = float("inf")
    return sorted(
        found, key=lambda e: last if e.cell is None else e.cell
    )


def _exercise(cells, module, check, called) -> Exercise:
    """The exercise at the cell that calls its check by one of some names."""
    either = "|".join(map(re.escape, sorted(called)))
    call = re.compile(rf"(?<!\w)(?<!def )(?:{either})\s*\(")
    calling = [
        cell
        for cell in cells
        if call.search(COMMENT.sub("", cell.source))
    ]
    if not calling:
        return Exercise(module, check)
    # Editors may drop tags, and learners call checks in cells of their own.
    cell = min(calling, key=lambda c: ("check" not in c.tags, c.index))
    return Exercise(module, check, *cell.heading, cell.index)


def _imports(source: str) -> Iterator[tuple[str, str, str]]:
    """The checks that a cell imports: (module, name there, name here).

    Read as text, not as a syntax tree: a cell that does not parse still says what the sheet has.
    """
    source = COMMENT.sub("", source)
    for module, names in FROM_MODULE.findall(source):
        for name, alias in ONE_NAME.findall(names):
            if name == "*":
                yield from ((module, n, n) for n in checks_of(module))
            elif _is_check(module, name):
                yield module, name, alias or name
    rest = FROM_MODULE.sub("", source)
    whole = WHOLE_MODULE.findall(rest)
    for names in FROM_CHECKS.findall(rest):
        whole += [name for name, _ in ONE_NAME.findall(names)]
    for module in whole:
        yield from ((module, n, n) for n in checks_of(module))


def checks_of(module: str) -> list[str]:
    """The names of a module's checks, in its order."""
    names = getattr(checks_module(module), "__dict__", {})
    return [n for n, v in names.items() if isinstance(v, Check)]


def _is_check(module: str, name: str) -> bool:
    """Whether a name is a check, or was one in another version of the package."""
    missing = not hasattr(checks_module(module), name)
    return name in checks_of(module) or (
        missing and name.startswith("check_")
    )


def checks_module(name: str):
    """A module of checks; None if this version of the package has none of that name."""
    try:
        return importlib.import_module(f"{CHECKS}.{name}")
    except ImportError:
        return None


def one_line(text: str) -> str:
    """A text without line breaks and without characters that steer a terminal."""
    return "".join(c for c in " ".join(text.split()) if c.isprintable())
