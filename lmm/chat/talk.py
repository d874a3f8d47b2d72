"""A conversation that learns: each turn is read, learned from and answered, the same in chat, pipes and one-shots.

What is shown goes to a `View`, so this file knows neither terminals nor files. Ctrl-C sets `stop`: whatever is going on
ends within one token or one step of learning.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from lmm.errors import Cancelled, LearningError, LmmError, UsageError
from lmm.feedback import Exchange, Reading, lesson_for, read, replies
from lmm.lesson import Lesson
from lmm.memory.base import LearnReport
from lmm.text.fold import contains

if TYPE_CHECKING:
    from lmm.engine.engine import Engine, Reply
    from lmm.files.traces import Trace

NOTHING = Reading("nothing")
SURE = 0.9  # how strongly a lesson must have fired for a wrong answer to be its own
T = TypeVar("T")


class View(Protocol):
    """Where a turn is shown. Text that comes from a model or a user is not clean: whoever shows it cleans it."""

    def reply(self, chunks: Generator[str, None, None], stopped: Callable[[], bool]) -> None:
        """Show a reply while it streams; afterwards `stopped` says whether it was cut short."""

    def say(self, text: str) -> None:
        """A dim line beside the conversation."""

    def learning(self, summary: str, report: LearnReport | None) -> None:
        """A lesson is being learned (report: so far), or no longer (None)."""

    def confirm(self, lesson: Lesson) -> Lesson | None:
        """The lesson as the user wants it learned, or None."""


@dataclass(frozen=True)
class Turn:
    """What came of a message. `learned` is in one line what was learned from it, if anything.

    `fired` are the ids of the lessons that the reply surely comes from.
    """

    user: str
    reply: str
    learned: str = ""
    lessons: tuple[Lesson, ...] = ()
    interrupted: bool = False
    fired: tuple[str, ...] = ()

    def record(self) -> dict[str, Any]:
        """As a transcript has it."""
        return {
            "kind": "turn",
            "user": self.user,
            "reply": self.reply,
            "learned": self.learned,
            "lessons": [lesson.id for lesson in self.lessons],
            "fired": list(self.fired),
            "interrupted": self.interrupted,
        }


class Talk:
    """An engine and the learning loop around it."""

    def __init__(self, engine: Engine, view: View, learn: str = "auto") -> None:
        self.engine, self.view, self.learn = engine, view, learn
        self.hint = " - /undo"  # where it can be typed
        self.stop = threading.Event()
        self.exchange: Exchange | None = None  # the last question and its answer, as `feedback` wants them
        self.last: Reply | None = None
        self.last_text = ""  # what the user typed last
        self.about = ""  # the question whose lessons the last reply was about, where it was not the message
        self.taught: tuple[Lesson, ...] = ()  # by the last message
        self.noted: list[Mapping[str, Any]] = []  # the turns so far, as transcripts have them
        self.retries = 0

    # turns -------------------------------------------------------------------------------------------------------
    def turn(self, text: str) -> Turn | None:
        """Learn from a message what it teaches, and answer it. None if it was stopped before a reply began."""
        self.retries = 0
        reading = self._read(text)
        try:
            taught = self._learned(reading)
        except Cancelled as error:
            self.view.say(str(error))
            return None
        lessons, learned = tuple(lesson for lesson, _ in taught), "; ".join(line for _, line in taught)
        if lessons and reading.kind == "correction":
            return self._corrected(text, lessons[0], reading.value, learned)
        if not self._hear(text):
            return None
        # What was just said is answered with what was learned: left to itself, a small model rambles on about it.
        return self._answered(text, learned, lessons, about=lessons[0].prompt if lessons else "")

    def correct(self, answer: str) -> Turn | None:
        """Learn that the last question is to be answered with `answer`, and answer it anew. Raises LmmError."""
        if self.exchange is None:
            raise UsageError("there is no reply to correct yet; ask something first, or: /teach QUESTION => ANSWER")
        lesson = self._instead(replace(lesson_for(self.exchange.user, answer), statement=answer.strip()))
        try:
            learned = self.teach(lesson, f"{replies.topic(lesson.prompt)} -> {answer.strip()}")
        except Cancelled as error:
            self.view.say(str(error))
            return None
        return self._corrected(answer, lesson, answer.strip(), learned)

    def retry(self) -> Turn | None:
        """Answer the last message again. Greedy decoding would repeat itself, so a retry samples."""
        messages = self.engine.conversation.messages
        if self.last is None or len(messages) < 2 or messages[-1]["role"] != "assistant":
            raise UsageError("there is no reply to try again yet")
        text = messages[-2]["content"]
        self.engine.conversation.drop_last(2)
        self.engine.hear(text, learn=False)
        self.retries += 1
        kept = self.engine.decoding
        self.engine.decoding = replace(kept, decoding_strategy="sample", seed=kept.seed + self.retries)
        try:
            return self._answered(text, lessons=self.taught, about=self.about)
        finally:
            self.engine.decoding = kept

    # learning ----------------------------------------------------------------------------------------------------
    def teach(self, lesson: Lesson, summary: str = "") -> str:
        """Learn a lesson -> what was learned, in one line. Raises LearningError or Cancelled, with nothing changed."""
        if self.engine.memory.learns_from == "nothing":
            raise LearningError(
                f"memory {self.engine.memory.name!r} does not learn; choose another with /memory NAME or --memory NAME"
            )
        summary = summary or f"{replies.topic(lesson.prompt)} -> {lesson.answer.rstrip('.')}"
        report = self.watched(summary, lambda on_step: self.engine.learn(lesson, on_step=on_step))
        self.view.say(f"learned: {summary}, {report.seconds:.1f} s{self.hint}")
        return summary

    def watched(self, summary: str, learn: Callable[[Callable[[LearnReport], None]], T]) -> T:
        """Run something that learns step by step: shown while it runs, stopped by Ctrl-C."""

        def on_step(report: LearnReport) -> None:
            if self.stop.is_set():
                self.engine.cancelled.set()
            self.view.learning(summary, report)

        self.view.learning(summary, LearnReport())
        try:
            return learn(on_step)
        finally:
            self.view.learning(summary, None)

    def _instead(self, lesson: Lesson) -> Lesson:
        """A correction in the place of the lesson that gave the wrong answer, if one did: under the same question.

        Else that lesson would go on answering in its own words, with what was corrected in others.
        """
        if self.exchange is None:
            return lesson
        [recall] = self.engine.recall_many([self.exchange.user], 1)
        fired = max(recall.fired[0], key=lambda hit: hit[1]) if recall is not None and recall.fired[0] else ("", 0.0)
        wrong = next((x for x in self.engine.version.lessons if x.id == fired[0]), None)
        if wrong is None or not wrong.prompt or fired[1] < SURE:
            return lesson
        forms = dict.fromkeys((lesson.prompt, *lesson.wordings, *wrong.wordings))
        return replace(lesson, prompt=wrong.prompt, wordings=tuple(form for form in forms if form != wrong.prompt))

    def _learned(self, reading: Reading) -> list[tuple[Lesson, str]]:
        """Learn what a turn was read as -> each lesson, and what was learned in one line. Raises Cancelled."""
        taught: list[tuple[Lesson, str]] = []
        for one in (reading, *reading.also):
            proposed = one.lesson and replace(one.lesson, wordings=one.questions)
            if proposed is not None and one.kind == "correction":
                proposed = self._instead(proposed)
            lesson = self._agreed(proposed)
            if lesson is None:
                continue
            try:
                taught.append((lesson, self.teach(lesson, one.summary if lesson is proposed else "")))
            except LearningError as error:
                self.view.say(str(error))
            except Cancelled as error:
                before = f"; what was learned before it stays{self.hint}" if taught else ""
                raise Cancelled(f"{error}{before}") from None
        return taught

    def _read(self, text: str) -> Reading:
        if self.learn == "off" or "lessons" not in self.engine.memory.learns_from:
            return NOTHING
        return read(text, self.exchange)

    def _agreed(self, lesson: Lesson | None) -> Lesson | None:
        return self.view.confirm(lesson) if lesson is not None and self.learn == "ask" else lesson

    def _hear(self, text: str) -> bool:
        """Take the message in; a memory that learns from messages learns from it. False if it was stopped."""
        engine = self.engine
        if "messages" not in engine.memory.learns_from or self.learn == "off":
            engine.hear(text, learn=False)
            return True
        version = engine.version
        try:
            # Without a summary: everything the user says is a lesson to such a memory.
            engine.cancelled.clear()
            report = engine.hear(text)
        except Cancelled as error:
            engine.conversation.drop_last()
            self.view.say(str(error))
            return False
        except LearningError as error:
            self.view.say(str(error))
            return True
        if report is not None and report.steps and engine.version is not version:
            losses = f", loss {report.loss_before:.2f} -> {report.loss_after:.2f}" if report.loss_after else ""
            self.view.say(f"learned from this message{losses}, {report.seconds:.1f} s{self.hint}")
        return True

    # answering ---------------------------------------------------------------------------------------------------
    def _answered(self, text: str, learned: str = "", lessons: tuple[Lesson, ...] = (), about: str = "") -> Turn | None:
        self.about = about
        self.view.reply(self._chunks(self.engine.answer(about)), lambda: self.engine.last.generated.interrupted)
        return self._done(text, about or text, learned, lessons)

    def _corrected(self, text: str, lesson: Lesson, value: str, learned: str) -> Turn | None:
        """Answer the corrected question in the model's own words; where they lack the value, in the lesson's."""
        engine, self.about = self.engine, lesson.prompt
        engine.hear(text, learn=False)

        def chunks() -> Generator[str, None, None]:
            held: str | None = ""  # what was said before the value came; None: it has come
            for chunk in self._chunks(engine.answer(about=lesson.prompt)):
                if held is None:
                    yield chunk
                    continue
                held += chunk
                if contains(held + "0", value):  # "17" may still come of a "1"
                    yield held
                    held = None
            if held and contains(held, value):
                yield held
            elif held is not None and not engine.last.generated.interrupted:
                self._put(lesson.answer)
                yield lesson.answer

        self.view.reply(chunks(), lambda: engine.last.generated.interrupted)
        return self._done(text, lesson.prompt, learned, (lesson,))

    def _put(self, answer: str) -> None:
        """Let the conversation go on as if the reply had been `answer`."""
        conversation = self.engine.conversation
        conversation.drop_last()
        conversation.messages.append({"role": "assistant", "content": answer})
        self.engine.last.generated.text = answer

    def _chunks(self, chunks: Iterator[str]) -> Generator[str, None, None]:
        with contextlib.closing(chunks):  # type: ignore[type-var]
            for chunk in chunks:
                if self.stop.is_set():
                    self.engine.cancelled.set()
                yield chunk

    def _done(self, text: str, question: str, learned: str, lessons: tuple[Lesson, ...]) -> Turn | None:
        self.last, self.last_text = self.engine.last, text
        reply, out = self.last.text, self.last.generated
        if out.interrupted and not reply:
            self.engine.conversation.drop_last(2)
            return None
        self.exchange, self.taught = Exchange(question, reply), lessons
        turn = Turn(text, reply, learned, lessons, out.interrupted, self._fired())
        self.noted.append(turn.record())
        return turn

    def _fired(self) -> tuple[str, ...]:
        recall = self.engine.last.recall
        hits = recall.fired[0] if recall is not None and recall.fired else []
        return tuple(dict.fromkeys(lesson_id for lesson_id, strength in hits if strength >= SURE))

    # the conversation --------------------------------------------------------------------------------------------
    def resume(self, turns: Sequence[Mapping[str, Any]]) -> None:
        """Go on from turns of an earlier session, as its transcript has them."""
        messages = self.engine.conversation.messages
        for turn in turns:
            messages += [{"role": "user", "content": turn["user"]}, {"role": "assistant", "content": turn["reply"]}]
        self.noted += turns
        self._anew()

    def set_system(self, text: str) -> None:
        """Another system prompt for the conversation that is going on."""
        conversation = self.engine.conversation
        rest = [m for m in conversation.messages if m["role"] != "system"]
        conversation.system = text
        conversation.messages = [{"role": "system", "content": text}, *rest] if text else rest
        self._anew()

    def start(self) -> None:
        """A new conversation; what was learned stays."""
        self.engine.start(self.engine.conversation.system)
        self.exchange, self.last = None, None

    def drop(self, trace: Trace) -> int:
        """Take the exchanges that are a lesson's out of the conversation -> how many messages went."""
        conversation = self.engine.conversation
        its = [turn for turn in self.noted if trace.has_turn(turn)]
        mine = {(turn["user"], turn["reply"].rstrip()) for turn in its}
        self.noted = [turn for turn in self.noted if turn not in its]
        kept: list[dict[str, str]] = []
        pair: list[dict[str, str]] = []
        for message in conversation.messages:
            pair = [message] if message["role"] == "user" else [*pair, message]
            if message["role"] == "assistant" and (pair[0]["content"], message["content"].rstrip()) not in mine:
                kept += pair
            elif message["role"] == "system":
                kept.append(message)
        gone = len(conversation.messages) - len(kept)
        if gone:
            conversation.messages = kept
            self._anew()
        return gone

    def _anew(self) -> None:
        """The conversation's tokens are rendered from its messages at the next question."""
        self.engine.conversation.drop_last(0)
        said = [m["content"] for m in self.engine.conversation.messages if m["role"] != "system"]
        self.exchange = Exchange(said[-2], said[-1]) if len(said) > 1 else None
        self.last = None


@contextlib.contextmanager
def errors_to(say: Callable[[str], None]) -> Iterator[None]:
    """A library error inside becomes one line; the session goes on."""
    try:
        yield
    except LmmError as error:
        say(str(error))
