"""A chat with a model that runs in a server: the same prompt and screen, and the commands that make sense from afar."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Generator, Iterator
from functools import cached_property
from http.client import HTTPException, HTTPResponse
from typing import TYPE_CHECKING, Any

from lmm.chat import commands
from lmm.chat.busy import Busy
from lmm.errors import LmmError, UsageError
from lmm.text.counted import counted
from lmm.text.sanitize import clean

if TYPE_CHECKING:
    from lmm.chat.view import ConsoleView
    from lmm.config import Config

WAIT_S = 600.0  # for the next part of a reply
HELP = {
    "help": "what there is",
    "lessons": "what was learned",
    "teach": "Q => A: teach the answer to a question",
    "correct": "ANSWER: what the last reply should have said",
    "why": "which lessons and notes speak for the last question",
    "undo": "take back the last lesson",
    "forget": "N: remove a lesson of the list, from memory and files",
    "new": "a new conversation; what was learned stays",
    "quit": "leave",
}


class RemoteError(LmmError):
    """What a server refused, or that it is not there."""


class Server:
    """A server's API, for one user. Raises UsageError for what is no URL, RemoteError for all that fails."""

    def __init__(self, url: str, user: str, key: str) -> None:
        parts = urllib.parse.urlsplit(url if "://" in url else f"http://{url}")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise UsageError(f"--server takes a URL, as in http://127.0.0.1:8080; not {url!r}")
        self.url, self.user, self.key = f"{parts.scheme}://{parts.netloc}", user, key

    def call(self, method: str, path: str, body: Any = None) -> Any:
        with self._open(method, path, body) as found:
            return json.load(found)

    def events(self, body: Any) -> Generator[dict[str, Any], None, None]:
        """The chunks of a chat's reply."""
        with self._open("POST", "/v1/chat/completions", body) as found, _told(self.url):
            for line in found:
                if line.startswith(b"data: {"):
                    chunk = json.loads(line[6:])
                    if "error" in chunk:
                        raise RemoteError(chunk["error"]["message"])
                    yield chunk

    def _open(self, method: str, path: str, body: Any) -> HTTPResponse:
        data = None if body is None else json.dumps(body).encode()
        query = urllib.parse.urlencode({"user": self.user})
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {self.key}"} if self.key else {})
        request = urllib.request.Request(f"{self.url}{path}?{query}", data, headers, method=method)
        with _told(self.url):
            return urllib.request.urlopen(request, timeout=WAIT_S)


class RemoteChat:
    """What the prompt works on."""

    def __init__(self, server: Server, config: Config, view: Callable[[], ConsoleView]) -> None:
        self.server, self.config, self.make_view = server, config, view
        self.model = server.call("GET", "/v1/models")["data"][0]["id"]
        self.messages: list[dict[str, str]] = [{"role": "system", "content": config.system}] if config.system else []
        self.stop = threading.Event()
        self.busy = Busy(lambda: "stopping" if self.stop.is_set() else "waiting for the server")
        self._listed: list[str] = []

    @cached_property
    def view(self) -> ConsoleView:
        made = self.make_view()
        made.busy = self.busy
        return made

    def status(self, width: int) -> str:
        whose = f" · {self.server.user}" if self.server.user else ""
        return clean(f"{self.model} · {self.server.url}{whose}")[: max(width, 0)]

    def line(self, text: str) -> None:
        """A message or a command; what goes wrong is shown. Raises EOFError to leave."""
        self.stop.clear()
        try:
            if commands.is_command(text):
                self._command(*commands.parse(text))
            elif text.strip():
                self._turn(text.strip())
        except LmmError as error:
            self.view.say(str(error))
        finally:
            self.busy.stop()

    # a turn ------------------------------------------------------------------------------------------------------
    def _turn(self, text: str) -> None:
        asked, about = [*self.messages, {"role": "user", "content": text}], dict[str, Any]()
        settings: dict[str, Any] = {
            "max_tokens": self.config.max_tokens,
            "lmm_learn": "off" if self.config.learn == "off" else "auto",
        }
        if self.config.resolved == "sample":
            more = {"temperature": self.config.temperature, "top_p": self.config.top_p, "seed": self.config.seed}
            settings |= more
        body = {"model": self.model, "messages": asked, "stream": True} | settings
        said: list[str] = []

        def chunks() -> Generator[str, None, None]:
            with contextlib.closing(self.server.events(body)) as events:
                for chunk in events:
                    about.update(chunk.get("lmm") or {})
                    if text := chunk["choices"][0]["delta"].get("content") if chunk["choices"] else "":
                        said.append(text)
                        yield text
                    if self.stop.is_set():
                        return

        self.view.reply(chunks(), self.stop.is_set, self.config.markdown)
        if said:
            self.messages = [*asked, {"role": "assistant", "content": "".join(said)}]
        for line in about.get("said", []):
            self.view.say(line)

    # commands ----------------------------------------------------------------------------------------------------
    def _command(self, name: str, rest: str) -> None:
        if name in ("quit", "exit"):
            raise EOFError
        if name not in HELP:
            raise UsageError(f"/{name} does not work with a server; /help lists what does")
        getattr(self, f"_{name}")(rest)

    def _help(self, rest: str) -> None:
        self.view.show("\n".join(f"/{name:<8} {about}" for name, about in HELP.items()))

    def _lessons(self, rest: str) -> None:
        found = self.server.call("GET", "/v1/lessons")["data"]
        self._listed = [lesson["id"] for lesson in found]
        self.view.show("\n".join(f"{i}  {_text(x)}" for i, x in enumerate(found, 1)) or "nothing was learned yet")

    def _teach(self, rest: str) -> None:
        question, arrow, answer = rest.partition("=>")
        if not arrow:
            raise UsageError("expected: /teach QUESTION => ANSWER")
        made = self.server.call("POST", "/v1/lessons", {"question": question.strip(), "answer": answer.strip()})
        self.view.say(f"learned: {_text(made)} - /undo")

    def _correct(self, rest: str) -> None:
        question, reply = self._last()
        body = {"question": question, "reply": reply, "answer": rest}
        found = self.server.call("POST", "/v1/lessons/correct", body)
        self.messages[-1] = {"role": "assistant", "content": found["reply"]}
        self.view.show(found["reply"])
        for lesson in found["lessons"]:
            self.view.say(f"learned: {_text(lesson)} - /undo")

    def _why(self, rest: str) -> None:
        found = self.server.call("POST", "/v1/lessons/why", {"question": rest or self._last()[0]})["fired"]
        lines = [f"because of a {one['as']} ({one['strength']:.2f}): {_text(one)}" for one in found]
        self.view.show("\n".join(lines) or "nothing that was learned speaks there: it is the model's own")

    def _undo(self, rest: str) -> None:
        count = int(rest) if rest.isdecimal() else 1
        undone = self.server.call("POST", "/v1/lessons/undo", {"count": max(count, 1)})["undone"]
        self.view.say(f"{counted(undone, 'lesson')} taken back" if undone else "there is nothing to take back")

    def _forget(self, rest: str) -> None:
        number = int(rest) if rest.isdecimal() else 0
        id = self._listed[number - 1] if 0 < number <= len(self._listed) else rest
        if not id:
            raise UsageError("expected: /forget N, a number of /lessons")
        gone = self.server.call("DELETE", f"/v1/lessons/{urllib.parse.quote(id, safe='')}")
        self.view.say(f"forgotten: {_text(gone)}; this conversation may still say it, /new ends it")

    def _new(self, rest: str) -> None:
        self.messages = [message for message in self.messages if message["role"] == "system"]
        self.view.say("a new conversation; what was learned stays")

    def _last(self) -> tuple[str, str]:
        if len(self.messages) < 2 or self.messages[-1]["role"] != "assistant":
            raise UsageError("there is no reply yet; ask something first")
        return self.messages[-2]["content"], self.messages[-1]["content"]


def run(config: Config, url: str) -> None:
    """Chat until the user leaves. Nothing is kept on this machine but the lines that were typed at the prompt."""
    from lmm.chat.interrupts import Interrupts
    from lmm.chat.view import make_view

    server = Server(url, config.profile or "", os.environ.get("LMM_API_KEY", ""))
    talking = sys.stdin.isatty() and sys.stdout.isatty()
    chat = RemoteChat(server, config, make_view)
    with contextlib.suppress(EOFError), Interrupts(chat.stop.set) as signals:
        read = _at_terminal(chat) if talking else _piped
        while not signals.leaving and (line := read()) is not None and line.strip().lower() not in ("exit", "quit"):
            chat.line(line)


def _at_terminal(chat: RemoteChat) -> Callable[[], str | None]:
    from prompt_toolkit.completion import WordCompleter

    from lmm.chat.repl import Repl

    repl = Repl(chat, completer=WordCompleter([f"/{name}" for name in HELP], sentence=True))
    repl.show(f"{chat.model} at {chat.server.url} · /help")
    return repl.read


def _piped() -> str | None:
    line = sys.stdin.readline()
    return line.rstrip("\n") if line else None


def _text(lesson: dict[str, Any]) -> str:
    return f"{lesson['prompt']} => {lesson['answer']}" if lesson["prompt"] else lesson["statement"]


@contextlib.contextmanager
def _told(url: str) -> Iterator[None]:
    try:
        yield
    except urllib.error.HTTPError as error:
        with error, contextlib.suppress(ValueError, KeyError, TypeError):
            raise RemoteError(json.load(error)["error"]["message"]) from error
        raise RemoteError(f"{url} answered with {error.code}; is it an lmm server?") from error
    except (OSError, HTTPException, ValueError) as error:
        raise RemoteError(f"{url} cannot be reached: {getattr(error, 'reason', error)}") from error
