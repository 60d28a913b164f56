"""Next-token prediction on the Bible: texts that are held out, counting, measuring, training."""

import dataclasses
import itertools
import json
import math
from collections import Counter

import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_mamba_edu import MambaConfig, MambaLM, datasets
from tf_mamba_edu.experiments import EXPERIMENTS, experiment, next_token, windows
from tf_mamba_edu.experiments.next_token import FULL, ONE, THREE, NextToken, Recipe, first_part
from tf_mamba_edu.experiments.ngrams import NGram, followers
from tf_mamba_edu.experiments.store import Results

WHOLE = (ONE, THREE, FULL)
experiments = pytest.mark.parametrize("what", WHOLE, ids=[w.name for w in WHOLE])


# Texts


@pytest.mark.parametrize("fraction", [1 / 14, 1 / 8])
def test_a_first_part_is_cut_in_three_and_nothing_is_lost(fraction):
    text, parts = datasets.king_james_text(), first_part(fraction)
    [train], [selection], [test] = dataclasses.astuple(parts)
    assert text.startswith(train + selection + test)
    length = len(text) * fraction
    for part, share in ((train, 0.65), (selection, 0.05), (test, 0.30)):
        assert len(part) == pytest.approx(share * length, abs=30)
        assert part[-1].isspace()  # no word is cut


@experiments
def test_no_held_out_text_is_trained_on(what):
    texts = what.texts
    train = "".join(texts.train)
    for passage in (*texts.test, *texts.validation):
        middle = passage[len(passage) // 2 :][:400]
        assert middle not in train
    assert set(texts.test).isdisjoint(texts.validation)


@experiments
def test_no_held_out_text_teaches_the_tokenizer(what, monkeypatch, tmp_path):
    seen = []

    class Made:
        def serialized_model_proto(self):
            return b"pieces"

    def train_tokenizer(passages, size):
        seen.extend(passages)
        return Made()

    monkeypatch.setattr(experiment, "train_tokenizer", train_tokenizer)
    what.tokenizer(Results(what.name, tmp_path))
    taught = "".join(seen)
    for passage in (*what.texts.test, *what.texts.validation):
        for place in np.linspace(0, len(passage) - 500, 9).astype(int):
            assert passage[place : place + 400] not in taught
    assert all(passage in taught for passage in what.texts.train)
    if what is not FULL:
        rest = datasets.king_james_text()[-1000:]
        assert rest in taught  # of the Bible, where the training part is too short


def test_the_tokenizer_is_learned_once(monkeypatch, tmp_path):
    what = NextToken("next-token-x", 1 / 14, (Recipe(10, 1),))
    results = Results(what.name, tmp_path)
    made = what.tokenizer(results)
    assert made.get_piece_size() == next_token.VOCABULARY
    monkeypatch.setattr(experiment, "train_tokenizer", None)
    again = what.tokenizer(Results(what.name, tmp_path))
    assert again.serialized_model_proto() == made.serialized_model_proto()
    text = what.texts.test[0][:2000]
    assert again.decode(again.encode(text)).split() == text.split()


# Counting


def witten_bell(passages, V, n):
    """P(w | h) by the definition, one number at a time."""
    counts = [Counter() for _ in range(n)]
    for passage in passages:
        for size in range(n):
            counts[size].update(tuple(passage[i - size : i + 1]) for i in range(size, len(passage)))

    def p(history, w):
        if history is None:
            return 1 / V
        shorter = history[1:] if history else None
        found = {g[-1]: c for g, c in counts[len(history)].items() if g[:-1] == history}
        if not found:
            return p(shorter, w)
        total, kinds = sum(found.values()), len(found)
        return (found.get(w, 0) + kinds * p(shorter, w)) / (total + kinds)

    return p


@pytest.mark.parametrize("n", [1, 2, 3])
def test_an_ngram_is_what_its_formula_says(n):
    rng = np.random.default_rng(n)
    passages = [rng.integers(0, 5, size) for size in (30, 1, 12)]
    model = NGram(n, 5, passages)
    held_out = rng.integers(0, 5, 20)
    places = np.arange(1, 20)
    P = model.probabilities(held_out, places)
    np.testing.assert_allclose(P.sum(1), 1, atol=1e-12)
    slow = witten_bell([p.tolist() for p in passages], 5, n)
    for row, place in zip(P, places, strict=True):
        history = tuple(held_out[max(0, place - n + 1) : place].tolist())
        np.testing.assert_allclose(row, [slow(history, w) for w in range(5)], atol=1e-12)
    found = model.measure([held_out], batch=7)
    right = held_out[places]
    assert found["tokens"] == 19
    assert found["loss"] == pytest.approx(-np.log(P[np.arange(19), right]).mean(), abs=1e-4)
    assert found["accuracy"] == pytest.approx((P.argmax(1) == right).mean(), abs=1e-4)


def test_counts_do_not_cross_passages():
    assert list(followers(np.array([3, 4, 5]), 1)) == [((3,), 4), ((4,), 5)]
    model = NGram(2, 3, [np.array([0, 1]), np.array([2, 0])])
    [P] = model.probabilities(np.array([1, 2]), [1])  # nothing ever followed 1
    np.testing.assert_allclose(P, model.probabilities(np.array([2]), [0])[0])


# Measuring


def reader(V=9):
    keras.utils.set_random_seed(3)
    lm = MambaLM(MambaConfig(V, 8, 2, d_state=2))
    for w in lm.weights:
        w.assign(w + 0.3 * np.random.default_rng(0).normal(size=w.shape))
    return lm


@pytest.mark.parametrize("sizes", [(40,), (40, 3, 17, 26, 9)])
def test_every_token_is_predicted_once_from_all_before_it(sizes):
    lm, rng = reader(), np.random.default_rng(1)
    passages = [rng.integers(0, 9, size).astype("int32") for size in sizes]
    losses, hits = [], []
    for passage in passages:
        said = tf.nn.log_softmax(lm(passage[None, :-1])[0]).numpy()
        losses += [-row[token] for row, token in zip(said, passage[1:], strict=True)]
        hits += (said.argmax(1) == passage[1:]).tolist()
    found = next_token.evaluate(lm, passages, length=8, batch_size=2)
    assert found["tokens"] == sum(sizes) - len(sizes)
    assert found["loss"] == pytest.approx(np.mean(losses), abs=2e-4)
    assert found["accuracy"] == pytest.approx(np.mean(hits), abs=1e-4)


def test_bits_per_character():
    found = {"loss": math.log(2), "tokens": 6}
    assert next_token.bits_per_character(found, ["abcd", "ef", "ghijkl"]) == 0.5


# Training


@pytest.fixture
def quick(monkeypatch, tmp_path):
    """An experiment of a few steps on little text."""
    monkeypatch.setattr(next_token, "VOCABULARY", 60)
    real = MambaConfig
    monkeypatch.setattr(
        next_token, "MambaConfig", lambda V, E, n: real(V, E, n, d_state=2, d_conv=2)
    )
    recipe = Recipe(4, 1, d_model=8, length=16, batch_size=2, learning_rate=0.05, steps_per_epoch=2)
    other = dataclasses.replace(recipe, learning_rate=1e-9)
    return NextToken("quick", 1 / 400, (other, recipe), (0, 1), longer=recipe), tmp_path


def test_the_recipe_with_the_lowest_loss_is_chosen(quick):
    what, folder = quick
    results = what.main(folder)
    assert sorted(results.runs) == ["choice 0-0", "choice 1-0", "chosen-0", "chosen-1", "longer-0"]
    losses = [results.runs[f"choice {i}-0"]["selection_loss"] for i in (0, 1)]
    assert losses[1] < losses[0]  # of the one that learns nothing
    for name in ("chosen-0", "chosen-1"):
        run = results.runs[name]
        assert run["recipe"]["learning_rate"] == 0.05
        assert run["seed"] == run["recipe"]["seed"] == int(name[-1])
        assert run["held_out"]["tokens"] == run["ngrams"]["3"]["tokens"]
        assert run["held_out"]["bits_per_character"] > 0
    assert {p.name for p in folder.iterdir()} == {
        *("quick.json", "quick.model"),
        *("quick-chosen-0.safetensors", "quick-longer-0.safetensors"),
    }
    model, _ = what.load(results, "chosen-0")
    encoded = next_token.encode(what.tokenizer(results), what.texts.test)
    held_out = results.runs["chosen-0"]["held_out"]
    found = next_token.evaluate(model, encoded)
    assert found["loss"] == pytest.approx(held_out["loss"], abs=1e-3)
    assert what.measure(results)["val_loss"] == results.runs["longer-0"]["held_out"]["loss"]


def test_what_is_chosen_trains_on_the_selection_slice_too(quick):
    what, folder = quick
    results = what.main(folder)
    tokenizer = what.tokenizer(results)
    sizes = [len(tokenizer.encode("".join(part))) for part in dataclasses.astuple(what.texts)]
    for name, run in results.runs.items():
        if name.startswith("chosen"):
            assert run["training_tokens"] == pytest.approx(sizes[0] + sizes[1], abs=3)


def test_tokens_are_hidden_from_the_reader_and_not_from_the_loss(quick, monkeypatch):
    what, folder = quick
    seen = []

    def fit_or_resume(model, data, epochs, *_, **__):
        seen.extend(data(e) for e in range(epochs))
        return {"loss": [1.0]}

    monkeypatch.setattr(next_token, "fit_or_resume", fit_or_resume)
    passages = [np.arange(1, 50, dtype=np.int32)]
    recipe = dataclasses.replace(what.recipes[0], token_dropout=0.5, batch_size=200)
    next_token.fit(Results("quick", folder), "x", recipe, passages)
    (x, y), (later, _) = seen
    hidden = x == next_token.UNKNOWN
    assert 0.4 < hidden.mean() < 0.6 and (y > 0).all()
    np.testing.assert_array_equal(x[~hidden] + 1, y[~hidden])
    assert not np.array_equal(x, later)


# Windows


def test_windows_overlap_and_their_targets_follow():
    x, y = windows.windows_of(np.arange(10), 4)
    assert x.shape == (6, 4)
    np.testing.assert_array_equal(x[2], [2, 3, 4, 5])
    np.testing.assert_array_equal(y, [4, 5, 6, 7, 8, 9])


def test_leaked_windows_are_of_the_training_text_and_honest_ones_are_not(monkeypatch):
    monkeypatch.setattr(windows, "encode", lambda tokenizer, texts: tokenizer(texts))
    text = np.random.default_rng(0).integers(0, 10**6, 3000)

    def tokenizer(texts):
        rest = texts == windows.TEXT.texts.test
        return [text[2000:] if rest else text[:2000]]

    recipe = dataclasses.replace(windows.RECIPE, measured=100, length=8)
    parts = windows.parts_of(recipe, tokenizer)
    assert [len(parts[k][0]) for k in ("train", "leaked", "honest")] == [1395, 100, 100]
    read = set(parts["train"][0].ravel().tolist())
    inside = {k: np.isin(parts[k][1], list(read)).mean() for k in ("leaked", "honest")}
    assert inside["leaked"] > 0.99 and inside["honest"] == 0
    pairs = {tuple(row) for row in parts["train"][0].tolist()}
    assert not pairs & {tuple(row) for row in parts["leaked"][0].tolist()}


def test_the_run_on_windows_measures_all_three(monkeypatch, tmp_path):
    recipe = windows.Recipe(length=8, d_model=8, batch_size=8, passes=2, measured=32)
    parts = {
        k: (np.random.default_rng(i).integers(0, 9, (48, 8)), np.arange(48) % 9)
        for i, k in enumerate(("train", "leaked", "honest"))
    }
    parts = {k: (x.astype("int32"), y.astype("int32")) for k, (x, y) in parts.items()}
    monkeypatch.setattr(windows, "parts_of", lambda *_: parts)
    monkeypatch.setattr(windows, "RECIPE", recipe)
    monkeypatch.setattr(windows, "VOCABULARY", 9)
    monkeypatch.setattr(NextToken, "tokenizer", lambda *_: None)
    results = windows.WINDOWS.run(tmp_path)
    history = results.runs["0"]["history"]
    for kind in ("train", "leaked", "honest"):
        assert len(history[f"{kind}_loss"]) == len(history[f"{kind}_accuracy"]) == 4
    assert history["train_loss"][-1] < history["train_loss"][0]
    assert results.metrics["val_loss"] == history["honest_loss"][-1]
    assert results.metrics["training_accuracy"] == history["train_accuracy"][-1]
    assert results.runs["0"]["parameters"] > 8 * 8 * 9
    assert json.loads((tmp_path / "next-token-windows.json").read_text())["runs"]


# What is stored


@experiments
def test_stored_runs_are_those_of_the_recipes(what):
    results = Results(what.name)
    recipes = [dataclasses.asdict(r) for r in what.recipes]
    for name, run in results.runs.items():
        recipe = {**run["recipe"], "seed": 0}
        allowed = [*recipes, *([dataclasses.asdict(what.longer)] if what.longer else [])]
        assert recipe in allowed, name
        steps = run["recipe"]["steps"] // run["recipe"]["steps_per_epoch"]
        assert len(run["history"]["loss"]) == steps
    if len(recipes) > 1:
        chosen = dataclasses.asdict(what.chosen(results))
        assert {**results.runs["chosen-0"]["recipe"], "seed": 0} == chosen


@experiments
def test_stored_weights_make_the_stored_metrics(what):
    found = EXPERIMENTS[what.name].load().evaluate()["metrics"]
    stored = Results(what.name).metrics
    assert found.keys() == stored.keys()
    for key, value in stored.items():
        assert found[key] == pytest.approx(value, abs=1e-3), key


def test_the_targets_are_met():
    one = Results("next-token-1")
    seeds = [one.runs[f"chosen-{s}"] for s in ONE.seeds]
    assert max(run["held_out"]["loss"] for run in seeds) <= 4.92
    for run, n in itertools.product(seeds, "23"):
        assert run["held_out"]["loss"] < run["ngrams"][n]["loss"]
    full = Results("next-token-full").runs["chosen-0"]["held_out"]
    assert full["loss"] <= 3.70 and full["accuracy"] >= 0.30
    course = Results("next-token-windows")
    assert course.metrics["training_accuracy"] > 0.9
    honest = course.runs["0"]["history"]["honest_loss"]
    assert honest[-1] > min(honest) + 0.5
