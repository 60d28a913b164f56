"""Checks of chapter 15, Mamba, GRU and Transformer compared."""

from __future__ import annotations

import math

import numpy as np
from scipy import stats

from tf_mamba_edu.checks.core import Check, Mistake, turn_of

# 1. Bytes of a cache


def _cache_case(rng):
    """Mamba, GRU and Transformer in turn."""
    kind = ("mamba", "gru", "transformer")[turn_of(rng) % 3]
    sizes = (2, 8), (20, 60), (30, 200)  # layers, width, context
    return kind, *(int(rng.integers(*ends)) for ends in sizes)


def _bytes_of_arrays(kind, n_layers, d_model, context):
    """Array by array."""
    arrays = []
    for _ in range(n_layers):
        if kind == "mamba":
            arrays.append(np.zeros((3, 2 * d_model), np.float32))
            arrays.append(np.zeros((2 * d_model, 16), np.float32))
        elif kind == "gru":
            arrays.append(np.zeros(d_model, np.float32))
        else:
            keys = np.zeros((context, d_model), np.float32)
            arrays += [keys, np.zeros_like(keys)]
    return sum(array.nbytes for array in arrays)


def _cache(
    kind,
    n_layers,
    d_model,
    context,
    expand=2,
    inputs=3,
    vectors=1,
    tables=2,
    size=4,
    whole=0,
    each_token=False,
    square=False,
):
    """The solution, and by its options wrong ones."""
    numbers = {
        "mamba": expand * d_model * (16 + inputs),
        "gru": vectors * d_model,
        "transformer": tables * context * d_model,
    }
    if each_token:
        numbers["mamba"] *= context
    if square:
        numbers["transformer"] = context**2
    extra = whole if kind == "transformer" else 0
    return size * n_layers * numbers[kind] + extra


check_cache_bytes = Check(
    name="cache_bytes",
    spec=_bytes_of_arrays,
    outputs=("bytes",),
    cases=_cache_case,
    tolerance=1e-7,
    hint="one layer first: which arrays does it hand on, and how many numbers are in each? Look at "
    "the docstrings of `init_cache`. Then times the layers, then times the bytes.",
    mistakes=(
        Mistake(
            lambda *case: _cache(*case, inputs=0),
            "for Mamba this is the state of the SSM alone. The convolution looks back as well: "
            "each channel keeps its last K - 1 inputs.",
        ),
        Mistake(
            lambda *case: _cache(*case, inputs=4),
            "for Mamba you keep K inputs a channel. The convolution looks at the newest, which "
            "comes in, and at K - 1 older ones.",
        ),
        Mistake(
            lambda *case: _cache(*case, expand=1),
            "for Mamba you count d_model channels. Inside of the block there are expand times as "
            "many.",
        ),
        Mistake(
            lambda *case: _cache(*case, each_token=True),
            "for Mamba you keep a state for each token. Only the last one is needed, whatever the "
            "context.",
        ),
        Mistake(
            lambda *case: _cache(*case, vectors=3),
            "for the GRU you count three vectors a layer. Its two gates and its new content are "
            "computed and thrown away: only h is handed on.",
        ),
        Mistake(
            lambda *case: _cache(*case, vectors=2),
            "for the GRU you count two vectors a layer. It is the LSTM that has two; a GRU has h "
            "alone.",
        ),
        Mistake(
            lambda *case: _cache(*case, tables=1),
            "for the Transformer you count one vector a token and layer. There are two, a key and "
            "a value.",
        ),
        Mistake(
            lambda *case: _cache(*case, tables=3),
            "for the Transformer you keep queries, too. A query is asked once, by its own token, "
            "and never again: keys and values are enough.",
        ),
        Mistake(
            lambda *case: _cache(*case, square=True),
            "for the Transformer this is a table of scores. Scores are not kept: each new token "
            "makes its own from the keys.",
        ),
        Mistake(
            lambda *case: _cache(*case, whole=4),
            "for the Transformer you have counted its place in the text, one whole number of four "
            "bytes. Right in a sense; asked for are the float32 numbers.",
        ),
        Mistake(
            lambda *case: _cache(*case, size=1),
            "this is how many numbers there are. A float32 has 4 bytes.",
        ),
        Mistake(
            lambda *case: _cache(*case, size=32),
            "these are bits. Eight of them are a byte.",
        ),
        Mistake(
            lambda *case: _cache(*case, size=8),
            "this is for numbers of 8 bytes, float64. A float32 has 4.",
        ),
        Mistake(
            lambda kind, n_layers, *sizes: _cache(kind, 1, *sizes),
            "this is one layer. Each layer has a cache of its own.",
        ),
    ),
)


# 2. Fair widths


def _parameters_of(words, layers, square):
    """The count of a model of a given width: embedding, matrices, vectors."""

    def parameters(width):
        return words * width + layers * (square * width**2 + 7 * width)

    return parameters


def _budget_case(rng):
    """In turn: nearer above, nearer below, nearer below but beyond half the way, tiny, any."""
    kind = turn_of(rng) % 5
    step, words = int(rng.integers(16, 24)), int(rng.integers(10, 30))
    parameters = _parameters_of(
        words, int(rng.integers(2, 6)), int(rng.choice([6, 12]))
    )
    low = step * (1 if kind in (2, 3) else int(rng.integers(2, 8)))
    start, end = parameters(low), parameters(low + step)
    half = (parameters(low + step / 2) - start) / (end - start)
    way = (
        rng.uniform(0.65, 0.9),
        rng.uniform(0.1, 0.35),
        0.5 * (half + 0.5),
        None,
        rng.choice([0.3, 0.7]) + rng.uniform(-0.1, 0.1),
    )[kind]
    budget = (
        rng.uniform(0.25, 0.4) * start
        if way is None
        else start + way * (end - start)
    )
    return parameters, int(budget), step


def _nearest_of_all(parameters, budget, step):
    """All that might be meant, and the best of them."""
    return min(
        (step * k for k in range(1, 50)),
        key=lambda width: abs(parameters(width) - budget),
    )


def _below(parameters, budget, step):
    """The largest allowed width within the budget, or 0."""
    width = 0
    while parameters(width + step) <= budget:
        width += step
    return width


def _rounded_width(parameters, budget, step):
    """The nearest width of all, and then the multiple nearest to *it*."""
    width = _nearest_of_all(parameters, budget, 1, 1500)
    return max(step, step * math.floor(width / step + 0.5))


def _from_zero(parameters, budget, step):
    width = _below(parameters, budget, step)
    more = parameters(width + step) - budget
    return width if budget - parameters(width) <= more else width + step


check_fair_width = Check(
    name="fair_width",
    spec=_nearest_of_all,
    outputs=("width",),
    cases=_budget_case,
    tolerance=1e-6,
    hint="two allowed widths are neighbors of the budget, one on each side. Count the parameters "
    "of both. And what if already the smallest allowed width is too much?",
    mistakes=(
        Mistake(
            lambda *case: max(case[2], _below(*case)),
            "you never exceed the budget. Asked for is the nearest count: it may lie above.",
        ),
        Mistake(
            _below,
            "you round down, to 0 if the budget is small. The nearest count may lie above, and the "
            "smallest allowed width is `step`.",
        ),
        Mistake(
            lambda *case: _below(*case) + case[2],
            "you always take the first width that reaches the budget. The one below it may be "
            "nearer.",
        ),
        Mistake(
            lambda parameters, budget, step: _nearest_of_all(
                parameters, budget, 1, 1500
            ),
            "this would be right if any width were allowed. It has to be a multiple of `step`.",
        ),
        Mistake(
            _rounded_width,
            "you look for the width that fits best and round *that*. The count grows faster than "
            "the width, so half of the way in width is less than half of it in parameters: compare "
            "counts.",
        ),
        Mistake(
            _from_zero,
            "a model of width 0 is near to a small budget, but it is no model. The smallest "
            "allowed width is `step`.",
        ),
        Mistake(
            lambda *case: case[0](_nearest_of_all(*case)),
            "this is the number of parameters. Asked for is the width.",
        ),
        Mistake(
            lambda *case: _nearest_of_all(*case) // case[2],
            "this is how many times `step` goes into the width. Multiply.",
        ),
        Mistake(
            lambda *case: _nearest_of_all(*case) + case[2],
            "one step too far: this is the allowed width behind the nearest one.",
        ),
    ),
)
