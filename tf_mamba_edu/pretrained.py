"""Published weights in, our own out: the checkpoints of Hugging Face.

Everything about a checkpoint is checked before a model is made; then the weights are copied one by
one. `checkpoint_files` knows the files, this module what is in them.
"""

from __future__ import annotations

import dataclasses
import operator
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from tf_mamba_edu.checkpoint_files import (
    CONFIG,
    DTYPES,
    NewTensor,
    StoredTensor,
    find_checkpoint,
    read_headers,
    read_json,
    rows_of,
    write_checkpoint,
)
from tf_mamba_edu.config import MambaConfig
from tf_mamba_edu.initializers import no_random_values
from tf_mamba_edu.tokenizer import tokenizer_files
from tf_mamba_edu.validation import check_positive_int

# A checkpoint of random numbers that transformers wrote, with what it computed: expected.npz.
TINY = Path(__file__).parent / "checkpoints" / "mamba_tiny_hf"
SUPPORTED = ("mamba",)  # values of model_type

# Our name of each size, and theirs.
SIZES = {
    "vocab_size": "vocab_size",
    "d_model": "hidden_size",
    "n_layers": "num_hidden_layers",
    "d_state": "state_size",
    "d_conv": "conv_kernel",
    "expand": "expand",
    "dt_rank": "time_step_rank",
    "dt_min": "time_step_min",
    "dt_max": "time_step_max",
    "conv_bias": "use_conv_bias",
    "bias": "use_bias",
    "tie_embeddings": "tie_word_embeddings",
    "norm_eps": "layer_norm_epsilon",
}
REQUIRED = ("vocab_size", "hidden_size", "num_hidden_layers")


class Layout(NamedTuple):
    """How an array of theirs becomes ours, and back.

    Attributes:
        to_ours: turns an array of theirs, or some rows of it.
        to_theirs: turns one of ours.
        axis: where their rows lie in ours.
    """

    to_ours: Callable[[np.ndarray], np.ndarray]
    to_theirs: Callable[[np.ndarray], np.ndarray]
    axis: int


SAME = Layout(lambda w: w, lambda w: w, 0)
# A Linear of PyTorch keeps (outputs, inputs), a Dense of Keras (inputs, outputs).
TRANSPOSED = Layout(np.transpose, np.transpose, 1)
# A depthwise convolution of PyTorch keeps (D, 1, K), ours (K, D).
TAPS = Layout(lambda w: w[:, 0].T, lambda w: w.T[:, None], 1)

# Their names of the weights, ours, and the layout.
MODEL_WEIGHTS = {
    "backbone.embeddings.weight": ("embedding.embeddings", SAME),
    "backbone.norm_f.weight": ("norm.scale", SAME),
    "lm_head.weight": ("head.kernel", TRANSPOSED),
}
# Of block i, after "backbone.layers.i."
BLOCK_WEIGHTS = {
    "norm.weight": ("norm.scale", SAME),
    "mixer.in_proj.weight": ("block.in_proj.kernel", TRANSPOSED),
    "mixer.in_proj.bias": ("block.in_proj.bias", SAME),
    "mixer.conv1d.weight": ("block.conv.kernel", TAPS),
    "mixer.conv1d.bias": ("block.conv.bias", SAME),
    "mixer.x_proj.weight": ("block.ssm.x_proj.kernel", TRANSPOSED),
    "mixer.dt_proj.weight": ("block.ssm.dt_proj.kernel", TRANSPOSED),
    "mixer.dt_proj.bias": ("block.ssm.dt_bias", SAME),
    "mixer.A_log": ("block.ssm.A_log", SAME),
    "mixer.D": ("block.ssm.D", SAME),
    "mixer.out_proj.weight": ("block.out_proj.kernel", TRANSPOSED),
    "mixer.out_proj.bias": ("block.out_proj.bias", SAME),
}


def weight_map(lm) -> dict[str, tuple[keras.Variable, Layout]]:
    """Returns our variable and its layout for each of their names.

    Args:
        lm: a `MambaLM`.
    """
    found = named_variables(lm, MODEL_WEIGHTS)
    for i, block in enumerate(lm.blocks):
        of_block = named_variables(block, BLOCK_WEIGHTS)
        for name, place in of_block.items():
            found[f"backbone.layers.{i}.{name}"] = place
    return found


def named_variables(
    layer, weights: dict
) -> dict[str, tuple[keras.Variable, Layout]]:
    """Returns those of the named weights that a layer has: some have no bias, no head."""
    found = {}
    for theirs, (ours, layout) in weights.items():
        owner, _, name = ours.rpartition(".")
        owner = operator.attrgetter(owner)(layer)
        variable = getattr(owner, name, None)
        if variable is not None:
            found[theirs] = variable, layout
    return found


def expected_shapes(config: MambaConfig) -> dict[str, tuple[int, ...]]:
    """Returns name and shape of each weight in a checkpoint of these sizes.

    Args:
        config: a `MambaConfig`.
    """
    V, E, D = config.vocab_size, config.d_model, config.d_inner
    N, R, K = config.d_state, config.rank, config.d_conv
    block = {
        "norm.weight": (E,),
        "mixer.in_proj.weight": (2 * D, E),
        "mixer.conv1d.weight": (D, 1, K),
        "mixer.x_proj.weight": (R + 2 * N, D),
        "mixer.dt_proj.weight": (D, R),
        "mixer.dt_proj.bias": (D,),
        "mixer.A_log": (D, N),
        "mixer.D": (D,),
        "mixer.out_proj.weight": (E, D),
    }
    if config.conv_bias:
        block["mixer.conv1d.bias"] = (D,)
    if config.bias:
        block["mixer.in_proj.bias"] = (2 * D,)
        block["mixer.out_proj.bias"] = (E,)
    shapes = {
        f"backbone.layers.{i}.{name}": shape
        for i in range(config.n_layers)
        for name, shape in block.items()
    }
    shapes["backbone.embeddings.weight"] = (V, E)
    shapes["backbone.norm_f.weight"] = (E,)
    if not config.tie_embeddings:
        shapes["lm_head.weight"] = (V, E)
    return shapes


def config_from(theirs: dict) -> MambaConfig:
    """Translates the object of a config.json.

    Raises:
        ValueError: if it is not a Mamba's, lacks a size, or asks for what `MambaLM` has not.
    """
    if "model_type" not in theirs and "d_model" in theirs:
        raise ValueError(
            f"{CONFIG} is in the layout of the official code. The same weights exist in that of "
            'Hugging Face, in a repository with "-hf" at the end of its name'
        )
    kind = theirs.get("model_type")
    if kind not in SUPPORTED:
        raise ValueError(
            f"model_type must be one of: {', '.join(SUPPORTED)}. Received: {kind!r}"
        )
    missing = [name for name in REQUIRED if name not in theirs]
    if missing:
        raise ValueError(f"{CONFIG} lacks {', '.join(missing)}")
    config = MambaConfig(
        **{
            ours: theirs[name]
            for ours, name in SIZES.items()
            if name in theirs
        }
    )
    only = {"intermediate_size": config.d_inner, "hidden_act": "silu"}
    for name, value in only.items():
        if theirs.get(name, value) != value:
            raise ValueError(
                f"{name} must be {value!r} here. Received: {theirs[name]!r}"
            )
    return config


def config_to(config: MambaConfig, dtype: str) -> dict:
    """Translates a `MambaConfig` to the object of a config.json."""
    ours = dataclasses.asdict(config)
    return {
        **{theirs: ours[name] for name, theirs in SIZES.items()},
        "time_step_rank": config.rank,
        "intermediate_size": config.d_inner,
        "architectures": ["MambaForCausalLM"],
        "model_type": "mamba",
        "hidden_act": "silu",
        "residual_in_fp32": True,
        "dtype": dtype,
    }


def check_tensors(
    stored: dict[str, StoredTensor], config: MambaConfig
) -> None:
    """Compares what a checkpoint has with what the model needs.

    Args:
        stored: from `read_headers`.
        config: the model's sizes.

    Raises:
        ValueError: listing every tensor that is missing, surplus, of a wrong shape or dtype.
    """
    needed = expected_shapes(config)
    problems = [
        f"missing: {name} {needed[name]}"
        for name in needed.keys() - stored.keys()
    ]
    if config.tie_embeddings:  # may be there, see _check_tied
        needed["lm_head.weight"] = config.vocab_size, config.d_model
    for name, tensor in stored.items():
        if name not in needed:
            problems.append(f"surplus: {name} {tensor.shape}")
        elif tensor.shape != needed[name]:
            problems.append(
                f"wrong shape: {name} {tensor.shape}, needed {needed[name]}"
            )
        elif tensor.dtype not in DTYPES:
            problems.append(f"wrong dtype: {name} {tensor.dtype}")
    if problems:
        raise ValueError(
            f"the weights do not fit {CONFIG}, in {len(problems)} places:\n  "
            + "\n  ".join(sorted(problems))
        )


def load(
    model_class,
    checkpoint,
    dtype: str,
    method: str,
    revision: str | None,
):
    """Makes a model with the weights of a checkpoint; see `MambaLM.from_pretrained`."""
    folder = find_checkpoint(checkpoint, revision)
    config = config_from(read_json(folder / CONFIG))
    stored = {
        _current(name): tensor
        for name, tensor in read_headers(folder).items()
    }
    check_tensors(stored, config)
    if config.tie_embeddings:
        _check_tied(stored)
    policy = _policy(dtype, stored)
    with no_random_values():
        lm = model_class(config, method=method, dtype=policy)
    for name, (variable, layout) in weight_map(lm).items():
        _fill(variable, stored[name], layout)
    return lm


def _check_tied(stored):
    """Refuses a head that is said to be the embedding, and is not."""
    embedding, head = "backbone.embeddings.weight", "lm_head.weight"
    if head not in stored:
        return
    pairs = zip(
        rows_of(stored[embedding]), rows_of(stored[head]), strict=True
    )
    if not all(np.array_equal(a, b) for (_, a), (_, b) in pairs):
        raise ValueError(
            f"{head} differs from {embedding}, but {CONFIG} says that they are the same "
            "(tie_word_embeddings)"
        )


def _current(name):
    """The name of today; the first versions of transformers wrote "embedding"."""
    return name.replace("backbone.embedding.", "backbone.embeddings.")


def _policy(dtype, stored):
    if dtype == "auto":
        numbers = Counter()
        for tensor in stored.values():
            numbers[tensor.dtype] += int(np.prod(tensor.shape))
        return DTYPES[numbers.most_common(1)[0][0]].name
    try:
        weights = keras.dtype_policies.get(dtype).variable_dtype
    except (TypeError, ValueError):
        weights = None
    if weights not in {known.name for known in DTYPES.values()}:
        raise ValueError(
            '`dtype` must be "auto" or a floating dtype policy of Keras, such as "float32" or '
            f'"mixed_bfloat16". Received: dtype={dtype!r}'
        )
    return dtype


def _fill(variable, tensor, layout):
    """Copies a stored tensor into a variable, some rows at a time."""
    target = variable.value
    dtype = target.dtype.as_numpy_dtype
    for start, numbers in rows_of(tensor):
        part = layout.to_ours(numbers).astype(dtype)
        begin = np.zeros(part.ndim, np.int32)
        begin[layout.axis] = start
        # In place. (target[a:b].assign would read the variable first, and copy all of it.)
        tf.raw_ops.ResourceStridedSliceAssign(
            ref=target.handle,
            begin=begin,
            end=begin + part.shape,
            strides=np.ones_like(begin),
            value=part,
        )
    # Such a write makes every later read of the variable a copy, until one says otherwise.
    tf.raw_ops.DisableCopyOnRead(resource=target.handle)


def save(
    lm,
    folder,
    tokenizer,
    dtype: str | None,
    shard_bytes: int,
    overwrite: bool,
) -> None:
    """Writes a checkpoint; see `MambaLM.save_pretrained`."""
    shard_bytes = check_positive_int("shard_bytes", shard_bytes)
    dtype = dtype or lm.variable_dtype
    known = {known.name: known for known in DTYPES.values()}
    if dtype not in known:
        raise ValueError(
            f"`dtype` must be one of {', '.join(known)}. Received: dtype={dtype!r}"
        )
    tensors = {}
    for name, (variable, layout) in weight_map(lm).items():
        size = known[dtype].itemsize * int(np.prod(variable.shape))

        def make(variable=variable, layout=layout):
            numbers = variable.value.numpy().astype(known[dtype])
            return layout.to_theirs(numbers)

        tensors[name] = NewTensor(size, make)
    write_checkpoint(
        folder,
        config_to(lm.config, dtype),
        tensors,
        tokenizer_files(tokenizer, lm.config.vocab_size),
        shard_bytes,
        overwrite,
    )
