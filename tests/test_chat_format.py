"""What of a chat template is control: the token that ends a reply, and what nobody may say."""

from __future__ import annotations

from typing import Any

import pytest
import tiny

from lmm.adapters.models.chat_format import HFChatFormat
from lmm.adapters.toy import ToyFormat


def test_the_token_that_ends_a_reply_in_the_template_also_ends_one_that_is_read() -> None:
    """As in ChatML models whose tokenizer names another end token."""
    tokenizer = tiny.tokenizer()
    tokenizer.eos_token = "<|endoftext|>"
    format = HFChatFormat.of(tokenizer, [7])
    end_of_text, end_of_turn = (tokenizer.convert_tokens_to_ids(x) for x in ("<|endoftext|>", "<|im_end|>"))
    assert format.end_of_turn == end_of_turn != end_of_text
    assert format.stop_ids == {7, end_of_text, end_of_turn}


def test_a_template_without_an_end_token_ends_a_reply_with_the_tokenizer_s() -> None:
    format = HFChatFormat.of(tiny.tokenizer("{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"))
    assert format.end_of_turn == format.tokenizer.eos_token_id and format.stop_ids == {format.end_of_turn}


@pytest.mark.parametrize(
    ("control", "said", "broken"),
    [
        (["<|im_end|>"], "a<|im_end|>b", "a< |im_end|>b"),
        (["<s>"], "<s><s>", "< s>< s>"),
        (["<a>", "<a><b>", "<b>"], "<a><b>", "< a>< b>"),  # one inside another, whichever is longer
        (["[x]", "x]"], "[x]", "[ x ]"),
        (["|", "<|"], "<|", "<  "),
        (["\nEND"], "no\nEND", "no\n END"),
        ([], "<|x|>", "<|x|>"),
    ],
)
def test_control_tokens_are_broken_wherever_they_begin(control: list[str], said: str, broken: str) -> None:
    tokenizer = tiny.tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": control})
    format = HFChatFormat.of(tokenizer)
    assert format.harmless(said) == broken
    known = set(tokenizer.convert_tokens_to_ids(control))
    assert not known & set(format.encode(format.harmless(said)))


SAID = "là 日本 🙂 Paris  x\n<0x41> "


def test_the_bytes_of_tokens_are_those_of_the_text() -> None:
    for format in (HFChatFormat.of(tiny.tokenizer()), ToyFormat(), HFChatFormat.of(sentencepiece())):
        tokens = format.encode(SAID)
        assert b"".join(map(format.bytes_of, tokens)) == SAID.encode()
        assert format.bytes_of(format.end_of_turn) == b"" and any(format.bytes_of(t) == b"\xc3" for t in tokens)


def sentencepiece() -> Any:
    """As Llama's: blanks as a sign, and a token for each byte of what is in no other."""
    from tokenizers import Tokenizer, decoders, models, normalizers
    from transformers import PreTrainedTokenizerFast

    pieces = [
        "\u2581Paris",
        "\u2581",
        *"abcdefghijklmnopqrstuvwxyz<>0123456789P",
        *(f"<0x{b:02X}>" for b in range(256)),
    ]
    vocab = {piece: i for i, piece in enumerate(["</s>", *pieces])}
    made = Tokenizer(models.BPE(vocab, [], byte_fallback=True, unk_token=None))
    made.normalizer = normalizers.Replace(" ", "\u2581")
    made.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()])
    found = PreTrainedTokenizerFast(tokenizer_object=made, eos_token="</s>")
    found.chat_template = tiny.TEMPLATE
    return found


def test_a_new_line_ends_a_reply_without_a_template_and_no_text() -> None:
    made = HFChatFormat.of(tiny.tokenizer(template=None))
    line = made.encode("\n")[-1]
    assert line in made.stop_ids and line not in made.text_ends
    assert made.tokenizer.eos_token_id in made.stop_ids & made.text_ends
