"""What the server can do, without HTTP: replies, embeddings, texts, lessons, memory files, each for one user."""

from __future__ import annotations

import contextlib
import dataclasses
import re
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmm.adapters import generation
from lmm.adapters.generation import Generated
from lmm.chat import forgetting
from lmm.config import LONGEST
from lmm.engine import memory_files
from lmm.engine.asking import recall_many
from lmm.engine.conversation import notes_of
from lmm.errors import LmmError, StateError, StillThereError, TooLongError, UsageError
from lmm.feedback import lesson_for
from lmm.files import state_file
from lmm.files.state_file import InvalidStateError
from lmm.memory.base import Prompt
from lmm.server import speaking
from lmm.server.logprobs import Token, Tokens
from lmm.server.metrics import Metrics
from lmm.server.speaking import Emit
from lmm.server.users import Unavailable, Users, without_folder
from lmm.store.checks import json_values, storable
from lmm.store.personal import PersonalMemory

if TYPE_CHECKING:
    from lmm.config import Config
    from lmm.engine.mind import Mind
    from lmm.engine.seats import Seats
    from lmm.files.state_file import Header
    from lmm.lesson import Lesson
    from lmm.server.schema import ChatRequest, CompletionRequest
    from lmm.store.base import Memo

ID = re.compile(r"[\w-]{1,64}", re.ASCII)  # of a lesson
TOLD = ("id", "prompt", "answer", "statement", "echo", "source", "time", "replaces", "still", "wordings")
FORM = 32  # tokens of a chat's form around a message, and more


@dataclasses.dataclass
class Replied:
    """One that was given: text, why it ended, tokens read and made, what lmm says beside it, and the tokens one by
    one, where that is wanted."""

    text: str
    ended: str
    read: int
    made: int
    about: dict[str, Any]
    tokens: list[Token] | None = None


class Service:
    """One model, its users, and their texts."""

    def __init__(
        self, config: Config, seats: Seats, texts: PersonalMemory, notice: Callable[[str], None] = lambda text: None
    ) -> None:
        self.config, self.texts = config, texts
        self.users = Users(config, seats, notice, texts.store.lessons)
        self.shape, self.format = seats.adapter.shape, seats.adapter.format
        self.metrics = Metrics()
        self.started = int(time.time())

    @property
    def model(self) -> str:
        return self.config.model

    def close(self) -> None:
        self.users.close()
        self.texts.store.close()

    # replies -----------------------------------------------------------------------------------------------------
    def chat(self, request: ChatRequest, user: str, emit: Emit, stop: threading.Event) -> Replied:
        if request.top_logprobs and not request.logprobs:
            raise UsageError("top_logprobs needs logprobs: true")
        tokens = Tokens(self.format, request.top_logprobs or 0) if request.logprobs else None
        config = self._decoding(request, request.most, request.lmm_learn)
        messages = [
            {"role": "system" if m.role == "developer" else m.role, "content": m.text} for m in request.messages
        ]
        with self.users.engine(user, stop, learns=config.learn != "off") as engine:
            spoken = speaking.reply(engine, messages, config, self._timed(emit), stop, request.stops, tokens)
            turn = spoken.turn
        self.metrics.add("lmm_lessons_total", len(turn.lessons) if turn else 0)
        about = {
            "learned": turn.learned if turn else "",
            "lessons": [lesson.id for lesson in turn.lessons] if turn else [],
            "fired": list(turn.fired) if turn else [],
            "takes_back": [_told(lesson) for lesson in spoken.takes_back],
            "said": [self.users.plainly(user, line) for line in spoken.said],
        }
        made = turn.generated if turn is not None else None
        read, count = (len(turn.read), len(made.tokens)) if turn is not None and made is not None else (0, 0)
        self.metrics.add("lmm_tokens_total", count)
        return Replied(spoken.text, spoken.ended, read, count, about, spoken.tokens if request.logprobs else None)

    def size(self, texts: Sequence[str], most: int | None = None) -> int:
        """How many tokens a conversation of these may come to, with a reply of `most`."""
        read = sum(len(self.format.encode(text)) + FORM for text in (self.config.system, *texts))
        count = read + (most or self.config.max_tokens or LONGEST)
        return min(count, self.shape.context or count)

    def complete(self, request: CompletionRequest, user: str, emit: Emit, stop: threading.Event) -> Replied:
        """Text that goes on as it began, without a chat's form; nothing is learned."""
        config = self._decoding(request, request.most, "off")
        if not request.text.strip():
            raise UsageError("there is nothing to complete in an empty prompt")
        if request.echo and request.logprobs is not None:
            raise UsageError("echo has no logprobs: those of the prompt are not known")
        scored = request.logprobs is not None
        tokens_of = Tokens(self.format, request.logprobs or 0) if scored else None
        out = Generated(scores=[] if scored else None, continues=True)
        view = speaking.Listener(self._timed(emit), request.stops, tokens_of, lambda: out)
        with self.users.engine(user, stop, learns=False) as engine:
            mind, format = engine.mind, engine.adapter.format
            tokens = [*format.lead, *format.encode(format.harmless(request.text))]
            if self.shape.context and len(tokens) >= self.shape.context:
                raise TooLongError(
                    f"the prompt has {len(tokens):,} tokens; the model reads fewer than {self.shape.context:,}"
                )
            recall = mind.recall_of([Prompt(request.text, tokens)])
            if request.echo:
                emit(request.text, [])
            with mind.holding(recall, len(tokens) - 1):
                cache = engine.adapter.new_cache()
                chunks = generation.stream(engine.adapter, tokens, cache, config, out, stop.is_set)
                view.reply(chunks, stop.is_set, markdown=False)
                view.end()
        self.metrics.add("lmm_tokens_total", len(out.tokens))
        ended = speaking.reason(out, view.cut)
        text = request.text + view.text if request.echo else view.text
        return Replied(text, ended, len(tokens), len(out.tokens), {}, view.shown if scored else None)

    def _decoding(self, request: ChatRequest | CompletionRequest, most: int | None, learn: str | None) -> Config:
        if request.model not in (None, "", self.model):
            raise UnknownModel(f"there is no model {request.model!r} here; this server has {self.model!r}")
        return speaking.decoding(self.config, request.temperature, request.top_p, most, request.seed, learn)

    def _timed(self, emit: Emit) -> Emit:
        """`emit`, which also counts how long its first text has taken."""
        begun, first = time.perf_counter(), True

        def timed(text: str, tokens: Sequence[Token]) -> None:
            nonlocal first
            if first:
                self.metrics.observe("lmm_first_token_seconds", time.perf_counter() - begun)
                first = False
            emit(text, tokens)

        return timed

    # lessons -----------------------------------------------------------------------------------------------------
    def lessons(self, user: str, ever: bool = False) -> list[dict[str, Any]]:
        """`ever`: and those that undo would bring back."""
        if ever:
            with self.users.newest(user) as mind:
                return [_told(lesson) for lesson in mind.lessons_ever]
        with self.users.engine(user, learns=False) as engine:
            return [_told(lesson) for lesson in engine.mind.lessons]

    def teach(self, user: str, question: str, answer: str, stop: threading.Event | None = None) -> dict[str, Any]:
        with self.users.engine(user, stop) as engine:
            lesson = lesson_for(question, answer)
            engine.mind.learn(lesson)
            [told] = _known(engine.mind, [lesson])
        self.metrics.add("lmm_lessons_total")
        return told

    def correct(
        self, user: str, question: str, reply: str, answer: str, stop: threading.Event | None = None
    ) -> dict[str, Any]:
        """Learn the right answer to a question, and give it."""
        from lmm.chat.talk import Talk

        with self.users.engine(user, stop) as engine:
            engine.start(self.config.system)
            view = speaking.Listener(lambda text, tokens: None)
            talk = Talk(engine, view, lambda: dataclasses.replace(self.config, learn="off"), stop, hint="")
            talk.resume([{"user": question, "reply": reply}])
            turn = talk.correct(answer)
            told = _known(engine.mind, turn.lessons if turn else [])
        self.metrics.add("lmm_lessons_total")
        return {"reply": view.text, "lessons": told}

    def undo(self, user: str, count: int) -> int:
        with self.users.newest(user) as mind:
            return mind.undo(count)

    def forget(self, user: str, lesson_id: str, deep: bool = False) -> dict[str, Any]:
        """As a terminal does: also out of the user's chats, typed lines and logs on this machine; with `deep`, whatever
        else in them says its value -> the lesson, which files still hold it, and what is to be said of them.

        Also what it took the place of, or undo would bring that back; and what was known only before: traces may be
        left that could not be removed."""
        with self.users.newest(user) as mind:
            if all(lesson.id != lesson_id for lesson in mind.lessons_ever):
                raise Missing(f"there is no lesson {lesson_id!r}")
            lesson, left = self._taken_out(user, mind, lesson_id, deep)
            for before in mind.replaced_by(lesson):
                left |= self._taken_out(user, mind, before.id, deep)[1]
        names = dict.fromkeys(path.name for paths in left.values() for path in paths)
        return {**_told(lesson), "still_in": list(names), "said": list(left)}

    def _taken_out(self, user: str, mind: Mind, lesson_id: str, deep: bool) -> tuple[Lesson, dict[str, list[Path]]]:
        """A lesson, and what is to be said of where it still is, with the files or tables: folders are the server's
        own."""
        places = self.users.places(user, lesson_id)
        lesson, trace, failed = forgetting.take_out(mind, lesson_id, places, deep=deep)
        left = dict[str, list[Path]]()
        for error in failed:
            reason = error.plain if isinstance(error, LmmError) else str(error)
            for path in places.paths:
                reason = without_folder(reason, path)
            places_left = error.places if isinstance(error, StillThereError) else ()
            left[f"still on disk: {reason}"] = [Path(name) for name in places_left]
        left |= {line: [] for line in memory_files.still_mixed(mind.memory)}
        return lesson, left | places.left(trace, name=lambda path: path.name)

    def why(self, user: str, question: str) -> dict[str, Any]:
        """Which lessons and notes would speak if this were asked now."""
        with self.users.engine(user, learns=False) as engine:
            [recall] = recall_many(engine.mind, [question])
            known = {lesson.id: lesson for lesson in engine.mind.lessons}
            hits = recall.fired[0] if recall is not None and recall.fired else []
            notes = [(note.lesson_id, note.strength) for note in notes_of(recall)]
        told = [("lesson", *hit) for hit in _strongest(hits)] + [("note", *note) for note in notes]
        return {
            "fired": [
                {"as": kind, "strength": round(float(strength), 4), **_told(known[id])}
                for kind, id, strength in told
                if id in known
            ]
        }

    # memory files ------------------------------------------------------------------------------------------------
    def download(self, user: str) -> bytes:
        with self.users.engine(user, learns=False) as engine, tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "memory.safetensors"
            saved = engine.mind.history.saved
            try:
                engine.mind.save(file)
            finally:
                engine.mind.history.saved = saved
            return file.read_bytes()

    def upload(self, user: str, data: bytes) -> int:
        """Raises StateError, and UsageError for what no store can hold, with nothing changed."""
        with _as_file(data) as file:
            try:
                _sound(state_file.read_header(file))
                return self.users.adopt(user, file)
            except InvalidStateError as error:
                wrong = "; ".join(error.problems)
            except StateError as error:  # what it says of flags and files is for a command line
                wrong = str(error).partition(". ")[0].replace(f"the memory {file}", "the file")
                wrong = wrong.replace(str(file), "the file").replace("this session has", "this user's memory has")
        raise StateError(f"{wrong}; nothing was changed")

    def verify(self, data: bytes) -> list[str]:
        with _as_file(data) as file:
            if problems := state_file.verify(file):
                return problems
            try:
                _sound(state_file.read_header(file))
            except UsageError as error:
                return [str(error)]
        return []

    # texts -------------------------------------------------------------------------------------------------------
    def of(self, user: str) -> PersonalMemory:
        """The texts of a user, as they were memorized."""
        return self.texts.of(user)

    def forget_text(self, user: str, id: str) -> dict[str, Any]:
        """Also of what is gone: bytes may be left that could not be removed."""
        store, left = self.texts.store, None
        count = len(store.history(user, id))
        try:
            store.forget(user, [id])
        except StillThereError as error:
            if not count:
                raise
            left = error
        if not count:
            raise Missing(f"there is no memory {id!r}")
        said = {"still_in": list(left.places), "said": [left.plain]} if left else {"still_in": [], "said": []}
        return {"id": id, "deleted": True, "count": count, **said}

    def memo(self, user: str, id: str) -> Memo:
        """Raises Missing, and UsageError for what cannot be an id."""
        storable(id)
        found = self.texts.store.get(user, [id])
        if not found:
            raise Missing(f"there is no memory {id!r}")
        return found[0]


class UnknownModel(UsageError):
    """A model that is not this server's."""


class Missing(UsageError):
    """Something that is not there for this user."""


def _known(mind: Mind, lessons: Sequence[Lesson]) -> list[dict[str, Any]]:
    """Lessons as they are known now that they are learned, with what they have replaced."""
    known = {lesson.id: lesson for lesson in mind.lessons}
    return [_told(known.get(lesson.id, lesson)) for lesson in lessons]


def _strongest(hits: Sequence[tuple[str, float]]) -> Iterable[tuple[str, float]]:
    """Each lesson once: several of its wordings may fire."""
    return sorted(dict(sorted(hits, key=lambda hit: hit[1])).items(), key=lambda hit: -hit[1])


def _told(lesson: Lesson) -> dict[str, Any]:
    values = lesson.to_dict()
    return {name: values[name] for name in TOLD}


def _sound(header: Header) -> None:
    """Raises UsageError for texts that no store can hold and no reply can show, and for ids that no path can name."""
    json_values({**dataclasses.asdict(header), "lessons": []})
    for number, lesson in enumerate(header.lessons, 1):
        for name, value in lesson.to_dict().items():
            for text in value if isinstance(value, list) else [value]:
                storable(str(text), f"lesson {number}'s {name}")
        if not ID.fullmatch(lesson.id):
            raise UsageError(f"lesson {number}'s id is not of up to 64 letters, digits, - and _")


@contextlib.contextmanager
def _as_file(data: bytes) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "memory.safetensors"
        try:
            file.write_bytes(data)
        except OSError as error:
            raise Unavailable(f"there is no place for the file: {error.strerror}") from error
        yield file
