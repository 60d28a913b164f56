"""Selective copying and induction heads: what is asked can be answered, and only by remembering."""

import dataclasses
import itertools
import re

import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_mamba_edu.tasks import InductionHeads, SelectiveCopying, Task

B, L = 5, 24
TASKS = {
    "copying": SelectiveCopying(10, n_tokens=4),
    "two symbols": SelectiveCopying(4, n_tokens=3),
    "one place": SelectiveCopying(6, n_tokens=1),
    "induction": InductionHeads(9),
    "induction with two symbols": InductionHeads(3),
}
tasks = pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)


def same(got, want):
    for one, other in zip(got, want, strict=True):
        np.testing.assert_array_equal(one, other)


def differ(got, want):
    return not np.array_equal(got[0], want[0])


def solve(task, tokens):
    """The answers to one sequence, token by token: {position: answer}."""
    if isinstance(task, SelectiveCopying):
        seen, answers = [], {}
        for position, token in enumerate(tokens):
            if token == 1:
                answers[position] = seen[len(answers)]
            elif token != 0:
                seen.append(token)
        assert len(seen) == len(answers) == task.n_tokens
        return answers
    first = list(tokens).index(0)
    assert [i for i, token in enumerate(tokens) if token == 0] == [first, len(tokens) - 1]
    return {len(tokens) - 1: tokens[first + 1]}


# What is asked, and what is right


@tasks
@pytest.mark.parametrize("extra", [0, 1, 2, 60])
def test_a_slow_reader_answers_everything(task, extra):
    length = task.shortest + extra
    tokens, targets, weights = task.batch(40, length, seed=extra)
    for row in range(40):
        answers = solve(task, tokens[row])
        asked = {i: targets[row, i] for i in range(length) if weights[row, i]}
        assert asked == answers
    assert set(np.unique(weights)) <= {0.0, 1.0}
    assert not np.any(targets[weights == 0])


@tasks
def test_shapes_and_dtypes(task):
    batch = task.batch(B, L, seed=0)
    assert [v.shape for v in batch] == [(B, L)] * 3
    assert [v.dtype for v in batch] == ["int32", "int32", "float32"]


def test_where_copying_asks():
    tokens, _, weights = SelectiveCopying(10, n_tokens=4).batch(B, L, seed=0)
    assert np.all(weights[:, -4:] == 1) and not np.any(weights[:, :-4])
    assert np.all(tokens[:, -4:] == 1) and not np.any(tokens[:, :-4] == 1)


def test_where_induction_asks():
    _, _, weights = InductionHeads(9).batch(B, L, seed=0)
    assert np.all(weights[:, -1] == 1) and not np.any(weights[:, :-1])


@tasks
def test_every_symbol_is_drawn_and_asked_for_equally_often(task):
    tokens, targets, weights = task.batch(2000, task.shortest + 6, seed=1)
    symbols = task.vocab_size - task.specials
    answers = targets[weights == 1]
    for drawn in (answers, tokens[tokens >= task.specials]):
        counts = np.bincount(drawn, minlength=task.vocab_size)
        assert len(counts) == task.vocab_size and not np.any(counts[: task.specials])
        share = counts[task.specials :] / len(drawn)
        np.testing.assert_allclose(share, 1 / symbols, atol=5 * (symbols * len(drawn)) ** -0.5)


@tasks
def test_always_saying_the_same_symbol_is_right_by_chance(task):
    _, targets, weights = task.batch(2000, L, seed=2)
    assert task.chance == pytest.approx(1 / (task.vocab_size - task.specials))
    right = np.mean(targets[weights == 1] == task.vocab_size - 1)
    assert right == pytest.approx(task.chance, abs=0.05)


def test_symbols_to_copy_lie_everywhere_alike():
    tokens, *_ = SelectiveCopying(10, n_tokens=4).batch(4000, 14, seed=3)
    share = np.mean(tokens[:, :-4] > 1, axis=0)  # of 10 places, 4 are taken
    np.testing.assert_allclose(share, 0.4, atol=0.04)
    gaps = [np.diff(np.flatnonzero(row[:-4] > 1)) for row in tokens]
    assert {len(np.unique(row)) for row in gaps} == {1, 2, 3}  # no rhythm
    together = np.mean((tokens[:, 0] > 1) & (tokens[:, 1] > 1))
    assert together == pytest.approx(0.4 * 3 / 9, abs=0.03)


def test_symbols_to_copy_are_drawn_one_by_one():
    _, targets, _ = SelectiveCopying(6, n_tokens=2).batch(4000, 4, seed=4)
    pairs = np.bincount(targets[:, -2] * 6 + targets[:, -1])[2 * 6 + 2 :]
    assert np.count_nonzero(pairs) == 16 and pairs[pairs > 0].min() > 150


@pytest.mark.parametrize("length", [3, 4, 10])
def test_the_special_token_stands_everywhere_alike(length):
    tokens, *_ = InductionHeads(9).batch(4000, length, seed=5)
    share = np.mean(tokens == 0, axis=0)
    np.testing.assert_allclose(share[: length - 2], 1 / (length - 2), atol=0.04)
    assert share[-2] == 0 and share[-1] == 1


@tasks
def test_rows_differ(task):
    tokens, *_ = task.batch(50, L, seed=6)
    assert len(np.unique(tokens, axis=0)) > 40


# Seeds


@tasks
def test_the_seed_decides(task):
    same(task.batch(B, L, seed=7), task.batch(B, L, seed=7))
    same(task.batch(B, L, seed=(7, 1)), task.batch(B, L, seed=(7, 1)))
    seeds = (7, 8, (7, 1), (7, 2), (8, 1))
    batches = [task.batch(B, L, seed=seed) for seed in seeds]
    assert all(differ(*pair) for pair in itertools.combinations(batches, 2))


@tasks
def test_the_state_of_numpy_is_neither_read_nor_changed(task):
    np.random.seed(1)
    batch, after = task.batch(B, L, seed=7), np.random.random()
    np.random.seed(1)
    assert np.random.random() == after
    same(task.batch(B, L, seed=7), batch)


# As a stream


@tasks
def test_a_batch_of_the_stream_depends_on_seed_and_place_alone(task):
    stream = task.dataset(B, L, seed=9)
    for i, batch in enumerate(stream.take(4).as_numpy_iterator()):
        same(batch, task.batch(B, L, seed=(9, i)))
    few = task.dataset(B, L, seed=9, steps=2)
    for _ in range(2):  # each epoch begins anew
        for got, want in zip(few.as_numpy_iterator(), stream.as_numpy_iterator(), strict=False):
            same(got, want)


def test_streams_differ_within_and_between_seeds():
    task = TASKS["copying"]
    seeds = (0, 1, (0, 100), (1, 100))
    streams = [task.dataset(B, L, seed=seed, steps=3).as_numpy_iterator() for seed in seeds]
    batches = list(itertools.chain(*streams))
    assert len(batches) == 12
    assert all(differ(*pair) for pair in itertools.combinations(batches, 2))


@tasks
def test_the_stream_tells_what_it_holds(task):
    stream = task.dataset(B, L, seed=0)
    assert stream.element_spec == tuple(
        tf.TensorSpec((B, L), dtype) for dtype in ("int32", "int32", "float32")
    )
    assert stream.cardinality() < 0  # no end, or none known
    for steps in (1, 3):
        stream = task.dataset(B, L, seed=0, steps=steps)
        assert len(stream) == steps == len(list(stream))


def test_a_stream_is_what_fit_takes():
    task = InductionHeads(5)
    layers = [keras.layers.Embedding(5, 4), keras.layers.Dense(5)]
    model = keras.Sequential([keras.Input((None,), dtype="int32"), *layers])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss, weighted_metrics=["accuracy"])
    data = task.dataset(B, L, seed=0, steps=3)
    history = model.fit(data, epochs=2, shuffle=False, verbose=0)
    assert len(history.epoch) == 2 and np.all(np.isfinite(history.history["loss"]))
    one_row = task.dataset(1, L, seed=0, steps=1)
    accuracy = model.evaluate(one_row, verbose=0, return_dict=True)["accuracy"]
    assert accuracy in (0.0, 1.0)  # one question, L - 1 places without weight


# The tasks as objects


def test_the_sizes_of_the_paper_are_the_defaults():
    copying, induction = SelectiveCopying(), InductionHeads()
    assert (copying.vocab_size, copying.n_tokens, copying.chance) == (18, 16, 1 / 16)
    assert (induction.vocab_size, induction.chance) == (16, 1 / 15)
    assert (copying.shortest, induction.shortest) == (32, 3)


def test_tasks_compare_by_value_and_do_not_change():
    assert SelectiveCopying(8, 2) == SelectiveCopying(8, 2) != SelectiveCopying(8, 3)
    assert len({InductionHeads(8), InductionHeads(8), InductionHeads(9)}) == 2
    with pytest.raises(dataclasses.FrozenInstanceError):
        InductionHeads(8).vocab_size = 9


def test_a_bare_task_asks_nothing():
    with pytest.raises(NotImplementedError):
        Task().batch(B, L, seed=0)


# Bad input


def refuses(message, function, *arguments, **options):
    with pytest.raises(ValueError, match=re.escape(message)):
        function(*arguments, **options)


@pytest.mark.parametrize(
    ("make", "size", "message"),
    [
        (SelectiveCopying, 3, "`vocab_size` must be at least 4: 2 special tokens, and two symbols"),
        (SelectiveCopying, 1, "to tell apart. Received: vocab_size=1"),
        (InductionHeads, 2, "`vocab_size` must be at least 3: 1 special tokens, and two symbols"),
        (Task, 3, "`vocab_size` must be at least 4"),
        (InductionHeads, 0, "`vocab_size` must be a positive integer. Received: vocab_size=0"),
        (
            SelectiveCopying,
            8.0,
            "`vocab_size` must be a positive integer. Received: vocab_size=8.0",
        ),
    ],
)
def test_a_vocabulary_without_two_symbols_is_refused(make, size, message):
    refuses(message, make, size)


@pytest.mark.parametrize("count", [0, -1, 2.0, True, None])
def test_the_number_of_symbols_to_copy_must_be_a_positive_integer(count):
    message = f"`n_tokens` must be a positive integer. Received: n_tokens={count!r}"
    refuses(message, SelectiveCopying, 8, n_tokens=count)


@tasks
def test_a_length_without_room_is_refused(task):
    short = task.shortest - 1
    message = f"`length` must be at least {task.shortest} for this task. Received: length={short}"
    refuses(message, task.batch, B, short, seed=0)
    refuses(message, task.dataset, B, short, seed=0)  # at once, not when read


@pytest.mark.parametrize("size", [0, -4, 30.0, "30", None])
def test_sizes_of_a_batch_must_be_positive_integers(size):
    task = TASKS["copying"]
    received = f"must be a positive integer. Received: {{}}={size!r}"
    refuses(f"`length` {received.format('length')}", task.batch, B, size, seed=0)
    refuses(f"`length` {received.format('length')}", task.dataset, B, size, seed=0)
    refuses(f"`batch_size` {received.format('batch_size')}", task.batch, size, L, seed=0)
