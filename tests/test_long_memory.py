"""Long memory: sequences in chunks, states carried on, a price for writing."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_mamba_edu import SelectiveSSM
from tf_mamba_edu.experiments import long_copying, long_memory, selectivity
from tf_mamba_edu.experiments.long_memory import (
    TASK,
    PricedSSM,
    Reader,
    Recipe,
    learn,
    question,
)
from tf_mamba_edu.experiments.store import Results
from tf_mamba_edu.experiments.token_models import Stage, token_model

# Sequences


@pytest.mark.parametrize(("length", "chunk"), [(16, 4), (16, 16), (12, 1), (64, 32)])
def test_chunks_together_are_a_question(length, chunk):
    places = set()
    for seed in range(90):
        answers, chunks = question(5, length, chunk, seed)
        parts = list(chunks)
        assert [p.shape for p in parts] == [(5, chunk)] * (length // chunk)
        tokens = np.concatenate(parts, axis=1)
        assert (tokens[:, -1] == 0).all() and ((tokens == 0).sum(1) == 2).all()
        first = tokens.argmin(1)
        np.testing.assert_array_equal(tokens[np.arange(5), first + 1], answers)
        assert 1 <= answers.min() and answers.max() < TASK.vocab_size
        places |= set(first)
    assert places <= set(range(length - 2)) and len(places) > 0.9 * (length - 2)


def test_a_chunk_must_divide_the_length():
    with pytest.raises(ValueError, match="`chunk` must divide the length, 10. Received: chunk=4"):
        question(2, 10, 4, 0)


def small_model(make_ssm=None):
    keras.utils.set_random_seed(0)
    return token_model(16, 8, 2, make_ssm, d_state=2)


def test_reading_in_chunks_is_reading_at_once(monkeypatch):
    model = small_model(lambda: SelectiveSSM(2, name="ssm"))
    for w in model.weights:
        w.assign(w + 0.3 * np.random.default_rng(1).normal(size=w.shape))
    reader = Reader(model)
    answers, chunks = question(3, 24, 8, 0)
    states = reader.zero_states(3)
    for part in chunks:
        logits, states = reader.read(part, states)
    tokens = np.concatenate(list(question(3, 24, 8, 0)[1]), axis=1)
    np.testing.assert_allclose(logits, model(tokens)[:, -1], atol=1e-5)
    # and the shares are of all 32 sequences
    monkeypatch.setattr(long_memory, "CHUNK", 8)
    hits = 0
    for first in range(0, 32, 8):
        answers, chunks = question(8, 24, 8, (77, 24, first))
        tokens = np.concatenate(list(chunks), axis=1)
        hits += (model(tokens)[:, -1].numpy().argmax(-1) == answers).sum()
    assert reader.accuracy(24) == round(hits / 32, 4)


# A price


def test_the_price_is_paid_for_steps_above_the_floor():
    price = tf.Variable(0.5, trainable=False)
    layer = PricedSSM(price, d_state=2)
    x = np.random.default_rng(0).normal(size=(2, 5, 8)).astype("float32")
    y = layer(x)
    log_delta = np.log(layer.step_sizes(x))
    wanted = 0.5 * np.maximum(log_delta + 20, 0).mean()
    assert float(layer.losses[0]) == pytest.approx(wanted, rel=1e-5)
    plain = SelectiveSSM(2)
    plain.build((None, None, 8))
    for new, old in zip(plain.weights, layer.weights, strict=True):
        new.assign(old)
    np.testing.assert_array_equal(plain(x), y)
    layer.dt_bias.assign(layer.dt_bias - 40)
    layer(x)
    assert float(layer.losses[-1]) == 0


def test_a_price_makes_steps_smaller(monkeypatch):
    monkeypatch.setattr(long_memory, "accuracy", lambda *_, **__: {"tokens": 0.5})
    monkeypatch.setattr(
        long_memory,
        "token_model",
        lambda V, E, n, make: token_model(V, 8, 1, make),
    )
    recipe = Recipe((Stage(8, 100, 4),), free_steps=50, learning_rate=0.02)
    steps = []
    for price in (0.0, 0.1):
        model, history, curve = learn(dataclasses.replace(recipe, price=price))
        assert history[-1]["step"] == 100 and curve == {"100": 0.5}
        block = model.get_layer("block_0")
        h = model.get_layer("embedding")(TASK.batch(4, 8, seed=5)[0])
        steps.append(float(np.log(block.block.step_sizes(block.norm(h))).mean()))
    assert steps[1] < steps[0] - 0.5


def test_stored_weights_fit_a_model_without_a_price(tmp_path):
    priced = token_model(
        16, 64, 2, lambda: PricedSSM(tf.Variable(0.0, trainable=False), name="ssm")
    )
    results = Results("induction", tmp_path)
    results.save_weights(long_memory.SHIPPED, priced, "float16")
    loaded = long_memory.load(results)
    tokens = TASK.batch(2, 9, seed=0)[0]
    np.testing.assert_allclose(loaded(tokens), priced(tokens), atol=1e-6)


# Copying


def test_copying_has_as_many_steps_as_in_chapter_06():
    assert long_copying.RECIPES["s6"].stages == selectivity.STAGES
    assert long_copying.RECIPES["s6 long"].stages[-1].length == max(long_copying.LENGTHS)
    assert selectivity.S6_RATE == long_copying.RECIPES["s6"].learning_rate


@pytest.mark.parametrize("kind, rate", [("s4d", 0.01), ("s6", 0.005)])
def test_older_weights_are_those_with_the_best_learning_rate(kind, rate, monkeypatch):
    monkeypatch.setattr(long_copying, "LENGTHS", (256,))
    monkeypatch.setattr(long_copying, "SEQUENCES", 64)
    found = long_copying.measure_older(kind)
    assert found["learning_rate"] == rate
    stored = Results("selective-copying-256").metrics["accuracy"][f"{kind} {rate}"]
    assert found["at_256"]["0"] == pytest.approx(stored, abs=0.005)
    assert found["accuracy_by_length"]["256"] == pytest.approx(stored, abs=0.06)


def test_a_run_of_copying_stores_what_it_was(monkeypatch, tmp_path):
    monkeypatch.setattr(long_copying, "LENGTHS", (32, 40))
    monkeypatch.setattr(long_copying, "SEQUENCES", 16)
    monkeypatch.setattr(
        long_copying, "token_model", lambda V, E, n, make: token_model(V, 8, 1, make)
    )
    recipe = long_copying.Recipe((Stage(32, 2, 4),), price=0.001)
    monkeypatch.setattr(long_copying, "RECIPES", {"s6": recipe, "s6 long": recipe})
    monkeypatch.setattr(long_copying, "SEEDS", (0,))
    monkeypatch.setattr(long_copying, "measure_older", lambda kind: {"seed": 0, "kind": kind})
    results = long_copying.main(tmp_path)
    kinds = ("s4d", "s6", "s6 long", "s6 without a price")
    assert sorted(results.runs) == sorted(f"{kind}-0" for kind in kinds)
    metrics = long_copying.measure(results)
    assert metrics["accuracy_by_length"] == results.runs["s6-0"]["accuracy_by_length"]
    assert set(metrics["accuracy_by_length_long"]) == {"32", "40"}
    assert {p.suffix for p in tmp_path.iterdir()} == {".json", ".safetensors"}


# What is stored


def test_stored_weights_of_induction_answer_as_they_did():
    results = Results("induction")
    reader = Reader(long_memory.load(results))
    for length in (64, 1024, 16384):  # all of them take minutes: `experiments evaluate`
        stored = results.metrics["accuracy_by_length"][str(length)]
        assert reader.accuracy(length) == pytest.approx(stored, abs=1e-3)


def test_the_targets_of_induction_are_met():
    results = Results("induction")
    assert list(results.metrics["accuracy_by_length"].values()) == [1.0] * 8
    assert set(results.metrics["accuracy_by_length"]) == {str(n) for n in long_memory.LENGTHS}
    for seed in long_memory.SEEDS:
        run = results.runs[f"mixed-{seed}"]
        assert all(run["accuracy_by_length"][str(2**k)] >= 0.99 for k in (8, 10, 12, 14))
        assert max(run["curve"].values()) >= 0.99


def test_the_targets_of_copying_are_met():
    results = Results("selective-copying")
    assert long_copying.measure(results) == {
        key: pytest.approx(stored, abs=1e-3) for key, stored in results.metrics.items()
    }
    assert results.metrics["accuracy_by_length"]["256"] >= 0.99
    assert results.metrics["accuracy_by_length_long"]["1024"] >= 0.95
    assert results.runs["s4d-0"]["accuracy_by_length"]["256"] < 0.7
