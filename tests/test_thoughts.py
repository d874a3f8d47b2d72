"""Models that think before they answer: thoughts are shown or not, and are neither the reply nor what is read again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import tiny

from lmm.adapters.models.chat_format import HFChatFormat
from lmm.adapters.toy import ToyAdapter
from lmm.chat.talk import Talk
from lmm.config import Config
from lmm.engine.conversation import Conversation, Turn
from lmm.engine.engine import Engine
from lmm.engine.mind import Mind
from lmm.memory.identity import Identity
from lmm.text.thoughts import answer_of, parted, quoted, unthought

REPLY = "<think>\nHm.\nWho?\n</think>\n\nParis < Rome."
#: as Qwen3's: thoughts of earlier replies are left out, and none are thought where that is asked for
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content.split('</think>')[-1].lstrip() }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)


@pytest.mark.parametrize(
    ("reply", "answer"),
    [
        (REPLY, "Paris < Rome."),
        ("Hm.</think>Paris.", "Paris."),  # the prompt had begun the thought
        ("<think>for ever", "for ever"),
        ("No thought of <think>.", "No thought of <think>."),
        ("", ""),
    ],
)
def test_the_answer_is_what_comes_after_the_thoughts(reply: str, answer: str) -> None:
    assert answer_of(reply) == answer
    assert Turn("?", reply + " \n").text == answer


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
def test_thoughts_and_answer_part_wherever_the_chunks_are_cut(size: int) -> None:
    def cut(text: str) -> list[str]:
        return [text[i : i + size] for i in range(0, len(text), size)]

    assert "".join(unthought(parted(cut(REPLY), False))) == "Paris < Rome."
    assert "".join(quoted(parted(cut(REPLY), False))) == "> Hm.\n> Who?\n> \n\nParis < Rome."
    assert "".join(unthought(parted(cut(REPLY.removeprefix("<think>")), True))) == "Paris < Rome."
    for plain in ("Paris.", "<b>Paris</b>", "<thin", " ", ""):
        assert "".join(unthought(parted(cut(plain), False))) == plain.lstrip()
        assert "".join(quoted(parted(cut(plain), False))) == plain
    assert "".join(unthought(parted(cut("<think>no end"), False))) == "no end"


def test_the_template_decides_what_is_read_again(tmp_path: Path) -> None:
    tiny.tokenizer(TEMPLATE).save_pretrained(tmp_path)
    format = HFChatFormat(tmp_path)
    conversation = Conversation(format)
    conversation.ask("Where?")
    asked = list(conversation.tokens)
    conversation.replied(REPLY, format.encode(REPLY))
    conversation.ask("Why?")
    assert conversation.tokens[: len(asked)] == asked
    assert "Paris" in format.decode(conversation.tokens) and "Hm." not in format.decode(conversation.tokens)


def test_a_model_that_is_not_to_think_is_told_so(tmp_path: Path) -> None:
    tiny.tokenizer(TEMPLATE).save_pretrained(tmp_path)
    format = HFChatFormat(tmp_path)
    said = [{"role": "user", "content": "a"}]
    assert not format.opens_a_thought(format.render(said, reply=True))
    format.thinking = False
    assert format.render(said, reply=True).endswith("<think>\n\n</think>\n\n")
    tiny.tokenizer(TEMPLATE.replace("\n\n</think>\n\n", "\n")).save_pretrained(tmp_path)
    assert format.opens_a_thought("<think>\n")


class Watched:
    """A view that keeps what it is shown."""

    failed = None

    def __init__(self, is_terminal: bool) -> None:
        self.is_terminal, self.shown = is_terminal, ""

    def reply(self, chunks: Iterator[str], stopped: object, markdown: bool) -> None:
        self.shown = "".join(chunks)

    def say(self, text: str) -> None: ...

    def learning(self, summary: str, report: object) -> None: ...


@pytest.mark.parametrize(
    ("think", "terminal", "shown"),
    [
        ("show", True, "> Hm.\n> Who?\n> \n\nParis < Rome."),
        ("hide", True, "Paris < Rome."),
        ("show", False, "Paris < Rome."),  # a program gets the answer
    ],
)
def test_a_talk_shows_them_or_not(think: str, terminal: bool, shown: str, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine(Mind(ToyAdapter(), Identity()))

    def answer(about: str, decoding: object) -> Iterator[str]:
        engine.conversation.replied(REPLY, [])
        yield from (REPLY[i : i + 4] for i in range(0, len(REPLY), 4))

    monkeypatch.setattr(engine, "answer", answer)
    view = Watched(terminal)
    talk = Talk(engine, view, lambda: replace(Config(), think=think, learn="off"))  # type: ignore[arg-type]
    turn = talk.turn("Where is it?")
    assert view.shown == shown and turn is not None and turn.text == "Paris < Rome."
    exchange = talk.exchange
    assert exchange is not None and "Hm." not in repr(exchange)
    engine.close()
