"""A conversation that learns: each turn is read, learned from and answered, the same in chat, pipes and one-shots.

What is shown goes to a `View`, so this file knows neither terminals nor files. Ctrl-C sets `stop`: whatever is going on
ends within one token or one step of learning.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import replace
from threading import Event
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from lmm.engine.asking import recall_many
from lmm.engine.conversation import SURE, Turn
from lmm.errors import Cancelled, LearningError, NotKeptError, UsageError
from lmm.feedback import DENIED, SAID, UNSURE, Exchange, Reading, is_denial, lesson_for, read, replies
from lmm.feedback.retractions import taken_back, tells
from lmm.lesson import Lesson
from lmm.memory.base import LearnReport
from lmm.text.counted import counted
from lmm.text.fold import contains, fold, words
from lmm.text.questions import asked_in_full
from lmm.text.thoughts import parted, quoted, unthought

if TYPE_CHECKING:
    from lmm.config import Config, Decoding
    from lmm.engine.engine import Engine
    from lmm.engine.mind import Mind

NOTHING = Reading("nothing")
UNDO = " - /undo"  # where it can be typed
FULL = 0.8  # share of the context that is much
CUT = {
    "length": "cut at the longest reply that is set (max_tokens)",
    "context": "the model's context is full",
    "repeats": "ended, because it repeated itself",
}
MORE = {"length": " - /more", "context": " - /more", "repeats": " - /retry, or /more"}
MISSED = {
    UNSURE: "nothing was learned from this",
    SAID: "the reply says that already, and nothing was learned from this",
}
SLOW_S = 15.0  # a lesson that takes longer is announced
T = TypeVar("T")


class View(Protocol):
    """Where a turn is shown. Text that comes from a model or a user is not clean: whoever shows it cleans it."""

    failed: OSError | None  # what ended the showing, if nobody sees it any more

    @property
    def is_terminal(self) -> bool:
        """Whether someone looks on, and not a program."""

    def reply(self, chunks: Generator[str, None, None], stopped: Callable[[], bool], markdown: bool) -> None:
        """Show a reply while it streams; afterwards `stopped` says whether it was cut short."""

    def say(self, text: str) -> None:
        """A dim line beside the conversation."""

    def learning(self, summary: str, report: LearnReport | None) -> None:
        """A lesson is being learned (report: so far), or no longer (None)."""

    def confirm(self, lesson: Lesson) -> Lesson | None:
        """The lesson as the user wants it learned, or None."""


class Talk:
    """An engine and the learning loop around it."""

    def __init__(
        self, engine: Engine, view: View, settings: Callable[[], Config], stop: Event | None = None, hint: str = UNDO
    ) -> None:
        """`settings` is asked at every turn: /set may have changed them. `hint` ends what is said of a lesson."""
        self.engine, self.view, self.settings, self.hint = engine, view, settings, hint
        self.stop = stop or Event()
        self.forget: Callable[[Lesson, str], bool] | None = None  # a lesson that a message takes back, if it may go
        self.retries = 0
        self._warned: object = None  # the conversation of which it was said that it gets full
        self.took: dict[str, float] = {}  # seconds of the last lesson of each memory
        self.not_kept = 0  # lessons of messages that could not be written
        self.doing = ""  # what goes on before the model has anything to do

    @property
    def mind(self) -> Mind:
        return self.engine.mind

    @property
    def last(self) -> Turn | None:
        """The last turn, if it has a reply that was given in this session."""
        turn = self.engine.conversation.last
        return turn if turn is not None and turn.generated is not None else None

    @property
    def exchange(self) -> Exchange | None:
        """The last question and its answer, as `feedback` wants them, or what was stated; "no" leaves it open."""
        turns = [turn for turn in self.engine.conversation.turns if not is_denial(turn.user)]
        if not turns:
            return None
        *before, turn = turns
        stated = turn.lessons and all(turn.question != one.question for one in before)  # no correction of an answer
        # "Sorry, 36." says less than what it put right
        whole = turn.lessons[0].statement if len(turn.lessons) == 1 else ""
        said = turn.user if contains(turn.user, whole or turn.user) else whole
        return Exchange(said if stated else turn.question, turn.text)

    # turns -------------------------------------------------------------------------------------------------------
    def turn(self, text: str) -> Turn | None:
        """Learn from a message what it teaches, and answer it. None if it was stopped before a reply began.

        Raises Cancelled if it was stopped while it learned.
        """
        self.retries = 0
        self.mind.look()
        self.engine.adapter.format.thinking = self.settings().think != "off"
        asked = bool(turns := self.engine.conversation.turns) and is_denial(turns[-1].user)  # what is right
        reading = self._read(text)
        if reading.kind == "retraction" and self._forgotten(text):
            return None
        taught = self._learned(reading)
        lessons, learned = tuple(lesson for lesson, _ in taught), "; ".join(line for _, line in taught)
        if lessons and reading.kind == "correction":
            return self._corrected(text, lessons[0], reading.value, learned)
        if reading.why == DENIED:
            self.view.say("what is right? I'll learn it")
        elif asked and reading.why not in MISSED and not lessons and not replies.is_factual(text):
            said = self.exchange is not None and contains(self.exchange.assistant, text)
            reading = replace(reading, why=SAID if said else UNSURE)  # what was to be the right answer was none
        if reading.why in MISSED and self.hint:
            self.view.say(f"{MISSED[reading.why]}; /correct ANSWER teaches the right answer")
        self._hear(text)
        # What was just said is answered with what was learned: left to itself, a small model rambles on about it.
        return self._shown(self._chunks(lessons[0].prompt if lessons else self._meant(text)), learned, lessons)

    def correct(self, answer: str) -> Turn | None:
        """Learn that the last question is to be answered with `answer`, and answer it anew. Raises LmmError, as when it
        was stopped while it learned."""
        if self.exchange is None:
            raise UsageError("there is no reply to correct yet; ask something first, or: /teach QUESTION => ANSWER")
        lesson = self._instead(replace(lesson_for(self.exchange.user, answer), statement=answer.strip()))
        learned = self.teach(lesson, replies.in_a_line(lesson.prompt, lesson.answer, answer.strip()))
        return self._corrected(answer, lesson, answer.strip(), learned)

    def retry(self) -> Turn | None:
        """Answer the last message again. Greedy decoding would repeat itself, so a retry samples."""
        if self.last is None:
            raise UsageError("there is no reply to try again yet")
        conversation, turn = self.engine.conversation, None
        before = conversation.drop_last()
        try:
            self.engine.hear(before.user, learn=False)
            self.retries += 1
            now = self.settings()
            sampling = replace(now, decoding_strategy="sample", seed=now.seed + self.retries)
            turn = self._shown(self._chunks(before.about, sampling), "", before.lessons)
        finally:
            if turn is None:  # the reply before stands
                conversation.turns.append(before)
                conversation.render_anew()
        return turn

    def more(self) -> Turn | None:
        """Go on with the last reply, which was cut short. Raises UsageError if it was not."""
        turn = self.last
        if turn is None:
            raise UsageError("there is no reply to go on with yet")
        return self._shown(self._watching(self.engine.more(self.settings())), turn.learned, turn.lessons)

    # learning ----------------------------------------------------------------------------------------------------
    def teach(self, lesson: Lesson, summary: str = "", beside: Sequence[str] = ()) -> str:
        """Learn a lesson -> what was learned, in one line; `beside`: ids of what was said in the same breath. Raises
        LearningError or Cancelled, with nothing changed."""
        if self.mind.memory.learns_from == "nothing":
            raise LearningError(
                f"memory {self.mind.memory.name!r} does not learn; choose another with /memory NAME or --memory NAME"
            )
        summary = summary or told(lesson)
        if slow := self._slow():
            self.view.say(slow)
        had = self.mind.lessons
        report = self.watched(summary, lambda on_step: self.mind.learn(lesson, on_step=on_step, beside=beside))
        self.took[self.mind.memory.name] = report.seconds
        left, says = {known.id for known in self.mind.lessons}, (fold(lesson.answer), fold(lesson.statement))
        gone = dict.fromkeys(known.answer or known.statement for known in had if known.id not in left)
        other = [text.rstrip(".。") for text in gone if fold(text) not in says]
        before = f", instead of: {'; '.join(other)}" if other else ""
        self.view.say(f"learned: {summary}{before}, {report.seconds:.1f} s{self.hint}")
        return summary

    def _slow(self) -> str:
        """How long the next lesson takes, where that is long: as the last one did, or by the last reply's speed."""
        memory, made = self.mind.memory, self.last.generated if self.last else None
        expected = memory.replies_per_lesson
        seconds = self.took.get(memory.name) or (
            32 * expected / made.tokens_per_s if made and made.tokens_per_s else 0.0
        )
        if seconds < SLOW_S and (seconds or not expected):
            return ""
        how = f"about {seconds:.0f} s" if seconds else f"as long as {expected:.0f} replies"
        return f"a lesson takes {how} with {memory.name}; Ctrl-C stops it"

    def watched(self, summary: str, learn: Callable[[Callable[[LearnReport], None]], T]) -> T:
        """Run something that learns step by step: shown while it runs, stopped by Ctrl-C."""

        def on_step(report: LearnReport) -> None:
            if self.stop.is_set():
                self.mind.cancelled.set()
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
        [recall] = recall_many(self.mind, [self.exchange.user])
        fired = max(recall.fired[0], key=lambda hit: hit[1]) if recall is not None and recall.fired[0] else ("", 0.0)
        wrong = next((x for x in self.mind.lessons if x.id == fired[0]), None)
        if wrong is None or not wrong.prompt or fired[1] < SURE:
            return lesson
        forms = dict.fromkeys((lesson.prompt, *lesson.wordings, *wrong.wordings))
        return replace(lesson, prompt=wrong.prompt, wordings=tuple(form for form in forms if form != wrong.prompt))

    def _learned(self, reading: Reading) -> list[tuple[Lesson, str]]:
        """Learn what a turn was read as -> each lesson, and what was learned in one line. Raises Cancelled."""
        taught: list[tuple[Lesson, str]] = []
        for one in (reading, *reading.also):
            proposed = one.lesson
            if proposed is not None and proposed.prompt and one.kind == "correction":
                proposed = self._instead(proposed)
            lesson = self._agreed(proposed)
            if lesson is None:
                continue
            try:
                beside = [known.id for known, _ in taught]
                taught.append((lesson, self.teach(lesson, one.summary if lesson is proposed else "", beside)))
            except LearningError as error:
                self.view.say(str(error))
                self.not_kept += isinstance(error, NotKeptError)
            except Cancelled as error:
                before = f"; what was learned before it stays{self.hint}" if taught else ""
                raise Cancelled(f"{error}{before}") from None
        return taught

    def _forgotten(self, text: str) -> bool:
        """Forget what a message takes back, as far as the user agrees -> whether anything went."""
        forget = self.forget or (lambda lesson, typed: False)
        return sum(forget(lesson, text) for lesson in taken_back(text, self.mind.lessons)) > 0

    def _read(self, text: str) -> Reading:
        if self.settings().learn == "off" or "lessons" not in self.mind.memory.learns_from:
            return NOTHING
        self.doing = "reading what you say"
        try:
            reading = read(text, self.exchange, self.mind.lessons)
            note = reading.doubtful if reading.lesson is None else None
            if note is not None and (why := self._is_news(text, note, reading.kind)):
                return Reading("statement", note, summary=told(note), why=why)
            return reading
        finally:
            self.doing = ""

    def _is_news(self, text: str, note: Lesson, kind: str) -> str:
        """Why a turn in which nothing was found tells what it says as a note all the same; "" if it does not."""
        ended = kind == "retraction" and tells(text)
        if self.mind.outdated_by(note, surely=not ended):
            return "it makes a note out of date"
        unknown = ended and not taken_back(text, self.mind.lessons)
        return "something has ended of which nothing was known" if unknown else ""

    def _meant(self, text: str) -> str:
        """The question that a message asks with the turn before it: "And before?"; "" of one by itself."""
        before = self.engine.conversation.turns[-2:-1]
        if not before:
            return ""
        of_turn = {*before[0].fired, *(lesson.id for lesson in before[0].lessons)}
        about = {lesson.subject for lesson in self.mind.lessons if lesson.id in of_turn}
        return asked_in_full(text, before[0].question, about.pop() if len(about) == 1 else "")

    def _agreed(self, lesson: Lesson | None) -> Lesson | None:
        return self.view.confirm(lesson) if lesson is not None and self.settings().learn == "ask" else lesson

    def _hear(self, text: str) -> None:
        """Take the message in; a memory that learns from messages learns from it. Raises Cancelled, with it unheard."""
        knowledge, read = self.mind.knowledge, len(self.engine.conversation.read_turns)
        try:
            # Without a summary: everything the user says is a lesson to such a memory.
            report = self.engine.hear(text, learn=self.settings().learn != "off")
        except LearningError as error:
            self.view.say(str(error))
            report = self.engine.hear(text, learn=False)
        left = read + 1 - len(self.engine.conversation.read_turns)
        if left > 0:
            self.view.say(f"the conversation outgrew the model: its oldest {counted(left, 'turn')} are read no more")
        if report is not None and report.steps and self.mind.knowledge is not knowledge:
            losses = f", loss {report.loss_before:.2f} -> {report.loss_after:.2f}" if report.loss_after else ""
            self.view.say(f"learned from this message{losses}, {report.seconds:.1f} s{self.hint}")

    # answering ---------------------------------------------------------------------------------------------------
    def _corrected(self, text: str, lesson: Lesson, value: str, learned: str) -> Turn | None:
        """Answer the corrected question in the model's own words; where they lack the value, in the lesson's."""
        self.engine.hear(text, learn=False)

        def chunks() -> Generator[str, None, None]:
            held: str | None = ""  # what was said before the value came; None: it has come
            for chunk in self._chunks(lesson.prompt, thoughts=False):
                if held is None:
                    yield chunk
                    continue
                held += chunk
                if contains(held + "0", value):  # "17" may still come of a "1"
                    yield held
                    held = None
            turn = self.engine.conversation.turns[-1]
            if held and contains(held, value):
                yield held
            elif held is not None and not turn.interrupted:
                turn.reply = lesson.answer or lesson.echo  # the conversation goes on as if this had been the reply
                self.engine.conversation.render_anew()
                yield turn.reply

        return self._shown(chunks(), learned, (lesson,))

    def _chunks(
        self, about: str, decoding: Decoding | None = None, thoughts: bool = True
    ) -> Generator[str, None, None]:
        """The reply; `thoughts`: with what the model thinks before it, if that is to be shown."""
        chunks = self._watching(self.engine.answer(about, decoding or self.settings()))
        format = self.engine.adapter.format
        parts = parted(chunks, format.opens_a_thought(format.render(self.engine.conversation.messages, reply=True)))
        shown = thoughts and self.view.is_terminal and self.settings().think == "show"
        with contextlib.closing(chunks):
            yield from quoted(parts) if shown else unthought(parts)

    def _watching(self, reply: Iterator[str]) -> Generator[str, None, None]:
        with contextlib.closing(reply) as chunks:  # type: ignore[type-var]
            for chunk in chunks:
                if self.stop.is_set():
                    self.mind.cancelled.set()
                yield chunk

    def _shown(self, chunks: Generator[str, None, None], learned: str, lessons: tuple[Lesson, ...]) -> Turn | None:
        """Show the reply to the last message -> the turn; None if nothing came of it."""
        conversation = self.engine.conversation
        turn = conversation.turns[-1]
        turn.learned, turn.lessons = learned, lessons
        self.view.reply(chunks, lambda: turn.interrupted, self.settings().markdown)
        if turn.interrupted and not turn.text:
            conversation.drop_last()
            return None
        if turn.problem:
            self.view.say(turn.problem)
        if turn.generated is not None and turn.generated.cut:
            self.view.say(CUT[turn.generated.cut] + (MORE[turn.generated.cut] if self.hint else ""))
        self._warn_of_room()
        return turn

    def _warn_of_room(self) -> None:
        """Once for each conversation."""
        used, most = len(self.engine.conversation.tokens), self.engine.adapter.shape.context
        if most and used >= FULL * most and self._warned is not self.engine.conversation:
            self._warned = self.engine.conversation
            self.view.say(
                f"the conversation fills {100 * used // most} % of what the model can read; its oldest turns will be "
                "read no more, what was learned stays"
            )

    # the conversation --------------------------------------------------------------------------------------------
    def resume(self, records: Sequence[Mapping[str, Any]]) -> None:
        """Go on from turns of an earlier session, as its transcript has them."""
        self.engine.conversation.turns += map(Turn.of_record, records)


def told(lesson: Lesson) -> str:
    """A lesson in one line, as a person would say it: an answer that says itself what it is about needs no question."""
    if not lesson.prompt:
        return (lesson.echo or lesson.statement).rstrip(".。")
    about, answer = replies.topic(lesson.prompt), lesson.answer.rstrip(".。")
    said = set(words(answer).split())
    return answer if set(words(about).split()) - replies.ASKING <= said else f"{about} -> {answer}"
