"""What every experiment can do: run what is missing, and measure its stored weights again."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import keras
import tensorflow as tf

from tf_mamba_edu.datasets import train_tokenizer
from tf_mamba_edu.experiments.store import (
    Results,
    state_of,
    write_whole,
)
from tf_mamba_edu.resume import fit_resumable, writes

STRATEGIES = {
    "mirrored": "all devices of one machine",
    "multiworker": "several machines, each with TF_CONFIG set",
}


@dataclasses.dataclass(frozen=True)
class Experiment:
    """A long computation with a name.

    Attributes:
        name: of the results file.
        main: from a folder (None: the package's own results) to `Results`, of which it makes the
            runs that are missing.
        measure: from `Results` to the metrics of the experiment.
        one_device: whether its models are trained by what `tf.distribute` does not serve.
        from_weights: whether it measures the weights that are stored, or only sums up what the
            runs have measured, since none are.
    """

    name: str
    main: Callable[[Path | None], Results]
    measure: Callable[[Results], dict]
    one_device: bool = False
    from_weights: bool = True

    def run(
        self, folder: Path | None = None, strategy: str | None = None
    ) -> Results:
        """Makes the runs that the folder does not hold yet, and stores the metrics of all.

        Args:
            folder: where results and unfinished runs lie; the package's own results if None.
            strategy: one of STRATEGIES, on which models are trained; None for one device.

        Raises:
            ValueError: if the strategy is unknown or not for this experiment, or something in the
                folder is damaged, cannot be written, or belongs to another configuration.
        """
        scope = scope_of(strategy)
        if strategy is not None and self.one_device:
            raise ValueError(
                f"`strategy` must be left out: {self.name} trains on one device. "
                f"Received: strategy={strategy!r}"
            )
        with scope:
            results = self.main(folder)
        if not results.metrics and writes():
            results.set_metrics(self.measure(results))
        return results

    def evaluate(self, folder: Path | None = None) -> dict:
        """Measures the stored weights again.

        Returns:
            {"name", "metrics"}, with the keys of the results file. Times are those of the runs.

        Raises:
            ValueError: if there is no results file, or weights are missing or damaged.
        """
        results = Results(self.name, folder)
        if not results.path.exists():
            raise ValueError(
                f"{results.path}: there is no such file; make it with: "
                f"python -m tf_mamba_edu experiments run {self.name}"
            )
        return {"name": self.name, "metrics": self.measure(results)}


def scope_of(strategy: str | None) -> contextlib.AbstractContextManager:
    """Returns the scope in which an experiment makes its models.

    Raises:
        ValueError: if there is no strategy of that name.
    """
    if strategy is None:
        return contextlib.nullcontext()
    if strategy == "mirrored":
        return tf.distribute.MirroredStrategy().scope()
    if strategy == "multiworker":
        if "TF_CONFIG" not in os.environ:
            raise ValueError(
                "`strategy` multiworker needs the environment variable TF_CONFIG on each machine"
            )
        return tf.distribute.MultiWorkerMirroredStrategy().scope()
    raise ValueError(
        f"`strategy` must be one of {', '.join(STRATEGIES)}. Received: strategy={strategy!r}"
    )


def fit_or_resume(
    model: keras.Model,
    data: Callable[[int], tuple],
    epochs: int,
    results: Results,
    run: str,
    recipe: dict,
    **options,
) -> dict[str, list[float]]:
    """Trains like `fit_resumable`, in a folder of the run that `complete` removes.

    Args:
        model: compiled and built.
        data: from the number of an epoch to (inputs, targets).
        epochs: how many.
        results: of the experiment.
        run: name of the run.
        recipe: what decides the weights, as JSON can hold it: a training that began with another
            is not gone on with.
        **options: of `fit_resumable`.

    Raises:
        ValueError: if the state that lies there is of another recipe, or is damaged.
    """
    folder = state_of(results, run)
    wanted = json.loads(json.dumps(recipe))
    note = folder / "recipe.json"
    if note.exists():
        found = json.loads(note.read_text("utf-8"))
        odd = sorted(
            key
            for key in wanted.keys() | found.keys()
            if wanted.get(key) != found.get(key)
        )
        if odd:
            raise ValueError(
                f"{folder} holds a training of another configuration; differing: "
                f"{', '.join(odd)}. Remove the folder to begin anew"
            )
    else:
        write_whole(note, json.dumps(wanted, indent=1).encode())
    return fit_resumable(model, data, epochs, folder, **options)


def entry_of(what) -> Experiment:
    """Returns the entry for an object with name, main and measure."""
    return Experiment(what.name, what.main, what.measure)


def stored_tokenizer(
    results: Results,
    texts: Callable[[], Sequence[str]],
    vocab_size: int,
):
    """Returns the tokenizer that is stored with the results; learns it first if need be.

    Args:
        results: of the experiment.
        texts: returns what it is learned from.
        vocab_size: V, number of pieces.
    """
    import sentencepiece

    name = f"{results.name}.model"
    if name not in results.content["sha256"]:
        made = train_tokenizer(texts(), vocab_size)
        results.save_file(name, made.serialized_model_proto())
        return made
    return sentencepiece.SentencePieceProcessor(
        model_proto=results.load_file(name)
    )


def means(values: dict[str, list[float]]) -> dict[str, float]:
    """Returns the mean of each list: of seeds, for example."""
    return {
        name: round(sum(v) / len(v), 4) for name, v in values.items()
    }


def grouped(results: Results, value: Callable[[dict], float]) -> dict:
    """Returns what a function makes of each run, in lists by the name without the seed."""
    groups = {}
    for name, run in results.runs.items():
        kind, _, _ = name.rpartition("-")
        groups.setdefault(kind, []).append(value(run))
    return groups
