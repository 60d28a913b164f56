"""Reports of marks: a table to read, a CSV file to keep, and a sign of life meanwhile."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table
from rich.text import Text

from tf_mamba_edu.checks.hand_ins.marks import (
    Mark,
    marks,
    one_line,
    whole_reason,
)
from tf_mamba_edu.checks.hand_ins.notebooks import HandIn
from tf_mamba_edu.checks.hand_ins.process import Outcome

WIDTH = 120  # of a table that goes into a file
COLUMNS = (
    "hand-in",
    "sheet",
    "exercise number",
    "exercise title",
    "check",
    "passed",
    "message",
)


def make_console() -> Console:
    """A console on stdout."""
    console = Console(highlight=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console = Console(highlight=False, width=WIDTH)
    return console


@contextmanager
def live(
    console: Console, total: int, lines: bool = True
) -> Iterator[Callable[[HandIn, Outcome], None]]:
    """A bar on a terminal; elsewhere a line, if wanted, for each notebook that has ended."""
    if not console.is_terminal:
        yield lambda *ended: lines and print(_line(*ended), flush=True)
        return
    columns = (
        TextColumn("notebooks"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=total)
        yield lambda *ended: bar.advance(task)


def _line(hand_in: HandIn, outcome: Outcome) -> str:
    """What came of a notebook."""
    found = marks(hand_in, outcome)
    passed = sum(mark.passed for mark in found)
    name = one_line(str(hand_in.path))
    return f"{name}: {passed} of {len(found)} passed, {outcome.seconds:.1f} s"


def show(
    console: Console,
    marked: Sequence[tuple[HandIn, Sequence[Mark]]],
    outcomes: Sequence[Outcome],
) -> None:
    """Prints the table, a line for each notebook that was stopped, and the sums."""
    console.print()
    console.print(_table(marked))
    console.print()
    for (hand_in, _), outcome in zip(marked, outcomes, strict=True):
        if outcome.stopped:
            reason = whole_reason(hand_in, outcome)
            print(f"{one_line(str(hand_in.path))}: {reason}")
    passed = [[mark.passed for mark in found] for _, found in marked]
    exercises = sum(len(one) for one in passed)
    print(
        f"{sum(map(all, passed))} of {len(passed)} notebooks complete, "
        f"{sum(map(sum, passed))} of {exercises} exercises passed"
    )


def _table(
    marked: Sequence[tuple[HandIn, Sequence[Mark]]],
) -> Table:
    """A table of all exercises, one row each."""
    result = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
    result.add_column("hand-in", overflow="fold")
    result.add_column("sheet", no_wrap=True)
    result.add_column("exercise")
    result.add_column("", no_wrap=True)
    result.add_column("hint")
    for hand_in, found in marked:
        name = one_line(str(hand_in.path))
        for mark in found:
            state = (
                Text("✓ passed", "green")
                if mark.passed
                else Text("✗ not yet", "yellow")
            )
            cells = name, mark.exercise.sheet, mark.exercise.label
            # Text, not str: brackets in an answer's error are no markup.
            result.add_row(
                *(Text(one_line(cell)) for cell in cells),
                state,
                Text(mark.message),
            )
            name = ""
    return result


def write_csv(
    path: Path, marked: Sequence[tuple[HandIn, Sequence[Mark]]]
) -> None:
    """Writes one row for each exercise, whole or not at all."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(
            unfinished, "w", encoding="utf-8", newline=""
        ) as file:
            writer = csv.writer(file)
            writer.writerow(COLUMNS)
            for hand_in, found in marked:
                writer.writerows(_row(hand_in, mark) for mark in found)
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def _row(hand_in: HandIn, mark: Mark) -> list[str]:
    exercise = mark.exercise
    cells = (
        str(hand_in.path),
        exercise.sheet,
        exercise.number,
        exercise.title,
        exercise.check,
        "yes" if mark.passed else "no",
        mark.message,
    )
    return [_plain(one_line(cell)) for cell in cells]


def _plain(cell: str) -> str:
    """A cell that no spreadsheet takes for a formula."""
    return f"'{cell}" if cell.startswith(("=", "+", "-", "@")) else cell
