"""Run a notebook in a kernel of its own, and store what may be stored."""

import copy
import os
import subprocess
import tempfile
from pathlib import Path

from nbformat import NotebookNode

from nb_outputs import ANSI, faults, normalize
from nb_source import code_cells, tags_of

CELL_TIMEOUT = 600  # seconds
ENVIRONMENT = {
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "TF_ENABLE_ONEDNN_OPTS": "0",  # the same digits on more processors
    "CUDA_VISIBLE_DEVICES": "",
    "OPENBLAS_NUM_THREADS": "1",
    "TF_MAMBA_EDU_CHECK_SEED": "0",
}
# TensorFlow writes start-up lines to file descriptor 2 whatever its settings.
# The kernel must not take them for the cell's output; what Python writes to
# sys.stderr, warnings included, it still sees.
KERNEL_ARGUMENTS = ["--IPKernelApp.capture_fd_output=False"]


class CellFailed(Exception):
    """A cell raised an error or wrote what a notebook must not hold."""


def run(notebook: NotebookNode, folder: Path, root: Path) -> None:
    """Fill a notebook with its outputs; `CellFailed` says why it cannot."""
    cells = [cell for cell in code_cells(notebook) if "nbval-skip" not in tags_of(cell)]
    executed = copy.deepcopy(notebook)
    executed.cells = copy.deepcopy(cells)
    _execute(executed, folder)
    for count, (cell, done) in enumerate(zip(cells, executed.cells, strict=True), start=1):
        cell.outputs = done.outputs
        normalize(cell, count)
        for fault in faults(cell, root):
            raise CellFailed(_report(count, cell.source, fault))


def _execute(notebook: NotebookNode, folder: Path) -> None:
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

    started = []
    with tempfile.TemporaryDirectory() as sockets:
        client = NotebookClient(
            notebook,
            km=_kernel_manager(sockets),
            timeout=CELL_TIMEOUT,
            record_timing=False,
            extra_arguments=KERNEL_ARGUMENTS,
            on_cell_start=lambda cell, cell_index: started.append(cell),
        )
        try:
            client.execute(
                cwd=str(folder),
                env={**os.environ, **ENVIRONMENT},
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cleanup_kc=True,
            )
        except CellExecutionError:
            traceback = "\n".join(started[-1].outputs[-1].traceback)
            raise CellFailed(_report(len(started), started[-1].source, traceback)) from None
        except (CellTimeoutError, DeadKernelError) as error:
            raise CellFailed(_report(len(started), started[-1].source, str(error))) from None


def _kernel_manager(sockets: str):
    """A manager of kernels of this very interpreter.

    It uses files, not TCP ports: nbval_kernel.py says why.
    """
    from jupyter_client.kernelspec import KernelSpecManager
    from jupyter_client.manager import AsyncKernelManager

    return AsyncKernelManager(
        kernel_name="python3",
        # Without folders to search, "python3" is the interpreter that runs this.
        kernel_spec_manager=KernelSpecManager(kernel_dirs=[]),
        transport="ipc",
        ip=str(Path(sockets) / "kernel"),
    )


def _report(count: int, source: str, problem: str) -> str:
    code = "\n".join(f"    {line}" for line in source.split("\n"))
    return f"code cell {count}:\n{code}\n{ANSI.sub('', problem).strip()}"
