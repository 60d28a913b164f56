"""Chapter 15: copying a list and looking up pairs, by Mamba, a GRU and a Transformer.

A test of what a state of fixed size can hold, and of how soon a model learns to use it: equal
sizes, one model for each length, and training ends when the answers are right.
"""

from __future__ import annotations

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

TASKS = {"copying": Copying(64), "pairs": AssociativeRecall(16)}
CASES = (
    ("copying", 8),
    ("copying", 16),
    ("copying", 32),
    ("pairs", 16),
)
CHOOSING = {"copying": 32, "pairs": 16}  # lengths that choose a rate
CHOOSE = ("mamba", "gru", "transformer")
KINDS = (*CHOOSE, "mamba, state 4")  # the last with Mamba's rate
RATES = (2e-3, 5e-3, 1e-2, 2e-2, 4e-2, 8e-2)
SEEDS = (0, 1, 2)
KEPT = SEEDS[1]  # whose weights are stored: the first after the choice
TOKENS = 2048  # of a training step, in all its sequences
STEPS, STEPS_PER_EPOCH = 1500, 50
ENOUGH = 0.99  # share of right answers that ends a training
SEQUENCES = 256


def model_of(kind: str, task: str, seed: int = 0) -> keras.Model:
    """Builds one of the models: two layers, their numbers of parameters within 5 percent."""
    keras.utils.set_random_seed(seed)
    words = TASKS[task].vocab_size
    if kind.startswith("mamba"):
        d_state = 16 if kind == "mamba" else 4
        return MambaLM(MambaConfig(words, 64, 2, d_state=d_state))
    if kind == "gru":
        return GRULM(BaselineConfig(words, 72, 2))
    return TransformerLM(
        BaselineConfig(words, 64, 2, mlp_ratio=2, rotary=True)
    )


def right(model: keras.Model, task: str, length: int) -> float:
    """Returns the share of right answers in fresh sequences of a length."""
    found = accuracy(
        model, TASKS[task], length, sequences=SEQUENCES, seed=40_000
    )
    return found["tokens"]


def learn(
    results: Results,
    run: str,
    task: str,
    length: int,
    kind: str,
    rate: float,
    seed: int,
) -> dict:
    """Trains a model on a task at one length until it answers, and measures it there."""
    model = model_of(kind, task, seed)
    compile_for(model, rate, STEPS)

    def answers(step):
        found = accuracy(
            model, TASKS[task], length, sequences=64, seed=20_000
        )
        return found["tokens"] >= ENOUGH

    began = time.perf_counter()
    history = train(
        model,
        TASKS[task],
        [Stage(length, STEPS, TOKENS // length)],
        seed=seed,
        backup=results.folder / f"{results.name}-{run}.state",
        steps_per_epoch=STEPS_PER_EPOCH,
        after_epoch=answers,
    )
    seconds = time.perf_counter() - began
    if seed == KEPT:
        results.save_weights(run, model, "float16")
    found = right(model, task, length)
    return {
        "seed": seed,
        "task": task,
        "length": length,
        "kind": kind,
        "learning_rate": rate,
        "parameters": model.count_params(),
        "history": history,
        "seconds": round(seconds, 1),
        "steps": history[-1]["step"],
        "learned": history[-1]["step"] < STEPS or found >= ENOUGH,
        "accuracy": found,
    }


def choice(task: str, kind: str, rate: float) -> str:
    """Returns the name of the run that tries a learning rate."""
    return f"{task} {CHOOSING[task]} {kind} {rate}-{SEEDS[0]}"


def best_of(results: Results, task: str, kind: str) -> str:
    """Returns the run, of those that differ in the learning rate, that learned most, or soonest."""
    if kind not in CHOOSE:
        kind = CHOOSE[0]

    def merit(run):
        made = results.runs[run]
        return made["learned"], -made["steps"], made["accuracy"]

    return max((choice(task, kind, r) for r in RATES), key=merit)


def runs_of(
    results: Results, task: str, length: int, kind: str
) -> list[dict]:
    """Returns the three runs of a model on a task at a length, one a seed, at its best rate."""
    names = [f"{task} {length} {kind}-{seed}" for seed in SEEDS]
    if was_chosen(task, length, kind):
        names[0] = best_of(results, task, kind)
    return [results.runs[name] for name in names]


def was_chosen(task: str, length: int, kind: str) -> bool:
    """Returns whether the first seed has been trained already, to choose a rate."""
    return length == CHOOSING[task] and kind in CHOOSE


def main(folder: Path | None = None) -> Results:
    """Makes the runs that are missing: the choice of a learning rate, then three seeds a case."""
    results, runs = Results("comparison-recall", folder), {}
    for task, length in CHOOSING.items():
        for kind in CHOOSE:
            for rate in RATES:
                name = choice(task, kind, rate)
                runs[name] = functools.partial(
                    learn,
                    results,
                    name,
                    task,
                    length,
                    kind,
                    rate,
                    SEEDS[0],
                )

    def again(name, task, length, kind, seed):
        best = results.runs[best_of(results, task, kind)]
        rate = best["learning_rate"]
        return learn(results, name, task, length, kind, rate, seed)

    for task, length in CASES:
        for kind in KINDS:
            for seed in SEEDS[was_chosen(task, length, kind) :]:
                name = f"{task} {length} {kind}-{seed}"
                runs[name] = functools.partial(
                    again, name, task, length, kind, seed
                )
    complete(results, runs)
    return results


def load(
    results: Results, task: str, length: int, kind: str
) -> keras.Model:
    """Returns the trained model of the seed whose weights are stored."""
    model = model_of(kind, task)
    results.load_weights(f"{task} {length} {kind}-{KEPT}", model)
    return model


def measure(results: Results) -> dict:
    """Returns the shares of right answers of the stored weights, by task, model and length."""
    found = {f"{task} {kind}": {} for task in TASKS for kind in KINDS}
    for task, length in CASES:
        for kind in KINDS:
            model = load(results, task, length, kind)
            found[f"{task} {kind}"][str(length)] = right(
                model, task, length
            )
    return {"accuracy_by_length": found}


RECALL = Experiment("comparison-recall", main, measure, one_device=True)
