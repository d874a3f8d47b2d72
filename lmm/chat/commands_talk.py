"""Commands about the conversation and the session. Each takes the chat and the rest of its line."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from lmm.config import coerce
from lmm.errors import UnknownNameError, UsageError
from lmm.text.counted import counted

if TYPE_CHECKING:
    from lmm.chat.commands import AnyChat
    from lmm.chat.session import Chat
    from lmm.config import Config


def help(chat: AnyChat, rest: str) -> None:
    from lmm.chat.tables import table

    name = rest.lstrip("/").lower()
    if name and name not in chat.commands:
        raise UnknownNameError("command", name, chat.commands)
    chosen = [chat.commands[name]] if name else chat.commands.values()
    chat.view.show(table(("command", ""), [(f"/{c.name} {c.usage}".strip(), c.help) for c in chosen]))
    if not name:
        chat.view.show('\nJust say what is wrong, as in "No, it\'s Canberra.": it is learned, and one line says so.\n')
        chat.view.show(table(("key", ""), [*KEYS, *chat.keys]))


KEYS = (
    ("Alt-Enter", "a new line"),
    ("Ctrl-R", "search in what you typed before"),
)


def set(chat: AnyChat, rest: str) -> None:
    from lmm.chat.tables import table

    values = {key: getattr(chat.config, key) for key in chat.live}
    if not rest:
        chat.view.show(table(("setting", "value", ""), [(k, str(v), chat.live[k]) for k, v in values.items()]))
        return
    key, _, text = rest.replace("=", " ", 1).partition(" ")
    key, text = key.strip().replace("-", "_"), text.strip()
    if key not in values:
        raise UnknownNameError("setting", key, values)
    if not text:
        chat.view.show(f"{key} = {values[key]}")
        return
    chat.config = dataclasses.replace(chat.config, **{key: coerce(key, text)})
    chat.view.say(f"{key} = {getattr(chat.config, key)}{_idle(chat.config, key)}")


def think(chat: Chat, rest: str) -> None:
    set(chat, f"think {rest}")


#: settings that only one way of decoding heeds
HEEDED_BY = {"temperature": "sample", "top_p": "sample", "min_p": "sample", "beams": "beam"}


def _idle(config: Config, key: str) -> str:
    """What is to be said of a setting that changes nothing as things are."""
    now, needed = config.resolved, HEEDED_BY.get(key, config.resolved)
    if needed != now:
        but = "but for /retry, which samples, " if needed == "sample" else ""
        return f"; {but}it has no effect while decoding is {now}: /set decoding_strategy {needed}"
    if key == "deterministic" and config.decoding_strategy != "auto":
        return f"; it has no effect while decoding_strategy is {now}: /set decoding_strategy auto"
    return ""


def model(chat: Chat, rest: str) -> None:
    from lmm.adapters.models import found
    from lmm.chat.tables import table

    if rest and rest != "list":
        from lmm.chat.memories import use_model

        use_model(chat, rest)
    adapter = chat.engine.adapter
    rows = [
        ("model", adapter.model_id),
        ("revision", adapter.revision or ""),
        ("backend", adapter.name),
        ("dtype, device", f"{adapter.dtype}, {adapter.device}"),
        ("layers x width", f"{adapter.shape.layers} x {adapter.shape.width}"),
        ("memory sits at", ", ".join(f"layer {s.layer} ({s.part})" for s in chat.mind.memory.sites(adapter)) or "-"),
    ]
    chat.view.show(table(("", ""), rows))
    if not rest or rest == "list":
        chat.view.show("")
        chat.view.show(table(found.HEADERS, [model.row for model in found.models() if not model.problem]))
        chat.view.show("\n/model NAME goes on with another; lmm models says also what cannot be used, and why")


def system(chat: AnyChat, rest: str) -> None:
    if not rest:
        chat.view.show(chat.conversation.system or "(no system prompt)")
        return
    text = "" if rest.lower() == "off" else rest
    chat.conversation.system = text
    chat.config = dataclasses.replace(chat.config, system=text)  # of which another model's conversation is made
    chat.view.say("system prompt changed" if text else "no system prompt")


def history(chat: AnyChat, rest: str) -> None:
    for message in chat.conversation.messages:
        chat.view.show(f"{message['role']}: {message['content']}")
    if not chat.conversation.messages:
        chat.view.say("nothing was said yet")


def export(chat: AnyChat, rest: str) -> None:
    """`/export md|json [PATH]`: to a file, or shown if there is no PATH."""
    from lmm.files.own import write_out

    kind, _, path = rest.partition(" ")
    if kind not in ("md", "json"):
        raise UsageError("expected: /export md|json [PATH]")
    text = as_markdown(chat) if kind == "md" else as_json(chat)
    if not path.strip():
        if kind == "md":
            chat.view.show(text.removesuffix("\n"))
        else:
            chat.view.write(text)  # which words broken into lines would damage
        chat.view.say(f"to write this to a file: /export {kind} PATH")
        return
    target = Path(path.strip()).expanduser()
    if target.is_file():
        raise UsageError(f"{target} exists; name another file")
    try:
        is_file = write_out(target, [text.encode("utf-8", "replace")])
    except OSError as error:
        raise UsageError(f"cannot write {target}: {error.strerror or error}; name another file") from error
    if is_file:
        chat.exports.add(target)
        chat.record({"kind": "exported", "path": str(target.resolve())})
    chat.view.say(f"exported to {target}")


def as_markdown(chat: AnyChat) -> str:
    names = {"user": "You", "assistant": "Model", "system": "System"}
    parts = [f"**{names[m['role']]}:** {m['content']}\n" for m in chat.conversation.messages]
    return "\n".join(parts) if parts else "(nothing was said)\n"


def as_json(chat: AnyChat) -> str:
    lessons = [lesson.to_dict() for lesson in chat.lessons]
    content = {**chat.about, "messages": chat.conversation.messages, "lessons": lessons}
    return json.dumps(content, ensure_ascii=False, indent=2) + "\n"


def retry(chat: Chat, rest: str) -> None:
    chat.done(chat.talk.retry())


def more(chat: Chat, rest: str) -> None:
    with chat.view.going_on():
        chat.done(chat.talk.more(), more=True)


EDITORS = ("sensible-editor", "nano", "vim", "vi", "emacs", "micro", "ed")


def edit(chat: AnyChat, rest: str) -> None:
    """Write the next message in $VISUAL or $EDITOR, or else in an editor that is there. Raises UsageError for none."""
    import click

    from lmm.chat.interrupts import typing_mode

    if chat.view.ask is None:
        raise UsageError("/edit needs a terminal")
    editor = _editor(chat)
    chat.busy.stop()
    try:
        with typing_mode(shown=True):
            text = click.edit(rest, editor=editor, require_save=False)
    except click.ClickException as error:
        raise UsageError(f"{error.message}; set EDITOR to the editor you like") from error
    if text and text.strip():
        chat.prefill = text.strip()
    else:
        chat.view.say("nothing was written")


def _editor(chat: AnyChat) -> str:
    """A command that opens an editor; what was asked for and is not here is said. Raises UsageError."""
    asked = [(name, os.environ[name]) for name in ("VISUAL", "EDITOR") if os.environ.get(name, "").strip()]
    for command in [*(value for _, value in asked), *EDITORS]:
        if shutil.which(command) or shutil.which(command.split()[0]):
            missing = [f"{name} is {value}, which is not here" for name, value in asked[:1] if value != command]
            if missing:
                chat.view.say(f"{missing[0]}: opening {command}")
            return command
    raise UsageError("there is no editor here; set EDITOR to one, or write lines with Alt-Enter")


def copy(chat: AnyChat, rest: str) -> None:
    """`/copy`: the last reply to the clipboard; `/copy N`: only its code block N. Raises UsageError."""
    from lmm.chat.markdown import code_blocks
    from lmm.text.sanitize import clean

    turn = chat.conversation.last
    if turn is None:
        raise UsageError("there is no reply to copy yet")
    text = clean(turn.text)
    blocks, what = code_blocks(text), "the last reply"
    if rest:
        if not rest.isascii() or not rest.isdecimal() or not 0 < int(rest[:9]) <= len(blocks):
            there = f"has {counted(len(blocks), 'code block')}" if blocks else "has no code block"
            raise UsageError(f"expected: /copy, or /copy N for one of its code blocks; the last reply {there}")
        text, what = blocks[int(rest) - 1], f"code block {int(rest)}"
    if not chat.view.to_clipboard(text):
        raise UsageError("/copy needs a terminal that has a clipboard; /export md PATH writes a file")
    chat.view.say(f"copied {what}, {counted(len(text), 'character')}, if your terminal lets programs set its clipboard")


def new(chat: AnyChat, rest: str) -> None:
    chat.new()
    chat.view.say("a new conversation; what was learned stays")


def quit(chat: AnyChat, rest: str) -> None:
    raise EOFError


exit = quit
