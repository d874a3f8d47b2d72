"""Slash commands: a table name -> function. They work on a `Chat` and show through its view; none knows a terminal.

A line that begins with `/` is a command, and is never sent to the model. A line with a blank before the slash is a
message.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias

from lmm.errors import UsageError

if TYPE_CHECKING:
    from lmm.chat.remote import RemoteChat
    from lmm.chat.session import Chat

    AnyChat: TypeAlias = Chat | RemoteChat  # with a model in this process, or one in a server

#: what may follow: (text, one line about it)
Choices = Iterable[tuple[str, str]]


@dataclass(frozen=True)
class Command:
    """`run` gets the chat and the rest of the line, stripped; `choices` lists what that rest may be."""

    name: str
    usage: str
    help: str
    module: str
    choices: Callable[[Any], Choices] | None = None
    takes_path: bool = False

    def run(self, chat: AnyChat, rest: str) -> None:
        import importlib

        getattr(importlib.import_module(self.module), self.name)(chat, rest)


def is_command(line: str) -> bool:
    return line.startswith("/")


def run(chat: AnyChat, line: str) -> None:
    """Run one line. Raises UsageError for an unknown command, naming the nearest, and what commands raise."""
    name, rest = parse(line)
    if name not in chat.commands:
        if name in COMMANDS:
            raise UsageError(f"/{name} does not work with a server; /help lists what does")
        close = difflib.get_close_matches(name, chat.commands, n=1, cutoff=0.5)
        hint = f"did you mean /{close[0]}? " if close else ""
        raise UsageError(
            f"unknown command /{name}: {hint}/help lists them; a line with a blank before the / is sent as a message"
        )
    chat.commands[name].run(chat, rest)


def parse(line: str) -> tuple[str, str]:
    """`/teach a => b` -> ("teach", "a => b")."""
    name, _, rest = line[1:].strip().partition(" ") if " " in line else (line[1:].strip(), "", "")
    name, newline, more = name.partition("\n")
    return name.lower(), (more + " " + rest if newline else rest).strip()


def complete(chat: AnyChat, line: str) -> Iterator[tuple[str, int, str]]:
    """Completions of a line that begins with `/`: (text, where it starts relative to the end, help)."""
    name, blank, rest = line[1:].partition(" ")
    if not blank:
        for command in chat.commands.values():
            if command.name.startswith(name.lower()):
                yield f"/{command.name}", -len(line), f"{command.usage:<18} {command.help}".strip()
        return
    command_ = chat.commands.get(name.lower())
    if command_ is None or command_.choices is None:
        return
    word = rest.rpartition("+")[2] if command_.name == "memory" else rest
    for text, about in command_.choices(chat):
        if word.lower() in text.lower():
            yield text, -len(word), about


# what may follow --------------------------------------------------------------------------------------------------
def _memories(chat: Chat) -> Choices:
    from lmm import registry

    for name in registry.table("lmm.memories"):
        used = "in use: " if name == chat.config.memory else ""
        yield name, used + registry.memory_class(name).summary


def _lessons(chat: AnyChat) -> Choices:
    return [(lesson.id, str(lesson)) for lesson in reversed(chat.offered)]


def _settings(chat: AnyChat) -> Choices:
    return chat.live.items()


def _models(chat: Chat) -> Choices:
    from lmm.adapters.models import found

    return [(model.name, f"{model.format}, {model.origin}") for model in found.models() if not model.problem]


def _names(chat: AnyChat) -> Choices:
    return ((command.name, command.help) for command in chat.commands.values())


def _formats(chat: Chat) -> Choices:
    return (("md", "Markdown, to read"), ("json", "JSON, for programs"))


def _thoughts(chat: Chat) -> Choices:
    return (("show", "before the answer"), ("hide", "leave them out"), ("off", "the model does not think"))


_MEMORY, _TALK = "lmm.chat.commands_memory", "lmm.chat.commands_talk"
COMMANDS: dict[str, Command] = {
    command.name: command
    for command in (
        Command("help", "[COMMAND]", "what there is", _TALK, _names),
        Command("teach", "Q => A", "teach the answer to a question", _MEMORY),
        Command("correct", "ANSWER", "what the last reply should have said", _MEMORY),
        Command("undo", "[N]", "take back the last lesson, or the last N", _MEMORY),
        Command("redo", "[N]", "learn again what was taken back", _MEMORY),
        Command(
            "forget", "N|TEXT|ID [--deep]", "remove a lesson from memory, files, log and history", _MEMORY, _lessons
        ),
        Command("lessons", "[--history] [SEARCH]", "what was learned, and what was so before", _MEMORY),
        Command("why", "[N|TEXT|ID]", "what made the last reply, or a lesson", _MEMORY, _lessons),
        Command("diff", "", "the last reply with and without the memory", _MEMORY),
        Command("memory", "[NAME]", "which memory, or change to another; a+b composes", _MEMORY, _memories),
        Command("consolidate", "", "merge lessons that are hard to tell apart, and learn them anew", _MEMORY),
        Command("save", "[PATH]", "save the memory", _MEMORY, takes_path=True),
        Command("load", "PATH", "load a memory; /undo goes back", _MEMORY, takes_path=True),
        Command("reset", "", "a fresh memory; /undo goes back", _MEMORY),
        Command("stats", "", "figures of this session", _MEMORY),
        Command("set", "[KEY VALUE]", "show or change settings", _TALK, _settings),
        Command(
            "model", "[NAME]", "which model, and which there are; with a name, go on with that one", _TALK, _models
        ),
        Command("think", "show|hide|off", "thoughts of a model that thinks", _TALK, _thoughts),
        Command("system", "[TEXT|off]", "show or change the system prompt", _TALK),
        Command("history", "", "the conversation so far", _TALK),
        Command("copy", "[N]", "the last reply, or its code block N, to the clipboard", _TALK),
        Command("export", "md|json [PATH]", "the conversation, to a file or shown here", _TALK, _formats),
        Command("more", "", "go on with a reply that was cut short", _TALK),
        Command("retry", "", "another reply to the last message", _TALK),
        Command("edit", "", "write the next message in your editor", _TALK),
        Command("new", "", "a new conversation; what was learned stays", _TALK),
        Command("quit", "", "save and leave", _TALK),
        Command("exit", "", "save and leave", _TALK),
    )
}


_SERVER = "lmm.chat.commands_server"
#: those that work with a server, in the same words: on what is here, or by what the server does
_HERE = {"help", "undo", "forget", "lessons", "set", "system", "history", "copy", "export", "edit", "new"}
_THERE = {"teach", "correct", "why", "save", "load", "stats", "retry"}
WITH_A_SERVER: dict[str, Command] = {
    name: replace(command, module=_SERVER) if name in _THERE else command
    for name, command in COMMANDS.items()
    if name in _HERE | _THERE
} | {name: replace(COMMANDS[name], help="leave; what was learned stays") for name in ("quit", "exit")}
