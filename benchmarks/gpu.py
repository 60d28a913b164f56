"""The scans on a GPU: times of every method, written to a file that chapter 08 reads.

    python benchmarks/gpu.py OUT.json

Needs TensorFlow with a GPU and nothing else of the package's requirements, so that it runs on a
borrowed machine. Times are medians, inside of tf.function, of runs that are waited for.
"""

from __future__ import annotations

import datetime
import json
import statistics
import subprocess
import sys
import time
import types
from pathlib import Path

import tensorflow as tf

ROOT = Path(__file__).resolve().parent.parent
SHAPES = [(8, 2048, 1536, 16), (1, 16384, 1536, 16), (8, 256, 256, 16), (1, 64, 256, 16)]


def scan_package():
    """`tf_mamba_edu.scan` without the rest of the package, which asks for more libraries."""
    package = types.ModuleType("tf_mamba_edu")
    package.__path__ = [str(ROOT / "tf_mamba_edu")]
    sys.modules["tf_mamba_edu"] = package
    from tf_mamba_edu import scan
    from tf_mamba_edu.scan import associative, chunked

    return scan, associative, chunked


def inputs(B, L, D, N, seed=0):
    """x, delta (B, L, D), A (D, N), B, C (B, L, N), with Delta between 0.001 and 0.1."""
    rng = tf.random.Generator.from_seed(seed)
    delta = tf.exp(rng.uniform((B, L, D), -6.9, -2.3))
    A = -tf.tile(tf.range(1.0, N + 1)[None], (D, 1))
    return rng.normal((B, L, D)), delta, A, rng.normal((B, L, N)), rng.normal((B, L, N))


def wait_for(results):
    """Reads one number of the last result: everything before it has been computed then."""
    float(tf.reduce_sum(tf.nest.flatten(results)[-1][:1]))


def milliseconds(run, repetitions=15):
    """Median time of a run, and the time of the first, which compiles."""
    start = time.perf_counter()
    wait_for(run())
    first = time.perf_counter() - start
    wait_for(run())
    times = []
    end = time.perf_counter() + 4
    while len(times) < 3 or (len(times) < repetitions and time.perf_counter() < end):
        start = time.perf_counter()
        for _ in range(4):
            results = run()
        wait_for(results)
        times.append((time.perf_counter() - start) / 4)
    return 1000 * statistics.median(times), first


def with_gradients(scan, arguments, weights):
    """A run of forward and backward pass, for a weighted sum of all outputs."""

    @tf.function
    def run(*arguments):
        with tf.GradientTape() as tape:
            tape.watch(arguments)
            loss = tf.reduce_sum(scan(*arguments) * weights)
        return tape.gradient(loss, arguments)

    return lambda: run(*arguments)


def measure(name, shape, scan, results):
    """Adds times and peak memory of one method at one shape to the results."""
    arguments = inputs(*shape)
    weights = tf.random.normal(arguments[0].shape)
    found = {"method": name, "shape": list(shape)}
    traced = tf.function(scan)
    runs = {"forward": lambda: traced(*arguments)}
    runs["both"] = with_gradients(scan, arguments, weights)
    for part, run in runs.items():
        tf.config.experimental.reset_memory_stats("GPU:0")
        before = tf.config.experimental.get_memory_info("GPU:0")["current"]
        try:
            found[f"{part}_ms"], found[f"{part}_first_s"] = milliseconds(run)
        except tf.errors.OpError as error:
            found[f"{part}_error"] = str(error).splitlines()[0][:200]
            continue
        peak = tf.config.experimental.get_memory_info("GPU:0")["peak"]
        found[f"{part}_gib"] = (peak - before) / 2**30
    results.append(found)
    print(json.dumps(found), flush=True)


def main():
    """Measures all methods and writes the results."""
    scan, associative, chunked = scan_package()
    first = inputs(2, 37, 24, 16)
    exact = scan.selective_scan(*(tf.cast(t, tf.float64) for t in first), method="recurrent")
    for method in ("associative", "fused", "auto"):
        found = tf.cast(scan.selective_scan(*first, method=method), tf.float64)
        error = float(tf.reduce_max(abs(found - exact)) / tf.reduce_max(abs(exact)))
        print(method, f"error {error:.1e}", flush=True)
        assert error < 1e-5

    def by(method):
        return lambda *arguments: scan.selective_scan(*arguments, method=method)

    @tf.function(jit_compile=True)
    def materialized(x, delta, A, B, C):
        state = tf.zeros((x.shape[0], *A.shape))
        return associative.associative_scan(x, delta, A, B, C, state)[0]

    results = []
    for shape in SHAPES:
        measure("associative", shape, by("associative"), results)
        measure("materialized", shape, materialized, results)
        measure("fused", shape, by("fused"), results)
    for size in (2, 4):  # for comparison with the 8 that it has
        chunked.CHUNK = size
        for name in ("compiled_forward", "compiled_backward"):
            function = getattr(chunked, name).python_function
            setattr(chunked, name, tf.function(function, jit_compile=True))
        measure(f"associative, chunks of {size}", SHAPES[0], by("associative"), results)
    card = tf.config.experimental.get_device_details(tf.config.list_physical_devices("GPU")[0])
    query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    about = {
        "card": card.get("device_name"),
        "driver": subprocess.run(query, capture_output=True, text=True).stdout.strip(),
        "tensorflow": tf.__version__,
        "date": datetime.date.today().isoformat(),
        "dtype": "float32",
    }
    Path(sys.argv[1]).write_text(json.dumps({"about": about, "results": results}, indent=1))


if __name__ == "__main__":
    main()
