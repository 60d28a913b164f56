"""The command that continues a text: `python -m tf_mamba_edu generate`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator

HELP = """\
Continues a text with a language model. The checkpoint is a folder that
save_pretrained wrote, or one in the layout of Hugging Face (config.json,
model.safetensors and tokenizer.json or tokenizer.model), or the name of such
a repository on the hub."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds what the command takes."""
    add = parser.add_argument
    add(
        "--checkpoint",
        required=True,
        metavar="DIR",
        help="a folder, or the name of a repository",
    )
    add(
        "--prompt",
        required=True,
        metavar="TEXT",
        help="the text to continue; - reads it from standard input",
    )
    add(
        "--max-new-tokens",
        type=int,
        default=100,
        metavar="N",
        help="how many tokens at most (default: 100)",
    )
    add(
        "--temperature",
        type=float,
        default=0.8,
        metavar="T",
        help="0 takes the likeliest token (default: 0.8)",
    )
    add(
        "--top-k",
        type=int,
        metavar="K",
        help="draw from the K likeliest tokens only",
    )
    add(
        "--top-p",
        type=float,
        metavar="P",
        help="draw from the likeliest tokens only, of probability P together",
    )
    add(
        "--stop-token",
        type=int,
        metavar="ID",
        help="end where this token is drawn",
    )
    add(
        "--seed",
        type=int,
        metavar="N",
        help="the same seed gives the same text",
    )
    add(
        "--dtype",
        default="float32",
        metavar="D",
        help="float32, bfloat16, ... or auto (default: float32)",
    )


def run(options: argparse.Namespace) -> int:
    """Prints the prompt and its continuation as it comes; exit code 2 if anything is wrong."""
    try:
        pieces = continuation(options)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    for piece in pieces:
        print(piece, end="", flush=True)
    print()
    return 0


def continuation(options: argparse.Namespace) -> Iterator[str]:
    """Checks everything, loads the model, and returns the text in pieces, the prompt first.

    Raises:
        ValueError: if an option is out of range or the checkpoint cannot be used.
    """
    from tf_mamba_edu import generation
    from tf_mamba_edu.lm import MambaLM
    from tf_mamba_edu.tokenizer import check_vocabulary, load_tokenizer
    from tf_mamba_edu.validation import check_positive_int

    prompt = options.prompt
    prompt = sys.stdin.read() if prompt == "-" else prompt
    sampling = options.temperature, options.top_k, options.top_p
    check_positive_int("max_new_tokens", options.max_new_tokens)
    generation.check_sampling(*sampling)
    tokenizer = load_tokenizer(options.checkpoint)
    ids = tokenizer.encode(prompt)
    if not len(ids):
        raise ValueError(
            f"`prompt` must have at least one token. Received: {prompt!r}"
        )
    lm = MambaLM.from_pretrained(
        options.checkpoint, dtype=options.dtype
    )
    check_vocabulary(tokenizer, lm.config.vocab_size)
    tokens = generation.stream(
        lm,
        ids[None],
        options.max_new_tokens,
        *sampling,
        stop_token=options.stop_token,
        seed=options.seed,
    )
    return _text(tokenizer, prompt, ids.tolist(), tokens)


def _text(tokenizer, prompt, ids, tokens):
    """What each token adds; a piece of a character waits for the rest of it."""
    yield prompt
    said = tokenizer.decode(ids)
    for token in tokens:
        ids.append(int(token[0]))
        text = tokenizer.decode(ids)
        if not text.endswith("\ufffd"):
            yield text[len(said) :]
            said = text
