"""A language model made of Mamba blocks."""

from __future__ import annotations

import dataclasses
import math

import keras
import tensorflow as tf

from tf_mamba_edu import generation
from tf_mamba_edu.block import BlockState, ResidualBlock
from tf_mamba_edu.initializers import Normal, symmetric_uniform
from tf_mamba_edu.selective import check_scan_options
from tf_mamba_edu.sequence_layer import at_least_float32
from tf_mamba_edu.validation import check_positive_int, check_token_ids

Cache = list[
    BlockState
]  # one state a block: constant size, however long the text


@dataclasses.dataclass(frozen=True)
class MambaConfig:
    """Sizes and choices of a `MambaLM`, named as in the official code where it has a name.

    Attributes:
        vocab_size: V, number of tokens.
        d_model: E, width of the model.
        n_layers: number of blocks.
        d_state: N, numbers of state per channel.
        d_conv: K, width of the causal convolution.
        expand: D / E, inner channels per channel of the model.
        dt_rank: R, rank of the map to Delta; "auto" is ceil(E / 16).
        dt_min: smallest Delta at initialization.
        dt_max: largest Delta at initialization.
        conv_bias: whether the convolution has a bias.
        bias: whether the other projections of a block have one.
        tie_embeddings: whether the output layer is the transposed embedding.
        norm_eps: added to the mean square in each RMS normalization.

    Raises:
        ValueError: if a size is not a positive integer or dt_min, dt_max are out of order.
    """

    vocab_size: int
    d_model: int
    n_layers: int
    d_state: int = 16
    d_conv: int = 4
    expand: int = 2
    dt_rank: int | str = "auto"
    dt_min: float = 1e-3
    dt_max: float = 1e-1
    conv_bias: bool = True
    bias: bool = False
    tie_embeddings: bool = True
    norm_eps: float = 1e-5

    def __post_init__(self):
        for name in (
            "vocab_size",
            "d_model",
            "n_layers",
            "d_state",
            "d_conv",
            "expand",
        ):
            check_positive_int(name, getattr(self, name))
        if self.dt_rank != "auto":
            check_positive_int("dt_rank", self.dt_rank)
        check_scan_options(self.dt_min, self.dt_max)

    @property
    def d_inner(self) -> int:
        """D, the channels inside a block."""
        return self.expand * self.d_model

    @property
    def rank(self) -> int:
        """R, with "auto" worked out: ceil(E / 16)."""
        return (
            math.ceil(self.d_model / 16)
            if self.dt_rank == "auto"
            else self.dt_rank
        )


@keras.saving.register_keras_serializable("tf_mamba_edu")
class MambaLM(keras.Model):
    """Next-token model: embedding, residual Mamba blocks, RMSNorm, output layer.

    The architecture and initialization of the official code for arXiv 2312.00752 (section 3.4).
    All weights exist as soon as the model does. The sum that runs through the blocks is float32
    even where the dtype is half of that. Time O(B L n_layers (E D + D N) + B L E V).

    Args:
        config: a `MambaConfig`, or its fields as a dict.
        method: how the scan runs, see `selective_scan`.
        **kwargs: name, dtype and so on, as for every Keras model.

    Raises:
        ValueError: if token ids are not integers of shape (B, L) with L >= 1.
    """

    def __init__(
        self, config: MambaConfig | dict, method: str = "auto", **kwargs
    ):
        super().__init__(
            autocast=False, **kwargs
        )  # whole numbers stay as they are
        self.config = (
            config
            if isinstance(config, MambaConfig)
            else MambaConfig(**config)
        )
        self.method = method
        c = self.config
        self.embedding = keras.layers.Embedding(
            c.vocab_size,
            c.d_model,
            embeddings_initializer=Normal(stddev=0.02),
            dtype=self.dtype_policy,
            name="embedding",
        )
        names = "d_state d_conv expand dt_rank dt_min dt_max conv_bias bias n_layers".split()
        arguments = {name: getattr(c, name) for name in names} | {
            "method": method
        }
        self.blocks = [
            ResidualBlock(
                norm_eps=c.norm_eps,
                block=arguments,
                dtype=self.dtype_policy,
                name=f"block_{i}",
            )
            for i in range(c.n_layers)
        ]
        self.norm = keras.layers.RMSNormalization(
            epsilon=c.norm_eps, dtype=self.dtype_policy, name="norm"
        )
        self.head = None
        if not c.tie_embeddings:
            self.head = keras.layers.Dense(
                c.vocab_size,
                use_bias=False,
                kernel_initializer=symmetric_uniform(c.d_model**-0.5),
                dtype=self.dtype_policy,
                name="head",
            )
        self.build((None, None))

    @property
    def input_dtype(self) -> str:
        """The dtype of the input, for Keras: token ids are no floating point numbers."""
        return "int32"

    def build(self, input_shape):
        hidden = (None, None, self.config.d_model)
        self.embedding.build((None, None))
        for layer in (
            *self.blocks,
            self.norm,
            *([] if self.head is None else [self.head]),
        ):
            layer.build(hidden)
        self.built = True

    def call(self, token_ids):
        """Returns logits (B, L, V) for token ids (B, L); position t predicts token t + 1."""
        if tf.is_symbolic_tensor(token_ids):
            # On several devices Keras builds a model with the mean of their ids.
            token_ids = tf.cast(token_ids, tf.int32)
        token_ids = check_token_ids("token_ids", token_ids, "B L")
        h = self._embed(token_ids)  # (B, L, E)
        for block in self.blocks:
            h = block(h)  # (B, L, E)
        return self._logits(h)  # (B, L, V)

    def prefill(
        self, token_ids, cache: Cache | None = None
    ) -> tuple[tf.Tensor, Cache]:
        """Reads a whole prompt at once and returns what is needed to go on from its end.

        Args:
            token_ids: (B, L) integers.
            cache: state to start from, for text read in pieces; none if None.

        Returns:
            (logits (B, L, V), cache).

        Raises:
            ValueError: if token ids are not integers of shape (B, L) with L >= 1.
        """
        token_ids = check_token_ids("token_ids", token_ids, "B L")
        h, cache = (
            self._embed(token_ids),
            cache or [None] * len(self.blocks),
        )
        after = []
        for block, state in zip(self.blocks, cache, strict=True):
            h, state = block(
                h, initial_state=state, return_state=True
            )  # (B, L, E)
            after.append(state)
        return self._logits(h), after

    def step(self, token_ids, cache: Cache) -> tuple[tf.Tensor, Cache]:
        """Reads one token: its cost does not depend on how many came before.

        Args:
            token_ids: (B,) integers.
            cache: from `init_cache`, `prefill` or an earlier step.

        Returns:
            (logits (B, V) for the next token, cache).

        Raises:
            ValueError: if token ids are not integers of shape (B,).
        """
        token_ids = check_token_ids("token_ids", token_ids, "B")
        h, after = self._embed(token_ids), []  # (B, E)
        for block, state in zip(self.blocks, cache, strict=True):
            h, state = block.step(h, state)  # (B, E)
            after.append(state)
        return self._logits(h), after

    def step_sizes(self, token_ids) -> list[tf.Tensor]:
        """Returns the Delta of every block at every token: what the model selects.

        Args:
            token_ids: (B, L) integers.

        Returns:
            One (B, L, D) float32 tensor a block.

        Raises:
            ValueError: if token ids are not integers of shape (B, L) with L >= 1.
        """
        token_ids = check_token_ids("token_ids", token_ids, "B L")
        h, deltas = self._embed(token_ids), []  # (B, L, E)
        for block in self.blocks:
            deltas.append(block.block.step_sizes(block.norm(h)))
            h = block(h)  # (B, L, E)
        return deltas

    def init_cache(self, batch_size: int) -> Cache:
        """Returns the cache before any token: for each block (B, K - 1, D) and (B, D, N) zeros."""
        return [block.zero_state(batch_size) for block in self.blocks]

    @classmethod
    def from_pretrained(cls, checkpoint, **options) -> MambaLM:
        """Makes a model with published weights; see `pretrained.from_pretrained`."""
        from tf_mamba_edu import pretrained

        return pretrained.from_pretrained(checkpoint, **options)

    def save_pretrained(self, folder, **options) -> None:
        """Writes a checkpoint that others can read; see `pretrained.save_pretrained`."""
        from tf_mamba_edu import pretrained

        pretrained.save_pretrained(self, folder, **options)

    def generate(
        self, token_ids, max_new_tokens: int, **options
    ) -> tf.Tensor:
        """Continues each prompt; see `generation.generate` for the options."""
        return generation.generate(
            self, token_ids, max_new_tokens, **options
        )

    def stream(self, token_ids, max_new_tokens: int, **options):
        """Yields the continuation token by token, (B,) each; see `generation.stream`."""
        return generation.stream(
            self, token_ids, max_new_tokens, **options
        )

    def _embed(self, token_ids):
        return tf.cast(
            self.embedding(token_ids),
            at_least_float32(self.variable_dtype),
        )  # (..., E)

    def _logits(self, h):
        h = self.norm(h)  # (..., E)
        if self.head is not None:
            return self.head(h)  # (..., V)
        embeddings = tf.cast(
            self.embedding.embeddings, h.dtype
        )  # (V, E)
        return tf.matmul(h, embeddings, transpose_b=True)  # (..., V)

    def compute_output_shape(self, input_shape):
        return (*input_shape, self.config.vocab_size)

    def get_config(self):
        own = {
            "config": dataclasses.asdict(self.config),
            "method": self.method,
        }
        return {**super().get_config(), **own}
