"""How a Mamba is trained: windows of text, the optimizer and its schedule."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import numpy as np

from tf_mamba_edu.validation import check_positive_int


@keras.saving.register_keras_serializable("tf_mamba_edu")
class MambaAdamW(keras.optimizers.AdamW):
    """AdamW that decays only the matrices that should shrink.

    Vectors (biases, Delta's bias, D, norm scales) and A_log are left alone, as in the official
    code: decay would pull A and Delta away from the time scales that they hold. Unlike
    `exclude_from_weight_decay` on a plain AdamW, the choice survives saving and loading.
    """

    def build(self, variables):
        if not self.built:
            self.exclude_from_weight_decay(
                [v for v in variables if not decays(v)]
            )
        super().build(variables)


def decays(variable) -> bool:
    """Returns whether weight decay acts on this variable: a matrix other than A_log."""
    return len(variable.shape) >= 2 and variable.name != "A_log"


def make_optimizer(
    learning_rate: float,
    steps: int,
    warmup_steps: int | None = None,
    weight_decay: float = 0.1,
    final_fraction: float = 0.05,
) -> MambaAdamW:
    """Returns the recipe of arXiv 2312.00752, appendix E.2: AdamW, clipping, warm-up, cosine.

    betas are (0.9, 0.95) and the global gradient norm is clipped to 1.

    Args:
        learning_rate: the highest, reached after the warm-up.
        steps: training steps in all.
        warmup_steps: steps of linear warm-up; a tenth of all, at most 200, if None.
        weight_decay: per step, times the learning rate; see `MambaAdamW`.
        final_fraction: the last learning rate as a fraction of the highest.

    Returns:
        An optimizer for `compile`.

    Raises:
        ValueError: if steps is not positive or the warm-up takes all of them.
    """
    steps = check_positive_int("steps", steps)
    warmup_steps = (
        min(200, steps // 10) if warmup_steps is None else warmup_steps
    )
    if not 0 <= warmup_steps < steps:
        raise ValueError(
            f"`warmup_steps` must lie between 0 and steps - 1 = {steps - 1}. "
            f"Received: warmup_steps={warmup_steps}"
        )
    schedule = keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0 if warmup_steps else learning_rate,
        decay_steps=steps - warmup_steps,
        alpha=final_fraction,
        warmup_target=learning_rate if warmup_steps else None,
        warmup_steps=warmup_steps,
    )
    return MambaAdamW(
        schedule,
        weight_decay=weight_decay,
        beta_1=0.9,
        beta_2=0.95,
        global_clipnorm=1.0,
    )


def random_windows(
    passages: Sequence[np.ndarray], length: int, count: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Draws windows of tokens for training, each from within one passage.

    Args:
        passages: one (n,) integer array per passage; those shorter than a window are left out.
        length: L, tokens in a window.
        count: how many windows.
        seed: the same seed draws the same windows.

    Returns:
        (inputs, targets), both (count, L) int32; targets are the tokens one step later.

    Raises:
        ValueError: if no passage holds length + 1 tokens.
    """
    passages = _long_enough(passages, length)
    starts_in = np.array(
        [len(p) - length for p in passages]
    )  # possible starts per passage
    rng = np.random.default_rng(seed)
    which = rng.choice(
        len(passages), count, p=starts_in / starts_in.sum()
    )
    starts = rng.integers(0, starts_in[which])
    windows = np.stack(
        [
            passages[i][s : s + length + 1]
            for i, s in zip(which, starts, strict=True)
        ]
    )
    return windows[:, :-1], windows[:, 1:]


def consecutive_windows(
    passages: Sequence[np.ndarray], length: int
) -> tuple[np.ndarray, np.ndarray]:
    """Cuts each passage into windows that follow each other, for evaluation.

    Every target occurs once; the last few tokens of a passage that fill no window are left out.

    Args:
        passages: one (n,) integer array per passage.
        length: L, tokens in a window.

    Returns:
        (inputs, targets), both (count, L) int32; targets are the tokens one step later.

    Raises:
        ValueError: if no passage holds length + 1 tokens.
    """
    passages = _long_enough(passages, length)
    windows = np.stack(
        [
            p[s : s + length + 1]
            for p in passages
            for s in range(0, len(p) - length, length)
        ]
    )
    return windows[:, :-1], windows[:, 1:]


def _long_enough(passages, length):
    length = check_positive_int("length", length)
    kept = [
        np.asarray(p, np.int32) for p in passages if len(p) > length
    ]
    if not kept:
        longest = max((len(p) for p in passages), default=0)
        raise ValueError(
            f"`passages` must include one of at least length + 1 = {length + 1} tokens. "
            f"Received {len(passages)} passages, the longest of {longest}"
        )
    return kept
