"""Checks of chapter 11, real checkpoints."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import ml_dtypes
import numpy as np

from tf_mamba_edu.checks.core import (
    Check,
    Mistake,
    NotYet,
    _raw_result,
    turn_of,
)


@dataclass(frozen=True)
class _DictCheck(Check):
    """A check of a function that returns dictionaries, and may change those that it gets.

    Attributes:
        flat: makes arrays of what such a function returns, and hands on all else.
        form: how several things should be returned.
        stops: parts of an error's text, and what to say if the code stops with such an error.
    """

    flat: Callable | None = None
    form: str = "as a tuple"
    stops: Sequence[tuple[str, str]] = ()

    def _problem(self, answer) -> str | None:
        if not callable(answer):
            return super()._problem(answer)

        def flattened(*arguments):
            return self.flat(answer(*copy.deepcopy(arguments)))

        try:
            return super()._problem(flattened)
        except NotYet as error:
            said = str(error)
        if said.startswith("your code stopped with"):
            for part, better in self.stops:
                if part in said:
                    return better
        return said.replace("as a tuple", self.form)


# How many arrays


def _counting_case(rng):
    """All three choices both ways, in every five cases."""
    turn = turn_of(rng) % 5
    choices = ("cbt", "c", "bt", "", "cb")[turn]
    return int(rng.integers(2, 65)), *(c in choices for c in "cbt")


def _count(
    n_layers,
    conv_bias,
    bias,
    tied,
    block=9,
    of_bias=2,
    outside=2,
    delta_bias=True,
    head=lambda tied: not tied,
):
    """In a block: norm, four projections, the kernel, the bias of Delta, A_log, D."""
    block += conv_bias + of_bias * bias - (not delta_bias)
    return n_layers * block + outside + head(tied)


check_count_tensors = Check(
    name="count_tensors",
    spec=_count,
    outputs=("count",),
    cases=_counting_case,
    tolerance=1e-6,
    hint="list the arrays of one block on paper, from its norm to out_proj, and write behind each "
    "whether it depends on a choice. Then what stands outside of the blocks.",
    mistakes=(
        Mistake(
            lambda n, conv_bias, bias, tied: _count(
                n, conv_bias, bias, tied, delta_bias=bias
            ),
            "dt_proj has a bias in every case, also where the config says no bias: it is the bias "
            "of Delta, which sets the memories of the channels.",
        ),
        Mistake(
            lambda *case: _count(*case, head=lambda tied: 1),
            "you always count a head. A tied head *is* the embedding: one array serves both, and "
            "is stored once.",
        ),
        Mistake(
            lambda *case: _count(*case, outside=1),
            "one too few: behind the last block stands one more norm, norm_f.",
        ),
        Mistake(
            lambda n, conv_bias, bias, tied: _count(
                n, True, bias, tied
            ),
            "you count the bias of the convolution also where the config says that it has none.",
        ),
        Mistake(
            lambda *case: _count(*case, of_bias=1),
            "with `bias`, two projections of a block get one: in_proj and out_proj. You add one.",
        ),
        Mistake(
            lambda *case: _count(*case, of_bias=3),
            "with `bias`, two projections of a block get one: in_proj and out_proj. x_proj never "
            "has one, and the bias of dt_proj is there anyway.",
        ),
        Mistake(
            lambda *case: _count(*case, block=8),
            "one too few in each block. Is the norm in front of in_proj among them? And the "
            "bias of dt_proj, which is there whatever `bias` says?",
        ),
        Mistake(
            lambda *case: _count(*case, block=7),
            "two too few in each block. A_log and D belong to no projection, and are learned and "
            "stored as well.",
        ),
    ),
)


# A file of numbers

NAMES = "norm.weight", "mixer.A_log", "mixer.conv1d.weight"


def _file_case(rng):
    """Three arrays of two kinds; the header names them in another order than they lie in."""
    D, E, N, K = (
        int(n) for n in rng.integers((3, 2, 2, 3), (6, 6, 5, 5))
    )
    shapes = dict(zip(NAMES, ((E,), (D, N), (D, 1, K)), strict=True))
    halves = rng.permutation(NAMES)[: rng.integers(1, 3)]
    order = list(rng.permutation(NAMES))
    places, numbers = {}, b""
    for name in order:
        eighths = rng.integers(1, 33, shapes[name])
        signs = rng.choice([-1, 1], shapes[name])
        bits = (signs * eighths / 8).astype("<f4").view("<u4")
        half = name in halves
        raw = ((bits >> 16).astype("<u2") if half else bits).tobytes()
        places[name] = {
            "dtype": "BF16" if half else "F32",
            "shape": list(shapes[name]),
            "data_offsets": [len(numbers), len(numbers) + len(raw)],
        }
        numbers += raw
    header = {name: places[name] for name in (*order[1:], order[0])}
    remark = {"__metadata__": {"format": "pt"}}
    if turn_of(rng) % 2:
        header = header | remark
    else:
        header = remark | header
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return (len(text).to_bytes(8, "little") + text + numbers,)


def _read(
    data,
    begin=lambda length: 8 + length,
    widened=lambda bits: (bits.astype("<u4") << 16).view("<f4"),
    shaped=True,
    in_turn=False,
):
    """All arrays of a file and, by its parts, wrong ones."""
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    header.pop("__metadata__", None)
    found, last = {}, 0
    for name, entry in header.items():
        start, end = entry["data_offsets"]
        if in_turn:
            start, end = last, last + end - start
            last = end
        raw = data[begin(length) + start : begin(length) + end]
        if entry["dtype"] == "BF16":
            numbers = widened(np.frombuffer(raw, "<u2"))
        else:
            numbers = np.frombuffer(raw, "<f4")
        found[name] = numbers.reshape(entry["shape"] if shaped else -1)
    return tuple(found[name] for name in NAMES)


def _by_name(result):
    if not isinstance(result, dict):
        return result
    return tuple(result.get(name) for name in NAMES)


HEADER = (
    "what you take for the header is no JSON. It begins behind the first eight bytes and is as "
    'long as these say; they are a whole number with the smallest byte first, "little".'
)
REMARK = (
    'you take "__metadata__" for an array. It is a remark, with no kind, no shape and no place: '
    "leave it out."
)
PLACES = (
    "you cut out more or fewer bytes than an array of that shape has. data_offsets are the first "
    "byte and the one behind the last; and an F32 has four bytes, a BF16 two."
)

check_read_tensors = _DictCheck(
    name="read_tensors",
    spec=_read,
    outputs=NAMES,
    cases=_file_case,
    tolerance=1e-6,
    flat=_by_name,
    form="in a dictionary",
    stops=(
        ("JSONDecodeError", HEADER),
        ("UnicodeDecodeError", HEADER),
        ("OverflowError", HEADER),
        ("KeyError: 'data_offsets'", REMARK),
        ("KeyError: 'shape'", REMARK),
        ("KeyError: 'dtype'", REMARK),
        ("cannot reshape array", PLACES),
        ("multiple of element size", PLACES),
    ),
    hint="return a dictionary. In the file come eight bytes, the header, the numbers: where do the "
    "numbers begin? All offsets count from there. Then F32 first, and BF16 when that is right.",
    mistakes=(
        Mistake(
            lambda data: _read(data, begin=lambda length: 0),
            "your numbers are made of the text of the header: the offsets count from the end of "
            "the header, not from the start of the file.",
        ),
        Mistake(
            lambda data: _read(data, begin=lambda length: length),
            "everything is read eight bytes too early: the length is that of the header alone, and "
            "the eight bytes in front of it are not in it.",
        ),
        Mistake(
            lambda data: _read(data, shaped=False),
            "the numbers are right, but lie in one row. The header has the shape of each array.",
        ),
        Mistake(
            lambda data: _read(data, in_turn=True),
            "you read one array after the other, in the order of the header. They may lie in any "
            "order: go to data_offsets.",
        ),
        Mistake(
            lambda data: _read(
                data, widened=lambda bits: bits.view("<f2")
            ),
            "F32 is right. But you take BF16 for float16. Both have 16 bits, and divide them "
            "differently: BF16 is the upper half of a float32.",
        ),
        Mistake(
            lambda data: _read(data, widened=lambda bits: bits),
            "F32 is right. But the BF16 are whole numbers still. These are bits: put them into "
            "the upper half of 32, and look at those as a float32 (view, not astype).",
        ),
        Mistake(
            lambda data: _read(
                data,
                widened=lambda bits: bits.astype("<u4").view("<f4"),
            ),
            "F32 is right. But of each BF16 you fill the *lower* half of a float32, and nearly 0 "
            "comes out. Move the bits up by 16 places.",
        ),
    ),
)


# A converter with two bugs


def _block_case(rng):
    """Sizes for which a reshape and a transpose differ."""
    E, N, K = (int(n) for n in rng.integers((2, 2, 3), (6, 5, 5)))
    D = 2 * E
    return (
        rng.normal(size=(2 * D, E)) + 0.5,
        rng.normal(size=(D, 1, K)) + 0.5,
        rng.normal(size=(D, N)),
        rng.normal(size=(E, D)) + 0.5,
    )


def _reshaped(W):
    return W.reshape(W.shape[::-1])


def _converted(
    in_proj,
    conv,
    A_log,
    out_proj,
    into=np.transpose,
    out_of=None,
    taps=lambda w: w[:, 0].T,
    A=lambda A_log: -np.exp(A_log),
    halves=lambda W: W,
):
    return (
        halves(into(in_proj)),
        taps(conv),
        A(A_log),
        (out_of or into)(out_proj),
    )


def _turned(w):
    return w[:, 0, ::-1].T


check_convert = Check(
    name="convert",
    spec=_converted,
    outputs=("in_proj", "conv", "A", "out_proj"),
    cases=_block_case,
    tolerance=1e-6,
    hint="no shape is wrong, so look at numbers. Which place has the weight from input 0 to output "
    "1, in a Linear and in a Dense? And which tap meets the present input, there and here?",
    mistakes=(
        Mistake(
            lambda *case: _converted(
                *case, into=_reshaped, taps=_turned
            ),
            "both bugs are still there. One is in the projections, the other in the convolution.",
        ),
        Mistake(
            lambda *case: _converted(*case, into=_reshaped),
            "conv is right now. But the projections are still reshaped. That cuts the same row of "
            "numbers into other pieces; nothing changes places. Rows must become columns.",
        ),
        Mistake(
            lambda *case: _converted(*case, taps=_turned),
            "the projections are right now. But the taps still come in reverse, as if the two "
            "frameworks disagreed about time. In both the last tap meets the present input.",
        ),
        Mistake(
            lambda *case: _converted(*case, out_of=_reshaped),
            "in_proj and conv are right now. But out_proj is still reshaped where it should be "
            "transposed.",
        ),
        Mistake(
            lambda *case: _converted(
                *case, taps=lambda w: w.reshape(w.shape[2], -1)
            ),
            "the projections are right now. But conv is reshaped, so that the taps of one channel "
            "are dealt out to several: the first bug once more, in another place.",
        ),
        Mistake(
            lambda *case: _converted(*case, A=np.exp),
            "both bugs are gone. But A has become positive: its minus was right, and without it "
            "every state blows up.",
        ),
        Mistake(
            lambda *case: _converted(*case, A=lambda A_log: A_log),
            "both bugs are gone. But A is the logarithm still. It was right before.",
        ),
        Mistake(
            lambda *case: _converted(
                *case,
                halves=lambda W: np.roll(W, W.shape[1] // 2, axis=1),
            ),
            "both bugs are gone. But x and z, the two halves of in_proj, have changed places. They "
            "come in the same order in both.",
        ),
    ),
)


# bfloat16


def _bits_case(rng):
    """Ties above even and odd numbers of both signs, what lies beside them, and a carry."""
    upper = rng.uniform(1.0, 4.0, 16).astype(np.float32)
    upper *= np.tile([1, 1, -1, -1], 4).astype(np.float32)
    lower = [0x8000] * 4 + [0x7FFF, 0x8001] * 2 + [0x4000, 0xC000] * 2
    lower = np.append(lower, rng.integers(1, 0x7FFF, 4)).astype(
        np.uint32
    )
    lower[12::2] += 0x8000
    parity = np.tile([0, 1], 8).astype(np.uint32) << 16
    bits = (upper.view(np.uint32) & 0xFFFE0000) + parity + lower
    bits = np.append(bits, np.uint32(0x3FFFF000))  # just below 2
    size = (1.0, 2.0**-30, 2.0**12)[turn_of(rng) % 3]
    x = bits.astype(np.uint32).view(np.float32) * np.float32(size)
    return (rng.permutation(x),)


def _to_bfloat16(x):
    return x.astype(ml_dtypes.bfloat16).astype(np.float32)


def _by_bits(x, add, dropped=16):
    bits = x.view(np.uint32)
    last = bits >> dropped & 1  # of the bits that stay
    return (bits + add(last)) >> dropped << dropped


def _floats(add, dropped=16):
    return lambda x: _by_bits(x, add, dropped).view(np.float32)


check_to_bfloat16 = Check(
    name="to_bfloat16",
    spec=_to_bfloat16,
    outputs=("y",),
    cases=_bits_case,
    tolerance=1e-6,
    hint="first cut off: view as np.uint32, set the lower 16 bits to 0, view as np.float32. Then "
    "ask what has to be added to the bits before, so that the cut rounds.",
    mistakes=(
        Mistake(
            _floats(lambda last: 0),
            "you cut off what is too much: every number moves towards 0, by up to a whole step. "
            "Go to the *nearest* one.",
        ),
        Mistake(
            _floats(lambda last: 0x8000),
            "nearly: only numbers in the middle between two are wrong. You always take them away "
            "from 0; the rule is to the neighbor whose last bit is 0.",
        ),
        Mistake(
            _floats(lambda last: 0x7FFF),
            "nearly: only numbers in the middle between two are wrong. You always take them "
            "towards 0; the rule is to the neighbor whose last bit is 0.",
        ),
        Mistake(
            _floats(lambda last: 0x8000 - last),
            "nearly: numbers in the middle between two go to the neighbor whose last bit is 1. It "
            "should be the other one.",
        ),
        Mistake(
            _floats(lambda last: 0xFFFF),
            "whatever is not a bfloat16 already goes away from 0, however near the other neighbor "
            "is.",
        ),
        Mistake(
            _floats(lambda last: 0x3FFF + last, dropped=15),
            "your numbers keep 8 bits behind the point. bfloat16 has 7: with the 1 in front, which "
            "is not stored, these are its 8 bits of precision.",
        ),
        Mistake(
            lambda x: x.astype(np.float16).astype(np.float32),
            "this is float16: 10 bits behind the point, and nothing left of what is smaller than "
            "6e-8. bfloat16 has the range of float32, and only 7 bits.",
        ),
        Mistake(
            lambda x: _by_bits(x, lambda last: 0x7FFF + last),
            "the bits are right. But you return them as whole numbers: look at them as np.float32 "
            "again, by view.",
        ),
        Mistake(
            lambda x: _by_bits(x, lambda last: 0x7FFF + last) >> 16,
            "these are the 16 bits that a file would hold, as whole numbers. They are the right "
            "ones: move them up again by 16 places, and look at them as np.float32, by view.",
        ),
    ),
)


# Where two models part


def _states_case(rng):
    """Each way to look at a difference finds another block first; or all blocks agree."""
    tolerance = 10 ** rng.uniform(-4.0, -2.0)
    if turn_of(rng) % 5 == 3:
        kinds = ["same"] * int(rng.integers(4, 9))
    else:
        early = rng.permutation(["tiny element", "large", "negative"])
        late = ["upward", "everywhere", "large everywhere", "upward"]
        kinds = [*early, "downward", "same", *late]
        for _ in range(int(rng.integers(0, 4))):
            kinds.insert(int(rng.integers(0, len(kinds))), "same")
        at = kinds.index("downward") + 1
        kinds.insert(at, "same")  # so that one block later is another
    pairs = [_states(rng, kind, tolerance) for kind in kinds]
    ours, theirs = (np.stack(part) for part in zip(*pairs, strict=True))
    return ours, theirs, tolerance


def _states(rng, kind, tolerance):
    """Hidden states (4, 5) of one block, ours and theirs."""
    size = (
        40.0 if "large" in kind else 0.2 if kind == "downward" else 1.0
    )
    theirs = rng.uniform(0.5, 0.9, 20) * rng.choice([-1, 1], 20)
    error = rng.uniform(-0.2, 0.2, 20)  # in units of the tolerance
    a, b = rng.choice(20, 2, replace=False)
    theirs[a] = 1.0
    if kind == "tiny element":
        theirs[b], error[b] = 1e-3, 0.1
    elif kind == "negative":
        theirs = -np.abs(theirs)
        theirs[b], error[a], error[b] = 0.3, 0.6, 0.0
    elif kind == "large":
        error[a] = 0.3
    elif kind == "downward":
        error[a] = -2.0
    elif kind == "upward":
        error[a] = 2.5
    elif "everywhere" in kind:
        error = rng.choice([-4.0, 4.0], 20)
        error[a] = 4.0
    ours = theirs + tolerance * error
    return size * ours.reshape(4, 5), size * theirs.reshape(4, 5)


def _first(
    ours,
    theirs,
    tolerance,
    error=lambda h, other: np.max(np.abs(h - other)),
    size=lambda other: np.max(np.abs(other)),
    which=0,
    shift=0,
    none=None,
):
    """The first block whose error is above the tolerance times its size; wrong ones by parts."""
    over = [
        i
        for i, (h, other) in enumerate(zip(ours, theirs, strict=True))
        if error(h, other) > tolerance * size(other)
    ]
    if over:
        return over[which] + shift
    return len(ours) if none is None else none


def _of_the_largest(ours, theirs, tolerance):
    largest = np.max(np.abs(theirs))
    return _first(ours, theirs, tolerance, size=lambda other: largest)


check_first_difference = Check(
    name="first_difference",
    spec=_first,
    outputs=("index",),
    cases=_states_case,
    tolerance=1e-6,
    hint="one block: what is its largest difference, without a sign? What is the largest number "
    "that the reference has there, without a sign? If nothing differs, the number of blocks.",
    mistakes=(
        Mistake(
            lambda *case: _first(*case, size=lambda other: 1.0),
            "you compare with the tolerance as it is. Where the states are as large as 40 the last "
            "digit of a float32 is larger, too: measure relative to the largest of theirs.",
        ),
        Mistake(
            lambda *case: _first(
                *case, error=lambda h, other: np.max(h - other)
            ),
            "you overlook where ours is *smaller* than theirs: take the difference without its "
            "sign.",
        ),
        Mistake(
            lambda *case: _first(*case, which=-1),
            "this is the last block that differs. All blocks behind a wrong one differ; the first "
            "is the one to look at.",
        ),
        Mistake(
            lambda *case: _first(*case, shift=1),
            "one too many: the first block has number 0.",
        ),
        Mistake(
            lambda *case: _first(
                *case,
                error=lambda h, other: np.max(
                    np.abs((h - other) / other)
                ),
                size=lambda other: 1.0,
            ),
            "you divide each difference by its own number. Some numbers of theirs are nearly 0 by "
            "chance, and their errors are not: divide by the largest of the block.",
        ),
        Mistake(
            lambda *case: _first(
                *case, error=lambda h, other: np.mean(np.abs(h - other))
            ),
            "you look at a mean of the differences. One wrong number among many right ones hardly "
            "moves a mean: take the largest.",
        ),
        Mistake(
            lambda *case: _first(*case, size=np.max),
            "the size of a block is its largest number *without a sign*: -1 is larger than 0.3 "
            "here.",
        ),
        Mistake(
            _of_the_largest,
            "you measure all blocks by the largest number of all of them. Then a small block may "
            "be all wrong: each by its own largest number.",
        ),
        Mistake(
            lambda *case: _first(*case, none=-1),
            "right where two models part. But if they agree everywhere, return the number of "
            "blocks: that many agree.",
        ),
        Mistake(
            lambda *case: _first(*case, none=0),
            "right where two models part. But if they agree everywhere, you say that block 0 "
            "differs. (np.argmax of nothing but False is 0.) Return the number of blocks.",
        ),
    ),
)


# The layout of the official code

NEW, OLD = "backbone.embeddings.weight", "backbone.embedding.weight"
HEAD = "lm_head.weight"
REST = "backbone.layers.", "backbone.norm_f."
SIZES = "hidden_size", "num_hidden_layers", "vocab_size"


class _Tensors(dict):
    """Arrays by name that can be compared as a whole."""

    def __eq__(self, other):
        return self.keys() == other.keys() and all(
            np.array_equal(self[name], other[name]) for name in self
        )


def _official_case(rng):
    """In turn: a little above a multiple, a multiple, a little below the next one."""
    turn, multiple = turn_of(rng) % 3, int(rng.choice([8, 16]))
    V, half = multiple * int(rng.integers(3, 7)), multiple // 2
    if turn == 0:
        V += int(rng.integers(1, half))
    elif turn == 2:
        V += int(rng.integers(half + 1, multiple))
    E, n_layers = (int(n) for n in rng.integers((2, 1), (6, 4)))
    rows = -(-V // multiple) * multiple
    tensors = _Tensors({OLD: rng.normal(size=(rows, E))})
    for i in range(n_layers):
        start = f"backbone.layers.{i}."
        tensors[start + "mixer.D"] = rng.normal(size=2 * E)
        tensors[start + "mixer.A_log"] = rng.normal(size=(2 * E, 2))
        tensors[start + "norm.weight"] = rng.normal(size=E)
    tensors["backbone.norm_f.weight"] = rng.normal(size=E)
    tensors[HEAD] = tensors[OLD].copy()
    config = {"d_model": E, "n_layer": n_layers, "vocab_size": V}
    config |= {"pad_vocab_size_multiple": multiple, "ssm_cfg": {}}
    names = "rms_norm residual_in_fp32 fused_add_norm".split()
    return tensors, config | dict.fromkeys(names, True)


def _in_numbers(result):
    """Two dictionaries as two arrays: a mark for the kind of each name, and what it holds."""
    if not isinstance(result, (tuple, list)) or len(result) != 2:
        return result
    tensors, config = result
    if not isinstance(tensors, dict) or not isinstance(config, dict):
        return result
    parts = [np.zeros(1)]
    for mark, name in sorted((_mark(name), name) for name in tensors):
        parts += [np.array([100.0 * mark]), np.ravel(tensors[name])]
    sizes = [config.get(name, 0) for name in SIZES]
    kind = config.get("model_type") == "mamba"
    return np.concatenate(parts), np.array([*sizes, float(kind)])


def _mark(name):
    if name in (NEW, OLD, HEAD):
        return (NEW, OLD, HEAD).index(name) + 1
    return 4 if str(name).startswith(REST) else 5


def _translated(
    tensors,
    config,
    padded=lambda V, multiple: -(-V // multiple) * multiple,
    dropped=(OLD, HEAD),
    name=NEW,
    cut=False,
    sizes=("hidden_size", "num_hidden_layers"),
    kind="mamba",
):
    V, multiple = (
        config["vocab_size"],
        config["pad_vocab_size_multiple"],
    )
    found = {n: w for n, w in tensors.items() if n not in dropped}
    found[name] = tensors[OLD][:V] if cut else tensors[OLD]
    theirs = dict(
        zip(sizes, (config["d_model"], config["n_layer"]), strict=True)
    )
    theirs |= {"vocab_size": padded(V, multiple), "model_type": kind}
    return _in_numbers((found, theirs))


MEASURED = (
    "tensors has",
    "tensors is off",
    "config has",
    "config is off",
)


@dataclass(frozen=True)
class _LayoutCheck(_DictCheck):
    """A check that names what is wrong in two dictionaries, where no mistake has a name."""

    def _problem(self, answer) -> str | None:
        problem = super()._problem(answer)
        if problem and problem.startswith(MEASURED):
            return self._wrong_names(answer) or problem
        return problem

    def _wrong_names(self, answer) -> str | None:
        for case in self._arguments():
            result = _raw_result(answer, copy.deepcopy(case))
            if _in_numbers(result) is result:  # no dictionaries
                return None
            tensors, config = case
            wanted = (tensors.keys() | {NEW}) - {OLD, HEAD}
            for what, names in (
                ("missing", wanted - result[0].keys()),
                ("surplus", result[0].keys() - wanted),
                (
                    "missing in the config",
                    set(SIZES) - result[1].keys(),
                ),
            ):
                if names:
                    return (
                        f"{what}: {', '.join(sorted(map(str, names)))}."
                    )
        return None


check_from_official = _LayoutCheck(
    name="from_official",
    spec=_translated,
    outputs=("tensors", "config"),
    cases=_official_case,
    tolerance=1e-6,
    flat=_in_numbers,
    hint="print what you return for a small checkpoint. One array has another name, one is gone, "
    "all others are as they were; and the config has four entries, one of them worked out.",
    mistakes=(
        Mistake(
            lambda *case: _translated(*case, padded=lambda V, m: V),
            "the arrays are right. But vocab_size is the tokenizer's. The embedding has more rows, "
            "a multiple of pad_vocab_size_multiple, and the loader compares the two.",
        ),
        Mistake(
            lambda *case: _translated(
                *case, padded=lambda V, m: V + m - V % m
            ),
            "the arrays are right, and vocab_size mostly. But a vocabulary that is a multiple "
            "already stays as it is; yours gets another multiple on top.",
        ),
        Mistake(
            lambda *case: _translated(
                *case, padded=lambda V, m: round(V / m) * m
            ),
            "the arrays are right. But you go to the *nearest* multiple. No token may be left "
            "without a row: always up.",
        ),
        Mistake(
            lambda *case: _translated(*case, dropped=(OLD,)),
            "the config is right. But the head is still there. It is the embedding itself, written "
            "a second time: with tied weights the layout has one of them.",
        ),
        Mistake(
            lambda *case: _translated(*case, dropped=(HEAD,), name=OLD),
            'the config is right. But the embedding has its old name: "embeddings", with an s.',
        ),
        Mistake(
            lambda *case: _translated(*case, dropped=(HEAD,)),
            "the config is right. But the embedding is there under both names. The old one would "
            "be refused as surplus, or stored for nothing.",
        ),
        Mistake(
            lambda *case: _translated(*case, kind=None),
            'the arrays are right, and the sizes. But nobody knows what they are for: "model_type" '
            'has to be "mamba".',
        ),
        Mistake(
            lambda *case: _translated(
                *case, cut=True, padded=lambda V, m: V
            ),
            "you cut the embedding to the rows that the tokenizer uses. That fits together. But "
            "the published model has all of them, and its logits, too: keep the rows, and count "
            "them.",
        ),
        Mistake(
            lambda *case: _translated(
                *case, sizes=("d_model", "n_layer")
            ),
            "the arrays are right. But width and number of blocks have other names there: "
            '"hidden_size" and "num_hidden_layers".',
        ),
    ),
)
