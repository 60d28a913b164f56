"""Makes small checkpoints with transformers, and what it computes with them.

Run in the environment of the benchmarks: .venv-bench/bin/python tests/golden/make_checkpoints.py
"""

from pathlib import Path

import numpy as np
import torch
from transformers import MambaConfig, MambaForCausalLM

HERE = Path(__file__).parent
COMMON = dict(num_hidden_layers=2, pad_token_id=None, bos_token_id=None, eos_token_id=None)
CONFIGS = {
    "mamba_wide_hf": dict(
        vocab_size=40,
        hidden_size=24,
        state_size=5,
        conv_kernel=3,
        expand=3,
        use_bias=True,
        tie_word_embeddings=False,
        time_step_rank="auto",
    ),
    "mamba_bare_hf": dict(
        vocab_size=33,
        hidden_size=20,
        state_size=4,
        conv_kernel=2,
        expand=1,
        use_conv_bias=False,
        layer_norm_epsilon=1e-3,
        time_step_rank=3,
    ),
}


def main():
    for seed, (name, sizes) in enumerate(CONFIGS.items()):
        torch.manual_seed(seed)
        model = MambaForCausalLM(MambaConfig(**COMMON, **sizes)).eval()
        with torch.no_grad():  # no weight stays at its initial value
            for weight in model.parameters():
                weight.add_(0.1 * torch.randn_like(weight))
        ids = torch.randint(0, sizes["vocab_size"], (2, 24))
        with torch.no_grad():
            logits = model(ids, use_cache=False).logits
            start = ids[:, :6]
            greedy = model.generate(
                start, max_new_tokens=16, do_sample=False, attention_mask=torch.ones_like(start)
            )
        folder = HERE / name
        model.save_pretrained(folder)
        (folder / "generation_config.json").unlink(missing_ok=True)
        np.savez(
            folder / "expected.npz",
            input_ids=ids.numpy(),
            logits=logits.numpy(),
            greedy=greedy.numpy(),
        )


if __name__ == "__main__":
    main()
