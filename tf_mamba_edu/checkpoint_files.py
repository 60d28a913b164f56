"""The files of a checkpoint in the layout of Hugging Face: found, read in parts, written whole."""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import ml_dtypes
import numpy as np

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
TOKENIZERS = ("tokenizer.json", "tokenizer.model")
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
PART = 2**22  # numbers that are read at a time: 16 MiB of float32
DTYPES = {
    "F64": np.dtype("float64"),
    "F32": np.dtype("float32"),
    "F16": np.dtype("float16"),
    "BF16": np.dtype(ml_dtypes.bfloat16),
}


class StoredTensor(NamedTuple):
    """A tensor in a file, known from the file's header.

    Attributes:
        file: where it is.
        name: its name there.
        shape: its sizes.
        dtype: a key of `DTYPES`, or a kind of number that weights never have.
    """

    file: Path
    name: str
    shape: tuple[int, ...]
    dtype: str


def find_checkpoint(checkpoint, revision: str | None = None) -> Path:
    """Returns the folder of a checkpoint; one of the hub is downloaded first, if it must be.

    huggingface_hub does that: it keeps what it has in its cache, and with HF_HUB_OFFLINE=1 it uses
    nothing else.

    Args:
        checkpoint: a folder, or the name of a repository such as "state-spaces/mamba-130m-hf".
        revision: branch, tag or commit of the repository.

    Raises:
        ValueError: if there is no such folder and the hub does not deliver.
    """
    folder, name = Path(checkpoint), str(checkpoint)
    if folder.is_dir():
        return folder
    if name.count("/") != 1 or name[0] in "./~" or folder.exists():
        raise ValueError(
            f"`checkpoint` must be a folder with {CONFIG} and {WEIGHTS}, or the name of a "
            f"repository on the hub. Received: {name}"
        )
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise ValueError(
            f"`checkpoint` is no folder here: {name}. To look for it on the hub, huggingface_hub "
            "is needed: pip install huggingface-hub"
        ) from error
    wanted = [CONFIG, "*.safetensors", INDEX, *TOKENIZERS]
    try:
        return Path(
            snapshot_download(
                name, revision=revision, allow_patterns=wanted
            )
        )
    except Exception as error:  # of many kinds, from several libraries
        reason = (str(error).splitlines() or [""])[0]
        raise ValueError(
            f"`checkpoint` is no folder here, and the hub did not deliver it: {name} "
            f"({type(error).__name__}: {reason})"
        ) from error


def read_json(file: Path) -> dict:
    """Reads a JSON object from a file.

    Raises:
        ValueError: if there is no such file, or it holds something else.
    """
    try:
        found = json.loads(file.read_text("utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{file} does not exist") from None
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{file} is damaged: {error}") from error
    if not isinstance(found, dict):
        raise ValueError(f"{file} is damaged: it holds no object")
    return found


def read_headers(folder: Path) -> dict[str, StoredTensor]:
    """Returns all tensors of a checkpoint by name, without reading their numbers.

    Raises:
        ValueError: if a file is missing or damaged, or all weights are in pickles.
    """
    tensors = {}
    for file in _weight_files(folder):
        with _opened(file) as f:
            for name in f.keys():  # noqa: SIM118, it is no dict
                part = f.get_slice(name)
                shape = tuple(part.get_shape())
                tensors[name] = StoredTensor(
                    file, name, shape, part.get_dtype()
                )
    return tensors


def _weight_files(folder):
    if (folder / INDEX).exists():
        names = read_json(folder / INDEX).get("weight_map", {}).values()
        files = sorted({folder / Path(name).name for name in names})
        missing = [f.name for f in files if not f.exists()]
        if missing or not files:
            raise ValueError(
                f"{folder / INDEX} names files that are not there: {', '.join(missing)}"
            )
        return files
    if (folder / WEIGHTS).exists():
        return [folder / WEIGHTS]
    pickles = sorted(f.name for p in PICKLES for f in folder.glob(p))
    if pickles:
        raise ValueError(
            f"{folder} has its weights in {', '.join(pickles)}: pickles, and to open one is to "
            f"run whatever its author has put in. Needed: {WEIGHTS}, which holds only numbers."
        )
    raise ValueError(f"{folder} has no {WEIGHTS} and no {INDEX}")


def _opened(file):
    import safetensors  # half a second that only checkpoints need

    try:
        return safetensors.safe_open(file, "np")
    except safetensors.SafetensorError as error:
        raise ValueError(
            f"{file} is damaged or was not written to its end: {error}"
        ) from error


def rows_of(
    tensor: StoredTensor,
) -> Iterator[tuple[int, np.ndarray]]:
    """Yields a tensor in parts: the first row of each, and its numbers.

    The file is opened anew for each part, or all that was read would stay in memory.
    """
    rows = tensor.shape[0]
    step = max(1, PART * rows // max(1, int(np.prod(tensor.shape))))
    for start in range(0, rows, step):
        with _opened(tensor.file) as f:
            part = f.get_slice(tensor.name)
            numbers = part[start : min(start + step, rows)]
        yield start, numbers


class NewTensor(NamedTuple):
    """A tensor to be written: its size in bytes, and a function that makes it."""

    bytes: int
    make: Callable[[], np.ndarray]


def write_checkpoint(
    folder,
    config: dict,
    tensors: dict[str, NewTensor],
    files: dict[str, bytes],
    shard_bytes: int,
    overwrite: bool,
) -> None:
    """Writes a checkpoint next to its place, and moves it there when it is complete.

    Args:
        folder: where to; its parents are made.
        config: the object of config.json.
        tensors: by name.
        files: further files, by name.
        shard_bytes: how large a file of weights may be.
        overwrite: whether a folder that is there may be replaced.

    Raises:
        ValueError: if the folder is there and not empty, or cannot be written.
    """
    folder = Path(folder).absolute()
    if folder.is_dir() and any(folder.iterdir()) and not overwrite:
        raise ValueError(
            f"`folder` must be new or empty, or overwrite=True. Received: {folder}"
        )
    if folder.exists() and not folder.is_dir():
        raise ValueError(
            f"`folder` must not be a file. Received: {folder}"
        )
    new = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}")
    try:
        new.mkdir(parents=True)
        _write_weights(new, tensors, shard_bytes)
        for name, content in files.items():
            (new / name).write_bytes(content)
        text = json.dumps(config, indent=2, sort_keys=True)
        (new / CONFIG).write_text(text + "\n", "utf-8")
        _replace(folder, new)
    except OSError as error:
        raise ValueError(
            f"{folder} cannot be written: {error}"
        ) from error
    finally:
        shutil.rmtree(new, ignore_errors=True)


def _write_weights(folder, tensors, shard_bytes):
    from safetensors.numpy import save_file

    shards, size = [[]], 0
    for name, tensor in tensors.items():
        if shards[-1] and size + tensor.bytes > shard_bytes:
            shards.append([])
            size = 0
        shards[-1].append(name)
        size += tensor.bytes
    places = {}
    for i, names in enumerate(shards, start=1):
        file = f"model-{i:05}-of-{len(shards):05}.safetensors"
        file = WEIGHTS if len(shards) == 1 else file
        made = {name: tensors[name].make() for name in names}
        made = {n: np.ascontiguousarray(t) for n, t in made.items()}
        save_file(made, folder / file, {"format": "pt"})
        places |= dict.fromkeys(names, file)
    if len(shards) > 1:
        total = sum(tensor.bytes for tensor in tensors.values())
        index = {
            "metadata": {"total_size": total},
            "weight_map": places,
        }
        (folder / INDEX).write_text(json.dumps(index, indent=2))


def _replace(folder, new):
    """Moves a folder to its place; what was there goes only when the new one is in."""
    old = folder.with_name(f"{new.name}.old")
    if folder.exists():
        os.rename(folder, old)
    try:
        os.rename(new, folder)
    except OSError:
        if old.exists():
            os.rename(old, folder)
        raise
    shutil.rmtree(old, ignore_errors=True)
