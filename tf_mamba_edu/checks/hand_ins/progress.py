"""Progress: which exercises of a reader's own sheets are solved.

What came out is kept beside the sheets, so that only those that have changed run again.
"""

from __future__ import annotations

import hashlib
import json
import os
import textwrap
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import tf_mamba_edu
from tf_mamba_edu.checks import core
from tf_mamba_edu.checks.hand_ins.marks import (
    marks,
    one_line,
    whole_reason,
)
from tf_mamba_edu.checks.hand_ins.notebooks import HandIn
from tf_mamba_edu.checks.hand_ins.process import Outcome
from tf_mamba_edu.checks.hand_ins.sheets import checks_module

CACHE = ".progress.json"
SHEETS = "[0-9][0-9]_*.ipynb"
WIDTH, INDENT = 88, " " * 4


def find_sheets(folder: str | None) -> tuple[Path, list[Path]]:
    """Finds the sheets directly in a folder, in the order of their chapters.

    Args:
        folder: the folder; None for `exercises/` in the current one, or the current one itself.

    Returns:
        The folder and its sheets.
    """
    chosen = Path(folder or "exercises")
    if folder is None and not chosen.is_dir():
        chosen = Path(".")
    return chosen, sorted(p for p in chosen.glob(SHEETS) if p.is_file())


def digest(hand_in: HandIn) -> str:
    """A sha256 of a notebook and of what marks it: with equal digests, marks are equal."""
    modules = {e.module for e in hand_in.exercises}
    graders = [checks_module(name) for name in sorted(modules)]
    result = hashlib.sha256(hand_in.sha256.encode())
    result.update(tf_mamba_edu.__version__.encode())
    for module in (core, *graders):
        if module:
            result.update(Path(module.__file__).read_bytes())
    return result.hexdigest()


def load(folder: Path) -> dict[str, list[bool]]:
    """What came out before, by digest; nothing from a damaged file."""
    with suppress(Exception):  # whatever the file holds
        known = json.loads((folder / CACHE).read_text("utf-8"))
        return {
            key: [_as_bool(passed) for passed in solved]
            for key, solved in known.items()
        }
    return {}


def _as_bool(value) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"true or false is needed, {value!r} came")
    return value


def save(folder: Path, results: Mapping[str, Sequence[bool]]) -> None:
    """Keeps what came out; a folder that takes no file is left alone."""
    unfinished = folder / f"{CACHE}.{os.getpid()}"
    with suppress(OSError):
        unfinished.write_text(json.dumps(results), "utf-8")
        os.replace(unfinished, folder / CACHE)
    with suppress(OSError):
        unfinished.unlink(missing_ok=True)


def solve(
    folder: Path,
    sheets: Sequence[HandIn],
    run: Callable[[list[HandIn]], list[Outcome]],
) -> tuple[list[list[bool]], list[str]]:
    """Finds out what is solved, running only sheets about which nothing is known.

    Args:
        folder: where what came out is kept.
        sheets: the sheets.
        run: runs some of them.

    Returns:
        For each sheet, which of its exercises are solved; and a line about each that was stopped.
    """
    known, digests = load(folder), [digest(sheet) for sheet in sheets]
    new = {
        key: sheet
        for key, sheet in zip(digests, sheets, strict=True)
        if len(known.get(key, ())) != len(sheet.exercises)
    }
    outcomes = run(list(new.values()))
    stopped = {}
    for (key, sheet), outcome in zip(
        new.items(), outcomes, strict=True
    ):
        known[key] = [mark.passed for mark in marks(sheet, outcome)]
        if outcome.stopped:
            reason = whole_reason(sheet, outcome)
            stopped[key] = f"{sheet.path}: {reason}"
    # One that was stopped gets another try: the machine may be less busy then.
    save(folder, {k: known[k] for k in digests if k not in stopped})
    return [known[key] for key in digests], list(stopped.values())


def overview(
    sheets: Sequence[HandIn], solved: Sequence[Sequence[bool]]
) -> list[str]:
    """The lines about some sheets: how far each is, what is open, and all together."""
    names = [sheet.path.stem.replace("_", " ") for sheet in sheets]
    width = max(map(len, names), default=0)
    lines = []
    for name, sheet, passed in zip(names, sheets, solved, strict=True):
        dots = "".join("○●"[p] for p in passed)
        lines.append(
            f"{name:<{width}}  {dots}  {sum(passed)} of {len(passed)}"
        )
        lines += _open(sheet, passed)
    count = sum(map(sum, solved)), sum(map(len, solved))
    return [*lines, "total: {} of {} exercises".format(*count)]


def _open(sheet: HandIn, solved: Sequence[bool]) -> list[str]:
    """The lines that name the exercises which are not solved."""
    labels = [
        one_line(exercise.label)
        for exercise, passed in zip(
            sheet.exercises, solved, strict=True
        )
        if not passed
    ]
    return textwrap.wrap(
        "open: " + ", ".join(labels) if labels else "",
        WIDTH,
        initial_indent=INDENT,
        subsequent_indent=INDENT,
    )
