"""Checkpoints of Hugging Face: read, written, refused."""

import dataclasses
import json
import shutil
from pathlib import Path

import keras
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
import tensorflow as tf
from safetensors.numpy import load_file, save_file

from tf_mamba_edu import MambaConfig, MambaLM, checkpoint_files, train_tokenizer
from tf_mamba_edu.pretrained import (
    SIZES,
    TINY,
    config_from,
    config_to,
    expected_shapes,
    weight_map,
)
from tf_mamba_edu.tokenizer import TextTokenizer, load_tokenizer

GOLDEN = Path(__file__).parent / "golden"
CHECKPOINTS = {"mamba_tiny_hf": 8, "mamba_wide_hf": 6, "mamba_bare_hf": 6}  # length of the prompt


def folder_of(name):
    return TINY if name == TINY.name else GOLDEN / name


CONFIG = MambaConfig(vocab_size=11, d_model=8, n_layers=2, d_state=2)
checkpoints = pytest.mark.parametrize("name", CHECKPOINTS)


def model(seed=0, dtype=None, **changes):
    """A model whose weights are all random, and none at its initial value."""
    lm = MambaLM(dataclasses.replace(CONFIG, **changes), dtype=dtype)
    rng = np.random.default_rng(seed)
    for weight in lm.weights:
        weight.assign(weight + 0.1 * rng.normal(size=weight.shape).astype("float32"))
    return lm


def copied(name, folder):
    """A copy of a golden checkpoint, to be spoiled."""
    shutil.copytree(folder_of(name), folder)
    return folder


def changed_config(folder, **changes):
    config = json.loads((folder / "config.json").read_text())
    config = {k: v for k, v in {**config, **changes}.items() if v is not ...}
    (folder / "config.json").write_text(json.dumps(config))


def changed_weights(folder, change):
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors")


def logits_of(name):
    expected = np.load(folder_of(name) / "expected.npz")
    return expected["input_ids"], expected["logits"]


def relative_error(got, want):
    got = tf.cast(got, "float32").numpy()
    return np.abs(got - want).max() / np.abs(want).max()


# What transformers computed


@checkpoints
@pytest.mark.parametrize("method", ["recurrent", "associative", "fused"])
def test_logits_are_those_of_transformers(name, method):
    ids, logits = logits_of(name)
    lm = MambaLM.from_pretrained(folder_of(name), method=method)
    assert relative_error(lm(ids), logits) < 1e-5
    assert lm.method == method


@checkpoints
def test_the_greedy_continuation_is_that_of_transformers(name):
    expected = np.load(folder_of(name) / "expected.npz")
    want, prompt = expected["greedy"], expected["input_ids"][:, : CHECKPOINTS[name]]
    lm = MambaLM.from_pretrained(str(folder_of(name)))
    got = lm.generate(prompt, want.shape[1] - prompt.shape[1], temperature=0)
    np.testing.assert_array_equal(got, want)


@checkpoints
def test_every_weight_is_mapped_to_one_of_its_shape(name):
    lm = MambaLM.from_pretrained(folder_of(name))
    stored = load_file(folder_of(name) / "model.safetensors")
    places = weight_map(lm)
    assert places.keys() == stored.keys() == expected_shapes(lm.config).keys()
    assert {id(v) for v, _ in places.values()} == {id(v) for v in lm.weights}
    for key, (variable, layout) in places.items():
        assert layout.to_ours(stored[key]).shape == tuple(variable.shape)
        np.testing.assert_array_equal(layout.to_theirs(variable.value.numpy()), stored[key])
        assert stored[key].shape == expected_shapes(lm.config)[key]


def test_one_wrong_transpose_of_a_square_matrix_is_found_by_the_numbers():
    ids, logits = logits_of("mamba_bare_hf")  # out_proj is square there: no shape tells
    lm = MambaLM.from_pretrained(GOLDEN / "mamba_bare_hf")
    kernel = lm.blocks[0].block.out_proj.kernel
    kernel.assign(tf.transpose(kernel))
    assert relative_error(lm(ids), logits) > 1e-2


@pytest.mark.parametrize(
    ("dtype", "weights", "computes", "error"),
    [
        ("float64", "float64", "float64", 1e-6),
        ("bfloat16", "bfloat16", "bfloat16", 0.05),
        ("float16", "float16", "float16", 0.01),
        ("mixed_bfloat16", "float32", "bfloat16", 0.05),
        ("auto", "float32", "float32", 1e-6),
    ],
)
def test_the_dtype_is_a_choice(dtype, weights, computes, error):
    ids, logits = logits_of("mamba_tiny_hf")
    lm = MambaLM.from_pretrained(TINY, dtype=dtype)
    found = lm(ids)
    assert (lm.variable_dtype, found.dtype) == (weights, computes)
    assert relative_error(found, logits) < error


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_step_by_step_works_in_half_precision(dtype):
    ids, _ = logits_of("mamba_tiny_hf")
    lm = MambaLM.from_pretrained(TINY, dtype=dtype)
    want, _ = lm.prefill(ids)
    cache = lm.init_cache(len(ids))
    for t in range(8):
        logits, cache = lm.step(ids[:, t], cache)
        want_t = tf.cast(want[:, t], "float32").numpy()
        assert relative_error(logits, want_t) < 0.1
    assert all(state.ssm.dtype == "float32" for state in cache)


def test_auto_is_the_dtype_of_most_numbers(tmp_path):
    lm = model()
    lm.save_pretrained(tmp_path / "half", dtype="bfloat16")
    changed_weights(
        tmp_path / "half",
        lambda w: w.update(
            {"backbone.norm_f.weight": w["backbone.norm_f.weight"].astype("float32")}
        ),
    )
    assert MambaLM.from_pretrained(tmp_path / "half", dtype="auto").variable_dtype == "bfloat16"


@pytest.mark.parametrize("dtype", ["int8", "float31", 3, "mixed_int8"])
def test_a_dtype_that_is_none_is_refused(dtype):
    with pytest.raises(ValueError, match="`dtype` must be"):
        MambaLM.from_pretrained(TINY, dtype=dtype)


# Written and read


@pytest.mark.parametrize(
    "changes",
    [{}, dict(tie_embeddings=False, bias=True), dict(conv_bias=False, expand=1, d_conv=1)],
    ids=["plain", "more", "less"],
)
@pytest.mark.parametrize("shard_bytes", [10**9, 2000, 1])
def test_what_is_written_is_read_back(changes, shard_bytes, tmp_path):
    lm = model(**changes)
    lm.save_pretrained(tmp_path / "new" / "deep", shard_bytes=shard_bytes)
    files = sorted(f.name for f in (tmp_path / "new" / "deep").iterdir())
    assert (len(files) > 2) == (shard_bytes < 10**9) == (checkpoint_files.INDEX in files)
    back = MambaLM.from_pretrained(tmp_path / "new" / "deep")
    assert back.config == dataclasses.replace(lm.config, dt_rank=lm.config.rank)
    for one, other in zip(lm.weights, back.weights, strict=True):
        np.testing.assert_array_equal(one, other)


def test_shards_are_no_larger_than_asked_and_listed_in_the_index(tmp_path):
    lm = model()
    lm.save_pretrained(tmp_path / "m", shard_bytes=1500)
    index = json.loads((tmp_path / "m" / checkpoint_files.INDEX).read_text())
    assert index["weight_map"].keys() == expected_shapes(lm.config).keys()
    sizes = {}
    for file in (tmp_path / "m").glob("*.safetensors"):
        tensors = load_file(file)
        assert all(index["weight_map"][name] == file.name for name in tensors)
        sizes[file.name] = sum(t.nbytes for t in tensors.values())
        assert sizes[file.name] <= 1500 or len(tensors) == 1
    assert sum(sizes.values()) == index["metadata"]["total_size"] == 4 * lm.count_params()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_weights_may_be_written_in_another_dtype(dtype, tmp_path):
    lm = model()
    lm.save_pretrained(tmp_path / "m", dtype=dtype)
    wanted = np.dtype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
    assert {t.dtype for t in load_file(tmp_path / "m" / "model.safetensors").values()} == {wanted}
    back = MambaLM.from_pretrained(tmp_path / "m")
    for one, other in zip(lm.weights, back.weights, strict=True):
        np.testing.assert_array_equal(one.numpy().astype(wanted).astype("float32"), other)


def test_sizes_survive_the_translation():
    config = MambaConfig(7, 6, 5, 4, 3, 2, 1, 1e-2, 0.5, False, True, False, 1e-3)
    theirs = config_to(config, "float32")
    assert config_from(theirs) == config
    assert config_from(json.loads(json.dumps(theirs))) == config
    assert SIZES.keys() == {field.name for field in dataclasses.fields(MambaConfig)}


def test_what_a_config_leaves_out_is_as_published():
    short = {"model_type": "mamba", "vocab_size": 9, "hidden_size": 8, "num_hidden_layers": 1}
    assert config_from(short) == MambaConfig(9, 8, 1)


def test_large_tensors_are_copied_in_parts(tmp_path, monkeypatch):
    lm = model(tie_embeddings=False)
    lm.save_pretrained(tmp_path / "m")
    monkeypatch.setattr(checkpoint_files, "PART", 24)  # three rows of the embedding
    stored = checkpoint_files.read_headers(tmp_path / "m")
    parts = list(checkpoint_files.rows_of(stored["backbone.embeddings.weight"]))
    assert [start for start, _ in parts] == [0, 3, 6, 9]
    back = MambaLM.from_pretrained(tmp_path / "m")
    for one, other in zip(lm.weights, back.weights, strict=True):
        np.testing.assert_array_equal(one, other)


def test_no_random_matrix_is_drawn_for_weights_that_are_loaded(monkeypatch):
    def refuse(self, shape, dtype=None):
        assert len(shape) == 1
        return tf.zeros(shape, dtype)

    for initializer in (keras.initializers.RandomUniform, keras.initializers.RandomNormal):
        monkeypatch.setattr(initializer, "__call__", refuse)
    with pytest.raises(AssertionError):
        MambaLM(CONFIG)
    MambaLM.from_pretrained(GOLDEN / "mamba_wide_hf")


def test_a_model_made_after_a_loaded_one_is_random_again():
    MambaLM.from_pretrained(TINY)
    assert np.std(MambaLM(CONFIG).embedding.embeddings) > 0


def test_the_first_name_of_the_embedding_is_understood(tmp_path):
    folder = copied("mamba_tiny_hf", tmp_path / "m")

    def rename(weights):
        weights["backbone.embedding.weight"] = weights.pop("backbone.embeddings.weight")

    changed_weights(folder, rename)
    ids, logits = logits_of("mamba_tiny_hf")
    assert relative_error(MambaLM.from_pretrained(folder)(ids), logits) < 1e-5


def test_a_tied_head_that_was_written_all_the_same_does_no_harm(tmp_path):
    folder = copied("mamba_tiny_hf", tmp_path / "m")
    changed_weights(
        folder, lambda w: w.update({"lm_head.weight": w["backbone.embeddings.weight"].copy()})
    )
    ids, logits = logits_of("mamba_tiny_hf")
    assert relative_error(MambaLM.from_pretrained(folder)(ids), logits) < 1e-5


# Never half


def test_a_folder_that_is_there_is_not_replaced_unless_asked(tmp_path):
    lm, other = model(0), model(1)
    lm.save_pretrained(tmp_path / "m")
    before = {f.name: f.read_bytes() for f in (tmp_path / "m").iterdir()}
    with pytest.raises(ValueError, match="`folder` must be new or empty, or overwrite=True"):
        other.save_pretrained(tmp_path / "m")
    assert {f.name: f.read_bytes() for f in (tmp_path / "m").iterdir()} == before
    other.save_pretrained(tmp_path / "m", shard_bytes=1000, overwrite=True)
    assert not (tmp_path / "m" / "model.safetensors").exists()
    back = MambaLM.from_pretrained(tmp_path / "m")
    np.testing.assert_array_equal(back.weights[0], other.weights[0])
    assert [f.name for f in tmp_path.iterdir()] == ["m"]


def test_to_read_a_loaded_variable_copies_nothing():
    lm = MambaLM.from_pretrained(TINY)
    for weight in lm.weights:
        one, other = (memoryview(weight.value.read_value()) for _ in range(2))
        addresses = {np.asarray(m).__array_interface__["data"][0] for m in (one, other)}
        assert len(addresses) == 1, weight.path


def test_a_head_that_is_tied_and_differs_is_refused(tmp_path):
    folder = copied("mamba_tiny_hf", tmp_path / "m")
    changed_weights(
        folder, lambda w: w.update({"lm_head.weight": 2 * w["backbone.embeddings.weight"]})
    )
    with pytest.raises(ValueError, match="lm_head.weight differs from backbone.embeddings.weig"):
        MambaLM.from_pretrained(folder)


def test_an_empty_folder_is_as_good_as_none(tmp_path):
    (tmp_path / "m").mkdir()
    model().save_pretrained(tmp_path / "m")
    MambaLM.from_pretrained(tmp_path / "m")


@pytest.mark.parametrize("step", ["save_file", "json.dumps", "os.rename"])
@pytest.mark.parametrize("there", [False, True])
def test_a_save_that_fails_leaves_what_was_there(step, there, tmp_path, monkeypatch):
    lm, count = model(), 0
    if there:
        lm.save_pretrained(tmp_path / "m")

    owner, _, name = step.rpartition(".")
    owner = getattr(checkpoint_files, owner) if owner else safetensors.numpy
    right = getattr(owner, name)

    def fails(*args, **kwargs):
        nonlocal count
        count += 1
        if step == "os.rename" and Path(args[0]).name == "m":
            return right(*args, **kwargs)  # what was there, out of the way
        if step == "os.rename" and args[0].name.endswith(".old"):
            return right(*args, **kwargs)  # and back
        raise OSError("no space left on device")

    monkeypatch.setattr(owner, name, fails)
    with pytest.raises(ValueError, match="cannot be written: no space left"):
        model(1).save_pretrained(tmp_path / "m", overwrite=True)
    monkeypatch.undo()
    assert count and [f.name for f in tmp_path.iterdir()] == ["m"] * there
    if there:
        back = MambaLM.from_pretrained(tmp_path / "m")
        np.testing.assert_array_equal(back.weights[0], lm.weights[0])


def test_a_folder_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="`folder` must not be a file"):
        model().save_pretrained(tmp_path / "file")
    with pytest.raises(ValueError, match="cannot be written"):
        model().save_pretrained(tmp_path / "file" / "below")


def test_no_model_is_made_of_a_checkpoint_that_does_not_fit(tmp_path, monkeypatch):
    folder = copied("mamba_tiny_hf", tmp_path / "m")
    changed_weights(folder, lambda w: w.pop("backbone.norm_f.weight"))

    def refuse(*_, **__):
        raise AssertionError

    monkeypatch.setattr(MambaLM, "build", refuse)
    with pytest.raises(ValueError, match="missing: backbone.norm_f.weight"):
        MambaLM.from_pretrained(folder)


@pytest.mark.parametrize("value", [0, -1, 1.5, "5GB"])
def test_a_shard_has_a_size(value, tmp_path):
    with pytest.raises(ValueError, match="`shard_bytes` must be a positive integer"):
        model().save_pretrained(tmp_path / "m", shard_bytes=value)
    assert not list(tmp_path.iterdir())


def test_weights_are_not_written_in_a_dtype_that_cannot_hold_them(tmp_path):
    with pytest.raises(ValueError, match="`dtype` must be one of float64, float32, float16"):
        model().save_pretrained(tmp_path / "m", dtype="int8")
    assert not list(tmp_path.iterdir())


# Bad checkpoints


def test_all_that_does_not_fit_is_listed(tmp_path):
    folder = copied("mamba_tiny_hf", tmp_path / "m")

    def spoil(w):
        del w["backbone.layers.0.mixer.D"], w["backbone.layers.2.norm.weight"]
        w["backbone.layers.9.mixer.D"] = np.zeros(64, "float32")
        w["backbone.layers.1.mixer.A_log"] = w["backbone.layers.1.mixer.A_log"].T.copy()
        w["backbone.norm_f.weight"] = np.zeros(32, "int32")

    changed_weights(folder, spoil)
    with pytest.raises(ValueError) as caught:
        MambaLM.from_pretrained(folder)
    assert str(caught.value).splitlines()[1:] == [
        "  missing: backbone.layers.0.mixer.D (64,)",
        "  missing: backbone.layers.2.norm.weight (32,)",
        "  surplus: backbone.layers.9.mixer.D (64,)",
        "  wrong dtype: backbone.norm_f.weight I32",
        "  wrong shape: backbone.layers.1.mixer.A_log (8, 64), needed (64, 8)",
    ]
    assert "in 5 places" in str(caught.value)


BAD_CONFIGS = {
    "no type": (dict(model_type=...), "model_type must be one of: mamba. Received: None"),
    "other type": (dict(model_type="falcon_mamba"), "one of: mamba. Received: 'falcon_mamba'"),
    "official": (dict(model_type=..., d_model=4), "layout of the official code"),
    "no sizes": (dict(vocab_size=..., hidden_size=...), "lacks vocab_size, hidden_size"),
    "zero layers": (dict(num_hidden_layers=0), "`n_layers` must be a positive integer"),
    "text": (dict(state_size="8"), "`d_state` must be a positive integer"),
    "inner": (dict(intermediate_size=65), "intermediate_size must be 64 here. Received: 65"),
    "activation": (dict(hidden_act="gelu"), "hidden_act must be 'silu' here. Received: 'gelu'"),
    "vocabulary": (dict(vocab_size=95), "wrong shape: backbone.embeddings.weight"),
    "untied": (dict(tie_word_embeddings=False), "missing: lm_head.weight"),
    "biased": (dict(use_bias=True), "missing: backbone.layers.0.mixer.in_proj.bias"),
}


@pytest.mark.parametrize(("changes", "message"), BAD_CONFIGS.values(), ids=BAD_CONFIGS)
def test_a_config_that_does_not_fit_is_refused(changes, message, tmp_path):
    folder = copied("mamba_tiny_hf", tmp_path / "m")
    changed_config(folder, **changes)
    with pytest.raises(ValueError, match="^[^$]*" + re_escape(message)):
        MambaLM.from_pretrained(folder)


def re_escape(text):
    return "".join("\\" + c if c in ".()[]*+?" else c for c in text)


def test_mamba2_is_refused_by_its_name(tmp_path):
    folder = copied("mamba_tiny_hf", tmp_path / "m")
    changed_config(folder, model_type="mamba2")
    with pytest.raises(ValueError, match="Received: 'mamba2'"):
        MambaLM.from_pretrained(folder)


@pytest.mark.parametrize("file", ["config.json", "model.safetensors"])
@pytest.mark.parametrize("kept", [0.0, 0.4, 0.99])
def test_a_truncated_file_is_refused(file, kept, tmp_path):
    folder = copied("mamba_tiny_hf", tmp_path / "m")
    content = (folder / file).read_bytes()
    (folder / file).write_bytes(content[: int(kept * len(content))])
    with pytest.raises(ValueError, match=f"{file} is damaged"):
        MambaLM.from_pretrained(folder)


def test_a_missing_file_is_named(tmp_path):
    folder = copied("mamba_tiny_hf", tmp_path / "m")
    (folder / "model.safetensors").unlink()
    with pytest.raises(ValueError, match="has no model.safetensors and no"):
        MambaLM.from_pretrained(folder)
    (folder / "config.json").unlink()
    with pytest.raises(ValueError, match="config.json does not exist"):
        MambaLM.from_pretrained(folder)


def test_a_missing_shard_is_named(tmp_path):
    model().save_pretrained(tmp_path / "m", shard_bytes=1000)
    shard = sorted((tmp_path / "m").glob("*.safetensors"))[1]
    shard.unlink()
    with pytest.raises(ValueError, match=f"names files that are not there: {shard.name}$"):
        MambaLM.from_pretrained(tmp_path / "m")


def test_an_index_cannot_lead_out_of_its_folder(tmp_path):
    model().save_pretrained(tmp_path / "m", shard_bytes=1000)
    index = tmp_path / "m" / checkpoint_files.INDEX
    found = json.loads(index.read_text())
    found["weight_map"] = {n: f"../../{f}" for n, f in found["weight_map"].items()}
    index.write_text(json.dumps(found))
    MambaLM.from_pretrained(tmp_path / "m")  # names count, not paths


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "weights.pkl", "last.ckpt"])
def test_pickles_are_refused_and_not_opened(name, tmp_path):
    folder = copied("mamba_tiny_hf", tmp_path / "m")
    (folder / "model.safetensors").unlink()
    (folder / name).write_bytes(b"cos\nsystem\n(S'echo opened'\ntR.")
    with pytest.raises(ValueError, match=f"has its weights in {name}: pickles"):
        MambaLM.from_pretrained(folder)


@pytest.mark.parametrize("name", ["/nowhere/at/all", "./nowhere", "no-slash", "a/b/c"])
def test_what_is_neither_folder_nor_repository_is_refused_without_a_network(name, monkeypatch):
    monkeypatch.setattr("huggingface_hub.snapshot_download", None)
    with pytest.raises(ValueError, match="`checkpoint` must be a folder with config.json"):
        MambaLM.from_pretrained(name)


def test_a_file_is_no_checkpoint():
    file = TINY / "config.json"
    with pytest.raises(ValueError, match="`checkpoint` must be a folder"):
        MambaLM.from_pretrained(file)


# The hub


def test_the_hub_is_asked_for_what_is_no_folder(tmp_path, monkeypatch):
    asked = []

    def download(name, revision, allow_patterns):
        asked.append((name, revision))
        assert not any("bin" in pattern for pattern in allow_patterns)
        return str(TINY)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    monkeypatch.chdir(tmp_path)
    lm = MambaLM.from_pretrained("state-spaces/mamba-tiny-hf", revision="v1")
    assert asked == [("state-spaces/mamba-tiny-hf", "v1")]
    assert lm.config.vocab_size == 96


def test_offline_the_cache_is_used_and_nothing_else(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ValueError, match="the hub did not deliver it: some/model"):
        MambaLM.from_pretrained("some/model")
    commit = "0123456789abcdef0123456789abcdef01234567"
    place = tmp_path / "models--some--model"
    (place / "refs").mkdir(parents=True)
    (place / "refs" / "main").write_text(commit)
    shutil.copytree(TINY, place / "snapshots" / commit)
    assert MambaLM.from_pretrained("some/model").config.vocab_size == 96


# Tokenizers


def sentence_pieces(vocab_size=24):
    texts = ["the lord said unto moses go and speak unto the people of israel " * 20]
    return train_tokenizer(texts, vocab_size=vocab_size)


def byte_pairs():
    tokenizers = pytest.importorskip("tokenizers")
    words = {"<unk>": 0, "the": 1, "lord": 2, "said": 3}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, "<unk>"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    return tokenizer


@pytest.mark.parametrize("make", [sentence_pieces, byte_pairs])
def test_a_tokenizer_travels_with_the_model(make, tmp_path):
    tokenizer = make()
    model(vocab_size=40).save_pretrained(tmp_path / "m", tokenizer=tokenizer)
    back = load_tokenizer(tmp_path / "m")
    ids = back.encode("the lord said")
    assert ids.dtype == np.int32 and ids.ndim == 1
    np.testing.assert_array_equal(ids, TextTokenizer(tokenizer).encode("the lord said"))
    assert back.decode(ids) == "the lord said"
    assert back.vocab_size == (24 if make is sentence_pieces else 4)


def test_a_tokenizer_with_more_ids_than_the_model_is_refused(tmp_path):
    with pytest.raises(ValueError, match="vocabulary, 11. Received: 24"):
        model().save_pretrained(tmp_path / "m", tokenizer=sentence_pieces())
    assert not list(tmp_path.iterdir())


def test_a_tokenizer_is_one_of_two_kinds():
    with pytest.raises(ValueError, match="`tokenizer` must be a tokenizers.Tokenizer or"):
        TextTokenizer("the lord said")


def test_a_checkpoint_without_tokenizer_says_so():
    with pytest.raises(ValueError, match="no tokenizer.json and no tokenizer.model"):
        load_tokenizer(TINY)


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer.model"])
def test_a_damaged_tokenizer_is_named(name, tmp_path):
    (tmp_path / name).write_bytes(b"{no tokenizer")
    with pytest.raises(ValueError, match=f"{name} is damaged"):
        load_tokenizer(tmp_path)
