"""A random checkpoint of the size of mamba-130m: loading it, reading a prompt, writing on."""

from __future__ import annotations

import functools
import gc
import json
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.case import Case, Effort, cores, repeat
from benchmarks.generation import make_prompt
from benchmarks.memory import peak_of, release, reset_peak, resident
from benchmarks.peers import weights

SHAPE = (1, 1_024, 64, 768, 24, 50_280)
AXES = "B prompt new E layers V"
PATIENT = Effort(seconds=20.0, at_least=3, at_most=10)


def write_checkpoint(folder: Path, E: int, layers: int, V: int) -> None:
    """Random weights in the layout of Hugging Face, head and embedding tied."""
    from safetensors.numpy import save_file

    from tf_mamba_edu import MambaConfig
    from tf_mamba_edu.pretrained import config_to

    made = weights(E, layers, V)
    del made["lm_head.weight"]
    save_file(made, folder / "model.safetensors", {"format": "pt"})
    config = config_to(MambaConfig(V, E, layers), "float32") | {"eos_token_id": None}
    (folder / "config.json").write_text(json.dumps(config))


class Ours:
    """`MambaLM.from_pretrained` and its `generate`."""

    compiles = True

    def load(self, folder):
        from tf_mamba_edu import MambaLM

        return MambaLM.from_pretrained(folder)

    def reader(self, lm, prompt):
        import tensorflow as tf

        read = tf.function(lambda ids: lm.prefill(ids, last_only=True)[0])
        return lambda: read(prompt).numpy()

    def writer(self, lm, prompt, new):
        return lambda: lm.generate(prompt, new, temperature=0).numpy()


class Transformers:
    """Its Mamba on the loop over time, which is what it has on a CPU."""

    compiles = False

    def load(self, folder):
        import torch
        from transformers import MambaForCausalLM

        torch.set_num_threads(cores())
        return MambaForCausalLM.from_pretrained(folder).eval()

    def reader(self, lm, prompt):
        import torch

        ids = torch.tensor(prompt, dtype=torch.long)

        def call():
            with torch.no_grad():
                return lm(ids, use_cache=True, logits_to_keep=1).logits[:, -1].numpy()

        return call

    def writer(self, lm, prompt, new):
        import torch

        ids = torch.tensor(prompt, dtype=torch.long)
        options = {"max_new_tokens": new, "do_sample": False, "pad_token_id": 0}

        def call():
            with torch.no_grad():
                return lm.generate(ids, attention_mask=torch.ones_like(ids), **options).numpy()

        return call


def warm(peer, folder: Path) -> None:
    """Loads something tiny: what a library takes once is not the checkpoint's."""
    small = folder / "small"
    small.mkdir()
    write_checkpoint(small, 16, 1, 50)
    lm = peer.load(small)
    peer.writer(lm, make_prompt(1, 8, 50), 2)()


def measure_load(peer, shape, effort) -> dict:
    """Time of loading, and the most memory beyond what was held before."""
    del effort
    *_, E, layers, V = shape
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        warm(peer, folder)
        write_checkpoint(folder, E, layers, V)
        gc.collect()
        release()
        before = resident()
        peak = peak_of(lambda: peer.load(folder)) - before  # first: later ones find memory
        record = repeat(lambda: peer.load(folder), Effort(seconds=5.0, at_least=3, at_most=5))
        size = (folder / "model.safetensors").stat().st_size / 2**20
    return record | {"peak_mib": peak, "checkpoint_mib": size}


def measure_use(task, peer, shape, effort) -> dict:
    """Time of reading the prompt, or of that and writing on; memory with all that was loaded."""
    del effort
    B, L, new, E, layers, V = shape
    prompt = make_prompt(B, L, V)
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        warm(peer, folder)
        write_checkpoint(folder, E, layers, V)
        gc.collect()
        release()
        before = resident()
        reset_peak()
        lm = peer.load(folder)
        call = peer.reader(lm, prompt) if task == "prefill" else peer.writer(lm, prompt, new)
        record = repeat(call, PATIENT, peer.compiles)
        record["peak_mib"] = resident("VmHWM") - before
    found = call()
    if task == "prefill":
        return record | {"best": int(np.argmax(found[0]))}
    tokens = [int(t) for t in found[0, L:]]
    return record | {"ms_per_token": record["min_ms"] / new, "tokens": tokens}


def measure_roundtrip(shape, effort) -> dict:
    """What transformers computes with what `save_pretrained` wrote, compared with ours."""
    del effort
    import torch
    from transformers import MambaForCausalLM

    from tf_mamba_edu import MambaConfig, MambaLM

    B, L, E, layers, V = shape
    ids, worst = make_prompt(B, L, V), 0.0
    for options in ROUNDTRIPS:
        lm = MambaLM(MambaConfig(V, E, layers, **options))
        rng = np.random.default_rng(0)
        for weight in lm.weights:  # none at its initial value
            weight.assign(weight + 0.1 * rng.normal(size=weight.shape))
        with tempfile.TemporaryDirectory() as folder:
            lm.save_pretrained(Path(folder) / "lm", shard_bytes=100_000)
            theirs = MambaForCausalLM.from_pretrained(Path(folder) / "lm").eval()
        with torch.no_grad():
            got = theirs(torch.tensor(ids, dtype=torch.long)).logits.numpy()
        want = lm(ids).numpy()
        worst = max(worst, float(np.abs(got - want).max() / np.abs(want).max()))
    return {"max_error": worst}


ROUNDTRIPS = (
    {},
    dict(tie_embeddings=False, bias=True, d_conv=3, expand=3, d_state=5),
    dict(conv_bias=False, dt_rank=3, expand=1, norm_eps=1e-3),
)


def cases() -> list[Case]:
    """Three measurements of two, and one of what goes from one to the other."""
    tasks = {
        "checkpoint-load": (measure_load, "config.json and safetensors to a model"),
        "checkpoint-prefill": (
            functools.partial(measure_use, "prefill"),
            "the prompt at once, logits of its last token",
        ),
        "checkpoint-generate": (
            functools.partial(measure_use, "generate"),
            "the prompt and greedy text after it",
        ),
    }
    roundtrip = Case(
        "checkpoint-roundtrip",
        "transformers",
        (2, 50, 64, 2, 100),
        "B L E layers V",
        measure_roundtrip,
        "reads what save_pretrained wrote, three kinds of models in several files each",
    )
    return [roundtrip] + [
        Case(
            name,
            peer,
            SHAPE,
            AXES,
            functools.partial(run, kind()),
            note,
            baseline=peer == "ours",
        )
        for name, (run, note) in tasks.items()
        for peer, kind in {"ours": Ours, "transformers": Transformers}.items()
    ]
