"""A language model made of Mamba blocks."""

from __future__ import annotations

import dataclasses

import keras
import tensorflow as tf

from tf_mamba_edu import generation, pretrained
from tf_mamba_edu.block import (
    BlockState,
    ResidualBlock,
    make_dropout,
)
from tf_mamba_edu.config import MambaConfig
from tf_mamba_edu.initializers import Normal, symmetric_uniform
from tf_mamba_edu.sequence_layer import at_least_float32
from tf_mamba_edu.validation import check_token_ids

Cache = list[
    BlockState
]  # one state a block: constant size, however long the text


@keras.saving.register_keras_serializable("tf_mamba_edu")
class MambaLM(generation.GenerationMixin, keras.Model):
    """Next-token model: embedding, residual Mamba blocks, RMSNorm, output layer.

    The architecture and initialization of the official code for arXiv 2312.00752 (section 3.4).
    All weights exist as soon as the model does. The sum that runs through the blocks is float32
    even where the dtype is half of that. Time O(B L n_layers (E D + D N) + B L E V).

    Args:
        config: a `MambaConfig`, or its fields as a dict.
        method: how the scan runs, see `selective_scan`.
        dropout: share of the channels of the embedding, of what each block adds, and of what the
            output layer reads, that training leaves out, for a whole sequence, at random. It is
            no part of the paper's recipe: it helps where a small text is read many times.
        **kwargs: name, dtype and so on, as for every Keras model.

    Raises:
        ValueError: if dropout is not in [0, 1), or token ids are not integers of shape (B, L) with
            L >= 1, or (outside of graphs) not below the vocabulary size.
    """

    def __init__(
        self,
        config: MambaConfig | dict,
        method: str = "auto",
        dropout: float = 0.0,
        **kwargs,
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
        self.dropout = make_dropout(dropout, self.dtype_policy)
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
                dropout=dropout,
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

    def call(self, token_ids, training=None):
        """Returns logits (B, L, V) for token ids (B, L).

        Those at position t predict token t + 1.
        """
        if tf.is_symbolic_tensor(token_ids):
            # For several devices Keras builds with a mean of ids.
            token_ids = tf.cast(token_ids, tf.int32)
        token_ids = self._check("B L", token_ids)
        h = self._embed(token_ids)  # (B, L, E)
        h = self.dropout(h, training=training)
        for block in self.blocks:
            h = block(h, training=training)  # (B, L, E)
        return self._logits(h, training)  # (B, L, V)

    def prefill(
        self,
        token_ids,
        cache: Cache | None = None,
        last_only: bool = False,
    ) -> tuple[tf.Tensor, Cache]:
        """Reads a whole prompt at once and returns what is needed to go on from its end.

        Args:
            token_ids: (B, L) integers.
            cache: state to start from, for text read in pieces; none if None.
            last_only: whether only the logits of the last token are computed, (B, V). They cost
                as much as a block or two, for every token.

        Returns:
            (logits (B, L, V), cache).

        Raises:
            ValueError: if token ids are not integers of shape (B, L) with L >= 1.
        """
        token_ids = self._check("B L", token_ids)
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
        return self._logits(h[:, -1] if last_only else h), after

    def step(self, token_ids, cache: Cache) -> tuple[tf.Tensor, Cache]:
        """Reads one token, at the same cost however many came before.

        Args:
            token_ids: (B,) integers.
            cache: from `init_cache`, `prefill` or an earlier step.

        Returns:
            (logits (B, V) for the next token, cache).

        Raises:
            ValueError: if token ids are not integers of shape (B,).
        """
        token_ids = self._check("B", token_ids)
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
        token_ids = self._check("B L", token_ids)
        h, deltas = self._embed(token_ids), []  # (B, L, E)
        for block in self.blocks:
            deltas.append(block.block.step_sizes(block.norm(h)))
            h = block(h)  # (B, L, E)
        return deltas

    def init_cache(self, batch_size: int) -> Cache:
        """Returns the cache before any token: for each block (B, K - 1, D) and (B, D, N) zeros."""
        return [block.zero_state(batch_size) for block in self.blocks]

    @classmethod
    def from_pretrained(
        cls,
        checkpoint,
        dtype: str = "float32",
        method: str = "auto",
        revision: str | None = None,
    ) -> MambaLM:
        """Makes a model with the weights of a checkpoint in the layout of Hugging Face.

        All files are checked before a model is made. Weights are then copied in parts, so that
        memory holds them once. Time and memory O(parameters).

        Args:
            checkpoint: a folder, or the name of a repository such as
                "state-spaces/mamba-130m-hf", which huggingface_hub then downloads or finds in
                its cache.
            dtype: a dtype policy of Keras, such as "float32", "bfloat16" or "mixed_bfloat16";
                "auto" is the dtype of most of the stored numbers.
            method: how the scan runs, see `selective_scan`.
            revision: branch, tag or commit of the repository.

        Raises:
            ValueError: if the checkpoint is missing, damaged, of another kind, or does not fit.
        """
        return pretrained.load(cls, checkpoint, dtype, method, revision)

    def save_pretrained(
        self,
        folder,
        tokenizer=None,
        dtype: str | None = None,
        shard_bytes: int = 5 * 10**9,
        overwrite: bool = False,
    ) -> None:
        """Writes a checkpoint that `from_pretrained` can read, and transformers too.

        The folder appears when it is complete, or not at all.

        Args:
            folder: where to.
            tokenizer: goes into the folder too, if given; see `load_tokenizer`.
            dtype: "float32", "float16", "bfloat16" or "float64"; that of the weights if None.
            shard_bytes: weights that take more are spread over several files.
            overwrite: whether a folder that is there may be replaced.

        Raises:
            ValueError: if an argument is out of range, or the folder is there or cannot be
                written.
        """
        pretrained.save(
            self, folder, tokenizer, dtype, shard_bytes, overwrite
        )

    def _check(self, symbols, token_ids):
        return check_token_ids(
            "token_ids", token_ids, symbols, self.config.vocab_size
        )

    def _embed(self, token_ids):
        return tf.cast(
            self.embedding(token_ids),
            at_least_float32(self.variable_dtype),
        )  # (..., E)

    def _logits(self, h, training=False):
        h = self.dropout(self.norm(h), training=training)  # (..., E)
        if self.head is not None:
            return self.head(h)  # (..., V)
        return generation.tied_logits(h, self.embedding)

    def compute_output_shape(self, input_shape):
        return (*input_shape, self.config.vocab_size)

    def get_config(self):
        own = {
            "config": dataclasses.asdict(self.config),
            "method": self.method,
            "dropout": self.dropout.rate,
        }
        return {**super().get_config(), **own}
