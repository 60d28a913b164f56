"""One case of the benchmark: what is measured, of whom, on which sizes; and how to repeat it."""

from __future__ import annotations

import dataclasses
import os
import statistics
import time
from collections.abc import Callable


@dataclasses.dataclass(frozen=True)
class Effort:
    """How often a call is repeated: until the time is up, within two bounds.

    Attributes:
        seconds: time for all repetitions together.
        at_least: repetitions, even if they take longer.
        at_most: repetitions, even if there is time left.
        patience: seconds; when the repetitions have taken longer there is no other.
    """

    seconds: float = 8.0
    at_least: int = 5
    at_most: int = 100
    patience: float = 60.0


QUICK = Effort(seconds=0.5, at_least=2, at_most=20, patience=5.0)


@dataclasses.dataclass(frozen=True)
class Case:
    """What one worker process measures.

    Attributes:
        measurement: what is measured, such as "scan-forward".
        peer: whose code runs, such as "mambapy"; "ours-..." for this package.
        shape: sizes.
        axes: what the sizes are, such as "B L D N".
        run: takes shape and `Effort`, returns the fields of the record.
        note: what a reader of the results must know.
        baseline: whether this is the case that the others are compared with.
    """

    measurement: str
    peer: str
    shape: tuple[int, ...]
    axes: str
    run: Callable[[tuple[int, ...], Effort], dict]
    note: str = ""
    baseline: bool = False

    @property
    def name(self) -> str:
        """measurement:peer:sizes, as `--only` and `--list` know it."""
        return f"{self.measurement}:{self.peer}:{'x'.join(map(str, self.shape))}"

    def record(self) -> dict:
        """What is known before anything ran."""
        fields = "name", "measurement", "peer", "axes", "note", "baseline"
        return {f: getattr(self, f) for f in fields} | {"shape": list(self.shape)}


def repeat(call: Callable[[], object], effort: Effort, compiles: bool = True) -> dict:
    """Times a call over and over, on its own after a first call.

    Args:
        call: returns when all its work is done.
        effort: how often.
        compiles: whether the first call also compiles. If it does not, and is slower than
            `effort.patience`, then it is the measurement.

    Returns:
        first_ms, min_ms, median_ms and repetitions, for a record.
    """

    def timed():
        start = time.perf_counter()
        call()
        return time.perf_counter() - start

    first = timed()
    times = []
    if not compiles and first > effort.patience:
        times.append(first)
    while not enough(times, effort):
        times.append(timed())
    return {"first_ms": first * 1e3, **summary(times)}


def enough(times: list[float], effort: Effort) -> bool:
    """Whether a call has been repeated often enough, from the seconds of each repetition."""
    if len(times) >= effort.at_most or sum(times) > effort.patience:
        return True
    return len(times) >= effort.at_least and sum(times) >= effort.seconds


def summary(times: list[float]) -> dict:
    """Minimum and median in milliseconds of times in seconds, and how many there are."""
    return {
        "min_ms": min(times) * 1e3,
        "median_ms": statistics.median(times) * 1e3,
        "repetitions": len(times),
    }


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0))
