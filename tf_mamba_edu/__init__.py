"""tf_mamba_edu: Mamba and its ancestors in TensorFlow, one module a chapter of the book."""

from tf_mamba_edu.bidirectional import BidirectionalMambaBlock
from tf_mamba_edu.block import BlockState, MambaBlock, ResidualBlock
from tf_mamba_edu.continuous import ContinuousSSM
from tf_mamba_edu.convolution import CausalConv1D
from tf_mamba_edu.datasets import (
    TextSplits,
    king_james_bible,
    train_tokenizer,
)
from tf_mamba_edu.discretization import (
    bilinear,
    euler,
    exponential_trapezoidal,
    zoh,
)
from tf_mamba_edu.lm import MambaConfig, MambaLM
from tf_mamba_edu.lti import LSSL
from tf_mamba_edu.reviews import (
    Reviews,
    ReviewSplits,
    movie_reviews,
)
from tf_mamba_edu.s4d import S4D
from tf_mamba_edu.scan import selective_scan
from tf_mamba_edu.selective import SelectiveSSM
from tf_mamba_edu.tokenizer import load_tokenizer
from tf_mamba_edu.training import (
    MambaAdamW,
    fit_distributed,
    make_optimizer,
)

__version__ = "0.1.0"

__all__ = [
    "BidirectionalMambaBlock",
    "BlockState",
    "CausalConv1D",
    "ContinuousSSM",
    "LSSL",
    "MambaAdamW",
    "MambaBlock",
    "MambaConfig",
    "MambaLM",
    "ResidualBlock",
    "ReviewSplits",
    "Reviews",
    "S4D",
    "SelectiveSSM",
    "TextSplits",
    "bilinear",
    "euler",
    "exponential_trapezoidal",
    "fit_distributed",
    "king_james_bible",
    "load_tokenizer",
    "make_optimizer",
    "movie_reviews",
    "selective_scan",
    "train_tokenizer",
    "zoh",
]
