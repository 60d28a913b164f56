"""Whether time grows linearly with length, and memory not at all when text comes in windows."""

from __future__ import annotations

import functools
import time

from benchmarks.calls import prepare
from benchmarks.case import Case, repeat
from benchmarks.memory import resident
from benchmarks.oracle import forward, largest_error, make_inputs
from benchmarks.scans import SCANS

LENGTHS = 1_024, 4_096, 16_384, 65_536
WINDOW = 4_096
STREAM = (1, 2**20, 64, 16)
FUSED = next(scan for scan in SCANS if scan.peer == "ours-fused-eager")


def measure(gradient: bool, shape, effort) -> dict:
    """Times the fused scan, per token too."""
    inputs, weights = make_inputs(shape)
    record = repeat(prepare(FUSED, inputs, weights, gradient), effort)
    return record | {"microseconds_per_token": record["min_ms"] * 1e3 / (shape[0] * shape[1])}


def stream(shape, effort) -> dict:
    """Runs a long text through in windows, each starting from the last state of the one before.

    `resident_start_mib` is taken after the second window, `resident_end_mib` after the last. Each
    window is drawn when its turn comes, and only the scan is timed.
    """
    del effort
    import numpy as np

    from tf_mamba_edu import selective_scan

    B, L, D, N = shape
    windows = -(-L // WINDOW)
    state, times, memory, checked = None, [], [], 0.0
    for w in range(windows):
        inputs, _ = make_inputs((B, min(WINDOW, L - w * WINDOW), D, N), seed=w)
        start = time.perf_counter()
        y, after = selective_scan(**inputs, initial_state=state, return_last_state=True)
        y, after = y.numpy(), after.numpy()
        times.append(time.perf_counter() - start)
        memory.append(resident())
        if w in (0, 1, windows - 1):
            expected = forward(**inputs, h=state)
            checked = max(checked, largest_error([y, after], expected))
        state = after
    total = float(np.sum(times[1:])) * windows / max(windows - 1, 1)  # the first one compiles
    return {
        "first_ms": times[0] * 1e3,
        "min_ms": total * 1e3,
        "median_ms": total * 1e3,
        "repetitions": 1,
        "microseconds_per_token": total * 1e6 / (B * L),
        "windows": windows,
        "resident_start_mib": memory[min(1, windows - 1)],
        "resident_end_mib": memory[-1],
        "max_error": checked,
    }


def cases() -> list[Case]:
    """Both directions at each length, and the stream."""
    return [
        Case(
            f"length-{direction}",
            FUSED.peer,
            (1, length, 256, 16),
            "B L D N",
            functools.partial(measure, direction == "gradient"),
        )
        for direction in ("forward", "gradient")
        for length in LENGTHS
    ] + [
        Case(
            "length-windows",
            FUSED.peer,
            STREAM,
            "B L D N",
            stream,
            f"windows of {WINDOW} tokens that hand on their state; time of all of them",
        )
    ]
