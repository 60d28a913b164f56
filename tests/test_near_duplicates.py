"""Near-duplicates against a comparison of all pairs."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tf_mamba_edu.near_duplicates import near_duplicates


def runs(text):
    words = "".join(c if c.isalnum() or c == "_" else " " for c in text).split()
    if len(words) < 5:
        return {tuple(words)}
    return {tuple(words[i : i + 5]) for i in range(len(words) - 4)}


def by_comparing_all(texts):
    each = [runs(text) for text in texts]
    return [
        [i, j]
        for i in range(len(each))
        for j in range(i + 1, len(each))
        if len(each[i] & each[j]) >= 0.5 * min(len(each[i]), len(each[j]))
    ]


texts_of_few_words = st.lists(st.text("ab .'", max_size=30), min_size=1, max_size=8)


@given(texts_of_few_words)
def test_the_pairs_are_those_of_comparing_all(texts):
    assert near_duplicates(texts).tolist() == by_comparing_all(texts)


def test_a_run_that_stands_twice_counts_once():
    repeated = "a a a a a a a a a a b"  # two runs: five times a, and that with b
    assert runs(repeated) == {("a",) * 5, ("a",) * 4 + ("b",)}
    assert near_duplicates([repeated, "a a a a a c d e f"]).tolist() == [[0, 1]]


@pytest.mark.parametrize(
    ("one", "other", "near"),
    [
        ("it is good", "it is , good !", True),
        ("it is good", "it is good now", False),
        ("a b c d e f", "a b c d e g", True),  # one of two runs
        ("a b c d e f g", "a b c d e h i", False),  # one of three
        ("a b c d e", "z z z a b c d e z z z z z z z z", True),  # quoted whole
        ("a b c d e", "e d c b a", False),
    ],
)
def test_what_is_near(one, other, near):
    assert near_duplicates([one, other]).tolist() == ([[0, 1]] if near else [])


@pytest.mark.parametrize("texts", [[], ["one text"], ["", "a b c d e"]])
def test_without_pairs(texts):
    pairs = near_duplicates(texts)
    assert pairs.shape == (0, 2) and np.issubdtype(pairs.dtype, np.integer)
