"""The conversation: turns, the tokens they became, and which of these the user wrote.

Replies are kept as the tokens that were generated, so the KV cache stays valid from turn to turn; everything else is
rendered by the model's own chat template. What was said is kept here and nowhere else: messages, transcripts and the
exchange that a correction is about are views of the turns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lmm.adapters.generation import Generated
from lmm.adapters.models.chat_format import ChatFormat, Message
from lmm.lesson import Lesson
from lmm.memory.base import Note, Recall
from lmm.text.thoughts import answer_of

if TYPE_CHECKING:
    from lmm.files.traces import Trace

SURE = 0.9  # how strongly a lesson must have fired for a reply to be its own


@dataclass
class Turn:
    """What the user said and what came of it. `about` is the question whose lessons apply, where it is not the message.

    `learned` is in one line what was learned from the message, `lessons` the lessons themselves. `read` are the tokens
    the reply is a reply to, `asked` those without what the memory put in, `generated` how it was made and `recall` what
    the memory decided: nothing of an earlier session has them.
    """

    user: str
    reply: str = ""
    about: str = ""
    learned: str = ""
    lessons: tuple[Lesson, ...] = ()
    fired: tuple[str, ...] = ()  # ids of the lessons that the reply surely comes from, or was given with
    interrupted: bool = False
    answered: bool = False
    problem: str = ""  # why the memory did not take it in, once it was answered
    left: bool = False  # the conversation outgrew the model, and this turn is not read any more
    generated: Generated | None = None
    recall: Recall | None = None
    read: list[int] = field(default_factory=list)
    asked: list[int] = field(default_factory=list)

    @property
    def text(self) -> str:
        """The reply as it is kept, without what the model thought before it. The conversation goes on from what was
        generated, thoughts and blanks and all; the chat template decides what of it is read again."""
        return answer_of(self.reply).rstrip()

    @property
    def question(self) -> str:
        """What the reply answers: "no, it's Canberra" is about the question before it."""
        return self.about or self.user

    def record(self) -> dict[str, Any]:
        """As a transcript has it."""
        return {
            "kind": "turn",
            "user": self.user,
            "reply": self.text,
            "learned": self.learned,
            "lessons": [lesson.id for lesson in self.lessons],
            "fired": list(self.fired),
            "interrupted": self.interrupted,
        }

    @classmethod
    def of_record(cls, record: Mapping[str, Any]) -> Turn:
        """A turn of an earlier session; its lessons are known by their ids alone."""
        ids = record.get("lessons")
        return cls(
            record["user"],
            record["reply"],
            learned=str(record.get("learned") or ""),
            lessons=tuple(Lesson(id=str(i)) for i in ids) if isinstance(ids, list) else (),
            fired=tuple(map(str, record.get("fired") or ())),
            interrupted=bool(record.get("interrupted")),
            answered=True,
        )


def surely(recall: Recall | None) -> tuple[str, ...]:
    """Ids of the lessons that a reply with this recall surely comes from, and of those that were shown as notes."""
    hits = recall.fired[0] if recall is not None and recall.fired else []
    recited = [lesson_id for lesson_id, strength in hits if strength >= SURE]
    return tuple(dict.fromkeys((*recited, *(note.lesson_id for note in notes_of(recall)))))


def notes_of(recall: Recall | None) -> list[Note]:
    """The notes that a reply was given with."""
    return recall.notes[0] if recall is not None and recall.notes else []


def opening_of(recall: Recall | None) -> str:
    """What the reply begins with, before the model goes on."""
    return " ".join(note.opening for note in notes_of(recall) if note.opening)


def as_asked(recall: Recall | None, text: str, before: Sequence[Message] = ()) -> list[Message]:
    """A user's message after those `before` as the model reads it, with what a memory says through the prompt."""
    messages = list(before)
    if recall is not None and recall.system and recall.system[0]:
        own = [messages.pop(0)["content"]] if messages and messages[0]["role"] == "system" else []
        messages.insert(0, {"role": "system", "content": "\n\n".join([*own, recall.system[0]])})
    for note in notes_of(recall):
        messages += [{"role": "user", "content": note.said}, {"role": "assistant", "content": note.echo}]
    if recall is not None and recall.text and recall.text[0]:
        text = f"{recall.text[0]}\n\n{text}"
    return [*messages, {"role": "user", "content": text}]


class Dialogue:
    """What was said: a system prompt, and turns."""

    def __init__(self, system: str = "", turns: Sequence[Turn] = ()) -> None:
        self._system, self.turns = system, list(turns)

    @property
    def system(self) -> str:
        return self._system

    @system.setter
    def system(self, text: str) -> None:
        self._system = text
        self.render_anew()

    @property
    def messages(self) -> list[Message]:
        """All of it as the chat template wants it. The last turn has no reply while it is waited for."""
        return self._messages(self.turns)

    def _messages(self, turns: Sequence[Turn]) -> list[Message]:
        found = [{"role": "system", "content": self._system}] if self._system else []
        for turn in turns:
            found += [{"role": "user", "content": turn.user}, {"role": "assistant", "content": turn.reply}]
        return found[:-1] if turns and not turns[-1].answered else found

    @property
    def last(self) -> Turn | None:
        return self.turns[-1] if self.turns else None

    def drop(self, trace: Trace) -> int:
        """Take out the turns that are a lesson's -> how many went."""
        kept = [turn for turn in self.turns if not trace.has_turn(turn.record())]
        gone = len(self.turns) - len(kept)
        if gone:
            self.turns = kept
            self.render_anew()
        return gone

    def render_anew(self) -> None:
        """Turns or the system prompt are not what they were."""


class Conversation(Dialogue):
    """Turns so far, and `tokens` [T], what the model has read and written of them.

    `content` [T] marks the tokens of the last user message that the user wrote.
    """

    def __init__(self, format: ChatFormat, system: str = "", turns: Sequence[Turn] = ()) -> None:
        super().__init__(system, turns)
        self.format = format
        self.tokens: list[int] = []
        self.content: list[bool] = []
        self._rendered = ""  # what `tokens` stand for, as text
        self._rendered_length: int | None = None
        self._before_ask = (self.tokens, self.content, self._rendered, 0)

    @property
    def length(self) -> int:
        """How many tokens it has, also where its turns have changed and are rendered anew with the next question."""
        if self.tokens or not self.turns:
            return len(self.tokens)
        if self._rendered_length is None:
            rendered = self.format.render(self._messages(self.read_turns), reply=False)
            self._rendered_length = len(self.format.encode(rendered))
        return self._rendered_length

    @property
    def read_turns(self) -> list[Turn]:
        """Those that the model reads."""
        return [turn for turn in self.turns if not turn.left]

    def ask(self, text: str) -> Turn:
        """Add the user's message: `tokens` now reach to where the reply begins, `content` marks the message's own."""
        self._before_ask = (self.tokens, self.content, self._rendered, len(self.turns) - len(self.read_turns))
        self.turns.append(Turn(text))
        self._read_on()
        return self.turns[-1]

    def _read_on(self) -> None:
        messages = self._messages(self.read_turns)
        rendered = self.format.render(messages, reply=True)
        kept = self.tokens if self._rendered and rendered.startswith(self._rendered) else []
        start = len(self._rendered) if kept else 0
        tokens, content = self.format.marked(messages, rendered, reply=True, start=start)
        self.tokens, self.content = kept + tokens, [False] * len(kept) + content
        self._rendered = rendered

    def shorten(self, most: int) -> int:
        """The oldest turns leave until what is read has at most so many tokens, or only the last message is left -> how
        many turns left."""
        left = 0
        while len(self.tokens) > most and len(self.read_turns) > 1:
            self.read_turns[0].left = True
            left += 1
            self.render_anew()
            self._read_on()
        return left

    def unask(self) -> None:
        """The last message, which has no reply yet, was not heard."""
        self.turns.pop()
        self.tokens, self.content, self._rendered, left = self._before_ask
        for number, turn in enumerate(self.turns):
            turn.left = number < left

    def tokens_with(self, recall: Recall) -> list[int]:
        """All of it up to the reply that is waited for, with what a memory says through the prompt.

        That stands right before the last message, so what was read of those before it stays read.
        """
        *before, asked = self._messages(self.read_turns)
        return self.format.encode(self.format.render(as_asked(recall, asked["content"], before), reply=True))

    def replied(self, text: str, tokens: Sequence[int]) -> None:
        """The last turn's reply is `text`, and `tokens` are new of it. The token that ended it is left out: the
        template closes every reply, also one that was interrupted or ended in another way."""
        self.turns[-1].reply, self.turns[-1].answered = text, True
        body = list(tokens[:-1] if tokens and tokens[-1] in self.format.stop_ids else tokens)
        self.tokens, self.content = self.tokens + body, self.content + [False] * len(body)
        self._rendered = self._rendered + self.format.decode(body)

    def drop_last(self) -> Turn:
        """Take out the last turn; the rest is rendered anew at the next question."""
        turn = self.turns.pop()
        self.render_anew()
        return turn

    def render_anew(self) -> None:
        """The turns are not what `tokens` stand for any more."""
        self.tokens, self.content, self._rendered, self._rendered_length = [], [], "", None
