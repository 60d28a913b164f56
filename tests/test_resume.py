"""Training that is killed at random moments ends as if it had not been."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pytest

from tf_mamba_edu.resume import fit_resumable

EPOCHS = 6
SCRIPT = """
import sys
sys.path.insert(0, {tests!r})
import test_resume
test_resume.train(sys.argv[1], slow=True)
"""


def model(units=3):
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Dense(units, "tanh"), keras.layers.Dropout(0.5), keras.layers.Dense(1)]
    made = keras.Sequential([keras.Input((4,)), *layers])
    made.compile(keras.optimizers.Adam(0.01), "mse")
    return made


def data(epoch):
    rng = np.random.default_rng(epoch)
    x = rng.normal(size=(32, 4)).astype("float32")
    return x, x[:, :1]


class Slow(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        time.sleep(0.05)


def train(folder, epochs=EPOCHS, slow=False, **options):
    made = model()
    history = fit_resumable(
        made,
        data,
        epochs,
        folder,
        batch_size=8,
        verbose=0,
        callbacks=[Slow()] if slow else [],
        **options,
    )
    return made, history


def everything(made):
    return [v.numpy() for v in (*made.variables, *made.optimizer.variables)]


def same(one, other):
    for a, b in zip(everything(one), everything(other), strict=True):
        np.testing.assert_array_equal(a, b)


def test_epochs_one_by_one_are_the_whole_training(tmp_path):
    whole, history = train(tmp_path / "whole")
    for epochs in range(1, EPOCHS + 1):
        parts, found = train(tmp_path / "parts", epochs)
    same(parts, whole)
    assert found == history and len(history["loss"]) == EPOCHS
    assert int(whole.optimizer.iterations) == EPOCHS * 4
    assert sorted(p.name for p in (tmp_path / "parts").iterdir()) == [
        f"epoch-{EPOCHS}.json",
        f"epoch-{EPOCHS}.weights.h5",
    ]


def test_what_is_done_is_not_done_again(tmp_path):
    whole, history = train(tmp_path)

    def refuse(epoch):
        raise AssertionError

    again = model()
    assert fit_resumable(again, refuse, EPOCHS, tmp_path, verbose=0) == history
    same(again, whole)


def test_validation_is_measured_after_each_epoch(tmp_path):
    _, history = train(tmp_path, 3, validation_data=data(99))
    assert history.keys() == {"loss", "val_loss"} and len(history["val_loss"]) == 3


def test_a_training_that_is_killed_again_and_again_ends_the_same(tmp_path):
    whole, history = train(tmp_path / "whole")
    folder = tmp_path / "killed"
    code = SCRIPT.format(tests=str(Path(__file__).parent))
    start = [sys.executable, "-c", code, str(folder)]
    rng, kills = random.Random(0), 0
    while kills < 5:
        running = subprocess.Popen(start, env=os.environ, stderr=subprocess.DEVNULL)
        before = time.monotonic()
        seen = set(folder.glob("*")) if folder.exists() else set()
        while running.poll() is None and time.monotonic() - before < 120:
            now = set(folder.glob("*")) if folder.exists() else set()
            if now != seen:  # a new epoch was stored, or is being stored
                break
            time.sleep(0.005)
        time.sleep(rng.uniform(0, 0.25))
        if running.poll() is None:
            running.send_signal(signal.SIGKILL)
        kills += 1
        assert running.wait() in (-signal.SIGKILL, 0)
    ended, found = train(folder)
    same(ended, whole)
    assert found == history


@pytest.mark.parametrize("moment", ["json", "weights"])
def test_a_kill_while_storing_leaves_the_epoch_before(moment, tmp_path, monkeypatch):
    train(tmp_path, 2)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    replace = os.replace

    def killed(source, target):
        if str(target).endswith(".json") == (moment == "json"):
            raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, 3)
    monkeypatch.undo()
    left = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    assert {name: left[name] for name in before} == before
    ended, _ = train(tmp_path)
    same(ended, train(tmp_path / "whole")[0])


# Bad input


def test_a_state_of_another_model_is_refused(tmp_path):
    train(tmp_path, 1)
    other = model(units=5)
    with pytest.raises(ValueError, match="does not fit this model, or is damaged"):
        fit_resumable(other, data, 2, tmp_path, verbose=0)


@pytest.mark.parametrize("suffix", ["weights.h5", "json"])
def test_a_damaged_state_is_refused(suffix, tmp_path):
    train(tmp_path, 1)
    file = tmp_path / f"epoch-1.{suffix}"
    file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(ValueError, match="does not fit this model, or is damaged"):
        train(tmp_path)


def test_a_model_must_be_compiled(tmp_path):
    with pytest.raises(ValueError, match="`model` must be compiled and built"):
        fit_resumable(keras.Sequential([keras.layers.Dense(1)]), data, 1, tmp_path)
    assert not list(tmp_path.iterdir())


def test_epochs_are_counted(tmp_path):
    with pytest.raises(ValueError, match="`epochs` must be a positive integer"):
        train(tmp_path, 0)


def test_a_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="`folder` cannot be made"):
        train(tmp_path / "file" / "below")


def test_a_full_disk_leaves_what_was_there(tmp_path, monkeypatch):
    train(tmp_path, 2)

    def full(*_, **__):
        raise OSError("no space left on device")

    monkeypatch.setattr(keras.Model, "save_weights", full)
    with pytest.raises(ValueError, match="cannot be written: no space left"):
        train(tmp_path, 3)
    monkeypatch.undo()
    assert json.loads((tmp_path / "epoch-2.json").read_text())["history"]["loss"]
    ended, _ = train(tmp_path)
    same(ended, train(tmp_path / "whole")[0])
