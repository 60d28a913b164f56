"""Checks of chapter 13, sentiment of movie reviews."""

from __future__ import annotations

import numpy as np

from tf_mamba_edu.checks.core import Check, Mistake, turn_of

# 1. Head and tail


def _pieces_case(rng):
    """In turn: too long with a short head, with a long one; too short; no tail; no head."""
    kind = turn_of(rng) % 5
    length = int(rng.integers(7, 13))
    n = length - 3 if kind == 2 else length + int(rng.integers(4, 9))
    front = (
        int(rng.integers(1, 3)),
        length - int(rng.integers(1, 3)),
        int(rng.integers(1, length)),
        length,
        0,
    )[kind]
    return rng.permutation(np.arange(1, 60))[:n], length, front


def _one_text(pieces, length, front):
    """Place by place."""
    row = [0] * length
    for t in range(min(len(pieces), length)):
        late = len(pieces) > length and t >= front
        row[t] = pieces[t + len(pieces) - length if late else t]
    return np.array(row)


def _shortened(pieces, length, front, cut=None, behind=True):
    """The solution, and by its options wrong ones."""
    if len(pieces) > length:
        tail = pieces[len(pieces) - (length - front) :]
        pieces = (
            cut(pieces, length)
            if cut
            else np.concatenate([pieces[:front], tail])
        )
    row = np.zeros(length, int)
    if behind:
        row[: len(pieces)] = pieces
    else:
        row[length - len(pieces) :] = pieces
    return row


def _middle(pieces, length):
    start = (len(pieces) - length) // 2
    return pieces[start : start + length]


def _end_first(pieces, length, front):
    """The tail, and behind it the head."""
    row = _shortened(pieces, length, front)
    return np.roll(row, -front) if len(pieces) > length else row


check_head_and_tail = Check(
    name="head_and_tail",
    spec=_one_text,
    outputs=("row",),
    cases=_pieces_case,
    tolerance=1e-6,
    hint="four cases: too long, too short, no place for the beginning, and none for the end. In "
    "the last of them the tail has no piece at all: which slice is empty?",
    mistakes=(
        Mistake(
            lambda *case: _shortened(*case, cut=lambda p, n: p[:n]),
            "a long text is cut off at its end. Many reviews say there what they think: only the "
            "first `front` places belong to the beginning.",
        ),
        Mistake(
            lambda *case: _shortened(*case, cut=lambda p, n: p[-n:]),
            "only the end of a long text is kept. The first `front` places belong to its "
            "beginning.",
        ),
        Mistake(
            lambda *case: _shortened(*case, cut=_middle),
            "the middle of a long text is kept. It is the middle that should be left out.",
        ),
        Mistake(
            lambda pieces, length, front: _shortened(
                pieces, length, length // 2
            ),
            "half of the places go to the beginning, whatever `front` says.",
        ),
        Mistake(
            lambda pieces, length, front: _shortened(
                pieces, length, length - front
            ),
            "`front` pieces are kept of the *end* here. It counts those of the beginning.",
        ),
        Mistake(
            lambda *case: _shortened(*case, behind=False),
            "the zeros stand in front of a short text. Put them behind.",
        ),
        Mistake(
            _end_first,
            "head and tail have changed places: the end of the text comes first.",
        ),
    ),
)


# 2. The weight of a word


def _texts_case(rng):
    """Texts of few features, some of them several times in a text; classes of different size."""
    n, V = int(rng.integers(14, 20)), int(rng.integers(5, 8))
    labels = (np.arange(n) < n // 3).astype(int)
    often = rng.uniform(0.2, 1.4, (2, V)) * np.array([[1.0], [1.6]])
    counts = rng.poisson(often[labels])
    counts[0], counts[-1] = 1, 2
    counts[:, 0] = 1 - labels  # never in favor
    return counts, rng.permutation(labels)


def _log_ratio_by_hand(counts, labels):
    """Feature by feature."""
    n, V = counts.shape
    holding = np.zeros((2, V))
    for i in range(n):
        for f in range(V):
            holding[labels[i], f] += counts[i, f] > 0
    theta = [
        [(holding[c, f] + 1) / (sum(holding[c]) + V) for f in range(V)]
        for c in (0, 1)
    ]
    return np.log(np.array(theta[1])) - np.log(np.array(theta[0]))


def _log_ratio(
    counts,
    labels,
    presence=True,
    one=1.0,
    total=lambda sums, texts: sums.sum() + len(sums),
):
    x = counts > 0 if presence else counts
    logs = []
    for c in (0, 1):
        sums = x[labels == c].sum(axis=0)
        logs.append(
            np.log((sums + one) / total(sums, int(np.sum(labels == c))))
        )
    return logs[1] - logs[0]


check_log_ratio = Check(
    name="log_ratio",
    spec=_log_ratio_by_hand,
    outputs=("weights",),
    cases=_texts_case,
    tolerance=1e-5,
    hint="for one label: in how many of its texts does each feature stand? Add one to each, and "
    "divide by the sum of what you have then.",
    mistakes=(
        Mistake(
            lambda *case: _log_ratio(*case, presence=False),
            "a word that stands three times in a text counts three times here. Count the texts "
            "that hold it: `counts > 0`.",
        ),
        Mistake(
            lambda *case: -_log_ratio(*case),
            "the sign is the wrong way round. What speaks for label 1 should weigh more than 0.",
        ),
        Mistake(
            lambda *case: _log_ratio(
                *case, total=lambda sums, texts: texts
            ),
            "you divide by the number of texts. The equation divides by the sum over all features "
            "g of their counts, plus V.",
        ),
        Mistake(
            lambda *case: _log_ratio(
                *case, total=lambda sums, texts: sums.sum()
            ),
            "the V is missing below. Each of the V features has got one count more, so their "
            "probabilities would add up to more than 1.",
        ),
        Mistake(
            lambda *case: _log_ratio(
                *case, total=lambda sums, texts: sums.sum() + 1
            ),
            "one is added to the sum below. It is one for each feature, V in all.",
        ),
        Mistake(
            lambda *case: _log_ratio(
                *case, total=lambda sums, texts: 1.0
            ),
            "this compares counts, and not shares. The two labels have different numbers of texts: "
            "divide by the sum of the counts of each.",
        ),
        Mistake(
            lambda *case: np.exp(_log_ratio(*case)),
            "these are the ratios. The weights are their logarithms, so that a text can add them "
            "up.",
        ),
        Mistake(
            lambda counts, labels: (
                _log_ratio(counts, labels)
                + np.log(labels.mean() / (1 - labels.mean()))
            ),
            "each weight contains log P(1) / P(0). That belongs to the text, once, and not to each "
            "of its features.",
        ),
    ),
)


# 3. A pooling with two bugs


def _outputs_case(rng):
    """Padding behind, in front and none; one channel is negative everywhere."""
    B, L, E = 3, int(rng.integers(5, 9)), int(rng.integers(2, 5))
    h = rng.normal(size=(B, L, E))
    h[:, :, 0] = -1 - np.abs(h[:, :, 0])
    mask = np.ones((B, L), bool)
    mask[1, L - int(rng.integers(1, 4)) :] = False
    mask[2, : int(rng.integers(1, 4))] = False
    return h, mask


def _pooled_by_text(h, mask):
    """Text by text, without its padding."""
    words = [row[shown] for row, shown in zip(h, mask, strict=True)]
    return (
        np.array([w.mean(axis=0) for w in words]),
        np.array([w.max(axis=0) for w in words]),
        np.array([w[-1] for w in words]),
    )


def _zeros_win(h, mask):
    return (h * mask[:, :, None]).max(axis=1)


def _at_the_count(h, mask, back=1):
    return h[np.arange(len(h)), mask.sum(axis=1) - back]


def _pooled(h, mask, **parts):
    right = dict(
        zip(
            ("mean", "largest", "last"),
            _pooled_by_text(h, mask),
            strict=True,
        )
    )
    changed = {name: part(h, mask) for name, part in parts.items()}
    return tuple((right | changed).values())


check_pool = Check(
    name="pool",
    spec=_pooled_by_text,
    outputs=("mean", "largest", "last"),
    cases=_outputs_case,
    tolerance=1e-6,
    hint="try one text with two words and one zero, all its outputs negative, once with the zero "
    "behind and once with the zero in front.",
    mistakes=(
        Mistake(
            lambda *case: _pooled(
                *case, largest=_zeros_win, last=_at_the_count
            ),
            "both bugs are still there: the zeros of the padding can be the largest, and the last "
            "word is looked for where it would be if all padding stood behind.",
        ),
        Mistake(
            lambda *case: _pooled(*case, largest=_zeros_win),
            "`last` is right now. But where all outputs of a channel are negative, the padding has "
            "been set to 0 and wins.",
        ),
        Mistake(
            lambda *case: _pooled(*case, last=_at_the_count),
            "`largest` is right now. But the number of words is the place of the last one only if "
            "the padding stands behind. It may stand in front.",
        ),
        Mistake(
            lambda *case: _pooled(*case, last=lambda h, mask: h[:, -1]),
            "`last` is the output at the last *place* now. That is right for padding in front and "
            "wrong for padding behind: ask the mask.",
        ),
        Mistake(
            lambda *case: _pooled(
                *case, largest=lambda h, mask: h.max(axis=1)
            ),
            "`largest` looks at the padding, too, whose outputs mean nothing. Push them below all "
            "others before you take the maximum.",
        ),
        Mistake(
            lambda *case: _pooled(
                *case,
                mean=lambda h, mask: (h * mask[:, :, None]).mean(
                    axis=1
                ),
            ),
            "the mean was right before. Now the sum is over the words and the division by all L "
            "places: texts with much padding get small means.",
        ),
        Mistake(
            lambda *case: _pooled(
                *case, last=lambda h, mask: _at_the_count(h, mask, 2)
            ),
            "`last` is now one place before the last word where padding stands behind.",
        ),
    ),
)


# 4. The error of a difference


def _counts_case(rng):
    """The first is better, then the second, in turn."""
    n = int(rng.integers(60, 90))
    more, fewer = int(rng.integers(12, 20)), int(rng.integers(3, 8))
    b, c = (more, fewer) if turn_of(rng) % 2 == 0 else (fewer, more)
    return b, c, n


def _difference_by_text(b, c, n):
    """From a number for each text."""
    d = np.repeat([1, -1, 0], [b, c, n - b - c])
    return d.mean(), d.std() / np.sqrt(n)


def _difference(b, c, n, square=True, power=1.0, over=None):
    m = over or n
    mean = (b - c) / m
    variance = (b + c) / m - square * mean**2
    return mean, np.sqrt(variance / m**power)


check_difference = Check(
    name="difference",
    spec=_difference_by_text,
    outputs=("apart", "error"),
    cases=_counts_case,
    tolerance=1e-4,
    hint="write down the n numbers for b = 2, c = 1 and n = 4. What is their mean, and what is "
    "the mean of their squares?",
    mistakes=(
        Mistake(
            lambda *case: _difference(*case, square=False),
            "nearly: this is the mean of the squares. For the variance the square of the mean, "
            "((b - c) / n)², has to be taken off. It is small only if b and c are alike.",
        ),
        Mistake(
            lambda *case: _difference(*case, power=0.0),
            "this is the spread of a single text. The mean of n of them is more certain by the "
            "square root of n.",
        ),
        Mistake(
            lambda *case: _difference(*case, power=2.0),
            "the spread is divided by n. The error of a mean falls with the square root of n.",
        ),
        Mistake(
            lambda *case: (
                _difference(*case)[0],
                _difference(*case)[1] ** 2,
            ),
            "this is the variance of the difference. Its root is in the unit of the shares.",
        ),
        Mistake(
            lambda b, c, n: _difference(c, b, n),
            "the error is right, and the sign is not: by how much is the first one better?",
        ),
        Mistake(
            lambda b, c, n: (
                abs(b - c) / n,
                _difference(b, c, n)[1],
            ),
            "the difference is never negative here. It should be if the second one is better.",
        ),
        Mistake(
            lambda b, c, n: (
                (b - c) / n,
                np.sqrt(b + c) / 2 / n,
            ),
            "this is the error of b alone, as in b + c throws of a coin. But where b gains a text, "
            "c loses it.",
        ),
        Mistake(
            lambda b, c, n: _difference(b, c, n, over=b + c),
            "you divide by the b + c texts on which the two differ. The others count as well: they "
            "are the zeros among the n numbers.",
        ),
    ),
)


# 5. Calibration


def _said_case(rng):
    """Bins of different size; some empty, one value of exactly 1; both signs of the gap."""
    n = int(rng.integers(70, 100))
    p = np.concatenate([rng.beta(0.7, 0.5, n), [1.0, 1.0, 0.03]])
    bins = int(rng.integers(4, 7))
    p[(p > 1 / bins) & (p < 1.9 / bins)] = 0.5 / bins
    true = rng.random(len(p)) < 0.25 + 0.4 * p
    return p, true.astype(int), bins


def _gap_by_bin(p, labels, bins):
    """Bin by bin."""
    total = 0.0
    for k in range(bins):
        inside = [
            i
            for i in range(len(p))
            if k / bins <= p[i] < (k + 1) / bins
            or (p[i] == 1 and k == bins - 1)
        ]
        if inside:
            said = sum(p[i] for i in inside) / len(inside)
            true = sum(labels[i] for i in inside) / len(inside)
            total += len(inside) / len(p) * abs(said - true)
    return total


def _gap(
    p,
    labels,
    bins,
    size=lambda inside, full: inside.mean(),
    said=lambda p, k, bins: p.mean(),
    distance=abs,
    last=True,
    top=False,
):
    which = (p * bins).astype(int)
    if last:
        which = np.minimum(which, bins - 1)
    full = [k for k in range(bins) if np.any(which == k)]
    gaps = [
        size(which == k, full)
        * distance(
            said(p[which == k], k, bins) - labels[which == k].mean()
        )
        for k in full
    ]
    return max(gaps) if top else sum(gaps)


def _of_the_verdict(p, labels, bins):
    """Bins by the probability of the likelier label: folds both halves upon each other."""
    sure = np.maximum(p, 1 - p)
    return _gap_by_bin(sure, ((p > 0.5) == labels).astype(int), bins)


check_calibration_error = Check(
    name="calibration_error",
    spec=_gap_by_bin,
    outputs=("error",),
    cases=_said_case,
    tolerance=1e-5,
    hint="one bin at a time: how many texts are in it, what was said on average, and what was "
    "true? An empty bin says nothing.",
    mistakes=(
        Mistake(
            lambda *case: _gap(
                *case, size=lambda inside, full: 1 / len(full)
            ),
            "all bins count alike here. Each should count by how many texts are in it.",
        ),
        Mistake(
            lambda *case: _gap(*case, distance=float),
            "gaps of different sign cancel. Being too sure here does not make up for being too "
            "modest there: take absolute values.",
        ),
        Mistake(
            lambda *case: _gap(
                *case, said=lambda p, k, bins: (k + 0.5) / bins
            ),
            "you compare with the middle of the bin. Most texts lie near its border: take the mean "
            "of what was said.",
        ),
        Mistake(
            lambda *case: _gap(*case, last=False),
            "texts with p = 1 are missing. They belong to the last bin.",
        ),
        Mistake(
            lambda *case: _gap(*case, distance=np.square),
            "the gaps are squared. Take their absolute values.",
        ),
        Mistake(
            _of_the_verdict,
            "you sort by how sure the *verdict* is. That is a good number as well. Asked for is "
            "the one of the chapter: the probability of label 1, from 0 to 1.",
        ),
        Mistake(
            lambda *case: _gap(
                *case, size=lambda inside, full: 1.0, top=True
            ),
            "this is the largest gap. The expected one is a mean over all texts.",
        ),
        Mistake(
            lambda p, labels, bins: np.mean(np.abs(p - labels)),
            "this compares each text with its own label. A model that says 0.9 ten times and is "
            "right nine times is calibrated: compare means of bins.",
        ),
    ),
)


# 6. Groups of near-duplicates


def _pairs_case(rng):
    """Two chains, a star and a pair; links in any order."""
    n = int(rng.integers(18, 24))
    names = rng.permutation(n)
    places = np.array(
        [
            (0, 1),
            (1, 2),
            (2, 3),
            (3, 4),
            (5, 6),
            (6, 7),
            (7, 8),
            (9, 10),
            (9, 11),
            (9, 12),
            (13, 14),
        ]
    )
    pairs = np.sort(names[places], axis=1)
    return n, pairs[rng.permutation(len(pairs))]


def _groups_by_walking(n, pairs):
    """From each text along all links."""
    group = np.zeros(n, int)
    for start in range(n):
        seen, ahead = {start}, [start]
        while ahead:
            here = ahead.pop()
            for i, j in pairs:
                for one, other in ((i, j), (j, i)):
                    if one == here and other not in seen:
                        seen.add(other)
                        ahead.append(other)
        group[start] = min(seen)
    return group


def _one_pass(n, pairs):
    group = np.arange(n)
    for i, j in pairs:
        group[i] = group[j] = min(group[i], group[j])
    return group


def _last_link(n, pairs):
    group = np.arange(n)
    for i, j in pairs:
        group[j] = i
    return group


def _direct(n, pairs):
    group = np.arange(n)
    for i, j in pairs:
        group[i], group[j] = min(group[i], j), min(group[j], i)
    return group


def _largest(n, pairs):
    found = _groups_by_walking(n, pairs)
    return np.array([np.flatnonzero(found == g).max() for g in found])


check_groups = Check(
    name="groups",
    spec=_groups_by_walking,
    outputs=("group",),
    cases=_pairs_case,
    tolerance=1e-6,
    hint="three texts, and the pairs (1, 2) and (0, 1), in this order. Go through your code by "
    "hand: is text 2 in the group of text 0?",
    mistakes=(
        Mistake(
            _one_pass,
            "one pass over the pairs is not enough. If (1, 2) comes before (0, 1), text 2 does not "
            "hear of text 0. Go on until nothing changes.",
        ),
        Mistake(
            _direct,
            "each text knows its direct neighbors only. Neighbors of neighbors belong to the group "
            "as well.",
        ),
        Mistake(
            _last_link,
            "each pair overwrites what an earlier pair has said of the same text.",
        ),
        Mistake(
            lambda n, pairs: np.arange(n),
            "every text is a group of its own here. What do the pairs say?",
        ),
        Mistake(
            lambda n, pairs: np.unique(
                _groups_by_walking(n, pairs), return_inverse=True
            )[1],
            "the groups are right, and only their names are not: a group is named by the lowest "
            "number among its texts.",
        ),
        Mistake(
            _largest,
            "the groups are right, but named by their highest number. Take the lowest.",
        ),
        Mistake(
            lambda n, pairs: np.bincount(
                _groups_by_walking(n, pairs), minlength=n
            )[_groups_by_walking(n, pairs)],
            "these are the sizes of the groups. Asked for is the lowest number in each.",
        ),
    ),
)
