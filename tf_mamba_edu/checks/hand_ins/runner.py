"""Runs notebooks, several at a time."""

from __future__ import annotations

import signal
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress

import psutil

from tf_mamba_edu.checks.hand_ins.notebooks import HandIn
from tf_mamba_edu.checks.hand_ins.process import Limits, Outcome, Run

POLL = 0.05  # seconds


def run_all(
    hand_ins: Sequence[HandIn],
    limits: Limits,
    report: Callable[[HandIn, Outcome], None],
) -> list[Outcome]:
    """Runs notebooks, several at a time.

    A signal that ends programs, as Ctrl-C sends one, ends them all and removes their folders.

    Args:
        hand_ins: the notebooks.
        limits: what each may take.
        report: called with each that has ended.

    Returns:
        An outcome for each, in their order.
    """
    outcomes = [Outcome() for _ in hand_ins]
    waiting = deque(enumerate(hand_ins))
    running: dict[int, Run] = {}
    with _noted_signals() as signals:
        try:
            while waiting or running:
                while waiting and len(running) < limits.jobs:
                    place, hand_in = waiting.popleft()
                    running[place] = Run(hand_in, limits)
                time.sleep(POLL)
                if signals:
                    raise SystemExit(128 + signals[0])
                _find_children(running.values())
                for place, run in list(running.items()):
                    if run.is_over():
                        del running[place]
                        outcomes[place] = run.close()
                        report(run.hand_in, outcomes[place])
        finally:
            for run in running.values():
                run.close()
    return outcomes


@contextmanager
def _noted_signals() -> Iterator[list[int]]:
    """Collects signals that end programs, so that none comes between a start and its note."""
    noted: list[int] = []
    names = ("SIGINT", "SIGTERM", "SIGHUP")
    numbers = [getattr(signal, n) for n in names if hasattr(signal, n)]
    # What is ignored, as under nohup, stays ignored.
    before = {
        number: signal.signal(number, lambda n, _: noted.append(n))
        for number in numbers
        if signal.getsignal(number) is not signal.SIG_IGN
    }
    try:
        yield noted
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _find_children(runs: Iterable[Run]) -> None:
    """Adds the processes that notebooks have started to their families."""
    owners = {run.process.pid: run for run in runs}
    # Parents come before their children; one look at all is cheaper than one for each run.
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            run = owners.get(process.pid) or owners.get(process.ppid())
            if run:
                owners[process.pid] = run
                run.family.add(process)
