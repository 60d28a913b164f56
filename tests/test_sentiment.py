"""Sentiment of reviews: padding, pooling, what a classifier reads, and what is stored of it."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_mamba_edu import movie_reviews
from tf_mamba_edu.datasets import TextSplits
from tf_mamba_edu.experiments import (
    EXPERIMENTS,
    reviews_lm,
    sentiment,
    sentiment_pooling,
    sentiment_pretrained,
)
from tf_mamba_edu.experiments.sentiment import (
    PADDING,
    POOLINGS,
    UNKNOWN,
    MaskedPooling,
    Recipe,
    Sentiment,
    classifier,
    encode,
    epoch_of,
    probabilities,
    share_right,
    windows_of,
)
from tf_mamba_edu.experiments.store import Results
from tf_mamba_edu.reviews import Reviews, ReviewSplits

SMALL = Recipe("rotten_tomatoes", epochs=2, length=8, d_model=8, batch_size=4)
poolings = pytest.mark.parametrize("how", POOLINGS)


@pytest.fixture
def few_pieces(monkeypatch):
    monkeypatch.setattr(sentiment, "VOCABULARY", 30)
    monkeypatch.setattr(reviews_lm, "VOCABULARY", 30)


class Letters:
    """A tokenizer in which a is piece 3, b piece 4, and so on."""

    def encode(self, texts):
        return [[ord(c) - ord("a") + 3 for c in text] for text in texts]

    def eos_id(self):
        return 2


# Padding


def test_long_texts_lose_their_middle():
    ids = encode(Letters(), ["abc", "abcdefgh", "", "abcde"], 5)
    wanted = [[4, 5, 6, 0, 0], [4, 5, 9, 10, 11], [0, 0, 0, 0, 0], [4, 5, 6, 7, 8]]
    np.testing.assert_array_equal(ids, wanted)


@poolings
@pytest.mark.parametrize("both_ways", [False, True])
@pytest.mark.parametrize("n_layers", [1, 3])
def test_padding_changes_nothing(how, both_ways, n_layers, few_pieces):
    recipe = dataclasses.replace(SMALL, both_ways=both_ways, pooling=how, n_layers=n_layers)
    model = classifier(recipe)
    rng = np.random.default_rng(0)
    ids = rng.integers(1, 30, (3, 6)).astype("int32")
    ids[1, 4:] = ids[2, 2:] = PADDING
    alone = [model(row[row > 0][None])[0] for row in ids]
    for more in (0, 5):
        padded = np.pad(ids, [[0, 0], [0, more]])
        np.testing.assert_allclose(model(padded), alone, atol=2e-6)


@poolings
def test_pooling_is_what_it_says(how):
    h = np.random.default_rng(0).normal(size=(2, 5, 3)).astype("float32")
    mask = np.array([[True] * 5, [True, True, True, False, False]])
    shown = [h[0], h[1, :3]]
    slow = {
        "mean": lambda x: x.mean(0),
        "max": lambda x: x.max(0),
        "last": lambda x: x[-1],
    }[how]
    wanted = np.stack([slow(x) for x in shown])
    layer = MaskedPooling(how)
    np.testing.assert_allclose(layer(h, mask=mask), wanted, atol=1e-6)
    np.testing.assert_allclose(layer(h), [slow(x) for x in h], atol=1e-6)
    assert MaskedPooling.from_config(layer.get_config()).how == how
    assert np.isfinite(layer(h, mask=np.zeros((2, 5), bool))).all()


def test_an_unknown_pooling_is_refused():
    with pytest.raises(ValueError, match=r"`how` must be one of .*'last'.*how='median'"):
        MaskedPooling("median")


# What is read


def test_a_window_is_a_run_of_pieces_and_short_texts_are_whole():
    pieces = [list(range(2, 22)), [5, 6], [], list(range(5))]
    starts = set()
    for seed in range(200):
        ids = windows_of(pieces, 5, np.random.default_rng(seed))
        assert ids.dtype == np.int32
        np.testing.assert_array_equal(np.diff(ids[0]), 1)
        starts.add(int(ids[0, 0]) - 3)
        np.testing.assert_array_equal(ids[1:], [[6, 7, 0, 0, 0], [0] * 5, [1, 2, 3, 4, 5]])
    assert starts == set(range(16))


def test_an_epoch_hides_pieces_and_no_padding():
    ids = np.tile(np.array([5, 6, 7, 8, 0, 0, 0, 0], np.int32), (10, 1))
    labels = np.arange(10) % 2
    recipe = dataclasses.replace(SMALL, word_dropout=0.5)
    x, y = epoch_of(ids, labels, recipe, 0)
    assert x.shape == (8, 8) and y.shape == (8, 1) and y.dtype == np.float32
    assert (x[:, 4:] == PADDING).all()
    hidden = x[:, :4] == UNKNOWN
    assert 0.2 < hidden.mean() < 0.8
    np.testing.assert_array_equal(x[:, :4][~hidden], ids[:8, :4][~hidden])
    again, _ = epoch_of(ids, labels, recipe, 0)
    other, _ = epoch_of(ids, labels, recipe, 1)
    np.testing.assert_array_equal(again, x)
    assert not np.array_equal(other, x)


def test_an_epoch_keeps_texts_and_labels_together():
    ids = np.arange(1, 10, dtype=np.int32)[:, None].repeat(8, 1)
    recipe = dataclasses.replace(SMALL, word_dropout=0.0)
    x, y = epoch_of(ids, np.arange(1, 10), recipe, 3)
    np.testing.assert_array_equal(x[:, 0], y[:, 0])
    assert len(set(y[:, 0])) == 8


def test_probabilities_are_those_of_the_model(few_pieces):
    model = classifier(SMALL)
    ids = np.random.default_rng(0).integers(0, 30, (7, 8)).astype("int32")
    ids[:, 0] = 3
    wanted = tf.sigmoid(model(ids)[:, 0])
    np.testing.assert_allclose(probabilities(model, ids, batch_size=4), wanted, atol=1e-6)


def test_the_share_right():
    reviews = Reviews(["a", "b", "c", "d"], np.array([1, 0, 1, 0], np.int32))
    assert share_right(np.array([0.9, 0.1, 0.4, 0.2]), reviews) == 0.75


# Training


@pytest.fixture
def praise(monkeypatch, few_pieces):
    """Reviews in which the letter z is praise."""
    rng = np.random.default_rng(0)

    def draw(count):
        labels = np.arange(count) % 2
        texts = []
        for label in labels:
            letters = list(rng.choice(list("abcdef"), 6))
            if label:
                letters[rng.integers(6)] = "z"
            texts.append("".join(letters))
        return Reviews(texts, labels.astype("int32"))

    splits = ReviewSplits(draw(160), draw(40), draw(40))

    class Counts:
        def predict(self, texts):
            return np.array(["z" in text for text in texts], float)

    for module in (sentiment, sentiment_pooling, sentiment_pretrained):
        monkeypatch.setattr(module, "movie_reviews", lambda source: splits)
    for module in (sentiment, reviews_lm):
        monkeypatch.setattr(module, "stored_tokenizer", lambda *_: Letters())
    monkeypatch.setattr(sentiment, "naive_bayes", lambda source: Counts())
    return splits


@pytest.mark.parametrize("windows", [False, True])
def test_a_classifier_learns_and_its_weights_are_kept(praise, windows, tmp_path):
    recipe = dataclasses.replace(SMALL, epochs=6, dropout=0.0, word_dropout=0.0, learning_rate=0.03)
    if windows:  # the z stands outside of some windows: measured on all of the text
        how = dict(windows=True, length=5, length_measured=8, epochs=12)
        recipe = dataclasses.replace(recipe, **how)
    what = Sentiment("praise", recipe, seeds=(0, 1))
    results = what.main(tmp_path)
    assert sorted(results.runs) == ["0", "1"]
    for run in results.runs.values():
        assert run["test"] > 0.9 and run["naive_bayes_test"] == 1.0
        assert len(run["history"]["loss"]) == recipe.epochs
    assert [p.name for p in tmp_path.glob("*.safetensors")] == ["praise-0.safetensors"]
    assert what.measure(results) == {"accuracy": results.runs["0"]["test"]}


def test_poolings_are_compared_and_the_last_state_is_kept(praise, monkeypatch, tmp_path):
    small = {
        name: dataclasses.replace(SMALL, pooling=recipe.pooling, both_ways=recipe.both_ways)
        for name, recipe in sentiment_pooling.RECIPES.items()
    }
    assert len({(r.pooling, r.both_ways) for r in small.values()}) == 5
    small = {name: small[name] for name in ("last one way", "max both ways")}  # each takes a while
    monkeypatch.setattr(sentiment_pooling, "RECIPES", small)
    monkeypatch.setattr(sentiment_pooling, "BASE", SMALL)
    monkeypatch.setattr(sentiment_pooling, "SEEDS", (0,))
    results = sentiment_pooling.main(tmp_path)
    assert set(results.runs) == {f"{name}-0" for name in small}
    kept = [p.name for p in tmp_path.glob("*.safetensors")]
    assert kept == ["sentiment-pooling-last one way-0.safetensors"]
    stored = results.runs["last one way-0"]["test"]
    assert sentiment_pooling.measure(results) == {"accuracy": stored}


def test_a_classifier_takes_over_a_language_model(few_pieces, monkeypatch):
    recipe = dataclasses.replace(SMALL, n_layers=2, both_ways=False, pooling="last", dropout=0.0)
    monkeypatch.setattr(reviews_lm, "N_LAYERS", 2)
    monkeypatch.setattr(reviews_lm, "D_MODEL", SMALL.d_model)
    lm = reviews_lm.language_model()
    model = classifier(recipe)
    sentiment_pretrained.take_over(model, lm)
    ids = np.random.default_rng(0).integers(1, 30, (2, 6)).astype("int32")
    inner = keras.Model(model.input, model.get_layer("norm").output)
    h = lm.embedding(ids)
    for block in lm.blocks:
        h = block(h)
    np.testing.assert_allclose(inner(ids), lm.norm(h), atol=1e-5)


def test_a_language_model_and_then_a_classifier(praise, monkeypatch, tmp_path):
    texts = TextSplits(praise.train.texts, praise.validation.texts, praise.test.texts)
    monkeypatch.setattr(reviews_lm, "language_model_texts", lambda: texts)
    sizes = dict(D_MODEL=8, N_LAYERS=1, STEPS=4, STEPS_PER_EPOCH=2, LENGTH=8, BATCH_SIZE=2)
    for name, value in {**sizes, "MEASURED": 4}.items():
        monkeypatch.setattr(reviews_lm, name, value)
    results = reviews_lm.main(tmp_path)
    run = results.runs["0"]
    assert len(run["history"]["loss"]) == 2 and run["training_tokens"] == 160 * 7
    assert reviews_lm.measure(results)["val_loss"] == run["validation_loss"]

    monkeypatch.setattr(reviews_lm, "Results", lambda name: results)
    monkeypatch.setattr(sentiment_pretrained, "Results", lambda name: results)
    recipe = dataclasses.replace(SMALL, n_layers=1, both_ways=False)
    what = sentiment_pretrained.Pretrained("tuned", recipe, seeds=(0,))
    lm, _ = reviews_lm.load(results)
    model = what.begin(recipe)
    np.testing.assert_array_equal(model.get_layer("embedding").weights[0], lm.embedding.weights[0])
    tuned = what.main(tmp_path)
    assert list(tuned.runs) == ["0"]
    assert what.measure(tuned)["accuracy"] == tuned.runs["0"]["test"]
    scratch = dataclasses.replace(what, start="random weights").begin(recipe)
    same = classifier(recipe)
    for a, b in zip(scratch.weights, same.weights, strict=True):
        np.testing.assert_array_equal(a, b)
    assert not list(tmp_path.glob("*.state"))


def test_an_unknown_start_is_refused(few_pieces):
    what = sentiment_pretrained.Pretrained("what", SMALL, start="scratch")
    with pytest.raises(ValueError, match=r"`start` must be one of .*'scratch'"):
        what.begin(SMALL)


def test_only_texts_that_the_language_model_may_read(praise, monkeypatch):
    allowed = TextSplits(praise.train.texts[3:], [], [])
    monkeypatch.setattr(sentiment_pretrained, "language_model_texts", lambda: allowed)
    everything = sentiment_pretrained.Pretrained("all", SMALL).to_learn_from()
    assert everything is praise.train
    some = sentiment_pretrained.Pretrained("some", SMALL, only_read=True).to_learn_from()
    left_out = {*praise.train.texts[:3]} - {*praise.train.texts[3:]}
    assert left_out and not left_out & {*some.texts}
    label_of = dict(zip(praise.train.texts, praise.train.labels, strict=True))
    assert [label_of[text] for text in some.texts] == some.labels.tolist()


def test_whole_reviews_first_and_then_sentences(praise, monkeypatch, tmp_path):
    recipe = dataclasses.replace(SMALL, n_layers=1, both_ways=False)

    def made(name, **options):
        what = sentiment_pretrained.Pretrained(name, recipe, seeds=(0,), **options)
        monkeypatch.setattr(type(what), "tokenizer", lambda *_: Letters())
        return what

    whole = made("whole", start="random weights")
    stored = whole.main(tmp_path)
    monkeypatch.setattr(sentiment_pretrained, "WHOLE", whole)
    monkeypatch.setattr(sentiment_pretrained, "SENTENCES", whole)
    monkeypatch.setattr(sentiment_pretrained, "Results", lambda name: Results(name, tmp_path))
    fitted = []

    class Counts:
        def fit(self, texts, labels):
            fitted.append((texts, labels.tolist()))
            return self

        def predict(self, texts):
            return np.array(["z" in text for text in texts], float)

    monkeypatch.setattr(sentiment_pretrained, "NaiveBayes", Counts)
    sentiment_pretrained.counts_of_both.cache_clear()
    after = made("after", start="whole reviews")
    again = classifier(recipe)
    stored.load_weights("0", again)
    for a, b in zip(after.begin(recipe).weights, again.weights, strict=True):
        np.testing.assert_array_equal(a, b)
    run = after.main(tmp_path).runs["0"]
    assert run["counts_of_both_test"] == run["counts_of_both_validation"] == 1
    train = praise.train
    assert fitted == [(train.texts * 2, train.labels.tolist() * 2)]
    assert run["recipe"] == stored.runs["0"]["recipe"]
    assert "counts_of_both_test" not in stored.runs["0"]
    sentiment_pretrained.counts_of_both.cache_clear()


def test_a_stream_has_an_end_behind_each_review():
    [ids] = reviews_lm.stream_of(Letters(), ["ab", "c"])
    np.testing.assert_array_equal(ids, [4, 5, 3, 6, 3])


def test_pieces_of_the_language_model_are_those_of_the_classifier():
    ids = encode(Letters(), ["ab"], 2)
    [stream] = reviews_lm.stream_of(Letters(), ["ab"])
    np.testing.assert_array_equal(ids[0], stream[:2])


# What is stored

LONG = pytest.mark.full  # reads all reviews and compares them: minutes
STORED = [
    pytest.param(name, marks=LONG if "imdb" in name else ())
    for name in EXPERIMENTS
    if name.startswith("sentiment") and Results(name).path.exists()
]


@pytest.mark.parametrize("name", STORED)
def test_stored_weights_make_the_stored_accuracy(name):
    found = EXPERIMENTS[name].load().evaluate()["metrics"]
    assert found["accuracy"] == pytest.approx(Results(name).metrics["accuracy"], abs=1e-3)


def test_the_source_of_the_texts_is_the_one_of_the_recipe():
    assert len(movie_reviews("rotten_tomatoes").test) == 852


@LONG
def test_stored_weights_of_the_language_model_make_the_stored_loss():
    results = Results(reviews_lm.NAME)
    found = reviews_lm.measure(results)
    assert found == {k: pytest.approx(v, abs=1e-3) for k, v in results.metrics.items()}
    assert found["val_loss"] == pytest.approx(results.runs["0"]["validation_loss"], abs=1e-3)
