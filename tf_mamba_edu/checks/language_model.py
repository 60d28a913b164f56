"""Checks of chapter 10, the language model."""

from __future__ import annotations

import numpy as np

from tf_mamba_edu.checks.core import (
    Check,
    Mistake,
    SeesInfinity,
    _raw_result,
    counting,
    turn_of,
)

# One loss, three numbers


def _losses_case(rng):
    n = int(rng.integers(5, 12))
    losses = 0.1 + rng.gamma(3.0, 0.8, n)
    return losses, 1 + rng.permutation(n) % 6


def _bits(losses, characters):
    return np.sum(losses) / np.log(2) / np.sum(characters)


def _measures(
    losses,
    characters,
    nats=np.mean,
    bits=_bits,
    perplexity=lambda losses: np.exp(np.mean(losses)),
):
    """The three numbers and, by their parts, wrong ones."""
    return nats(losses), bits(losses, characters), perplexity(losses)


check_measures = Check(
    name="measures",
    spec=_measures,
    outputs=("nats", "bits", "perplexity"),
    cases=_losses_case,
    tolerance=1e-5,
    hint="what did the whole text cost, in nats? Divide it by its tokens, or by its characters. "
    "A bit is log 2 nats, and perplexity undoes the logarithm of the loss per token.",
    mistakes=(
        Mistake(
            lambda *case: _measures(
                *case, bits=lambda x, c: np.sum(x) / np.sum(c)
            ),
            "the rest is right. But bits is still in nats: one bit is log 2 = 0.69 nats, so there "
            "are more bits than nats.",
        ),
        Mistake(
            lambda *case: _measures(
                *case,
                bits=lambda x, c: np.sum(x) * np.log(2) / np.sum(c),
            ),
            "the rest is right. But bits is multiplied by log 2 and has to be divided by it: a "
            "bit is less than a nat, so it takes more of them.",
        ),
        Mistake(
            lambda *case: _measures(
                *case, bits=lambda x, c: np.mean(x / c) / np.log(2)
            ),
            "the rest is right. But bits is a mean of ratios, in which a token of one character "
            "counts as much as one of six. What does the whole text cost, and how long is it?",
        ),
        Mistake(
            lambda *case: _measures(
                *case, bits=lambda x, c: np.mean(x) / np.log(2)
            ),
            "the rest is right. But these are the bits of a token. A token stands for several "
            "characters.",
        ),
        Mistake(
            lambda *case: _measures(
                *case,
                bits=lambda x, c: np.average(x, weights=c) / np.log(2),
            ),
            "the rest is right. But in bits each loss is multiplied by the characters of its "
            "token. It is already the price of all of them together.",
        ),
        Mistake(
            lambda *case: _measures(
                *case, perplexity=lambda x: 2 ** np.mean(x)
            ),
            "the rest is right. But perplexity is 2 to the power of nats. The logarithm was the "
            "natural one, and so e undoes it: 2 belongs to bits.",
        ),
        Mistake(
            lambda losses, characters: _measures(
                losses,
                characters,
                perplexity=lambda x: 2 ** _bits(losses, characters),
            ),
            "the rest is right. But this is the perplexity of a *character*: among how many "
            "tokens is the model undecided?",
        ),
        Mistake(
            lambda *case: _measures(
                *case, perplexity=lambda x: np.mean(np.exp(x))
            ),
            "the rest is right. But perplexity is a mean of exponentials, in which one bad guess "
            "outweighs all good ones. First the mean loss, then the exponential.",
        ),
        Mistake(
            lambda *case: _measures(
                *case,
                nats=np.sum,
                perplexity=lambda x: np.exp(np.sum(x)),
            ),
            "bits is right. But nats and perplexity are those of the whole text: divide the sum "
            "of the losses by the number of tokens.",
        ),
    ),
)


# Break even


def _sizes_case(rng):
    return int(rng.integers(8, 65)), int(rng.integers(2, 8))


check_break_even = Check(
    name="break_even",
    spec=lambda N, K: 2 * (N + K - 1),
    outputs=("tokens",),
    cases=_sizes_case,
    tolerance=1e-6,
    hint="write down both counts for a Transformer of n layers, and so a Mamba of 2 n blocks, of "
    "width E. Put D = 2 E. Then set them equal: what cancels?",
    mistakes=(
        Mistake(
            lambda N, K: N + K - 1,
            "half of it. Either the Transformer got as many layers as Mamba has blocks (it has "
            "half as many), or a block got E channels (it has D = 2 E).",
        ),
        Mistake(
            lambda N, K: (N + K - 1) / 2,
            "a quarter of it: two factors of 2 are missing. There are two blocks for one layer, "
            "and D = 2 E channels in a block.",
        ),
        Mistake(
            lambda N, K: 4 * (N + K - 1),
            "twice too many. A Transformer keeps a key *and* a value for each token: 2 E numbers "
            "in each layer.",
        ),
        Mistake(
            lambda N, K: 2 * N,
            "the convolution is missing: it has K - 1 inputs of D channels to keep.",
        ),
        Mistake(
            lambda N, K: 2 * (N + K),
            "the convolution keeps K - 1 inputs, not K: the last of its K inputs is the present "
            "one.",
        ),
        Mistake(
            lambda N, K: 2 * N + K - 1,
            "the state is right. But the convolution works inside the block as well, on D "
            "channels, not on E.",
        ),
        Mistake(
            lambda N, K: 2 * (N + K - 1) + 1,
            "one too many: this is where the Transformer's cache is larger for the first time. "
            "When are both equal?",
        ),
    ),
)


# The nucleus


def _probability_case(rng):
    """The sum reaches p well within a token; in the second case within the first one."""
    turn, V = turn_of(rng) % 5, int(rng.integers(6, 10))
    probabilities = np.exp(rng.normal(size=V))
    probabilities /= np.sum(probabilities)
    count = 1 if turn == 1 else int(rng.integers(2, V - 1))
    ranked = np.sort(probabilities)[::-1]
    p = np.sum(ranked[: count - 1])
    return probabilities, float(
        p + rng.uniform(0.2, 0.8) * ranked[count - 1]
    )


def _by_hand(probabilities, p):
    """Takes one token after the other, always the likeliest that is left."""
    kept = np.zeros(len(probabilities))
    while np.sum(kept) < p:
        left = np.where(kept > 0, 0.0, probabilities)
        kept[np.argmax(left)] = np.max(left)
    return kept / np.sum(kept)


def _nucleus(
    probabilities,
    p,
    order=lambda q: np.argsort(-q),
    keep=lambda ranked, p: np.cumsum(ranked) - ranked < p,
    scaled=lambda kept, p: kept / np.sum(kept),
    back=True,
):
    """The solution and, by its parts, wrong ones; nan where nothing is kept."""
    tokens = order(probabilities)
    ranked = probabilities[tokens]
    kept = np.zeros(len(ranked))
    places = tokens if back else slice(None)
    kept[places] = np.where(keep(ranked, p), ranked, 0.0)
    with np.errstate(invalid="ignore"):
        return scaled(kept, p)


def _not_crossing(ranked, p):
    return np.cumsum(ranked) <= p


def _not_crossing_but_one(ranked, p):
    return (np.cumsum(ranked) <= p) | (np.arange(len(ranked)) == 0)


def _one_more(ranked, p):
    before = np.cumsum(ranked) - ranked
    return np.append(True, before[:-1] < p)


check_nucleus = SeesInfinity(
    name="nucleus",
    spec=_by_hand,
    outputs=("probabilities",),
    cases=_probability_case,
    tolerance=1e-5,
    hint="by hand, with 0.3, 0.1, 0.4, 0.2 and p = 0.6: which tokens are taken, in which order, "
    "until the sum reaches p? Then back to their places, and divided by their sum.",
    mistakes=(
        Mistake(
            lambda *case: _nucleus(*case, keep=_not_crossing),
            "the token that crosses p is left out, so that the sum stays below p; and where the "
            "likeliest token alone is above p, nothing at all is kept. The sum has to *reach* p.",
        ),
        Mistake(
            lambda *case: _nucleus(*case, keep=_not_crossing_but_one),
            "the token that crosses p is left out (unless it is the first). The tokens kept have "
            "to *reach* p: one belongs in as long as those before it are below p.",
        ),
        Mistake(
            lambda *case: _nucleus(*case, keep=_one_more),
            "one token too many: when the sum has reached p, it is enough.",
        ),
        Mistake(
            lambda *case: _nucleus(*case, scaled=lambda kept, p: kept),
            "the right tokens, but their probabilities do not add up to 1 any more: divide by "
            "their sum.",
        ),
        Mistake(
            lambda *case: _nucleus(
                *case, scaled=lambda kept, p: kept / p
            ),
            "the right tokens, divided by p. They reach p and mostly go beyond it: divide by what "
            "they really add up to.",
        ),
        Mistake(
            lambda *case: _nucleus(
                *case, keep=lambda ranked, p: ranked >= p
            ),
            "each probability by itself is compared with p, and mostly none is so large. It is "
            "their *sum*, from the likeliest on, that has to reach p.",
        ),
        Mistake(
            lambda *case: _nucleus(
                *case, order=lambda q: np.arange(len(q))
            ),
            "you add up in the order of the ids. A token's number says nothing: the likeliest "
            "come first, so sort.",
        ),
        Mistake(
            lambda *case: _nucleus(*case, order=np.argsort),
            "you begin with the *un*likeliest: np.argsort sorts upwards.",
        ),
        Mistake(
            lambda *case: _nucleus(*case, back=False),
            "the right numbers at wrong places: they are still sorted. Entry i has to be the "
            "probability of token i.",
        ),
    ),
)


# Toy models whose every score depends on all that was read, and on its order

TOO_OFTEN = "the model was asked 3,000 times: does your loop end?"


class _Toy:
    """A language model in a few lines. Its cache is a number that all tokens go into."""

    def __init__(self, rng, V):
        self.scores = 2 * rng.normal(size=(997, V))
        self.factor = int(rng.integers(100, 900))
        self.calls = 0

    def read(self, ids, cache=None):
        """Tokens (L,), from a cache on: logits (L, V) behind each, and the cache behind all."""
        self.calls += 1
        if self.calls > 3000:
            raise RuntimeError(TOO_OFTEN)
        if np.ndim(ids) != 1 or np.size(ids) == 0:
            raise ValueError(
                "a model reads tokens (L,), at least one. "
                f"Received: shape {np.shape(ids)}"
            )
        state, logits = 1 if cache is None else cache, []
        for token in np.asarray(ids):
            state = (self.factor * state + int(token) + 1) % 997
            logits.append(self.scores[state])
        return np.array(logits), state

    def prefill(self, ids):
        """As `read`, from the beginning: the last logits (V,) alone."""
        logits, cache = self.read(ids)
        return logits[-1], cache

    def step(self, token, cache):
        """One more token: logits (V,) and the cache behind it."""
        logits, cache = self.read([token], cache)
        return logits[0], cache


# A loop with two bugs


def _loop_case(rng):
    V = 13
    toy, L = _Toy(rng, V), int(rng.integers(2, 7))
    n = int(rng.integers(5, 9))
    return toy.prefill, toy.step, rng.integers(0, V, L), n


def _loop(
    prefill,
    step,
    prompt,
    n,
    twice=False,
    forgetful=False,
    before_last=False,
    lost=0,
):
    """The loop of the sheet, repaired and, by its parts, wrong."""
    logits, cache = prefill(prompt[:-1] if before_last else prompt)
    if twice or before_last:
        logits, after = step(prompt[-1], cache)
        cache = cache if forgetful else after
    text = []
    for _ in range(n + lost):
        text.append(np.argmax(logits))
        logits, after = step(text[-1], cache)
        cache = cache if forgetful else after
    return np.array(text[lost:])


def _read_for_text(answer, cases) -> str | None:
    """What to say if more tokens are read than a text needs."""
    for prefill, step, prompt, n in cases:
        prefill, at_once = counting(prefill, lambda ids: np.size(ids))
        step, singly = counting(step, lambda token, cache: 1)
        _raw_result(answer, (prefill, step, prompt, n))
        count, enough = sum(at_once) + sum(singly), len(prompt) + n
        if count > enough + 1:
            return (
                f"the text is right, but {count} tokens are read for a prompt of {len(prompt)} "
                f"and {n} new ones: the same again and again. {enough} are enough, if each "
                "step goes on from the cache of the one before."
            )
    return None


check_write = Check(
    name="write",
    spec=_loop,
    outputs=("text",),
    cases=_loop_case,
    tolerance=1e-6,
    cost=_read_for_text,
    hint="follow the prompt 1 2 by hand, in the model that adds up. What is the total after the "
    "prefill, and which token do its logits ask for? And which total does the next step get?",
    mistakes=(
        Mistake(
            lambda *case: _loop(*case, twice=True, forgetful=True),
            "both bugs are still there. One is in how the loop begins, the other in what it hands "
            "on.",
        ),
        Mistake(
            lambda *case: _loop(*case, twice=True),
            "the cache is handed on now. But the model still reads the last token of the prompt "
            "twice: the prefill has read it, and the logits behind it are there already.",
        ),
        Mistake(
            lambda *case: _loop(*case, forgetful=True),
            "the loop begins well now. But the cache that step returns is still thrown away: "
            "every step goes on from the end of the prompt, and knows of one new token only.",
        ),
        Mistake(
            lambda *case: _loop(
                *case, before_last=True, forgetful=True
            ),
            "the last token of the prompt is read once now, by the first step. But the cache that "
            "step returns is still thrown away, and with it this token and all new ones.",
        ),
        Mistake(
            lambda *case: _loop(*case, lost=1),
            "all right but for the start: the first new token, the one that the prefill's logits "
            "ask for, is read and never kept.",
        ),
        Mistake(
            lambda *case: _loop(*case, lost=1, forgetful=True),
            "the first new token, the one that the prefill's logits ask for, is read and never "
            "kept; and the cache that step returns is still thrown away.",
        ),
        Mistake(
            lambda prefill, step, prompt, n: np.append(
                prompt, _loop(prefill, step, prompt, n)
            ),
            "the text is right, but the prompt stands in front of it. Return the n new tokens "
            "alone.",
        ),
    ),
)


# The learning rate by hand


def _rate_case(rng):
    """In turn: as it rises, soon after, near the end, after the end, at the top."""
    turn, warmup = turn_of(rng) % 5, int(rng.integers(10, 40))
    rest = int(rng.integers(100, 400))
    share = rng.uniform(
        *((0.3, 0.8), (0.2, 0.4), (0.6, 0.9), (1.2, 1.6), (0, 0))[turn]
    )
    step = (
        int(share * warmup) if turn == 0 else warmup + int(share * rest)
    )
    peak, final = rng.uniform(1e-3, 1e-2), rng.uniform(0.02, 0.2)
    return step, warmup + rest, warmup, float(peak), float(final)


def _after_warmup(step, steps, warmup):
    return (step - warmup) / (steps - warmup)


def _half_cosine(share):
    return (1 + np.cos(np.pi * share)) / 2


def _from_final(height, final_fraction):
    return final_fraction + (1 - final_fraction) * height


def _rate(
    step,
    steps,
    warmup,
    peak,
    final_fraction,
    rise=lambda step, warmup: step / warmup,
    at_top=0,
    share=_after_warmup,
    most=1.0,
    wave=_half_cosine,
    height=_from_final,
):
    """The schedule and, by its parts, wrong ones."""
    if step < warmup + at_top:
        return peak * rise(step, warmup)
    fallen = wave(min(share(step, steps, warmup), most))
    return peak * height(fallen, final_fraction)


check_rate = Check(
    name="rate",
    spec=_rate,
    outputs=("rate",),
    cases=_rate_case,
    tolerance=1e-4,
    hint="which share of the way from step warmup to step steps is done, from 0 to 1? A height "
    "that falls from 1 to 0 along half a cosine is (1 + cos(pi share)) / 2. What does a height of "
    "0 stand for, and what a height of 1?",
    mistakes=(
        Mistake(
            lambda step, steps, warmup, peak, final: _rate(
                step, steps, 0, peak, final
            ),
            "there is no warm-up: the cosine begins at step 0, with the whole rate.",
        ),
        Mistake(
            lambda *case: _rate(
                *case, share=lambda step, steps, warmup: step / steps
            ),
            "the warm-up is right. But the cosine runs over all steps, and a piece of it is over "
            "when the warm-up is: there the rate jumps down. It has to begin at step warmup.",
        ),
        Mistake(
            lambda *case: _rate(
                *case,
                share=lambda step, steps, warmup: (
                    (step - warmup) / steps
                ),
            ),
            "the cosine begins where it should and ends too late: only steps - warmup steps are "
            "left for it.",
        ),
        Mistake(
            lambda *case: _rate(
                *case, wave=lambda u: (1 + np.cos(2 * np.pi * u)) / 2
            ),
            "a *whole* cosine: the rate falls, and in the second half it rises to the peak again. "
            "Half of one, up to pi, goes down only.",
        ),
        Mistake(
            lambda *case: _rate(
                *case, wave=lambda u: np.cos(np.pi * u / 2)
            ),
            "a quarter of a cosine, up to pi / 2, falls steepest at the end. Half of one, from 1 "
            "to -1, is gentle at both ends; (1 + it) / 2 goes from 1 to 0.",
        ),
        Mistake(
            lambda *case: _rate(*case, wave=lambda u: 1 - u),
            "it falls in a straight line, where half a cosine was asked for.",
        ),
        Mistake(
            lambda *case: _rate(
                *case, wave=lambda u: 1 + np.cos(np.pi * u)
            ),
            "after the warm-up it jumps to nearly twice the peak: 1 + cos goes from 2 to 0, so "
            "halve it.",
        ),
        Mistake(
            lambda *case: _rate(*case, height=lambda h, final: h),
            "it falls to 0. The last rate is final_fraction times the peak.",
        ),
        Mistake(
            lambda *case: _rate(*case, height=np.maximum),
            "it falls as if to 0 and is cut off at final_fraction, with a kink. The whole cosine "
            "has to be squeezed in between final_fraction and 1.",
        ),
        Mistake(
            lambda *case: _rate(
                *case, height=lambda h, final: final + h
            ),
            "final_fraction is added on top, so that it starts above the peak. The cosine falls "
            "by 1 - final_fraction only.",
        ),
        Mistake(
            lambda *case: _rate(*case, most=np.inf),
            "right up to the last step. But after it the rate rises again, since the cosine does: "
            "the share of the way is 1 at most.",
        ),
        Mistake(
            lambda *case: _rate(
                *case, rise=lambda step, warmup: (step + 1) / warmup
            ),
            "the warm-up is one step early: it should be 0 at step 0, and reach the peak at step "
            "warmup.",
        ),
        Mistake(
            lambda *case: _rate(
                *case,
                rise=lambda step, warmup: step / (warmup + 1),
                at_top=1,
            ),
            "the warm-up is one step late: at step warmup the peak has to be reached already.",
        ),
    ),
)


# Which continuation is likeliest


def _rank_case(rng):
    """In the second and the last case the candidates have one token each."""
    V, k = 9, (3, 1, 2, 4, 1)[turn_of(rng) % 5]
    c, L = int(rng.integers(3, 6)), int(rng.integers(8, 13))
    toy = _Toy(rng, V)
    prompt = rng.integers(0, V, L)
    return toy.read, prompt, rng.integers(0, V, (c, k))


def _log_softmax(logits):
    largest = np.max(logits, axis=-1, keepdims=True)
    total = np.sum(np.exp(logits - largest), axis=-1, keepdims=True)
    return logits - largest - np.log(total)


def _sum(log_p, candidate):
    """The entry of each token in the row that judges it, added up."""
    return sum(row[i] for row, i in zip(log_p, candidate, strict=True))


def _more(prefill, candidate, cache):
    """Logits behind all but the last token of a candidate, (k - 1, V), and the cache."""
    if len(candidate) == 1:
        return [], cache
    logits, cache = prefill(candidate[:-1], cache)
    return list(logits), cache


def _ranked(
    prefill,
    prompt,
    candidates,
    normalized=_log_softmax,
    score=_sum,
    cached=True,
    next_from="prompt",
    next_judge="prompt",
):
    """The solution and, by its parts, wrong ones."""
    logits, cache = prefill(prompt, None)
    judge, scores = logits[-1], []
    for candidate in candidates:
        more, after = _more(
            prefill, candidate, cache if cached else None
        )
        rows = normalized(np.array([judge, *more]))  # (k, V)
        scores.append(score(rows, candidate))
        cache = cache if next_from == "prompt" else after
        if next_judge != "prompt" and more:
            judge = more[-1]
    return np.array(scores)


def _reading_all(prefill, prompt, candidates, first=lambda n: n - 1):
    """Reads prompt and candidate anew for each candidate."""
    scores = []
    for candidate in candidates:
        logits, _ = prefill(np.append(prompt, candidate), None)
        start = first(len(prompt))
        rows = _log_softmax(logits)[start : start + len(candidate)]
        scores.append(_sum(rows, candidate))
    return np.array(scores)


def _reading_last(prefill, prompt, candidates, going_on=False):
    """Reads each candidate whole."""
    logits, cache = prefill(prompt, None)
    scores = []
    for candidate in candidates:
        more, after = prefill(candidate, cache)
        rows = _log_softmax(np.array([logits[-1], *more[:-1]]))
        scores.append(_sum(rows, candidate))
        if going_on:
            logits, cache = more, after
    return np.array(scores)


def _first_left_out(rows, candidate):
    return _sum(rows[1:], candidate[1:])


def _all_by_the_prompt(prefill, prompt, candidates):
    log_p = _log_softmax(prefill(prompt, None)[0][-1])
    return np.sum(log_p[candidates], axis=-1)


PROMPT_AGAIN = (
    "the values are right, but the prompt is read again for each candidate. Read it once: its "
    "cache, and the logits behind its last token, serve all of them."
)
LAST_READ = (
    "the values are right, but the last token of each candidate is read as well, and nobody asks "
    "for the logits behind it. Only k - 1 of its tokens have to be read, which for k = 1 is none."
)


def _read_for_scores(answer, cases) -> str | None:
    """What to say if more tokens are read than the scores need."""
    for prefill, prompt, candidates in cases:
        counted, counts = counting(
            prefill, lambda ids, cache=None: np.size(ids)
        )
        _raw_result(answer, (counted, prompt, candidates))
        count, n, (c, k) = sum(counts), len(prompt), candidates.shape
        enough = n + c * (k - 1)
        if count >= enough + n * (c - 1):
            return PROMPT_AGAIN
        if count == enough + c:
            return LAST_READ
        if count > enough:
            return (
                f"the values are right, but {count} tokens are read, for a prompt of {n} and "
                f"{c} candidates of {k}. It can be done with {enough}."
            )
    return None


check_rank = Check(
    name="rank",
    spec=_ranked,
    outputs=("scores",),
    cases=_rank_case,
    tolerance=1e-5,
    cost=_read_for_scores,
    hint="for one candidate, make a list of its tokens and write beside each: behind which token "
    "do the logits stand that judge it? The first of them was read in the prompt. And a candidate "
    "of one token?",
    mistakes=(
        Mistake(
            lambda *case: _ranked(*case, normalized=lambda rows: rows),
            "you add up logits. They are scores, with any constant on top: only log-softmax makes "
            "log-probabilities of them.",
        ),
        Mistake(
            lambda *case: _reading_all(*case, first=lambda n: n),
            "each token is judged by the logits *behind* it, which ask for the token after it. "
            "The first is judged by the prompt's last logits, and so on: one place earlier.",
        ),
        Mistake(
            lambda *case: _ranked(*case, score=_first_left_out),
            "the first token of each candidate is not judged. The prompt's last logits ask for "
            "it.",
        ),
        Mistake(
            _all_by_the_prompt,
            "all tokens of a candidate are judged by the prompt's last logits, as if each came "
            "first. After its first token the model expects something else: read on.",
        ),
        Mistake(
            lambda *case: _ranked(*case, cached=False),
            "the candidates are read without the cache, as if nothing stood before them.",
        ),
        Mistake(
            lambda *case: _ranked(
                *case, next_from="here", next_judge="here"
            ),
            "the first candidate is right. Each later one goes on from where the one before "
            "ended: logits and cache of the prompt have been overwritten in the loop.",
        ),
        Mistake(
            lambda *case: _reading_last(*case, going_on=True),
            "the first candidate is right. Each later one is read as if those before it stood in "
            "the text: logits and cache of the prompt have been overwritten in the loop.",
        ),
        Mistake(
            lambda *case: _ranked(*case, next_from="here"),
            "the first candidate is right. But the later ones go on from the cache of the one "
            "before: the cache of the prompt has been overwritten in the loop.",
        ),
        Mistake(
            lambda *case: _ranked(*case, next_judge="here"),
            "the first candidate is right. But the first token of a later one is judged by logits "
            "of the candidate before it: those of the prompt have been overwritten in the loop.",
        ),
        Mistake(
            lambda *case: _ranked(*case) / case[2].shape[1],
            "this is a mean over the tokens. The log-probability of a candidate is the *sum*: the "
            "probabilities multiply.",
        ),
        Mistake(
            lambda *case: np.exp(_ranked(*case)),
            "these are probabilities. Return their logarithms: a long candidate's probability is "
            "too small for a float.",
        ),
        Mistake(
            lambda *case: -_ranked(*case),
            "the sign: this is the loss. The logarithm of a probability is negative, and the "
            "likeliest candidate has the largest.",
        ),
        Mistake(_reading_all, PROMPT_AGAIN),
        Mistake(_reading_last, LAST_READ),
    ),
)
