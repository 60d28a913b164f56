"""What a first call costs, in a fresh process: to trace and to compile the fused scan."""

from __future__ import annotations

import functools
import time

from benchmarks.calls import prepare
from benchmarks.case import Case
from benchmarks.oracle import make_inputs
from benchmarks.scans import SCANS, SHAPES

FUSED = next(scan for scan in SCANS if scan.peer == "ours-fused-eager")


def seconds(call) -> float:
    """How long a call takes."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def measure(gradient: bool, shape, effort) -> dict:
    """Times a first call, then a first one with another L, each with the call after it."""
    del effort  # there is only one first call in a process
    B, L, D, N = shape
    first = prepare(FUSED, *make_inputs(shape), gradient)
    times = [seconds(first), seconds(first)]
    other = prepare(FUSED, *make_inputs((B, L // 2, D, N)), gradient)
    times += [seconds(other), seconds(other)]
    names = "first", "second", "other_length_first", "other_length_second"
    record = {f"{name}_call_ms": t * 1e3 for name, t in zip(names, times, strict=True)}
    return record | {"min_ms": times[0] * 1e3, "median_ms": times[0] * 1e3, "repetitions": 1}


def cases() -> list[Case]:
    """Both directions, both shapes; each case is a process of its own."""
    return [
        Case(
            f"first-call-{direction}",
            FUSED.peer,
            shape,
            "B L D N",
            functools.partial(measure, direction == "gradient"),
            "the other length is L / 2",
        )
        for direction in ("forward", "gradient")
        for shape in SHAPES
    ]
