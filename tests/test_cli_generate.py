"""The command that continues a text."""

import io
import sys

import keras
import pytest

from tf_mamba_edu import MambaConfig, MambaLM, cli, train_tokenizer
from tf_mamba_edu.tokenizer import load_tokenizer

TEXT = "the lord said unto moses go and speak unto the people of israel "


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    keras.utils.set_random_seed(0)
    tokenizer = train_tokenizer([TEXT * 20], vocab_size=24)
    folder = tmp_path_factory.mktemp("text") / "model"
    MambaLM(MambaConfig(24, 16, 1)).save_pretrained(folder, tokenizer=tokenizer)
    return str(folder)


def said(capsys, *arguments):
    code = cli.main(["generate", *arguments])
    out, err = capsys.readouterr()
    return code, out, err


def test_the_prompt_is_continued(checkpoint, capsys):
    options = "--checkpoint", checkpoint, "--prompt", "the lord", "--max-new-tokens", "8"
    code, out, err = said(capsys, *options, "--seed", "1")
    assert (code, err) == (0, "")
    assert out.startswith("the lord") and out.endswith("\n") and len(out) > len("the lord\n")
    assert said(capsys, *options, "--seed", "1")[1] == out
    others = {said(capsys, *options, "--seed", str(n))[1] for n in range(2, 6)}
    assert others - {out}


def test_what_is_printed_is_what_the_model_generates(checkpoint, capsys):
    code, out, _ = said(
        capsys, "--checkpoint", checkpoint, "--prompt", "go and speak",
        "--max-new-tokens", "12", "--temperature", "0",
    )  # fmt: skip
    tokenizer, lm = load_tokenizer(checkpoint), MambaLM.from_pretrained(checkpoint)
    ids = lm.generate(tokenizer.encode("go and speak")[None], 12, temperature=0)
    assert code == 0 and out == tokenizer.decode(ids[0].numpy()) + "\n"


def test_a_prompt_may_come_from_standard_input(checkpoint, capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("the people"))
    code, out, _ = said(
        capsys, "--checkpoint", checkpoint, "--prompt", "-", "--max-new-tokens", "1"
    )
    assert code == 0 and out.startswith("the people")


def test_it_ends_at_the_stop_token(checkpoint, capsys):
    options = "--checkpoint", checkpoint, "--prompt", "the lord", "--temperature", "0"
    lm, tokenizer = MambaLM.from_pretrained(checkpoint), load_tokenizer(checkpoint)
    prompt = tokenizer.encode("the lord")[None]
    first = int(lm.generate(prompt, 1, temperature=0)[0, -1])
    _, long, _ = said(capsys, *options, "--max-new-tokens", "20")
    _, short, _ = said(capsys, *options, "--stop-token", str(first))
    assert len(short) < len(long)


BAD = {
    "no folder": (["--checkpoint", "./nowhere"], "`checkpoint` must be a folder"),
    "empty": (["--prompt", ""], "`prompt` must have at least one token"),
    "cold": (["--temperature", "-1"], "`temperature` must be zero or positive"),
    "nan": (["--temperature", "nan"], "`temperature` must be zero or positive"),
    "top k": (["--top-k", "0"], "`top_k` must be a positive integer"),
    "top p": (["--top-p", "0"], "`top_p` must lie in (0, 1]"),
    "none": (["--max-new-tokens", "0"], "`max_new_tokens` must be a positive integer"),
    "dtype": (["--dtype", "int8"], "`dtype` must be"),
}


@pytest.mark.parametrize(("options", "message"), BAD.values(), ids=BAD)
def test_what_cannot_be_used_is_said_in_a_line(options, message, checkpoint, capsys):
    code, out, err = said(capsys, "--checkpoint", checkpoint, "--prompt", "the lord", *options)
    assert (code, out) == (2, "")
    assert err.startswith(message) and err.count("\n") == 1


def test_a_piece_of_a_character_waits_for_the_rest():
    from tf_mamba_edu.cli_generate import _text

    class Bytes:
        def decode(self, ids):
            return bytes(ids).decode("utf-8", errors="replace")

    new = [[b] for b in "né€".encode()]
    assert list(_text(Bytes(), "a", [97], new)) == ["a", "n", "é", "€"]
