"""A chat with a model that runs in a server: the same prompt, screen and commands, as far as it can do them."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from functools import cached_property
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmm.chat import commands
from lmm.chat.busy import Busy
from lmm.config import LIVE
from lmm.errors import LmmError, UsageError
from lmm.text.counted import counted
from lmm.text.sanitize import clean
from lmm.text.utf8 import keep_bytes, whole

if TYPE_CHECKING:
    from lmm.chat.view import ConsoleView
    from lmm.config import Config
    from lmm.engine.conversation import Turn
    from lmm.engine.mind import Mind
    from lmm.lesson import Lesson

WAIT_S = 600.0  # for the next part of a reply
HINT = "Ctrl-C again to leave, as Ctrl-D does; what was learned stays"
KEYS = (
    ("Ctrl-C", "stop; clear the line; twice at an empty line: leave"),
    ("Ctrl-D", "leave, as do exit and quit"),
)
#: settings that a request has, or that are of the screen here
SETTINGS = (*("decoding_strategy", "deterministic", "max_tokens", "temperature", "top_p", "seed", "learn", "markdown"),)
HELP = {"max_tokens": "longest reply, in tokens; default: as the server has it"}
MOST: Mapping[str, int] = {"temperature": 2, "max_tokens": 1_000_000, "seed": 2**63 - 1}  # that a request may have


class RemoteError(LmmError):
    """What a server refused, or that it is not there."""


class Server:
    """A server's API, for one user. Raises UsageError for what is no URL, RemoteError for all that fails."""

    def __init__(self, url: str, user: str, key: str) -> None:
        wrong = UsageError(f"--server takes a URL, as in http://127.0.0.1:8080; not {url!r}")
        try:
            parts = urllib.parse.urlsplit(url if "://" in url else f"http://{url}")
            parts.port  # noqa: B018 - it is looked at when it is asked for
        except ValueError:  # half an IPv6 address, a port that is none
            raise wrong from None
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise wrong
        self.url, self.user, self.key = f"{parts.scheme}://{parts.netloc}", user, key

    def call(self, method: str, path: str, body: Any = None, **query: Any) -> Any:
        """`body` is sent as JSON, or as it is where it is bytes."""
        with self._open(method, path, body, **query) as found:
            return json.load(found)

    def download(self, path: str) -> bytes:
        with self._open("GET", path) as found, _told(self.url):
            return found.read()

    def events(self, body: Any) -> Generator[dict[str, Any], None, None]:
        """The chunks of a chat's reply."""
        with self._open("POST", "/v1/chat/completions", body) as found, _told(self.url):
            for line in found:
                if line.startswith(b"data: {"):
                    chunk = json.loads(line[6:])
                    if "error" in chunk:
                        raise RemoteError(chunk["error"]["message"])
                    yield chunk

    def _open(self, method: str, path: str, body: Any = None, **query: Any) -> HTTPResponse:
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        asked = urllib.parse.urlencode({"user": self.user, **query})
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {self.key}"} if self.key else {})
        request = urllib.request.Request(f"{self.url}{path}?{asked}", data, headers, method=method)
        with _told(self.url):
            return urllib.request.urlopen(request, timeout=WAIT_S)


class RemoteChat:
    """What the prompt and the commands work on."""

    def __init__(self, server: Server, config: Config, view: Callable[[], ConsoleView]) -> None:
        from lmm.engine.conversation import Dialogue

        self.server, self.config, self.make_view = server, config, view
        self.commands, self.live = commands.WITH_A_SERVER, {name: LIVE[name] for name in SETTINGS} | HELP
        self.hint, self.keys = HINT, KEYS
        self.model = server.call("GET", "/v1/models")["data"][0]["id"]
        self.conversation = Dialogue(config.system)
        self.stop = threading.Event()
        self.busy = Busy(lambda: "stopping" if self.stop.is_set() else "waiting for the server")
        self.prefill = ""
        self.exports: set[Path] = set()  # conversations written out
        self.shelf: dict[str, Mind] = {}  # no memory is put aside: a server has one for each user
        self.listed: list[str] = []  # ids of the lessons as they were last listed: what a number means
        self.retries = 0
        self.unanswered = 0  # messages that an error kept from being answered
        self._known: list[Lesson] | None = None  # as they were last asked for, while nothing can have changed
        self.offered: Sequence[Lesson] = ()

    @property
    def config(self) -> Config:
        return self._config

    @config.setter
    def config(self, config: Config) -> None:
        """Raises UsageError for what no request can say."""
        if config.learn == "ask":
            raise UsageError("a server cannot ask before it learns; --learn is auto or off with --server")
        for name, most in MOST.items():
            if (value := getattr(config, name)) is not None and value > most:
                raise UsageError(f"{name} is at most {most} with a server, not {value}")
        if config.resolved == "beam":
            raise UsageError("a server's replies are greedy or sampled; beam search does not work with --server")
        self._config = config

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
        self.busy.start(after=0.2 if commands.is_command(text) else 0.0)
        self._known = None  # others may have taught it something
        try:
            whole(text, "the message")
            if commands.is_command(text):
                commands.run(self, text)
            elif text.strip():
                self.turn(text.strip())
        except LmmError as error:
            self.unanswered += not commands.is_command(text)
            self.view.say(str(error))
        finally:
            self.busy.stop()

    # a turn ------------------------------------------------------------------------------------------------------
    def turn(self, text: str) -> None:
        """Answer a message, which may teach something, or take something back."""
        from lmm.chat.forgetting import offer
        from lmm.lesson import Lesson

        self.retries = 0
        _, about = self._reply(text, {"lmm_learn": "off" if self.config.learn == "off" else "auto"})
        if about.get("lessons"):
            self.view.say("/undo takes it back")
        for lesson in about.get("takes_back", ()):
            offer(self, Lesson.from_dict(lesson), text)

    def retry(self) -> None:
        """Answer the last message again. Greedy decoding would repeat itself, so a retry samples."""
        before, turn = self.last, None
        self.conversation.turns.pop()
        self.retries += 1
        try:
            turn, _ = self._reply(before.user, {"lmm_learn": "off", **self._sampled(self.retries)})
        finally:
            self.conversation.turns += [before] if turn is None else []  # the reply before stands
        if turn is not None:
            turn.lessons = before.lessons

    def _reply(self, text: str, settings: dict[str, Any]) -> tuple[Turn | None, dict[str, Any]]:
        """Show the reply to a message -> the turn, if anything came, and what lmm says beside it."""
        from lmm.engine.conversation import Turn

        messages = [*self.conversation.messages, {"role": "user", "content": text}]
        asked = {"model": self.model, "messages": messages, "stream": True, "max_tokens": self.config.max_tokens}
        about, said = dict[str, Any](), list[str]()

        def chunks() -> Generator[str, None, None]:
            with contextlib.closing(self.server.events(asked | self._decoding() | settings)) as events:
                for chunk in events:
                    about.update(chunk.get("lmm") or {})
                    if text := chunk["choices"][0]["delta"].get("content") if chunk["choices"] else "":
                        said.append(text)
                        yield text
                    if self.stop.is_set():
                        return

        self.view.reply(chunks(), self.stop.is_set, self.config.markdown)
        turn = Turn(text, "".join(said), fired=tuple(about.get("fired", ())), answered=True) if said else None
        if turn is not None:
            self.conversation.turns.append(turn)
            if taught := about.get("lessons"):
                self._known = None
                turn.lessons = tuple(lesson for lesson in self.lessons if lesson.id in taught)
        for line in about.get("said", ()):
            self.view.say(line)
        return turn, about

    def _decoding(self) -> dict[str, Any]:
        """What a request says of it; where nothing was chosen here, the server's own settings hold."""
        if self.config.resolved == "sample":
            return self._sampled()
        return {"temperature": 0} if self.config.decoding_strategy == "greedy" else {}

    def _sampled(self, more: int = 0) -> dict[str, Any]:
        seed = (self.config.seed + more) % (MOST["seed"] + 1)
        return {"temperature": self.config.temperature, "top_p": self.config.top_p, "seed": seed}

    @property
    def last(self) -> Turn:
        """Raises UsageError where nothing was said yet."""
        if self.conversation.last is None:
            raise UsageError("there is no reply yet; ask something first")
        return self.conversation.last

    # what commands use -------------------------------------------------------------------------------------------
    @property
    def lessons(self) -> Sequence[Lesson]:
        if self._known is None:
            self.offered = self._known = self._asked()
        return self._known

    @property
    def lessons_ever(self) -> Sequence[Lesson]:
        """Also those that undo would bring back."""
        return self._asked(ever=True)

    def _asked(self, **query: Any) -> list[Lesson]:
        from lmm.lesson import Lesson

        return [Lesson.from_dict(values) for values in self.server.call("GET", "/v1/lessons", **query)["data"]]

    @property
    def about(self) -> dict[str, str]:
        """What an export says of where it was said."""
        return {"model": self.model, "server": self.server.url, "user": self.server.user}

    def record(self, values: Mapping[str, Any]) -> None:
        """Nothing is kept here of what was said."""

    def undo(self, count: int) -> int:
        self._known = None
        return self.server.call("POST", "/v1/lessons/undo", {"count": min(count, 1000)})["undone"]

    def forget(self, lesson: Lesson, typed: str, deep: bool = False) -> None:
        """Have the server take out a lesson, and what it has left behind there; here it goes from the conversation."""
        from lmm.chat.forgetting import EXPORTED, drop, exports_with
        from lmm.engine.memory_files import from_here
        from lmm.files.traces import Trace

        said = [turn.user for turn in self.conversation.turns if lesson in turn.lessons]
        gone = self.server.call("DELETE", f"/v1/lessons/{urllib.parse.quote(lesson.id, safe='')}", deep=deep)
        self._known, trace = None, Trace.of_lesson(lesson, said)
        drop(self, trace)
        for line in gone["said"]:
            self.view.say(f"on the server: {line}")
        for path in exports_with(trace, self.exports, chats=()):
            self.view.say(f"still in {from_here(path)}, which was {EXPORTED}")

    def new(self) -> None:
        self.conversation.turns = []


def run(config: Config, url: str) -> None:
    """Chat until the user leaves; nothing is kept on this machine. Raises UsageError for settings that only a memory on
    this machine has, and LmmError where messages of a pipe were not answered."""
    from lmm.chat.interrupts import Interrupts
    from lmm.chat.view import make_view

    if config.fresh or config.mm_load_path or config.mm_save_path:
        raise UsageError(
            "--fresh and --mm-path are for a memory on this machine; with --server, --profile NAME says whose memory "
            "it is there, and --learn off leaves it as it is"
        )
    server = Server(url, config.profile or "", os.environ.get("LMM_API_KEY", ""))
    talking = sys.stdin.isatty() and sys.stdout.isatty()
    keep_bytes(sys.stdin)
    chat = RemoteChat(server, config, make_view)
    with contextlib.suppress(EOFError), Interrupts(chat.stop.set) as signals:
        read = _at_terminal(chat) if talking else _piped
        while not signals.leaving and (line := read()) is not None and line.strip().lower() not in ("exit", "quit"):
            chat.line(line)
    if chat.view.failed is not None:  # nobody has seen the replies
        raise chat.view.failed
    if chat.unanswered and not talking:
        raise LmmError(f"{counted(chat.unanswered, 'message')} could not be answered")


def _at_terminal(chat: RemoteChat) -> Callable[[], str | None]:
    from lmm.chat.repl import Repl
    from lmm.chat.view import make_view

    repl = Repl(chat)
    chat.make_view = lambda: make_view(ask=repl.ask)
    repl.show(f"{chat.model} at {chat.server.url} · /help")

    def read() -> str:
        prefill, chat.prefill = chat.prefill, ""
        return repl.read(prefill)

    return read


def _piped() -> str | None:
    line = sys.stdin.readline()
    return line.rstrip("\n") if line else None


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
