"""Checks of exercises: compare with a slow, obvious answer, and say what went wrong.

A check holds a specification, random cases and the likely mistakes. A mistake is itself an
answer: when a learner's results equal those of a mistake in every case, the check has seen what
happened, and says so. Whatever the answer does, a check passes or raises `NotYet`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

SEED_VARIABLE = "TF_MAMBA_EDU_CHECK_SEED"
EMPTY = "this blank is still empty."
FIRST_HINT = "write your answer into the blank above, run its cell, then run this one again."
# Called with (check, problem or None, hint) at every verdict, before it is shown:
# whoever counts what is solved listens here and need not read what is printed.
observers: list[Callable[[Check, str | None, str], None]] = []


class NotYet(AssertionError):
    """Raised by a check when an answer is missing or wrong; shown without a traceback."""

    def _render_traceback_(
        self,
    ):  # IPython prints this in place of the traceback
        return [f"NotYet: {self}"]


@dataclass(frozen=True)
class Mistake:
    """A likely wrong answer.

    Attributes:
        answer: the wrong answer itself, a function or a value like the right one.
        message: a sentence that says what happened and points to the cure.
    """

    answer: Any
    message: str


@dataclass(frozen=True)
class Check:
    """A check of one exercise: call it with the answer.

    Attributes:
        name: what the learner wrote, for messages.
        spec: the right answer: a function of a case, or a value if there are no cases.
        outputs: names of what it returns, each a number or an array.
        hint: what helps whoever is stuck, without giving the answer away.
        cases: from a random generator to the arguments of one random case; None for a value.
        mistakes: likely wrong answers, the likeliest first.
        tolerance: largest error allowed, relative to the largest value.
        cost: from a right answer and the cases to what is wrong with its cost, or None.
    """

    name: str
    spec: Any
    outputs: Sequence[str]
    hint: str
    cases: Callable[[np.random.Generator], tuple] | None = None
    mistakes: Sequence[Mistake] = ()
    tolerance: float = 1e-3
    cost: Callable[[Callable, Sequence[tuple]], str | None] | None = (
        None
    )

    def __call__(self, answer) -> None:
        """Prints a line if the answer is right, raises `NotYet` with a hint if not."""
        try:
            problem = self._problem(answer)
        except NotYet as error:
            problem = str(error)
        hint = FIRST_HINT if problem == EMPTY else self.hint
        for observer in observers:
            observer(self, problem, hint)
        if problem:
            raise NotYet(f"{self.name}: {problem}\n  Hint: {hint}")
        tried = (
            f"on {len(self._arguments())} random cases"
            if self.cases
            else "well done"
        )
        print(f"✓ {self.name}: right, {tried}.")

    def _arguments(self):
        """The random cases of this run: new ones each time, unless the environment fixes them."""
        if self.cases is None:
            return [()]
        seed = os.environ.get(SEED_VARIABLE)
        rng = np.random.default_rng(int(seed) if seed else None)
        return [self.cases(rng) for _ in range(5)]

    def _problem(self, answer) -> str | None:
        """What is wrong with the answer, or None."""
        if answer is None or answer is Ellipsis:
            return EMPTY
        if callable(self.spec) and not callable(answer):
            return f"this should be a function, not {_kind(answer)}."
        arguments = self._arguments()
        got = [_raw_result(answer, args) for args in arguments]
        want = [
            _as_arrays(_raw_result(self.spec, args), self.outputs)
            for args in arguments
        ]
        problems = [
            self._difference(g, w)
            for g, w in zip(got, want, strict=True)
        ]
        if not any(problems):
            return self.cost(answer, arguments) if self.cost else None
        for mistake in self.mistakes:
            wrong = [
                _raw_result(mistake.answer, args) for args in arguments
            ]
            if all(
                self._equal(g, w)
                for g, w in zip(got, wrong, strict=True)
            ):
                return mistake.message
        return next(p for p in problems if p)

    def _equal(self, got, wrong) -> bool:
        try:
            wrong = _as_arrays(wrong, self.outputs)
            return self._difference(got, wrong) is None
        except NotYet:
            return False

    def _difference(self, got, want: list[np.ndarray]) -> str | None:
        """How a result differs from what was wanted, or None if it does not."""
        for name, value, right in zip(
            self.outputs,
            _as_arrays(got, self.outputs),
            want,
            strict=True,
        ):
            if value.shape != right.shape:
                return f"{name} has shape {value.shape}, it should be {right.shape}."
            if not np.all(np.isfinite(value)):
                return f"{name} holds nan or infinity."
            scale = np.max(np.abs(right), initial=1e-12)
            error = np.max(np.abs(value - right), initial=0.0)
            if not error <= self.tolerance * scale:  # also if nan
                # A single number must not be given away.
                if self.cases is None:
                    return f"{float(value):.4g} is too {'large' if value > right else 'small'}."
                return f"{name} is off by up to {error:.3g} where its values go up to {scale:.3g}."
        return None


class SeesInfinity(Check):
    """A check that knows a mistake also by where it ends in infinity or nan."""

    def _equal(self, got, wrong) -> bool:
        got, wrong = (
            np.nan_to_num(
                np.asarray(value, np.float64),
                nan=6e3,
                posinf=3e3,
                neginf=-3e3,
            )
            for value in (got, wrong)
        )
        return super()._equal(got, wrong)


def counting(
    function: Callable, amount: Callable
) -> tuple[Callable, list[int]]:
    """Returns the function, and a list to which each call adds the amount of its arguments."""
    counts = []

    def counted(*arguments, **named):
        counts.append(amount(*arguments, **named))
        return function(*arguments, **named)

    return counted, counts


def turn_of(rng) -> int:
    """How many cases this generator has made: a check's cases go through all kinds in turn."""
    before = rng.bit_generator.seed_seq.n_children_spawned
    rng.spawn(1)
    return before


def _kind(value) -> str:
    return f"a value of type {type(value).__name__}"


def _raw_result(answer, arguments):
    """What the answer gives on copies of the arguments; a value is its own result."""
    if not callable(answer):
        return answer
    try:
        return answer(
            *(
                a.copy() if isinstance(a, np.ndarray) else a
                for a in arguments
            )
        )
    except NotImplementedError:
        raise NotYet(EMPTY) from None
    except KeyboardInterrupt:
        raise
    except (
        BaseException
    ) as error:  # also SystemExit: a check survives any answer
        raise NotYet(
            f"your code stopped with {type(error).__name__}: {_text(error)}"
        ) from None


def _text(error) -> str:
    try:
        return " ".join(str(error).split())[:300]
    except Exception:
        return "an error that cannot even be printed"


def _as_arrays(result, outputs: Sequence[str]) -> list[np.ndarray]:
    """Turns a result into one float64 array per output, or raises `NotYet` saying why not."""
    if len(outputs) == 1:
        parts = [result]
    elif isinstance(result, (tuple, list)) and len(result) == len(
        outputs
    ):
        parts = list(result)
    elif result is None or result is Ellipsis:
        raise NotYet(EMPTY)
    else:
        raise NotYet(
            f"return {len(outputs)} things, ({', '.join(outputs)}), as a tuple."
        )
    return [
        _as_array(name, part)
        for name, part in zip(outputs, parts, strict=True)
    ]


def _as_array(name: str, value) -> np.ndarray:
    if value is None or value is Ellipsis:
        raise NotYet(
            f"{name} is still empty: the function returns {value!r} for it."
        )
    try:
        array = np.asarray(value)
        if array.dtype.kind == "c":
            raise NotYet(
                f"{name} is complex: take its real part (or see why it is not real)."
            )
        if array.dtype.kind not in "fiu":
            raise TypeError
        return array.astype(np.float64)
    except (NotYet, KeyboardInterrupt):
        raise
    except BaseException:
        raise NotYet(
            f"{name} should be made of real numbers, not {_kind(value)}."
        ) from None
