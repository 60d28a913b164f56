"""The layers and the model do what Keras users take for granted."""

import io
import json
import os
import pickle
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import absl.logging
import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_mamba_edu import (
    CausalConv1D,
    MambaBlock,
    MambaConfig,
    MambaLM,
    ResidualBlock,
    SelectiveSSM,
    make_optimizer,
)
from tf_mamba_edu.training import fit_distributed

B, L, E, N, K, V = 3, 7, 6, 4, 4, 11
LAYERS = {
    "CausalConv1D": lambda **o: CausalConv1D(K, **o),
    "SelectiveSSM": lambda **o: SelectiveSSM(N, dt_rank=2, **o),
    "MambaBlock": lambda **o: MambaBlock(d_state=N, d_conv=K, **o),
    "ResidualBlock": lambda **o: ResidualBlock(block={"d_state": N, "d_conv": K}, **o),
}
layers = pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS)
POLICIES = ["float32", "mixed_float16", "mixed_bfloat16"]


def language_model(n_layers=2, **options):
    return MambaLM(MambaConfig(V, E, n_layers, d_state=N), **options)


def inputs(batch=B, length=L, seed=0):
    return np.random.default_rng(seed).normal(size=(batch, length, E)).astype("float32")


def token_ids(batch=B, length=L, seed=0):
    return np.random.default_rng(seed).integers(1, V, (batch, length)).astype("int32")


def close(got, want, tolerance=1e-6):
    pairs = zip(tf.nest.flatten(got), tf.nest.flatten(want), strict=True)
    for one, other in pairs:
        np.testing.assert_allclose(one, other, rtol=tolerance, atol=tolerance)


def sequence_loss():
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


# Functional, Sequential, subclassed


@layers
def test_a_functional_model_takes_any_batch_and_length(make):
    layer = make()
    x = keras.Input((None, E))
    y = layer(x)
    assert y.shape == (None, None, E)
    model = keras.Model(x, y)
    for batch, length in ((B, L), (1, 1), (2, 33)):
        data = inputs(batch, length)
        close(model.predict(data, verbose=0), layer(data))


@layers
def test_a_functional_model_may_carry_the_state(make, tmp_path):
    layer = make()
    x = keras.Input((None, E), batch_size=B)
    _, spec = layer(x, return_state=True)
    before = tf.nest.map_structure(
        lambda s: keras.Input(s.shape[1:], batch_size=B, dtype=s.dtype), spec
    )
    y, after = layer(x, initial_state=before, return_state=True)
    assert [s.shape for s in tf.nest.flatten(after)] == [s.shape for s in tf.nest.flatten(before)]
    states = tf.nest.flatten(before)
    model = keras.Model([x, *states], [y, *tf.nest.flatten(after)])
    model.save(tmp_path / "model.keras")
    for run in (model, keras.models.load_model(tmp_path / "model.keras")):
        state = tf.nest.flatten(layer.zero_state(B))
        pieces = []
        for piece in tf.split(inputs(), [2, 1, 4], axis=1):
            piece, *state = run([piece, *state])
            pieces.append(piece)
        close(tf.concat(pieces, axis=1), layer(inputs()))


@layers
@pytest.mark.parametrize("policy", POLICIES)
def test_the_shapes_and_dtypes_that_a_functional_model_shows_are_true(make, policy):
    layer = make(dtype=policy)
    x = keras.Input((None, E), dtype="float32")
    promised = tf.nest.flatten(layer(x, return_state=True))
    given = tf.nest.flatten(layer(inputs(), return_state=True))
    for promise, value in zip(promised, given, strict=True):
        assert promise.dtype == value.dtype.name
        assert value.shape.is_compatible_with(promise.shape)


def test_the_state_of_a_block_is_float32_and_may_be_a_plain_pair():
    layer = MambaBlock(d_state=N, d_conv=K, dtype="mixed_bfloat16")
    layer.build((None, None, E))
    _, state = layer(inputs(), return_state=True)
    assert state.ssm.dtype == tf.float32 and state.conv.dtype == tf.bfloat16
    close(layer(inputs(), initial_state=tuple(state)), layer(inputs(), initial_state=state))
    assert layer.state_spec(5).ssm.shape == (5, 2 * E, N)


def test_a_sequential_model_learns():
    model = keras.Sequential(
        [
            keras.Input((None, E)),
            ResidualBlock(block={"d_state": N}),
            MambaBlock(d_state=N),
            keras.layers.GlobalAveragePooling1D(),
            keras.layers.Dense(1),
        ]
    )
    x = inputs(64)
    y = x[:, :, 0].max(axis=1)
    model.compile(keras.optimizers.Adam(1e-2), "mse")
    losses = model.fit(x, y, batch_size=16, epochs=12, verbose=0).history["loss"]
    assert losses[-1] < 0.5 * losses[0]


class Tagger(keras.Model):
    """A subclassed model, as users write them."""

    def __init__(self, **options):
        super().__init__(**options)
        self.embedding = keras.layers.Embedding(V, E, mask_zero=True)
        self.block = ResidualBlock(block={"d_state": N})
        self.head = keras.layers.Dense(V)

    def call(self, ids):
        return self.head(self.block(self.embedding(ids)))


def test_a_subclassed_model_fits_evaluates_and_stores_its_weights(tmp_path):
    ids = token_ids(16)
    model = Tagger()
    model.compile("adam", sequence_loss(), metrics=["accuracy"])
    model.fit(ids, ids, batch_size=6, epochs=2, verbose=0)
    assert set(model.evaluate(ids, ids, return_dict=True, verbose=0)) == {"loss", "accuracy"}
    model.save_weights(tmp_path / "tagger.weights.h5")
    other = Tagger()
    other(ids)
    other.load_weights(tmp_path / "tagger.weights.h5")
    close(other(ids), model(ids))


# Configurations, files, copies


@layers
@pytest.mark.parametrize("policy", POLICIES)
def test_a_configuration_goes_through_json(make, policy):
    layer = make(name="mine", dtype=policy, trainable=False)
    config = json.loads(json.dumps(keras.saving.serialize_keras_object(layer)))
    copy = keras.saving.deserialize_keras_object(config)
    assert copy.get_config() == layer.get_config()
    assert (copy.name, copy.dtype_policy.name, copy.trainable) == ("mine", policy, False)


@layers
@pytest.mark.parametrize("policy", POLICIES)
def test_files_keep_every_weight(make, policy, tmp_path):
    model = keras.Sequential([keras.Input((None, E)), make(dtype=policy)])
    wanted = model(inputs())
    model.save(tmp_path / "model.keras")
    close(keras.models.load_model(tmp_path / "model.keras")(inputs()), wanted)
    model.save_weights(tmp_path / "model.weights.h5")
    other = keras.Sequential([keras.Input((None, E)), make(dtype=policy)])
    assert not np.allclose(other(inputs()), wanted)
    other.load_weights(tmp_path / "model.weights.h5")
    close(other(inputs()), wanted)


@layers
def test_a_model_can_be_pickled(make):
    model = keras.Sequential([keras.Input((None, E)), make()])
    copy = pickle.loads(pickle.dumps(model))
    close(copy(inputs()), model(inputs()))


def test_a_language_model_can_be_pickled():
    lm = language_model()
    close(pickle.loads(pickle.dumps(lm))(token_ids()), lm(token_ids()))


@layers
def test_clone_model_makes_new_weights_of_the_same_shapes(make):
    x = keras.Input((None, E))
    model = keras.Model(x, keras.layers.Dense(2)(make()(x)))
    clone = keras.models.clone_model(model)
    assert [w.shape for w in clone.weights] == [w.shape for w in model.weights]
    assert not {id(w) for w in clone.weights} & {id(w) for w in model.weights}
    clone.set_weights(model.get_weights())
    close(clone(inputs()), model(inputs()))


def test_clone_model_copies_a_language_model():
    lm = language_model()
    clone = keras.models.clone_model(lm)
    clone.set_weights(lm.get_weights())
    close(clone(token_ids()), lm(token_ids()))


@pytest.mark.parametrize("batch,length", [(1, 1), (2, 40), (5, 7)])
def test_an_exported_model_serves_any_batch_and_length(exported, batch, length):
    lm, served = exported
    ids = token_ids(batch, length)
    close(served.serve(ids), lm(ids), 1e-5)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A model, and what tf.saved_model makes of it in a new folder."""
    lm = language_model()
    folder = str(tmp_path_factory.mktemp("saved_model"))
    signature = [keras.InputSpec(shape=(None, None), dtype="int32")]
    lm.export(folder, input_signature=signature, verbose=False)
    return lm, tf.saved_model.load(folder)


@pytest.mark.parametrize("method", ["fused", "associative", "recurrent"])
def test_tf_saved_model_keeps_a_layer_with_its_state(method, tmp_path, monkeypatch):
    layer = MambaBlock(d_state=N, method=method)
    layer.build((None, None, E))

    @tf.function(input_signature=[tf.TensorSpec((None, None, E)), *state_specs(layer)])
    def run(x, conv, ssm):
        return layer(x, initial_state=(conv, ssm), return_state=True)

    module = tf.Module()
    module.layer, module.run = layer, run
    tf.saved_model.save(module, str(tmp_path))
    warned = []
    monkeypatch.setattr(absl.logging, "warning", lambda *args: warned.append(args))
    loaded = tf.saved_model.load(str(tmp_path))
    assert not warned  # such as of gradients that were not saved
    for batch, length in ((2, 1), (1, 20)):
        x = inputs(batch, length)
        y, state = loaded.run(x, *layer.zero_state(batch))
        close([y, *state], tf.nest.flatten(layer(x, return_state=True)), 1e-5)


def state_specs(layer):
    return [tf.TensorSpec(s.shape, s.dtype) for s in layer.state_spec()]


# What Keras prints and draws


def test_summary_names_the_blocks_and_counts_their_parameters():
    lm = language_model()
    text = io.StringIO()
    lm.summary(print_fn=lambda line: print(line, file=text), line_length=100)
    for name in ("embedding", "block_0", "block_1", "norm"):
        assert name in text.getvalue()
    assert f"{lm.count_params():,}" in text.getvalue()
    assert re.search(r"Non-trainable params: 0\b", text.getvalue())


def classifier():
    ids = keras.Input((None,), dtype="int32")
    h = keras.layers.Embedding(V, E, mask_zero=True)(ids)
    h = ResidualBlock(block={"d_state": N}, name="mamba")(h)
    h = keras.layers.GlobalAveragePooling1D()(h)
    return keras.Model(ids, keras.layers.Dense(2)(h))


def test_plot_model_draws_the_layers(tmp_path):
    pytest.importorskip("pydot", reason="pydot is not installed")
    assert (
        "ResidualBlock" in keras.utils.model_to_dot(classifier(), show_layer_names=True).to_string()
    )
    if shutil.which("dot") is None:
        pytest.skip("graphviz is not installed: plot_model cannot draw")
    keras.utils.plot_model(classifier(), str(tmp_path / "model.png"), show_shapes=True)
    assert (tmp_path / "model.png").stat().st_size > 1000


# Mixed precision


@pytest.mark.parametrize("jit_compile", [False, True], ids=["graph", "jit"])
def test_training_in_mixed_precision_reaches_the_loss_of_float32(jit_compile):
    def train(policy):
        keras.utils.set_random_seed(3)
        lm = language_model(n_layers=1, dtype=policy)
        lm.compile(keras.optimizers.Adam(1e-2), sequence_loss(), jit_compile=jit_compile)
        ids = token_ids(64, 12) // 4  # four tokens, learned within a few epochs
        history = lm.fit(ids[:, :-1], ids[:, :-1], batch_size=16, epochs=8, verbose=0)
        assert all(w.dtype == "float32" for w in lm.weights)
        return history.history["loss"]

    wanted = train("float32")
    assert wanted[-1] < 0.5 * wanted[0]
    for policy in POLICIES[1:]:
        assert abs(train(policy)[-1] - wanted[-1]) < 0.05 * wanted[0], policy


@pytest.mark.parametrize("policy", POLICIES[1:])
def test_the_scan_itself_runs_in_float32(policy, monkeypatch):
    seen = []

    def scan(u, delta, A, B, C, h):
        seen.extend(t.dtype for t in (u, delta, A, B, C, h))
        return u, h

    monkeypatch.setattr("tf_mamba_edu.scan.choose_method", lambda method, *_: scan)
    layer = MambaBlock(d_state=N, dtype=policy)
    assert layer(inputs()).dtype == keras.DTypePolicy(policy).compute_dtype
    assert set(seen) == {tf.float32}


# Masks


def padded(lengths, side, length=L):
    """Random ids of these lengths, with zeros before or after them."""
    ids = np.zeros((len(lengths), length), "int32")
    for row, n in enumerate(lengths):
        part = slice(0, n) if side == "after" else slice(length - n, length)
        ids[row, part] = token_ids(1, length, seed=row)[0, :n]
    return ids


@pytest.mark.parametrize("side", ["before", "after"])
@layers
def test_padding_changes_nothing_at_the_words_nor_the_state_after_them(make, side):
    layer, lengths = make(), [L, 4, 1]
    layer.build((None, None, E))
    embedding = keras.layers.Embedding(V, E, mask_zero=True)
    ids = padded(lengths, side)
    y, state = layer(embedding(ids), return_state=True)
    for row, n in enumerate(lengths):
        words = ids[row : row + 1, :n] if side == "after" else ids[row : row + 1, L - n :]
        want_y, want_state = layer(embedding(words), return_state=True)
        shown = y[row, :n] if side == "after" else y[row, L - n :]
        close(shown, want_y[0])
        close([s[row] for s in tf.nest.flatten(state)], [s[0] for s in tf.nest.flatten(want_state)])


@layers
def test_a_row_of_nothing_but_padding_keeps_its_state(make):
    layer = make()
    layer.build((None, None, E))
    _, state = layer(inputs(), return_state=True)
    _, after = layer(
        inputs(seed=1), initial_state=state, return_state=True, mask=np.zeros((B, L), bool)
    )
    close(after, state)


def test_a_mask_counts_beside_a_carried_state_too():
    layer = MambaBlock(d_state=N)
    x = keras.layers.Embedding(V, E, mask_zero=True)(padded([L, 3, 2], "after"))
    state = layer(inputs(seed=1), return_state=True)[1]
    by_hand = layer(x, initial_state=state, return_state=True, mask=x._keras_mask)
    close(layer(x, initial_state=state, return_state=True), by_hand, 0)
    del x._keras_mask
    unmasked = layer(x, initial_state=state, return_state=True)
    assert not np.allclose(unmasked[1].ssm, by_hand[1].ssm)


@layers
def test_nothing_flows_back_into_padding(make):
    layer, mask = make(), np.arange(L) < np.array([[L], [4], [1]])
    x = tf.Variable(inputs())
    with tf.GradientTape() as tape:
        y = tf.where(mask[:, :, None], layer(x, mask=mask), 0)
        loss = tf.reduce_sum(y**2)
    gradient = tape.gradient(loss, x).numpy()
    assert np.all(gradient[~mask] == 0) and np.all(np.isfinite(gradient))
    assert np.all(np.any(gradient[mask] != 0, axis=-1))


@pytest.mark.parametrize("policy", POLICIES)
def test_the_mask_reaches_the_pooling_through_every_layer(policy):
    keras.config.set_dtype_policy(policy)
    try:
        model = classifier()
    finally:
        keras.config.set_dtype_policy("float32")
    lengths = [L, 4, 1]
    short = padded(lengths, "after")
    long = padded(lengths, "after", length=3 * L)
    tolerance = 1e-6 if policy == "float32" else 2e-2
    close(model(long), model(short), tolerance)
    assert not np.allclose(model(long), model(np.where(long == 0, 1, long)), atol=1e-4)


@pytest.mark.parametrize("jit_compile", [False, True], ids=["graph", "jit"])
def test_a_model_with_masks_trains(jit_compile):
    model = classifier()
    model.compile(keras.optimizers.Adam(1e-2), sequence_loss(), jit_compile=jit_compile)
    lengths = np.random.default_rng(0).integers(1, L + 1, 48)
    ids = padded(lengths, "after")
    labels = (ids == 3).any(axis=1).astype("int32")
    losses = model.fit(ids, labels, batch_size=16, epochs=15, verbose=0).history["loss"]
    assert losses[-1] < 0.5 * losses[0]


def test_a_layer_that_knows_no_masks_gets_zeros_where_the_mask_hides():
    class Running(keras.layers.Layer):
        def call(self, x):
            return tf.cumsum(x, axis=1)

    layer = MambaBlock(ssm=Running())
    x = inputs()
    mask = np.arange(L) >= np.array([[0], [2], [5]])
    y = layer(x, mask=mask)
    close(y[1, 2:], layer(x[1:2, 2:])[0])


@layers
@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (np.ones((B, L + 1), bool), r"`mask` must have shape \(B=3, L=7\). .* \(3, 8\)"),
        (np.ones((B, L, 1), bool), r"`mask` must have 2 axes, \(B, L\). .* \(3, 7, 1\)"),
        (np.full((B, L), "yes"), "`mask` must hold booleans"),
    ],
    ids=["length", "rank", "text"],
)
def test_a_mask_that_does_not_fit_is_named(make, mask, message):
    layer = make()
    layer.build((None, None, E))
    with pytest.raises(ValueError, match=message):
        layer(inputs(), mask=mask)


# Many devices, many workers

WORKER = Path(__file__).with_name("distributed_worker.py")


def start(kind, folder, index=0, ports=()):
    """A process of its own: devices and workers are fixed when TensorFlow starts."""
    environment = os.environ | {"PYTHONPATH": str(WORKER.parent.parent)}
    if ports:
        workers = [f"127.0.0.1:{port}" for port in ports]
        task = {"type": "worker", "index": index}
        environment["TF_CONFIG"] = json.dumps({"cluster": {"worker": workers}, "task": task})
    command = [sys.executable, str(WORKER), kind, str(folder / f"{kind}{index}.npz")]
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def finish(process):
    try:
        output, _ = process.communicate(timeout=240)
    finally:
        process.kill()
    assert process.returncode == 0, output[-3000:]


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for s in sockets:
        s.bind(("127.0.0.1", 0))
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Weights after the same training by one device, two devices and two workers."""
    folder = tmp_path_factory.mktemp("distributed")
    ports = free_ports(2)
    workers = [start("workers", folder, index, ports) for index in range(2)]
    for process in workers:
        finish(process)
    for kind in ("one", "mirrored"):
        finish(start(kind, folder))
    return {path.stem: np.load(path) for path in folder.glob("*.npz")}


@pytest.mark.parametrize("kind", ["mirrored0", "workers0", "workers1"])
def test_devices_and_workers_reach_the_weights_of_one(trained, kind):
    want, got = trained["one0"], trained[kind]
    moved = [np.abs(want[name] - want[f"before {name}"]).max() for name in weights(want)]
    assert min(moved) > 1e-3  # or the test would show nothing
    for name in want:
        np.testing.assert_allclose(got[name], want[name], rtol=0, atol=1e-5, err_msg=name)


def weights(results):
    return [name for name in results if f"before {name}" in results]


def test_fit_runs_on_two_devices_and_learns(trained):
    losses = trained["mirrored0"]["fit"]
    assert np.all(np.isfinite(losses)) and losses[-1] < losses[0]


def compiled(**options):
    lm = language_model()
    lm.compile(make_optimizer(1e-2, 30, warmup_steps=0), sequence_loss(), **options)
    return lm


def batches(count=4, batch=6):
    ids = token_ids(count * batch, 8)
    return tf.data.Dataset.from_tensor_slices((ids, ids)).batch(batch)


def test_without_a_strategy_the_loop_is_fit():
    results = []
    for train in (lambda lm: lm.fit(batches(), epochs=3, verbose=0), None):
        keras.utils.set_random_seed(5)
        lm = compiled()
        history = train(lm) if train else fit_distributed(lm, batches(), epochs=3, verbose=0)
        results.append((history.history["loss"], lm.get_weights()))
    close(results[1], results[0], 2e-5)


def test_the_loop_takes_callbacks_and_starts_where_it_is_told():
    seen = []

    class Watch(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            seen.append(("batch", batch))

        def on_epoch_end(self, epoch, logs=None):
            seen.append(("epoch", epoch))
            self.model.stop_training = epoch == 2

    history = fit_distributed(
        compiled(), batches(2), epochs=9, initial_epoch=1, callbacks=[Watch()], verbose=0
    )
    steps = [("batch", 0), ("batch", 1)]
    assert seen == [*steps, ("epoch", 1), *steps, ("epoch", 2)]
    assert history.epoch == [1, 2]


def test_the_loop_shows_a_progress_bar(capsys):
    fit_distributed(compiled(), batches(2), epochs=1, verbose=1)
    assert re.search(r"2/2.*loss: \d", capsys.readouterr().out, re.DOTALL)


def test_the_loop_refuses_what_it_cannot_train():
    with pytest.raises(ValueError, match="`model` must be compiled"):
        fit_distributed(language_model(), batches())
    lm = compiled()
    lm.optimizer = keras.optimizers.LossScaleOptimizer(lm.optimizer)
    with pytest.raises(ValueError, match="`model` must not scale its loss.*LossScaleOptimizer"):
        fit_distributed(lm, batches())
    with pytest.raises(ValueError, match="`dataset` must hold at least one batch"):
        fit_distributed(compiled(), batches().take(0), verbose=0)


@pytest.mark.parametrize("option", ["clipnorm", "clipvalue", "global_clipnorm"])
def test_the_loop_clips_as_the_optimizer_is_told(option):
    results = []
    for train in (keras.Model.fit, fit_distributed):
        keras.utils.set_random_seed(5)
        lm = language_model()
        lm.compile(keras.optimizers.SGD(0.5, **{option: 0.01}), sequence_loss())
        train(lm, batches(), epochs=1, verbose=0)
        results.append(lm.get_weights())
    close(results[1], results[0], 1e-6)


# Bad input


@layers
def test_a_state_of_a_layer_without_weights_is_refused(make):
    with pytest.raises(ValueError, match="does not know its channels yet"):
        make().zero_state(B)


def test_a_width_is_no_argument_of_a_block():
    for make in (MambaBlock, ResidualBlock):
        with pytest.raises(TypeError):
            make(32)


def test_a_block_in_place_of_its_arguments_is_refused():
    with pytest.raises(ValueError, match="`block` must be a dict .* of type MambaBlock"):
        ResidualBlock(block=MambaBlock())


def test_the_states_of_two_blocks_are_no_state_of_one():
    layer = MambaBlock(d_state=N)
    layer.build((None, None, E))
    states = [layer.zero_state(B), layer.zero_state(B)]
    with pytest.raises(ValueError, match="`initial_state` must be a BlockState.* of type list"):
        layer(inputs(), initial_state=states)
