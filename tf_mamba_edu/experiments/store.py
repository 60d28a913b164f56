"""Results of experiments: written run by run, so that an experiment goes on where it stopped."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import shutil
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from safetensors.numpy import load, save

import tf_mamba_edu
from tf_mamba_edu.resume import flush, writes

RESULTS = Path(tf_mamba_edu.__file__).parent / "results"


class Results:
    """The runs of one experiment, in NAME.json, and weights beside it.

    Args:
        name: of the experiment.
        folder: where the file lies; the package's own results if None.
    """

    def __init__(self, name: str, folder: Path | None = None):
        self.name = name
        self.folder = Path(folder or RESULTS)
        self.path = self.folder / f"{name}.json"
        self.content = self._read()

    @property
    def runs(self) -> dict[str, dict]:
        """What each run measured, by its name."""
        return self.content["runs"]

    @property
    def metrics(self) -> dict:
        """What the experiment as a whole measured."""
        return self.content.get("metrics", {})

    def reread(self) -> dict[str, dict]:
        """Returns `runs` as the file has them now."""
        self.content = self._read()
        return self.runs

    def add(self, run: str, result: dict) -> None:
        """Stores the result of one run, and with what it was made."""
        content = self._read()  # another process may have added
        content["runs"][run] = {**result, **surroundings()}
        content.pop("metrics", None)  # they were those of fewer runs
        self._write(content)

    def set_metrics(self, metrics: dict) -> None:
        """Stores what the experiment as a whole measured."""
        self._write({**self._read(), "metrics": metrics})

    def save_weights(
        self, run: str, model: keras.Model, dtype: str = "float32"
    ) -> None:
        """Stores a model's weights as NAME-RUN.safetensors, and their checksum with the run.

        Args:
            run: name of the run.
            model: keeps the rounded weights, if the dtype rounds: what is measured afterwards is
                what is stored.
            dtype: of the stored numbers.
        """
        arrays = {
            name: np.asarray(w).astype(dtype)
            for name, w in weights_of(model).items()
        }
        self.save_file(f"{self.name}-{run}.safetensors", save(arrays))
        for name, weight in weights_of(model).items():
            weight.assign(arrays[name].astype(weight.dtype))

    def save_file(self, name: str, data: bytes) -> None:
        """Stores a file beside the results, and its checksum in them."""
        write_whole(self.folder / name, data)
        content = self._read()
        content["sha256"][name] = hashlib.sha256(data).hexdigest()
        self._write(content)

    def load_file(self, name: str) -> bytes:
        """Returns a file that `save_file` has stored.

        Raises:
            ValueError: if it is missing, or not the one that was stored.
        """
        path = self.folder / name
        stored = self.content["sha256"].get(name)
        if stored is None or not path.exists():
            raise ValueError(
                f"{path} is missing. Stored with {self.path.name}: "
                + (", ".join(self.content["sha256"]) or "nothing")
            )
        if sha256_of(path) != stored:
            raise ValueError(
                f"{name} is damaged: its sha256 is not the one in {self.path.name}"
            )
        return path.read_bytes()

    def load_weights(self, run: str, model: keras.Model) -> None:
        """Gives a model the weights of a run.

        Raises:
            ValueError: if the file is not the one that was stored, or does not fit the model.
        """
        path = self.folder / f"{self.name}-{run}.safetensors"
        if path.name not in self.content["sha256"] or not path.exists():
            raise ValueError(
                f"`run` must be one with stored weights. Received: run={run!r}; stored: "
                + (", ".join(self.content["sha256"]) or "none")
            )
        arrays = load(self.load_file(path.name))
        weights = weights_of(model)
        wanted = {name: tuple(w.shape) for name, w in weights.items()}
        found = {name: a.shape for name, a in arrays.items()}
        if wanted != found:
            odd = sorted(
                name
                for name in wanted.keys() | found.keys()
                if wanted.get(name) != found.get(name)
            )
            raise ValueError(
                f"{path.name} does not fit the model; differing: {', '.join(odd)}"
            )
        for name, weight in weights.items():
            weight.assign(arrays[name].astype(weight.dtype))

    def _read(self):
        if self.path.exists():
            try:
                content = json.loads(self.path.read_text("utf-8"))
                content["runs"], content["sha256"]
            except (ValueError, KeyError, TypeError) as error:
                raise ValueError(
                    f"{self.path.name} is damaged; put it back, or remove it to begin anew"
                ) from error
            return content
        return {"name": self.name, "runs": {}, "sha256": {}}

    def _write(self, content):
        text = json.dumps(content, indent=1, sort_keys=True)
        write_whole(self.path, f"{text}\n".encode())
        self.content = content


def write_whole(path: Path, data: bytes) -> None:
    """Writes a file under another name, and gives it its own when it is complete.

    Raises:
        ValueError: if it cannot be written; what was there stays as it was.
    """
    if not writes():
        return
    unfinished = path.with_name(path.name + ".unfinished")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished.write_bytes(data)
        flush(unfinished)
        os.replace(unfinished, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            unfinished.unlink(missing_ok=True)
        raise ValueError(
            f"{path} cannot be written: {error.strerror or error}"
        ) from error


def complete(
    results: Results, runs: dict[str, Callable[[], dict]]
) -> None:
    """Makes the runs that are not stored yet, one after the other.

    Args:
        results: where they are looked up and stored.
        runs: name -> a function that makes the run and returns what it measured.
    """
    missing = [name for name in runs if name not in results.runs]
    done = len(runs) - len(missing)
    for i, name in enumerate(missing, start=done + 1):
        print(f"{results.name} {i} / {len(runs)}: {name}", flush=True)
        if name in results.reread():
            continue  # another process has made it meanwhile
        results.add(name, runs[name]())
        if writes():  # what it was made from is not needed any more
            shutil.rmtree(state_of(results, name), ignore_errors=True)


def state_of(results: Results, run: str) -> Path:
    """Returns the folder of an unfinished run."""
    return results.folder / f"{results.name}-{run}.state"


def weights_of(model: keras.Model) -> dict[str, keras.Variable]:
    """Returns a model's weights by path, without the name that Keras counts up for each model."""
    return {
        w.path.removeprefix(model.name + "/"): w for w in model.weights
    }


def surroundings() -> dict:
    """Returns the versions and the machine that a result was made with."""
    return {
        "versions": {
            "python": platform.python_version(),
            "tensorflow": tf.__version__,
            "keras": keras.__version__,
            "tf_mamba_edu": tf_mamba_edu.__version__,
        },
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
    }


def sha256_of(path: Path) -> str:
    """Returns the checksum of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
