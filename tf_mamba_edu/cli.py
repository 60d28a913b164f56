"""The command line: `python -m tf_mamba_edu`.

A command is a function from options to an exit code; `_parser` gives it its name and arguments.
What only one command needs, that command imports.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from tf_mamba_edu import cli_experiments, cli_generate

LIBRARIES = ("IPython", "nbformat", "psutil", "rich")
CHECK_HELP = """\
Runs notebooks with answers and says which exercises are solved. Each notebook
runs in a process of its own, in a copy of its folder, under a limit of time
and memory.

This is NO sandbox: notebooks run with your rights and can read, change and
delete what you can. Run strangers' hand-ins in a container or a throwaway
account."""
CHECK_END = """\
exit code: 0 if everything has passed, 1 if something is not yet right, 2 if a
path is no notebook with checks (the others run all the same)."""
PROGRESS_HELP = """\
Shows which exercises of which chapters are solved in your own copy of the
sheets. Only sheets that have changed run again: what came out is kept in
.progress.json beside them. Like check, this runs the notebooks with your
rights."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit code.

    Args:
        arguments: the words of the command line; None for those of this process.
    """
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.command is None:
        parser.print_help()
        return 0
    try:
        return options.command(options)
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    from tf_mamba_edu import __version__

    parser = argparse.ArgumentParser(
        prog="python -m tf_mamba_edu",
        description="Tools for readers and teachers of the book.",
    )
    parser.add_argument(
        "--version",
        action="version",
        version=f"tf_mamba_edu {__version__}",
    )
    parser.set_defaults(command=None)
    commands = parser.add_subparsers(
        metavar="COMMAND", title="commands"
    )

    check = _add_command(
        commands,
        "check",
        run_check,
        "run notebooks with answers and mark their exercises",
        CHECK_HELP,
        CHECK_END,
    )
    check.add_argument(
        "paths",
        nargs="+",
        metavar="PATH",
        help="a notebook, or a folder of notebooks",
    )
    check.add_argument(
        "--csv",
        metavar="FILE",
        help="also write one row an exercise to this file",
    )
    _add_limits(check)
    progress = _add_command(
        commands,
        "progress",
        run_progress,
        "show which exercises you have solved",
        PROGRESS_HELP,
    )
    progress.add_argument(
        "folder",
        nargs="?",
        metavar="FOLDER",
        help="the folder of the sheets (default: exercises/, or the current "
        "folder if the sheets are in it)",
    )
    _add_limits(progress)
    experiments = _add_command(
        commands,
        "experiments",
        cli_experiments.run,
        "list, make and measure again what chapters load",
        cli_experiments.HELP,
    )
    cli_experiments.add_arguments(experiments)
    generate = _add_command(
        commands,
        "generate",
        cli_generate.run,
        "continue a text with a language model",
        cli_generate.HELP,
    )
    cli_generate.add_arguments(generate)
    return parser


def _add_command(commands, name, run, short, long, end=None):
    """The parser of a new command; `run` makes an exit code of its options."""
    parser = commands.add_parser(
        name,
        help=short,
        description=long,
        epilog=end,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(command=run)
    return parser


def _add_limits(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--timeout",
        type=_positive(float),
        default=300.0,
        metavar="SECONDS",
        help="most wall time for a notebook (default: 300)",
    )
    parser.add_argument(
        "--memory",
        type=_positive(float),
        default=4.0,
        metavar="GB",
        help="most memory for a notebook (default: 4)",
    )
    parser.add_argument(
        "--jobs",
        type=_positive(int),
        default=_cores(),
        metavar="N",
        help="notebooks that run at the same time (default: one a core)",
    )


def _positive(kind):
    """Reads a number above 0 from the command line."""

    def number(text: str):
        try:
            value = kind(text)
        except ValueError:
            value = 0
        if not value > 0:
            what = "a whole number" if kind is int else "a number"
            raise argparse.ArgumentTypeError(
                f"{text!r} came, {what} above 0 is needed"
            )
        return value

    return number


def _cores() -> int:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def run_check(options: argparse.Namespace) -> int:
    """Marks hand-ins: prints a table of their exercises and writes a CSV file if asked to."""
    if _lacks_libraries():
        return 2
    from tf_mamba_edu.checks.hand_ins import notebooks, report
    from tf_mamba_edu.checks.hand_ins.marks import marks

    target = options.csv and Path(os.path.realpath(options.csv))
    if target and not _may_be_written(target):
        return _refuse(
            f"--csv {options.csv}: a file in a folder that exists is needed, and no notebook"
        )
    paths, problems = notebooks.find(options.paths, besides=target)
    found, unreadable = notebooks.read_all(paths)
    problems += unreadable
    console = report.make_console()
    outcomes = _run(found, options, console)
    marked = [
        (hand_in, marks(hand_in, outcome))
        for hand_in, outcome in zip(found, outcomes, strict=True)
    ]
    if marked:
        report.show(console, marked, outcomes)
    if target:
        try:
            report.write_csv(target, marked)
        except OSError as error:
            problems.append(
                f"--csv {options.csv}: it cannot be written: {error.strerror}"
            )
    if problems:
        return _refuse(*problems)
    passed = [mark.passed for _, found in marked for mark in found]
    return 0 if all(passed) else 1


def run_progress(options: argparse.Namespace) -> int:
    """Shows which exercises of a reader's sheets are solved."""
    if _lacks_libraries():
        return 2
    from tf_mamba_edu.checks.hand_ins import (
        notebooks,
        progress,
        report,
    )
    from tf_mamba_edu.checks.hand_ins.sheets import one_line

    folder, paths = progress.find_sheets(options.folder)
    if not paths:
        return _refuse(
            f"{folder}: a folder with sheets (NN_name.ipynb) is needed"
        )
    sheets, problems = notebooks.read_all(paths)
    console = report.make_console()
    solved, stopped = progress.solve(
        folder,
        sheets,
        lambda new: _run(new, options, console, lines=False),
    )
    for line in progress.overview(sheets, solved):
        print(line)
    for line in problems + stopped:
        print(one_line(line))
    return 0


def _run(hand_ins, options, console, lines=True):
    """The outcomes of notebooks, with a sign of life meanwhile."""
    from tf_mamba_edu.checks.hand_ins import report, runner

    limits = runner.Limits(
        options.timeout, options.memory, options.jobs
    )
    with report.live(console, len(hand_ins), lines) as ended:
        return runner.run_all(hand_ins, limits, ended)


def _lacks_libraries() -> bool:
    """Whether something cannot be imported that running notebooks takes; says so."""
    missing = [name for name in LIBRARIES if find_spec(name) is None]
    if missing:
        _refuse(
            f"running notebooks takes {', '.join(missing)}, not installed here: "
            "pip install 'tf-mamba-edu[check]'"
        )
    return bool(missing)


def _may_be_written(file: Path) -> bool:
    """Whether a file is, or can be made, in its folder, and is no hand-in by oversight."""
    return (
        file.parent.is_dir()
        and (file.is_file() or not file.exists())
        and file.suffix.lower() != ".ipynb"
    )


def _refuse(*problems: str) -> int:
    """Says what is wrong, a line each, and returns the exit code for it."""
    from tf_mamba_edu.checks.hand_ins.sheets import one_line

    for problem in problems:
        print(one_line(problem), file=sys.stderr)
    return 2
