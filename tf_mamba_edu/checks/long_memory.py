"""Checks of chapter 14, long memory."""

from __future__ import annotations

import numpy as np

from tf_mamba_edu.checks.core import (
    Check,
    Mistake,
    turn_of,
)

# 1. Reading in chunks


def _reader_of(decay):
    """A reader that fades: from tokens (n,) and a state to outputs (n,) and the state after."""

    def read(tokens, state):
        outputs = []
        for token in np.asarray(tokens, np.float64):
            state = decay * state + token
            outputs.append(state)
        return np.array(outputs), state

    return read


def _chunk_case(rng):
    """Lengths that the chunk does not divide, and one that it does."""
    size = int(rng.integers(3, 6))
    rest = 0 if turn_of(rng) == 4 else int(rng.integers(1, size))
    tokens = rng.uniform(1, 2, int(rng.integers(3, 6)) * size + rest)
    decay = rng.uniform(0.7, 0.95)
    return _reader_of(decay), tokens, size, rng.uniform(5, 9)


def _at_once(read, tokens, size, state):
    """Token by token: the chunks must not matter."""
    outputs = []
    for token in tokens:
        y, state = read(np.array([token]), state)
        outputs.append(y[0])
    return np.array(outputs), state


def _in_chunks(
    read,
    tokens,
    size,
    state,
    carry=True,
    whole=False,
    keep=lambda parts: np.concatenate(parts),
    overlap=0,
    start=None,
):
    """The solution, and by its options what is often done instead."""
    first = start(state) if start else state
    state, parts = first, []
    end = len(tokens) // size * size if whole else len(tokens)
    for at in range(0, end, size):
        part = tokens[at : min(at + size + overlap, end)]
        y, after = read(part, state)
        parts.append(y)
        state = after if carry else first
    return keep(parts), after


check_read_in_chunks = Check(
    name="read_in_chunks",
    spec=_at_once,
    outputs=("outputs", "state"),
    cases=_chunk_case,
    hint="what goes into the second chunk, besides its tokens? And how many tokens has the last "
    "chunk, if the length is 10 and the size is 4?",
    mistakes=(
        Mistake(
            lambda *args: _in_chunks(*args, carry=False),
            "every chunk begins with the state of the very beginning. What one chunk has read, the "
            "next one has to be given: the state that `read` returns goes into the next call.",
        ),
        Mistake(
            lambda *args: _in_chunks(
                *args, start=lambda state: 0 * state
            ),
            "you begin with an empty state. Something may have been read before: begin with the "
            "one that you were given.",
        ),
        Mistake(
            lambda *args: _in_chunks(*args, whole=True),
            "the end is missing. If the size does not divide the length, the last chunk is a short "
            "one, and it counts: in it stands the question.",
        ),
        Mistake(
            lambda *args: _in_chunks(
                *args, keep=lambda parts: parts[-1]
            ),
            "these are the outputs of the last chunk. Asked for are those at all tokens: collect "
            "them, and join them at the end.",
        ),
        Mistake(
            lambda *args: _in_chunks(
                *args,
                keep=lambda parts: np.array([p[-1] for p in parts]),
            ),
            "these are the last outputs of each chunk, one a chunk. There is one output for each "
            "token.",
        ),
        Mistake(
            lambda *args: _in_chunks(*args, overlap=1),
            "each chunk begins with the token that ended the one before, which is read twice. With "
            "a state that is carried on, chunks must not overlap.",
        ),
    ),
)


# 2. The step for a million tokens


def _depth_for(keep, tokens=2**20):
    """Minus the inverse softplus of the step that each token may spend."""
    return -np.log(np.expm1(-np.log(keep) / tokens))


check_depth = Check(
    name="depth",
    spec=_depth_for(0.9),
    outputs=("depth",),
    tolerance=1.5e-3,
    hint="from the end: which sum of step sizes leaves 0.9? How much of it may each token spend? "
    "And which z has this softplus?",
    mistakes=(
        Mistake(
            -np.log(0.9) / 2**20,
            "this is the step size, and right. Asked for is the z in front of the softplus.",
        ),
        Mistake(
            -_depth_for(0.9),
            "this is z itself, and right. The depth is how far it lies below 0: without the sign.",
        ),
        Mistake(
            _depth_for(0.1),
            "this leaves one tenth and loses nine. Nine tenths are to be kept.",
        ),
        Mistake(
            -np.log10(-np.log(0.9) / 2**20),
            "this is a logarithm to base 10. Softplus is made with e: np.log.",
        ),
        Mistake(
            -np.log(0.1 / 2**20),
            "close. You let the tokens spend a tenth in equal pieces, 0.1 / 2^20 each. But what is "
            "left is multiplied each time, so the budget is -ln(0.9) = 0.1054, a little more.",
        ),
        Mistake(
            _depth_for(0.9, 1),
            "this is for a single token. There are 2^20 of them, and each spends its share.",
        ),
        Mistake(
            _depth_for(0.5),
            "this is for a half-life of 2^20 tokens. Nine tenths are to be left, not one half.",
        ),
    ),
)


# 3. Two bugs at the border


def _border_case(rng):
    """Chunks shorter than the convolution's past, and longer ones."""
    K = int(rng.integers(3, 6))
    short = turn_of(rng) % 2 == 0
    n = (
        int(rng.integers(1, K - 1))
        if short
        else K + int(rng.integers(1, 5))
    )
    x, before = rng.uniform(1, 2, n), rng.uniform(1, 2, K - 1)
    return x, before, rng.uniform(3, 5), rng.uniform(0.5, 1.5, K), 0.8


def _border(
    x,
    before,
    h,
    w,
    a,
    left=lambda before: before,
    last=lambda x, past, K: past[len(past) - K + 1 :],
    start=lambda h: h,
):
    """The solution, and by its options wrong ones."""
    K = len(w)
    past = np.concatenate([left(before), x])
    u = np.array([past[t : t + K] @ w for t in range(len(x))])
    h, y = start(h), []
    for v in u:
        h = a * h + v
        y.append(h)
    return np.array(y), last(x, past, K), h


def _border_slow(x, before, h, w, a):
    """Number by number."""
    everything = [*before, *x]
    y = []
    for t in range(len(x)):
        v = sum(w[k] * everything[t + k] for k in range(len(w)))
        h = a * h + v
        y.append(h)
    return np.array(y), np.array(everything[-(len(w) - 1) :]), h


def _emptied(before):
    return np.zeros_like(before)


def _of_x(x, past, K):
    return x[-(K - 1) :]


check_read_chunk = Check(
    name="read_chunk",
    spec=_border_slow,
    outputs=("y", "before", "h"),
    cases=_border_case,
    hint="read six inputs as one chunk, and then one by one. Print what is handed on each time: "
    "how many inputs does the convolution have to be given?",
    mistakes=(
        Mistake(
            lambda *args: _border(*args, left=_emptied, last=_of_x),
            "both bugs are still there: the convolution begins each chunk with zeros, and a chunk "
            "shorter than K - 1 hands on too little.",
        ),
        Mistake(
            lambda *args: _border(*args, left=_emptied),
            "what is handed on is right, and not used: in front of the chunk stand zeros instead "
            "of the K - 1 inputs before it.",
        ),
        Mistake(
            lambda *args: _border(*args, last=_of_x),
            "the outputs are right. But a chunk of one input hands on one, and the next chunk "
            "needs K - 1. The missing ones are older: they came in with the chunk.",
        ),
        Mistake(
            lambda *args: _border(*args, start=lambda h: 0 * h),
            "the convolution is right, but the sum begins at 0: h has to be handed on, too.",
        ),
        Mistake(
            lambda *args: _border(
                *args, last=lambda x, past, K: past[: K - 1]
            ),
            "you hand on the first K - 1 inputs. The next chunk needs the last ones.",
        ),
        Mistake(
            lambda *args: _border(
                *args, last=lambda x, past, K: past[-K:]
            ),
            "you hand on K inputs. A convolution of width K looks at the input itself and at "
            "K - 1 before it.",
        ),
        Mistake(
            lambda *args: _border(
                *args,
                last=lambda x, past, K: np.concatenate(
                    [np.zeros(max(0, K - 1 - len(x))), x[-(K - 1) :]]
                ),
            ),
            "a short chunk is filled up with zeros. The inputs before it are known, they came in "
            "as `before`: hand those on.",
        ),
    ),
)


# 4. The pull of a price


def _pull_case(rng):
    """Steps far below the floor, near it, and large ones; one case is a list, not a table."""
    floor = np.exp(rng.uniform(np.log(1e-3), np.log(0.3)))
    rows, columns = (int(n) for n in rng.integers(2, 5, 2))
    shape = (rows + 2,) if turn_of(rng) == 4 else (rows, columns)
    z = rng.uniform(-6, 4, shape)
    z.flat[0] = np.log(floor) - rng.uniform(1, 4)
    z.flat[1] = np.log(floor) + rng.uniform(0, 1)
    z.flat[2] = rng.uniform(1, 4)
    return z, rng.uniform(0.5, 2), floor


def _steps(z):
    return np.logaddexp(0, z)


def _sigmoid(z):
    return np.exp(-np.logaddexp(0, -z))


def _pull_measured(z, price, floor):
    """By central differences, entry by entry."""

    def cost(z):
        return price * np.mean(np.log(1 + _steps(z) / floor))

    found, e = np.zeros(z.shape), 1e-4
    for i in np.ndindex(z.shape):
        up, down = z.copy(), z.copy()
        up[i] += e
        down[i] -= e
        found[i] = (cost(up) - cost(down)) / (2 * e)
    return found


def _pull(
    z,
    price,
    floor,
    along_delta=lambda delta, floor: 1 / (delta + floor),
    along_z=_sigmoid,
    share=True,
    sign=1,
):
    slope = along_delta(_steps(z), floor) * along_z(z)
    return sign * price * slope / (z.size if share else 1)


check_pull = Check(
    name="pull",
    spec=_pull_measured,
    outputs=("pull",),
    cases=_pull_case,
    hint="three links of a chain: from the mean to one entry, from the logarithm to Delta, from "
    "Delta to z. What is the derivative of log(1 + Delta / floor) by Delta?",
    mistakes=(
        Mistake(
            lambda z, p, f: _pull(z, p, f, share=False),
            "the price is a mean over all entries, so each of them pays one part in z.size.",
        ),
        Mistake(
            lambda z, p, f: _pull(z, p, f, lambda d, f: 1 / d),
            "this is the pull of log(Delta), without a floor. Here the logarithm is that of "
            "1 + Delta / floor, and its slope along Delta is not 1 / Delta.",
        ),
        Mistake(
            lambda z, p, f: _pull(z, p, f, lambda d, f: (d > f) / d),
            "this is the price of the chapter, which ends with a corner. Here nothing is cut off: "
            "below the floor an entry still pays, a little.",
        ),
        Mistake(
            lambda z, p, f: _pull(
                z, p, f, lambda d, f: 1 / (1 + d / f)
            ),
            "one link is missing: inside the logarithm stands Delta / floor, and its derivative by "
            "Delta is 1 / floor.",
        ),
        Mistake(
            lambda z, p, f: _pull(z, p, f, lambda d, f: 1 / f),
            "this is the pull of a price on Delta / floor. You have left out the logarithm, which "
            "makes large steps cheaper.",
        ),
        Mistake(
            lambda z, p, f: _pull(z, p, f, along_z=np.ones_like),
            "this is the slope along Delta. Asked for is the one along z: one more link, the "
            "slope of softplus, which is the sigmoid.",
        ),
        Mistake(
            lambda z, p, f: _pull(z, p, f, along_z=np.exp),
            "exp(z) is near the slope of softplus where steps are small, and far too large where "
            "they are not. The slope of log(1 + exp(z)) is exp(z) / (1 + exp(z)).",
        ),
        Mistake(
            lambda z, p, f: _pull(z, p, f, sign=-1),
            "right size, wrong sign: the price grows with z, so its derivative is positive. "
            "Descent takes the minus by itself.",
        ),
        Mistake(
            lambda z, p, f: p * np.log(1 + _steps(z) / f) / z.size,
            "this is what each entry pays. Asked for is by how much that grows with z: its "
            "derivative.",
        ),
    ),
)


# 5. What was lost, what was shifted


def _said_case(rng):
    """Few symbols, so that neighbors are sometimes the same."""
    B, n = int(rng.integers(40, 60)), int(rng.integers(4, 8))
    message = rng.integers(0, 4, (B, n))
    said = message.copy()
    guess = rng.random((B, n))
    shifted = np.roll(message, 1, axis=1)
    later = np.roll(message, -1, axis=1)
    said = np.where(guess < 0.35, shifted, said)
    said = np.where((guess > 0.35) & (guess < 0.5), later, said)
    said = np.where(guess > 0.9, (message + 1) % 4, said)
    return said, message


def _slips_counted(said, message):
    """Case by case."""
    B, n = message.shape
    right, shifted = np.zeros(n), np.zeros(n)
    for b in range(B):
        for i in range(n):
            if said[b, i] == message[b, i]:
                right[i] += 1 / B
            elif i > 0 and said[b, i] == message[b, i - 1]:
                shifted[i] += 1 / B
    return right, shifted


def _slips(
    said,
    message,
    by=1,
    wrap=False,
    only_wrong=True,
    axis=0,
    of_wrong=False,
):
    right = said == message
    shifted = said == np.roll(message, by, axis=1)
    if not wrap:
        shifted[:, 0 if by == 1 else -1] = False
    if only_wrong:
        shifted &= ~right
    share = shifted.mean(axis=axis)
    if of_wrong:
        share = share / np.maximum(1 - right.mean(axis=axis), 1e-9)
    return right.mean(axis=axis), share


check_slips = Check(
    name="slips",
    spec=_slips_counted,
    outputs=("right", "shifted"),
    cases=_said_case,
    hint="make a table of two sequences of four symbols by hand, one of them with the same symbol "
    "twice in a row, and count.",
    mistakes=(
        Mistake(
            lambda *args: _slips(*args, wrap=True),
            "np.roll goes round in a circle: in front of the first symbol stands the last. The "
            "first has none before it, and cannot have slipped.",
        ),
        Mistake(
            lambda *args: _slips(*args, by=-1),
            "you compare with the symbol behind. Said too late is the one before: "
            "message[:, i - 1].",
        ),
        Mistake(
            lambda *args: _slips(*args, only_wrong=False),
            "if the same symbol stands twice in a row, an answer can be right and equal the one "
            "before. That is no slip: count wrong answers only.",
        ),
        Mistake(
            lambda *args: _slips(*args, axis=1),
            "these are shares for each sequence. Asked for is one for each place in the message, a "
            "mean over the sequences, axis 0.",
        ),
        Mistake(
            lambda *args: _slips(*args, of_wrong=True),
            "this is the share of slips among the wrong answers. Take it of all sequences, so that "
            "right, shifted and the rest add up to 1.",
        ),
    ),
)


# 6. A cure without training


def _freeze_case(rng):
    """As many tokens as channels: a wrong axis then goes unnoticed by NumPy."""
    n = int(rng.integers(4, 8))
    quiet = np.exp(rng.uniform(-9, 0, n))
    noise = np.exp(rng.normal(0, 0.3, (6 * n, n))) * quiet
    delta = np.exp(rng.normal(0, 0.3, (n, n))) * quiet
    opens = rng.random((n, n)) < 0.3
    opens[:, 0], opens[0, :2] = True, (False, True)  # one is busy
    return delta * np.where(opens, 40, 1), noise, rng.uniform(2.5, 5)


def _freeze_by_hand(delta, noise, factor):
    """Step by step."""
    frozen = delta.copy()
    for d in range(delta.shape[1]):
        usual = sorted(noise[:, d])
        middle = (
            usual[(len(usual) - 1) // 2] + usual[len(usual) // 2]
        ) / 2
        for t in range(len(delta)):
            if delta[t, d] <= factor * middle:
                frozen[t, d] = 0.0
    return frozen


def _freeze(
    delta,
    noise,
    factor,
    usual=lambda noise: np.median(noise, axis=0),
    keep=lambda delta, limit: delta > limit,
    small=lambda delta, limit: 0.0,
):
    limit = factor * usual(noise)
    return np.where(keep(delta, limit), delta, small(delta, limit))


check_freeze = Check(
    name="freeze",
    spec=_freeze_by_hand,
    outputs=("frozen",),
    cases=_freeze_case,
    hint="one number a channel says what is usual there. Which steps are larger than `factor` "
    "times that, and what becomes of the others?",
    mistakes=(
        Mistake(
            lambda *args: _freeze(*args, usual=np.median),
            "you take one usual step for all channels. Their paces differ by factors of thousands: "
            "each channel has a median of its own, axis 0.",
        ),
        Mistake(
            lambda delta, noise, factor: _freeze(delta, delta, factor),
            "you take what is usual from the text itself. With facts in it, or few tokens, that is "
            "not the noise: the medians come from `noise`.",
        ),
        Mistake(
            lambda *args: _freeze(
                *args,
                usual=lambda noise: np.median(noise, axis=0)[:, None],
            ),
            "the medians lie along the tokens. One number a channel, (D,), fits the last axis as "
            "it is.",
        ),
        Mistake(
            lambda *args: _freeze(
                *args, keep=lambda delta, limit: delta <= limit
            ),
            "the wrong way round: you keep the usual steps and stop the clock at the facts.",
        ),
        Mistake(
            lambda *args: _freeze(
                *args, small=lambda delta, limit: delta - delta + limit
            ),
            "you raise small steps to the limit. They are to be 0: only then is nothing spent.",
        ),
        Mistake(
            lambda delta, noise, factor: np.maximum(
                delta - factor * np.median(noise, axis=0), 0
            ),
            "you take the limit off the large steps as well. A fact is to be written as before: "
            "steps above the limit stay as they are.",
        ),
        Mistake(
            lambda delta, noise, factor: (
                delta
                * (delta > factor * np.median(noise, axis=0)).any(
                    axis=1
                )[:, None]
            ),
            "you decide for whole tokens. Each channel decides for itself: some have nothing to "
            "write at a fact, and should not fade there either.",
        ),
    ),
)
