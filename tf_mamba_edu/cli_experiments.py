"""The command `experiments`: the long computations that chapters load."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from pathlib import Path

from tf_mamba_edu.experiments import EXPERIMENTS

HELP = """\
The long computations of the book, which chapters load.

run trains the models of an experiment and writes what it measures to
DIR/NAME.json: minutes to hours. It can be interrupted, and killed: the same
command goes on where it stopped.

evaluate measures the weights that come with the package again. Times, and the
metrics of the few experiments whose weights are not kept, are the stored ones."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds list, run and evaluate to the command's parser."""
    actions = parser.add_subparsers(
        dest="action",
        required=True,
        metavar="ACTION",
        title="actions",
    )
    actions.add_parser(
        "list", help="which experiments there are"
    ).set_defaults(command=show)
    run = actions.add_parser("run", help="make what is missing")
    run.add_argument(
        "--folder",
        type=Path,
        default=Path("results"),
        metavar="DIR",
        help="where the results go (default: results/)",
    )
    run.add_argument(
        "--strategy",
        metavar="S",
        help="mirrored (all devices of this machine) or multiworker (several machines, each "
        "with TF_CONFIG set, that share DIR)",
    )
    evaluate = actions.add_parser(
        "evaluate", help="measure stored weights again"
    )
    evaluate.add_argument(
        "--folder",
        type=Path,
        metavar="DIR",
        help="where the results are (default: in the package)",
    )
    evaluate.add_argument(
        "--json",
        action="store_true",
        help="print one object, and nothing else",
    )
    for action, command in ((run, make), (evaluate, measure)):
        action.add_argument(
            "name", metavar="NAME", help="one that list shows"
        )
        action.set_defaults(command=command)


def run(options: argparse.Namespace) -> int:
    """Runs the action that was asked for."""
    return options.command(options)


def show(options: argparse.Namespace) -> int:
    """Prints the names and what they are."""
    width = max(map(len, EXPERIMENTS)) + 2
    for name, entry in EXPERIMENTS.items():
        print(f"{name:{width}}{entry.text}")
    return 0


def make(options: argparse.Namespace) -> int:
    """Makes the runs of an experiment that its folder does not hold yet."""
    with told() as problem:
        experiment = find(options.name)
        check_folder(options.folder)
        results = experiment.run(options.folder, options.strategy)
        print(f"{len(results.runs)} runs are in {results.path}")
    return 2 if problem else 0


def measure(options: argparse.Namespace) -> int:
    """Prints the metrics of the stored weights, measured now."""
    with told() as problem:
        experiment = find(options.name)
        # Progress goes elsewhere: what is printed is one object.
        with contextlib.redirect_stdout(sys.stderr):
            found = experiment.evaluate(options.folder)
        if not experiment.from_weights:
            print(
                "no weights are kept: this is what the runs measured",
                file=sys.stderr,
            )
        if options.json:
            print(json.dumps(found))
        else:
            for line in lines_of(found["metrics"]):
                print(line)
    return 2 if problem else 0


def find(name: str):
    """Returns an experiment.

    Raises:
        ValueError: if there is none of that name.
    """
    if name not in EXPERIMENTS:
        raise ValueError(
            f"NAME must be one of {', '.join(EXPERIMENTS)}. Received: {name!r}"
        )
    return EXPERIMENTS[name].load()


def check_folder(folder: Path) -> None:
    """Raises a ValueError if the folder cannot be made or written to."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        attempt = folder / ".attempt"
        attempt.write_bytes(b"")
        attempt.unlink()
    except OSError as error:
        raise ValueError(
            f"{folder}: the folder cannot be written: {error.strerror}"
        ) from error


def lines_of(metrics: dict, before: str = "") -> list[str]:
    """Returns nested metrics as lines `name: value`."""
    lines = []
    for name, value in metrics.items():
        if isinstance(value, dict):
            lines += lines_of(value, f"{before}{name} ")
        else:
            lines.append(f"{before}{name}: {value}")
    return lines


@contextlib.contextmanager
def told():
    """Says in one line on stderr what an experiment could not do; yields a list of it."""
    problem = []
    try:
        yield problem
    except (ValueError, ImportError, OSError) as error:
        from tf_mamba_edu.checks.hand_ins.sheets import one_line

        problem.append(str(error))
        print(one_line(str(error)), file=sys.stderr)
