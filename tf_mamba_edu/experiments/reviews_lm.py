"""Chapter 13: a language model of movie reviews, which classifiers may begin with."""

from __future__ import annotations

import time
from pathlib import Path

import keras
import numpy as np

from tf_mamba_edu.config import MambaConfig
from tf_mamba_edu.experiments.experiment import (
    Experiment,
    fit_or_resume,
    stored_tokenizer,
)
from tf_mamba_edu.experiments.next_token import evaluate
from tf_mamba_edu.experiments.sentiment import VOCABULARY
from tf_mamba_edu.experiments.store import Results, complete
from tf_mamba_edu.lm import MambaLM
from tf_mamba_edu.reviews import language_model_texts
from tf_mamba_edu.training import make_optimizer, random_windows

NAME, RUN = "reviews-language-model", "0"
D_MODEL, N_LAYERS = 128, 2
MEASURED = 2000  # tokens in each of 64 held-out passages
STEPS, STEPS_PER_EPOCH, LENGTH, BATCH_SIZE = 7000, 250, 128, 16


def language_model() -> MambaLM:
    """Builds the language model; its ids are those of the classifier."""
    keras.utils.set_random_seed(0)
    return MambaLM(MambaConfig(VOCABULARY + 1, D_MODEL, N_LAYERS))


def stream_of(tokenizer, texts: list[str]) -> list[np.ndarray]:
    """Joins reviews to one passage, an end marker behind each; ids as in `sentiment.encode`."""
    end = tokenizer.eos_id()
    pieces = [
        p for text in tokenizer.encode(texts) for p in (*text, end)
    ]
    return [np.array(pieces, np.int32) + 1]


def tokenizer_of(results: Results):
    """Returns the tokenizer, learned from the training texts of both sources."""
    return stored_tokenizer(
        results, lambda: language_model_texts().train, VOCABULARY
    )


def make(results: Results) -> dict:
    """Trains on the reviews of both sources, those that are held out excluded."""
    tokenizer = tokenizer_of(results)
    passages = stream_of(tokenizer, language_model_texts().train)
    model = language_model()
    model.compile(
        make_optimizer(3e-3, STEPS),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=True,
    )

    def data(epoch):
        count = STEPS_PER_EPOCH * BATCH_SIZE
        return random_windows(passages, LENGTH, count, epoch)

    began = time.perf_counter()
    recipe = {"steps": STEPS, "length": LENGTH, "batch": BATCH_SIZE}
    history = fit_or_resume(
        model,
        data,
        STEPS // STEPS_PER_EPOCH,
        results,
        RUN,
        recipe,
        batch_size=BATCH_SIZE,
    )
    seconds = time.perf_counter() - began
    results.save_weights(RUN, model, "float16")
    return {
        "seed": 0,
        "recipe": recipe,
        "parameters": model.count_params(),
        "training_tokens": len(passages[0]),
        "history": {"loss": [round(v, 4) for v in history["loss"]]},
        "validation_loss": held_out(model, tokenizer)["loss"],
        "seconds": round(seconds, 1),
    }


def held_out(model: MambaLM, tokenizer) -> dict:
    """Measures a language model on 64 passages of 2,000 tokens that choose between models."""
    [stream] = stream_of(tokenizer, language_model_texts().validation)
    some = np.split(stream[: 64 * MEASURED], 64)
    return evaluate(model, some, batch_size=16)


def main(folder: Path | None = None) -> Results:
    """Makes the run, if it is missing."""
    results = Results(NAME, folder)
    complete(results, {RUN: lambda: make(results)})
    return results


def load(results: Results):
    """Returns the trained language model, and the tokenizer."""
    model = language_model()
    results.load_weights(RUN, model)
    return model, tokenizer_of(results)


def measure(results: Results) -> dict:
    """Returns loss and accuracy of the stored weights on held-out reviews."""
    found = held_out(*load(results))
    return {
        "val_loss": found["loss"],
        "val_accuracy": found["accuracy"],
    }


REVIEWS = Experiment(NAME, main, measure)
