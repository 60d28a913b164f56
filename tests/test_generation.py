"""Sampling against exact probabilities, and generation against one full pass a token."""

import itertools
import random

import keras
import numpy as np
import pytest
import scipy.stats
import tensorflow as tf

from tf_mamba_edu import MambaConfig, MambaLM
from tf_mamba_edu.generation import sample_token

V, NEW = 11, 12
PROBABILITIES = np.array([0.05, 0.4, 0.02, 0.3, 0.15, 0.08])
LOGITS = np.log(PROBABILITIES).astype("float32")


@pytest.fixture(scope="module")
def lm():
    keras.utils.set_random_seed(3)
    model = MambaLM(MambaConfig(V, 8, 1, d_state=2), method="recurrent")
    for variable in model.trainable_variables:  # far from uniform predictions
        variable.assign(variable * 3)
    return model


PROMPT = np.array([[1, 2, 3, 4], [5, 6, 7, 8]])


def draws(count=20_000, logits=LOGITS, seed=(0, 0), **options):
    """Many tokens from the same logits: one a row."""
    return sample_token(np.tile(logits, (count, 1)), seed, **options).numpy()


def fits(tokens, probabilities):
    """Whether a chi-square test finds the drawn tokens in keeping with these probabilities."""
    counts = np.bincount(tokens, minlength=len(probabilities))
    possible = probabilities > 0
    assert not np.any(counts[~possible])
    expected = probabilities[possible] / probabilities.sum() * len(tokens)
    return scipy.stats.chisquare(counts[possible], expected).pvalue > 0.01


def only(kept):
    """The probabilities of these tokens, 0 for the others."""
    return PROBABILITIES * [token in kept for token in range(6)]


# One token


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.5])
def test_tokens_follow_the_softmax_of_logits_over_temperature(temperature):
    tokens = draws(temperature=temperature)
    assert fits(tokens, PROBABILITIES ** (1 / temperature))
    assert not fits(tokens, PROBABILITIES ** (1 / (1.2 * temperature)))


def test_temperature_zero_takes_the_likeliest():
    logits = np.array([LOGITS, LOGITS[::-1]])
    for seed in range(5):
        assert sample_token(logits, (seed, 0), temperature=0).numpy().tolist() == [1, 4]


def test_a_low_temperature_comes_close_to_greedy():
    assert set(draws(temperature=1e-3)) == {1}


@pytest.mark.parametrize(
    ("k", "kept"), [(1, {1}), (2, {1, 3}), (4, {1, 3, 4, 5}), (99, set(range(6)))]
)
def test_top_k_keeps_the_k_likeliest_in_proportion(k, kept):
    tokens = draws(top_k=k)
    assert set(tokens) == kept
    assert k == 1 or fits(tokens, only(kept))


@pytest.mark.parametrize(
    ("p", "kept"),
    [
        (1e-9, {1}),
        (0.39, {1}),
        (0.41, {1, 3}),
        (0.69, {1, 3}),
        (0.71, {1, 3, 4}),
        (0.94, {1, 3, 4, 5, 0}),
        (1.0, {0, 1, 2, 3, 4, 5}),
    ],
)
def test_top_p_keeps_the_fewest_tokens_that_reach_p(p, kept):
    tokens = draws(top_p=p)
    assert set(tokens) == kept
    assert len(kept) == 1 or fits(tokens, only(kept))


def test_top_p_applies_to_what_temperature_and_top_k_leave():
    assert set(draws(top_k=3, top_p=0.48)) == {1, 3}  # 0.4 / 0.85 = 0.47
    assert set(draws(top_k=3, top_p=0.46)) == {1}
    assert set(draws(temperature=1.0, top_p=0.3)) == {1}
    assert set(draws(temperature=5.0, top_p=0.3)) == {1, 3}  # flatter: 0.21 and 0.20


def test_of_equal_logits_no_more_stay_than_asked_for():
    equal = np.zeros(10, "float32")
    assert len(set(draws(logits=equal, top_k=3))) == 3
    assert len(set(draws(logits=equal, top_p=0.25))) == 3


def test_a_seed_fixes_the_tokens_and_another_changes_them():
    np.testing.assert_array_equal(draws(50, seed=(1, 2)), draws(50, seed=(1, 2)))
    assert np.any(draws(50, seed=(1, 2)) != draws(50, seed=(1, 3)))
    assert np.any(draws(50, seed=(1, 2)) != draws(50, seed=(2, 2)))


def test_rows_are_drawn_independently():
    pairs = draws(20_000).reshape(-1, 2)
    together = np.bincount(pairs[:, 0] * 6 + pairs[:, 1], minlength=36).reshape(6, 6)
    assert scipy.stats.chi2_contingency(together).pvalue > 0.01


def test_each_row_is_cut_by_itself():
    logits = np.tile([LOGITS, LOGITS[::-1]], (500, 1))
    tokens = sample_token(logits, (0, 0), top_k=2).numpy()
    assert set(tokens[::2]) == {1, 3} and set(tokens[1::2]) == {4, 2}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": -0.1}, "`temperature` must be zero or positive. Received: -0.1"),
        ({"temperature": float("nan")}, "`temperature` must be zero or positive. Received: nan"),
        ({"top_k": 0}, "`top_k` must be a positive integer. Received: top_k=0"),
        ({"top_k": 2.0}, "`top_k` must be a positive integer. Received: top_k=2.0"),
        ({"top_p": 0}, r"`top_p` must lie in \(0, 1\]. Received: top_p=0"),
        ({"top_p": 1.1}, r"`top_p` must lie in \(0, 1\]. Received: top_p=1.1"),
    ],
)
def test_settings_out_of_range_are_named(lm, options, message):
    with pytest.raises(ValueError, match=message):
        draws(1, **options)
    with pytest.raises(ValueError, match=message):
        lm.stream(PROMPT, 1, **options)  # at once, not at the first token


@pytest.mark.parametrize(
    ("logits", "message"),
    [
        (LOGITS, r"`logits` must have 2 axes, \(B, V\). Received: logits of shape \(6,\)"),
        (np.ones((1, 6), int), "`logits` must have a floating dtype.* of dtype int64"),
    ],
)
def test_bad_logits_are_named(logits, message):
    with pytest.raises(ValueError, match=message):
        sample_token(logits, (0, 0))


# Whole texts


def unstopped(lm, seed=1, **options):
    return lm.generate(PROMPT, NEW, seed=seed, **options).numpy()


def test_greedy_text_equals_one_full_pass_a_token(lm):
    ids = PROMPT
    for _ in range(NEW):
        ids = np.concatenate([ids, np.argmax(lm(ids)[:, -1], axis=-1)[:, None]], axis=1)
    np.testing.assert_array_equal(lm.generate(PROMPT, NEW, temperature=0), ids)


def test_sampled_text_equals_one_full_pass_a_token(lm):
    options, ids = {"temperature": 0.8, "top_k": 5, "top_p": 0.9}, PROMPT
    for t in range(NEW):
        token = sample_token(lm(ids)[:, -1], (7, t), **options)
        ids = np.concatenate([ids, token[:, None]], axis=1)
    np.testing.assert_array_equal(lm.generate(PROMPT, NEW, seed=7, **options), ids)


def test_generate_returns_the_prompt_and_what_stream_yields(lm):
    tokens = list(lm.stream(PROMPT, NEW, seed=4))
    assert all(token.shape == (2,) and token.dtype == np.int32 for token in tokens)
    text = lm.generate(PROMPT, NEW, seed=4)
    assert text.dtype == tf.int32
    np.testing.assert_array_equal(text[:, :4], PROMPT)
    np.testing.assert_array_equal(text[:, 4:], np.stack(tokens, axis=1))


def test_stream_yields_before_the_text_is_finished(lm):
    endless = lm.stream(PROMPT, 10**9, seed=4)
    assert len(list(itertools.islice(endless, 3))) == 3


def test_a_seed_fixes_the_text_and_no_seed_means_a_new_one(lm):
    np.testing.assert_array_equal(unstopped(lm, seed=1), unstopped(lm, seed=1))
    assert np.any(unstopped(lm, seed=1) != unstopped(lm, seed=2))
    assert np.any(unstopped(lm, seed=None) != unstopped(lm, seed=None))
    random.seed(9)
    first = unstopped(lm, seed=None)
    random.seed(9)
    np.testing.assert_array_equal(unstopped(lm, seed=None), first)


@pytest.mark.parametrize("stop", range(V))
def test_a_stopped_row_repeats_its_stop_and_the_end_comes_when_all_stopped(lm, stop):
    want = unstopped(lm)[:, 4:]
    met = np.cumsum(want == stop, axis=1) > 0  # at the stop token and after it
    want = np.where(met, stop, want)
    length = 1 + np.argmax(met.all(axis=0)) if met.all(axis=0).any() else NEW
    got = lm.generate(PROMPT, NEW, seed=1, stop_token=stop).numpy()[:, 4:]
    np.testing.assert_array_equal(got, want[:, :length])


def test_some_stop_token_ends_the_text_early(lm):
    lengths = [lm.generate(PROMPT, 60, seed=1, stop_token=s).shape[1] for s in range(V)]
    assert min(lengths) < 4 + 60


def test_generation_compiles_once_and_never_again(lm):
    unstopped(lm)
    prefill, step = lm._generation_functions
    before = step.experimental_get_tracing_count(), prefill.experimental_get_tracing_count()
    lm.generate(PROMPT, 40, seed=2, temperature=0.5, top_k=3)
    lm.generate(PROMPT[::-1], 3, seed=3)
    assert before == (
        step.experimental_get_tracing_count(),
        prefill.experimental_get_tracing_count(),
    )
    for length in (1, 2, 3):
        lm.generate(PROMPT[:, :length], 2)
    assert step.experimental_get_tracing_count() == before[0]
    assert prefill.experimental_get_tracing_count() <= before[1] + 1


def test_generation_sees_new_weights(lm):
    before = lm.generate(PROMPT, NEW, temperature=0).numpy()
    kept = lm.get_weights()
    lm.embedding.embeddings.assign(-lm.embedding.embeddings)
    lm.blocks[0].block.out_proj.kernel.assign(-2 * lm.blocks[0].block.out_proj.kernel)
    after = lm.generate(PROMPT, NEW, temperature=0).numpy()
    lm.set_weights(kept)
    assert np.any(before != after)


def test_an_empty_batch_gives_an_empty_text(lm):
    assert lm.generate(PROMPT[:0], 3, seed=0).shape == (0, 7)


@pytest.mark.parametrize(
    ("prompt", "count", "message"),
    [
        (PROMPT, 0, "`max_new_tokens` must be a positive integer. Received: max_new_tokens=0"),
        (PROMPT, 2.5, "`max_new_tokens` must be a positive integer. Received: max_new_tokens=2.5"),
        (PROMPT + 3, 1, "`token_ids` must lie between 0 and vocab_size - 1 = 10.* from 4 to 11"),
        (PROMPT - 2, 1, "`token_ids` must lie between 0 and vocab_size - 1 = 10.* from -1 to 6"),
        (PROMPT[0], 1, r"`token_ids` must have 2 axes, \(B, L\). Received: .* shape \(4,\)"),
        (PROMPT[:, :0], 1, r"`token_ids` must hold at least one token.* shape \(2, 0\)"),
        (PROMPT * 1.0, 1, "`token_ids` must hold integer token ids. Received: .* dtype float64"),
        ("In the beginning", 1, "`token_ids` must hold integer token ids. Received: .* string"),
    ],
)
def test_bad_prompts_are_named(lm, prompt, count, message):
    for call in (lm.generate, lm.stream):
        with pytest.raises(ValueError, match=message):
            call(prompt, count)
