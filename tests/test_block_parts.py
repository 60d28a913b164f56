"""The block with a switch at each part, of chapter 09's experiment."""

import keras
import numpy as np
import pytest

from tf_mamba_edu import ResidualBlock
from tf_mamba_edu.experiments.block_parts import LAYERS, VARIANTS, WIDTH, SwitchedBlock

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
