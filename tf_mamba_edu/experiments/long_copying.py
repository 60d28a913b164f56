"""Chapter 14: selective copying against the length, S6 against S4D, up to length 1,024.

S6 is trained anew, with the price of `long_memory`: as many steps as in `selective-copying-256`,
whose S4D and S6 are measured beside it at all lengths and not trained again. Up to 1,024 there is
one seed.
"""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable
from pathlib import Path

import keras
import tensorflow as tf

from tf_mamba_edu.experiments.experiment import Experiment
from tf_mamba_edu.experiments.long_memory import PricedSSM
from tf_mamba_edu.experiments.selectivity import (
    S4D_RATES,
    S6_RATE,
    STAGES,
    make_s4d,
)
from tf_mamba_edu.experiments.selectivity import model_of as older_model
from tf_mamba_edu.experiments.store import Results, complete
from tf_mamba_edu.experiments.token_models import (
    Stage,
    accuracy,
    compile_for,
    token_model,
    train,
)
from tf_mamba_edu.selective import SelectiveSSM
from tf_mamba_edu.tasks import SelectiveCopying

TASK = SelectiveCopying(vocab_size=18, n_tokens=16)
LENGTHS = (48, 64, 128, 256, 512, 1024)
SEEDS = (0, 1, 2)
SEQUENCES = 512


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What decides a run.

    Attributes:
        stages: lengths, steps and batch sizes.
        learning_rate: the highest.
        price: of writing, see `PricedSSM`.
        free_steps: training steps before writing has a price.
        seed: of weights and sequences.
    """

    stages: tuple[Stage, ...]
    learning_rate: float = S6_RATE
    price: float = 1e-3
    free_steps: int = STAGES[0].steps
    seed: int = 0


TO_1024 = (*STAGES[:3], Stage(256, 800, 8), Stage(1024, 800, 4))
RECIPES = {"s6": Recipe(STAGES), "s6 long": Recipe(TO_1024)}
STORED = ("s6-0", "s6 long-0")


def model_of(
    recipe: Recipe, price: tf.Variable | None = None
) -> keras.Model:
    """Builds the model of a recipe: two blocks of width 64."""
    keras.utils.set_random_seed(recipe.seed)

    def make_ssm():
        if price is None:
            return SelectiveSSM(name="ssm")
        return PricedSSM(price, name="ssm")

    return token_model(TASK.vocab_size, 64, 2, make_ssm)


def by_length(model: keras.Model) -> dict[str, float]:
    """Returns the share of right symbols in fresh sequences of each length."""
    return {
        str(n): accuracy(
            model,
            TASK,
            n,
            sequences=SEQUENCES,
            batch_size=16,
            seed=30_000,
        )["tokens"]
        for n in LENGTHS
    }


def make(results: Results, run: str, recipe: Recipe) -> dict:
    """Trains a model and measures it at all lengths."""
    price = tf.Variable(0.0, trainable=False)
    model = model_of(recipe, price)
    steps = sum(stage.steps for stage in recipe.stages)
    compile_for(model, recipe.learning_rate, steps)

    def after_epoch(step):
        price.assign(recipe.price if step >= recipe.free_steps else 0.0)
        return False

    began = time.perf_counter()
    history = train(
        model,
        TASK,
        recipe.stages,
        seed=recipe.seed,
        backup=results.folder / f"{results.name}-{run}.state",
        after_epoch=after_epoch,
    )
    seconds = time.perf_counter() - began
    if run in STORED:
        results.save_weights(run, model, "float16")
    return {
        "seed": recipe.seed,
        "recipe": dataclasses.asdict(recipe),
        "parameters": model.count_params(),
        "history": history,
        "seconds": round(seconds, 1),
        "accuracy_by_length": by_length(model),
    }


def measure_older(kind: str) -> dict:
    """Measures weights of `selective-copying-256` at all lengths.

    Of S4D those of the learning rate, of three, that is best at length 256 on the mean of seeds.
    """
    older = Results("selective-copying-256")

    def at_256(rate):
        return sum(
            older.runs[f"{kind}-{rate}-{seed}"]["accuracy"]["256"][
                "tokens"
            ]
            for seed in SEEDS
        )

    rate = max(S4D_RATES if kind == "s4d" else (S6_RATE,), key=at_256)
    model = older_model(0, make_s4d if kind == "s4d" else None)
    older.load_weights(f"{kind}-{rate}-0", model)
    return {
        "seed": 0,
        "learning_rate": rate,
        "at_256": {
            str(seed): older.runs[f"{kind}-{rate}-{seed}"]["accuracy"][
                "256"
            ]["tokens"]
            for seed in SEEDS
        },
        "accuracy_by_length": by_length(model),
    }


def main(folder: Path | None = None) -> Results:
    """Makes the runs that are missing: S6 up to 256 and up to 1,024; measures older weights."""
    results = Results("selective-copying", folder)
    runs: dict[str, Callable[[], dict]] = {}
    seeds = {"s6": SEEDS, "s6 long": SEEDS[:1]}
    for kind, recipe in RECIPES.items():
        for seed in seeds[kind]:
            name = f"{kind}-{seed}"
            runs[name] = functools.partial(
                make,
                results,
                name,
                dataclasses.replace(recipe, seed=seed),
            )
    runs["s4d-0"] = functools.partial(measure_older, "s4d")
    runs["s6 without a price-0"] = functools.partial(
        measure_older, "s6"
    )
    complete(results, runs)
    return results


def load(results: Results, run: str) -> keras.Model:
    """Returns the trained model of a run."""
    model = model_of(RECIPES[run.rpartition("-")[0]])
    results.load_weights(run, model)
    return model


def measure(results: Results) -> dict:
    """Returns the shares of right symbols by length: of S6 up to 256, and of S6 up to 1,024."""
    return {
        "accuracy_by_length": by_length(load(results, STORED[0])),
        "accuracy_by_length_long": by_length(load(results, STORED[1])),
    }


COPYING = Experiment(
    "selective-copying", main, measure, one_device=True
)
