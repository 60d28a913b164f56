"""Chapter 15: Mamba, a GRU and a Transformer: same text, tokens, parameters and steps.

Loss of three seeds each. Speed and memory are measured in a process of its own for each model and
length, since memory that one has used is not given back for the next. Recall, where a state of
fixed size should lose, is a task of its own.
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
    means,
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

LENGTH, BATCH_SIZE, STEPS, STEPS_PER_EPOCH = 256, 8, 1500, 250
RATES = {"mamba": 4e-3, "gru": 4e-3, "transformer": 2e-3}
SEEDS = (0, 1, 2)
TRAINED = (
    128,
    256,
    512,
    1024,
    2048,
    4096,
)  # lengths of a training step
CONTEXTS = (128, 512, 2048, 4096, 8192, 16384, 32768)
TEXT = NextToken("comparison", None, ())


def model_of(kind: str, seed: int = 0) -> keras.Model:
    """Builds one of the three; their numbers of parameters differ by 1.2 percent at most."""
    keras.utils.set_random_seed(seed)
    if kind == "mamba":
        return MambaLM(MambaConfig(VOCABULARY, 128, 4))
    if kind == "gru":
        return GRULM(BaselineConfig(VOCABULARY, 124, 5))
    return TransformerLM(BaselineConfig(VOCABULARY, 116, 3, n_heads=4))


def compile_model(model: keras.Model, kind: str) -> None:
    """Compiles a model with the recipe of all runs, but for the learning rate."""
    model.compile(
        make_optimizer(RATES[kind], STEPS),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=True,
    )


def learn(results: Results, run: str, kind: str, seed: int) -> dict:
    """Trains a model on the Bible and measures it on the held-out blocks."""
    texts, tokenizer = king_james_bible(), TEXT.tokenizer(results)
    passages = encode(tokenizer, texts.train)
    model = model_of(kind, seed)
    compile_model(model, kind)

    def data(epoch):
        count = STEPS_PER_EPOCH * BATCH_SIZE
        return random_windows(
            passages, LENGTH, count, 1000 * seed + epoch
        )

    recipe = {
        "kind": kind,
        "seed": seed,
        "steps": STEPS,
        "learning_rate": RATES[kind],
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
    results.save_weights(run, model, "float16")
    return {
        **recipe,
        "parameters": model.count_params(),
        "tokens_seen": STEPS * BATCH_SIZE * LENGTH,
        "history": {"loss": [round(v, 4) for v in history["loss"]]},
        "held_out": held_out_loss(model, tokenizer),
    }


def held_out_loss(model: keras.Model, tokenizer) -> dict:
    """Returns loss and accuracy on the held-out blocks, each read in windows of 256 tokens."""
    passages = [
        part
        for passage in encode(tokenizer, king_james_bible().test)
        for part in windows_of(passage)
    ]
    return evaluate(model, passages, LENGTH, batch_size=16)


def windows_of(passage):
    """Cuts a passage into windows of 257 tokens that overlap by one."""
    return [
        passage[start : start + LENGTH + 1]
        for start in range(0, len(passage) - 1, LENGTH)
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
    """Measures training steps and generation of a model, length by length."""
    return {
        "seed": 0,
        "kind": kind,
        "parameters": model_of(kind).count_params(),
        "training": {
            str(n): in_a_process_of_its_own("train", kind, n)
            for n in TRAINED
        },
        "generation": {
            str(n): in_a_process_of_its_own("generate", kind, n)
            for n in CONTEXTS
        },
    }


def main(folder: Path | None = None) -> Results:
    """Makes the runs that are missing."""
    results, runs = Results("comparison", folder), {}
    for seed in SEEDS:
        for kind in RATES:
            name = f"{kind}-{seed}"
            runs[name] = functools.partial(
                learn, results, name, kind, seed
            )
    for kind in RATES:
        runs[f"speed {kind}-0"] = functools.partial(speeds, kind)
    complete(results, runs)
    return results


def measure(results: Results) -> dict:
    """Returns the mean loss of the stored weights, and the stored speeds at 256 tokens."""
    tokenizer, losses = TEXT.tokenizer(results), {}
    for kind in RATES:
        for seed in SEEDS:
            model = model_of(kind, seed)
            results.load_weights(f"{kind}-{seed}", model)
            found = held_out_loss(model, tokenizer)
            losses.setdefault(kind, []).append(found["loss"])
    return {
        "loss": means(losses),
        "tokens_per_second": {
            kind: results.runs[f"speed {kind}-0"]["training"][
                str(LENGTH)
            ]["tokens_per_second"]
            for kind in RATES
        },
    }


COMPARISON = Experiment("comparison", main, measure)
