"""Text from a language model: sampling, and a loop that costs the same for every token."""

from __future__ import annotations

import random
from collections.abc import Iterator

import keras
import numpy as np
import tensorflow as tf

from tf_mamba_edu.validation import (
    as_floating,
    check_positive_int,
    check_rank,
    check_token_ids,
)


def sample_token(
    logits, seed, temperature=1.0, top_k=None, top_p=None
) -> tf.Tensor:
    """Draws one token a row from softmax(logits / temperature).

    All but the likeliest tokens can be cut off before.

    Args:
        logits: (B, V) scores.
        seed: two integers; the same seed draws the same tokens.
        temperature: below 1 sharpens, above 1 flattens; 0 takes the likeliest token.
        top_k: keep only the k likeliest tokens, if given.
        top_p: keep the fewest likeliest tokens whose probabilities reach p, if given.

    Returns:
        (B,) int32 tokens. Time O(B V log V).

    Raises:
        ValueError: if temperature < 0, top_k < 1, or top_p is not in (0, 1].
    """
    check_sampling(temperature, top_k, top_p)
    logits = as_floating("logits", logits, tf.float32)
    check_rank("logits", logits, "B V")
    if temperature == 0:
        return tf.argmax(logits, axis=-1, output_type=tf.int32)  # (B,)
    logits = logits / temperature
    if top_k is None and top_p is None:
        return draw(logits, seed)
    # By rank, not by value: of equal logits only k stay.
    ranked, tokens = tf.math.top_k(logits, logits.shape[-1])  # (B, V)
    if top_k is not None:
        ranked = ranked[:, :top_k]  # (B, k)
    if top_p is not None:
        before = tf.cumsum(tf.nn.softmax(ranked), -1, exclusive=True)
        ranked = tf.where(before < top_p, ranked, -np.inf)  # (B, k)
    drawn = draw(ranked, seed)  # (B,)
    return tf.gather(tokens, drawn, batch_dims=1)


def draw(logits, seed) -> tf.Tensor:
    """Returns one token (B,) a row, from softmax of the scores (B, V)."""
    return tf.random.stateless_categorical(logits, 1, seed, tf.int32)[
        :, 0
    ]


def check_sampling(temperature, top_k, top_p) -> None:
    """Raises a ValueError for settings that `sample_token` cannot use."""
    if not temperature >= 0:
        raise ValueError(
            f"`temperature` must be zero or positive. Received: {temperature!r}"
        )
    if top_k is not None:
        check_positive_int("top_k", top_k)
    if top_p is not None and not 0 < top_p <= 1:
        raise ValueError(
            f"`top_p` must lie in (0, 1]. Received: top_p={top_p!r}"
        )


def stream(
    lm,
    token_ids,
    max_new_tokens: int,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    stop_token: int | None = None,
    seed: int | None = None,
) -> Iterator[np.ndarray]:
    """Yields the continuation of each prompt, one token at a time.

    The prompt is read once; after it each token costs one `lm.step`, whatever the length.
    Memory is the cache, of constant size.

    Args:
        lm: a `MambaLM`.
        token_ids: (B, L) prompts of one length.
        max_new_tokens: how many tokens at most.
        temperature: see `sample_token`; 0 is greedy.
        top_k: see `sample_token`.
        top_p: see `sample_token`.
        stop_token: a sequence that drew it yields it from then on; ends when all have.
        seed: the same seed gives the same text; drawn from Python's `random` if None.

    Yields:
        (B,) int32 tokens.

    Raises:
        ValueError: if a setting is out of range, or a token id is not below the vocabulary size.
    """
    check_sampling(temperature, top_k, top_p)
    max_new_tokens = check_positive_int(
        "max_new_tokens", max_new_tokens
    )
    token_ids = check_token_ids(
        "token_ids", token_ids, "B L", lm.config.vocab_size
    )
    seed = random.getrandbits(31) if seed is None else seed
    return _tokens(
        lm,
        token_ids,
        max_new_tokens,
        (temperature, top_k, top_p),
        stop_token,
        seed,
    )


def _tokens(lm, token_ids, max_new_tokens, sampling, stop_token, seed):
    prefill, step = _compiled(lm)
    # A cache that grows must do so outside of compiled code.
    make_room = getattr(lm, "make_room", lambda cache: cache)
    logits, cache = prefill(token_ids)  # (B, V)
    stopped = np.zeros(token_ids.shape[0], bool)
    for t in range(max_new_tokens):
        tokens = sample_token(
            logits, (seed, t), *sampling
        ).numpy()  # (B,)
        if stop_token is not None:
            tokens = np.where(stopped, stop_token, tokens).astype(
                np.int32
            )
            stopped |= tokens == stop_token
        yield tokens
        if stop_token is not None and stopped.all():
            return
        if t + 1 < max_new_tokens:
            cache = make_room(cache)
            logits, cache = step(tokens, cache)  # (B, V)


def _compiled(lm):
    """The model's prefill (last logits only) and step as compiled functions, made once a model."""
    functions = getattr(lm, "_generation_functions", None)
    if functions is None:

        @tf.function(reduce_retracing=True)
        def prefill(token_ids):
            return lm.prefill(token_ids, last_only=True)

        @tf.function(jit_compile=True)
        def step(token_ids, cache):
            return lm.step(token_ids, cache)

        functions = (prefill, step)
        object.__setattr__(
            lm, "_generation_functions", functions
        )  # not a tracked attribute
    return functions


def generate(
    lm, token_ids, max_new_tokens: int, **options
) -> tf.Tensor:
    """Returns each prompt with its continuation.

    Args:
        lm: a `MambaLM`.
        token_ids: (B, L) prompts of one length.
        max_new_tokens: how many tokens at most.
        **options: temperature, top_k, top_p, stop_token and seed, as in `stream`.

    Returns:
        (B, L + new) int32 tokens; new < max_new_tokens only if every sequence met stop_token.

    Raises:
        ValueError: if a setting is out of range, or a token id is not below the vocabulary size.
    """
    prompt = check_token_ids("token_ids", token_ids, "B L")
    new = list(stream(lm, prompt, max_new_tokens, **options))
    return tf.concat(
        [prompt, tf.stack(new, axis=1)], axis=1
    )  # (B, L + new)


class GenerationMixin:
    """Writing, for models of tokens that have a `config`, `prefill` and `step`."""

    def generate(
        self, token_ids, max_new_tokens: int, **options
    ) -> tf.Tensor:
        """Continues each prompt; see `generation.generate` for the options."""
        return generate(self, token_ids, max_new_tokens, **options)

    def stream(self, token_ids, max_new_tokens: int, **options):
        """Yields the continuation token by token, (B,) each; see `generation.stream`."""
        return stream(self, token_ids, max_new_tokens, **options)


def tied_logits(h, embedding: keras.layers.Embedding) -> tf.Tensor:
    """Returns the score of each token, the product of (..., E) with its embedding: (..., V)."""
    embeddings = tf.cast(embedding.embeddings, h.dtype)  # (V, E)
    return tf.matmul(h, embeddings, transpose_b=True)  # (..., V)
