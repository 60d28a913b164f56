"""One selective scan, forward, and with the gradient in all its inputs."""

from __future__ import annotations

import functools

from benchmarks.calls import arranged, prepare
from benchmarks.case import Case, repeat
from benchmarks.oracle import forward, gradients, largest_error, make_inputs
from benchmarks.scans import SCANS, SHAPES, Scan


def measure(scan: Scan, gradient: bool, shape, effort) -> dict:
    """Times one scan in one direction, and compares what it returns with the oracle."""
    inputs, weights = make_inputs(shape)
    call = prepare(scan, inputs, weights, gradient)
    record = repeat(call, effort, compiles=scan.mode != "torch")
    if record["first_ms"] < effort.patience * 1e3:  # the check is another call
        found = arranged([r.numpy() for r in call()], scan.layout)
        expected = gradients(weights, **inputs) if gradient else [forward(**inputs)[0]]
        record["max_error"] = largest_error(found, expected)
    return record


def cases() -> list[Case]:
    """All scans, by direction and shape."""
    return [
        Case(
            f"scan-{direction}",
            scan.peer,
            shape,
            "B L D N",
            functools.partial(measure, scan, direction == "gradient"),
            scan.note,
            baseline=scan.peer == "ours-fused-eager",
        )
        for direction in ("forward", "gradient")
        for shape in SHAPES
        for scan in SCANS
        if shape in scan.shapes and direction in scan.directions
    ]
