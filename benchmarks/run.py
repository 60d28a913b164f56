"""Measures the package against its peers, one case after another, and writes the results.

    make bench                                   # everything: about an hour
    make bench ARGS="--only training"            # cases whose name contains a word
    make bench ARGS="--list"                     # their names; nothing runs
    make bench ARGS=--quick                      # few repetitions: whether everything works
    make bench ARGS=--resume                     # go on with a run that was interrupted

`make bench` puts the peers of benchmarks/requirements.txt into an environment of their own,
.venv-bench, and runs `python -m benchmarks.run` in it. Close other programs first: the load of
the machine is recorded, not corrected for.

Each case runs in a process of its own (`benchmarks.worker`), which is given up after --limit
seconds. A peer that fails or takes too long is a result too. After every case all records so far
are saved beside the results, as OUTPUT.part, which takes the place of OUTPUT when the last case
is done. OUTPUT is benchmarks/results.json for a whole run, and benchmarks/trial.json with --only
or --quick, so that a trial does not replace it.

A record has min_ms and median_ms of its repetitions. ratio_min and ratio_median divide them by
those of the baseline, this package, in the same measurement and run: 3 means three times as long.
Memory is in MiB. "max_error" is the largest difference from a float64 loop in NumPy, over the
largest number there.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

from benchmarks import report
from benchmarks.case import Case
from benchmarks.worker import all_cases

HERE = Path(__file__).resolve().parent
SHOWN = HERE.parent / "tf_mamba_edu" / "measured" / "benchmarks.json"  # a copy, for chapter 08
LIMIT = 900  # seconds for one case


def environment() -> dict[str, str]:
    """The environment of a worker: TensorFlow's defaults, on the CPU.

    The Makefile turns oneDNN and threads off for its tests, which want the same digits everywhere.
    """
    without = "TF_ENABLE_ONEDNN_OPTS", "OPENBLAS_NUM_THREADS"
    kept = {name: value for name, value in os.environ.items() if name not in without}
    return kept | {
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "CUDA_VISIBLE_DEVICES": "",
        "HF_HUB_OFFLINE": "1",  # transformers looks for kernels there
    }


def answer(module: str, *arguments: str, limit: float | None = None) -> dict:
    """Runs a module of this folder in a process of its own and reads the JSON that it prints.

    Raises:
        RuntimeError: with one line that says why, if there is no such answer within the limit.
    """
    command = [sys.executable, "-m", f"benchmarks.{module}", *arguments]
    try:
        done = subprocess.run(
            command,
            cwd=HERE.parent,
            env=environment(),
            capture_output=True,
            text=True,
            errors="replace",
            timeout=limit,
        )
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"timed out after {limit:g} s") from None
    if done.returncode < 0:
        raise RuntimeError(f"killed by signal {-done.returncode}")
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"ended with status {done.returncode}"]
        raise RuntimeError(lines[-1][:300])
    try:
        return json.loads(done.stdout.strip().splitlines()[-1])
    except (IndexError, ValueError):
        raise RuntimeError("printed no record") from None


def measure(case: Case, limit: float = LIMIT, quick: bool = False) -> dict:
    """The record of one case; one that failed has an "error" instead of times."""
    start = time.perf_counter()
    try:
        record = answer("worker", case.name, *["--quick"] * quick, limit=limit)
    except RuntimeError as error:
        record = case.record() | {"error": str(error)}
    return record | {"seconds_in_all": round(time.perf_counter() - start, 1)}


def write(path: Path, results: dict) -> None:
    """Writes results as JSON: whole, or not at all."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(json.dumps(results, indent=1) + "\n")
    os.replace(temporary, path)


def measure_all(cases: list[Case], part: Path, results: dict, arguments) -> None:
    """Measures what has no record yet, and saves after each case."""
    done = {record["name"] for record in results["records"]}
    for number, case in enumerate(cases, 1):
        if case.name in done:
            continue
        print(f"[{number:3}/{len(cases)}] {case.name} ", end="", flush=True)
        record = measure(case, arguments.limit, arguments.quick)
        results["records"].append(record)
        write(part, results)
        print(report.in_short(record), flush=True)


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The options of the command line."""
    parser = argparse.ArgumentParser(
        "python -m benchmarks.run",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--only", action="append", metavar="NAME", help="cases whose name contains it; repeatable")
    add("--list", action="store_true", help="print the names of the cases")
    add("--quick", action="store_true", help="few repetitions")
    add("--resume", action="store_true", help="keep the records of an interrupted run")
    add("--limit", type=float, default=LIMIT, help="seconds for one case (%(default)s)")
    add("--output", type=Path, help="results file")
    return parser.parse_args(arguments)


def main() -> int:
    """Runs what the command line asks for; 1 if one of the package's own cases failed."""
    arguments = parse()
    cases = [c for c in all_cases() if any(n in c.name for n in arguments.only or [""])]
    if arguments.list or not cases:
        print("\n".join(case.name for case in cases) or "no case has such a name")
        return 0 if cases else 2
    trial = arguments.only or arguments.quick
    output = arguments.output or HERE / ("trial.json" if trial else "results.json")
    part = output.with_name(output.name + ".part")
    if arguments.resume and part.exists():
        results = json.loads(part.read_text())
        results["about"]["resumed"] = True
    else:
        results = {"about": answer("about") | {"quick": arguments.quick}, "records": []}
    report.print_about(results["about"])
    try:
        measure_all(cases, part, results, arguments)
    except KeyboardInterrupt:
        print(f"\nInterrupted. What has been measured is in {part}; --resume goes on.")
        return 130
    results["records"] = report.with_ratios(results["records"])
    report.print_tables(results["records"])
    write(part, results)
    os.replace(part, output)
    if output == HERE / "results.json":
        write(SHOWN, results)
    print(f"\nThe results are in {output}")
    failed = [r for r in results["records"] if "error" in r and r["peer"].startswith("ours")]
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
