"""Hand-ins: finds the notebooks that were handed in and reads them without running them."""

from __future__ import annotations

import hashlib
import json
import os
import re
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from tf_mamba_edu.checks.hand_ins.sheets import (
    CHECKS,
    Cell,
    Exercise,
    exercises,
)

ENDING = ".ipynb"
HEADING = re.compile(r"^##[ \t]+(\d+)\.[ \t]+(.+?)[ \t]*$", re.M)


class Unreadable(Exception):
    """What was handed in is no notebook with checks; the text says why, in one line."""


@dataclass(frozen=True)
class HandIn:
    """A notebook that was handed in.

    Attributes:
        path: the file, as it was given.
        sha256: of the file's bytes.
        cells: its code cells.
    """

    path: Path
    sha256: str
    cells: tuple[Cell, ...]

    @cached_property
    def exercises(self) -> list[Exercise]:
        """Its exercises in their order; those without a check cell come last."""
        return exercises(self.cells)


def read(path: Path) -> HandIn:
    """Reads a notebook.

    Raises:
        Unreadable: if it is no notebook, or has no checks.
    """
    try:
        content = path.read_bytes()
        text = content.decode("utf-8-sig")
    except OSError as error:
        raise Unreadable(
            f"it cannot be read: {error.strerror}"
        ) from None
    except UnicodeDecodeError:
        raise Unreadable(
            "not a notebook: its text is not encoded in UTF-8"
        ) from None
    if not text.strip():
        raise Unreadable("not a notebook: the file is empty")
    digest = hashlib.sha256(content).hexdigest()
    hand_in = HandIn(path, digest, _code_cells(text))
    if not hand_in.exercises:
        raise Unreadable(
            f"a notebook without checks: it imports none from {CHECKS}"
        )
    return hand_in


def read_all(
    paths: Iterable[Path],
) -> tuple[list[HandIn], list[str]]:
    """Reads notebooks; returns them, and a line about each path that is none."""
    found, problems = [], []
    for path in paths:
        try:
            found.append(read(path))
        except Unreadable as error:
            problems.append(f"{path}: {error}")
    return found, problems


def _code_cells(text: str) -> tuple[Cell, ...]:
    """The code cells of a notebook's text, each with the heading above it."""
    heading, found = ("", ""), []
    for index, (kind, source, tags) in enumerate(_cells(text)):
        if kind == "markdown":
            for numbered in HEADING.finditer(source):
                heading = numbered[1], numbered[2]
        elif kind == "code":
            found.append(Cell(index, source, tags, heading))
    return tuple(found)


def _cells(text: str) -> list[tuple[str, str, frozenset[str]]]:
    """Kind, source and tags of all cells."""
    import nbformat

    try:
        if "nbformat" not in json.loads(text):
            raise ValueError("JSON of another kind")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # Editors write small faults: only what is read here must be right.
            notebook = nbformat.reads(
                text, 4, capture_validation_error={}
            )
        return [
            (
                str(cell.cell_type),
                "".join(cell.source),
                frozenset(cell.metadata.get("tags", ())),
            )
            for cell in notebook.cells
        ]
    except (
        Exception
    ):  # whatever the file holds, nbformat stumbles in its own ways
        raise Unreadable(
            "not a notebook: its text is not in the notebook format"
        ) from None


def find(
    paths: Iterable[str], besides: Path | None = None
) -> tuple[list[Path], list[str]]:
    """Finds the notebooks that files and folders name, each once.

    Folders are searched with all below them, except hidden ones.

    Args:
        paths: files and folders.
        besides: a file that may lie in a folder without being a hand-in.

    Returns:
        The notebooks, and a line about each path that is none.
    """
    found: list[Path] = []
    problems: list[str] = []
    for path in map(Path, paths):
        if os.path.isdir(path):
            notebooks, odd = _in_folder(path, besides)
            found += notebooks
            problems += odd
        elif not os.path.exists(path):
            problems.append(f"{path}: no such file or folder")
        elif os.path.isfile(path) and _is_notebook(path.name):
            found.append(path)
        else:
            problems.append(_no_notebook(path))
    once: dict[str, Path] = {}
    for path in found:
        once.setdefault(os.path.realpath(path), path)
    return list(once.values()), list(dict.fromkeys(problems))


def _in_folder(
    folder: Path, besides: Path | None
) -> tuple[list[Path], list[str]]:
    """The notebooks below a folder, and lines about what else lies directly in it."""
    unopened: list[OSError] = []
    found, odd = [], []
    for here, folders, files in os.walk(
        folder, onerror=unopened.append
    ):
        folders[:] = sorted(f for f in folders if is_visible(here, f))
        for name in sorted(files):
            path = Path(here, name)
            if is_visible(here, name) and path.is_file():
                if _is_notebook(name):
                    found.append(path)
                elif path.parent == folder and not (
                    besides and Path(os.path.realpath(path)) == besides
                ):
                    odd.append(_no_notebook(path))
    odd += [
        f"{error.filename}: it cannot be read: {error.strerror}"
        for error in unopened
    ]
    if not found:
        odd.append(f"{folder}: a folder without notebooks")
    return found, odd


def is_visible(folder: str | Path, name: str) -> bool:
    """Whether a file or folder is its owner's work: not hidden, no environment, no cache."""
    return not (
        name.startswith(".")
        or name == "__pycache__"
        or os.path.exists(os.path.join(folder, name, "pyvenv.cfg"))
    )


def _is_notebook(name: str) -> bool:
    return name.lower().endswith(ENDING)


def _no_notebook(path: Path) -> str:
    return f"{path}: not a notebook: a file named *{ENDING} is needed"
