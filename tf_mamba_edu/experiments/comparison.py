"""Chapter 15: Mamba, a GRU and a Transformer: same text, tokens, parameters and steps.

The learning rate of each is the best of four on the texts that choose; then come two more seeds.
Speed and memory are measured in a process of its own for each model and length, since memory that
one has used is not given back for the next. Recall, where a state of fixed size should lose, is an
experiment of its own.
"""

from __future__ import annotations

import functools
import json
import subprocess
import sys
from pathlib import Path

import keras

from tf_mamba_edu.baselines import GRULM, BaselineConfig, TransformerLM
from tf_mamba_edu.config import MambaConfig
from tf_mamba_edu.datasets import king_james_bible
from tf_mamba_edu.experiments.experiment import (
    Experiment,
    fit_or_resume,
)
from tf_mamba_edu.experiments.next_token import (
    VOCABULARY,
    NextToken,
    encode,
    evaluate,
)
from tf_mamba_edu.experiments.store import Results, complete
from tf_mamba_edu.lm import MambaLM
from tf_mamba_edu.training import make_optimizer, random_windows

LENGTH, BATCH_SIZE, STEPS, STEPS_PER_EPOCH = 256, 8, 1000, 250
KINDS = ("mamba", "gru", "transformer")
SINES = "transformer, sines"  # as in 2017; its speed is not measured
TRAINED_KINDS = (*KINDS, SINES)
RATES = (1e-3, 3e-3, 9e-3, 2.7e-2)
SEEDS = (0, 1, 2)
KEPT = SEEDS[1]  # whose weights are stored: the first after the choice
TRAINED = (
    128,
    256,
    512,
    1024,
    2048,
    4096,
)  # lengths of a training step
OTHER_WINDOWS = (64, 1024)  # a trained model reads in these, too
TRAININGS = ("training", "training without XLA")
CONTEXTS = (128, 512, 2048, 4096, 8192, 16384, 32768)
TEXT = NextToken("comparison", None, ())


def model_of(kind: str, seed: int = 0) -> keras.Model:
    """Builds one of the models, of 0.72 million parameters, within 1.2 percent."""
    keras.utils.set_random_seed(seed)
    if kind == "mamba":
        return MambaLM(MambaConfig(VOCABULARY, 128, 4))
    if kind == "gru":
        return GRULM(BaselineConfig(VOCABULARY, 124, 5))
    rotary = kind != SINES
    return TransformerLM(
        BaselineConfig(VOCABULARY, 116, 3, n_heads=4, rotary=rotary)
    )


def compile_model(
    model: keras.Model, rate: float = RATES[1], xla: bool = True
) -> None:
    """Compiles a model with the recipe of all runs, but for the learning rate."""
    model.compile(
        make_optimizer(rate, STEPS),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=xla,
    )


def learn(
    results: Results, run: str, kind: str, rate: float, seed: int
) -> dict:
    """Trains a model on the Bible and measures it on the texts that choose and those that test."""
    texts, tokenizer = king_james_bible(), TEXT.tokenizer(results)
    passages = encode(tokenizer, texts.train)
    model = model_of(kind, seed)
    compile_model(model, rate)

    def data(epoch):
        count = STEPS_PER_EPOCH * BATCH_SIZE
        return random_windows(
            passages, LENGTH, count, 1000 * seed + epoch
        )

    recipe = {
        "kind": kind,
        "seed": seed,
        "steps": STEPS,
        "learning_rate": rate,
    }
    history = fit_or_resume(
        model,
        data,
        STEPS // STEPS_PER_EPOCH,
        results,
        run,
        recipe,
        batch_size=BATCH_SIZE,
    )
    if seed == KEPT:
        results.save_weights(run, model, "float16")
    return {
        **recipe,
        "parameters": model.count_params(),
        "tokens_seen": STEPS * BATCH_SIZE * LENGTH,
        "history": {"loss": [round(v, 4) for v in history["loss"]]},
        "validation": loss_on(model, tokenizer, texts.validation),
        "test": loss_on(model, tokenizer, texts.test),
        "test_loss_by_other_window": {
            str(n): loss_on(model, tokenizer, texts.test, n)["loss"]
            for n in OTHER_WINDOWS
        },
    }


def loss_on(
    model: keras.Model,
    tokenizer,
    texts: list[str],
    length: int = LENGTH,
) -> dict:
    """Returns loss and accuracy on texts, each read in windows of so many tokens."""
    passages = [
        part
        for passage in encode(tokenizer, texts)
        for part in windows_of(passage, length)
    ]
    return evaluate(model, passages, length, batch_size=4096 // length)


def best_of(results: Results, kind: str) -> str:
    """Returns the run, of those that differ in the learning rate, that the validation prefers."""
    choices = [f"{kind} {rate}-{SEEDS[0]}" for rate in RATES]
    return min(
        choices, key=lambda run: results.runs[run]["validation"]["loss"]
    )


def runs_of(results: Results, kind: str) -> list[dict]:
    """Returns the three runs of a model with its best learning rate, one a seed."""
    others = [f"{kind}-{seed}" for seed in SEEDS[1:]]
    return [
        results.runs[run] for run in (best_of(results, kind), *others)
    ]


def windows_of(passage, length: int = LENGTH):
    """Cuts a passage into windows of length + 1 tokens that overlap by one."""
    return [
        passage[start : start + length + 1]
        for start in range(0, len(passage) - 1, length)
    ]


def in_a_process_of_its_own(what: str, kind: str, size: int) -> dict:
    """Runs `comparison_worker` and returns what it prints; how it ended, if it prints nothing."""
    command = [
        sys.executable,
        "-m",
        "tf_mamba_edu.experiments.comparison_worker",
        *(what, kind, str(size)),
    ]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=600
        )
    except subprocess.TimeoutExpired:
        return {"failed": "took more than 10 minutes"}
    if done.returncode:
        return {"failed": "did not fit"}
    return json.loads(done.stdout.splitlines()[-1])


def speeds(kind: str) -> dict:
    """Measures training steps, with and without XLA, and generation, length by length."""
    return {
        "seed": 0,
        "kind": kind,
        "parameters": model_of(kind).count_params(),
        **{
            what: {
                str(n): in_a_process_of_its_own(what, kind, n)
                for n in TRAINED
            }
            for what in TRAININGS
        },
        "generation": {
            str(n): in_a_process_of_its_own("generation", kind, n)
            for n in CONTEXTS
        },
    }


def faster_training(
    results: Results, kind: str, length: int
) -> dict | None:
    """Returns what was measured of a model's training, compiled in the way that is faster.

    None if it went neither way.
    """
    run = results.runs[f"speed {kind}-0"]
    found = [run[what][str(length)] for what in TRAININGS]
    went = [f for f in found if "failed" not in f]
    return max(went, key=lambda f: f["tokens_per_second"], default=None)


def main(folder: Path | None = None) -> Results:
    """Makes the runs that are missing: the choice of a learning rate, two more seeds, speeds."""
    results, runs = Results("comparison", folder), {}
    for kind in TRAINED_KINDS:
        for rate in RATES:
            name = f"{kind} {rate}-{SEEDS[0]}"
            runs[name] = functools.partial(
                learn, results, name, kind, rate, SEEDS[0]
            )

    def again(name, kind, seed):
        rate = results.runs[best_of(results, kind)]["learning_rate"]
        return learn(results, name, kind, rate, seed)

    for kind in TRAINED_KINDS:
        for seed in SEEDS[1:]:
            name = f"{kind}-{seed}"
            runs[name] = functools.partial(again, name, kind, seed)
    for kind in KINDS:
        runs[f"speed {kind}-0"] = functools.partial(speeds, kind)
    complete(results, runs)
    return results


def load(results: Results, kind: str) -> keras.Model:
    """Returns the trained model of the seed whose weights are stored."""
    model = model_of(kind)
    results.load_weights(f"{kind}-{KEPT}", model)
    return model


def measure(results: Results) -> dict:
    """Returns the loss of the stored weights, and the stored speeds at 256 tokens."""
    tokenizer, test = TEXT.tokenizer(results), king_james_bible().test
    return {
        "loss": {
            kind: loss_on(load(results, kind), tokenizer, test)["loss"]
            for kind in TRAINED_KINDS
        },
        "tokens_per_second": {
            kind: faster_training(results, kind, LENGTH)[
                "tokens_per_second"
            ]
            for kind in KINDS
        },
    }


COMPARISON = Experiment("comparison", main, measure)
