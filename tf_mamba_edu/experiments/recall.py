"""Chapter 15: copying a list and looking up pairs, by Mamba, a GRU and a Transformer.

A test of what a state of fixed size can hold, at equal sizes and equal training.
"""

from __future__ import annotations

import dataclasses
import functools
import time
from pathlib import Path

import keras

from tf_mamba_edu.baselines import GRULM, BaselineConfig, TransformerLM
from tf_mamba_edu.config import MambaConfig
from tf_mamba_edu.experiments.experiment import Experiment
from tf_mamba_edu.experiments.store import Results, complete
from tf_mamba_edu.experiments.token_models import (
    Stage,
    accuracy,
    compile_for,
    train,
)
from tf_mamba_edu.lm import MambaLM
from tf_mamba_edu.recall_tasks import AssociativeRecall, Copying

VOCABULARY = 128
TASKS = {
    "copying": Copying(VOCABULARY),
    "pairs": AssociativeRecall(VOCABULARY),
}
STAGES = (Stage(16, 300, 128), Stage(32, 300, 64), Stage(128, 900, 16))
LENGTHS = (16, 32, 64, 128)
RATES = {
    "mamba": 5e-3,
    "mamba, state 4": 5e-3,
    "gru": 5e-3,
    "transformer": 2e-3,
}
SEEDS = (0, 1, 2)
SEQUENCES = 256


def model_of(kind: str, seed: int = 0) -> keras.Model:
    """Builds one of the models: two layers, their numbers of parameters within 5 percent."""
    keras.utils.set_random_seed(seed)
    if kind.startswith("mamba"):
        d_state = 16 if kind == "mamba" else 4
        return MambaLM(MambaConfig(VOCABULARY, 64, 2, d_state=d_state))
    if kind == "gru":
        return GRULM(BaselineConfig(VOCABULARY, 72, 2))
    return TransformerLM(BaselineConfig(VOCABULARY, 64, 2, mlp_ratio=2))


def by_length(model: keras.Model, task: str) -> dict[str, float]:
    """Returns the share of right answers in fresh sequences of each length."""
    return {
        str(n): accuracy(
            model,
            TASKS[task],
            n,
            sequences=SEQUENCES,
            seed=40_000,
        )["tokens"]
        for n in LENGTHS
    }


def learn(
    results: Results, run: str, task: str, kind: str, seed: int
) -> dict:
    """Trains a model on a task and measures it at all lengths."""
    model = model_of(kind, seed)
    steps = sum(stage.steps for stage in STAGES)
    compile_for(model, RATES[kind], steps)
    began = time.perf_counter()
    history = train(
        model,
        TASKS[task],
        STAGES,
        seed=seed,
        backup=results.folder / f"{results.name}-{run}.state",
    )
    seconds = time.perf_counter() - began
    if seed == SEEDS[0]:
        results.save_weights(run, model, "float16")
    return {
        "seed": seed,
        "task": task,
        "kind": kind,
        "learning_rate": RATES[kind],
        "stages": [list(dataclasses.astuple(s)) for s in STAGES],
        "parameters": model.count_params(),
        "history": history,
        "seconds": round(seconds, 1),
        "accuracy_by_length": by_length(model, task),
    }


def main(folder: Path | None = None) -> Results:
    """Makes the runs that are missing: each model on each task, three seeds."""
    results, runs = Results("comparison-recall", folder), {}
    for seed in SEEDS:
        for task in TASKS:
            for kind in RATES:
                name = f"{task} {kind}-{seed}"
                runs[name] = functools.partial(
                    learn, results, name, task, kind, seed
                )
    complete(results, runs)
    return results


def load(results: Results, task: str, kind: str) -> keras.Model:
    """Returns the trained model of the first seed."""
    model = model_of(kind)
    results.load_weights(f"{task} {kind}-{SEEDS[0]}", model)
    return model


def measure(results: Results) -> dict:
    """Returns the shares of right answers of the stored weights, by task, model and length."""
    return {
        "accuracy_by_length": {
            f"{task} {kind}": by_length(load(results, task, kind), task)
            for task in TASKS
            for kind in RATES
        }
    }


RECALL = Experiment("comparison-recall", main, measure, one_device=True)
