"""The recipe: what decays, how the learning rate runs, what is clipped, which windows are cut."""

import keras
import numpy as np
import pytest
import scipy.stats
import tensorflow as tf

from tf_mamba_edu import MambaAdamW, MambaConfig, MambaLM, make_optimizer
from tf_mamba_edu.training import consecutive_windows, random_windows

V = 7
DECAYED = [
    "block_0/block/conv/kernel",
    "block_0/block/in_proj/kernel",
    "block_0/block/out_proj/kernel",
    "block_0/block/ssm/dt_proj/kernel",
    "block_0/block/ssm/x_proj/kernel",
    "embedding/embeddings",
    "head/kernel",
]
LEFT_ALONE = [
    "block_0/block/conv/bias",
    "block_0/block/in_proj/bias",
    "block_0/block/out_proj/bias",
    "block_0/block/ssm/A_log",
    "block_0/block/ssm/D",
    "block_0/block/ssm/dt_bias",
    "block_0/norm/scale",
    "norm/scale",
]


def model(**changes):
    options = {"d_model": 8, "n_layers": 1, "d_state": 2} | changes
    return MambaLM(MambaConfig(V, **options), method="recurrent", name="lm")


def paths_that_decay(lm, optimizer):
    """Paths of the variables that a step with zero gradients shrinks by lr * decay = 0.01."""
    variables = lm.trainable_variables
    before = [v.numpy() for v in variables]
    optimizer.apply_gradients([(tf.zeros_like(v), v) for v in variables])
    shrunk = []
    for variable, old in zip(variables, before, strict=True):
        if np.any(variable.numpy() != old):
            np.testing.assert_allclose(variable, 0.99 * old, rtol=1e-5)
            shrunk.append(variable.path.removeprefix("lm/"))
    return sorted(shrunk)


# Weight decay


def test_matrices_decay_and_nothing_else():
    lm = model(bias=True, tie_embeddings=False)
    assert paths_that_decay(lm, MambaAdamW(0.1, weight_decay=0.1)) == DECAYED
    everything = sorted(v.path.removeprefix("lm/") for v in lm.trainable_variables)
    assert everything == sorted(DECAYED + LEFT_ALONE)


def test_the_choice_of_what_decays_survives_a_file(tmp_path):
    lm = model(bias=True, tie_embeddings=False)
    lm.compile(MambaAdamW(0.1, weight_decay=0.1), "mse")
    lm.optimizer.build(lm.trainable_variables)
    lm.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    assert type(loaded.optimizer) is MambaAdamW
    assert paths_that_decay(loaded, loaded.optimizer) == DECAYED


def test_the_choice_of_what_decays_holds_under_mixed_precision():
    lm = MambaLM(MambaConfig(V, 8, 1, d_state=2), method="recurrent", dtype="mixed_float16")
    lm.compile(MambaAdamW(0.1, weight_decay=0.1), "mse")
    lm.optimizer.build(lm.trainable_variables)
    inner = lm.optimizer.inner_optimizer  # Keras scales the loss in a wrapper
    decayed = [
        v.path.split("/", 1)[1] for v in lm.trainable_variables if inner._use_weight_decay(v)
    ]
    assert sorted(decayed) == DECAYED[:-1]  # its head is tied


def test_training_goes_on_after_a_file_as_if_there_were_none(tmp_path):
    lm, ids = model(), np.arange(10).reshape(2, 5) % V
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    lm.compile(make_optimizer(0.01, 10), loss, run_eagerly=True)
    lm.fit(ids, ids, epochs=3, verbose=0)
    lm.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    assert int(loaded.optimizer.iterations) == 3
    for one in (lm, loaded):
        one.fit(ids, ids, epochs=2, verbose=0)
    for a, b in zip(lm.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


# Schedule and clipping


def rate(optimizer, step):
    optimizer.iterations.assign(step)
    return float(optimizer.learning_rate)


def test_the_rate_warms_up_in_a_line_and_falls_as_a_cosine():
    optimizer = make_optimizer(0.02, 110, warmup_steps=10, final_fraction=0.1)
    assert rate(optimizer, 0) == 0.0
    assert rate(optimizer, 5) == pytest.approx(0.01)
    assert rate(optimizer, 10) == pytest.approx(0.02)
    assert rate(optimizer, 35) == pytest.approx(0.002 + 0.018 * (1 + np.cos(np.pi / 4)) / 2)
    assert rate(optimizer, 60) == pytest.approx(0.011)
    assert rate(optimizer, 110) == rate(optimizer, 500) == pytest.approx(0.002)


@pytest.mark.parametrize(("steps", "warmup"), [(50, 5), (2000, 200), (90_000, 200)])
def test_the_warm_up_takes_a_tenth_and_at_most_200_steps(steps, warmup):
    optimizer = make_optimizer(0.02, steps)
    assert rate(optimizer, warmup) == pytest.approx(0.02)
    assert rate(optimizer, warmup - 1) < 0.0199 and rate(optimizer, warmup + 1) < 0.02
    assert rate(optimizer, steps) == pytest.approx(0.001)


def test_without_warm_up_the_rate_starts_at_its_highest():
    optimizer = make_optimizer(0.02, 5)
    assert rate(optimizer, 0) == pytest.approx(0.02)
    assert rate(optimizer, 5) == pytest.approx(0.001)


@pytest.mark.parametrize(("norm", "clipped"), [(50.0, 1.0), (0.5, 0.5)])
def test_the_gradient_is_clipped_to_norm_one_over_all_variables(norm, clipped):
    optimizer = make_optimizer(0.1, 10)
    variables = [keras.Variable(np.ones(4)), keras.Variable(np.ones((2, 3)))]
    gradients = [tf.fill(v.shape, norm / np.sqrt(10)) for v in variables]
    optimizer.apply_gradients(zip(gradients, variables, strict=True))
    moments = np.concatenate([np.ravel(m) for m in optimizer._momentums])
    assert np.linalg.norm(moments) == pytest.approx((1 - 0.9) * clipped, rel=1e-5)


def test_the_recipe_has_the_betas_and_decay_of_the_paper():
    optimizer = make_optimizer(0.1, 10)
    assert type(optimizer) is MambaAdamW
    assert (optimizer.beta_1, optimizer.beta_2, optimizer.weight_decay) == (0.9, 0.95, 0.1)
    assert make_optimizer(0.1, 10, weight_decay=0.3).weight_decay == 0.3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "`steps` must be a positive integer. Received: steps=0"),
        ({"steps": 1.5}, "`steps` must be a positive integer. Received: steps=1.5"),
        (
            {"warmup_steps": 10},
            "`warmup_steps` must lie between 0 and steps - 1 = 9. Received: .*=10",
        ),
        (
            {"warmup_steps": -1},
            "`warmup_steps` must lie between 0 and steps - 1 = 9. Received: .*=-1",
        ),
    ],
)
def test_a_bad_schedule_is_named(options, message):
    with pytest.raises(ValueError, match=message):
        make_optimizer(0.1, **({"steps": 10} | options))


# Windows


def numbered(*sizes):
    """Passages whose tokens say where they are: passage * 1000 + place."""
    return [1000 * i + np.arange(size) for i, size in enumerate(sizes)]


def test_random_windows_lie_within_a_passage_and_targets_are_one_later():
    x, y = random_windows(numbered(9, 30, 4, 5), length=4, count=500, seed=0)
    assert x.shape == y.shape == (500, 4) and x.dtype == y.dtype == np.int32
    np.testing.assert_array_equal(y, x + 1)  # one later, and never across a border
    np.testing.assert_array_equal(x, x[:, :1] + np.arange(4))
    sizes = np.array([9, 30, 4, 5])
    assert np.all(y[:, -1] % 1000 < sizes[y[:, -1] // 1000])


def test_random_windows_draw_every_window_equally_often():
    x, _ = random_windows(numbered(9, 30, 4, 5), length=4, count=16_000, seed=1)
    starts, counts = np.unique(x[:, 0], return_counts=True)
    assert starts.tolist() == [*range(5), *range(1000, 1026), 3000]  # a passage of 4 is too short
    assert scipy.stats.chisquare(counts).pvalue > 0.01


def test_random_windows_depend_on_the_seed_alone():
    passages = numbered(40, 50)
    first, again, other = (random_windows(passages, 6, 20, seed)[0] for seed in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    assert np.any(first != other)


def test_consecutive_windows_hold_every_target_once():
    x, y = consecutive_windows(numbered(9, 30, 4, 5), length=4)
    assert x.dtype == y.dtype == np.int32
    np.testing.assert_array_equal(y, x + 1)
    want = [*range(1, 9), *range(1001, 1029), *range(3001, 3005)]  # 1029 fills no window
    assert y.ravel().tolist() == want


@pytest.mark.parametrize("length", [1, 2, 3, 7])
@pytest.mark.parametrize("size", [8, 9, 14, 15, 16])
def test_consecutive_windows_leave_out_less_than_a_window(length, size):
    x, y = consecutive_windows(numbered(size), length)
    assert x.ravel().tolist() == list(range(x.size))
    assert 0 <= size - 1 - y.size < length


@pytest.mark.parametrize("cut", [consecutive_windows, lambda p, n: random_windows(p, n, 3, 0)])
@pytest.mark.parametrize(
    ("passages", "length", "message"),
    [
        (
            numbered(3, 4),
            4,
            "at least length \\+ 1 = 5 tokens. Received 2 passages, the longest of 4",
        ),
        ([], 4, "at least length \\+ 1 = 5 tokens. Received 0 passages, the longest of 0"),
        (numbered(9), 0, "`length` must be a positive integer. Received: length=0"),
    ],
)
def test_windows_that_cannot_be_cut_are_refused(cut, passages, length, message):
    with pytest.raises(ValueError, match=message):
        cut(passages, length)


# All of it


def test_a_tiny_model_learns_a_tiny_text_by_heart():
    keras.utils.set_random_seed(0)
    text = np.random.default_rng(0).integers(0, V, 16)
    lm, steps = model(d_model=16, d_state=4), 120
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    lm.compile(make_optimizer(0.02, steps, weight_decay=0.0), loss, jit_compile=False)
    lm.optimizer.build(lm.trainable_variables)  # else the first step is traced twice
    x, y = random_windows([np.tile(text, 4)], length=16, count=8 * steps, seed=0)
    lm.fit(x, y, batch_size=8, verbose=0)
    late = slice(6, None)  # after 6 tokens the place in the text is known
    logits = lm(x[:8])[:, late]
    assert float(loss(y[:8, late], logits)) < 0.1 < np.log(V) / 10
    np.testing.assert_array_equal(np.argmax(logits, axis=-1), y[:8, late])
