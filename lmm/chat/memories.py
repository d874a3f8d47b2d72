"""Which memory of which model a chat uses. A memory that is not in use keeps its state until it is asked for again."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from lmm.chat.loading import Loading
from lmm.chat.saving import save_all
from lmm.engine import runtime
from lmm.engine.mind import Mind
from lmm.errors import LearningError
from lmm.files import standing
from lmm.lesson import Knowledge
from lmm.memory.composite import Composite
from lmm.text.fold import fold

if TYPE_CHECKING:
    from lmm.chat.session import Chat
    from lmm.config import Config


def use_memory(chat: Chat, name: str) -> None:
    """Put another memory in place; the one before keeps its state. Raises UsageError."""
    if name == chat.config.memory:
        return
    mind, before = chat.shelf.get(name) or _new_mind(chat, name), chat.mind
    chat.engine.use(mind)
    chat.shelf.pop(name, None)
    chat.shelf[chat.config.memory] = before
    chat.config = _config_of(chat, mind)


def _config_of(chat: Chat, mind: Mind) -> Config:
    """The configuration that makes a mind's memory: its options may come from a file, or from the parts of it."""
    options = mind.memory.options_dict()
    return dataclasses.replace(chat.config, memory=mind.memory.name, preset=None, options=options)


def _new_mind(chat: Chat, name: str) -> Mind:
    """A mind for a memory; a composition has its parts as they are in this session, with what they know."""
    parts = {part: chat.minds[part] for part in name.split("+") if part in chat.minds}
    options = {f"{part}.{key}": v for part, mind in parts.items() for key, v in mind.memory.options_dict().items()}
    config = dataclasses.replace(chat.config, memory=name, preset=None, options=options)
    memory = runtime.build_memory(runtime.as_saved(config))
    new = Mind(chat.mind.adapter, memory, chat.config.seed, chat.mind.log)
    new.detach()
    file = standing.file_of(config)
    if isinstance(memory, Composite) and not (file and file.exists()):
        state = memory.join({part: mind.knowledge.state for part, mind in parts.items()}, new.knowledge.state)
        lessons = {x.id: x for mind in parts.values() for x in mind.lessons}
        new.knowledge = new.history.saved = Knowledge(state, tuple(lessons.values()))
    if file is not None and memory.learns_from != "nothing":
        runtime.keep(new, file, chat.view.say)
    return new


def use_model(chat: Chat, name: str) -> None:
    """Go on with another model, in a new conversation.

    States belong to a model, so those that are in no file are written first, and the lessons of the memory in use are
    then taught to the new model, but for those it knows; what it does not learn is said. Raises LmmError or Cancelled;
    until the new model is there, the old one goes on.
    """
    old = chat.engine
    mine = _config_of(chat, old.mind)
    config = dataclasses.replace(mine, model=name, revision=None, adapter=None, mm_load_path=None, mm_save_path=None)
    runtime.check(config)
    coming = Loading(lambda new: runtime.open_engine(config, progress=new.report, notice=new.notices.append))
    chat.coming, coming.progress = coming, f"loading {name}"
    try:
        coming.wait(chat.stop.is_set)
    finally:
        chat.coming = None
    if any(mind.at_risk for mind in chat.minds.values()):
        for path in save_all(chat):
            chat.view.say(f"saved to {path}, which fits the model before")
    chat.close()
    chat.switch(config, coming)
    chat.record({"kind": "model", "model": name})
    known = {(fold(lesson.prompt), fold(lesson.answer), fold(lesson.statement)) for lesson in chat.mind.lessons}
    for lesson in old.mind.lessons:
        if (fold(lesson.prompt), fold(lesson.answer), fold(lesson.statement)) in known:
            continue
        try:
            chat.talk.teach(lesson)
        except LearningError as error:
            chat.view.say(f"not learned: {lesson.prompt or lesson.statement}: {error}")
