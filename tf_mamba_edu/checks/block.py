"""Checks of chapter 09, the Mamba block."""

from __future__ import annotations

import numpy as np

from tf_mamba_edu.checks.core import Check, Mistake, turn_of

# The widest model for a budget


def _budget_case(rng):
    """In turn exactly enough for a width, and one number too few for the next."""
    n_layers, V = int(rng.integers(1, 9)), int(rng.integers(200, 4000))
    width = 16 * int(rng.integers(6, 30))
    if turn_of(rng) % 2:
        return _parameters(width + 16, n_layers, V) - 1, n_layers, V
    return _parameters(width, n_layers, V), n_layers, V


def _parameters(
    E,
    n_layers,
    V,
    biases=True,
    norms=True,
    head=False,
    A=True,
    embedding=True,
):
    D, R, N, K = 2 * E, -(-E // 16), 16, 4
    block = E * 2 * D + D * K + D * (R + 2 * N) + R * D + D * E
    block += 2 * D * biases + E * norms + (D * N + D) * A
    outside = V * E * (embedding + head) + E * norms
    return n_layers * block + outside


def _widest(budget, n_layers, V, above=False, less=0, **parts):
    E = 16
    while _parameters(E + 16, n_layers, V, **parts) <= budget - less:
        E += 16
    return E + 16 * above


check_widest = Check(
    name="widest",
    spec=_widest,
    outputs=("width",),
    cases=_budget_case,
    tolerance=1e-6,
    hint="count the parameters for E = 16, 32, 48 ... until there are too many. The chapter's "
    "`count` has one block; the embedding and the last norm are outside.",
    mistakes=(
        Mistake(
            lambda *case: _widest(*case, above=True),
            "one step of 16 too wide: this is the first width that no longer fits.",
        ),
        Mistake(
            lambda *case: _widest(*case, head=True),
            "you count embedding and head. They are tied: one array of V E numbers serves both.",
        ),
        Mistake(
            lambda *case: _widest(*case, embedding=False),
            "too wide: the embedding is missing, V E numbers.",
        ),
        Mistake(
            lambda *case: _widest(*case, norms=False),
            "one step too wide where the budget is just not enough: something small is missing in "
            "your count. A block has a norm, biases of convolution and Delta, A_log and D; and one "
            "more norm stands at the end.",
        ),
        Mistake(
            lambda *case: _widest(*case, less=1),
            "too narrow where the budget is used up to the last number: as many as the budget "
            "still fit.",
        ),
        Mistake(
            lambda budget, n_layers, V: _widest(budget, 1, V),
            "this is one block. There are n_layers of them.",
        ),
    ),
)


# A convolution that goes on


def _convolution_case(rng):
    """Texts shorter than the kernel, too."""
    L = (6, 2, 9, 1, 4)[turn_of(rng) % 5]
    K, D = 4, int(rng.integers(2, 5))
    x, state = rng.normal(size=(L, D)), rng.normal(size=(K - 1, D))
    return x, rng.normal(size=(K, D)), rng.normal(size=D) + 1, state


def _convolve(
    x,
    kernel,
    bias,
    state,
    start=lambda state: state,
    window=lambda kernel: kernel,
    behind=False,
    shift=0,
    last=None,
):
    """The causal convolution with a state and, by its parts, wrong ones."""
    K = len(kernel)
    pieces = (x, start(state)) if behind else (start(state), x)
    padded = np.concatenate(pieces)  # (K - 1 + L, D)
    late = np.concatenate([np.zeros((shift, x.shape[1])), padded])
    w = window(kernel)
    y = [
        bias + sum(w[k] * late[t + k] for k in range(K))
        for t in range(len(x))
    ]
    after = padded[len(padded) - (K - 1) :]
    return np.array(y), after if last is None else last(x, state)


def _from_x_only(x, state):
    K = len(state) + 1
    short = np.concatenate([np.zeros_like(state), x])
    return short[len(short) - (K - 1) :]


check_convolve = Check(
    name="convolve",
    spec=_convolve,
    outputs=("y", "new_state"),
    cases=_convolution_case,
    tolerance=1e-6,
    hint="put the state in front of x. Output t is then a window of K rows that begins at row t, "
    "times the kernel, added up. What are the last K - 1 rows of all?",
    mistakes=(
        Mistake(
            lambda *case: _convolve(*case, window=lambda w: w[::-1]),
            "the kernel is turned around: its last row, kernel[K - 1], belongs to the present "
            "input, the first one to the oldest.",
        ),
        Mistake(
            lambda *case: _convolve(*case, start=np.zeros_like),
            "you start with zeros. What came before is in the state: put it in front of x.",
        ),
        Mistake(
            lambda x, kernel, bias, state: _convolve(
                x, kernel, 0 * bias, state
            ),
            "the bias is missing.",
        ),
        Mistake(
            lambda *case: _convolve(*case, behind=True),
            "the state stands behind x, where it belongs in front. So output t sees inputs t to "
            "t + 3, the future.",
        ),
        Mistake(
            lambda *case: _convolve(*case, shift=1),
            "everything comes one step late: output t has to see input t as well.",
        ),
        Mistake(
            lambda *case: _convolve(*case, last=_from_x_only),
            "y is right. But for a text shorter than K - 1 the new state still holds a part of "
            "the old one: take the last rows of state *and* x.",
        ),
        Mistake(
            lambda *case: _convolve(*case, last=lambda x, state: state),
            "y is right. But the state is handed on as it came: the new one ends with the last "
            "inputs of x.",
        ),
    ),
)


# A residual block with two bugs


def _silu(z):
    return z / (1 + np.exp(-z))


def _normalized(u):
    return u / np.sqrt(np.mean(u**2, axis=-1, keepdims=True) + 1e-5)


def _block_case(rng):
    L, E = int(rng.integers(3, 7)), int(rng.integers(3, 6))
    D = 2 * E
    u = rng.normal(size=(L, E)) * rng.uniform(2.0, 4.0)
    W_in, W_out = rng.normal(size=(E, 2 * D)), rng.normal(size=(D, E))
    kept = np.tril(rng.normal(size=(2, L, L)))

    def conv(x):
        return kept[0] @ x

    def ssm(x):
        return kept[1] @ x

    return u, W_in, W_out, conv, ssm


def _residual(
    u, W_in, W_out, conv, ssm, stream="raw", gate="z", bent=True
):
    h = _normalized(u)
    x, z = np.split(h @ W_in, 2, axis=-1)
    x = conv(x)
    x = _silu(x) if bent else x
    y = ssm(x) * {"z": _silu(z), "x": _silu(x), "line": z}[gate]
    return {"raw": u, "norm": h, "none": 0.0}[stream] + y @ W_out


check_residual_block = Check(
    name="residual_block",
    spec=_residual,
    outputs=("output",),
    cases=_block_case,
    tolerance=1e-6,
    hint="compare line by line with the two equations of the chapter. Which u is it that the "
    "output is added to? And what does each of the two halves of in_proj do?",
    mistakes=(
        Mistake(
            lambda *case: _residual(*case, stream="norm", gate="x"),
            "both bugs are still there.",
        ),
        Mistake(
            lambda *case: _residual(*case, stream="norm"),
            "the gate is right now. But the *normalized* u is added in the end: so the sum that "
            "runs through all blocks is normalized again in each, and the way past the block is "
            "closed.",
        ),
        Mistake(
            lambda *case: _residual(*case, gate="x"),
            "the residual is right now. But the gate is made of x, which has been through the "
            "convolution already: half of what in_proj computes, z, is never used.",
        ),
        Mistake(
            lambda *case: _residual(*case, stream="none"),
            "the gate is right, but nothing is added any more: the block has lost its residual.",
        ),
        Mistake(
            lambda *case: _residual(*case, gate="line"),
            "the gate has lost its silu.",
        ),
        Mistake(
            lambda *case: _residual(*case, bent=False),
            "the silu between convolution and SSM is gone. It was no bug.",
        ),
    ),
)


# The gradient of a norm


def _norm_case(rng):
    L, E = int(rng.integers(3, 8)), int(rng.integers(3, 7))
    h, dy = rng.normal(size=(2, L, E)) * 1.5 + 0.3
    return h, rng.normal(size=E) + 1.5, dy


def _norm_gradient(
    h, g, dy, through=1.0, scaled=True, mean=True, summed=True, root=1
):
    E = h.shape[-1]
    r = np.sqrt(np.mean(h**2, axis=-1, keepdims=True))  # (L, 1)
    n = h / r
    dn = dy * g if scaled else dy
    project = np.sum(dn * n, axis=-1, keepdims=True) / (
        E if mean else 1
    )
    dh = (dn - through * project * n) / r**root
    dg = dy * n
    return dh, dg.sum(0) if summed else dg.mean(0)


check_norm_gradient = Check(
    name="norm_gradient",
    spec=_norm_gradient,
    outputs=("dh", "dg"),
    cases=_norm_case,
    tolerance=1e-6,
    hint="write n = h / r, so y = g n. Each h_i changes n_i directly, and every n_j by way of r. "
    "What is the derivative of r in h_i?",
    mistakes=(
        Mistake(
            lambda *case: _norm_gradient(*case, through=0.0),
            "dg is right. In dh the size r is taken for a constant. But r grows with every h_i, "
            "and then all outputs shrink: a second term is missing.",
        ),
        Mistake(
            lambda *case: _norm_gradient(*case, mean=False),
            "dg is right. In the second term of dh there is a sum where a mean should be: r is "
            "the root of a *mean* square.",
        ),
        Mistake(
            lambda *case: _norm_gradient(*case, through=-1.0),
            "dg is right. The second term of dh has the wrong sign: a larger r makes the outputs "
            "smaller.",
        ),
        Mistake(
            lambda *case: _norm_gradient(*case, scaled=False),
            "dg is right. In dh the scale g is missing: what arrives at n is g dy.",
        ),
        Mistake(
            lambda *case: _norm_gradient(*case, summed=False),
            "dh is right. g serves all L places, so its gradient is a sum over them, not a mean.",
        ),
        Mistake(
            lambda *case: _norm_gradient(*case, root=0),
            "dg is right. dh is not divided by r: n = h / r.",
        ),
    ),
)


# The longest memory in half precision

check_longest_memory = Check(
    name="longest_memory",
    spec=512.0,
    outputs=("steps",),
    tolerance=0.02,
    hint="which is the largest bfloat16 below 1? From where on is 1 - Delta rounded to that one, "
    "and no longer to 1? A memory of 1 / Delta steps.",
    mistakes=(
        Mistake(
            256.0,
            "1 / 256 is the *distance* of the largest bfloat16 below 1. But numbers are rounded "
            "to the nearest: from the middle on it is reached.",
        ),
        Mistake(
            1024.0,
            "twice too long: just below 1 bfloat16 has 8 bits, and the numbers lie 1 / 256 "
            "apart; rounding is to the nearest.",
        ),
        Mistake(
            128.0,
            "this goes by the distance of the numbers just *above* 1, which is twice as large as "
            "below.",
        ),
        Mistake(
            1 / 512,
            "this is Delta. The memory in steps is 1 / Delta.",
        ),
    ),
)


# The ancestor's memory


def _recall_case(rng):
    L, n, m = (int(v) for v in rng.integers((4, 2, 2), (8, 4, 5)))
    q, k = rng.normal(size=(2, L, n)) + 0.5
    return (
        q,
        k,
        rng.normal(size=(L, m)) + 0.5,
        float(rng.uniform(0.5, 0.9)),
    )


def _recall(
    q,
    k,
    v,
    decay,
    shift=1,
    read_first=False,
    query_shift=0,
    fading="store",
):
    L, n = k.shape
    store, found = np.zeros((n, v.shape[1])), []
    for t in range(L):
        key = k[t - shift] if t >= shift else np.zeros(n)
        query = q[t - query_shift] if t >= query_shift else np.zeros(n)
        new = np.outer(key, v[t])
        before = store
        if fading == "new":
            store = store + decay * new
        elif fading == "both":
            store = decay * (store + new)
        else:
            store = (decay if fading == "store" else 1.0) * store + new
        found.append(query @ (before if read_first else store))
    return np.array(found)


check_recall = Check(
    name="recall",
    spec=_recall,
    outputs=("y",),
    cases=_recall_case,
    tolerance=1e-6,
    hint="one step in words: the store fades; the product of the key of the step *before* and the "
    "value of this step is added; the query of this step reads. np.outer makes the product.",
    mistakes=(
        Mistake(
            lambda *case: _recall(*case, shift=0),
            "there is no shift: you store the key and the value of the same step. The value "
            "comes one step after its key.",
        ),
        Mistake(
            lambda *case: _recall(*case, read_first=True),
            "you read before you write: step t has to read the store after its own product was "
            "added.",
        ),
        Mistake(
            lambda *case: _recall(*case, fading="none"),
            "nothing fades: the decay is missing.",
        ),
        Mistake(
            lambda *case: _recall(*case, fading="new"),
            "what is *new* fades, and what is stored stays. It should be the other way round.",
        ),
        Mistake(
            lambda *case: _recall(*case, fading="both"),
            "the new product fades in the very step in which it is stored. First the store "
            "fades, then the product is added.",
        ),
        Mistake(
            lambda *case: _recall(*case, query_shift=1),
            "the query is shifted, too. Only the key waits for a step.",
        ),
    ),
)
