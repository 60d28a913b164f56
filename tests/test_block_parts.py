"""The block with a switch at each part, of chapter 09's experiment."""

import keras
import numpy as np
import pytest

from tf_mamba_edu import ResidualBlock
from tf_mamba_edu.experiments import block_parts
from tf_mamba_edu.experiments.block_parts import LAYERS, VARIANTS, WIDTH, SwitchedBlock
from tf_mamba_edu.experiments.store import Results
from tf_mamba_edu.experiments.token_models import Stage

X = np.random.default_rng(0).normal(size=(2, 20, WIDTH)).astype("float32")


def built(layer):
    keras.utils.set_random_seed(0)
    layer.build((None, None, WIDTH))
    return layer


def pairs(switched, block):
    """The same weights in both layers."""
    ours = block.block
    found = [
        (switched.in_proj.kernel, ours.in_proj.kernel),
        (switched.out_proj.kernel, ours.out_proj.kernel),
        (switched.norm.scale, block.norm.scale),
    ]
    for one, other in ((switched.conv, ours.conv), (switched.ssm, ours.ssm)):
        found += zip(one.weights, other.weights, strict=True)
    return found


def test_with_all_switches_on_it_is_the_residual_block():
    switched = built(SwitchedBlock())
    block = built(ResidualBlock(block={"n_layers": LAYERS}))
    assert len(pairs(switched, block)) == len(block.weights) == len(switched.weights)
    for one, other in pairs(switched, block):
        one.assign(other)
    np.testing.assert_allclose(switched(X), block(X), 1e-5, 1e-5)


@pytest.mark.parametrize("name", VARIANTS)
def test_each_switch_changes_what_is_computed_or_learned(name):
    whole, variant = built(SwitchedBlock()), built(SwitchedBlock(**VARIANTS[name]))
    assert variant(X).shape == X.shape
    weights = [tuple(w.shape) for w in variant.trainable_weights]
    same_weights = weights == [tuple(w.shape) for w in whole.trainable_weights]
    same_start = same_weights and all(
        np.array_equal(a, b) for a, b in zip(variant.weights, whole.weights, strict=True)
    )
    switches = VARIANTS[name].keys() & {"activation", "norm", "residual"}
    assert (not same_start) or switches or name == "whole block"
    if name == "whole block":
        np.testing.assert_array_equal(variant(X), whole(X))


def test_a_part_that_is_missing_is_not_among_the_weights():
    counts = {
        name: block_parts.small_model(16, 0, **switches).count_params()
        for name, switches in VARIANTS.items()
    }
    whole = counts["whole block"]
    fewer = "no SSM", "no convolution", "convolution of 2", "no gate", "no norm", "Delta of rank 1"
    more = "convolution of 8", "Delta of rank 32"
    for name, count in counts.items():
        sign = -1 if name in fewer else int(name in more)
        assert np.sign(count - whole) == sign, name


@pytest.mark.parametrize("name", ["whole block", "no SSM"])
def test_a_run_on_letters_tells_bits_and_parameters(name):
    found = block_parts.on_letters(name, seed=1, steps=3)
    assert (found["test"], found["variant"]) == ("letters", name)
    assert 3 < found["bits_per_letter"] < 6  # log2(28) = 4.8 is knowing nothing
    assert found == block_parts.on_letters(name, seed=1, steps=3)


def test_a_run_on_recall_tells_shares_by_length(monkeypatch):
    monkeypatch.setattr(block_parts, "SEQUENCES", 64)
    found = block_parts.on_recall("no gate", seed=2, stage=Stage(8, 60, 4))
    assert found["test"] == "recall" and set(found["accuracy"]) == {"8", "256"}
    assert all(0 <= share <= 1 for share in found["accuracy"].values())


def test_all_runs_are_made_once_and_stored(monkeypatch, tmp_path):
    made = []

    def run(test):
        return lambda name, seed: made.append((test, name, seed)) or {"test": test}

    monkeypatch.setattr(block_parts, "TESTS", {t: run(t) for t in block_parts.TESTS})
    for _ in range(2):
        block_parts.main(tmp_path)
    assert len(made) == len(set(made)) == 2 * 3 * len(VARIANTS)
    assert len(Results("block-parts", tmp_path).runs) == len(made)
