"""Chapter 06: a small model of letters, whose Delta and gate can be looked at on real text."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np

from tf_mamba_edu.datasets import king_james_bible
from tf_mamba_edu.experiments.experiment import Experiment
from tf_mamba_edu.experiments.store import Results, complete
from tf_mamba_edu.lm import MambaConfig, MambaLM
from tf_mamba_edu.training import (
    consecutive_windows,
    make_optimizer,
    random_windows,
)

ALPHABET = "\n abcdefghijklmnopqrstuvwxyz"
LENGTH, BATCH_SIZE, STEPS, STEPS_PER_EPOCH = 256, 8, 2000, 200


def encode(text: str) -> np.ndarray:
    """Returns the letters of a text as ids (L,); what is no letter becomes a space."""
    ids = {letter: i for i, letter in enumerate(ALPHABET)}
    return np.array([ids.get(c, ids[" "]) for c in text.lower()])


def letter_model(seed: int = 0) -> MambaLM:
    """Builds the model: two blocks of width 64."""
    keras.utils.set_random_seed(seed)
    return MambaLM(MambaConfig(len(ALPHABET), d_model=64, n_layers=2))


def train_letters(seed: int = 0) -> tuple[MambaLM, dict]:
    """Trains on the King James Bible; returns the model and its loss on the validation part."""
    texts = king_james_bible()
    train = [encode(passage) for passage in texts.train]
    model = letter_model(seed)
    compile_letters(model)
    bar = keras.utils.Progbar(STEPS, stateful_metrics=["loss"])
    for epoch in range(STEPS // STEPS_PER_EPOCH):
        count = STEPS_PER_EPOCH * BATCH_SIZE
        x, y = random_windows(
            train, LENGTH, count, seed=1000 * seed + epoch
        )
        logs = model.fit(x, y, batch_size=BATCH_SIZE, verbose=0)
        bar.update(
            (epoch + 1) * STEPS_PER_EPOCH,
            [("loss", logs.history["loss"][0])],
        )
    return model, {
        "seed": seed,
        "steps": STEPS,
        "bits_per_letter": bits_per_letter(model),
    }


def compile_letters(model: MambaLM) -> None:
    """Compiles the model with the recipe of the run."""
    model.compile(
        make_optimizer(4e-3, STEPS),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=True,
    )


def bits_per_letter(model: MambaLM) -> float:
    """Returns the loss of a compiled model on the validation part."""
    passages = king_james_bible().validation
    held_out = [encode(passage) for passage in passages]
    x, y = consecutive_windows(held_out, LENGTH)
    x, y = (a[: len(a) // 32 * 32] for a in (x, y))
    loss = model.evaluate(x, y, batch_size=32, verbose=0)
    return round(float(loss / np.log(2)), 4)


def main(folder: Path | None = None) -> Results:
    """Trains the model, unless it is stored already."""
    results = Results("letters", folder)

    def run():
        model, measured = train_letters()
        results.save_weights("0", model)
        return measured

    complete(results, {"0": run})
    return results


def measure(results: Results) -> dict:
    """Returns the loss of the stored weights."""
    model = letter_model()
    compile_letters(model)
    results.load_weights("0", model)
    return {"bits_per_letter": bits_per_letter(model)}


LETTERS = Experiment("letters", main, measure, one_device=True)
