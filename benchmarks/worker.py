"""Measures one case, in a process of its own, and prints its record as one line of JSON.

    python -m benchmarks.worker scan-forward:ours-fused-eager:8x256x256x16 [--quick]

The sizes need not be those that `benchmarks.run` measures.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import sys

from benchmarks.case import QUICK, Case, Effort


def all_cases() -> list[Case]:
    """Every case, in the order in which they are measured."""
    from benchmarks import (
        first_call,
        generation,
        lengths,
        memory,
        pretrained,
        scan_times,
        training,
    )

    modules = scan_times, memory, lengths, first_call, training, generation, pretrained
    return [case for module in modules for case in module.cases()]


def find(name: str) -> Case:
    """The case measurement:peer:sizes, with these sizes.

    Raises:
        ValueError: if there is no such measurement of such a peer.
    """
    measurement, _, rest = name.partition(":")
    peer, _, sizes = rest.partition(":")
    for case in all_cases():
        if (case.measurement, case.peer) == (measurement, peer):
            return dataclasses.replace(case, shape=tuple(int(s) for s in sizes.split("x")))
    raise ValueError(f"no case is called {name!r}")


def main() -> None:
    """Runs the case that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name")
    parser.add_argument("--quick", action="store_true", help="few repetitions")
    arguments = parser.parse_args()
    case = find(arguments.name)
    with contextlib.redirect_stdout(sys.stderr):  # what libraries print
        measured = case.run(case.shape, QUICK if arguments.quick else Effort())
    print(json.dumps(case.record() | measured))


if __name__ == "__main__":
    main()
