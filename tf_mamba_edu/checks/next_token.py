"""Checks of chapter 12, next-token prediction."""

from __future__ import annotations

import numpy as np

from tf_mamba_edu.checks.core import Check, Mistake, turn_of

# The share that has leaked


def _starts_case(rng):
    """Around each training window one held-out window, of five kinds.

    So many of each that no two ways of counting agree.
    """
    length = int(rng.integers(4, 9))
    shifts = {
        "its last place": (-1, 1),
        "its first place": (-length, 2),
        "two windows": (-2, 3),
        "overlaps, not read": (2, 7),
        "far": (2 * length, int(rng.integers(5, 13))),
    }
    train, held = [], []
    places = iter(rng.permutation(40) * 4 * length + length)
    for kind, (shift, count) in shifts.items():
        for _ in range(count):
            start = next(places)
            held.append(start + shift)
            train.append(start)
            if kind == "two windows":
                train.append(start + 1)
    return rng.permutation(train), rng.permutation(held), length


def _reads(train, asked, length, first=0, last=None):
    """(asked, train): whether each place lies in each window."""
    last = length - 1 if last is None else last
    distance = asked[:, None] - train  # (asked, train)
    return (distance >= first) & (distance <= last)


def _leaked(train, held, length, **window):
    found = _reads(train, held + length, length, **window)
    return np.mean(found.any(axis=1))


def _overlapping(train, held, length):
    return np.mean(
        [np.any(np.abs(train - start) < length) for start in held]
    )


check_leaked = Check(
    name="leaked",
    spec=_leaked,
    outputs=("share",),
    cases=_starts_case,
    tolerance=1e-6,
    hint="for one held-out window: at which place does its target stand? And which training "
    "windows read that place? One is enough.",
    mistakes=(
        Mistake(
            lambda train, held, length: np.mean(
                _reads(train, held, length).any(axis=1)
            ),
            "this asks where the held-out windows *start*. Their target stands `length` places "
            "later.",
        ),
        Mistake(
            _overlapping,
            "this counts windows that overlap with a training window at all. The leak is smaller: "
            "it is the *target* that has to stand in one.",
        ),
        Mistake(
            lambda train, held, length: np.mean(np.isin(held, train)),
            "this asks which targets are *targets* of training windows, and none is, since each "
            "start is in one heap only. What do the training windows read?",
        ),
        Mistake(
            lambda *case: _leaked(*case, first=1),
            "nearly: the first place that each training window reads is missing. It reads its "
            "start, and `length` - 1 places behind it.",
        ),
        Mistake(
            lambda *case: _leaked(*case, last=case[2] - 2),
            "nearly: the last place that each training window reads is missing. It reads `length` "
            "places, its start among them.",
        ),
        Mistake(
            lambda train, held, length: np.mean(
                np.isin(
                    train[:, None] + np.arange(length), held + length
                ).any(axis=1)
            ),
            "this is the share of the *training* windows that hold a target. Which share of the "
            "targets is held?",
        ),
        Mistake(
            lambda train, held, length: (
                np.sum(_reads(train, held + length, length)) / len(held)
            ),
            "a target that stands in two training windows counts twice here. Once it is known, it "
            "is known.",
        ),
        Mistake(
            lambda train, held, length: np.mean(
                _reads(train, held + length, length)
            ),
            "this is the share of all *pairs* of a target and a window. For each target, ask "
            "whether any window reads it; then take the mean over the targets.",
        ),
        Mistake(
            lambda *case: 1 - _leaked(*case),
            "this is the share that has *not* leaked.",
        ),
    ),
)


# The same perplexity


def _perplexity_case(rng):
    characters, other = rng.permutation(np.arange(1, 9))[:2]
    scale = rng.uniform(0.9, 1.1)
    return (
        float(rng.uniform(20, 300)),
        float(characters * scale),
        float(other),
    )


check_same_perplexity = Check(
    name="same_perplexity",
    spec=lambda perplexity, c, d: perplexity ** (d / c),
    outputs=("perplexity",),
    cases=_perplexity_case,
    tolerance=1e-5,
    hint="make a loss of the perplexity first. What does a *character* cost, in nats? And a piece "
    "of so many characters of the other kind?",
    mistakes=(
        Mistake(
            lambda perplexity, c, d: perplexity,
            "the two would only be the same if both had pieces of one length. A long piece costs "
            "more than a short one.",
        ),
        Mistake(
            lambda perplexity, c, d: perplexity * d / c,
            "this scales the perplexity itself. What is in proportion to the characters is the "
            "*loss*, its logarithm.",
        ),
        Mistake(
            lambda perplexity, c, d: perplexity ** (c / d),
            "the wrong way round: pieces of more characters cost more, and so their perplexity is "
            "higher.",
        ),
        Mistake(
            lambda perplexity, c, d: np.log(perplexity) * d / c,
            "this is the loss, in nats. Its exponential is the perplexity.",
        ),
        Mistake(
            lambda perplexity, c, d: 2 ** (np.log(perplexity) * d / c),
            "2 to the power of nats: perplexity is e to the power of the loss, 2 would belong to "
            "bits.",
        ),
        Mistake(
            lambda perplexity, c, d: perplexity ** (1 / c),
            "this is the perplexity of a character. The other tokenizer's pieces have "
            "`other_characters` of them.",
        ),
    ),
)


# Witten and Bell's bigram


def _counting_case(rng):
    """In every other case nothing has ever followed the last piece of the text."""
    odd, V = turn_of(rng) % 2, int(rng.integers(5, 8))
    text = rng.choice(V - 1, size=int(rng.integers(20, 30)))
    return np.append(text, text[3] if odd else V - 1), V


def _interpolated(
    counts, shorter, kinds=lambda c: np.sum(c > 0, -1, keepdims=True)
):
    """Equation (eq-next-witten) for each row of counts."""
    total, t = np.sum(counts, -1, keepdims=True), kinds(counts)
    mixed = (counts + t * shorter) / np.maximum(total + t, 1e-9)
    return np.where(total > 0, mixed, shorter)


def _pairs(text, V):
    table = np.zeros((V, V))
    np.add.at(table, (text[:-1], text[1:]), 1)
    return table


def _bigram(
    text,
    V,
    kinds=lambda c: np.sum(c > 0, -1, keepdims=True),
    unigram=None,
    total=None,
    rest=None,
):
    """The solution and, by its parts, wrong ones."""
    single, pairs = np.bincount(text, minlength=V), _pairs(text, V)
    shorter = _interpolated(single, np.full(V, 1 / V), kinds)
    shorter = shorter if unigram is None else unigram(single)
    found = _interpolated(pairs, shorter, kinds)
    if total is not None:  # another c(h)
        t, often = kinds(pairs), total(single)[:, None]
        mixed = (pairs + t * shorter) / np.maximum(often + t, 1)
        found = np.where(often > 0, mixed, shorter)
    if rest is not None:  # where nothing has followed
        found[np.sum(pairs, 1) == 0] = rest(V)
    return found


def _add_one(text, V):
    pairs = _pairs(text, V)
    return (pairs + 1) / (pairs.sum(1, keepdims=True) + V)


check_bigram = Check(
    name="bigram",
    spec=_bigram,
    outputs=("P",),
    cases=_counting_case,
    tolerance=1e-5,
    hint="two steps of the same formula: first for the empty context, with 1 / V as the shorter "
    "one, then for each piece, with the first step's result as the shorter one.",
    mistakes=(
        Mistake(
            lambda text, V: _bigram(
                text, V, unigram=lambda n: n / n.sum()
            ),
            "the step of single pieces is missing its own mixture: with 1 / V below it. In a "
            "larger vocabulary a piece that was never seen would have the probability 0.",
        ),
        Mistake(
            lambda text, V: _bigram(
                text, V, unigram=lambda n: np.full(V, 1 / V)
            ),
            "the pairs are mixed with 1 / V at once. Between the two is the step of single pieces: "
            "a common piece is likely behind anything.",
        ),
        Mistake(
            lambda text, V: _bigram(
                text,
                V,
                kinds=lambda c: np.sum(c, -1, keepdims=True),
            ),
            "t(h) is how many *different* pieces have followed. You have put c(h) in its place, so "
            "that every context gets half of the decision.",
        ),
        Mistake(
            lambda text, V: _bigram(
                text, V, total=lambda single: single
            ),
            "c(h) is how often something *followed* h. The last piece of the text is counted once "
            "too often, since nothing follows it.",
        ),
        Mistake(
            lambda text, V: _bigram(text, V, rest=lambda V: 1 / V),
            "all is right but the context that nothing has followed. It leaves the whole decision "
            "to the shorter one, which is that of single pieces and not 1 / V.",
        ),
        Mistake(
            lambda text, V: _bigram(text, V, rest=lambda V: 0.0),
            "all is right but the context that nothing has followed: its probabilities are all 0. "
            "There the shorter context decides alone.",
        ),
        Mistake(
            _add_one,
            "this adds one to each count. Witten and Bell add t(h) times the opinion of the "
            "shorter context instead, which knows what is common.",
        ),
        Mistake(
            lambda text, V: _bigram(text, V).T,
            "rows and columns are exchanged: row h holds the probabilities of what follows h, and "
            "sums to 1.",
        ),
    ),
)


# A splitter with two bugs


def _split_case(rng):
    """What windows leave of a block is in turn 0, 1, 2 places; the text ends within a block."""
    rest, length = turn_of(rng) % 3, int(rng.integers(3, 6))
    block = length * int(rng.integers(3, 5)) + rest
    every = int(rng.integers(3, 5))
    n = block * (2 * every + 1) + int(rng.integers(length + 2, block))
    return n, block, every, length


def _split(
    n,
    block,
    every,
    length,
    end=lambda end, length: end - length,
    stride=lambda length: length,
    held=lambda number, every: number % every == every - 1,
):
    """The solution and, by its parts, wrong ones."""
    parts = [], []
    for first in range(0, n, block):
        stop = end(min(first + block, n), length)
        for start in range(first, stop, stride(length)):
            window = np.arange(start, start + length + 1)
            parts[held(first // block, every)].append(window)
    return tuple(np.array(part) for part in parts)


def _over_the_border(end, length):
    return end - 1


def _one_more(length):
    return length + 1


def _border_of_the_text_only(n, block, every, length):
    """Cuts windows through the text; the start decides."""
    parts = [], []
    for start in range(0, n - length, length):
        window = np.arange(start, start + length + 1)
        parts[start // block % every == every - 1].append(window)
    return tuple(np.array(part) for part in parts)


check_split = Check(
    name="split",
    spec=_split,
    outputs=("training", "held_out"),
    cases=_split_case,
    hint="take a block of 7 places and windows of length 3, which are 4 places each. Write down "
    "the windows that lie in the block. Which is the last place, and which targets are there?",
    mistakes=(
        Mistake(
            lambda *case: _split(
                *case, end=_over_the_border, stride=_one_more
            ),
            "both bugs are still there. Look at the last window of a block, where does it end? And "
            "at the targets of one window and the next: which place is never asked for?",
        ),
        Mistake(
            lambda *case: _split(*case, end=_over_the_border),
            "one bug is left: the last window of a block runs over into the next one. A training "
            "window that ends in a held-out block has read, and learned, what is asked there.",
        ),
        Mistake(
            lambda *case: _split(*case, stride=_one_more),
            "one bug is left: the next window starts behind the last target of the one before. "
            "That place is read again as an input, but the first place of a window is no target. "
            "So one place in each `length` + 1 is never asked for.",
        ),
        Mistake(
            lambda *case: _split(
                *case, end=lambda end, length: end - length - 1
            ),
            "nearly: in some blocks a last window that would just fit is missing. A window of "
            "`length` + 1 places may start at `end - length - 1`.",
        ),
        Mistake(
            lambda *case: _split(
                *case, end=lambda end, length: end - length + 1
            ),
            "nearly: some windows still end one place behind their block. They have `length` + 1 "
            "places, not `length`.",
        ),
        Mistake(
            _border_of_the_text_only,
            "windows are cut through the whole text, and their start decides. A window that starts "
            "in a training block may end in a held-out one.",
        ),
        Mistake(
            lambda *case: _split(
                *case, held=lambda number, every: number % every == 0
            ),
            "the *first* of each `every` blocks is held out. It should be the last.",
        ),
        Mistake(
            lambda *case: _split(*case)[::-1],
            "the windows are right, but the two parts are exchanged: first the training windows.",
        ),
    ),
)


# What the context is worth


def _losses_case(rng):
    """Two readings of the same targets; anew is worse, above all at the start of a window."""
    m, L = int(rng.integers(3, 7)), 2 ** int(rng.integers(3, 6))
    carried = rng.gamma(3.0, 1.0, (m, L))
    worse = rng.gamma(2.0, 1.0, (m, L)) / np.sqrt(1 + np.arange(L))
    return carried + worse, carried


def _each(losses, bounds=lambda k: (2**k - 1, 2 ** (k + 1) - 1)):
    """Mean of each window (m, bins), between two columns of each bin."""
    bins = int(np.log2(losses.shape[1]))
    return np.stack(
        [
            np.mean(losses[:, slice(*bounds(k))], axis=1)
            for k in range(bins)
        ],
        axis=1,
    )


def _error(each, ddof=1):
    return np.std(each, axis=0, ddof=ddof) / np.sqrt(len(each))


def _by_context(
    anew, carried, error=lambda anew, carried: None, **bounds
):
    """The solution and, by its parts, wrong ones."""
    each = _each(anew - carried, **bounds)  # (m, bins)
    other = error(anew, carried)
    return each.mean(axis=0), _error(each) if other is None else other


def _of_all_pieces(anew, carried):
    """As if each piece were a measurement."""
    lost, errors = anew - carried, []
    for k in range(int(np.log2(lost.shape[1]))):
        found = lost[:, 2**k - 1 : 2 ** (k + 1) - 1]
        errors.append(np.std(found, ddof=1) / np.sqrt(found.size))
    return np.array(errors)


def _unpaired(anew, carried):
    return np.hypot(_error(_each(anew)), _error(_each(carried)))


def _one_bin_more(anew, carried):
    last = (anew - carried)[:, -1]
    return tuple(
        np.append(found, of_last)
        for found, of_last in zip(
            _by_context(anew, carried),
            (np.mean(last), _error(last)),
            strict=True,
        )
    )


check_by_context = Check(
    name="by_context",
    spec=_by_context,
    outputs=("means", "errors"),
    cases=_losses_case,
    tolerance=1e-5,
    hint="for each bin make one number a window first, the mean of `anew - carried` over the bin's "
    "columns. Then take the mean of these m numbers, and their standard error.",
    mistakes=(
        Mistake(
            lambda anew, carried: _by_context(carried, anew),
            "the sign is turned around. Asked for is by how much the loss is *higher* anew.",
        ),
        Mistake(
            lambda anew, carried: _by_context(
                anew, np.zeros_like(carried)
            ),
            "these are the losses of the reading that began anew. How hard the places are is still "
            "in them. Take the difference from `carried`.",
        ),
        Mistake(
            lambda *case: _by_context(
                *case, bounds=lambda k: (2**k, 2 ** (k + 1))
            ),
            "one column too far: column t comes after t + 1 pieces, so the bin of 1 piece is "
            "column 0.",
        ),
        Mistake(
            lambda *case: _by_context(
                *case, bounds=lambda k: (0, 2 ** (k + 1) - 1)
            ),
            "each bin begins at the first column. It should go from its power of two to the next, "
            "and leave out what came before.",
        ),
        Mistake(
            lambda *case: _by_context(
                *case, bounds=lambda k: (2**k - 1, 2**k)
            ),
            "only the first column of each bin is in it. A bin goes up to the next power of two.",
        ),
        Mistake(
            lambda *case: _by_context(
                *case, bounds=lambda k: (2**k - 1, 2 ** (k + 1))
            ),
            "each bin takes one column more than it should: the next bin's first one.",
        ),
        Mistake(
            _one_bin_more,
            "one bin too many: the last column, which comes after L pieces, begins a bin that is "
            "not complete. Leave it out.",
        ),
        Mistake(
            lambda *case: _by_context(*case, error=_of_all_pieces),
            "the means are right. For the errors you have counted every *piece* as a measurement "
            "of its own. Neighbors are alike: first take the mean of each window.",
        ),
        Mistake(
            lambda *case: _by_context(*case, error=_unpaired),
            "the means are right. The errors are those of two readings of *different* texts. Here "
            "the targets are the same: subtract first, and most of the spread is gone.",
        ),
        Mistake(
            lambda *case: _by_context(
                *case,
                error=lambda anew, carried: np.std(
                    _each(anew - carried), axis=0, ddof=1
                ),
            ),
            "the means are right. The errors are standard deviations of *one* window. The mean of "
            "m windows is surer, by the root of m.",
        ),
        Mistake(
            lambda *case: _by_context(
                *case,
                error=lambda anew, carried: _error(
                    _each(anew - carried), ddof=0
                ),
            ),
            "nearly: the errors are a little too small. The m means spread around their own mean, "
            "so the denominator of the variance is m - 1 (`ddof=1`).",
        ),
    ),
)


# The best of k


def _noise_case(rng):
    return (
        float(rng.uniform(3, 5)),
        float(rng.uniform(0.5, 2)),
        int(rng.integers(2, 12)),
    )


check_expected_best = Check(
    name="expected_best",
    spec=lambda loss, a, k: loss - a * (k - 1) / (k + 1),
    outputs=("best",),
    cases=_noise_case,
    tolerance=1e-6,
    hint="the lowest of k is above x if *all* k are above x. For one of them that has the "
    "probability (a - x) / (2 a). Integrate that, to the power of k, from -a to a, and add -a.",
    mistakes=(
        Mistake(
            lambda loss, a, k: loss,
            "this is what a *fresh* text would say of the winner, whichever it is. On the text "
            "that chose it, it looks better.",
        ),
        Mistake(
            lambda loss, a, k: loss + a * (k - 1) / (k + 1),
            "this is the highest of the k. The lowest loss wins.",
        ),
        Mistake(
            lambda loss, a, k: loss + 2 * a / (k + 1),
            "the integral is right. It is the distance from the lowest measurement that can "
            "happen, and that is loss - a.",
        ),
        Mistake(
            lambda loss, a, k: loss - a,
            "this is the best that can happen at all. In the mean the lowest of k stays above it.",
        ),
        Mistake(
            lambda loss, a, k: loss - a * k / (k + 1),
            "with k = 1 there is no choice, and nothing should be flattered. The noise lies "
            "between -a and a, and not between -a and 0.",
        ),
        Mistake(
            lambda loss, a, k: loss - a / np.sqrt(k),
            "this is how the noise of a *mean* of k shrinks. The lowest of k goes the other way: "
            "the more are tried, the lower.",
        ),
        Mistake(
            lambda loss, a, k: -a * (k - 1) / (k + 1),
            "this is by how much the choice flatters. Return the loss that is reported.",
        ),
    ),
)
