"""Text to token ids and back, for checkpoints: one face for two libraries."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tf_mamba_edu.checkpoint_files import find_checkpoint


class TextTokenizer:
    """Encodes text as token ids, and decodes it, with a tokenizer of either library.

    Args:
        tokenizer: a `tokenizers.Tokenizer` or a `sentencepiece.SentencePieceProcessor`.

    Raises:
        ValueError: if it is neither.
    """

    def __init__(self, tokenizer):
        self.wrapped = tokenizer
        if hasattr(tokenizer, "serialized_model_proto"):
            self.vocab_size = tokenizer.get_piece_size()
        elif hasattr(tokenizer, "get_vocab_size"):
            self.vocab_size = 1 + max(tokenizer.get_vocab().values())
        else:
            raise ValueError(
                "`tokenizer` must be a tokenizers.Tokenizer or a SentencePieceProcessor. "
                f"Received: {type(tokenizer).__name__}"
            )

    def encode(self, text: str) -> np.ndarray:
        """Returns the (L,) int32 token ids of a text."""
        ids = self.wrapped.encode(text)
        return np.array(getattr(ids, "ids", ids), np.int32)

    def decode(self, ids) -> str:
        """Returns the text of (L,) token ids."""
        return self.wrapped.decode([int(i) for i in ids])

    def file(self) -> tuple[str, bytes]:
        """Returns name and content of the file from which `load_tokenizer` makes it again."""
        if hasattr(self.wrapped, "serialized_model_proto"):
            return (
                "tokenizer.model",
                self.wrapped.serialized_model_proto(),
            )
        return "tokenizer.json", self.wrapped.to_str().encode("utf-8")


def load_tokenizer(checkpoint, revision: str | None = None):
    """Returns the `TextTokenizer` of a checkpoint.

    Args:
        checkpoint: a folder with tokenizer.json or tokenizer.model, or the name of a repository
            on the hub.
        revision: branch, tag or commit of the repository.

    Raises:
        ValueError: if there is none, or it cannot be read.
    """
    folder = find_checkpoint(checkpoint, revision)
    for name, read in READERS.items():
        file = folder / name
        if file.exists():
            try:
                return TextTokenizer(read(file))
            except ImportError as error:
                raise ValueError(
                    f"to read {file}, the package {error.name} is needed: pip install {error.name}"
                ) from error
            except Exception as error:  # each library has its own
                raise ValueError(
                    f"{file} is damaged: {error}"
                ) from error
    raise ValueError(
        f"{folder} has no tokenizer: no {' and no '.join(READERS)}"
    )


def _read_json(file: Path):
    import tokenizers

    return tokenizers.Tokenizer.from_file(str(file))


def _read_model(file: Path):
    import sentencepiece

    return sentencepiece.SentencePieceProcessor(
        model_proto=file.read_bytes()
    )


READERS = {
    "tokenizer.json": _read_json,
    "tokenizer.model": _read_model,
}


def tokenizer_files(tokenizer, vocab_size: int) -> dict[str, bytes]:
    """Returns the files to store with a model of that vocabulary; none for None.

    Raises:
        ValueError: if the tokenizer has ids that the model does not know.
    """
    if tokenizer is None:
        return {}
    if not isinstance(tokenizer, TextTokenizer):
        tokenizer = TextTokenizer(tokenizer)
    check_vocabulary(tokenizer, vocab_size)
    return dict([tokenizer.file()])


def check_vocabulary(tokenizer: TextTokenizer, vocab_size: int) -> None:
    """Raises a ValueError if the tokenizer has ids that the model does not know."""
    if tokenizer.vocab_size > vocab_size:
        raise ValueError(
            f"`tokenizer` must not have more ids than the model's vocabulary, {vocab_size}. "
            f"Received: {tokenizer.vocab_size}"
        )
