"""Checks of arguments: each error names the argument, what came and what is needed."""

from __future__ import annotations

import numpy as np
import tensorflow as tf


def as_floating(
    name: str,
    value,
    dtype: tf.DType | None = None,
    allow_complex: bool = False,
) -> tf.Tensor:
    """Converts `value` to a floating tensor, of `dtype` if given.

    Args:
        name: how the caller calls the argument, for the error message.
        value: a tensor, NumPy array, Keras variable or Python number.
        dtype: the dtype wanted; the value's own if None.
        allow_complex: whether complex numbers will do too.

    Raises:
        ValueError: if `value` is not made of floating point numbers, or complex where `dtype` is
            real.
    """
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return tf.constant(value, dtype or tf.float32)
    try:
        tensor = tf.convert_to_tensor(value)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"`{name}` must be a tensor or array of floating point numbers. "
            f"Received: {name}={value!r}"
        ) from error
    if not (
        tensor.dtype.is_floating
        or (allow_complex and tensor.dtype.is_complex)
    ):
        raise ValueError(
            f"`{name}` must have a floating dtype such as float32. "
            f"Received: {name} of dtype {tensor.dtype.name}"
        )
    if dtype is None:
        return tensor
    if tensor.dtype.is_complex and not dtype.is_complex:
        raise ValueError(
            f"`{name}` must be real here, as the other arguments are. "
            f"Received: {name} of dtype {tensor.dtype.name}"
        )
    return promote(tensor, dtype)


def promote(tensor: tf.Tensor, dtype: tf.DType) -> tf.Tensor:
    """Casts to a dtype, a complex one too, without TensorFlow's warning about the gradient."""
    if not dtype.is_complex or tensor.dtype.is_complex:
        return tf.cast(tensor, dtype)
    real = tf.cast(tensor, dtype.real_dtype)
    return tf.complex(real, tf.zeros_like(real))


def check_rank(name: str, tensor: tf.Tensor, symbols: str) -> None:
    """Raises a ValueError unless `tensor` has one axis per symbol in, e.g., "B L D"."""
    rank = len(symbols.split())
    if tensor.shape.rank is not None and tensor.shape.rank != rank:
        raise ValueError(
            f"`{name}` must have {rank} axes, ({', '.join(symbols.split())}). "
            f"Received: {name} of shape {tuple(tensor.shape)}"
        )


def check_shapes(
    **arguments: tuple[tf.Tensor | None, str],
) -> dict[str, int | None]:
    """Checks ranks and that axes with one symbol have one size; unknown sizes pass.

    Args:
        **arguments: name = (tensor or None, its axes such as "B L D").

    Returns:
        The static size of each symbol, None where it is unknown.

    Raises:
        ValueError: naming the first argument that does not fit, and with which it clashes.
    """
    sizes: dict[str, int | None] = {}
    origin: dict[str, str] = {}
    for name, (tensor, symbols) in arguments.items():
        if tensor is None:
            continue
        check_rank(name, tensor, symbols)
        if tensor.shape.rank is None:
            continue
        for symbol, size in zip(
            symbols.split(), tensor.shape, strict=True
        ):
            known = sizes.get(symbol)
            if size is not None and known is not None and size != known:
                needed = ", ".join(
                    s if sizes.get(s) is None else f"{s}={sizes[s]}"
                    for s in symbols.split()
                )
                raise ValueError(
                    f"`{name}` must have shape ({needed}), with {symbol} as in "
                    f"`{origin[symbol]}`. Received: {name} of shape {tuple(tensor.shape)}"
                )
            if known is None:
                sizes[symbol] = size
                origin[symbol] = name
    return sizes


def check_shape(
    name: str, tensor: tf.Tensor, symbols: str, sizes: tuple
) -> None:
    """Raises a ValueError unless `tensor` has axes of these sizes; None is any size."""
    if not tensor.shape.is_compatible_with(sizes):
        needed = ", ".join(
            symbol if size is None else f"{symbol}={size}"
            for symbol, size in zip(symbols.split(), sizes, strict=True)
        )
        raise ValueError(
            f"`{name}` must have shape ({needed}). "
            f"Received: {name} of shape {tuple(tensor.shape)}"
        )


def as_sequence(
    name: str, value, dtype: str | None = None
) -> tf.Tensor:
    """Converts `value` to a floating tensor (B, L, channels) with L >= 1, of `dtype` if given.

    Raises:
        ValueError: if it is not floating, has another rank, or has no steps.
    """
    tensor = as_floating(
        name, value, None if dtype is None else tf.as_dtype(dtype)
    )
    check_rank(name, tensor, "B L channels")
    if tensor.shape.rank is not None and tensor.shape[1] == 0:
        raise ValueError(
            f"`{name}` must hold at least one step (L >= 1). "
            f"Received: {name} of shape {tuple(tensor.shape)}"
        )
    return tensor


def check_mask(sequence, mask) -> tf.Tensor | None:
    """Returns the mask of a sequence (B, L, channels) as booleans (B, L); None if it has none.

    A mask that Keras attached to the sequence counts too: Keras itself hands it over only to
    calls with a single tensor, not beside a carried state.

    Raises:
        ValueError: if the mask does not fit the sequence.
    """
    if mask is None:
        mask = getattr(sequence, "_keras_mask", None)
    if mask is None:
        return None
    mask = tf.convert_to_tensor(mask)
    if not (mask.dtype.is_bool or mask.dtype.is_integer):
        raise ValueError(
            "`mask` must hold booleans, or zeros and ones. "
            f"Received: mask of dtype {mask.dtype.name}"
        )
    mask = tf.cast(mask, tf.bool)
    check_rank("mask", mask, "B L")
    check_shape("mask", mask, "B L", tuple(sequence.shape)[:2])
    return mask


def check_built(layer) -> None:
    """Raises a ValueError unless the layer has its weights."""
    if not layer.built:
        raise ValueError(
            f"{type(layer).__name__} does not know its channels yet: call it on an input, or "
            "build it, before you ask for its state"
        )


def check_positive_int(name: str, value) -> int:
    """Returns `value` as int, or raises a ValueError unless it is a whole number >= 1."""
    if (
        isinstance(value, bool)
        or not isinstance(value, (int, np.integer))
        or value < 1
    ):
        raise ValueError(
            f"`{name}` must be a positive integer. Received: {name}={value!r}"
        )
    return int(value)


def check_token_ids(
    name: str, value, symbols: str, vocab_size: int | None = None
) -> tf.Tensor:
    """Converts `value` to an int32 tensor of token ids with the axes `symbols`.

    Ids outside of the vocabulary are found where the numbers are known, and so not in a graph.
    (There a CPU raises an error of its own, a GPU takes a vector of zeros, and XLA another token.)

    Raises:
        ValueError: if it is not made of integers, has another rank, has length 0, or an id is
            not below vocab_size.
    """
    try:
        tensor = tf.convert_to_tensor(value)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"`{name}` must be an array of integers. Received: {value!r}"
        ) from error
    if not tensor.dtype.is_integer:
        raise ValueError(
            f"`{name}` must hold integer token ids. Received: {name} of dtype {tensor.dtype.name}"
        )
    check_rank(name, tensor, symbols)
    if (
        "L" in symbols
        and tensor.shape.rank is not None
        and tensor.shape[-1] == 0
    ):
        raise ValueError(
            f"`{name}` must hold at least one token a sequence. "
            f"Received: {name} of shape {tuple(tensor.shape)}"
        )
    if vocab_size is not None and not tf.is_symbolic_tensor(tensor):
        ids = tensor.numpy()
        if ids.size and not 0 <= ids.min() <= ids.max() < vocab_size:
            raise ValueError(
                f"`{name}` must lie between 0 and vocab_size - 1 = {vocab_size - 1}. "
                f"Received ids from {ids.min()} to {ids.max()}"
            )
    return tf.cast(tensor, tf.int32)


def channels_of(layer: str, input_shape) -> int:
    """Returns the size of the last axis of (B, L, channels), or raises a ValueError."""
    shape = tuple(input_shape)
    if len(shape) != 3 or shape[-1] is None:
        raise ValueError(
            f"{layer} needs an input of shape (batch, length, channels) with a known number of "
            f"channels. Received: input_shape={shape}"
        )
    return shape[-1]


def check_step_range(dt_min, dt_max) -> None:
    """Raises a ValueError unless 0 < dt_min <= dt_max."""
    if not 0 < dt_min <= dt_max:
        raise ValueError(
            "`dt_min` and `dt_max` must satisfy 0 < dt_min <= dt_max. "
            f"Received: dt_min={dt_min}, dt_max={dt_max}"
        )
