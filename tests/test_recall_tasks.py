"""Copying and associative recall: what is asked stands before it, and nowhere twice."""

import numpy as np
import pytest

from tf_mamba_edu.recall_tasks import AssociativeRecall, Copying

TASKS = {"copying": Copying(20), "pairs": AssociativeRecall(20)}
tasks = pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
lengths = pytest.mark.parametrize("length", [4, 8, 20, 36])


def solve(task, tokens):
    """What a reader with a notebook answers, position by position: {position: answer}."""
    half, answers = len(tokens) // 2, {}
    if isinstance(task, Copying):
        assert tokens[half] == 0 and 0 not in tokens[:half]
        return {half + i: word for i, word in enumerate(tokens[:half])}
    value_of = dict(zip(tokens[:half:2], tokens[1:half:2], strict=True))
    assert len(value_of) == half // 2
    for position in range(half, len(tokens), 2):
        answers[position] = value_of.pop(tokens[position])
    return answers


@tasks
@lengths
def test_a_slow_reader_answers_everything(task, length):
    tokens, targets, weights = task.batch(30, length, seed=length)
    assert tokens.shape == targets.shape == weights.shape == (30, length)
    assert (tokens.dtype, targets.dtype, weights.dtype) == (np.int32, np.int32, np.float32)
    assert tokens.min() >= 0 and tokens.max() < 20
    for row in range(30):
        asked = {i: targets[row, i] for i in range(length) if weights[row, i]}
        assert solve(task, tokens[row]) == asked
    assert not np.any(targets[weights == 0])


def test_what_is_copied_comes_next_and_a_value_that_is_asked_for_does_not():
    tokens, targets, weights = TASKS["copying"].batch(30, 20, seed=0)
    seen = weights[:, :-1] == 1
    np.testing.assert_array_equal(targets[:, :-1][seen], tokens[:, 1:][seen])
    tokens, _, weights = TASKS["pairs"].batch(30, 20, seed=0)
    assert not np.any(tokens[:, 11::2]) and np.all(tokens[:, 10::2])


@tasks
def test_answers_are_spread_evenly(task):
    _, targets, weights = task.batch(4000, 16, seed=1)
    answers = targets[weights == 1]
    found = np.bincount(answers, minlength=20)
    wanted = len(answers) * task.chance
    possible = found[-round(1 / task.chance) :]
    assert not found[: 20 - len(possible)].any()
    np.testing.assert_allclose(possible, wanted, rtol=0.1)


def test_pairs_are_asked_in_another_order():
    tokens, *_ = TASKS["pairs"].batch(200, 36, seed=2)
    told, asked = tokens[:, :18:2], tokens[:, 18::2]
    assert np.mean(told == asked) == pytest.approx(1 / 9, abs=0.05)


@tasks
def test_the_same_seed_draws_the_same(task):
    one, same, other = (task.batch(3, 8, seed=s)[0] for s in (5, 5, 6))
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)


@pytest.mark.parametrize("length", [5, 7, 40, 42])
def test_lists_that_cannot_be_are_refused(length):
    with pytest.raises(ValueError, match=rf"`length` must be even and below 40.*length={length}"):
        TASKS["copying"].batch(2, length, seed=0)


@pytest.mark.parametrize("length", [6, 9, 44])
def test_pairs_that_cannot_be_are_refused(length):
    with pytest.raises(ValueError, match=rf"`length` must be a multiple of 4.*length={length}"):
        TASKS["pairs"].batch(2, length, seed=0)


@tasks
def test_too_short_is_refused(task):
    with pytest.raises(ValueError, match="`length` must be at least"):
        task.batch(2, 1, seed=0)
