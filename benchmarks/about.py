"""On what and with what a run measures: machine, versions, settings.

    python -m benchmarks.about

prints it as one line of JSON, in a process of its own: the runner imports no peer.
"""

from __future__ import annotations

import contextlib
import datetime
import importlib.metadata
import json
import os
import platform
import re
import sys
from pathlib import Path

from benchmarks.case import cores

PACKAGES = (
    "tf-mamba-edu",
    "tensorflow",
    "keras",
    "numpy",
    "torch",
    "mambapy",
    "transformers",
    "lite-mamba",
)


def versions() -> dict[str, str | None]:
    """Versions of all packages that are measured; None for one that is not installed."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = None
    return found


def onednn() -> bool | None:
    """Whether TensorFlow uses oneDNN; None where it does not tell."""
    try:
        from tensorflow.python.util import _pywrap_util_port

        return bool(_pywrap_util_port.IsMklEnabled())
    except (ImportError, AttributeError):
        return None


def torch_threads() -> int | None:
    """With how many threads PyTorch computes here: one a core, which every case asks for."""
    try:
        import torch
    except ImportError:
        return None
    torch.set_num_threads(cores())
    return torch.get_num_threads()


def first_match(pattern: str, path: str) -> str | None:
    """What a pattern finds in a system file; None where there is no such file or line."""
    try:
        found = re.search(pattern, Path(path).read_text(), re.MULTILINE)
    except OSError:
        return None
    return found.group(1) if found else None


def machine() -> dict:
    """CPU, cores, memory and system."""
    kilobytes = first_match(r"^MemTotal:\s+(\d+) kB", "/proc/meminfo")
    return {
        "cpu": first_match(r"^model name\s*: (.+)$", "/proc/cpuinfo") or platform.processor(),
        "cores": cores(),
        "memory_gib": round(int(kilobytes) / 2**20, 1) if kilobytes else None,
        "system": platform.platform(),
    }


def describe() -> dict:
    """All that the results say about a run."""
    load = os.getloadavg()[0]  # before the imports below, which are work themselves
    return {
        "date": datetime.date.today().isoformat(),
        "load_average": round(load, 2),
        "machine": machine(),
        "python": platform.python_version(),
        "versions": versions(),
        "onednn": onednn(),
        "torch_threads": torch_threads(),
        "dtype": "float32",
    }


def main() -> None:
    """Prints the description."""
    with contextlib.redirect_stdout(sys.stderr):  # what libraries print
        about = describe()
    print(json.dumps(about))


if __name__ == "__main__":
    main()
