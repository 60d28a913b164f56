"""Runs the cells of one notebook in this process and writes down what its checks say.

`process` starts this file as a script, with a scratch folder that holds a `task.json`. Each line
of `records.jsonl` there is one event:

    {"cell": 3}                                                  a cell begins
    {"check": "discretization.check_zoh", "problem": null, ...}  a check has spoken
    {"error": "NameError: ...", "cell": 3}                       a cell has failed
    {"failed": "..."}                                            nothing could be run

A file `end` says that no more will come.
"""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import sys
import threading
import time
import types
from collections.abc import Callable
from pathlib import Path

from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config

PACKAGE = Path(__file__).resolve().parents[2]
RECORDS, TASK, END = "records.jsonl", "task.json", "end"
TEXT_LIMIT = 300  # characters of an error


class LazyPackage(types.ModuleType):
    """`tf_mamba_edu`, whose `__init__` runs when something in it is first asked for.

    It imports TensorFlow, and a sheet that only needs the checks would wait for that in vain.
    """

    def __getattr__(self, name):
        self.__class__ = types.ModuleType
        self.__spec__.loader.exec_module(self)
        return getattr(self, name)


class Shell(InteractiveShell):
    """IPython with nobody in front of it: shows no tracebacks and opens no windows."""

    system = InteractiveShell.system_raw

    def showtraceback(self, *args, **kwargs):
        pass

    def showsyntaxerror(self, *args, **kwargs):
        pass

    def enable_matplotlib(self, gui=None):
        return gui, "agg"

    def enable_gui(self, gui=None):
        pass

    def ask_exit(self):
        """Ends the cell that calls `exit` or `quit`."""
        raise SystemExit


def install_package() -> None:
    """Makes `tf_mamba_edu` importable: the very package that this file belongs to."""
    spec = importlib.util.spec_from_file_location(
        "tf_mamba_edu",
        PACKAGE / "__init__.py",
        submodule_search_locations=[str(PACKAGE)],
    )
    module = importlib.util.module_from_spec(spec)
    module.__class__ = LazyPackage
    sys.modules[spec.name] = module


def listen(modules: list[str], write: Callable[..., None]) -> None:
    """Writes down each verdict of the modules' checks, but of none that a notebook made."""
    from tf_mamba_edu.checks import core
    from tf_mamba_edu.checks.hand_ins import sheets

    genuine = [
        (
            getattr(sheets.checks_module(module), name),
            f"{module}.{name}",
        )
        for module in modules
        for name in sheets.checks_of(module)
    ]
    last = {}

    def observer(check, problem, hint):
        for known, key in genuine:
            # A loop that asks again and again must not fill the disk.
            if known is check and last.get(key) != (problem, hint):
                last[key] = problem, hint
                write(
                    check=key,
                    name=check.name,
                    problem=problem,
                    hint=hint,
                )

    core.observers.append(observer)


def describe(error: BaseException) -> str:
    """An error's name and text in one line."""
    name = type(error).__name__
    try:
        text = str(error)
        if isinstance(error, SyntaxError):
            text = f"{error.msg} (line {error.lineno} of its cell)"
    except BaseException:
        text = "an error that cannot even be printed"
    return " ".join(f"{name}: {text}".split()).rstrip(":")[:TEXT_LIMIT]


def run_cells(
    cells: list[tuple[int, str]], write: Callable[..., None]
) -> None:
    """Runs cells in order, as a notebook program does, but goes on after one that fails."""
    config = Config()
    config.HistoryManager.enabled = False
    config.DisplayFormatter.active_types = ["text/plain"]
    shell = Shell.instance(config=config)
    for index, source in cells:
        write(cell=index)
        result = shell.run_cell(source, store_history=True)
        error = result.error_before_exec or result.error_in_exec
        if error is not None:
            write(error=describe(error), cell=index)


def end_with_parent(parent: int) -> None:
    """Ends this process and what it has started when its parent was killed and cannot do so."""
    while os.getppid() == parent:
        time.sleep(1)
    if hasattr(os, "killpg"):
        os.killpg(0, signal.SIGKILL)
    os._exit(1)


def main(scratch: Path) -> None:
    """Does what a scratch folder's `task.json` says."""
    threading.Thread(
        target=end_with_parent, args=(os.getppid(),), daemon=True
    ).start()
    task = json.loads((scratch / TASK).read_text("utf-8"))
    records = open(scratch / RECORDS, "a", encoding="utf-8")

    def write(**event):
        records.write(json.dumps(event) + "\n")
        records.flush()

    install_package()
    from tf_mamba_edu.checks.hand_ins.copies import (
        TooLarge,
        copy_folder,
    )

    listen(task["modules"], write)
    notebook, folder = Path(task["notebook"]), scratch / "folder"
    try:
        copy_folder(notebook, folder)
    except TooLarge as error:
        write(failed=str(error))
    else:
        os.chdir(folder)
        here = str(Path(__file__).parent)
        sys.path[:] = ["", *(p for p in sys.path if p != here)]
        sys.argv[1:] = []
        run_cells(task["cells"], write)
    (scratch / END).touch()
    # The runner now ends this process and, as long as it can be asked for them, its children.
    time.sleep(60)
    os._exit(0)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
