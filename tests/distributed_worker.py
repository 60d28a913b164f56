"""One process of the tests of training on several devices: trains, and writes what came out.

Usage: distributed_worker.py one | mirrored | workers FILE (with TF_CONFIG set for workers).
"""

import sys

import keras
import numpy as np
import tensorflow as tf

from tf_mamba_edu import MambaConfig, MambaLM, make_optimizer
from tf_mamba_edu.training import fit_distributed

VOCABULARY = 17


def choose_strategy(kind):
    if kind == "mirrored":
        [cpu] = tf.config.list_physical_devices("CPU")
        two = [tf.config.LogicalDeviceConfiguration()] * 2
        tf.config.set_logical_device_configuration(cpu, two)
        return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    if kind == "workers":
        return tf.distribute.MultiWorkerMirroredStrategy()
    return tf.distribute.get_strategy()


def make_model(strategy):
    with strategy.scope():
        keras.utils.set_random_seed(7)
        lm = MambaLM(MambaConfig(VOCABULARY, 8, 2, d_state=4))
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        lm.compile(make_optimizer(1e-2, 30, warmup_steps=0), loss, jit_compile=False)
    return lm


def data():
    """Batches of 8, and a last one of a single example: fewer than there are replicas."""
    ids = np.random.default_rng(0).integers(0, VOCABULARY, (41, 12)).astype("int32")
    return tf.data.Dataset.from_tensor_slices((ids, (3 * ids + 1) % VOCABULARY)).batch(8)


def main(kind, file):
    strategy = choose_strategy(kind)
    lm = make_model(strategy)
    results = {f"before {v.path}": v.numpy() for v in lm.weights}
    history = fit_distributed(lm, data(), epochs=3, verbose=0)
    results |= {v.path: v.numpy() for v in lm.weights} | {"losses": history.history["loss"]}
    if kind == "mirrored":
        fitted = make_model(strategy).fit(data(), epochs=3, verbose=0)
        results["fit"] = fitted.history["loss"]
    np.savez(file, **results)


if __name__ == "__main__":
    main(*sys.argv[1:])
