"""Checks of chapter 13, sentiment of movie reviews."""

from __future__ import annotations

import numpy as np

from tf_mamba_edu.checks.core import Check, Mistake, turn_of

# 1. Head and tail


def _pieces_case(rng):
    """In turn: too long for an odd length, for an even one, too short, as long as there is room."""
    kind = turn_of(rng) % 4
    length = 2 * int(rng.integers(3, 7)) + (kind == 0)
    n = (
        length + int(rng.integers(4, 9)),
        length + int(rng.integers(4, 9)),
        length - int(rng.integers(2, 4)),
        length,
    )[kind]
    return rng.permutation(np.arange(1, 60))[:n], length


def _one_text(pieces, length):
    """Place by place."""
    row = [0] * length
    for t in range(min(len(pieces), length)):
        late = len(pieces) > length and t >= length // 2
        row[t] = pieces[t + len(pieces) - length if late else t]
    return np.array(row)


def _shortened(
    pieces, length, cut=None, front=False, half=lambda n: n // 2
):
    """The solution, and by its options wrong ones."""
    if len(pieces) > length:
        h = half(length)
        pieces = (
            np.concatenate([pieces[:h], pieces[h - length :]])
            if cut is None
            else cut(pieces, length)
        )
    row = np.zeros(length, int)
    if front:
        row[length - len(pieces) :] = pieces
    else:
        row[: len(pieces)] = pieces
    return row


def _both_halves(pieces, length):
    """Twice the rounded half: one place stays empty if the length is odd."""
    h = length // 2
    return np.concatenate([pieces[:h], pieces[-h:]])


def _middle(pieces, length):
    start = (len(pieces) - length) // 2
    return pieces[start : start + length]


check_head_and_tail = Check(
    name="head_and_tail",
    spec=_one_text,
    outputs=("row",),
    cases=_pieces_case,
    tolerance=1e-6,
    hint="three cases: too long, too short, just right. For a length of 7, how many pieces come "
    "from the beginning, and how many from the end?",
    mistakes=(
        Mistake(
            lambda *case: _shortened(*case, cut=lambda p, n: p[:n]),
            "a long text is cut off at its end. Many reviews say there what they think: keep the "
            "last half as well.",
        ),
        Mistake(
            lambda *case: _shortened(*case, cut=lambda p, n: p[-n:]),
            "only the end of a long text is kept. Half of the places belong to its beginning.",
        ),
        Mistake(
            lambda *case: _shortened(*case, cut=_middle),
            "the middle of a long text is kept. It is the middle that should be left out.",
        ),
        Mistake(
            lambda *case: _shortened(*case, cut=_both_halves),
            "nearly: if `length` is odd, a place stays empty although there are pieces for it. The "
            "tail gets what the head leaves, `length - length // 2` pieces.",
        ),
        Mistake(
            lambda *case: _shortened(*case, half=lambda n: n - n // 2),
            "nearly: if `length` is odd, the piece in the middle goes to the tail, and not to the "
            "head.",
        ),
        Mistake(
            lambda *case: _shortened(*case, front=True),
            "the zeros stand in front of a short text. Put them behind.",
        ),
        Mistake(
            lambda pieces, length: _shortened(
                pieces,
                length,
                cut=lambda p, n: np.concatenate(
                    [p[n // 2 - n :], p[: n // 2]]
                ),
            ),
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


def _verdicts_case(rng):
    """Two classifiers that agree more often than by chance."""
    n = int(rng.integers(60, 90))
    hard = rng.random(n)
    one = (hard + 0.3 * rng.random(n) < 0.9).astype(int)
    other = (hard + 0.3 * rng.random(n) < 0.8).astype(int)
    one[:4], other[:4] = (1, 1, 0, 1), (0, 0, 1, 0)
    return one, other


def _difference_by_case(one, other):
    """From the numbers of texts on which the two differ."""
    n = len(one)
    b = sum(int(x > y) for x, y in zip(one, other, strict=True))
    c = sum(int(x < y) for x, y in zip(one, other, strict=True))
    d = (b - c) / n
    return d, np.sqrt(((b + c) / n - d**2) / n)


def _spread(d, power=0.5):
    return d.mean(), d.std() / len(d) ** power


def _separately(one, other, n=1):
    p, q = one.mean(), other.mean()
    return p - q, np.sqrt((p * (1 - p) + q * (1 - q)) / len(one) / n)


check_difference = Check(
    name="difference",
    spec=_difference_by_case,
    outputs=("apart", "error"),
    cases=_verdicts_case,
    tolerance=1e-4,
    hint="each text gives one number: 1, 0 or -1. What is the standard error of the mean of n "
    "numbers?",
    mistakes=(
        Mistake(
            _separately,
            "this is the error for two classifiers that were asked about *different* texts. On the "
            "same ones they are often right and wrong together: take the spread of the "
            "differences.",
        ),
        Mistake(
            lambda one, other: _spread(one - other, 0),
            "this is the spread of a single text. The mean of n of them is more certain by the "
            "square root of n.",
        ),
        Mistake(
            lambda one, other: _spread(one - other, 1),
            "the spread is divided by n. The error of a mean falls with the square root of n.",
        ),
        Mistake(
            lambda one, other: (
                _spread(one - other)[0],
                _spread(one - other)[1] ** 2,
            ),
            "this is the variance of the difference. Its root is in the unit of the shares.",
        ),
        Mistake(
            lambda one, other: _spread(other - one),
            "the error is right, and the sign is not: by how much is the first one better?",
        ),
        Mistake(
            lambda one, other: (
                _spread(one - other)[0],
                np.sqrt(np.mean(one != other) / len(one)) / 2,
            ),
            "half of it: the differences are 1 and -1, so the square of each is 1 and not 1/4.",
        ),
        Mistake(
            lambda one, other: _spread(np.abs(one - other)),
            "you take the absolute value, and count on how many texts the two differ. Texts that "
            "speak for the second one have to count as -1.",
        ),
        Mistake(
            lambda one, other: (
                _spread(one - other)[0],
                np.sqrt(one.mean() * (1 - one.mean()) / len(one)),
            ),
            "this is the error of the first share alone.",
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
    hint="one bin at a time: how many texts are in it, what was said in the mean, what was true in "
    "the mean? An empty bin says nothing.",
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
