"""The Mamba block: what stands around the selective scan."""

from __future__ import annotations

import math
from typing import NamedTuple

import keras
import tensorflow as tf

from tf_mamba_edu.selective import (
    SelectiveSSM,
    channels_of,
    check_scan_options,
    symmetric_uniform,
)
from tf_mamba_edu.validation import (
    as_floating,
    as_sequence,
    check_positive_int,
    check_shape,
)


@keras.saving.register_keras_serializable("tf_mamba_edu")
class CausalConv1D(keras.layers.Layer):
    """Mixes each channel with its own last few inputs: a causal depthwise convolution.

    y_t = bias + sum_k kernel_k x_{t-K+1+k}, with zeros (or a carried state) before the start:
    y_t never sees the future. Time O(B L D K).

    Args:
        kernel_size: K, how many inputs each output sees.
        use_bias: whether a bias is added.
        **kwargs: name, dtype and so on, as for every Keras layer.
    """

    def __init__(
        self, kernel_size: int = 4, use_bias: bool = True, **kwargs
    ):
        super().__init__(**kwargs)
        self.kernel_size = check_positive_int(
            "kernel_size", kernel_size
        )
        self.use_bias = use_bias

    def build(self, input_shape):
        D, K = (
            channels_of("CausalConv1D", input_shape),
            self.kernel_size,
        )
        uniform = symmetric_uniform(K**-0.5)
        self.kernel = self.add_weight(
            shape=(K, D), initializer=uniform, name="kernel"
        )
        self.bias = None
        if self.use_bias:
            self.bias = self.add_weight(
                shape=(D,), initializer=uniform, name="bias"
            )
        self.input_spec = keras.layers.InputSpec(ndim=3, axes={-1: D})
        self.built = True

    def call(self, x, initial_state=None, return_state=False):
        """Runs the layer on (B, L, D); returns y, or (y, the last inputs (B, K - 1, D))."""
        x, K = as_sequence("x", x), self.kernel_size
        if initial_state is None:
            initial_state = tf.zeros(
                (tf.shape(x)[0], K - 1, x.shape[-1]), x.dtype
            )
        state = self._fitting("initial_state", initial_state, x)
        padded = tf.concat([state, x], axis=1)  # (B, K - 1 + L, D)
        y = sum(
            padded[:, k : k + 1 - K or None]
            * self.kernel[k]  # (B, L, D)
            for k in range(K)
        )
        if self.bias is not None:
            y = y + self.bias  # (B, L, D)
        if not return_state:
            return y
        return y, padded[:, tf.shape(x)[1] :]

    def step(self, x, state) -> tuple[tf.Tensor, tf.Tensor]:
        """Runs one time step on x (B, D) and the last inputs (B, K - 1, D): (y, state)."""
        x = as_floating("x", x, tf.as_dtype(self.compute_dtype))
        check_shape("x", x, "B D", (None, self.kernel.shape[-1]))
        state = self._fitting("state", state, x)  # (B, K - 1, D)
        window = tf.concat([state, x[:, None]], axis=1)  # (B, K, D)
        y = tf.einsum(
            "bkd,kd->bd", window, tf.cast(self.kernel, x.dtype)
        )  # (B, D)
        if self.bias is not None:
            y = y + tf.cast(self.bias, x.dtype)
        return y, window[:, 1:]

    def _fitting(self, name, state, x):
        """The last inputs (B, K - 1, D) as a tensor, if they fit x."""
        state = as_floating(name, state, x.dtype)
        sizes = x.shape[0], self.kernel_size - 1, self.kernel.shape[-1]
        check_shape(name, state, "B K-1 D", sizes)
        return state

    def zero_state(self, batch_size) -> tf.Tensor:
        """Returns the state (B, K - 1, D) before any input."""
        return tf.zeros(
            (batch_size, self.kernel_size - 1, self.kernel.shape[-1]),
            self.compute_dtype,
        )

    def compute_output_shape(self, input_shape):
        return tuple(input_shape)

    def get_config(self):
        config = {
            "kernel_size": self.kernel_size,
            "use_bias": self.use_bias,
        }
        return {**super().get_config(), **config}


class BlockState(NamedTuple):
    """What a Mamba block carries from step to step.

    Attributes:
        conv: (B, K - 1, D) last inputs of the convolution.
        ssm: (B, D, N) state of the SSM.
    """

    conv: tf.Tensor
    ssm: tf.Tensor


@keras.saving.register_keras_serializable("tf_mamba_edu")
class MambaBlock(keras.layers.Layer):
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

    def call(self, u, initial_state=None, return_state=False):
        """Runs the block on (B, L, E); returns y (B, L, E), or (y, `BlockState`)."""
        u = as_sequence("u", u, self.compute_dtype)
        x, z = tf.split(self.in_proj(u), 2, axis=-1)  # (B, L, D) each
        if not return_state and initial_state is None:
            y = self.ssm(tf.nn.silu(self.conv(x)))  # (B, L, D)
            return self.out_proj(y * tf.nn.silu(z))  # (B, L, E)
        state = initial_state
        if state is None:
            state = BlockState(None, None)
        elif not isinstance(state, BlockState):
            raise ValueError(
                "`initial_state` must be a BlockState, such as `zero_state` returns. "
                f"Received: initial_state of type {type(state).__name__}"
            )
        x, conv_state = self.conv(
            x, initial_state=state.conv, return_state=True
        )
        y, ssm_state = self.ssm(
            tf.nn.silu(x), initial_state=state.ssm, return_state=True
        )
        y = self.out_proj(y * tf.nn.silu(z))  # (B, L, E)
        return (
            (y, BlockState(conv_state, ssm_state))
            if return_state
            else y
        )

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
        return BlockState(
            self.conv.zero_state(batch_size),
            self.ssm.zero_state(batch_size),
        )

    def compute_output_shape(self, input_shape):
        return tuple(input_shape)

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


@keras.saving.register_keras_serializable("tf_mamba_edu")
class ResidualBlock(keras.layers.Layer):
    """x + MambaBlock(RMSNorm(x)): one pre-norm layer of a Mamba model, (B, L, E) to (B, L, E).

    The sum keeps the dtype of its input (float32 in `MambaLM`) under mixed precision.

    Args:
        norm_eps: added to the mean square before its root.
        block: arguments of `MambaBlock`.
        **kwargs: name, dtype and so on, as for every Keras layer.
    """

    def __init__(
        self,
        norm_eps: float = 1e-5,
        block: dict | None = None,
        **kwargs,
    ):
        super().__init__(autocast=False, **kwargs)
        self.norm_eps = norm_eps
        self.block_arguments = dict(block or {})
        self.norm = keras.layers.RMSNormalization(
            epsilon=norm_eps, dtype=self.dtype_policy, name="norm"
        )
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

    def call(self, x, initial_state=None, return_state=False):
        """Runs the layer on (B, L, E); returns y (B, L, E), or (y, `BlockState`)."""
        x = as_sequence("x", x)
        if not return_state:
            return x + tf.cast(
                self.block(self.norm(x), initial_state=initial_state),
                x.dtype,
            )
        y, state = self.block(
            self.norm(x), initial_state=initial_state, return_state=True
        )
        return x + tf.cast(y, x.dtype), state

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

    def compute_output_shape(self, input_shape):
        return tuple(input_shape)

    def get_config(self):
        block = dict(self.block_arguments)
        if block.get("ssm") is not None:
            block["ssm"] = keras.saving.serialize_keras_object(
                block["ssm"]
            )
        own = {"norm_eps": self.norm_eps, "block": block}
        return {**super().get_config(), **own}

    @classmethod
    def from_config(cls, config):
        block = dict(config["block"])
        if block.get("ssm") is not None:
            block["ssm"] = keras.saving.deserialize_keras_object(
                block["ssm"]
            )
        return cls(**{**config, "block": block})
