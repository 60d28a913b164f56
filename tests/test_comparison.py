"""Mamba, GRU, Transformer: equal sizes, and what is measured of them."""

import functools
import json
import subprocess
import sys

import numpy as np
import pytest

from tf_mamba_edu import MambaConfig, MambaLM
from tf_mamba_edu.baselines import GRULM, BaselineConfig, TransformerLM
from tf_mamba_edu.experiments import comparison, comparison_worker
from tf_mamba_edu.experiments.comparison import KINDS, RATES, SINES, TRAINED_KINDS
from tf_mamba_edu.experiments.next_token import NextToken
from tf_mamba_edu.experiments.store import Results, complete

kinds = pytest.mark.parametrize("kind", KINDS)


def test_all_have_as_many_parameters():
    sizes = {kind: comparison.model_of(kind).count_params() for kind in TRAINED_KINDS}
    assert max(sizes.values()) / min(sizes.values()) < 1.05, sizes


def test_one_transformer_turns_its_keys_and_the_other_adds_sines():
    configs = {kind: comparison.model_of(kind).config for kind in ("transformer", SINES)}
    assert {kind: config.rotary for kind, config in configs.items()} == {
        "transformer": True,
        SINES: False,
    }


def test_windows_ask_for_every_token_but_the_first():
    passage = np.arange(1000)
    asked = np.concatenate([w[1:] for w in comparison.windows_of(passage)])
    np.testing.assert_array_equal(asked, passage[1:])
    assert {len(w) for w in comparison.windows_of(passage)[:-1]} == {comparison.LENGTH + 1}


def small_model(kind, seed=0):
    if kind == "mamba":
        return MambaLM(MambaConfig(50, 8, 1, d_state=2))
    if kind == "gru":
        return GRULM(BaselineConfig(50, 8, 1))
    return TransformerLM(BaselineConfig(50, 8, 1, n_heads=2, rotary=kind != SINES))


@pytest.fixture
def small(monkeypatch):
    for module in (comparison, comparison_worker):
        monkeypatch.setattr(module, "model_of", small_model)
        monkeypatch.setattr(module, "VOCABULARY", 50)
    sizes = dict(STEPS=4, STEPS_PER_EPOCH=2, BATCH_SIZE=2, LENGTH=16, OTHER_WINDOWS=(8, 32))
    for name, value in sizes.items():
        monkeypatch.setattr(comparison, name, value)
    text = np.random.default_rng(0).integers(0, 50, 400).astype("int32")
    monkeypatch.setattr(comparison, "encode", lambda *_: [text])
    monkeypatch.setattr(NextToken, "tokenizer", lambda *_: None)


@kinds
def test_a_run_is_measured_with_the_weights_that_are_stored(kind, small, tmp_path):
    results = Results("comparison", tmp_path)
    choice, name = f"{kind} 0.003-0", f"{kind}-{comparison.KEPT}"
    complete(
        results,
        {
            run: functools.partial(comparison.learn, results, run, kind, 3e-3, int(run[-1]))
            for run in (choice, name)
        },
    )
    assert [p.stem for p in tmp_path.glob("*.safetensors")] == [f"comparison-{name}"]
    found = results.runs[name]
    assert found["tokens_seen"] == 4 * 2 * 16 and found["test"]["tokens"] == 399
    again = small_model(kind)
    results.load_weights(name, again)
    assert comparison.loss_on(again, None, [])["loss"] == found["test"]["loss"]
    assert found["test_loss_by_other_window"].keys() == {"8", "32"}
    assert not list(tmp_path.glob("*.state"))


def test_the_best_rate_is_chosen_by_the_validation_texts_and_used_again(small, tmp_path):
    results = Results("comparison", tmp_path)
    losses = {1e-3: 3.0, 3e-3: 1.0, 9e-3: 2.0, 2.7e-2: 4.0}

    def learn(results, run, kind, rate, seed):
        test = {"loss": -losses[rate]}  # would choose another one
        validation = {"loss": losses[rate]}
        return {"learning_rate": rate, "seed": seed, "test": test, "validation": validation}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(comparison, "learn", learn)
        patch.setattr(comparison, "speeds", lambda kind: {"seed": 0})
        comparison.main(tmp_path)
    results.reread()
    for kind in TRAINED_KINDS:
        runs = comparison.runs_of(results, kind)
        assert [run["seed"] for run in runs] == [0, 1, 2]
        assert {run["learning_rate"] for run in runs} == {3e-3}
    assert len(results.runs) == len(TRAINED_KINDS) * (len(RATES) + 2) + len(KINDS)


@kinds
def test_the_worker_times_training_and_generation(kind, small, monkeypatch):
    monkeypatch.setattr(comparison_worker, "TOKENS", 32)
    monkeypatch.setattr(comparison_worker, "PART", 8)
    monkeypatch.setattr(comparison_worker, "NEW", 2)
    for xla in (True, False):
        trained = comparison_worker.train(kind, 16, xla=xla)
        assert trained["tokens_per_second"] > 0 and trained["peak_mib"] >= 0
    caches = [comparison_worker.generate(kind, n)["cache_bytes"] for n in (8, 24)]
    assert (caches[1] > caches[0]) == (kind == "transformer")


def test_what_does_not_fit_is_a_result(monkeypatch):
    def run(command, **options):
        assert command[-3:] == ["training", "gru", "8"]
        return subprocess.CompletedProcess(command, -9, "", "")

    monkeypatch.setattr(comparison.subprocess, "run", run)
    found = comparison.in_a_process_of_its_own("training", "gru", 8)
    assert found == {"failed": "did not fit"}

    def slow(command, timeout, **options):
        raise subprocess.TimeoutExpired(command, timeout)

    monkeypatch.setattr(comparison.subprocess, "run", slow)
    assert comparison.in_a_process_of_its_own("training", "gru", 8)["failed"].startswith("took")


def test_the_faster_of_two_compilations_counts(tmp_path):
    results = Results("comparison", tmp_path)
    slow, fast, no = {"tokens_per_second": 5}, {"tokens_per_second": 9}, {"failed": "did not fit"}
    results.runs["speed gru-0"] = {
        "training": {"8": slow, "16": no, "32": no},
        "training without XLA": {"8": fast, "16": slow, "32": no},
    }
    found = [comparison.faster_training(results, "gru", n) for n in (8, 16, 32)]
    assert found == [fast, slow, None]


def test_the_worker_prints_one_line_of_json():
    command = [sys.executable, "-m", "tf_mamba_edu.experiments.comparison_worker"]
    done = subprocess.run(
        [*command, "generation", "gru", "16"], capture_output=True, text=True, check=True
    )
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["cache_bytes"] == 5 * 124 * 4


# What is stored

MADE = [name for name in ("comparison",) if Results(name).path.exists()]


@pytest.mark.parametrize("name", MADE)
def test_stored_weights_make_the_stored_loss(name):
    results = Results(name)
    found = comparison.measure(results)
    assert found["loss"] == pytest.approx(results.metrics["loss"], abs=1e-3)
    for kind in TRAINED_KINDS:
        run = results.runs[f"{kind}-{comparison.KEPT}"]
        assert found["loss"][kind] == pytest.approx(run["test"]["loss"], abs=1e-3)
