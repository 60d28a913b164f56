"""Peak memory of one scan with its gradients, beyond what the process held before (Linux)."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import re
from pathlib import Path

from benchmarks.calls import prepare
from benchmarks.case import Case
from benchmarks.oracle import make_inputs
from benchmarks.scans import SHAPES, Scan, mambapy, ours, ours_materialized

SHAPE = SHAPES[1]
LENGTHS = 256, 512, 1_024, 2_048, 4_096
TINY = (1, 32, 128, 16)  # another D: nothing that is compiled for it serves SHAPE
SCANS = [
    Scan("ours-fused-eager", lambda: ours("fused"), "eager"),
    Scan("ours-fused-graph", lambda: ours("fused"), "graph", note="in a tf.function"),
    Scan(
        "ours-materialized-xla",
        ours_materialized,
        "xla",
        note="associative_scan of chapter 07: writes A-bar and B-bar x of all steps down",
    ),
    Scan("ours-materialized-eager", ours_materialized, "eager", note="the same, eager"),
    Scan("mambapy", mambapy, "torch", note="its pscan"),
]


def resident(field: str = "VmRSS") -> float:
    """Memory of this process in MiB: now (VmRSS), or the most since it was reset (VmHWM)."""
    status = Path("/proc/self/status").read_text()
    return int(re.search(rf"^{field}:\s+(\d+) kB", status, re.MULTILINE).group(1)) / 1024


def reset_peak() -> None:
    """Makes the present use of memory the peak (Linux)."""
    Path("/proc/self/clear_refs").write_text("5")


def release() -> None:
    """Gives memory that was freed back to the system (glibc)."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def peak_of(call) -> float:
    """The most memory in MiB that this process held while `call` ran."""
    reset_peak()
    results = call()
    peak = resident("VmHWM")
    del results
    release()
    return peak


def measure(scan: Scan, shape, effort) -> dict:
    """Peak of a first call, in which TensorFlow compiles, and of a second one.

    Both beyond what the process held before the first: what a library keeps from one call to the
    next, for its buffers or its machine code, is part of what the scan costs.
    """
    del effort  # one call is enough: memory does not scatter
    inputs, weights = make_inputs(TINY)
    prepare(scan, inputs, weights, gradient=True)()  # libraries take what they need once
    inputs, weights = make_inputs(shape)
    call = prepare(scan, inputs, weights, gradient=True)
    release()
    before = resident()
    first = peak_of(call)
    left = resident()
    return {
        "resident_before_mib": before,
        "first_call_peak_mib": first - before,
        "left_by_first_call_mib": left - before,
        "peak_mib": peak_of(call) - before,
    }


def cases() -> list[Case]:
    """All whose memory is compared; the fused and the materialized scan at several lengths."""
    shapes = {scan.peer: [SHAPE] for scan in SCANS}
    for peer in "ours-fused-eager", "ours-materialized-xla":
        shapes[peer] += [(1, length, 256, 16) for length in LENGTHS]
    return [
        Case(
            "memory",
            scan.peer,
            shape,
            "B L D N",
            functools.partial(measure, scan),
            scan.note,
            baseline=scan.peer == "ours-fused-eager",
        )
        for scan in SCANS
        for shape in shapes[scan.peer]
    ]
