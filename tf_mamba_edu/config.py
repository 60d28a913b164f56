"""The sizes and choices of a Mamba language model."""

from __future__ import annotations

import dataclasses
import math

from tf_mamba_edu.selective import check_scan_options
from tf_mamba_edu.validation import check_positive_int


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
