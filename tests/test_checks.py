"""Every check: its solution passes, its named mistakes are told apart, nothing makes it crash.

New check modules are found by themselves.
"""

import importlib
import inspect
import json
import math
import pkgutil
import re
from pathlib import Path

import numpy as np
import pytest
import scipy.linalg
import scipy.stats
import tensorflow as tf

from tf_mamba_edu import MambaConfig, MambaLM, checks, selective_scan
from tf_mamba_edu.baselines import GRULM, BaselineConfig, TransformerLM
from tf_mamba_edu.checks import (
    Check,
    Mistake,
    NotYet,
    block,
    checkpoints,
    comparison,
    hardware,
    hippo,
    language_model,
    long_memory,
    lti,
    next_token,
    parallel_scan,
    prospects,
    selectivity,
    sentiment,
    sequence_models,
)
from tf_mamba_edu.checks.core import EMPTY, FIRST_HINT, SEED_VARIABLE
from tf_mamba_edu.hippo import legs, run_legs
from tf_mamba_edu.s4d import diagonal_kernel
from tf_mamba_edu.scan.associative import (
    blelloch,
    combine,
    gradients,
    hillis_steele,
    linear_recurrence,
    step_by_step,
)

SEEDS = range(10)


def found_checks():
    for module in pkgutil.iter_modules(checks.__path__, checks.__name__ + "."):
        chapter = module.name.rsplit(".", 1)[1]
        for name, value in vars(importlib.import_module(module.name)).items():
            if isinstance(value, Check):
                yield pytest.param(value, id=f"{chapter}.{name}")


CHECKS = list(found_checks())
each = pytest.mark.parametrize("check", CHECKS)


def function_checks():
    return [case for case in CHECKS if case.values[0].cases]


each_function = pytest.mark.parametrize("check", function_checks())


def problem(check, answer):
    """The message with which a check refuses an answer."""
    with pytest.raises(NotYet) as caught:
        check(answer)
    return str(caught.value)


def changed(check, change):
    """The solution with each of its outputs changed."""

    def apply(result):
        many = len(check.outputs) > 1
        return tuple(change(part) for part in result) if many else change(result)

    if not callable(check.spec):
        return apply(check.spec)
    return lambda *arguments: apply(check.spec(*arguments))


def test_every_chapter_with_exercises_has_checks():
    chapters = {
        "sequence_models",
        "continuous",
        "discretization",
        "lti",
        "hippo",
        "selectivity",
        "parallel_scan",
        "hardware",
        "block",
        "language_model",
        "checkpoints",
        "next_token",
        "sentiment",
        "long_memory",
        "comparison",
        "prospects",
    }
    assert {case.id.split(".")[0] for case in CHECKS} >= chapters
    assert len({case.values[0].name for case in CHECKS}) == len(CHECKS) >= 6 * len(chapters)


# Right answers


@each
def test_the_solution_passes_on_any_cases(check, monkeypatch, capsys):
    for seed in SEEDS:
        monkeypatch.setenv(SEED_VARIABLE, str(seed))
        check(check.spec)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(SEEDS)
    assert all(line.startswith(f"✓ {check.name}: right, ") for line in lines)


@each
@pytest.mark.parametrize(
    "form",
    [
        lambda part: np.asarray(part).tolist(),
        lambda part: np.asarray(part, np.float32),
        lambda part: tf.constant(np.asarray(part, np.float64)),
        lambda part: tf.constant(np.asarray(part, np.float32)),
    ],
    ids=["lists", "float32", "tensors", "float32 tensors"],
)
def test_the_solution_passes_in_other_forms(check, form, monkeypatch):
    for seed in SEEDS[:3]:
        monkeypatch.setenv(SEED_VARIABLE, str(seed))
        assert check(changed(check, form)) is None


@each
def test_a_list_of_outputs_passes_as_a_tuple_does(check):
    if len(check.outputs) > 1:
        assert check(lambda *arguments: list(check.spec(*arguments))) is None
    else:
        assert len(check.outputs) == 1


@each_function
def test_an_answer_that_writes_into_its_arguments_disturbs_nothing(check):
    def answer(*arguments):
        result = check.spec(*(np.copy(a) if isinstance(a, np.ndarray) else a for a in arguments))
        for argument in arguments:
            if isinstance(argument, np.ndarray):
                argument[...] = 1e6
        return result

    assert check(answer) is None
    for mistake in check.mistakes:
        wrong = spoiling(mistake.answer)
        assert mistake.message in problem(check, wrong)


def spoiling(function):
    """The function, but its arguments are overwritten after use."""

    def answer(*arguments):
        result = function(*arguments)
        result = [np.copy(part) for part in result] if isinstance(result, tuple) else result
        for argument in arguments:
            if isinstance(argument, np.ndarray):
                argument[...] = 1e6
        return result

    return answer


# Named mistakes


@each
def test_each_mistake_is_told_by_its_own_message(check, monkeypatch):
    assert len(check.mistakes) >= 3
    for seed in SEEDS:
        monkeypatch.setenv(SEED_VARIABLE, str(seed))
        for mistake in check.mistakes:
            want = f"{check.name}: {mistake.message}\n  Hint: {check.hint}"
            assert problem(check, mistake.answer) == want, seed


MANY = {"selectivity": 100, "parallel_scan": 100, "hardware": 100, "comparison": 30}  # seeds


@pytest.mark.parametrize(
    ("check", "seeds"),
    [
        pytest.param(case.values[0], MANY[chapter], id=case.id)
        for case in CHECKS
        if (chapter := case.id.split(".")[0]) in MANY
    ],
)
def test_no_mistake_is_taken_for_another_in_many_cases(check, seeds, monkeypatch):
    for seed in range(seeds):
        monkeypatch.setenv(SEED_VARIABLE, str(seed))
        for mistake in check.mistakes:
            assert problem(check, mistake.answer).startswith(f"{check.name}: {mistake.message}"), (
                seed
            )


@each
def test_messages_differ_and_are_sentences(check):
    messages = [mistake.message for mistake in check.mistakes]
    assert len(set(messages)) == len(messages)
    for text in (*messages, check.hint):
        assert text[-1] in ".?" and text == " ".join(text.split())
    assert check.hint not in messages


@each
def test_a_wrong_answer_without_a_name_is_measured(check):
    message = problem(check, changed(check, lambda part: 3.7 * np.asarray(part) + 11.0))
    assert ("is off by up to" if check.cases else "is too large") in message
    assert message.endswith(f"Hint: {check.hint}")


# Junk


class BadArray:
    """Cannot be made an array of."""

    def __init__(self, error):
        self.error = error

    def __array__(self, *_, **__):
        raise self.error


class BadText(Exception):
    """An error that cannot be printed."""

    def __str__(self):
        raise RuntimeError


def itself():
    """A list that holds itself."""
    result = []
    result.append(result)
    return result


JUNK_VALUES = {
    "None": None,
    "Ellipsis": ...,
    "text": "text",
    "bytes": b"text",
    "object": object(),
    "empty list": [],
    "dict": {"A": 1},
    "set": {1, 2},
    "ragged": [[1.0], [1.0, 2.0]],
    "self-containing": itself(),
    "text array": np.array(["a"]),
    "bool": True,
    "complex": 1 + 1j,
    "date": np.datetime64("2020-01-01"),
    "module": np,
    "bad __array__": BadArray(ValueError("no")),
    "exit in __array__": BadArray(SystemExit()),
    "text tensor": tf.constant("a"),
    "ragged tensor": tf.ragged.constant([[1.0], [1.0, 2.0]]),
    "keras input": tf.keras.Input((3,)),
    "wrong shape": np.zeros((7, 5, 3, 2)),
    "many": tuple(range(9)),
}


def stopping(error):
    """A function that raises."""

    def answer(*_):
        raise error

    return answer


def endless(*arguments):
    return endless(*arguments)


def generator(*_):
    yield 1.0


JUNK_FUNCTIONS = {
    "no arguments": lambda: 1.0,
    "many arguments": lambda a, b, c, d, e, f, g, h: 1.0,
    "generator": generator,
    "generator expression": lambda *_: (i for i in range(3)),
    "a function": lambda *_: print,
    "class": object,
    "type": int,
    "builtin": len,
    "ValueError": stopping(ValueError("no\nsecond line")),
    "BadText": stopping(BadText()),
    "AssertionError": stopping(AssertionError()),
    "SystemExit": stopping(SystemExit(1)),
    "GeneratorExit": stopping(GeneratorExit()),
    "NotYet": stopping(NotYet("mine")),
    "StopIteration": stopping(StopIteration()),
    "endless": endless,
    "NotImplementedError": stopping(NotImplementedError),
} | {f"returns {name}": lambda *_, value=value: value for name, value in JUNK_VALUES.items()}


def refused_politely(check, answer):
    """The message without its hint, which is there: another one for a blank."""
    message, hint = problem(check, answer).split("\n  Hint: ")
    assert message.startswith(f"{check.name}: ") and "\n" not in message
    assert hint == (FIRST_HINT if message == f"{check.name}: {EMPTY}" else check.hint)
    return message


@each
def test_junk_values_are_refused_politely(check):
    for name, junk in JUNK_VALUES.items():
        message = refused_politely(check, junk)
        if junk is None or junk is ...:
            assert "this blank is still empty" in message
        elif callable(check.spec):
            assert "this should be a function, not a value of type" in message, name


@each_function
def test_junk_functions_are_refused_politely(check):
    for junk in JUNK_FUNCTIONS.values():
        refused_politely(check, junk)


SPOILED = [
    (lambda part: np.asarray(part) * np.nan, "holds nan or infinity"),
    (lambda part: np.asarray(part) + np.inf, "holds nan or infinity"),
    (lambda part: np.asarray(part) + 0j, "is complex"),
    (lambda part: np.asarray(part).astype(str), "should be made of real numbers"),
    (lambda part: np.asarray(part).astype(object), "should be made of real numbers"),
    (lambda part: np.asarray(part) > 0, "should be made of real numbers"),
    (lambda part: np.asarray(part)[None], "has shape (1"),
    (lambda part: np.stack([part, part]), "has shape (2"),
]


@each
def test_a_spoiled_solution_is_refused_with_its_reason(check):
    for change, message in SPOILED:
        assert message in refused_politely(check, changed(check, change))


@each_function
def test_an_empty_function_is_an_empty_blank(check):
    assert "empty" in refused_politely(check, lambda *_: None)
    empty = stopping(NotImplementedError)
    assert "this blank is still empty" in refused_politely(check, empty)


@each_function
def test_an_error_is_reported_in_one_line(check):
    message = refused_politely(check, stopping(KeyError("x\n y")))
    assert "your code stopped with KeyError: " in message
    assert "TypeError" in refused_politely(check, lambda: 1.0)


@each
def test_a_wrong_number_of_outputs_is_named(check):
    too_many = (*(0.0 for _ in check.outputs), 0.0)
    answer = (lambda *_: too_many) if callable(check.spec) else too_many
    message = refused_politely(check, answer)
    if len(check.outputs) > 1:
        assert f"return {len(check.outputs)} things, ({', '.join(check.outputs)})" in message
    else:
        assert f"{check.outputs[0]} has shape" in message


def test_an_interrupt_is_not_swallowed():
    with pytest.raises(KeyboardInterrupt):
        CHECKS[0].values[0](stopping(KeyboardInterrupt()))


# Chapter 04: answers written in other ways, and near misses


@pytest.mark.parametrize("right", [459, 459.0, np.int64(459), np.array(459)])
def test_a_whole_number_of_steps_passes(right):
    assert lti.check_memory(right) is None


@pytest.mark.parametrize("wrong", [458, 460, 458.21, 458.9, 459.1, 458.5, -459])
def test_the_number_of_steps_must_be_exact(wrong):
    refused_politely(lti.check_memory, wrong)


@pytest.mark.parametrize("slip", [1 / (1 - 0.99), np.log(0.01) / np.log(0.99), 458.21])
def test_a_slip_is_recognized_from_its_unrounded_number(slip):
    assert "is too" not in refused_politely(lti.check_memory, slip)


def by_fft(x, kernel, size, cut=np.real):
    spectrum = np.fft.fft(x, size) * np.fft.fft(kernel, size)
    return cut(np.fft.ifft(spectrum))[: len(x)]


@pytest.mark.parametrize("size", [lambda L: 2 * L - 1, lambda L: 2 * L, lambda L: 64])
def test_any_number_of_zeros_passes_that_leaves_room_for_the_tail(size):
    assert lti.check_fft_convolution(lambda x, k: by_fft(x, k, size(len(x)))) is None


def test_too_few_zeros_do_not_pass_nor_does_a_complex_result():
    few = refused_politely(lti.check_fft_convolution, lambda x, k: by_fft(x, k, len(x) + 1))
    assert "is off by" in few
    answer = refused_politely(
        lti.check_fft_convolution, lambda x, k: by_fft(x, k, 2 * len(x), lambda y: y)
    )
    assert "y is complex: take its real part" in answer


def test_a_batch_may_be_run_at_once():
    def answer(x, A_bar, B_bar, C):
        h, y = np.zeros((len(x), len(B_bar))), np.zeros(x.shape)
        for t in range(x.shape[1]):
            h = h @ A_bar.T + x[:, t, None] * B_bar
            y[:, t] = h @ C
        return y

    assert lti.check_repaired_recurrence(answer) is None


@pytest.mark.parametrize(
    "sheet, check",
    [
        ("01_sequence_models", sequence_models.check_attend),
        ("04_recurrence_and_convolution", lti.check_repaired_recurrence),
        ("05_hippo_and_s4d", hippo.check_online_memory),
        ("06_selectivity", selectivity.check_state_after),
        ("07_parallel_scan", parallel_scan.check_scanned),
        ("09_mamba_block", block.check_residual_block),
        ("10_language_model", language_model.check_write),
        ("11_pretrained", checkpoints.check_convert),
        ("12_next_token", next_token.check_split),
        ("13_sentiment", sentiment.check_pool),
        ("14_long_memory", long_memory.check_read_chunk),
        ("15_comparison", comparison.check_tokens_per_second),
        ("16_prospects", prospects.check_in_chunks),
    ],
)
def test_the_code_given_in_the_sheet_has_both_bugs(sheet, check):
    text = (Path(__file__).parents[1] / "solutions" / f"{sheet}.md").read_text("utf-8")
    given = re.search(r"^:tags: \[exercise-only\]\n\n(def .*?)^```", text, re.M | re.S)
    silu = re.search(r"^(def silu.*?)^```", text, re.M | re.S)
    helper = re.search(r"^def (exact_step|states_before)\b.*?^```", text, re.M | re.S)
    space = {"np": np, "scipy": scipy, "legs": legs}
    if silu:
        exec(silu[1], space)
    exec((helper[0][:-3] if helper else "") + given[1], space)
    message = refused_politely(check, space[check.name])
    assert "both bugs are still there" in message


# Chapter 05: the same


@pytest.mark.parametrize("right", [1152, 1152.0, np.int64(1152)])
def test_a_whole_number_of_steps_passes_in_chapter_05(right):
    assert hippo.check_faded(right) is None


@pytest.mark.parametrize("wrong", [1150, 1151.9, 1152.2, 1153, -1152])
def test_the_number_of_steps_must_be_exact_in_chapter_05(wrong):
    assert "is too" in refused_politely(hippo.check_faded, wrong)


@pytest.mark.parametrize("right", [25.7, 25.66, 100.5 / 3.91, 100.5 / np.log(50), np.float32(25.7)])
def test_a_rounded_ratio_passes(right):
    assert hippo.check_needed_ratio(right) is None


def test_the_ratio_in_the_chapter_is_too_round_and_others_are_measured():
    assert "nearly" in refused_politely(hippo.check_needed_ratio, 26)
    for wrong in (25.5, 26.2, -25.7, 12.8):
        assert "is too" in refused_politely(hippo.check_needed_ratio, wrong)


def test_the_package_solves_the_exercises_of_chapter_05():
    assert hippo.check_online_memory(lambda x, N: run_legs(x, N)[-1]) is None
    assert hippo.check_stored_kernel(kernel_from_weights) is None


def kernel_from_weights(A_log, A_imag, C, log_dt, length, part=lambda K: K):
    A, delta = -np.exp(A_log) + 1j * A_imag, np.exp([log_dt])
    return part(diagonal_kernel(A[None], np.ones_like(A)[None], C[None], delta, length)[0])


def test_a_sign_may_be_repaired_in_the_step_too():
    def answer(x, N):
        A, B = -legs(N)[0], legs(N)[1]  # the paper's
        h = x[0] * np.eye(N)[0]
        for k in range(1, len(x)):
            A_bar = scipy.linalg.expm(np.log1p(1 / k) * -A)
            h = A_bar @ h + np.linalg.solve(-A, (A_bar - np.eye(N)) @ B) * x[k]
        return h

    assert hippo.check_online_memory(answer) is None


def test_a_complex_kernel_is_named():
    def answer(*weights):
        return kernel_from_weights(*weights, part=lambda K: tf.cast(K, tf.complex128))

    message = refused_politely(hippo.check_stored_kernel, answer)
    assert "K is complex: take its real part" in message


# Chapter 06: the same


@pytest.mark.parametrize("right", [-1.1, -1.0986, -np.log(3), np.float32(-1.099)])
def test_a_rounded_bias_passes(right):
    assert selectivity.check_needed_bias(right) is None


@pytest.mark.parametrize("wrong", [0, -1.0, -1.2, 3])
def test_other_biases_are_measured(wrong):
    assert "is too" in refused_politely(selectivity.check_needed_bias, wrong)


def step_by_scan(h, x, delta, A, B, C):
    one_step = [v[None, None] for v in (x, delta, B, C)]
    options = {"initial_state": h[None], "return_last_state": True, "method": "recurrent"}
    y, state = selective_scan(*one_step[:2], A, *one_step[2:], **options)
    return state[0], y[0, 0]


def gates_by_scan(f, i, a):
    """The package's own steps, from an input of 1 into an empty state and none afterwards."""
    z, B = selectivity.check_any_gates.spec(f, i, a)
    for f_t, i_t, z_t, B_t in zip(f, i, z, B, strict=True):
        x, z_t, B_t = (np.reshape(v, (1, -1, 1)) for v in ([1.0, 0.0], [z_t] * 2, [B_t] * 2))
        A, C, options = np.array([[-a]]), np.ones((1, 2, 1)), {"method": "recurrent"}
        y = selective_scan(x, z_t, A, B_t, C, delta_softplus=True, **options)
        np.testing.assert_allclose(y[0, :, 0], [i_t, f_t * i_t], rtol=1e-9)
    return z, B


def test_the_package_solves_the_exercises_of_chapter_06():
    assert selectivity.check_selective_step(step_by_scan) is None
    assert selectivity.check_any_gates(gates_by_scan) is None


def test_outputs_in_the_wrong_order_or_of_the_wrong_weights_are_refused():
    def swapped(h, x, delta, A, B, C):
        return step_by_scan(h, x, delta, A, C, B)

    check = selectivity.check_selective_step
    assert "h is off by" in refused_politely(check, swapped)
    assert "h has shape" in refused_politely(check, lambda *args: step_by_scan(*args)[::-1])


def wide(function):
    return lambda delta: function(delta.astype(np.float64))


@pytest.mark.parametrize(
    "right",
    [
        lambda d: d + tf.math.log(-tf.math.expm1(-d)),
        lambda d: np.where(d > 20, d, np.log(np.expm1(np.minimum(d, 20)))),
        wide(lambda d: d + np.log(1 - np.exp(-d))),
    ],
    ids=["TensorFlow", "two branches", "float64"],
)
def test_other_ways_to_undo_softplus_pass(right):
    assert selectivity.check_delta_to_bias(right) is None


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_infinities_are_told_apart_by_their_places():
    check = selectivity.check_delta_to_bias
    for answer, seen in (
        (lambda d: tf.math.log(tf.exp(d) - 1), "broken at both ends"),
        (wide(lambda d: np.log(np.exp(d) - 1)), "the small end is right now"),
        (lambda d: d + np.log1p(-np.exp(-d)), "the large end is right now"),
        (lambda d: np.log(d / (1 - d)), "holds nan or infinity"),
        (lambda d: np.full(len(d), np.inf), "holds nan or infinity"),
    ):
        assert seen in refused_politely(check, answer)


def masked(change):
    """The repaired function of the sheet, after a change of its arguments."""

    def answer(*arguments):
        x, pre, bias, A, B, mask = change(*arguments)
        return selectivity.check_state_after.spec(x, pre, bias, A, B, mask)

    return answer


def test_a_mask_may_be_applied_in_other_ways():
    def far_down(x, pre, bias, A, B, mask):
        pre = np.where(mask[:, None], pre, -1e4)
        return x, pre, bias, A, B, np.ones_like(mask)

    def left_out(x, pre, bias, A, B, mask):
        return x[mask], pre[mask], bias, A, B[mask], mask[mask]

    for change in (far_down, left_out):
        assert selectivity.check_state_after(masked(change)) is None


def counter(delta, B):
    """What the sheet makes of a design: three steps and three inputs, one a token."""

    def answer(tokens):
        steps, inputs = (np.float64(v)[tokens][None, :, None] for v in (delta, B))
        A, ones = -np.ones((1, 1)), np.ones((1, len(tokens), 1))
        return selective_scan(ones, steps, A, inputs, ones, method="recurrent")[0, :, 0]

    return answer


@pytest.mark.parametrize(
    "delta, B",
    [((0, 1e-6, 50), (0, 1e6, 0)), ((1e-7, 1e-7, 20), (0, 1e7, 0)), ((0, 1e-4, 30), (9, 1e4, 0))],
)
def test_any_design_that_counts_passes(delta, B):
    assert selectivity.check_ones_since_reset(counter(delta, B)) is None


@pytest.mark.parametrize(
    "delta, B, seen",
    [
        ((0, 0, 9), (0, 1, 0), "the output is always 0"),
        ((0, 1, 5), (0, 1, 0), "with Delta = 1 a one adds 1"),
        ((0, 20, 20), (0, 0.05, 0), "each one takes the place"),
        ((1e-6, 1e-6, 1e-6), (0, 1e6, 0), "a reset does not clear"),
        ((0, 1e-6, 10), (0, 1e6, 0.1), "the reset counts itself"),
        ((1e-6, 1e-6, 20), (1e6, 1e6, 0), "the zeros too"),
        ((20, 1e-6, 20), (0, 1e6, 0), "the ones in a row"),
        ((0, 0.1, 20), (0, 10, 0), "y is off by up to"),
        ((0, 1e-6, 20), (0, 1, 0), "y is off by up to"),
    ],
)
def test_a_design_is_known_by_what_the_scan_makes_of_it(delta, B, seen):
    check = selectivity.check_ones_since_reset
    assert seen in refused_politely(check, counter(delta, B))


# Chapter 07: the same


def test_the_package_solves_the_exercises_of_chapter_07():
    def running_maximum(x):
        [found] = hillis_steele(lambda one, two: (tf.maximum(one[0], two[0]),), (x,))
        return found, int(np.ceil(np.log2(len(x))))

    def gate_gradients(g, x, w):
        h = linear_recurrence(1 - g, g * x)
        of_keep, of_input, _ = gradients(tf.constant(1 - g), h, tf.zeros_like(h[0]), w)
        return of_input * x - of_keep, of_input * g

    assert parallel_scan.check_running_maximum(running_maximum) is None
    assert (
        parallel_scan.check_scanned(lambda a, b, h: linear_recurrence(a, b, np.float64(h))) is None
    )
    assert parallel_scan.check_gate_gradients(gate_gradients) is None


@pytest.mark.parametrize("right", [200, 200.0, np.int64(200), np.sqrt(2 * 20_000)])
def test_the_best_number_of_clerks_passes(right):
    assert parallel_scan.check_best_number(right) is None


@pytest.mark.parametrize("wrong", [199, 201, 142, -200, 50, 10_000])
def test_the_number_of_clerks_must_be_exact(wrong):
    assert "is too" in refused_politely(parallel_scan.check_best_number, wrong)


def in_one_array(a, b, initial_state, amount_first):
    """Doubling that overwrites its arrays, in either order."""
    a, b = a.copy(), b.copy()
    b[0] += a[0] * initial_state
    reach = 1
    while reach < len(a):
        earlier_a, earlier_b = a[:-reach].copy(), b[:-reach].copy()
        if amount_first:
            b[reach:] += a[reach:] * earlier_b
        a[reach:] *= earlier_a
        if not amount_first:
            b[reach:] += a[reach:] * earlier_b
        reach *= 2
    return b


def test_arrays_may_be_overwritten_if_the_amount_comes_first():
    def answer(amount_first):
        return lambda *args: in_one_array(*args, amount_first)

    check = parallel_scan.check_scanned
    assert check(answer(amount_first=True)) is None
    assert "multiplied already" in refused_politely(check, answer(amount_first=False))


def test_an_initial_state_may_be_added_by_the_products_or_put_in_front():
    def by_products(a, b, h):
        factors, amounts = blelloch(combine, (a, b))
        return factors * h + amounts

    def in_front(a, b, h):
        return step_by_step(combine, (np.append(0.0, a), np.append(h, b)))[1][1:]

    def one_place_late(a, b, h):
        return step_by_step(combine, (np.append(0.0, a), np.append(h, b)))[1][:-1]

    check = parallel_scan.check_scanned
    assert check(by_products) is None and check(in_front) is None
    assert "one place late" in refused_politely(check, one_place_late)


def test_a_breaking_length_may_be_found_in_other_ways():
    def by_loop(step, epsilon, first=1):
        a, h, product, total = np.exp(-step), 0.0, 1.0, 0.0
        for L in range(first, first + 1000):
            product, h = a * product, a * h + 1
            total += 1 / (product + epsilon)
            if abs(product * total / h - 1) > 0.01:
                return L
        return None

    check = parallel_scan.check_first_wrong_length
    assert check(by_loop) is None
    assert "counted from 0" in refused_politely(check, lambda *args: by_loop(*args, first=0))
    assert "one too large" in refused_politely(check, lambda *args: by_loop(*args, first=2))
    assert "is off by" in refused_politely(check, lambda *args: by_loop(*args, first=3))


def test_a_battery_is_scanned_by_the_operator_that_passes():
    def operator(earlier, later):
        parts = (np.asarray(part) for part in (*earlier, *later))
        return tuple(map(tf.constant, parallel_scan.check_battery.spec(*parts)))

    flow = np.random.default_rng(0).normal(0, 2, 50)
    hours = flow, np.zeros(50), np.linspace(3, 6, 50)
    charge, looped = 1.0, []
    for a, low, high in zip(*hours, strict=True):
        charge = min(max(charge + a, low), high)
        looped.append(charge)
    a, low, high = (part.numpy() for part in blelloch(operator, hours))
    np.testing.assert_allclose(np.clip(1.0 + a, low, high), looped, 1e-12)


def test_a_battery_may_be_clipped_by_numpy():
    def answer(a, low, high, a_later, *limits):
        return a + a_later, np.clip(low + a_later, *limits), np.clip(high + a_later, *limits)

    assert parallel_scan.check_battery(answer) is None


# Chapter 08: the same


@pytest.mark.parametrize("name", ["chunked_gradients", "two_level"])
def test_cases_hold_short_and_whole_last_chunks(name):
    for seed in range(20):
        rng = np.random.default_rng(seed)
        cases = [getattr(hardware, f"check_{name}").cases(rng) for _ in range(5)]
        whole = [len(case[0]) % case[3] == 0 for case in cases]
        assert any(whole) and not all(whole)


def test_bytes_may_be_counted_array_by_array():
    def answer(B, L, D):
        array = np.zeros((B, L, D), np.float32).nbytes
        return 9 * array, 4 * array

    assert hardware.check_moved(answer) is None


def test_a_time_may_be_had_from_a_speed():
    def answer(operations, moved, peak, bandwidth):
        speed = np.minimum(peak, operations / moved * bandwidth)
        return operations / speed, np.where(operations / moved < peak / bandwidth, 1, 0)

    check = hardware.check_shortest
    assert check(answer) is None
    truths = refused_politely(check, lambda *args: (answer(*args)[0], answer(*args)[1] > 0))
    assert "waits should be made of real numbers" in truths


def handed_over(a, b, w, K, last=lambda length: length):
    """As the package does it: g is multiplied when it leaves a step."""
    L, kept, h = len(a), {}, 0.0
    for t in range(L):
        if t % K == 0:
            kept[t] = h
        h = a[t] * h + b[t]
    da, db, g = np.zeros(L), np.zeros(L), 0.0
    for start in sorted(kept)[::-1]:
        before = [kept[start]]
        for t in range(start, min(start + K, last(L)) - 1):
            before.append(a[t] * before[-1] + b[t])
        for t in reversed(range(start, min(start + K, last(L)))):
            g = g + w[t]
            da[t], db[t] = g * before[t - start], g
            g = a[t] * g
    return da, db


def test_a_gradient_may_be_multiplied_when_it_leaves_a_step():
    check = hardware.check_chunked_gradients
    assert check(handed_over) is None
    shorter = refused_politely(check, lambda *args: handed_over(*args, last=lambda L: L - 1))
    assert "da is off by" in shorter


def test_the_package_solves_the_gradients_of_chapter_08():
    def by_the_package(a, b, w, K):
        h = linear_recurrence(a, b)
        return gradients(tf.constant(a), h, tf.zeros_like(h[0]), w)[:2]

    assert hardware.check_chunked_gradients(by_the_package) is None

    def by_differentiation(s, x, z, D, dy):
        s, x, z, D = (tf.constant(v) for v in (s, x, z, D))
        with tf.GradientTape() as tape:
            tape.watch((s, x, z, D))
            loss = tf.reduce_sum(dy * (s + D * x) * tf.nn.silu(z))
        return tape.gradient(loss, (z, D, x, s))

    assert hardware.check_output_gradients(by_differentiation) is None


def tried_plan(L, state_bytes, budget):
    states = budget // state_bytes
    sizes = range(1, L + 1)
    K = min(K for K in sizes if (L + K - 1) // K + K <= states)
    pairs = ((K, J) for K in sizes for J in range(1, L // K + 1))
    return K, min(-(-L // (K * J)) + K + J for K, J in pairs)


def test_a_plan_may_be_tried_solved_or_rounded_up():
    def solved(L, state_bytes, budget):
        states = budget // state_bytes
        K = int((states - np.sqrt(states**2 - 4 * L)) / 2)  # K^2 - states K + L = 0
        while -(-L // K) + K > states:
            K += 1
        return K, np.ceil(3 * np.cbrt(L))

    assert hardware.check_plan(tried_plan) is None
    assert hardware.check_plan(solved) is None


def test_two_levels_of_checkpoints_need_three_cube_roots_or_one_more():
    for n in (2, 5, 9):
        assert tried_plan(n**3, 1, n**3 + 1)[1] == 3 * n
    for L in (300, 999, 1501):
        assert tried_plan(L, 1, L + 1)[1] - np.ceil(3 * np.cbrt(L)) in (0, 1)
    assert tried_plan(37, 1, 38)[1] == np.ceil(3 * np.cbrt(37)) + 1 == 11  # as the sheet says


def by_pages(a, b, initial_state, K, join, wasted=0):
    """All pages at once, without padding: the short page stops early."""
    pages = -(-len(a) // K)
    page_a, page_b = np.ones(pages), np.zeros(pages)
    for k in range(min(K, len(a))):
        there = slice(k, None, K)
        n = len(a[there])
        page_a[:n], page_b[:n] = join((page_a[:n], page_b[:n]), (a[there], b[there]))
    state, h, found = (0.0, initial_state), np.zeros(pages), np.zeros(len(a))
    for page in range(pages):
        h[page] = state[1]
        state = join(state, (page_a[page], page_b[page]))
    for k in range(min(K, len(a))):
        there = slice(k, None, K)
        h = h[: len(a[there])]
        _, h = join((np.zeros(len(h)), h), (a[there], b[there]))
        found[there] = h
    for _ in range(wasted):
        join(state, state)
    return page_a, page_b, found


def test_pages_may_be_strided_instead_of_reshaped_but_not_joined_too_often():
    check = hardware.check_two_level
    assert check(by_pages) is None
    often = refused_politely(check, lambda *args: by_pages(*args, wasted=3))
    assert "the values are right, but for L = " in often


def test_the_solution_by_pages_is_the_recurrence_for_any_length_and_page():
    rng = np.random.default_rng(0)
    for L in (1, 2, 3, 7, 16, 31, 100):
        a, b = rng.uniform(-1, 1, L), rng.normal(size=L)
        for K in (1, 2, 3, 5, 16, 100, 120):
            case = a, b, 3.0, K, combine
            want = linear_recurrence(a, b, np.float64(3.0))
            found = hardware.check_two_level.spec(*case)
            np.testing.assert_allclose(found[2], want, 1e-9, 1e-12)
            for part, other in zip(found, by_pages(*case), strict=True):
                np.testing.assert_allclose(part, other, 1e-9, 1e-12)


# How a refusal looks, and which cases are tried


def test_a_refusal_is_shown_without_a_traceback():
    error = NotYet("some_name: something.\n  Hint: look again.")
    assert error._render_traceback_() == [f"NotYet: {error}"]
    assert isinstance(error, AssertionError)


def test_a_refusal_has_no_hidden_cause():
    with pytest.raises(NotYet) as caught:
        CHECKS[0].values[0](stopping(ValueError("no")))
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def tried_arguments(check):
    tried = []

    def answer(*arguments):
        tried.append([np.copy(argument) for argument in arguments if not callable(argument)])
        return check.spec(*arguments)

    check(answer)
    return tried[:5]  # a check that counts calls runs them once more


def same(one, other):
    return all(
        np.array_equal(a, b)
        for case, again in zip(one, other, strict=True)
        for a, b in zip(case, again, strict=True)
    )


@each_function
def test_cases_are_new_each_time_unless_the_seed_is_fixed(check, monkeypatch):
    monkeypatch.setenv(SEED_VARIABLE, "3")
    fixed = tried_arguments(check)
    assert len(fixed) == 5 and same(fixed, tried_arguments(check))
    assert not same(fixed[:1], fixed[1:2])
    monkeypatch.setenv(SEED_VARIABLE, "4")
    assert not same(fixed, tried_arguments(check))
    monkeypatch.delenv(SEED_VARIABLE)
    assert not same(tried_arguments(check), tried_arguments(check))


@each_function
def test_a_function_takes_as_many_arguments_as_a_case_has(check):
    arguments = check.cases(np.random.default_rng(0))
    inspect.signature(check.spec).bind(*arguments)
    assert isinstance(arguments, tuple) and arguments


# The machinery itself, on a check made here


def doubled(**options):
    defaults = {
        "name": "double",
        "spec": lambda x: 2 * x,
        "outputs": ("y",),
        "hint": "add it to itself.",
        "cases": lambda rng: (rng.normal(size=3),),
        "mistakes": (
            Mistake(lambda x: x, "you forgot the 2."),
            Mistake(lambda x: x * np.array([1.0, np.nan, 1.0]), "this one is broken."),
            Mistake(lambda x: x[0], "this one has another shape."),
        ),
    }
    return Check(**(defaults | options))


def test_an_error_within_the_tolerance_passes_and_one_beyond_fails():
    check = doubled(tolerance=0.01, cases=lambda rng: (np.array([0.0, 0.0, 2.0]),))
    assert check(lambda x: 2 * x + np.array([0.0399, 0.0, 0.0])) is None
    message = problem(check, lambda x: 2 * x + np.array([0.0401, 0.0, 0.0]))
    assert "y is off by up to 0.0401 where its values go up to 4." in message


def test_a_mistake_must_match_in_every_case():
    calls = []

    def sometimes(x):
        calls.append(x)
        return x if len(calls) > 1 else 3 * x

    assert "you forgot" not in problem(doubled(), sometimes)
    assert "you forgot the 2." in problem(doubled(), lambda x: x)


def test_a_mistake_that_is_itself_broken_or_of_another_shape_does_no_harm():
    check = doubled()
    assert check(lambda x: 2 * x) is None
    assert "off by" in problem(check, lambda x: 5 * x)
    assert "y has shape (), it should be (3,)." in problem(check, lambda x: x[1])
    assert "this one has another shape." in problem(check, lambda x: x[0])


# Chapter 10: answers that are right, and read too much


def writes_by_reading_everything(prefill, step, prompt, n):
    text = list(prompt)
    for _ in range(n):
        text.append(int(np.argmax(prefill(np.array(text))[0])))
    return np.array(text[len(prompt) :])


def writes_from_the_last_token_but_one(prefill, step, prompt, n):
    _, cache = prefill(prompt[:-1])
    token, text = prompt[-1], []
    for _ in range(n):
        logits, cache = step(token, cache)
        token = np.argmax(logits)
        text.append(token)
    return np.array(text)


def test_a_writer_that_reads_all_again_for_each_token_is_told_so():
    message = refused_politely(language_model.check_write, writes_by_reading_everything)
    assert "the text is right, but" in message and "are enough" in message
    language_model.check_write(writes_from_the_last_token_but_one)


def writes_for_ever(prefill, step, prompt, n):
    logits, cache = prefill(prompt)
    while True:
        logits, cache = step(np.argmax(logits), cache)


def test_a_writer_that_never_ends_is_stopped():
    message = refused_politely(language_model.check_write, writes_for_ever)
    assert "does your loop end?" in message


# Chapter 11: readers that crash


def read_with(order="little", remark=True, kind=None):
    """A reader of safetensors with a mistake."""

    def read_tensors(data):
        length = int.from_bytes(data[:8], order)
        header = json.loads(data[8 : 8 + length])
        if remark:
            header.pop("__metadata__", None)
        found = {}
        for name, entry in header.items():
            start, end = (8 + length + n for n in entry["data_offsets"])
            if (kind or entry["dtype"]) == "BF16":
                bits = np.frombuffer(data[start:end], "<u2").astype("<u4")
                numbers = (bits << 16).view("<f4")
            else:
                numbers = np.frombuffer(data[start:end], "<f4")
            found[name] = numbers.reshape(entry["shape"])
        return found

    return read_tensors


@pytest.mark.parametrize(
    "changes, word",
    [
        ({"order": "big"}, "smallest byte first"),
        ({"remark": False}, "__metadata__"),
        ({"kind": "F32"}, "bytes"),
    ],
)
def test_a_reader_that_crashes_is_told_why(changes, word):
    checkpoints.check_read_tensors(read_with())
    message = refused_politely(checkpoints.check_read_tensors, read_with(**changes))
    assert word in message, message


# Chapter 16: answers written in other ways, and near misses


def test_the_share_of_a_gap_passes_from_places_of_pairs():
    def answer(tokens, worse, better):
        pairs = 5 * tokens[:-1] + tokens[1:]
        _, first = np.unique(pairs, return_index=True)
        again = np.delete(np.arange(1, len(tokens)), first)
        return np.sum((worse - better)[again]) / np.sum(worse - better)

    assert prospects.check_gap_share(answer) is None


def test_a_share_in_percent_is_too_large():
    answer = prospects.check_gap_share.spec
    message = refused_politely(prospects.check_gap_share, lambda *case: 100 * answer(*case))
    assert "share" in message


def test_the_gated_delta_rule_passes_as_a_linear_recurrence():
    def answer(keys, values, keep, strength):
        state = np.zeros((values.shape[1], keys.shape[1]))
        for key, value, a, b in zip(keys, values, keep, strength, strict=True):
            erase = a * (np.eye(len(key)) - b * np.outer(key, key))
            state = state @ erase + b * np.outer(value, key)
        return state

    assert prospects.check_corrected(answer) is None


def test_the_strands_of_the_chapter_have_another_order():
    def answer(layer, x):
        return layer(x) + layer(x[::-1, ::-1])[::-1, ::-1]

    assert "as in the chapter" in refused_politely(prospects.check_both_strands, answer)


@pytest.mark.filterwarnings("ignore:overflow")
@pytest.mark.parametrize(
    "cut", [np.tril, lambda all_pairs: np.where(np.tri(len(all_pairs)), all_pairs, 0)]
)
def test_an_exponential_that_overflows_is_refused_though_it_is_cut_off(cut):
    def answer(delta, A):
        age = np.cumsum(delta * A)
        return cut(np.exp(age[:, None] - age))

    assert "overflowed" in refused_politely(prospects.check_decay_matrix, answer)


def test_the_clock_of_the_sheet_is_told_that_half_turns_are_the_lamp():
    def answer(digits, m):
        hand, places = 1 + 0j, []
        for turn in np.pi * digits:
            hand = np.exp(1j * turn) * hand
            places.append(np.angle(hand) * m / (2 * np.pi))
        return np.round(places) % m

    assert "only for m = 2" in refused_politely(prospects.check_clock, answer)


@pytest.mark.parametrize("turns", [0, 1, -3])
def test_a_clock_may_turn_any_number_of_full_turns_further(turns):
    def answer(digits, m):
        hand = np.exp(2j * np.pi * np.cumsum(digits / m + turns))
        return np.round(np.angle(hand) * m / (2 * np.pi)) % m

    assert prospects.check_clock(answer) is None


# Chapter 01: right values got in a way that was not asked for, and a guess in words


def test_never_is_a_guess_and_not_a_wrong_type():
    check = sequence_models.check_vanished
    messages = {problem(check, never) for never in (0, "never", "Never!")}
    assert len(messages) == 1 and "it does vanish" in messages.pop()
    assert "real numbers" in problem(check, "ten")


def test_what_has_just_been_heard_is_asked_for_too():
    def recalled(states, x, k):
        known, target = states[k:], x[:-k]
        weights = np.linalg.lstsq(known, target, rcond=None)[0]
        return 1 - ((target - known @ weights) ** 2).sum() / (target**2).sum()

    check = sequence_models.check_recalled
    assert "right for k > 0, but k = 0 fails" in refused_politely(check, recalled)

    def unasked(states, x, k):
        return recalled(states, x, k) if k else 1.0

    assert "right for k > 0, but k = 0 fails" in refused_politely(check, unasked)


def test_a_table_of_all_pairs_is_not_one_pass():
    def by_table(q, k, v, a):
        age = np.arange(len(q))[:, None] - np.arange(len(q))
        weights = np.where(age >= 0, a ** np.maximum(age, 0), 0.0)
        h = (weights[-1][:, None] * k).T @ v
        return (weights * (q @ k.T)) @ v, h

    check = sequence_models.check_fading_attention
    message = refused_politely(check, by_table)
    assert "the values are right, but for L = 600" in message and "a table (L, L)" in message

    def all_states(q, k, v, a):
        states = [np.outer(k[0], v[0])]
        for t in range(1, len(q)):
            states.append(a * states[-1] + np.outer(k[t], v[t]))
        return np.einsum("ld,lde->le", q, np.stack(states)), states[-1]

    assert check(all_states) is None


@pytest.mark.parametrize("hidden, passes", [(-1e9, True), (-np.inf, True), (-20.0, False)])
def test_a_mask_must_be_below_any_score(hidden, passes):
    def attend(q, k, v):
        scores = q @ k.T / np.sqrt(q.shape[1])
        weights = np.exp(np.where(np.tri(len(q)) == 1, scores, hidden))
        return weights / weights.sum(axis=1, keepdims=True) @ v

    check = sequence_models.check_attend
    assert check(attend) is None if passes else refused_politely(check, attend)


# Chapter 14: right answers written in other ways


@pytest.mark.parametrize("right", [16.113, -np.log(-np.log(0.9) / 2**20), np.float32(16.11)])
def test_a_rounded_depth_passes(right):
    assert long_memory.check_depth(right) is None


@pytest.mark.parametrize("wrong", [16.17, 16.0, -16.11, 15.96, 6.99])
def test_a_depth_must_be_right_to_the_second_digit(wrong):
    refused_politely(long_memory.check_depth, wrong)


def test_the_pull_may_be_differentiated_or_written_with_plain_exponentials():
    def by_tape(z, price, floor):
        z = tf.constant(z)
        with tf.GradientTape() as tape:
            tape.watch(z)
            loss = price * tf.reduce_mean(tf.math.log(1 + tf.nn.softplus(z) / floor))
        return tape.gradient(loss, z)

    def plain(z, price, floor):
        delta = np.log(1 + np.exp(z))
        return price / (1 + np.exp(-z)) / (floor * (1 + delta / floor)) / z.size

    assert long_memory.check_pull(by_tape) is None
    assert long_memory.check_pull(plain) is None


def test_a_border_may_be_crossed_input_by_input():
    def answer(x, before, h, w, a):
        before, y = list(before), []
        for value in x:
            h = a * h + np.dot(w, [*before, value])
            before = [*before[1:], value]
            y.append(h)
        return np.array(y), np.array(before), h

    assert long_memory.check_read_chunk(answer) is None


def test_a_step_that_is_read_in_chunks_may_be_read_one_by_one_but_not_from_the_end():
    check = long_memory.check_read_in_chunks

    def backwards(read, tokens, size, state):
        outputs, state = check.spec(read, tokens[::-1], size, state)
        return outputs[::-1], state

    assert check(check.spec) is None
    assert "off by" in refused_politely(check, backwards)


# Chapter 13: answers written in other ways, and near misses


def test_groups_may_come_from_scipy_or_from_links_to_the_lowest():
    def by_scipy(n, pairs):
        links = scipy.sparse.coo_array((np.ones(len(pairs)), tuple(pairs.T)), shape=(n, n))
        found = scipy.sparse.csgraph.connected_components(links, directed=False)[1]
        return [int(np.flatnonzero(found == g)[0]) for g in found]

    def by_links(n, pairs):
        parent = list(range(n))

        def root(i):
            while parent[i] != i:
                i = parent[i]
            return i

        for i, j in pairs:
            low, high = sorted((root(i), root(j)))
            parent[high] = low
        return [root(i) for i in range(n)]

    assert sentiment.check_groups(by_scipy) is None
    assert sentiment.check_groups(by_links) is None


def test_the_error_of_a_difference_may_be_written_otherwise_but_not_with_n_minus_one():
    def by_shares(b, c, n):
        first, second = b / n, c / n
        return first - second, np.sqrt(first + second - (first - second) ** 2) * n**-0.5

    def one_less(b, c, n):
        d = np.repeat([1, -1, 0], [b, c, n - b - c])
        return d.mean(), scipy.stats.sem(d)

    assert sentiment.check_difference(by_shares) is None
    message = refused_politely(sentiment.check_difference, one_less)
    assert "error is off by up to" in message


def test_a_pooling_may_use_other_ways_to_hide():
    def answer(h, mask):
        h, shown = tf.constant(h), tf.constant(mask)
        mean = [tf.reduce_mean(tf.boolean_mask(a, m), 0) for a, m in zip(h, shown, strict=True)]
        largest = tf.reduce_max(tf.where(shown[:, :, None], h, -1e30), 1)
        back = np.argmax(mask[:, ::-1], axis=1)
        last = tf.gather(h, mask.shape[1] - 1 - back, batch_dims=1)
        return tf.stack(mean), largest, last

    assert sentiment.check_pool(answer) is None


def test_a_calibration_error_may_sum_first_and_divide_later():
    def answer(p, labels, bins):
        edges = np.linspace(0, 1, bins + 1)
        said, _ = np.histogram(p, edges, weights=p)
        true, _ = np.histogram(p, edges, weights=labels)
        return np.abs(said - true).sum() / len(p)

    assert sentiment.check_calibration_error(answer) is None


def test_head_and_tail_may_be_a_list_and_a_slip_at_a_border_is_seen():
    def as_list(pieces, length, front):
        pieces = pieces.tolist()
        while len(pieces) > length:
            del pieces[front]
        return pieces + [0] * (length - len(pieces))

    def minus_zero(pieces, length, front):  # the slice of the chapter
        if len(pieces) > length:
            pieces = np.concatenate([pieces[:front], pieces[front - length :]])
        return np.pad(pieces, [0, max(length - len(pieces), 0)])

    check = sentiment.check_head_and_tail
    assert check(as_list) is None
    assert "row has shape" in refused_politely(check, lambda *case: [*as_list(*case), 0])
    assert "row has shape" in refused_politely(check, minus_zero)


# Chapter 15: the same


def test_bytes_of_a_cache_are_those_of_the_models():
    def answer(kind, n_layers, d_model, context, whole=False):
        if kind == "mamba":
            cache = MambaLM(MambaConfig(5, d_model, n_layers)).init_cache(1)
        else:
            model = {"gru": GRULM, "transformer": TransformerLM}[kind]
            config = BaselineConfig(5, d_model, n_layers, n_heads=1)
            room = {"capacity": context} if kind == "transformer" else {}
            cache = model(config).init_cache(1, **room)
        tensors = tf.nest.flatten(cache)
        return sum(t.numpy().nbytes for t in tensors if whole or t.dtype.is_floating)

    check = comparison.check_cache_bytes
    assert check(answer) is None
    message = refused_politely(check, lambda *case: answer(*case, whole=True))
    assert "Right in a sense" in message
    message = refused_politely(check, lambda *case: answer(*case) + 1)
    assert "bytes is off by up to 1 where" in message


def test_a_width_may_be_searched_for_or_solved_for():
    def by_neighbors(parameters, budget, step):
        width = step
        while parameters(width) < budget:
            width += step
        pair = [w for w in (width - step, width) if w > 0]
        return pair[int(np.argmin([abs(parameters(w) - budget) for w in pair]))]

    def by_halves(parameters, budget, step):
        low, high = 1, 1000  # in steps
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if parameters(step * middle) <= budget else (low, middle)
        return step * min(low, high, key=lambda k: abs(parameters(step * k) - budget))

    check = comparison.check_fair_width
    assert check(by_neighbors) is None and check(by_halves) is None
    message = refused_politely(check, lambda *case: by_neighbors(*case) - case[2])
    assert "width is off by" in message


def test_a_stopwatch_may_wait_for_each_call_and_take_the_median_or_the_fastest():
    def answer(choose, wait=True, warm=1):
        def tokens_per_second(make_step, tokens, repetitions, clock):
            step, times = make_step(), []
            for _ in range(warm + repetitions):
                began = clock()
                result = step()
                if wait:
                    result.numpy()
                times.append(clock() - began)
            return tokens / choose(times[warm:])

        return tokens_per_second

    check = comparison.check_tokens_per_second
    for choose in (np.median, np.mean, min):
        assert check(answer(choose)) is None
        assert "put into the queue" in refused_politely(check, answer(choose, wait=False))
    assert check(answer(np.median, warm=3)) is None
    assert "compiles, and that is counted" in refused_politely(check, answer(np.mean, warm=0))


def test_a_clock_that_starts_too_early_or_reads_once_is_refused():
    def early(make_step, tokens, repetitions, clock):
        began, step = clock(), make_step()
        for _ in range(repetitions + 1):
            step().numpy()
        return tokens * (repetitions + 1) / (clock() - began)

    def unread(make_step, tokens, repetitions, clock):
        began = clock()
        return tokens / (clock() - began)

    check = comparison.check_tokens_per_second
    assert "rate is off by" in refused_politely(check, early)
    assert "ZeroDivisionError" in refused_politely(check, unread)


def test_crossings_may_be_tried_or_summed():
    def summed(c, a, b):
        places = np.arange(5000)
        theirs = a + b * places
        ahead = np.cumsum(theirs) > c * (places + 1)
        return np.argmax(theirs > c), np.argmax(ahead) + 1

    def one_less(c, a, b):
        context, n = summed(c, a, b)
        return context, n - 1

    check = comparison.check_crossings
    assert check(summed) is None
    assert "length is off by up to 1 where" in refused_politely(check, one_less)


def test_a_list_may_be_weighed_by_factorials_or_by_the_gamma_function():
    def by_factorials(words, numbers, bits):
        weights = [np.log2(float(math.perm(words, n))) for n in range(words + 1)]
        return np.sum(np.array(weights) <= numbers * bits) - 1

    def by_gamma(words, numbers, bits):
        def weight(n):
            return (math.lgamma(words + 1) - math.lgamma(words - n + 1)) / math.log(2)

        return max(n for n in range(words + 1) if weight(n) <= numbers * bits)

    check = comparison.check_longest_list
    assert check(by_factorials) is None and check(by_gamma) is None
    message = refused_politely(check, lambda *case: by_gamma(*case) + 2)
    assert "n is off by up to 2 where" in message


def test_the_last_word_of_a_list_weighs_nothing():
    longest = comparison.check_longest_list.spec
    bits = math.floor(np.log2(float(math.factorial(20)))) + 1
    assert longest(20, bits, 1) == 20 and longest(20, bits - 1, 1) < 19


def test_a_paired_interval_may_be_that_of_the_differences_or_of_a_table():
    def of_differences(first, second):
        apart = first - second
        error = scipy.stats.sem(apart)
        low, high = scipy.stats.t.interval(0.95, len(apart) - 1, apart.mean(), error)
        return low, high, 0 if low <= 0 <= high else 1 + (apart.mean() > 0)

    def by_table(first, second):
        t = {3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 7: 2.447}[len(first)]
        apart = np.float32(first) - np.float32(second)
        half = t * np.sqrt(np.var(apart, ddof=1) / len(apart))
        low, high = apart.mean() - half, apart.mean() + half
        return low, high, (high < 0) * 1 + (low > 0) * 2

    def of_welch(first, second):
        found = scipy.stats.ttest_ind(first, second, equal_var=False).confidence_interval()
        return found.low, found.high, 0

    check = comparison.check_paired_interval
    assert check(of_differences) is None and check(by_table) is None
    assert "low is off by" in refused_politely(check, of_welch)
    words = refused_politely(check, lambda *case: (*of_differences(*case)[:2], "first"))
    assert "better should be made of real numbers" in words


def test_cases_of_seeds_hold_all_three_verdicts_and_three_seeds_or_more():
    check = comparison.check_paired_interval
    for seed in range(20):
        rng = np.random.default_rng(seed)
        cases = [check.cases(rng) for _ in range(5)]
        assert {check.spec(*case)[2] for case in cases} == {0, 1, 2}
        assert min(len(first) for first, _ in cases) == 3
        assert len({len(first) for first, _ in cases}) >= 3


def test_cases_of_prices_hold_ties_and_both_ends():
    check = comparison.check_crossings
    for seed in range(20):
        rng = np.random.default_rng(seed)
        cases = [check.cases(rng) for _ in range(5)]
        assert any(c == a + b * (check.spec(c, a, b)[0] - 1) for c, a, b in cases)
        assert {(0, 1), (1, 2)} < {check.spec(*case) for case in cases}
