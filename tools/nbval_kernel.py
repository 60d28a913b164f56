"""A pytest plugin: nbval talks to its kernels through files, not TCP ports.

A client that knocks at a local port before the kernel listens there is, once
in some hundred starts, connected to itself (source and target port happen to
be the same), and the kernel never answers. Files have no such accident.
Loaded by the Makefile with `-p nbval_kernel`.
"""

import tempfile
from pathlib import Path

import nbval.kernel
from jupyter_client.manager import KernelManager


class FileKernelManager(KernelManager):
    """A kernel manager whose kernel is reached through a folder of its own."""

    def __init__(self, **options):
        """Make the folder; it goes when the manager goes."""
        self._folder = tempfile.TemporaryDirectory()
        address = str(Path(self._folder.name) / "kernel")
        super().__init__(transport="ipc", ip=address, **options)


nbval.kernel.KernelManager = FileKernelManager
