"""Chapter 12: next-token prediction on the King James Bible, with a text held out for each run.

Steps and dropout are chosen on one slice of text, and reported on another: no text serves both.
"""

from __future__ import annotations

import dataclasses
import functools
import re
import time
from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from tf_mamba_edu.config import MambaConfig
from tf_mamba_edu.datasets import (
    TextSplits,
    king_james_bible,
    king_james_text,
)
from tf_mamba_edu.experiments.experiment import (
    entry_of,
    fit_or_resume,
    stored_tokenizer,
)
from tf_mamba_edu.experiments.ngrams import NGram
from tf_mamba_edu.experiments.store import Results, complete
from tf_mamba_edu.lm import MambaLM
from tf_mamba_edu.training import make_optimizer, random_windows

VOCABULARY, UNKNOWN = 2000, 0
HELD_OUT, SELECTION = 0.30, 0.05  # of a first part of the text


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What decides a run.

    Attributes:
        steps: training steps.
        n_layers: blocks.
        d_model: E, width of the model.
        dropout: of `MambaLM`.
        token_dropout: share of the tokens read that training makes unknown.
        length: L, tokens a window.
        batch_size: B.
        learning_rate: the highest.
        weight_decay: of `make_optimizer`.
        steps_per_epoch: steps between two entries of the history.
        seed: of weights and windows.
    """

    steps: int
    n_layers: int
    d_model: int = 128
    dropout: float = 0.0
    length: int = 128
    batch_size: int = 16
    learning_rate: float = 2e-3
    weight_decay: float = 0.1
    token_dropout: float = 0.0
    steps_per_epoch: int = 100
    seed: int = 0


@dataclasses.dataclass(frozen=True)
class NextToken:
    """An experiment: a text, recipes to choose from, and what is made of the chosen one.

    Attributes:
        name: of the experiment.
        fraction: how much of the text there is, from its beginning; None for blocks of all of it.
        recipes: those that are compared on the slice for selection. Of one there is no choice.
        seeds: of the runs that are made with the chosen recipe; the first one's weights are kept.
        longer: another recipe that is made once, if any.
    """

    name: str
    fraction: float | None
    recipes: tuple[Recipe, ...]
    seeds: tuple[int, ...] = (0,)
    longer: Recipe | None = None

    def main(self, folder: Path | None = None) -> Results:
        """Makes the runs that are missing: the selection, then those that it chose."""
        results, runs = Results(self.name, folder), {}
        if len(self.recipes) > 1:
            for i, recipe in enumerate(self.recipes):
                runs[f"choice {i}-0"] = functools.partial(
                    self.choose, results, f"choice {i}-0", recipe
                )
        for seed in self.seeds:
            runs[f"chosen-{seed}"] = functools.partial(
                self.make, results, f"chosen-{seed}", None, seed
            )
        if self.longer is not None:
            runs["longer-0"] = functools.partial(
                self.make, results, "longer-0", self.longer, 0
            )
        complete(results, runs)
        return results

    def measure(self, results: Results) -> dict:
        """Returns loss and accuracy of the stored weights on all of the held-out text."""
        run = "longer-0" if self.longer is not None else "chosen-0"
        model, tokenizer = self.load(results, run)
        found = evaluate(model, encode(tokenizer, self.texts.test))
        return {
            "val_loss": found["loss"],
            "val_accuracy": found["accuracy"],
            "bits_per_character": bits_per_character(
                found, self.texts.test
            ),
        }

    def load(self, results: Results, run: str = "chosen-0"):
        """Returns the trained model of a run, and the tokenizer."""
        model = language_model(Recipe(**results.runs[run]["recipe"]))
        results.load_weights(run, model)
        return model, self.tokenizer(results)

    @property
    def texts(self) -> TextSplits:
        """The parts train, validation (for selection) and test (held out)."""
        if self.fraction is None:
            return king_james_bible()
        return first_part(self.fraction)

    def tokenizer(self, results: Results):
        """Returns the tokenizer that is stored with the results; learns it first if need be.

        It learns from all of the Bible but the texts for selection and report: the training part
        of 1/14 alone is too short for 2,000 pieces.
        """

        def texts():
            parts = self.texts
            if self.fraction is None:
                return parts.train
            used = sum(
                len(text)
                for part in dataclasses.astuple(parts)
                for text in part
            )
            return [*parts.train, king_james_text()[used:]]

        return stored_tokenizer(results, texts, VOCABULARY)

    def choose(self, results, run, recipe) -> dict:
        """Trains on the training part; measures on the slice for selection."""
        texts, tokenizer = self.texts, self.tokenizer(results)
        train = encode(tokenizer, texts.train)
        model, record = fit(results, run, recipe, train)
        found = evaluate(model, encode(tokenizer, texts.validation))
        return {**record, "selection_loss": found["loss"]}

    def chosen(self, results) -> Recipe:
        """Returns the recipe with the lowest loss on the slice for selection."""
        if len(self.recipes) == 1:
            return self.recipes[0]
        losses = [
            results.runs[f"choice {i}-0"]["selection_loss"]
            for i in range(len(self.recipes))
        ]
        return self.recipes[int(np.argmin(losses))]

    def make(self, results, run, recipe, seed) -> dict:
        """Trains on all that is not held out; measures the rounded weights on what is."""
        recipe = recipe or self.chosen(results)
        recipe = dataclasses.replace(recipe, seed=seed)
        texts, tokenizer = self.texts, self.tokenizer(results)
        train = encode(tokenizer, texts.train)
        others = encode(tokenizer, texts.validation)
        if len(self.recipes) > 1:  # the choice is made
            train, others = train + others, []
        model, record = fit(results, run, recipe, train)
        record["parameters"] = model.count_params()
        record["training_tokens"] = sum(map(len, train))
        if seed == self.seeds[0]:
            results.save_weights(run, model, "float16")
        held_out = encode(tokenizer, texts.test)
        record["held_out"] = evaluate(model, held_out)
        record["held_out"]["bits_per_character"] = bits_per_character(
            record["held_out"], texts.test
        )
        if others:
            record["validation"] = evaluate(model, others)
        record["ngrams"] = {
            str(n): NGram(n, VOCABULARY, train).measure(held_out)
            for n in (1, 2, 3)
        }
        return record


def first_part(fraction: float) -> TextSplits:
    """Cuts the beginning of the Bible into three contiguous parts: 65, 5 and 30 percent."""
    text = king_james_text()
    whole = len(text) * fraction
    ends = [
        re.compile(r"\s").search(text, int(whole * share)).end()
        for share in (1 - HELD_OUT - SELECTION, 1 - HELD_OUT, 1)
    ]
    train, selection, end = ends
    return TextSplits(
        [text[:train]], [text[train:selection]], [text[selection:end]]
    )


def encode(tokenizer, passages: Sequence[str]) -> list[np.ndarray]:
    """Returns the token ids of each passage."""
    return [np.array(tokenizer.encode(p), np.int32) for p in passages]


def language_model(recipe: Recipe) -> MambaLM:
    """Builds the model of a recipe, from its seed."""
    keras.utils.set_random_seed(recipe.seed)
    config = MambaConfig(VOCABULARY, recipe.d_model, recipe.n_layers)
    return MambaLM(config, dropout=recipe.dropout)


def fit(
    results: Results,
    run: str,
    recipe: Recipe,
    passages: Sequence[np.ndarray],
) -> tuple[MambaLM, dict]:
    """Trains a model; returns it, and what the run was and how its loss went."""
    model = language_model(recipe)
    model.compile(
        make_optimizer(
            recipe.learning_rate,
            recipe.steps,
            weight_decay=recipe.weight_decay,
        ),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=True,
    )

    def data(epoch):
        seed = 1000 * recipe.seed + epoch
        count = recipe.steps_per_epoch * recipe.batch_size
        x, y = random_windows(passages, recipe.length, count, seed)
        hidden = np.random.default_rng((seed, 1)).random(x.shape)
        return np.where(hidden < recipe.token_dropout, UNKNOWN, x), y

    began = time.perf_counter()
    history = fit_or_resume(
        model,
        data,
        recipe.steps // recipe.steps_per_epoch,
        results,
        run,
        dataclasses.asdict(recipe),
        batch_size=recipe.batch_size,
    )
    return model, {
        "seed": recipe.seed,
        "recipe": dataclasses.asdict(recipe),
        "history": {
            "loss": [round(v, 4) for v in history["loss"]],
        },
        "seconds": round(time.perf_counter() - began, 1),
    }


def evaluate(
    model: MambaLM,
    passages: Sequence[np.ndarray],
    length: int = 1024,
    batch_size: int = 4,
) -> dict:
    """Predicts every token but the first of each passage.

    Passages are cut into windows that overlap by one token, and the state carries over from one
    to the next, so that each token is predicted from all before it.

    Args:
        model: a language model with `prefill`.
        passages: token ids.
        length: tokens a window.
        batch_size: passages that are read at once.

    Returns:
        A dict of "loss" (nats a token), "accuracy" (share whose likeliest token was right) and
        "tokens" (how many were asked for).
    """
    read = tf.function(model.prefill, jit_compile=True)
    losses = hits = tokens = 0.0
    for first in range(0, len(passages), batch_size):
        group = passages[first : first + batch_size]
        longest = max(map(len, group)) - 1
        rows = -(-longest // length) * length
        x = np.zeros((batch_size, rows), np.int32)
        y = np.full((batch_size, rows), -1, np.int32)
        for i, passage in enumerate(group):
            x[i, : len(passage) - 1] = passage[:-1]
            y[i, : len(passage) - 1] = passage[1:]
        cache = model.init_cache(batch_size) if rows > length else None
        for start in range(0, rows, length):
            logits, cache = read(x[:, start : start + length], cache)
            target = y[:, start : start + length]
            asked = target >= 0
            said = tf.nn.log_softmax(logits).numpy()[asked]  # (n, V)
            right = target[asked]
            losses -= said[np.arange(len(right)), right].sum()
            hits += (said.argmax(-1) == right).sum()
            tokens += len(right)
    return {
        "loss": round(float(losses / tokens), 4),
        "accuracy": round(float(hits / tokens), 4),
        "tokens": int(tokens),
    }


def bits_per_character(found: dict, passages: Sequence[str]) -> float:
    """Converts nats a token into bits a character of the text."""
    nats = found["loss"] * found["tokens"]
    characters = sum(map(len, passages))
    return round(float(nats / np.log(2) / characters), 4)


CHOICES = ((300, 0.2), (300, 0.3), (400, 0.3), (500, 0.4))
ONE = NextToken(
    "next-token-1",
    1 / 14,
    tuple(
        Recipe(steps, 1, dropout=dropout, learning_rate=4e-3)
        for steps, dropout in CHOICES
    ),
    seeds=(0, 1, 2),
)
THREE = NextToken(
    "next-token-3",
    1 / 8,
    tuple(
        Recipe(steps, 3, dropout=dropout, learning_rate=4e-3)
        for steps, dropout in CHOICES
    ),
    seeds=(0, 1, 2),
)
SHORT = Recipe(2000, 4, length=256, batch_size=8, learning_rate=4e-3)
FULL = NextToken(
    "next-token-full",
    None,
    (SHORT,),
    longer=dataclasses.replace(SHORT, steps=6000, dropout=0.1),
)
ONE_BLOCK, THREE_BLOCKS, WHOLE_TEXT = map(entry_of, (ONE, THREE, FULL))
