"""The long computations of the book: stored run by run, resumed where they stopped, and what runs.

The trainings here are tiny, and wait for no compiler; `experiment`, the command, is in test_cli.
"""

import builtins
import dataclasses
import functools
import io
import json
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import redirect_stderr, redirect_stdout
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf

import tf_mamba_edu
from tf_mamba_edu import S4D, MambaConfig, MambaLM, SelectiveSSM
from tf_mamba_edu.experiments import (
    EXPERIMENTS,
    block_parts,
    delay,
    induction,
    letters,
    selectivity,
    store,
)
from tf_mamba_edu.experiments.selectivity import SELECTIVE, PartlySelectiveSSM
from tf_mamba_edu.experiments.store import Results, complete, sha256_of
from tf_mamba_edu.experiments.token_models import (
    SmoothedCrossentropy,
    Stage,
    accuracy,
    compile_for,
    token_model,
    train,
)
from tf_mamba_edu.s4d import INITIALIZATIONS
from tf_mamba_edu.tasks import InductionHeads, SelectiveCopying

V, E = 6, 8
TASK = SelectiveCopying(V, n_tokens=2)
ROOT = Path(__file__).resolve().parent.parent


class Interruption(Exception):
    """Stands for whatever ends a computation half-way."""


def interrupt(*_, **__):
    raise Interruption


def same(got, want):
    for one, other in zip(got, want, strict=True):
        np.testing.assert_array_equal(one, other)


def close(got, want, tolerance=1e-5):
    np.testing.assert_allclose(got, want, rtol=0, atol=tolerance)


# What runs have measured


def test_results_are_read_as_they_were_written(tmp_path):
    results = Results("noise", tmp_path / "new" / "folder")
    assert results.runs == {}
    assert not results.folder.exists()
    results.add("b", {"loss": 0.25, "steps": [1, 2]})
    results.add("a, 2", {"loss": None})
    again = Results("noise", results.folder).runs
    assert again == results.runs
    assert sorted(again) == ["a, 2", "b"]
    assert again["b"] == {
        "loss": 0.25,
        "steps": [1, 2],
        **store.surroundings(),
    }


def test_a_result_says_what_it_was_made_with():
    versions = store.surroundings()["versions"]
    assert versions["keras"] == keras.__version__
    assert versions["tensorflow"] == tf.__version__
    assert versions["python"] == sys.version.split()[0]
    assert versions["tf_mamba_edu"] == tf_mamba_edu.__version__
    assert re.fullmatch(r".+, \d+ cores", store.surroundings()["machine"])


def test_a_result_can_be_replaced(tmp_path):
    results = Results("noise", tmp_path)
    results.add("a", {"loss": 1})
    results.add("a", {"loss": 2})
    assert Results("noise", tmp_path).runs["a"]["loss"] == 2


def test_experiments_in_one_folder_keep_apart(tmp_path):
    Results("noise", tmp_path).add("a", {"loss": 1})
    assert Results("silence", tmp_path).runs == {}
    assert [path.name for path in tmp_path.iterdir()] == ["noise.json"]


def test_what_another_process_adds_in_between_stays(tmp_path):
    mine, other = Results("noise", tmp_path), Results("noise", tmp_path)
    other.add("a", {"loss": 1})
    mine.add("b", {"loss": 2})
    other.save_weights("a", small_model())
    mine.save_weights("b", small_model())
    other.add("c", {"loss": 3})
    assert sorted(Results("noise", tmp_path).runs) == ["a", "b", "c"]
    for run in "ab":
        Results("noise", tmp_path).load_weights(run, small_model())


FAILURES = {
    "no space left": (os, "replace", 1),
    "killed before the rename": (Path, "write_bytes", 1),
    "no JSON": (json, "dumps", object()),
}


@pytest.mark.parametrize("where", FAILURES)
def test_a_failing_write_leaves_what_was_there(tmp_path, monkeypatch, where):
    owner, function, loss = FAILURES[where]
    results = Results("noise", tmp_path)
    results.add("a", {"loss": 1})
    before = results.path.read_bytes()
    with monkeypatch.context() as patch:
        if where != "no JSON":
            patch.setattr(owner, function, interrupt)
        with pytest.raises((Interruption, TypeError)):
            results.add("b", {"loss": loss})
    assert results.path.read_bytes() == before
    results.add("c", {"loss": 3})
    assert sorted(results.runs) == sorted(Results("noise", tmp_path).runs) == ["a", "c"]


def test_what_could_not_be_written_is_not_among_the_runs(tmp_path, monkeypatch):
    results = Results("noise", tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", interrupt)
        with pytest.raises(Interruption):
            results.add("a", {"loss": 1})
    complete(results, {"a": lambda: {"loss": 1}})
    assert "a" in Results("noise", tmp_path).runs


def test_the_file_is_never_open_for_writing(tmp_path, monkeypatch):
    results = Results("noise", tmp_path)
    results.add("a", {"loss": 1})
    opened = []

    def watch(file, mode="r", *args, **kwargs):
        opened.append((Path(file).name, mode))
        return io_open(file, mode, *args, **kwargs)

    io_open = io.open
    monkeypatch.setattr(io, "open", watch)
    monkeypatch.setattr(builtins, "open", watch)
    results.add("b", {"loss": 2})
    assert {mode for name, mode in opened if name == "noise.json"} <= {"r", "rt", "rb"}


def test_what_a_killed_process_left_half_written_does_not_disturb(tmp_path):
    results = Results("noise", tmp_path)
    results.add("a", {"loss": 1})
    results.path.with_name("noise.json.unfinished").write_text('{"runs": {"b"')
    assert list(Results("noise", tmp_path).runs) == ["a"]
    results.add("c", {"loss": 2})
    assert sorted(Results("noise", tmp_path).runs) == ["a", "c"]


# Completing an experiment


def counted(made, name):
    """A run that notes that it was made."""

    def run():
        made.append(name)
        return {"loss": len(made)}

    return run


def test_complete_makes_what_is_missing_in_order(tmp_path, capsys):
    results, made = Results("noise", tmp_path), []
    runs = {name: counted(made, name) for name in "dbca"}
    results.add("b", {"loss": 7})
    complete(results, runs)
    assert made == ["d", "c", "a"]
    assert capsys.readouterr() == ("noise 2 / 4: d\nnoise 3 / 4: c\nnoise 4 / 4: a\n", "")
    stored = Results("noise", tmp_path).runs
    assert {name: stored[name]["loss"] for name in stored} == {"b": 7, "d": 1, "c": 2, "a": 3}
    complete(Results("noise", tmp_path), runs)
    assert made == ["d", "c", "a"]
    assert capsys.readouterr() == ("", "")


def test_complete_does_not_count_runs_of_others(tmp_path, capsys):
    results = Results("noise", tmp_path)
    results.add("of an older script", {"loss": 1})
    complete(results, {"a": lambda: {"loss": 1}})
    assert capsys.readouterr().out == "noise 1 / 1: a\n"


@pytest.mark.parametrize("error", [Interruption, KeyboardInterrupt])
def test_an_error_in_one_run_keeps_the_earlier_ones(tmp_path, error):
    made = []

    def fail():
        raise error

    runs = {"a": counted(made, "a"), "b": fail, "c": counted(made, "c")}
    with pytest.raises(error):
        complete(Results("noise", tmp_path), runs)
    assert list(Results("noise", tmp_path).runs) == ["a"]
    complete(Results("noise", tmp_path), {**runs, "b": counted(made, "b")})
    assert made == ["a", "b", "c"]


# Weights


def small_model(inputs=3, units=2, name="second", seed=None):
    if seed is not None:
        keras.utils.set_random_seed(seed)
    x = keras.Input((inputs,))
    h = keras.layers.Dense(4, name="first")(x)
    return keras.Model(x, keras.layers.Dense(units, name=name)(h))


@pytest.fixture
def weights(tmp_path):
    """Results with the weights of a run, and the model that they are from."""
    results, model = Results("noise", tmp_path), small_model(seed=1)
    results.add("a", {"loss": 1})
    results.save_weights("a", model)
    path = tmp_path / "noise-a.safetensors"
    return SimpleNamespace(results=results, model=model, path=path)


def test_weights_are_loaded_as_they_were_saved(weights):
    other = small_model(seed=2)
    assert not np.array_equal(other.weights[0], weights.model.weights[0])
    Results("noise", weights.path.parent).load_weights("a", other)
    same(other.weights, weights.model.weights)
    assert weights.results.runs["a"]["loss"] == 1
    assert sorted(p.name for p in weights.path.parent.iterdir()) == [
        "noise-a.safetensors",
        "noise.json",
    ]


def test_weights_can_be_saved_before_the_result(tmp_path):
    results, model = Results("noise", tmp_path / "new"), small_model(seed=1)
    results.save_weights("a", model)
    assert results.runs == {}
    results.add("a", {"loss": 1})
    other = small_model(seed=2)
    Results("noise", tmp_path / "new").load_weights("a", other)
    same(other.weights, model.weights)


def test_weights_that_could_not_be_written_leave_the_old_ones(weights, monkeypatch):
    before = weights.path.read_bytes(), weights.results.path.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", interrupt)
        with pytest.raises(Interruption):
            weights.results.save_weights("a", small_model(seed=2))
    assert (weights.path.read_bytes(), weights.results.path.read_bytes()) == before
    Results("noise", weights.path.parent).load_weights("a", small_model())


@pytest.mark.parametrize("place", [3, -1], ids=["head", "tail"])
def test_a_damaged_file_is_refused(weights, place):
    content = bytearray(weights.path.read_bytes())
    content[place] ^= 1
    weights.path.write_bytes(content)
    other = small_model(seed=2)
    before = other.get_weights()
    wanted = r"noise-a.safetensors is damaged: its sha256 is not the one in noise.json"
    with pytest.raises(ValueError, match=wanted):
        weights.results.load_weights("a", other)
    same(other.weights, before)


@pytest.mark.parametrize(
    ("changes", "differing"),
    [
        ({"inputs": 5}, "first/kernel"),
        ({"units": 3}, "second/bias, second/kernel"),
        ({"name": "last"}, "last/bias, last/kernel, second/bias, second/kernel"),
    ],
    ids=["one shape", "two shapes", "names"],
)
def test_weights_of_another_model_are_refused(weights, changes, differing):
    other = small_model(**changes)
    before = other.get_weights()
    with pytest.raises(ValueError) as caught:
        weights.results.load_weights("a", other)
    assert str(caught.value) == (
        f"noise-a.safetensors does not fit the model; differing: {differing}"
    )
    same(other.weights, before)


def test_a_run_without_weights_is_refused_with_those_that_have_some(weights):
    weights.results.save_weights("b", weights.model)
    weights.results.add("c", {"loss": 1})
    wanted = (
        r"`run` must be one with stored weights. Received: run='c'; "
        r"stored: noise-a.safetensors, noise-b.safetensors$"
    )
    with pytest.raises(ValueError, match=wanted):
        weights.results.load_weights("c", weights.model)
    with pytest.raises(ValueError, match=r"run='a'; stored: none$"):
        Results("silence", weights.path.parent).load_weights("a", weights.model)


def test_a_file_that_is_gone_is_refused(weights):
    weights.path.unlink()
    with pytest.raises(ValueError, match="`run` must be one with stored weights.*run='a'"):
        weights.results.load_weights("a", weights.model)


def test_weights_are_plain_numbers_behind_a_plain_header(weights, monkeypatch):
    content = weights.path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    assert sorted(header) == sorted(w.path for w in weights.model.weights)
    numbers = sum(w.numpy().size for w in weights.model.weights)
    assert len(content) == 8 + length + 4 * numbers
    assert weights.path.stat().st_mode & 0o777 == 0o644
    for name in ("load", "loads", "Unpickler", "dump", "dumps", "Pickler"):
        monkeypatch.setattr(pickle, name, interrupt)
    weights.results.save_weights("b", weights.model)
    weights.results.load_weights("b", small_model())


# Models of tokens


def sizes(model):
    return {re.sub(r"^mamba_lm\w*/", "", w.path): tuple(w.shape) for w in model.weights}


def test_the_model_computes_what_a_language_model_does():
    config = MambaConfig(V, E, 2, d_state=2, tie_embeddings=False)
    lm = MambaLM(config, method="recurrent")
    model = token_model(V, E, 2, d_state=2, method="recurrent")
    assert sizes(model) == sizes(lm)
    values = {name: w.numpy() for name, w in zip(sizes(lm), lm.weights, strict=True)}
    for name, w in zip(sizes(model), model.weights, strict=True):
        w.assign(values[name] + 0.01)
    for w in lm.weights:
        w.assign(w + 0.01)
    tokens = TASK.batch(3, 7, seed=0)[0]
    close(model(tokens), lm(tokens))


@pytest.mark.parametrize("make_ssm", [None, lambda: S4D(4)], ids=["S6", "S4D"])
def test_the_model_maps_token_ids_to_logits(make_ssm):
    model = token_model(V, E, 2, make_ssm, d_state=2)
    assert model.input_shape == (None, None)
    assert model.output_shape == (None, None, V)
    paths = [w.path for w in model.weights]
    assert len(set(paths)) == len(paths)
    ssms = [layer.block.ssm for layer in model.layers if layer.name.startswith("block_")]
    assert [type(ssm) for ssm in ssms] == 2 * [SelectiveSSM if make_ssm is None else S4D]
    assert ssms[0] is not ssms[1]
    assert (
        len(paths)
        == len(sizes(model))
        == 3 + sum(len(layer.weights) for layer in model.layers if layer.name.startswith("block_"))
    )


def test_an_s4d_in_the_blocks_takes_any_batch_and_length():
    model = token_model(V, E, 2, lambda: S4D(4))
    for batch, length in ((1, 1), (2, 9)):
        tokens = np.random.default_rng(0).integers(0, V, (batch, length))
        logits = model(tokens)
        assert logits.shape == (batch, length, V)
        close(model(tokens[:, :1]), logits[:, :1])  # causal


@pytest.mark.parametrize("n_layers", [1, 4])
def test_the_blocks_know_how_many_they_are(n_layers):
    block = token_model(V, E, n_layers, lambda: S4D(2)).layers[-3].block
    bound = (n_layers * 2 * E) ** -0.5
    assert 0.8 * bound < np.max(np.abs(block.out_proj.kernel)) <= bound


def test_a_model_is_compiled_with_the_recipe_of_the_paper():
    model = dense_model()
    compile_for(model, 0.3, steps=50, jit_compile=False)
    rates = [float(model.optimizer._learning_rate(step)) for step in (0, 5, 50)]
    close(rates, [0, 0.3, 0.05 * 0.3])
    assert model.jit_compile is False and model.optimizer.global_clipnorm == 1
    compile_for(model, 0.3, steps=50)
    assert model.jit_compile is True


def test_only_answers_that_are_asked_for_count():
    tokens, targets, weights = TASK.batch(40, 9, seed=0)
    model = dense_model()
    compile_for(model, 0.1, steps=9, jit_compile=False)
    model.run_eagerly = True

    def measure(targets):
        return model.test_on_batch(tokens, targets, weights, return_dict=True)

    wanted = measure(targets)
    assert measure(np.where(weights > 0, targets, 3)) == wanted
    said = keras.ops.log_softmax(model(tokens)).numpy()[weights > 0]
    asked = targets[weights > 0]
    close(wanted["loss"], -said[np.arange(len(asked)), asked].mean())
    close(wanted["accuracy"], (said.argmax(-1) == asked).mean())
    assert measure(np.argmax(model(tokens), -1).astype("int32"))["accuracy"] == 1


@pytest.mark.parametrize("smoothing", [0.0, 0.2, 1.0])
def test_smoothing_asks_for_a_share_of_every_token(smoothing):
    tokens, targets, weights = TASK.batch(6, 9, seed=1)
    logits = np.random.default_rng(0).normal(size=(6, 9, V)).astype("float32")
    loss = SmoothedCrossentropy(smoothing)(targets, logits, weights)
    said = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    each = [
        -(1 - smoothing) * said[b, t, targets[b, t]] - smoothing * said[b, t].mean()
        for b, t in np.argwhere(weights > 0)
    ]
    close(loss, np.mean(each), 1e-5)


def test_a_smoothed_loss_is_saved_with_its_smoothing():
    loss = SmoothedCrossentropy(0.3)
    again = SmoothedCrossentropy.from_config(loss.get_config())
    assert again.smoothing == 0.3 and again.reduction == "mean_with_sample_weight"


def test_a_model_is_compiled_with_the_smoothing_asked_for():
    model = dense_model()
    compile_for(model, 0.1, steps=9, jit_compile=False)
    assert model.loss.smoothing == 0
    compile_for(model, 0.1, steps=9, jit_compile=False, label_smoothing=0.25)
    assert model.loss.smoothing == 0.25


# Accuracy


class Answering:
    """In place of a model: says what `answer` makes of the tokens and the right answers."""

    def __init__(self, task, answer):
        self.task, self.answer = task, answer
        self.asked = []

    def predict_on_batch(self, tokens):
        self.asked.append(np.array(tokens))
        said = np.zeros(tokens.shape, int)  # the target where nothing is asked: must not count
        for row, sequence in enumerate(tokens):
            places, answers = right_answers(self.task, sequence)
            said[row, places] = self.answer(row, np.array(answers))
        return np.eye(self.task.vocab_size)[said]


def right_answers(task, tokens):
    """Where answers are asked for, and what they are: from the tokens alone."""
    if isinstance(task, SelectiveCopying):
        return np.flatnonzero(tokens == 1), tokens[tokens > 1]
    first = np.flatnonzero(tokens == 0)[0]
    return [len(tokens) - 1], [tokens[first + 1]]


TASKS = {
    "copying": SelectiveCopying(10, n_tokens=4),
    "induction": InductionHeads(9),
}
tasks = pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)


@tasks
def test_who_answers_everything_has_an_accuracy_of_1(task):
    model = Answering(task, lambda row, answers: answers)
    assert accuracy(model, task, 12) == {"tokens": 1.0, "sequences": 1.0}


@tasks
def test_who_answers_nothing_has_an_accuracy_of_0(task):
    model = Answering(task, lambda row, answers: 0 * answers)
    assert accuracy(model, task, 12) == {"tokens": 0.0, "sequences": 0.0}


@tasks
def test_who_guesses_is_right_by_chance(task):
    rng = np.random.default_rng(0)

    def guess(row, answers):
        return rng.integers(task.specials, task.vocab_size, len(answers))

    found = accuracy(Answering(task, guess), task, 12, sequences=640)
    asked = 640 * (4 if isinstance(task, SelectiveCopying) else 1)
    deviation = (task.chance * (1 - task.chance) / asked) ** 0.5
    assert abs(found["tokens"] - task.chance) < 4 * deviation
    if isinstance(task, SelectiveCopying):
        assert found["sequences"] < task.chance**2


def test_random_logits_are_right_once_in_every_token():
    rng = np.random.default_rng(0)

    class Noise:
        def predict_on_batch(self, tokens):
            return rng.normal(size=(*tokens.shape, 18)).astype("float32")

    found = accuracy(Noise(), SelectiveCopying(18), 40)
    assert abs(found["tokens"] - 1 / 18) < 0.02 and found["sequences"] == 0


def test_a_sequence_is_right_if_all_of_it_is():
    def answer(row, answers):
        answers[-1] *= row % 4 != 0  # one of four sequences has one of four answers wrong
        return answers

    found = accuracy(Answering(TASKS["copying"], answer), TASKS["copying"], 12)
    assert found == {"tokens": 1 - 1 / 16, "sequences": 0.75}


def test_accuracy_asks_as_many_fresh_sequences_as_it_is_told():
    model = Answering(TASK, lambda row, answers: answers)
    accuracy(model, TASK, 9, sequences=24, batch_size=8)
    assert [tokens.shape for tokens in model.asked] == 3 * [(8, 9)]
    assert len(np.unique(np.concatenate(model.asked), axis=0)) > 20
    accuracy(model, TASK, 9, sequences=24, batch_size=8)
    same(model.asked[3:], model.asked[:3])
    accuracy(model, TASK, 9, sequences=24, batch_size=8, seed=1)
    assert not np.array_equal(model.asked[6], model.asked[0])


# Training

STAGES = Stage(8, 3, 3), Stage(12, 1, 2)
PLAN = [(2, 8), (3, 8), (4, 12)]  # steps so far and length, with two steps an epoch


class Listening:
    """In place of a model: notes the batches that it is to be trained on."""

    def __init__(self):
        self.epochs = []

    def fit(self, data, **options):
        self.epochs.append(list(data.as_numpy_iterator()))
        return SimpleNamespace(history={"loss": [1 / 3], "accuracy": [0.123456]})


def listen(seed=0, verbose=False, stages=STAGES, **options):
    model = Listening()
    history = train(model, TASK, stages, seed=seed, steps_per_epoch=2, verbose=verbose, **options)
    return model.epochs, history


def test_a_training_follows_its_stages():
    epochs, history = listen()
    assert [(e["step"], e["length"]) for e in history] == PLAN
    shapes = [[tokens.shape for tokens, _, _ in epoch] for epoch in epochs]
    assert shapes == [[(3, 8), (3, 8)], [(3, 8)], [(2, 12)]]
    for entry in history:
        assert sorted(entry) == ["accuracy", "length", "loss", "seconds", "step"]
        assert (entry["loss"], entry["accuracy"]) == (0.33333, 0.1235)
        assert 0 <= entry["seconds"] < 60
    assert json.loads(json.dumps(history)) == history


def test_every_batch_is_fresh_and_the_seed_decides():
    stages = [Stage(8, 4, 3), Stage(8, 2, 3)]

    def batches(seed):
        return [tokens for epoch in listen(seed, stages=stages)[0] for tokens, _, _ in epoch]

    first = batches(0)
    assert len({tokens.tobytes() for tokens in first}) == 6
    same(batches(0), first)
    assert not any(np.array_equal(*pair) for pair in zip(batches(1), first, strict=True))


def test_batches_ask_what_the_task_asks():
    for epoch in listen()[0]:
        for tokens, targets, weights in epoch:
            np.testing.assert_array_equal(weights, tokens == 1)
            for row, sequence in enumerate(tokens):
                same(targets[row][weights[row] > 0], right_answers(TASK, sequence)[1])


@pytest.mark.parametrize("last", [2, 3])
def test_a_training_ends_when_it_is_told_to(last):
    asked = []

    def enough(step):
        asked.append(step)
        return step == last

    epochs, history = listen(after_epoch=enough)
    steps = [step for step, _ in PLAN if step <= last]
    assert asked == [entry["step"] for entry in history] == steps
    assert len(epochs) == len(steps)


def test_a_training_shows_a_bar_on_stdout(capsys):
    listen(verbose=True)
    out, err = capsys.readouterr()
    assert err == ""
    _, first, *_, last = out.split("\r")  # in between, the bar leaves out what comes too fast
    for line, (step, length) in ((first, PLAN[0]), (last, PLAN[-1])):
        assert re.search(rf"(?<!\d){step}/4\b.* length: {length}\b.* loss: 0.3333", line)
    assert out.endswith("\n")


def test_a_training_can_be_silent(capsys):
    listen()
    assert capsys.readouterr() == ("", "")


def dense_model(seed=0):
    keras.utils.set_random_seed(seed)
    ids = keras.Input((None,), dtype="int32")
    h = keras.layers.Embedding(V, E)(ids)
    return keras.Model(ids, keras.layers.Dense(V)(h))


def mamba_model(seed=0):
    keras.utils.set_random_seed(seed)
    return token_model(V, E, 1, d_state=2, method="recurrent")


def fit(make=dense_model, stages=STAGES, **options):
    """Trains a new model, eagerly: (model, history)."""
    model = make()
    compile_for(model, 0.1, sum(stage.steps for stage in stages), jit_compile=False)
    model.run_eagerly = True
    options = {"steps_per_epoch": 2, "verbose": False, **options}
    return model, train(model, TASK, stages, seed=3, **options)


def without_seconds(history):
    return [{k: v for k, v in entry.items() if k != "seconds"} for entry in history]


def end_alike(got, want):
    (model, history), (wanted_model, wanted_history) = got, want
    same(model.get_weights(), wanted_model.get_weights())
    assert without_seconds(history) == without_seconds(wanted_history)
    for v, w in zip(model.optimizer.variables, wanted_model.optimizer.variables, strict=True):
        np.testing.assert_array_equal(v, w, err_msg=v.path)


def steps_of(history):
    return [(entry["step"], entry["length"]) for entry in history]


HALF_WAY = """
import sys, time
sys.path.insert(0, sys.argv[1])
import test_experiments

test_experiments.fit(backup=sys.argv[2], after_epoch=lambda step: time.sleep(1000))
"""


@pytest.fixture(scope="module")
def half_way(tmp_path_factory):
    """A process that trains one epoch and then waits to be killed; and its backup."""
    backup = tmp_path_factory.mktemp("half_way") / "backup"
    command = [sys.executable, "-c", HALF_WAY, str(Path(__file__).parent), str(backup)]
    with subprocess.Popen(command, cwd=ROOT) as process:
        yield process, backup
        process.kill()


@pytest.fixture(scope="module")
def uninterrupted(half_way):  # which imports TensorFlow meanwhile
    """A training without a backup: its model, history, and all that it prints."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        model, history = fit()
    return model, history, out.getvalue() + err.getvalue()


def test_a_training_moves_every_weight_and_can_be_silent(uninterrupted):
    model, history, printed = uninterrupted
    for w, start in zip(model.weights, dense_model().weights, strict=True):
        assert np.abs(w - start).max() > 1e-3
    assert steps_of(history) == PLAN
    assert int(model.optimizer.iterations) == PLAN[-1][0]
    assert printed == ""


def stop_at(last):
    def after_epoch(step):
        if step == last:
            raise Interruption

    return after_epoch


@pytest.fixture
def fits(monkeypatch):
    """All calls of a model's `fit`."""
    calls, fit_model = [], keras.Model.fit

    def fit_and_note(model, *args, **options):
        calls.append(model)
        return fit_model(model, *args, **options)

    monkeypatch.setattr(keras.Model, "fit", fit_and_note)
    return calls


@pytest.mark.parametrize("places", [[2, 3], [4]], ids=["twice", "at the end"])
def test_a_training_that_was_interrupted_goes_on_to_the_same_weights(
    places, uninterrupted, tmp_path, fits
):
    backup, seen = tmp_path / "new" / "backup", []
    for last in places:
        with pytest.raises(Interruption):
            fit(backup=backup, after_epoch=stop_at(last))
        assert backup.is_dir()
    resumed = fit(backup=backup, after_epoch=seen.append)
    end_alike(resumed, uninterrupted[:2])
    assert [step for step in seen if step > last] == [step for step, _ in PLAN if step > last]
    assert len(fits) == len(PLAN)  # no epoch twice
    assert not backup.exists()


def test_a_training_that_was_interrupted_where_it_would_have_ended_ends_there(tmp_path):
    with pytest.raises(Interruption):
        fit(backup=tmp_path / "backup", after_epoch=stop_at(3))
    model, history = fit(backup=tmp_path / "backup", after_epoch=lambda step: step >= 3)
    assert steps_of(history) == PLAN[:2] and int(model.optimizer.iterations) == 3


def test_a_training_that_is_told_to_end_leaves_no_backup(tmp_path):
    backup, seen = tmp_path / "backup", []

    def after_epoch(step):
        seen.append(len(list(backup.glob("*.index"))))
        return step == 3

    _, history = fit(backup=backup, after_epoch=after_epoch)
    assert seen == [1, 2]
    assert steps_of(history) == PLAN[:2] and not backup.exists()


def test_a_backup_of_another_model_is_refused(tmp_path):
    with pytest.raises(Interruption):
        fit(backup=tmp_path / "backup", after_epoch=stop_at(2))
    with pytest.raises((AssertionError, ValueError)):
        fit(mamba_model, backup=tmp_path / "backup")


def test_a_mamba_goes_on_to_the_same_weights(tmp_path):
    def fit_mamba(backup, after_epoch=None):
        options = {"steps_per_epoch": 1, "backup": backup, "after_epoch": after_epoch}
        return fit(mamba_model, [Stage(4, 2, 1)], **options)

    def copy(step):
        shutil.copytree(tmp_path / "backup", tmp_path / f"after_{step}")

    wanted = fit_mamba(tmp_path / "backup", copy)
    end_alike(fit_mamba(tmp_path / "after_1"), wanted)


def test_a_training_that_was_killed_goes_on_to_the_same_weights(half_way, uninterrupted, fits):
    process, backup = half_way
    wait_for(backup / "checkpoint", process)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    end_alike(fit(backup=backup), uninterrupted[:2])
    assert len(fits) == len(PLAN) - 1
    assert not backup.exists()


def wait_for(file, process):
    end = time.monotonic() + 120
    while not file.exists():
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.02)


# Layers in which not everything is selective

ALL = ("delta", "B", "C")
D, N, L = 4, 3, 4
selections = pytest.mark.parametrize("selective", SELECTIVE.values(), ids=SELECTIVE)


@functools.cache  # no test changes it
def partly_selective(selective):
    options = {"dt_rank": 2, "dt_min": 0.1, "dt_max": 1.0, "method": "recurrent"}
    layer = PartlySelectiveSSM(selective, d_state=N, **options)
    layer.build((None, None, D))
    for i, constant in enumerate(layer.constants.values()):
        constant.assign(np.random.default_rng(i).normal(size=N))
    return layer


def inputs(seed=0):
    return np.random.default_rng(seed).normal(size=(2, L, D)).astype("float32")


def test_selections_are_named_by_what_is_selective():
    assert SELECTIVE["none"] == () and sorted(SELECTIVE["all"]) == sorted(ALL)
    for name in SELECTIVE.keys() - {"none", "all"}:
        assert name == ", ".join(SELECTIVE[name])
        assert set(SELECTIVE[name]) < set(ALL)


@selections
def test_only_what_is_selective_depends_on_the_input(selective):
    layer = partly_selective(selective)
    found = layer.select(inputs(0)), layer.select(inputs(1))
    assert [t.shape for t in found[0]] == [(2, L, D), (2, L, N), (2, L, N)]
    for name, one, other in zip(ALL, *found, strict=True):
        one, other = one.numpy(), other.numpy()
        if name in selective:
            assert np.abs(one - other).max(axis=-1).min() > 1e-3
            assert np.abs(one[:, 1:] - one[:, :-1]).max(axis=-1).min() > 1e-3
        else:
            np.testing.assert_array_equal(one, np.broadcast_to(one[0, 0], one.shape))
            np.testing.assert_array_equal(one, other)


@selections
def test_what_is_not_selective_is_a_learned_constant(selective):
    layer = partly_selective(selective)
    _, *found = layer.select(inputs())
    for name, value in zip("BC", found, strict=True):
        wanted = np.broadcast_to(layer.constants[name], value.shape)
        assert np.array_equal(value, wanted) == (name not in selective)
    plain = tf.math.softplus(layer.dt_bias)
    steps = layer.step_sizes(inputs())
    assert np.allclose(steps, np.broadcast_to(plain, steps.shape)) == ("delta" not in selective)


@selections
def test_what_is_selective_is_what_it_is_in_a_selective_layer(selective):
    layer = partly_selective(selective)
    found, wanted = layer.select(inputs()), selective_like(layer).select(inputs())
    for name, one, other in zip(ALL, found, wanted, strict=True):
        if name in selective:
            np.testing.assert_array_equal(one, other)


def inner_name(weight):
    """x_proj/kernel of selective_ssm_3/x_proj/kernel."""
    return weight.path.split("/", 1)[1]


def by_name(layer):
    return {inner_name(w): w for w in layer.weights}


def selective_like(layer):
    """A `SelectiveSSM` with the weights of another."""
    plain = SelectiveSSM(layer.d_state, layer.dt_rank, method=layer.method)
    plain.build((None, None, D))
    weights = by_name(layer)
    for w in plain.weights:
        w.assign(weights[inner_name(w)])
    return plain


def test_with_everything_selective_it_is_a_selective_layer():
    layer = partly_selective(SELECTIVE["all"])
    got = layer(inputs(), return_state=True)
    same(got, selective_like(layer)(inputs(), return_state=True))
    assert set(by_name(layer)) - set(by_name(selective_like(layer))) == {"B", "C"}


@selections
def test_its_steps_are_its_calls(selective):
    layer = partly_selective(selective)
    wanted, state_after = layer(inputs(), return_state=True)
    state = layer.zero_state(2)
    for t in range(L):
        y, state = layer.step(inputs()[:, t], state)
        close(y, wanted[:, t])
    close(state, state_after)


@selections
def test_it_is_linear_only_if_nothing_is_selective(selective):
    layer = partly_selective(selective)
    one, other = inputs(0)
    y_one, y_other, y_sum = layer(np.stack([one, other, one + other]))
    difference = np.abs(y_one + y_other - y_sum).max()
    assert (difference < 1e-5) == (selective == ())


@selections
def test_the_gradient_reaches_what_is_in_use(selective):
    layer = partly_selective(selective)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(layer(inputs()) ** 2)
    names = [inner_name(w) for w in layer.weights]
    found = tape.gradient(loss, [w.value for w in layer.weights])
    reached = {n for n, g in zip(names, found, strict=True) if g is not None and np.any(g)}
    used = {"A_log", "D", "dt_bias"} | {name for name in "BC" if name not in selective}
    used |= {"x_proj/kernel"} if selective else set()
    used |= {"dt_proj/kernel"} if "delta" in selective else set()
    assert reached == used


# The experiments on selectivity


def test_the_model_of_all_runs_is_decided_by_its_seed():
    model, again, other = (selectivity.model_of(seed, lambda: S4D(2)) for seed in (1, 1, 2))
    same(again.get_weights(), model.get_weights())
    assert not np.array_equal(other.weights[0], model.weights[0])
    assert model.output_shape == (None, None, selectivity.TASK.vocab_size)
    blocks = [layer for layer in model.layers if layer.name.startswith("block_")]
    assert [layer.input.shape[-1] for layer in blocks] == [64, 64]


def test_what_a_run_measures(monkeypatch, tmp_path):
    told = {}
    monkeypatch.setattr(
        selectivity, "compile_for", lambda *args, **kwargs: told.update(compiled=args)
    )
    monkeypatch.setattr(
        selectivity, "train", lambda *args, **kwargs: told.update(trained=(args, kwargs)) or [1]
    )
    monkeypatch.setattr(
        selectivity, "accuracy", lambda model, task, length, **_: {"tokens": length / 100}
    )
    model, stages = dense_model(), (Stage(8, 5, 3), Stage(12, 2, 2))
    found = selectivity.train_and_measure(model, 0.25, 7, stages, tmp_path)
    assert found == {
        "learning_rate": 0.25,
        "seed": 7,
        "parameters": V * E + E * V + V,
        "history": [1],
        "accuracy": {"12": {"tokens": 0.12}, "24": {"tokens": 0.24}},
    }
    assert told["compiled"] == (model, 0.25, 7)  # of 7 steps
    args, kwargs = told["trained"]
    assert args == (model, selectivity.TASK, stages)
    assert kwargs == {"seed": 7, "backup": tmp_path}


def test_every_stage_has_room_for_the_task():
    for stage in selectivity.STAGES:
        assert stage.length >= selectivity.TASK.shortest
    assert [dataclasses.astuple(s) for s in selectivity.STAGES] == sorted(
        dataclasses.astuple(s) for s in selectivity.STAGES
    )


@pytest.fixture
def untrained(monkeypatch):
    """Nothing trains: what would have been trained, by its name."""
    made, plain = {}, small_model()

    def model_of(seed, make_ssm=None, **block):
        ssm = None if make_ssm is None else make_ssm()
        stored = seed == 0 and not isinstance(ssm, PartlySelectiveSSM)
        model = token_model(V, E, 1, make_ssm, d_state=2) if stored else plain
        made["next"] = SimpleNamespace(model=model, seed=seed, ssm=ssm, block=block)
        return model

    def train_and_measure(model, rate, seed, stages, backup):
        run = made.pop("next")
        assert run.model is model and run.seed == seed
        run.rate, run.stages, run.backup = rate, stages, backup
        made[backup.name.removesuffix(".backup")] = run
        return {"learning_rate": rate, "seed": seed}

    monkeypatch.setattr(selectivity, "model_of", model_of)
    monkeypatch.setattr(selectivity, "train_and_measure", train_and_measure)
    return made


def test_the_runs_of_selective_copying_are_what_their_names_say(untrained, tmp_path):
    results = selectivity.main(tmp_path)
    assert set(untrained) == set(results.runs)
    for name, run in untrained.items():
        kind, rate, seed = name.split("-")
        measured = results.runs[name]
        assert (measured["learning_rate"], measured["seed"]) == (float(rate), int(seed))
        at_once = kind == "s6 at once"
        assert run.stages == (selectivity.AT_ONCE if at_once else selectivity.STAGES)
        assert run.block == {} and run.backup.parent == tmp_path
        if kind.startswith("s6"):
            assert run.ssm is None
        else:
            assert kind == "s4d" and type(run.ssm) is S4D and run.ssm.d_state == 64
    stored = {path.name for path in tmp_path.glob("*.safetensors")}
    for name in [n for n in untrained if n.startswith("s6 at once")]:
        assert untrained.pop(name).seed == 0  # no weights are stored of it
    wanted = {f"selective-copying-256-{n}.safetensors" for n in untrained if n.endswith("-0")}
    assert stored == wanted == set(json.loads(results.path.read_text())["sha256"])
    fit_models_made_anew(results, untrained)


def fit_models_made_anew(results, runs):
    """A process that loads weights has not made the same models before as the one that saved them.

    So weights must not have names that Keras makes up by counting layers.
    """
    names = {run.ssm.name for run in runs.values() if run.ssm}
    assert len(names) == 1, names
    for name, run in runs.items():
        if run.seed == 0:
            make_ssm = run.ssm and functools.partial(S4D, **run.ssm.get_config())
            model = token_model(V, E, 1, make_ssm, d_state=2)
            results.load_weights(name, model)
            same(model.weights, run.model.weights)


def test_starting_at_once_costs_as_many_tokens():
    tokens = [
        sum(stage.steps * stage.batch_size * stage.length for stage in stages)
        for stages in (selectivity.STAGES, selectivity.AT_ONCE)
    ]
    assert tokens[1] == pytest.approx(tokens[0], rel=0.01)
    assert selectivity.AT_ONCE[0].length == selectivity.STAGES[-1].length


def test_the_runs_of_the_ablation_are_what_their_names_say(untrained, tmp_path):
    results = selectivity.ablation(tmp_path)
    assert set(untrained) == set(results.runs)
    assert not list(tmp_path.glob("*.safetensors"))
    for name, run in untrained.items():
        kind, seed = name.rsplit("-", 1)
        assert results.runs[name]["seed"] == run.seed == int(seed)
        assert run.rate == selectivity.S6_RATE and run.stages == selectivity.ABLATION_STAGES
        assert run.backup.parent == tmp_path
        if kind.startswith("rank "):
            assert run.ssm is None and run.block == {"dt_rank": int(kind[5:])}
        else:
            assert type(run.ssm) is PartlySelectiveSSM and run.block == {}
            assert run.ssm.selective == SELECTIVE[kind] and run.ssm.dt_rank == 4


# The experiment on delays


def stated(function, pattern):
    """A number that a docstring promises."""
    return int(re.search(pattern, function.__doc__)[1])


def test_smooth_noise_has_mean_square_1():
    x = delay.smooth_noise(5, 0)
    assert x.shape == (5, delay.LENGTH) and x.dtype == np.float32
    close((x.astype("float64") ** 2).mean(axis=1), np.ones(5))


def test_smooth_noise_has_no_wave_that_is_shorter_than_it_says():
    shortest = stated(delay.smooth_noise, r"waves of at least (\d+) steps")
    x = delay.smooth_noise(40, 0).astype("float64")
    window = np.blackman(delay.LENGTH)  # or the ends of the signals would look like short waves
    power = (np.abs(np.fft.rfft(x * window)) ** 2).mean(axis=0)
    power /= power.sum()
    highest = delay.LENGTH // shortest
    assert power[highest + 4 :].sum() < 1e-6
    assert power[highest - 4 : highest].sum() > 0.5 * 4 / highest  # all others are there
    assert power[:5].sum() > 0.5 * 4 / highest


def test_smooth_noise_is_decided_by_its_seed():
    first = delay.smooth_noise(3, (1, 2))
    same(delay.smooth_noise(3, (1, 2)), first)
    for other in (delay.smooth_noise(3, (1, 3)), delay.smooth_noise(3, 7)):
        assert np.abs(other - first).max() > 0.1
    assert np.abs(np.corrcoef(first)[0, 1]) < 0.5


def test_the_target_is_the_input_of_500_steps_before():
    lag = stated(delay.examples, r"the input (\d+) steps before")
    x, y = delay.examples(3, 5)
    assert x.shape == y.shape == (3, delay.LENGTH, 1)
    same(x[..., 0], delay.smooth_noise(3, 5))
    for t in (lag, lag + 1, delay.LENGTH - 1):
        same(y[:, t], x[:, t - lag])
    assert not y[:, :lag].any()
    assert lag == delay.LAG


@pytest.mark.parametrize("initialization", INITIALIZATIONS)
def test_the_model_of_the_delay_is_linear(initialization):
    model = delay.delay_model(initialization, 0)
    for w in model.weights:
        w.assign(w + 0.01)  # a bias too, if there were one
    (one, other), _ = delay.examples(2, 0)
    both = np.stack([one, other, 2 * one - 3 * other, 0 * one])
    y_one, y_other, y_sum, y_zero = model(both).numpy()
    assert y_one.shape == (delay.LENGTH, 1) and np.abs(y_one).max() > 1e-3
    close(y_sum, 2 * y_one - 3 * y_other, 1e-4 * np.abs(y_sum).max())
    assert not y_zero.any()


def test_the_model_of_the_delay_is_decided_by_its_seed():
    model, again, other = (delay.delay_model("random", seed) for seed in (1, 1, 2))
    same(again.get_weights(), model.get_weights())
    for w, v in zip(model.weights, other.weights, strict=True):
        assert w.name == "D" or np.abs(w - v).max() > 1e-3, w.path
    channels = [w for w in model.weights if w.path.endswith("write/kernel")][0].shape[1]
    assert channels == delay.CHANNELS


def test_weights_of_a_delay_fit_a_model_that_is_made_anew(tmp_path):
    results = Results("delay", tmp_path)
    first, second = delay.delay_model("inv", 0), delay.delay_model("inv", 1)
    results.save_weights("inv-0", first)
    results.load_weights("inv-0", second)
    same(second.weights, first.weights)


def saying(answer):
    """In place of a model: any function of the signals."""
    return SimpleNamespace(predict=lambda x, verbose: answer(x))


def test_the_error_is_in_units_of_the_signal():
    def late(x):
        y = np.full_like(x, 7)  # nonsense where there is no target
        y[:, delay.LAG :] = x[:, : -delay.LAG]
        return y

    assert delay.relative_error(saying(late)) == 0
    assert abs(delay.relative_error(saying(np.zeros_like)) - 1) < 0.1
    assert abs(delay.relative_error(saying(lambda x: late(x) + 0.5)) - 0.5) < 1e-4


class Delaying(Listening):
    """In place of a model of the delay: has learned it from the start."""

    def compile(self, optimizer, loss, **_):
        self.optimizer, self.loss = optimizer, loss

    def fit(self, dataset, **options):
        batches = list(dataset.as_numpy_iterator())
        x, y = (np.concatenate(parts) for parts in zip(*batches, strict=True))
        self.epochs.append((x, y, {**options, "batch_size": len(batches[0][0])}))
        return SimpleNamespace(history={"loss": [1 / (2 + len(self.epochs))]})

    def predict(self, x, verbose):
        return np.roll(x, delay.LAG, axis=1) + 0.25


def test_a_delay_is_trained_and_measured(monkeypatch, capsys):
    monkeypatch.setattr(delay, "delay_model", lambda *arguments: Delaying())
    monkeypatch.setattr(delay, "STEPS", 400)
    monkeypatch.setattr(delay, "BATCH_SIZE", 2)
    model, measured = delay.train_one("legs", 1)
    assert measured == {
        "initialization": "legs",
        "seed": 1,
        "losses": [0.33333, 0.25],
        "relative_error": 0.25,
    }
    rates = [float(model.optimizer._learning_rate(step)) for step in (0, 200, 400)]
    close(rates, np.array([1, 0.5, 0]) * delay.LEARNING_RATE)
    assert model.loss == "mse"
    out, err = capsys.readouterr()
    assert "200/400" in out and "400/400" in out and out.endswith("\n") and err == ""
    (x, y, options), (later, _, _) = model.epochs
    assert len(x) == 400 and options["batch_size"] == 2 and options["shuffle"] is False
    same(y[:, delay.LAG :], x[:, : -delay.LAG])
    assert np.abs(later - x).max() > 0.1
    again, _ = delay.train_one("legs", 1)
    same(again.epochs[1][0], later)
    other, _ = delay.train_one("legs", 2)
    assert np.abs(other.epochs[0][0] - x).max() > 0.1


def test_the_runs_of_the_delay_are_what_their_names_say(monkeypatch, tmp_path):
    def train_one(initialization, seed):
        return model, {"initialization": initialization, "seed": seed}

    model = small_model()
    monkeypatch.setattr(delay, "train_one", train_one)
    results = delay.main(tmp_path)
    assert len(results.runs) == len(INITIALIZATIONS) * delay.SEEDS
    for name, run in results.runs.items():
        assert name == f"{run['initialization']}-{run['seed']}"
    stored = {path.name for path in tmp_path.glob("*.safetensors")}
    assert stored == {f"delay-{i}-0.safetensors" for i in INITIALIZATIONS}
    for initialization in INITIALIZATIONS:
        results.load_weights(f"{initialization}-0", model)


# The experiment on letters


def test_letters_are_read_as_ids():
    ids = letters.encode("a Z\n\u00e9,b")
    assert [letters.ALPHABET[i] for i in ids] == list("a z\n  b")
    assert sorted(letters.encode(letters.ALPHABET)) == list(range(len(letters.ALPHABET)))


def test_the_model_of_letters_is_decided_by_its_seed():
    model, again, other = (letters.letter_model(seed) for seed in (1, 1, 2))
    same(again.get_weights(), model.get_weights())
    assert not np.array_equal(other.weights[0], model.weights[0])
    assert model.config.vocab_size == len(letters.ALPHABET)


def test_the_run_of_letters_is_stored_with_its_weights(monkeypatch, tmp_path):
    made = small_model(seed=1)
    monkeypatch.setattr(letters, "train_letters", lambda: (made, {"seed": 0}))
    results = letters.main(tmp_path)
    [run] = results.runs
    other = small_model(seed=2)
    results.load_weights(run, other)
    same(other.weights, made.weights)


# Induction


@pytest.fixture
def quick_induction(monkeypatch):
    """Steps cost nothing, and the share of right answers is made up, test after test."""
    shares, told = [], {}

    def compile_for(model, rate, steps, **options):
        told.update(rate=rate, steps=steps, **options)

    def train(model, task, stages, *, seed, after_epoch, **options):
        told.update(seed=seed, stages=stages, task=task)
        for step in range(50, stages[0].steps + 1, 50):
            if after_epoch(step):
                break
        return [{"step": step, "accuracy": 1.0}]

    def accuracy(model, task, length, sequences=256, seed=10_000, **_):
        told.setdefault("asked", []).append((length, seed))
        return {"tokens": shares.pop(0) if shares else 0.5}

    for name, made_up in {"compile_for": compile_for, "train": train}.items():
        monkeypatch.setattr(induction, name, made_up)
    monkeypatch.setattr(induction, "accuracy", accuracy)
    monkeypatch.setattr(induction, "token_model", lambda *_: dense_model())
    return shares, told


def test_induction_ends_when_99_percent_are_right(quick_induction):
    shares, told = quick_induction
    shares += [0.1, 0.98, 0.99, 0.2]
    _, curve, history = induction.learn_induction(seed=4)
    assert curve == {50: 0.1, 100: 0.98, 150: 0.99} and history[-1]["step"] == 150
    assert told["seed"] == 4 and told["task"] == induction.TASK
    assert set(told["asked"]) == {(256, 10_000)} and told["steps"] == 300


def test_induction_ends_after_300_steps_at_length_32(quick_induction):
    _, told = quick_induction
    _, curve, _ = induction.learn_induction()
    assert list(curve) == [50, 100, 150, 200, 250, 300]
    assert told["stages"] == [Stage(32, 300, 64)]


def test_the_runs_of_induction_are_what_their_names_say(quick_induction, monkeypatch, tmp_path):
    made, told = [], quick_induction[1]

    def learn(make_ssm, seed, smoothing):
        made.append((make_ssm and make_ssm(), seed, smoothing))
        return dense_model(), {300: 0.5}, [{"step": 300}]

    monkeypatch.setattr(induction, "learn_induction", learn)
    results = induction.main(tmp_path)
    made = sorted((type(ssm) is S4D, seed, smoothing) for ssm, seed, smoothing in made)
    assert made == sorted(
        (name.startswith("s4d"), int(name.split("-")[1]), 0.0 if "plain" in name else 0.2)
        for name in results.runs
    )
    for name, run in results.runs.items():
        assert name.endswith(f"-{run['seed']}")
        assert run["label_smoothing"] == (0 if "plain" in name else 0.2)
        assert run["accuracy"] == {"32": {"tokens": 0.5}, "256": {"tokens": 0.5}}
    assert set(told["asked"]) == {(32, 20_000), (256, 20_000)}  # none that ended a training


# All experiments, and what is stored of them


def script_of(name, monkeypatch, folder=None):
    """The results and the runs of an experiment, of which none is made."""
    entry, found = EXPERIMENTS[name], {}
    module = import_module(entry.load().main.__module__)  # where its code stands
    monkeypatch.setattr(module, "complete", lambda results, runs: found.update(runs=runs))
    monkeypatch.setattr(Results, "set_metrics", lambda *_: None)
    results = entry.load().main(folder)
    return results, found["runs"]


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_writes_where_it_is_told(name, monkeypatch, tmp_path):
    entry = EXPERIMENTS[name]
    results, runs = script_of(name, monkeypatch, tmp_path)
    assert results.name == entry.load().name == name
    assert results.path == tmp_path / f"{name}.json"
    assert list(tmp_path.iterdir()) == []
    assert script_of(name, monkeypatch)[0].folder == store.RESULTS
    said = re.match(r"chapter \d\d: .*\((\d+|one) runs? of", entry.text)[1]
    assert said == ("one" if len(runs) == 1 else str(len(runs)))


STORED = sorted(store.RESULTS.glob("*.json"))
stored_files = pytest.mark.parametrize("path", STORED, ids=[path.stem for path in STORED])
# Those of chapters 12 to 15 are in test_next_token, test_sentiment, test_long_memory, ...
OWN = [
    path
    for path in STORED
    if EXPERIMENTS[path.stem].module
    in ("block_parts", "delay", "induction", "letters", "selectivity")
]
own_files = pytest.mark.parametrize("path", OWN, ids=[path.stem for path in OWN])


def numbers(value):
    """All numbers in what JSON can hold."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from numbers(item)
    elif isinstance(value, (int, float)):
        yield value


def content_of(path):
    return json.loads(path.read_text("utf-8"))


def stored_run(path, weights):
    """The run of an experiment whose weights are in a file of this name."""
    return weights.removeprefix(f"{path.stem}-").removesuffix(".safetensors")


def test_all_stored_files_belong_to_an_experiment():
    known = {name for path in STORED for name in (path.name, *content_of(path)["sha256"])}
    assert {path.name for path in store.RESULTS.glob("[!._]*")} == known
    assert {path.stem for path in STORED} <= set(EXPERIMENTS)


@stored_files
def test_stored_runs_are_those_of_the_script(path, monkeypatch):
    results, runs = script_of(path.stem, monkeypatch)
    assert sorted(results.runs) == sorted(runs)
    assert content_of(path)["name"] == path.stem


@stored_files
def test_stored_runs_hold_numbers_and_what_they_were_made_with(path):
    for name, run in Results(path.stem).runs.items():
        assert {"python", "tensorflow", "keras"} <= run["versions"].keys(), name
        assert all(run["versions"].values()) and run["machine"], name
        assert name.split("-")[-1] == str(run["seed"])
        found = list(numbers(run))
        assert len(found) > 2 and np.all(np.isfinite(found)), name


@own_files
def test_stored_runs_have_the_length_that_the_script_has_now(path):
    for name, run in Results(path.stem).runs.items():
        if path.stem == "delay":
            assert len(run["losses"]) == delay.STEPS // 200, name
        elif path.stem == "letters":
            assert run["steps"] == letters.STEPS
        elif path.stem == "induction-256":
            last = max(map(int, run["curve"]))
            assert run["history"][-1]["step"] == last <= induction.STAGE.steps
            enough = run["curve"][str(last)] >= induction.ENOUGH
            assert enough or last == induction.STAGE.steps
        elif path.stem == "block-parts":
            wanted = {"letters": block_parts.STEPS, "recall": block_parts.STAGE.steps}
            assert run["steps"] == wanted[run["test"]]
            assert name == f"{run['test']}: {run['variant']}-{run['seed']}"
        else:
            ablation, at_once = path.stem == "selection-ablation", "at once" in name
            stages = selectivity.ABLATION_STAGES if ablation else selectivity.STAGES
            stages = selectivity.AT_ONCE if at_once else stages
            steps = {s.length: s.steps for s in stages}
            assert run["history"][-1]["step"] == sum(steps.values()), name
            assert [e["length"] for e in run["history"]] == [
                length for length in steps for _ in range(-(-steps[length] // 100))
            ], name
            assert set(run["accuracy"]) == {str(n * stages[-1].length) for n in (1, 2)}, name


@own_files
def test_stored_weights_are_whole(path):
    content = content_of(path)
    stores = path.stem not in ("selection-ablation", "induction-256", "block-parts")
    for name, checksum in content["sha256"].items():
        assert sha256_of(path.with_name(name)) == checksum, name
    assert {stored_run(path, name) for name in content["sha256"]} == {
        run
        for run in content["runs"]
        if stores and run.split("-")[-1] == "0" and "at once" not in run
    }


@own_files
def test_stored_weights_fit_a_model_that_is_made_anew(path, monkeypatch):
    results, runs = script_of(path.stem, monkeypatch)
    for name in content_of(path)["sha256"]:
        run = stored_run(path, name)
        if path.stem == "delay":
            model = delay.delay_model(run.split("-")[0], 0)
        elif path.stem == "letters":
            model = letters.letter_model()
        else:
            model = model_to_train(runs[run], monkeypatch)
        results.load_weights(run, model)


def model_to_train(run, monkeypatch):
    """The model that a run on selectivity makes, before it is trained."""
    given = []

    def note(model, *_):
        given.append(model)
        raise Interruption

    monkeypatch.setattr(selectivity, "train_and_measure", note)
    with pytest.raises(Interruption):
        run()
    return given[0]
