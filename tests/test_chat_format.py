"""What of a chat template is control: the token that ends a reply, and what nobody may say."""

from __future__ import annotations

import pytest
import tiny

from lmm.adapters.models.chat_format import HFChatFormat


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
