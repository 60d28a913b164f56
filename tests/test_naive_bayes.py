"""Naive Bayes against its formula, feature by feature."""

import numpy as np
import pytest

from tf_mamba_edu import movie_reviews
from tf_mamba_edu.experiments.naive_bayes import NaiveBayes, features

TEXTS = ["good good film", "a good film", "bad film", "not a good film", "so bad"]
LABELS = [1, 1, 0, 0, 0]
NEW = ["good film", "bad bad bad", "a so so film", "unknown", ""]


def by_the_formula(texts, labels, new, smoothing):
    """P(1) for each new text by Bayes' rule, with probabilities instead of logarithms."""
    known = sorted(set().union(*map(features, texts)))
    held = np.array([[f in features(t) for f in known] for t in texts])  # (texts, V)
    joint = []
    for label in (0, 1):
        counts = held[np.array(labels) == label].sum(axis=0) + smoothing  # (V,)
        theta = counts / counts.sum()
        prior = labels.count(label) / len(labels)
        joint.append(
            [prior * np.prod([theta[known.index(f)] for f in features(t) & {*known}]) for t in new]
        )
    return np.array(joint[1]) / np.sum(joint, axis=0)


@pytest.mark.parametrize("smoothing", [1.0, 0.1])
def test_probabilities_are_those_of_the_formula(smoothing):
    found = NaiveBayes(smoothing).fit(TEXTS, LABELS).predict(NEW)
    np.testing.assert_allclose(found, by_the_formula(TEXTS, LABELS, NEW, smoothing), rtol=1e-12)
    np.testing.assert_allclose(found[-2:], 0.4)  # nothing known: as often as in training


def test_features_are_words_and_pairs_of_neighbors():
    assert features("so so bad") == {"so", "bad", "so so", "so bad"}
    assert features("so") == {"so"} and features(" ") == set()


def test_long_texts_overflow_nothing():
    long = " ".join(f"good{i}" for i in range(5000))
    model = NaiveBayes().fit([long, "bad"], [1, 0])
    np.testing.assert_array_equal(model.predict([long, "good0 good1"]) > 0.5, True)
    assert np.isfinite(model.predict([long, "bad"])).all()


@pytest.mark.parametrize("labels", [[1, 0], [1, 1, 1, 1, 1], [0, 1, 2, 0, 1]])
def test_labels_that_do_not_fit_are_refused(labels):
    with pytest.raises(ValueError, match="`labels` must hold a 0 or a 1 for each text, and both"):
        NaiveBayes().fit(TEXTS, labels)


@pytest.mark.parametrize("smoothing", [0, -1.0, float("nan")])
def test_smoothing_must_be_positive(smoothing):
    with pytest.raises(ValueError, match="`smoothing` must be positive. Received: smoothing="):
        NaiveBayes(smoothing)


def test_it_judges_four_of_five_sentences_of_critics_rightly():
    reviews = movie_reviews("rotten_tomatoes")
    model = NaiveBayes().fit(reviews.train.texts, reviews.train.labels)
    right = [
        np.mean((model.predict(part.texts) > 0.5) == part.labels)
        for part in (reviews.validation, reviews.test)
    ]
    np.testing.assert_allclose(right, [0.7934, 0.7923], atol=0.003)
