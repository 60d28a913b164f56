"""Results of experiments: written run by run, so that an experiment goes on where it stopped."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from safetensors.numpy import load_file, save_file

import tf_mamba_edu

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
        self._content = self._read()

    @property
    def runs(self) -> dict[str, dict]:
        """What each run measured, by its name."""
        return self._content["runs"]

    def reread(self) -> dict[str, dict]:
        """Returns `runs` as the file has them now."""
        self._content = self._read()
        return self.runs

    def add(self, run: str, result: dict) -> None:
        """Stores the result of one run, and with what it was made."""
        content = self._read()  # another process may have added
        content["runs"][run] = {**result, "made_with": surroundings()}
        self._write(content)

    def save_weights(self, run: str, model: keras.Model) -> None:
        """Stores a model's weights as NAME-RUN.safetensors, and their checksum with the run."""
        path = self._weights_path(run)
        path.parent.mkdir(parents=True, exist_ok=True)
        arrays = {
            name: np.asarray(w) for name, w in weights_of(model).items()
        }
        unfinished = path.with_suffix(".unfinished")
        save_file(arrays, unfinished)
        os.chmod(unfinished, 0o644)  # the library makes it private
        os.replace(unfinished, path)
        content = self._read()
        content["sha256"][path.name] = sha256_of(path)
        self._write(content)

    def load_weights(self, run: str, model: keras.Model) -> None:
        """Gives a model the weights of a run.

        Raises:
            ValueError: if the file is not the one that was stored, or does not fit the model.
        """
        path = self._weights_path(run)
        stored = self._content["sha256"].get(path.name)
        if stored is None or not path.exists():
            raise ValueError(
                f"`run` must be one with stored weights. Received: run={run!r}; stored: "
                + (", ".join(self._content["sha256"]) or "none")
            )
        if sha256_of(path) != stored:
            raise ValueError(
                f"{path.name} is damaged: its sha256 is not the one in {self.path.name}"
            )
        arrays = load_file(path)
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
            weight.assign(arrays[name])

    def _weights_path(self, run):
        return self.folder / f"{self.name}-{run}.safetensors"

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
        return {"experiment": self.name, "runs": {}, "sha256": {}}

    def _write(self, content):
        self.folder.mkdir(parents=True, exist_ok=True)
        unfinished = self.path.with_suffix(".unfinished")
        text = json.dumps(content, indent=1, sort_keys=True)
        unfinished.write_text(text + "\n", "utf-8")
        os.replace(unfinished, self.path)
        self._content = content


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


def weights_of(model: keras.Model) -> dict[str, keras.Variable]:
    """Returns a model's weights by path, without the name that Keras counts up for each model."""
    return {
        w.path.removeprefix(model.name + "/"): w for w in model.weights
    }


def surroundings() -> dict:
    """Returns the versions and the machine that a result was made with."""
    return {
        "python": platform.python_version(),
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
    }


def sha256_of(path: Path) -> str:
    """Returns the checksum of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
