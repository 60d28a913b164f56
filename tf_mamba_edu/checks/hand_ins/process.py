"""A notebook's process, with a limit of time and memory.

This is no sandbox: a notebook can do whatever the user who runs it can.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from tf_mamba_edu.checks.hand_ins import worker
from tf_mamba_edu.checks.hand_ins.notebooks import HandIn


@dataclass(frozen=True)
class Limits:
    """What a notebook may take.

    Attributes:
        seconds: of wall time.
        gigabytes: of resident memory, 1e9 bytes each, with all processes that it starts.
        jobs: how many notebooks run at the same time.
    """

    seconds: float = 300.0
    gigabytes: float = 4.0
    jobs: int = 1


@dataclass
class Outcome:
    """What happened when a notebook ran.

    Attributes:
        records: the events that the worker wrote down.
        stopped: why it did not come to its end; None if it did.
        seconds: of wall time.
    """

    records: list[dict] = field(default_factory=list)
    stopped: str | None = None
    seconds: float = 0.0


class Run:
    """A notebook that is running.

    Args:
        hand_in: the notebook.
        limits: what it may take.
    """

    def __init__(self, hand_in: HandIn, limits: Limits):
        self.hand_in, self.limits = hand_in, limits
        # Hidden, so that it is left out where the notebook lies in the temporary folder itself.
        self.temporary = tempfile.TemporaryDirectory(
            prefix=".tf_mamba_edu-", ignore_cleanup_errors=True
        )
        self.scratch = Path(self.temporary.name)
        self.started = time.monotonic()
        self.stopped = None
        self._write_task()
        self.process = subprocess.Popen(
            [sys.executable, worker.__file__, str(self.scratch)],
            cwd=self.scratch,
            env=_environment(self.scratch),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self.family = {psutil.Process(self.process.pid)}

    def _write_task(self):
        cells = [
            (cell.index, cell.source)
            for cell in self.hand_in.cells
            if not ("remove-cell" in cell.tags and "pip" in cell.source)
        ]
        modules = sorted({e.module for e in self.hand_in.exercises})
        task = {
            "notebook": str(self.hand_in.path.absolute()),
            "modules": modules,
            "cells": cells,
        }
        (self.scratch / worker.TASK).write_text(
            json.dumps(task), "utf-8"
        )

    def is_over(self) -> bool:
        """Whether it has come to its end, or broken off, or must be stopped."""
        limits = self.limits
        if (self.scratch / worker.END).exists():
            return True
        if self.process.poll() is not None:
            self.stopped = _crash(self.process.returncode)
        elif self._memory() > limits.gigabytes * 1e9:
            self.stopped = f"stopped: it used more than {limits.gigabytes:g} GB of memory"
        elif time.monotonic() - self.started > limits.seconds:
            self.stopped = (
                f"stopped after {limits.seconds:g} s, the time limit"
            )
        return self.stopped is not None

    def _memory(self) -> int:
        """The resident memory of all its processes, in bytes."""
        total = 0
        for process in list(self.family):
            try:
                total += process.memory_info().rss
            except psutil.NoSuchProcess:
                self.family.discard(process)
            except psutil.Error:
                pass
        return total

    def close(self) -> Outcome:
        """Ends all its processes, removes its temporary folder and says what it did."""
        seconds = time.monotonic() - self.started
        with suppress(psutil.Error):
            main = psutil.Process(self.process.pid)
            self.family.update(main.children(recursive=True))
        for process in self.family:
            with suppress(psutil.Error):
                process.kill()
        if hasattr(os, "killpg"):  # also what has lost its parent
            with suppress(OSError):
                os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        records = _events(self.scratch / worker.RECORDS)
        self.temporary.cleanup()
        failed = [r["failed"] for r in records if "failed" in r]
        stopped = failed[0] if failed else self.stopped
        return Outcome(records, stopped, seconds)


def _environment(scratch: Path) -> dict[str, str]:
    """The environment of a notebook's process."""
    temporary = str(scratch / "tmp")
    os.mkdir(temporary)
    # One core each, and no fight for a graphics card, unless the user says otherwise.
    gentle = {"OPENBLAS_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    needed = {
        "IPYTHONDIR": str(scratch / "ipython"),
        "MPLBACKEND": "Agg",
        "PYTHONIOENCODING": "utf-8",
        "TMPDIR": temporary,
        "TEMP": temporary,
        "TMP": temporary,
        # A hand-in must not change what the next one finds installed.
        "PIP_DRY_RUN": "1",
        "PIP_NO_INDEX": "1",
    }
    return gentle | os.environ | needed


def _crash(code: int) -> str:
    """Why a process ended before its notebook did."""
    if code >= 0:
        return f"its process ended itself (exit code {code})"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    if name == "SIGKILL":
        name += ", perhaps because the machine ran out of memory"
    return f"its process crashed ({name})"


def _events(file: Path) -> list[dict]:
    """What the worker wrote down, without a line that it could not end."""
    records = []
    with suppress(OSError):
        for line in file.read_text("utf-8", "replace").splitlines():
            with suppress(ValueError):
                records.append(json.loads(line))
    return records
