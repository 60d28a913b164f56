"""Marks: which exercises of a hand-in are solved, and why the others are not."""

from __future__ import annotations

from dataclasses import dataclass

from tf_mamba_edu.checks.hand_ins.notebooks import HandIn
from tf_mamba_edu.checks.hand_ins.process import Outcome
from tf_mamba_edu.checks.hand_ins.sheets import Exercise, one_line


@dataclass(frozen=True)
class Mark:
    """Whether an exercise is solved.

    Attributes:
        exercise: the exercise.
        passed: whether its check has passed.
        message: what is wrong, in one line; empty if it has passed.
    """

    exercise: Exercise
    passed: bool
    message: str = ""


def marks(hand_in: HandIn, outcome: Outcome) -> list[Mark]:
    """A mark for each exercise of a notebook that has run."""
    verdicts = {  # the last one counts
        event["check"]: event
        for event in outcome.records
        if "check" in event
    }
    found = []
    for exercise in hand_in.exercises:
        verdict = verdicts.get(exercise.key)
        if verdict and verdict["problem"] is None:
            found.append(Mark(exercise, True))
            continue
        if verdict:
            message = "{name}: {problem} Hint: {hint}".format(**verdict)
        else:
            message = _not_reached(hand_in, outcome, exercise)
        found.append(Mark(exercise, False, one_line(message)))
    return found


def _not_reached(
    hand_in: HandIn, outcome: Outcome, exercise: Exercise
) -> str:
    """Why a check has not been called."""
    if exercise.cell is None:
        return f"its check cell is missing: {exercise.check}(...)"
    if outcome.stopped:
        return f"not reached: {whole_reason(hand_in, outcome)}"
    errors = {
        e["cell"]: e["error"] for e in outcome.records if "error" in e
    }
    own = errors.get(exercise.cell)
    headings = ("", ""), (exercise.number, exercise.title)
    above = [
        errors[cell.index]
        for cell in hand_in.cells
        if cell.index < exercise.cell
        and not errors.get(cell.index, "NotYet").startswith("NotYet")
        and cell.heading in headings
    ]
    # A name that is missing here was not defined there.
    if above and (own is None or own.startswith("NameError")):
        return f"not reached: a cell above failed with {above[-1]}"
    if own:
        return f"not reached: its check cell failed with {own}"
    return (
        f"not reached: its cell did not call the {exercise.check} of "
        "tf_mamba_edu.checks (perhaps the name was given another meaning)"
    )


def whole_reason(hand_in: HandIn, outcome: Outcome) -> str:
    """Why a notebook did not come to its end, and where."""
    headings = {cell.index: cell.heading for cell in hand_in.cells}
    begun = [e["cell"] for e in outcome.records if "cell" in e]
    if not begun:
        return str(outcome.stopped)
    number, title = headings[begun[-1]]
    where = f'under "{number}. {title}"' if number else "at its start"
    return one_line(f"{outcome.stopped}, in a cell {where}")
