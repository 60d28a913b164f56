"""The language model: a checkpoint of another library, its cache, Keras training and files."""

import dataclasses
import functools
import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from safetensors.numpy import load_file

from tf_mamba_edu import MambaConfig, MambaLM, make_optimizer
from tf_mamba_edu.pretrained import TINY

CHECKPOINT = TINY
V, E, N = 11, 8, 2
CONFIG = MambaConfig(vocab_size=V, d_model=E, n_layers=2, d_state=N)


def model(seed=0, **changes):
    keras.utils.set_random_seed(seed)
    method = changes.pop("method", "recurrent")
    dtype = changes.pop("dtype", None)
    return MambaLM(dataclasses.replace(CONFIG, **changes), method=method, dtype=dtype)


def tokens(batch=2, length=6, seed=0):
    return np.random.default_rng(seed).integers(0, V, (batch, length))


def close(got, want, tolerance=1e-5):
    np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance)


# A checkpoint made with Hugging Face transformers


def weights_of_layer(stored, i, layer):
    """Pairs (variable, value) of one block; Linear weights are transposed, (D, 1, K) is (K, D)."""
    block, ssm = layer.block, layer.block.ssm
    mixer = {k.split("mixer.")[1]: v for k, v in stored.items() if f"layers.{i}.mixer." in k}
    return [
        (layer.norm.scale, stored[f"backbone.layers.{i}.norm.weight"]),
        (block.in_proj.kernel, mixer["in_proj.weight"].T),
        (block.conv.kernel, mixer["conv1d.weight"][:, 0].T),
        (block.conv.bias, mixer["conv1d.bias"]),
        (ssm.x_proj.kernel, mixer["x_proj.weight"].T),
        (ssm.dt_proj.kernel, mixer["dt_proj.weight"].T),
        (ssm.dt_bias, mixer["dt_proj.bias"]),
        (ssm.A_log, mixer["A_log"]),
        (ssm.D, mixer["D"]),
        (block.out_proj.kernel, mixer["out_proj.weight"].T),
    ]


@functools.cache
def checkpoint_model(method="auto"):
    hf = json.loads((CHECKPOINT / "config.json").read_text())
    config = MambaConfig(
        vocab_size=hf["vocab_size"],
        d_model=hf["hidden_size"],
        n_layers=hf["num_hidden_layers"],
        d_state=hf["state_size"],
        d_conv=hf["conv_kernel"],
        expand=hf["expand"],
        dt_rank=hf["time_step_rank"],
        tie_embeddings=hf["tie_word_embeddings"],
        norm_eps=hf["layer_norm_epsilon"],
    )
    lm, stored = MambaLM(config, method=method), load_file(CHECKPOINT / "model.safetensors")
    pairs = [
        (lm.embedding.embeddings, stored["backbone.embeddings.weight"]),
        (lm.norm.scale, stored["backbone.norm_f.weight"]),
    ]
    for i, layer in enumerate(lm.blocks):
        pairs += weights_of_layer(stored, i, layer)
    assert len(pairs) == len(stored) == len(lm.weights)
    for variable, value in pairs:
        variable.assign(value)
    return lm


def expected():
    return dict(np.load(CHECKPOINT / "expected.npz"))


@pytest.mark.parametrize("method", ["auto", "recurrent"])
def test_logits_of_the_checkpoint_to_2e_6(method):
    want = expected()["logits"]
    got = checkpoint_model(method)(expected()["input_ids"]).numpy()
    assert np.max(np.abs(got - want)) < 2e-6 * np.max(np.abs(want))


def test_the_greedy_continuation_of_the_checkpoint_is_exact():
    want = expected()["greedy"]
    got = checkpoint_model().generate(expected()["input_ids"][:, :8], 24, temperature=0)
    np.testing.assert_array_equal(got, want)


def test_prefill_and_steps_of_the_checkpoint_give_the_logits_of_a_full_pass():
    ids, want = expected()["input_ids"], expected()["logits"]
    lm = checkpoint_model("recurrent")
    logits, cache = lm.prefill(ids[:, :30])
    parts = [logits]
    for t in range(30, ids.shape[1]):
        logits, cache = lm.step(ids[:, t], cache)
        parts.append(logits[:, None])
    got = np.concatenate(parts, axis=1)
    assert np.max(np.abs(got - want)) < 4e-6 * np.max(np.abs(want))


# The cache


def test_steps_from_an_empty_cache_equal_the_full_pass():
    lm, ids = model(), tokens()
    cache, want = lm.init_cache(2), lm(ids)
    for t in range(ids.shape[1]):
        logits, cache = lm.step(ids[:, t], cache)
        close(logits, want[:, t])


def test_the_last_logits_may_be_had_alone():
    lm = model()
    ids = tokens()
    whole, cache = lm.prefill(ids)
    last, same = lm.prefill(ids, last_only=True)
    close(last, whole[:, -1])
    assert last.shape == (2, V)
    tf.nest.map_structure(close, same, cache)


def test_a_text_read_in_pieces_equals_one_read_at_once():
    lm, ids = model(), tokens()
    first, cache = lm.prefill(ids[:, :2])
    second, cache = lm.prefill(ids[:, 2:], cache)
    whole, want = lm.prefill(ids)
    close(tf.concat([first, second], axis=1), whole)
    for one, other in zip(tf.nest.flatten(cache), tf.nest.flatten(want), strict=True):
        close(one, other)


def test_the_cache_has_one_size_whatever_was_read():
    lm = model()
    sizes = [[part.shape for part in tf.nest.flatten(lm.init_cache(2))]]
    for length in (1, 6):
        _, cache = lm.prefill(tokens(length=length))
        sizes.append([part.shape for part in tf.nest.flatten(cache)])
    assert sizes[0] == sizes[1] == sizes[2] == [(2, 3, 2 * E), (2, 2 * E, N)] * 2


# Architecture


def test_no_logit_depends_on_a_later_token():
    lm, ids = model(), tokens()
    changed = np.where(np.arange(6) < 3, ids, (ids + 1) % V)
    np.testing.assert_array_equal(lm(ids)[:, :3], lm(changed)[:, :3])
    assert np.all(np.any(lm(ids)[:, 3:] != lm(changed)[:, 3:], axis=-1))


def test_logits_are_the_normalized_sum_times_the_transposed_embedding():
    lm, ids = model(), tokens()
    h = lm.embedding.embeddings.numpy()[ids]
    for block in lm.blocks:
        h = block(h)
    h = h.numpy()
    h = h / np.sqrt(np.mean(h**2, axis=-1, keepdims=True) + 1e-5)
    close(lm(ids), h @ lm.embedding.embeddings.numpy().T)


def test_an_untied_head_has_its_own_matrix():
    lm, ids = model(tie_embeddings=False), tokens()
    assert lm.head.kernel.shape == (E, V) and lm.head.bias is None
    assert np.max(np.abs(lm.head.kernel)) <= E**-0.5
    before = lm(ids).numpy()
    lm.head.kernel.assign(2 * lm.head.kernel)
    close(lm(ids), 2 * before)
    logits, cache = lm.prefill(ids)
    close(logits, 2 * before)


def parameters_by_hand(c):
    E, D, N, R, K = c.d_model, c.d_inner, c.d_state, c.rank, c.d_conv
    ssm = D * (R + 2 * N) + R * D + D + D * N + D
    block = E + E * 2 * D + K * D + D + ssm + D * E
    embedding = c.vocab_size * E
    return embedding + c.n_layers * block + E + (0 if c.tie_embeddings else embedding)


@pytest.mark.parametrize("changes", [{}, {"tie_embeddings": False}, {"d_model": 17, "expand": 3}])
def test_parameter_count_by_hand(changes):
    lm = model(**changes)
    assert lm.count_params() == parameters_by_hand(lm.config)


def test_the_smallest_published_model_has_its_published_size():
    c = MambaConfig(vocab_size=50280, d_model=768, n_layers=24)
    assert (c.d_inner, c.rank) == (1536, 48)
    assert parameters_by_hand(c) == 129_135_360  # state-spaces/mamba-130m


def test_embeddings_start_normal_with_a_deviation_of_2_percent():
    embeddings = model(vocab_size=3000).embedding.embeddings.numpy()
    assert abs(embeddings.mean()) < 5e-4
    assert embeddings.std() == pytest.approx(0.02, rel=0.03)


def test_the_number_of_layers_scales_down_the_output_projections():
    lm = model(d_model=32, n_layers=4)
    for layer in lm.blocks:
        largest = np.max(np.abs(layer.block.out_proj.kernel))
        assert 0.45 * 64**-0.5 < largest <= 0.5 * 64**-0.5


def test_a_seed_fixes_the_weights():
    first, again, other = model(seed=5), model(seed=5), model(seed=6)
    for a, b in zip(first.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert np.any(first.get_weights()[0] != other.get_weights()[0])


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_sums_in_float32_and_agrees(policy):
    lm, ids, exact = model(dtype=policy), tokens(), model()
    logits, cache = lm.prefill(ids)
    assert logits.dtype == lm.compute_dtype and cache[0].ssm.dtype == tf.float32
    assert {v.dtype for v in lm.variables} == {"float32"}
    np.testing.assert_allclose(tf.cast(logits, tf.float32), exact(ids), atol=4e-3)


# Keras: training and files


@functools.cache
def trained(jit):
    """(loss by evaluate, loss of predict's logits, loss of the untrained model) of a small fit."""
    lm = model(n_layers=1, d_conv=2, method="auto")
    ids, targets = tokens(3, 5), tokens(3, 5, seed=1)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    untrained = float(loss(targets, lm(ids)))
    lm.compile(make_optimizer(0.01, 6, warmup_steps=0), loss, jit_compile=jit)
    lm.optimizer.build(lm.trainable_variables)  # else the first step is traced twice
    lm.fit(ids, targets, batch_size=2, epochs=3, verbose=0, shuffle=False)
    evaluated = lm.evaluate(ids, targets, batch_size=2, verbose=0)
    predicted = float(loss(targets, lm.predict(ids, batch_size=2, verbose=0)))
    return evaluated, predicted, untrained


@pytest.mark.parametrize("jit", [False, True, "auto"])
def test_fit_evaluate_and_predict_with_a_ragged_last_batch(jit):
    evaluated, predicted, untrained = trained(jit)
    assert evaluated == pytest.approx(predicted, rel=1e-5)
    assert evaluated < untrained - 0.1
    assert evaluated == pytest.approx(trained(False)[0], rel=1e-3)


@pytest.mark.parametrize("tied", [True, False])
def test_a_saved_model_gives_the_same_logits(tied, tmp_path):
    lm, ids = model(tie_embeddings=tied, dt_rank=3), tokens()
    lm.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    assert type(loaded) is MambaLM and loaded.config == lm.config
    assert loaded.method == "recurrent"
    np.testing.assert_array_equal(loaded(ids), lm(ids))


def test_saved_weights_load_into_a_new_model(tmp_path):
    lm, other, ids = model(seed=1), model(seed=2), tokens()
    lm.save_weights(tmp_path / "m.weights.h5")
    other.load_weights(tmp_path / "m.weights.h5")
    np.testing.assert_array_equal(other(ids), lm(ids))


def test_config_makes_the_same_model_again():
    config = model(conv_bias=False, bias=True, norm_eps=1e-3).get_config()
    again = MambaLM.from_config(json.loads(json.dumps(config)))
    assert again.get_config() == config
    assert again.config.norm_eps == again.blocks[0].norm_eps == again.norm.epsilon == 1e-3


def test_dropout_acts_in_training_only_and_is_part_of_the_config():
    keras.utils.set_random_seed(0)
    lm = MambaLM(CONFIG, dropout=0.5)
    ids = tokens(2, 7)
    close(lm(ids), lm(ids))
    assert np.abs(lm(ids, training=True) - lm(ids)).max() > 1e-3
    assert np.abs(lm(ids, training=True) - lm(ids, training=True)).max() > 1e-3
    config = lm.get_config()
    assert config["dropout"] == 0.5
    again = MambaLM.from_config(json.loads(json.dumps(config)))
    assert {block.dropout.rate for block in again.blocks} == {again.dropout.rate} == {0.5}
    assert [w.path.split("/")[1:] for w in lm.weights] == [
        w.path.split("/")[1:] for w in model().weights
    ]  # checkpoints know nothing of it
    with pytest.raises(ValueError, match="`dropout` must be a number from 0"):
        MambaLM(CONFIG, dropout=1.0)


def test_a_config_may_be_a_dict():
    assert MambaLM(dataclasses.asdict(CONFIG)).config == CONFIG


def test_unknown_batch_and_length_in_a_functional_model():
    ids = keras.Input((None,), dtype="int32")
    functional = keras.Model(ids, model()(ids))
    assert functional.output_shape == (None, None, V)
    assert functional(tokens(3, 4)).shape == (3, 4, V)
    assert model().compute_output_shape((None, 7)) == (None, 7, V)


def test_an_empty_batch_gives_empty_logits():
    assert model()(tokens(0, 4)).shape == (0, 4, V)


# Bad input


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"vocab_size": 0}, "`vocab_size` must be a positive integer. Received: vocab_size=0"),
        ({"d_model": 8.0}, "`d_model` must be a positive integer. Received: d_model=8.0"),
        ({"n_layers": True}, "`n_layers` must be a positive integer. Received: n_layers=True"),
        ({"d_state": -1}, "`d_state` must be a positive integer. Received: d_state=-1"),
        ({"d_conv": "4"}, "`d_conv` must be a positive integer. Received: d_conv='4'"),
        ({"expand": 0}, "`expand` must be a positive integer. Received: expand=0"),
        ({"dt_rank": 0}, "`dt_rank` must be a positive integer. Received: dt_rank=0"),
        ({"dt_min": 0.5}, "0 < dt_min <= dt_max. Received: dt_min=0.5, dt_max=0.1"),
        ({"method": "parallel"}, "`method` must be one of .* Received: method='parallel'"),
    ],
)
def test_a_bad_setting_is_named(changes, message):
    with pytest.raises(ValueError, match=message):
        model(**changes)


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (np.ones((2, 3)), "`token_ids` must hold integer token ids. Received: .* dtype float"),
        (np.array([["a"]]), "`token_ids` must hold integer token ids. Received: .* dtype string"),
        (np.ones(3, int), r"`token_ids` must have 2 axes, \(B, L\). Received: .* shape \(3,\)"),
        (np.ones((2, 0), int), r"`token_ids` must hold at least one token.* shape \(2, 0\)"),
        (
            np.array([[3, V]]),
            "`token_ids` must lie between 0 and vocab_size - 1 = 10. .* from 3 to 11",
        ),
        (
            np.array([[-1, 2]]),
            "`token_ids` must lie between 0 and vocab_size - 1 = 10. .* from -1 to 2",
        ),
        (np.array([[2**32]]), "`token_ids` must lie between 0 and .* from 4294967296 to 42949"),
    ],
)
def test_bad_token_ids_are_named(ids, message):
    for read in (model(), model().prefill):
        with pytest.raises(ValueError, match=message):
            read(ids)


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (np.ones((2, 1), int), r"`token_ids` must have 1 axes, \(B\). Received: .* \(2, 1\)"),
        (np.ones(2), "`token_ids` must hold integer token ids. Received: .* dtype float64"),
        ([0, V], "`token_ids` must lie between 0 and vocab_size - 1 = 10. .* from 0 to 11"),
        (np.ones(3, int), r"`state` must have shape \(B=3, K-1=3, D=16\). Received: .*\(2, 3, 16"),
    ],
)
def test_bad_token_ids_of_a_step_are_named(ids, message):
    lm = model()
    with pytest.raises(ValueError, match=message):
        lm.step(ids, lm.init_cache(2))


def test_a_cache_of_another_model_is_refused():
    with pytest.raises(ValueError):
        model().step(np.ones(2, int), model(n_layers=1).init_cache(2))
