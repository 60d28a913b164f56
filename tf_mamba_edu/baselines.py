"""What Mamba is compared with: language models of GRU layers and of causal attention.

Both are made of Keras layers, and are used like `MambaLM`: the same `call`, `prefill`, `step`,
`generate`. Their caches differ, and that is the point of the comparison.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from tf_mamba_edu import generation
from tf_mamba_edu.initializers import Normal
from tf_mamba_edu.validation import check_positive_int, check_token_ids


@dataclasses.dataclass(frozen=True)
class BaselineConfig:
    """Sizes of a baseline.

    Attributes:
        vocab_size: V, number of tokens.
        d_model: E, width of the model.
        n_layers: number of layers.
        n_heads: heads of attention; must divide d_model. A GRU has none.
        mlp_ratio: width inside the feed-forward part of a Transformer, as a multiple of d_model.
        rotary: whether a Transformer turns queries and keys by their place, instead of adding
            sines of the place to its input. A GRU needs neither.

    Raises:
        ValueError: if a size is not a positive integer, or the heads do not divide the width.
    """

    vocab_size: int
    d_model: int
    n_layers: int
    n_heads: int = 4
    mlp_ratio: int = 4
    rotary: bool = False

    def __post_init__(self):
        for field in dataclasses.fields(self):
            if field.name != "rotary":
                check_positive_int(
                    field.name, getattr(self, field.name)
                )
        if self.d_model % self.n_heads:
            raise ValueError(
                "`n_heads` must divide d_model. "
                f"Received: n_heads={self.n_heads}, d_model={self.d_model}"
            )


class TokenModel(generation.GenerationMixin, keras.Model):
    """Embedding, layers, normalization, tied output: what both baselines share.

    Args:
        config: a `BaselineConfig`, or its fields as a dict.
        **kwargs: name, dtype and so on, as for every Keras model.
    """

    def __init__(self, config: BaselineConfig | dict, **kwargs):
        super().__init__(**kwargs)
        if isinstance(config, dict):
            config = BaselineConfig(**config)
        self.config = config
        self.embedding = keras.layers.Embedding(
            config.vocab_size,
            config.d_model,
            embeddings_initializer=Normal(
                stddev=self.embedding_spread()
            ),
            dtype=self.dtype_policy,
            name="embedding",
        )
        self.norm = keras.layers.RMSNormalization(
            dtype=self.dtype_policy, name="norm"
        )
        self.make_layers()
        self.build((None, None))

    def embedding_spread(self) -> float:
        """Returns the standard deviation of fresh embeddings."""
        return 0.02

    @property
    def input_dtype(self) -> str:
        """The dtype of the input, for Keras: token ids are no floating point numbers."""
        return "int32"

    def call(self, token_ids):
        """Returns logits (B, L, V) for token ids (B, L); position t predicts token t + 1."""
        if tf.is_symbolic_tensor(token_ids):
            token_ids = tf.cast(token_ids, tf.int32)
        return self.prefill(token_ids)[0]

    def logits(self, h) -> tf.Tensor:
        """Returns the scores (..., V) of hidden vectors (..., E)."""
        return generation.tied_logits(self.norm(h), self.embedding)

    def compute_output_shape(self, input_shape):
        return (*input_shape, self.config.vocab_size)

    def get_config(self):
        config = dataclasses.asdict(self.config)
        return {**super().get_config(), "config": config}


@keras.saving.register_keras_serializable("tf_mamba_edu")
class GRULM(TokenModel):
    """Next-token model of residual GRU layers: h + GRU(RMSNorm(h)).

    Time O(B L n_layers E^2), one step after the other. The cache is one vector a layer.
    """

    def make_layers(self):
        """Makes norms and GRU layers."""
        E, policy = self.config.d_model, self.dtype_policy
        self.norms = [
            keras.layers.RMSNormalization(
                dtype=policy, name=f"norm_{i}"
            )
            for i in range(self.config.n_layers)
        ]
        self.layers_ = [
            keras.layers.GRU(
                E,
                return_sequences=True,
                return_state=True,
                dtype=policy,
                name=f"gru_{i}",
            )
            for i in range(self.config.n_layers)
        ]

    def build(self, input_shape):
        hidden = (None, None, self.config.d_model)
        self.embedding.build((None, None))
        for layer in (*self.norms, *self.layers_, self.norm):
            layer.build(hidden)
        self.built = True

    def prefill(self, token_ids, cache=None, last_only: bool = False):
        """Reads a text, or its next part: returns (logits (B, L, V), cache).

        Args:
            token_ids: (B, L) integers.
            cache: one (B, E) a layer, from an earlier part; none if None.
            last_only: whether to compute only the last token's logits, (B, V).
        """
        token_ids = check_token_ids(
            "token_ids", token_ids, "B L", self.config.vocab_size
        )
        if cache is None:
            cache = self.init_cache(tf.shape(token_ids)[0])
        h, after = self.embedding(token_ids), []  # (B, L, E)
        for norm, layer, state in zip(
            self.norms, self.layers_, cache, strict=True
        ):
            y, state = layer(norm(h), initial_state=state)
            h = h + y  # (B, L, E)
            after.append(state)
        return self.logits(h[:, -1] if last_only else h), after

    def step(self, token_ids, cache):
        """Reads one token (B,): returns (logits (B, V), cache); cost O(B n_layers E^2)."""
        token_ids = check_token_ids(
            "token_ids", token_ids, "B", self.config.vocab_size
        )
        logits, cache = self.prefill(token_ids[:, None], cache)
        return logits[:, 0], cache

    def init_cache(self, batch_size) -> list[tf.Tensor]:
        """Returns one (B, E) of zeros a layer."""
        shape = batch_size, self.config.d_model
        return [
            tf.zeros(shape, self.compute_dtype) for _ in self.layers_
        ]


class KeysAndValues(NamedTuple):
    """What a Transformer carries from token to token: it grows with the text.

    Attributes:
        keys: one (S, B, H, E / H) a layer, for S places.
        values: the same.
        length: how many places are filled, a scalar.
    """

    keys: list[tf.Tensor]
    values: list[tf.Tensor]
    length: tf.Tensor


def positions(start, length, width) -> tf.Tensor:
    """Returns sines and cosines of places, (length, width).

    Section 3.5 of arXiv 1706.03762. Unlike learned positions they do not end.
    """
    place = tf.cast(start + tf.range(length), tf.float32)[:, None]
    rate = 1e4 ** (-np.arange(0, width, 2, dtype=np.float32) / width)
    angle = place * rate  # (length, width / 2, rounded up)
    both = tf.concat([tf.sin(angle), tf.cos(angle)], axis=-1)
    return both[:, :width]


def rotated(x, places) -> tf.Tensor:
    """Turns pairs (x_i, x_{i + half}) by place * 1e4^(-i / half).

    Section 3.2.2 of arXiv 2104.09864, with halves for neighbors. The scalar product of a query and
    a key, both turned, depends on their contents and on the distance of their places only.

    Args:
        x: (L, B, H, width). If the width is odd, the last number stays as it is.
        places: (L,) integers.
    """
    half = x.shape[-1] // 2
    rate = 1e4 ** (-np.arange(half, dtype=np.float32) / half)
    place = tf.cast(places, tf.float32)[:, None, None, None]
    angle = place * rate  # (L, 1, 1, half)
    cos, sin = (
        tf.cast(tf.cos(angle), x.dtype),
        tf.cast(tf.sin(angle), x.dtype),
    )
    a, b, rest = tf.split(x, [half, half, x.shape[-1] % 2], axis=-1)
    return tf.concat(
        [a * cos - b * sin, a * sin + b * cos, rest], axis=-1
    )


@keras.saving.register_keras_serializable("tf_mamba_edu")
class CausalSelfAttention(keras.layers.Layer):
    """Multi-head attention of each place to itself and those before it, with a cache.

    Section 3.2 of arXiv 1706.03762. Time O(B S L E) for L new places and S in all.

    Args:
        n_heads: H, heads; must divide the width E.
        rotary: whether queries and keys are turned by their place (`rotated`).
        **kwargs: name, dtype and so on, as for every Keras layer.
    """

    def __init__(self, n_heads: int, rotary: bool = False, **kwargs):
        super().__init__(**kwargs)
        self.n_heads, self.rotary = n_heads, rotary

    def build(self, input_shape):
        E = input_shape[-1]
        self.qkv = keras.layers.Dense(
            3 * E, use_bias=False, dtype=self.dtype_policy, name="qkv"
        )
        self.qkv.build((None, None, E))
        self.out = keras.layers.Dense(
            E, use_bias=False, dtype=self.dtype_policy, name="out"
        )
        self.out.build((None, None, E))
        self.built = True

    def call(self, x, keys=None, values=None, length=0):
        """Runs on the places from `length` on, x (B, L, E).

        Returns:
            (y (B, L, E), keys, values), the latter (S, B, H, E / H) with the new places in.
        """
        B, L, E = tf.shape(x)[0], tf.shape(x)[1], x.shape[-1]
        heads = (L, B, self.n_heads, E // self.n_heads)
        q, k, v = (
            tf.reshape(tf.transpose(t, [1, 0, 2]), heads)
            for t in tf.split(self.qkv(x), 3, axis=-1)
        )  # (L, B, H, E / H) each
        new = length + tf.range(L)  # (L,)
        if self.rotary:
            q, k = rotated(q, new), rotated(k, new)
        if keys is None:
            keys, values = k, v
        else:
            place = new[:, None]
            keys = tf.tensor_scatter_nd_update(keys, place, k)
            values = tf.tensor_scatter_nd_update(values, place, v)
        scores = tf.einsum("lbhe,sbhe->bhls", q, keys)
        scores *= (E // self.n_heads) ** -0.5
        seen = tf.range(tf.shape(keys)[0]) <= new[:, None]  # (L, S)
        scores = tf.where(seen, scores, scores.dtype.min)
        weights = tf.nn.softmax(scores)  # (B, H, L, S)
        y = tf.einsum("bhls,sbhe->blhe", weights, values)
        return self.out(tf.reshape(y, (B, L, E))), keys, values

    def get_config(self):
        own = {"n_heads": self.n_heads, "rotary": self.rotary}
        return {**super().get_config(), **own}


@keras.saving.register_keras_serializable("tf_mamba_edu")
class TransformerLM(TokenModel):
    """Next-token model of pre-norm Transformer layers, as in GPT-2 but with RMSNorm.

    Time O(B n_layers (L^2 E + L E^2)). The cache holds keys and values of all tokens so far.
    """

    def embedding_spread(self) -> float:
        """Returns E^-0.5: multiplied by E^0.5, fresh words are as loud as positions."""
        return self.config.d_model**-0.5

    def make_layers(self):
        """Makes norms, attention and feed-forward layers."""
        c, policy = self.config, self.dtype_policy
        Norm, Dense = (
            keras.layers.RMSNormalization,
            keras.layers.Dense,
        )
        self.layers_ = [
            {
                "norm": Norm(dtype=policy, name=f"norm_{i}"),
                "attention": CausalSelfAttention(
                    c.n_heads,
                    c.rotary,
                    dtype=policy,
                    name=f"attention_{i}",
                ),
                "mlp_norm": Norm(dtype=policy, name=f"mlp_norm_{i}"),
                "up": Dense(
                    c.mlp_ratio * c.d_model,
                    activation="gelu",
                    dtype=policy,
                    name=f"up_{i}",
                ),
                "down": Dense(
                    c.d_model, dtype=policy, name=f"down_{i}"
                ),
            }
            for i in range(c.n_layers)
        ]

    def build(self, input_shape):
        hidden = (None, None, self.config.d_model)
        self.embedding.build((None, None))
        for layer in self.layers_:
            for name in "norm", "attention", "mlp_norm", "up":
                layer[name].build(hidden)
            inner = self.config.mlp_ratio * self.config.d_model
            layer["down"].build((None, None, inner))
        self.norm.build(hidden)
        self.built = True

    def prefill(
        self,
        token_ids,
        cache: KeysAndValues | None = None,
        last_only: bool = False,
    ):
        """Reads a text or its next part: (logits (B, L, V), cache).

        A long text is better read in parts: scores take O(B H L S) memory for a part of L.

        Args:
            token_ids: (B, L) integers.
            cache: from an earlier part, with room for this one (`make_room`); none if None.
            last_only: whether to compute only the last token's logits, (B, V).
        """
        token_ids = check_token_ids(
            "token_ids", token_ids, "B L", self.config.vocab_size
        )
        L, E = tf.shape(token_ids)[1], self.config.d_model
        start = 0 if cache is None else cache.length
        h = self.embedding(token_ids)  # (B, L, E)
        h *= tf.cast(E**0.5, h.dtype)
        if not self.config.rotary:
            h += tf.cast(positions(start, L, E), h.dtype)
        keys, values = [], []
        for i, layer in enumerate(self.layers_):
            old = (
                ()
                if cache is None
                else (cache.keys[i], cache.values[i], start)
            )
            y, k, v = layer["attention"](layer["norm"](h), *old)
            h = h + y  # (B, L, E)
            h = h + layer["down"](layer["up"](layer["mlp_norm"](h)))
            keys.append(k)
            values.append(v)
        logits = self.logits(h[:, -1] if last_only else h)
        return logits, KeysAndValues(keys, values, start + L)

    def step(self, token_ids, cache: KeysAndValues):
        """Reads one token (B,): returns (logits (B, V), cache); cost O(B n_layers E (S + E))."""
        token_ids = check_token_ids(
            "token_ids", token_ids, "B", self.config.vocab_size
        )
        logits, cache = self.prefill(token_ids[:, None], cache)
        return logits[:, 0], cache

    def init_cache(
        self, batch_size: int, capacity: int = 64
    ) -> KeysAndValues:
        """Returns an empty cache with so many places."""
        c = self.config
        shape = capacity, batch_size, c.n_heads, c.d_model // c.n_heads
        zeros = [
            tf.zeros(shape, self.compute_dtype) for _ in self.layers_
        ]
        return KeysAndValues(zeros, zeros, tf.constant(0))

    def make_room(
        self, cache: KeysAndValues, count: int = 1
    ) -> KeysAndValues:
        """Returns a cache that has room for `count` more tokens; twice as large, if it must grow.

        So a text of S tokens makes it grow log S times, and compiled code sees log S shapes.
        """
        have, need = cache.keys[0].shape[0], int(cache.length) + count
        if need <= have:
            return cache
        more = max(have, need - have)

        def padded(t):
            return tf.pad(t, [[0, more]] + [[0, 0]] * 3)

        return KeysAndValues(
            [padded(k) for k in cache.keys],
            [padded(v) for v in cache.values],
            cache.length,
        )
