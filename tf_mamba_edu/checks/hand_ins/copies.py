"""Copies of the folders of notebooks, in which the notebooks run."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path

from tf_mamba_edu.checks.hand_ins.notebooks import ENDING, is_visible

COPY_LIMIT = 2e9  # bytes


class TooLarge(Exception):
    """The folder of a notebook is too large to be copied."""


def copy_folder(notebook: Path, target: Path) -> None:
    """Copies the folder of a notebook, without hidden things and other notebooks.

    Raises:
        TooLarge: if what is to be copied holds more than `COPY_LIMIT` bytes.
    """
    visited, size = set(), 0

    def left_out(folder: str, names: list[str]) -> set[str]:
        nonlocal size
        real = os.path.realpath(folder)
        if real in visited:  # a link leads back here
            return set(names)
        visited.add(real)
        left = set()
        for name in names:
            path = Path(folder, name)
            other = name.lower().endswith(ENDING) and path != notebook
            if (
                path.is_file()
                and is_visible(folder, name)
                and not other
            ):
                size += path.stat().st_size
            elif not path.is_dir() or not is_visible(folder, name):
                left.add(name)
        if size > COPY_LIMIT:
            raise TooLarge(
                f"its folder holds more than {COPY_LIMIT / 1e9:g} GB, which are not copied: "
                "put it into a folder with only what it needs"
            )
        return left

    # What cannot be copied, the notebook will miss by itself.
    with suppress(shutil.Error):
        shutil.copytree(notebook.parent, target, ignore=left_out)
