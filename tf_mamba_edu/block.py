"""The Mamba block: what stands around the selective scan."""

from __future__ import annotations

import inspect
import math
from typing import NamedTuple

import keras
import tensorflow as tf

from tf_mamba_edu.convolution import CausalConv1D
from tf_mamba_edu.initializers import symmetric_uniform
from tf_mamba_edu.selective import SelectiveSSM, check_scan_options
from tf_mamba_edu.sequence_layer import SequenceLayer
from tf_mamba_edu.validation import (
    as_floating,
    as_sequence,
    channels_of,
    check_built,
    check_mask,
    check_positive_int,
    check_shape,
)


class BlockState(NamedTuple):
    """What a Mamba block carries from step to step.

    Attributes:
        conv: (B, K - 1, D) last inputs of the convolution.
        ssm: (B, D, N) state of the SSM.
    """

    conv: tf.Tensor
    ssm: tf.Tensor


def as_block_state(state) -> BlockState:
    """Returns a pair (conv, ssm) as a `BlockState`; None is a state of two None.

    Raises:
        ValueError: if it is no pair.
    """
    if state is None:
        return BlockState(None, None)
    pair = isinstance(state, (tuple, list)) and len(state) == 2
    if not pair or any(isinstance(s, (tuple, list)) for s in state):
        raise ValueError(
            "`initial_state` must be a BlockState, such as `zero_state` returns, or a pair "
            f"(conv, ssm). Received: initial_state of type {type(state).__name__}"
        )
    return BlockState(*state)


@keras.saving.register_keras_serializable("tf_mamba_edu")
class MambaBlock(SequenceLayer):
    """The Mamba block of arXiv 2312.00752, figure 3, on sequences (B, L, E).

    x, z = in_proj(u); y = out_proj(SSM(silu(conv(x))) * silu(z)). It has neither normalization
    nor residual connection: `ResidualBlock` adds them. Initialization as in the official code.
    Time O(B L (E D + D N)), D = expand E.

    Args:
        d_state: N, numbers of state per channel.
        d_conv: K, width of the causal convolution.
        expand: D / E, inner channels per channel of the model.
        dt_rank: R, rank of the map to Delta; "auto" is ceil(E / 16).
        dt_min: smallest Delta at initialization.
        dt_max: largest Delta at initialization.
        conv_bias: whether the convolution has a bias.
        bias: whether in_proj and out_proj have one.
        n_layers: blocks in the model; out_proj starts smaller by its square root.
        ssm: another layer from (B, L, D) to (B, L, D) in place of `SelectiveSSM`.
        method: how the scan runs, see `selective_scan`.
        **kwargs: name, dtype and so on, as for every Keras layer.

    Raises:
        ValueError: if an argument is out of range, or the input is not a floating (B, L, E).
    """

    def __init__(
        self,
        *,
        d_state: int = 16,
        d_conv: int = 4,
        expand: int = 2,
        dt_rank: int | str = "auto",
        dt_min: float = 1e-3,
        dt_max: float = 1e-1,
        conv_bias: bool = True,
        bias: bool = False,
        n_layers: int = 1,
        ssm: keras.layers.Layer | None = None,
        method: str = "auto",
        **kwargs,
    ):
        super().__init__(
            autocast=False, **kwargs
        )  # the carried state must stay float32
        self.supports_masking = True
        self.d_state = check_positive_int("d_state", d_state)
        self.d_conv = check_positive_int("d_conv", d_conv)
        self.expand = check_positive_int("expand", expand)
        self.n_layers = check_positive_int("n_layers", n_layers)
        self.dt_rank = (
            dt_rank
            if dt_rank == "auto"
            else check_positive_int("dt_rank", dt_rank)
        )
        check_scan_options(dt_min, dt_max, method)
        self.dt_min, self.dt_max, self.method = dt_min, dt_max, method
        self.conv_bias, self.bias = conv_bias, bias
        self.ssm = ssm
        self._own_ssm = ssm is None

    def build(self, input_shape):
        E = channels_of("MambaBlock", input_shape)
        D = self.expand * E
        self.in_proj = self._dense(2 * D, E, 1.0, "in_proj")
        self.conv = CausalConv1D(
            self.d_conv,
            self.conv_bias,
            dtype=self.dtype_policy,
            name="conv",
        )
        self.conv.build((None, None, D))
        if self.ssm is None:
            self.ssm = SelectiveSSM(
                self.d_state,
                math.ceil(E / 16)
                if self.dt_rank == "auto"
                else self.dt_rank,
                self.dt_min,
                self.dt_max,
                self.method,
                dtype=self.dtype_policy,
                name="ssm",
            )
        if not self.ssm.built:
            self.ssm.build((None, None, D))
        self.out_proj = self._dense(
            E, D, self.n_layers**-0.5, "out_proj"
        )
        self.input_spec = keras.layers.InputSpec(ndim=3, axes={-1: E})
        self.built = True

    def _dense(self, units, inputs, scale, name):
        """A Dense layer with PyTorch's default kernel, Uniform(+-inputs^-1/2), times `scale`."""
        layer = keras.layers.Dense(
            units,
            use_bias=self.bias,
            kernel_initializer=symmetric_uniform(scale * inputs**-0.5),
            dtype=self.dtype_policy,
            name=name,
        )
        layer.build((None, None, inputs))
        return layer

    def call(
        self, u, initial_state=None, return_state=False, mask=None
    ):
        """Runs the block on (B, L, E): y (B, L, E), or (y, BlockState).

        Positions that a mask (B, L) hides leave the state as it is: padding at the start or the
        end of a text changes neither the outputs at its words nor the state after it. Outputs at
        hidden positions mean nothing.
        """
        mask = check_mask(u, mask)
        u = as_sequence("u", u, self.compute_dtype)
        x, z = tf.split(self.in_proj(u), 2, axis=-1)  # (B, L, D) each
        if not return_state and initial_state is None:
            x = tf.nn.silu(self.conv(x, mask=mask))  # (B, L, D)
            y = self._run_ssm(x, mask)  # (B, L, D)
            return self.out_proj(y * tf.nn.silu(z))  # (B, L, E)
        state = as_block_state(initial_state)
        x, conv_state = self.conv(
            x, initial_state=state.conv, return_state=True, mask=mask
        )
        y, ssm_state = self._run_ssm(
            tf.nn.silu(x),
            mask,
            initial_state=state.ssm,
            return_state=True,
        )
        y = self.out_proj(y * tf.nn.silu(z))  # (B, L, E)
        return (
            (y, BlockState(conv_state, ssm_state))
            if return_state
            else y
        )

    def _run_ssm(self, x, mask, **state):
        """Runs the SSM; one that knows no masks gets zeros where this one hides."""
        if mask is None:
            return self.ssm(x, **state)
        if "mask" in inspect.signature(self.ssm.call).parameters:
            return self.ssm(x, mask=mask, **state)
        return self.ssm(tf.where(mask[:, :, None], x, 0), **state)

    def step(
        self, u, state: BlockState
    ) -> tuple[tf.Tensor, BlockState]:
        """Runs one time step: O(B (E D + D N)) whatever came before.

        Args:
            u: (B, E) input.
            state: from `zero_state`, an earlier step, or a call with return_state=True.

        Returns:
            (y (B, E), state).
        """
        u = as_floating("u", u, tf.as_dtype(self.compute_dtype))
        check_shape("u", u, "B E", (None, self.in_proj.kernel.shape[0]))
        x, z = tf.split(self.in_proj(u), 2, axis=-1)  # (B, D) each
        x, conv_state = self.conv.step(x, state.conv)
        y, ssm_state = self.ssm.step(tf.nn.silu(x), state.ssm)
        return self.out_proj(y * tf.nn.silu(z)), BlockState(
            conv_state, ssm_state
        )

    def step_sizes(self, u) -> tf.Tensor:
        """Returns the Delta that the block gives to each time and channel, to look at.

        Args:
            u: (B, L, E) input of the block.

        Returns:
            (B, L, D) float32 step sizes.
        """
        x, _ = tf.split(self.in_proj(u), 2, axis=-1)  # (B, L, D)
        return self.ssm.step_sizes(tf.nn.silu(self.conv(x)))

    def zero_state(self, batch_size) -> BlockState:
        """Returns the state before any input."""
        check_built(self)
        return BlockState(
            self.conv.zero_state(batch_size),
            self.ssm.zero_state(batch_size),
        )

    def state_spec(self, batch_size: int | None = None) -> BlockState:
        check_built(self)
        D = self.conv.kernel.shape[-1]
        x = keras.KerasTensor((batch_size, None, D), self.compute_dtype)
        return BlockState(
            self.conv.compute_output_spec(x, return_state=True)[1],
            self.ssm.compute_output_spec(x, return_state=True)[1],
        )

    def get_config(self):
        names = "d_state d_conv expand dt_rank dt_min dt_max conv_bias bias n_layers method"
        own = {name: getattr(self, name) for name in names.split()}
        own["ssm"] = (
            None
            if self._own_ssm
            else keras.saving.serialize_keras_object(self.ssm)
        )
        return {**super().get_config(), **own}

    @classmethod
    def from_config(cls, config):
        if config.get("ssm") is not None:
            config = {
                **config,
                "ssm": keras.saving.deserialize_keras_object(
                    config["ssm"]
                ),
            }
        return cls(**config)


def block_arguments(block) -> dict:
    """Returns a copy of the arguments of a `MambaBlock`; None is none of them.

    Raises:
        ValueError: if it is no dict.
    """
    if not isinstance(block, (dict, type(None))):
        raise ValueError(
            "`block` must be a dict of arguments of MambaBlock, such as {'d_state': 16}. "
            f"Received: block of type {type(block).__name__}"
        )
    return dict(block or {})


def make_dropout(rate: float, policy="float32") -> keras.layers.Dropout:
    """Returns a layer that drops a share of the channels of (B, L, E) in training.

    A channel that is dropped is so for the whole sequence (Gal and Ghahramani, arXiv 1512.05287):
    noise that changed from token to token would be averaged away by the state, and drawing it
    costs several times what a small block does.

    Raises:
        ValueError: if the rate is not in [0, 1).
    """
    if not isinstance(rate, (int, float)) or not 0 <= rate < 1:
        raise ValueError(
            "`dropout` must be a number from 0 to below 1. "
            f"Received: dropout={rate!r}"
        )
    return keras.layers.Dropout(
        rate, noise_shape=(None, 1, None), dtype=policy, name="dropout"
    )


@keras.saving.register_keras_serializable("tf_mamba_edu")
class ResidualBlock(SequenceLayer):
    """x + MambaBlock(RMSNorm(x)): one pre-norm layer of a Mamba model, (B, L, E) to (B, L, E).

    The sum keeps the dtype of its input (float32 in `MambaLM`) under mixed precision.

    Args:
        norm_eps: added to the mean square before its root.
        block: arguments of `MambaBlock`.
        dropout: share of the channels of what the block adds that training leaves out, for a
            whole sequence, at random.
        **kwargs: name, dtype and so on, as for every Keras layer.

    Raises:
        ValueError: if `block` is no dict, `dropout` is not in [0, 1), or the input is not a
            floating (B, L, E).
    """

    def __init__(
        self,
        *,
        norm_eps: float = 1e-5,
        block: dict | None = None,
        dropout: float = 0.0,
        **kwargs,
    ):
        super().__init__(autocast=False, **kwargs)
        self.supports_masking = True
        self.norm_eps = norm_eps
        self.dropout = make_dropout(dropout, self.dtype_policy)
        self.block_arguments = block_arguments(block)
        self.norm = keras.layers.RMSNormalization(
            epsilon=norm_eps, dtype=self.dtype_policy, name="norm"
        )
        self.norm.supports_masking = True  # each position by itself
        self.block = MambaBlock(
            **self.block_arguments,
            dtype=self.dtype_policy,
            name="block",
        )

    def build(self, input_shape):
        channels_of("ResidualBlock", input_shape)
        self.norm.build(input_shape)
        self.block.build(input_shape)
        self.input_spec = keras.layers.InputSpec(
            ndim=3, axes={-1: input_shape[-1]}
        )
        self.built = True

    def call(
        self,
        x,
        initial_state=None,
        return_state=False,
        mask=None,
        training=None,
    ):
        """Runs the layer on (B, L, E): y (B, L, E), or (y, BlockState).

        What a mask (B, L) does: see `MambaBlock`.
        """
        mask = check_mask(x, mask)
        x = as_sequence("x", x)
        y = self.block(
            self.norm(x),
            initial_state=initial_state,
            return_state=return_state,
            mask=mask,
        )
        y, state = y if return_state else (y, None)
        y = self.dropout(y, training=training)
        y = x + tf.cast(y, x.dtype)  # (B, L, E)
        return (y, state) if return_state else y

    def step(
        self, x, state: BlockState
    ) -> tuple[tf.Tensor, BlockState]:
        """Runs one time step on x (B, E): (y, state)."""
        x = as_floating("x", x)
        check_shape("x", x, "B E", (None, self.norm.scale.shape[0]))
        y, state = self.block.step(self.norm(x), state)
        return x + tf.cast(y, x.dtype), state

    def zero_state(self, batch_size) -> BlockState:
        """Returns the state before any input."""
        return self.block.zero_state(batch_size)

    def state_spec(self, batch_size: int | None = None) -> BlockState:
        return self.block.state_spec(batch_size)

    def compute_output_spec(
        self,
        x,
        initial_state=None,
        return_state=False,
        mask=None,
        training=None,
    ):
        y = keras.KerasTensor(x.shape, x.dtype)
        return (y, self.state_spec(x.shape[0])) if return_state else y

    def get_config(self):
        block = dict(self.block_arguments)
        if block.get("ssm") is not None:
            block["ssm"] = keras.saving.serialize_keras_object(
                block["ssm"]
            )
        own = {
            "norm_eps": self.norm_eps,
            "block": block,
            "dropout": self.dropout.rate,
        }
        return {**super().get_config(), **own}

    @classmethod
    def from_config(cls, config):
        block = dict(config["block"])
        if block.get("ssm") is not None:
            block["ssm"] = keras.saving.deserialize_keras_object(
                block["ssm"]
            )
        return cls(**{**config, "block": block})
