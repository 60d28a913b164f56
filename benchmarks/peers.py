"""The same language model from four hands, with the same weights: 4 Mamba layers and a head."""

from __future__ import annotations

import numpy as np

from benchmarks.case import cores

STATE, CONV, EXPAND = 16, 4, 2  # N, K and D / E, everybody's defaults


def weights(E: int, layers: int, V: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Weights of a new model, by the names and in the layout of transformers; head not tied."""
    rng = np.random.default_rng(seed)
    D, R = EXPAND * E, -(-E // 16)

    def uniform(*sizes, fan_in):
        return rng.uniform(-(fan_in**-0.5), fan_in**-0.5, sizes)

    found = {
        "backbone.embeddings.weight": 0.02 * rng.standard_normal((V, E)),
        "backbone.norm_f.weight": np.ones(E),
        "lm_head.weight": uniform(V, E, fan_in=E),
    }
    for i in range(layers):
        delta = np.exp(rng.uniform(np.log(1e-3), np.log(1e-1), D))
        layer = {
            "norm.weight": np.ones(E),
            "mixer.A_log": np.log(np.tile(np.arange(1, STATE + 1), (D, 1))),
            "mixer.D": np.ones(D),
            "mixer.conv1d.weight": uniform(D, 1, CONV, fan_in=CONV),
            "mixer.conv1d.bias": uniform(D, fan_in=CONV),
            "mixer.in_proj.weight": uniform(2 * D, E, fan_in=E),
            "mixer.x_proj.weight": uniform(R + 2 * STATE, D, fan_in=D),
            "mixer.dt_proj.weight": uniform(D, R, fan_in=R),
            "mixer.dt_proj.bias": delta + np.log(-np.expm1(-delta)),
            "mixer.out_proj.weight": uniform(E, D, fan_in=D),
        }
        found |= {f"backbone.layers.{i}.{name}": w for name, w in layer.items()}
    return {name: w.astype(np.float32) for name, w in found.items()}


def as_keras(name: str, weight: np.ndarray) -> np.ndarray:
    """A weight in Keras' layout: kernels are transposed, the convolution's is (K, D)."""
    if name.endswith("conv1d.weight"):
        return weight[:, 0].T
    stays = weight.ndim < 2 or name.endswith(("A_log", "embeddings.weight"))
    return weight if stays else weight.T


def give_keras(given: dict, variables: dict) -> None:
    """Assigns the weights; `variables` has a Keras variable for each name."""
    for name, weight in given.items():
        variables[name].assign(as_keras(name, weight))


def ours(E: int, layers: int, V: int):
    """`MambaLM`."""
    from tf_mamba_edu import MambaConfig, MambaLM

    lm = MambaLM(MambaConfig(V, E, layers, STATE, CONV, EXPAND, tie_embeddings=False))
    variables = {
        "backbone.embeddings.weight": lm.embedding.embeddings,
        "backbone.norm_f.weight": lm.norm.scale,
        "lm_head.weight": lm.head.kernel,
    }
    for i, layer in enumerate(lm.blocks):
        block = layer.block
        named = {
            "norm.weight": layer.norm.scale,
            "mixer.conv1d.weight": block.conv.kernel,
            "mixer.conv1d.bias": block.conv.bias,
            "mixer.dt_proj.bias": block.ssm.dt_bias,
        } | mixer(block.ssm.A_log, block.ssm.D, block, block.ssm)
        variables |= {f"backbone.layers.{i}.{name}": v for name, v in named.items()}
    give_keras(weights(E, layers, V), variables)
    return lm


def lite_mamba(E: int, layers: int, V: int):
    """Its blocks, with what it leaves to the user: embedding, residual sums, norms and head."""
    import keras
    from lite_mamba import TFBaselineMamba

    tokens = keras.Input((None,), dtype="int32")
    embedding = keras.layers.Embedding(V, E)
    norms = [keras.layers.RMSNormalization(epsilon=1e-5) for _ in range(layers + 1)]
    blocks = [TFBaselineMamba(E, d_state=STATE, d_conv=CONV, expand=EXPAND) for _ in range(layers)]
    head = keras.layers.Dense(V, use_bias=False)
    h = embedding(tokens)
    for norm, block in zip(norms, blocks, strict=False):
        h = h + block(norm(h))
    model = keras.Model(tokens, head(norms[-1](h)))
    model.parts = embedding, norms, blocks, head  # its step needs them one by one
    variables = {
        "backbone.embeddings.weight": embedding.embeddings,
        "backbone.norm_f.weight": norms[-1].scale,
        "lm_head.weight": head.kernel,
    }
    for i, (norm, block) in enumerate(zip(norms, blocks, strict=False)):
        named = {
            "norm.weight": norm.scale,
            "mixer.conv1d.weight": block.dw_kernels[0],
            "mixer.conv1d.bias": block.dw_biases[0],
            "mixer.dt_proj.bias": block.dt_proj.bias,
        } | mixer(block.A_log, block.D, block, block)
        variables |= {f"backbone.layers.{i}.{name}": v for name, v in named.items()}
    give_keras(weights(E, layers, V), variables)
    return model


def mixer(A_log, D, block, ssm) -> dict:
    """The variables that two Keras implementations keep under the same names."""
    return {
        "mixer.A_log": A_log,
        "mixer.D": D,
        "mixer.in_proj.weight": block.in_proj.kernel,
        "mixer.out_proj.weight": block.out_proj.kernel,
        "mixer.x_proj.weight": ssm.x_proj.kernel,
        "mixer.dt_proj.weight": ssm.dt_proj.kernel,
    }


def give_torch(model, given: dict):
    """Loads the weights into a PyTorch model, which takes as many threads as there are cores."""
    import torch

    torch.set_num_threads(cores())
    model.load_state_dict({name: torch.tensor(w) for name, w in given.items()})
    return model


def mambapy(E: int, layers: int, V: int):
    """Its stack of blocks with its parallel scan, in what its lm.py puts around it.

    lm.py itself cannot be imported without the CUDA package mamba_ssm.
    """
    import torch
    from mambapy.mamba import Mamba, MambaConfig, RMSNorm

    config = MambaConfig(E, layers, d_state=STATE, expand_factor=EXPAND, d_conv=CONV, pscan=True)

    class LanguageModel(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding = torch.nn.Embedding(V, E)
            self.mamba = Mamba(config)
            self.norm_f = RMSNorm(E, config.rms_norm_eps)
            self.lm_head = torch.nn.Linear(E, V, bias=False)

        def forward(self, tokens):
            return self.lm_head(self.norm_f(self.mamba(self.embedding(tokens))))  # (B, L, V)

        def step(self, tokens, caches):
            h, caches = self.mamba.step(self.embedding(tokens), caches)
            return self.lm_head(self.norm_f(h)), caches  # (B, V)

        def init_caches(self, batch_size):
            window = torch.zeros(batch_size, config.d_inner, CONV - 1)
            return [(None, window) for _ in range(layers)]

    renamed = {
        name.replace("backbone.embeddings", "embedding")
        .replace("backbone.layers", "mamba.layers")
        .replace("backbone.norm_f", "norm_f"): w
        for name, w in weights(E, layers, V).items()
    }
    return give_torch(LanguageModel(), renamed)


def transformers(E: int, layers: int, V: int, use_mambapy: bool = False):
    """Its Mamba, on the loop over time, or on the scan of mambapy, where that is installed."""
    from transformers import MambaConfig, MambaForCausalLM

    config = MambaConfig(
        vocab_size=V,
        hidden_size=E,
        num_hidden_layers=layers,
        state_size=STATE,
        conv_kernel=CONV,
        expand=EXPAND,
        tie_word_embeddings=False,
        use_mambapy=use_mambapy,
        eos_token_id=None,
    )
    return give_torch(MambaForCausalLM(config), weights(E, layers, V))
