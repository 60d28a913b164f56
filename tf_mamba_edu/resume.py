"""Training that can be killed at any moment and goes on where it was."""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Callable
from pathlib import Path

import keras
import tensorflow as tf

from tf_mamba_edu.batches import batched
from tf_mamba_edu.training import fit_distributed
from tf_mamba_edu.validation import check_positive_int

STATE = re.compile(r"epoch-(\d+)\.weights\.h5")


def fit_resumable(
    model: keras.Model,
    data: Callable[[int], tuple],
    epochs: int,
    folder,
    validation_data=None,
    batch_size: int = 32,
    verbose: int | str = "auto",
    **options,
) -> dict[str, list[float]]:
    """Runs `model.fit` epoch by epoch, and stores everything after each.

    Weights, optimizer and the epoch are one file, which takes its name when it is complete: a
    process that is killed, at whatever moment, leaves the last complete epoch. The same call goes
    on from there, and ends with the weights of a training that was never broken, provided that
    `data` depends on nothing but the epoch. A model of `tf.distribute` trains with
    `fit_distributed`; of several machines, which must share the folder, the first one writes.

    Args:
        model: compiled and built.
        data: from the number of an epoch, counted from 0, to (inputs, targets), and sample
            weights if there are any.
        epochs: how many in all, those that are stored included.
        folder: where the state lies.
        validation_data: (inputs, targets), evaluated after each epoch, if given; not with
            `tf.distribute`.
        batch_size: rows in a batch.
        verbose: as in `fit`.
        **options: further arguments of `fit`, such as callbacks. Nothing is shuffled: that is
            the business of `data`.

    Returns:
        What `fit` measured, a list over all epochs for each name.

    Raises:
        ValueError: if the model is not compiled and built, or the folder holds the state of
            another model, or cannot be written.
    """
    epochs = check_positive_int("epochs", epochs)
    if not model.built or model.optimizer is None:
        raise ValueError(
            "`model` must be compiled and built before its training can be stored"
        )
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"`folder` cannot be made: {error}") from error
    with model.distribute_strategy.scope():
        model.optimizer.build(model.trainable_variables)
    done, history = _restore(model, folder)
    if isinstance(validation_data, (tuple, list)):
        validation_data = batched(validation_data, batch_size)
    for epoch in range(done, epochs):
        dataset = batched(data(epoch), batch_size)
        options |= dict(initial_epoch=epoch, epochs=epoch + 1)
        if is_distributed(model):
            logs = fit_distributed(
                model, dataset, verbose=int(verbose != 0), **options
            ).history
        else:
            logs = model.fit(
                dataset,
                validation_data=validation_data,
                verbose=verbose,
                shuffle=False,  # by a random state that no file holds
                **options,
            ).history
        for name, values in logs.items():
            history.setdefault(name, []).append(float(values[-1]))
        store_once(model, folder, epoch + 1, history)
    return {name: values[:epochs] for name, values in history.items()}


def is_distributed(model: keras.Model) -> bool:
    """Returns whether a model was made for several devices or machines."""
    kinds = (
        tf.distribute.MirroredStrategy,
        tf.distribute.MultiWorkerMirroredStrategy,
    )
    return isinstance(model.distribute_strategy, kinds)


def writes() -> bool:
    """Returns whether this process is the one that stores: of several machines, the first."""
    task = json.loads(os.environ.get("TF_CONFIG", "{}")).get("task", {})
    return task.get("index", 0) == 0


def random_states(model: keras.Model) -> list[keras.Variable]:
    """Returns the states of dropout and the like, which Keras does not count among the weights."""
    known = {id(v) for v in model.weights}
    return [
        v
        for v in model.variables
        if id(v) not in known
        and v.path.endswith("seed_generator_state")
    ]


def states_in(folder: Path) -> dict[int, Path]:
    """Returns the complete states by epoch."""
    found = ((STATE.fullmatch(p.name), p) for p in folder.iterdir())
    return {int(m[1]): p for m, p in found if m}


def _restore(model, folder):
    """Loads the last state; returns how many epochs it has, and what they measured."""
    states = states_in(folder)
    if not states:
        return 0, {}
    epoch = max(states)
    try:
        model.load_weights(states[epoch])
        text = (folder / f"epoch-{epoch}.json").read_text("utf-8")
        content = json.loads(text)
        for variable, value in zip(
            random_states(model), content["random_states"], strict=True
        ):
            variable.assign(value)
    except Exception as error:  # of many kinds: h5py's, Keras', json's
        raise ValueError(
            f"{states[epoch]} does not fit this model, or is damaged: {error}"
        ) from error
    return epoch, content["history"]


def store_once(model, folder, epoch, history) -> None:
    """Runs `store` on the machine that writes; others take part, since reading takes them all."""
    if writes():
        store(model, folder, epoch, history)
    else:
        with tempfile.TemporaryDirectory() as elsewhere:
            store(model, Path(elsewhere), epoch, history)


def store(model, folder, epoch, history) -> None:
    """Writes beside, then renames: first measurements, then weights."""
    before = states_in(folder)
    state = folder / f"epoch-{epoch}"
    try:
        unfinished = folder / "unfinished.json"
        random = [v.numpy().tolist() for v in random_states(model)]
        content = {"history": history, "random_states": random}
        unfinished.write_text(json.dumps(content), "utf-8")
        flush(unfinished)
        os.replace(unfinished, f"{state}.json")
        unfinished = folder / "unfinished.weights.h5"
        model.save_weights(unfinished, overwrite=True)
        flush(unfinished)
        os.replace(unfinished, f"{state}.weights.h5")
    except OSError as error:
        raise ValueError(
            f"{folder} cannot be written: {error}"
        ) from error
    for old, path in before.items():
        if old != epoch:
            path.unlink()
            (folder / f"epoch-{old}.json").unlink(missing_ok=True)


def flush(file: Path) -> None:
    """Waits until a file is on the disk, and not only promised."""
    with open(file, "rb+") as opened:
        os.fsync(opened.fileno())
