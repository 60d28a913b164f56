"""The recurrence without a loop over time: scans for any associative operator.

A step h -> a h + b is a pair (a, b). Two steps in a row are one step again, and how steps are
grouped does not matter: that is all that a parallel scan needs.
"""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from tf_mamba_edu.scan.gradients import once

Elements = tuple[tf.Tensor, ...]
Operator = Callable[[Elements, Elements], Elements]


def combine(earlier: Elements, later: Elements) -> Elements:
    """Joins (a, b), then (a', b'), to (a' a, a' b + b').

    The operator of arXiv 2312.00752, section 3.3.2: h -> a h + b -> a' (a h + b) + b'.
    Associative, not commutative. O(1) for each pair of numbers.
    """
    a, b = earlier
    a_later, b_later = later
    return a_later * a, a_later * b + b_later


class Counted:
    """An operator that counts: `work` in pairs, `depth` in calls.

    All pairs of one call are independent of each other, so a machine with enough processors
    takes one unit of time for a call.

    Args:
        operator: joins elements along axis 0, all pairs at once.
    """

    def __init__(self, operator: Operator):
        self.operator = operator
        self.calls: list[tuple[Elements, Elements]] = []

    def __call__(self, earlier, later):
        self.calls.append((earlier, later))
        return self.operator(earlier, later)

    @property
    def depth(self) -> int:
        """Calls, one after the other."""
        return len(self.calls)

    @property
    def work(self) -> int:
        """Pairs of elements in all calls."""
        return sum(len(later[0]) for _, later in self.calls)


def step_by_step(operator: Operator, elements: Elements) -> Elements:
    """Scans in a loop: the oracle. Work L - 1, depth L - 1.

    Args:
        operator: joins elements along axis 0, all pairs at once; associative.
        elements: arrays (L, ...), at least one element long.

    Returns:
        Arrays (L, ...): at t, all elements up to t joined.

    Raises:
        ValueError: if L is 0 or unknown.
    """
    L, elements = as_elements(elements)
    found = [part(elements, 0, 1)]
    for t in range(1, L):
        found.append(operator(found[-1], part(elements, t, t + 1)))
    return joined(*found)


def hillis_steele(operator: Operator, elements: Elements) -> Elements:
    """Scans by doubling: k rounds join 2^k elements at each place.

    Hillis and Steele, 1986. Depth log2(L), rounded up; work about L log2(L).

    Args:
        operator: joins elements along axis 0, all pairs at once; associative.
        elements: arrays (L, ...), at least one element long.

    Returns:
        Arrays (L, ...): at t, all elements up to t joined.

    Raises:
        ValueError: if L is 0 or unknown.
    """
    L, elements = as_elements(elements)
    reach = 1
    while reach < L:
        done = part(elements, 0, reach)
        left, right = (
            part(elements, 0, L - reach),
            part(elements, reach, L),
        )
        elements = joined(done, operator(left, right))
        reach *= 2
    return elements


def blelloch(operator: Operator, elements: Elements) -> Elements:
    """Scans by halving: join pairs, scan these, fill in the rest.

    Blelloch, 1990, as a recursion: what is done on the way in is his up-sweep, what is done on
    the way out the down-sweep. It needs no identity, and L any number. Work below 2 L, depth
    below 2 log2(L).

    Args:
        operator: joins elements along axis 0, all pairs at once; associative.
        elements: arrays (L, ...), at least one element long.

    Returns:
        Arrays (L, ...): at t, all elements up to t joined.

    Raises:
        ValueError: if L is 0 or unknown.
    """
    L, elements = as_elements(elements)
    if L == 1:
        return elements
    even, odd = part(elements, 0, L, 2), part(elements, 1, L, 2)
    pairs = operator(part(even, 0, L // 2), odd)  # 0 and 1, 2 and 3 ...
    at_odd = blelloch(operator, pairs)  # all up to 1, up to 3 ...
    first, others = part(even, 0, 1), part(even, 1, (L + 1) // 2)
    if L > 2:
        before = part(at_odd, 0, (L - 1) // 2)
        first = joined(first, operator(before, others))
    return interleaved(first, at_odd)


def linear_recurrence(a, b, initial_state=None) -> tf.Tensor:
    """Computes h_t = a_t h_{t-1} + b_t for all t at once.

    With a gradient written by hand: with g_t the gradient in h_t, g_t = dh_t + a_{t+1} g_{t+1} is
    the same recurrence, run backward. O(L) work, O(log L) depth; where L is not known when the
    graph is built, by doubling, O(L log L) work.

    Args:
        a: (L, ...) multipliers.
        b: (L, ...) inputs, of the shape of a.
        initial_state: (...) state before the first step; zeros if None.

    Returns:
        (L, ...) states.
    """
    a, b = tf.convert_to_tensor(a), tf.convert_to_tensor(b)
    if initial_state is None:
        initial_state = tf.zeros_like(a[0])
    initial_state = tf.convert_to_tensor(initial_state, a.dtype)
    return _linear_recurrence(a, b, initial_state)


@tf.custom_gradient
def _linear_recurrence(a, b, initial_state):
    inputs = [tf.stop_gradient(t) for t in (a, b, initial_state)]
    h = states(*inputs)  # (L, ...)

    def gradient(dh):
        found = gradients(inputs[0], h, inputs[2], tf.stop_gradient(dh))
        return once(found, (a, b, initial_state, dh))

    return h, gradient


def states(a, b, initial_state):
    """The states (L, ...); the first input takes the initial one in."""
    first = b[:1] + a[:1] * initial_state
    b = tf.concat([first, b[1:]], axis=0)
    scan = doubling if a.shape[0] is None else blelloch
    return scan(combine, (a, b))[1]


def gradients(a, h, initial_state, dh):
    """Gradients of a, b, initial state from those of all states."""
    a, h, initial_state = (
        tf.math.conj(t) for t in (a, h, initial_state)
    )  # no change for real numbers
    following = tf.concat([a[1:], tf.zeros_like(a[:1])], axis=0)
    backward = [tf.reverse(t, [0]) for t in (following, dh)]
    g = states(*backward, tf.zeros_like(initial_state))
    g = tf.reverse(g, [0])  # (L, ...)
    previous = tf.concat([initial_state[None], h[:-1]], axis=0)
    return g * previous, g, a[0] * g[0]


def doubling(operator: Operator, elements: Elements) -> Elements:
    """`hillis_steele` of `combine` for an L that is known only when it runs.

    Instead of cutting, it rolls, and puts the identity (1, 0) where nothing comes before.
    """
    a, b = elements
    L = tf.shape(a)[0]
    place = tf.reshape(
        tf.range(L),
        tf.concat([[L], tf.ones(tf.rank(a) - 1, tf.int32)], 0),
    )

    def round_of(reach, a, b):
        here = place >= reach
        earlier = (
            tf.where(here, tf.roll(a, reach, 0), tf.ones_like(a)),
            tf.where(here, tf.roll(b, reach, 0), tf.zeros_like(b)),
        )
        return (reach * 2, *operator(earlier, (a, b)))

    shapes = tf.TensorShape([]), a.shape, b.shape
    _, a, b = tf.while_loop(
        lambda reach, *_: reach < L, round_of, (1, a, b), shapes
    )
    return a, b


def associative_scan(
    x: tf.Tensor,
    delta: tf.Tensor,
    A: tf.Tensor,
    B: tf.Tensor,
    C: tf.Tensor,
    initial_state: tf.Tensor,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Runs what `recurrent_scan` runs, as a parallel scan.

    O(B L D N) work in O(log L) depth; memory O(B L D N), several times: the steps are
    materialized, every A-bar and B-bar x is written down, and so are all states.

    Args:
        x: (B, L, D) input.
        delta: (B, L, D) step sizes, positive.
        A: (D, N) diagonal of the state matrix of each channel, negative.
        B: (B, L, N) input vectors.
        C: (B, L, N) output vectors.
        initial_state: (B, D, N) state before the first step.

    Returns:
        (y, last_state) of shapes (B, L, D) and (B, D, N).
    """
    x, delta, B, C = (
        tf.transpose(t, [1, 0, 2]) for t in (x, delta, B, C)
    )
    A_bar = tf.exp(delta[..., None] * A)  # (L, B, D, N)
    B_bar_x = (delta * x)[..., None] * B[:, :, None, :]  # (L, B, D, N)
    h = linear_recurrence(A_bar, B_bar_x, initial_state)  # (L, B, D, N)
    y = tf.einsum("lbdn,lbn->bld", h, C)  # (B, L, D)
    return y, h[-1]


def as_elements(elements) -> tuple[int, Elements]:
    """Elements as tensors, and how many there are."""
    elements = tuple(tf.convert_to_tensor(t) for t in elements)
    lengths = {t.shape[0] for t in elements}
    if len(lengths) != 1 or None in lengths or 0 in lengths:
        found = [t.shape for t in elements]
        raise ValueError(
            "`elements` must be arrays (L, ...) of one and the same known L, at least 1. "
            f"Received: shapes {found}"
        )
    return lengths.pop(), elements


def part(elements: Elements, start, stop, step=1) -> Elements:
    """The elements start, start + step ... before stop."""
    return tuple(t[start:stop:step] for t in elements)


def joined(*parts: Elements) -> Elements:
    """Parts behind one another."""
    return tuple(
        tf.concat(ts, axis=0) for ts in zip(*parts, strict=True)
    )


def interleaved(even: Elements, odd: Elements) -> Elements:
    """The first of even, the first of odd, the second of even and so on."""
    count = odd[0].shape[0]

    def zipped(e, o):
        rest = o.shape[1:]
        sizes = tf.concat([[2 * count], tf.shape(o)[1:]], axis=0)
        t = tf.reshape(tf.stack([e[:count], o], axis=1), sizes)
        return tf.ensure_shape(t, (2 * count, *rest))

    pairs = tuple(zipped(e, o) for e, o in zip(even, odd, strict=True))
    return joined(pairs, part(even, count, even[0].shape[0]))
