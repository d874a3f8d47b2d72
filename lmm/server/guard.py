"""What every request passes first: the name it calls the server by, its key, and how long its body is."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_to_bytes

from lmm.server.keys import ANYBODY, Keys, is_loopback
from lmm.server.schema import problem

if TYPE_CHECKING:
    from lmm.server.metrics import Metrics

INTERNAL = problem("internal error", "server_error")  # all that is told of an error which is not lmm's
OPEN = ("/healthz", "/")  # paths that need no key


@dataclass(frozen=True)
class Settings:
    """How a server behaves towards those who ask."""

    keys: Keys
    local: bool = True  # reached from this machine alone
    origins: tuple[str, ...] = ()  # of pages elsewhere that may ask
    body: int = 16_000_000  # bytes
    bodies: int = 256_000_000  # bytes of all that are worked on or wait
    body_seconds: float = 60.0  # in which a body has come
    seconds: float = 600.0  # for a reply
    at_once: int = 64  # replies and lessons at the same time; others wait
    cache_tokens: int = 65_536  # of the conversations that are worked on; the others wait
    waiting: int = 1024  # beyond which they are refused
    waiting_each: int = 64  # of one user


class Unread(Exception):
    """A body that is read no further; `answer` is what is said of it."""

    def __init__(self, status: int, message: str, code: str) -> None:
        super().__init__(message)
        kind = "rate_limit_error" if status == 429 else "invalid_request_error"
        self.answer = status, problem(message, kind, code=code)


class Guard:
    """ASGI middleware. Whose memory a request's key opens is in its `state.user`."""

    def __init__(self, app: Any, settings: Settings, metrics: Metrics) -> None:
        self.app, self.settings, self.metrics = app, settings, metrics
        self.held = 0  # bytes of bodies

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        status, unread, body = 0, None, Body(receive, self)
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}

        async def limited() -> Any:
            nonlocal unread
            try:
                return await body.receive()
            except Unread as error:
                unread = error
                raise

        async def sending(message: Any) -> None:
            nonlocal status
            if unread is not None and not status:
                raise unread  # whatever the application makes of it
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", []), (b"x-content-type-options", b"nosniff")]
            await send(message)

        try:
            if refusal := self._refusal(scope, headers):
                await _send(sending, *refusal)
            else:
                await self.app(scope, limited, sending)
        except Unread as error:
            unread = None
            if not status:
                await _send(sending, *error.answer)
        except Exception:  # goes on to the log of whoever runs the server
            if not status:
                await _send(sending, 500, INTERNAL)
            raise
        finally:
            self.held -= body.read
            path = getattr(scope.get("route"), "path", "other")
            self.metrics.add("lmm_requests_total", path=path, status=str(status))

    def _refusal(self, scope: Any, headers: dict[bytes, str]) -> tuple[int, dict[str, Any]] | None:
        settings, host = self.settings, headers.get(b"host", "")
        name = host if host.endswith("]") or ":" not in host else host.rpartition(":")[0]
        scope.setdefault("state", {})["user"] = ANYBODY
        if settings.local and not settings.keys and not is_loopback(name):  # a page whose name points at this machine
            return 403, problem(f"this server is not called {name!r}", "permission_error")
        if scope["path"] not in OPEN and self._is_foreign(headers, host):
            return 403, problem("pages of other origins may not ask; --cors names those that may", "permission_error")
        if not _is_utf_8(scope.get("raw_path", b"") + b"?" + scope["query_string"]):
            return 400, problem("the address is not percent-encoded UTF-8")
        length = headers.get(b"content-length", "0")
        if length.isdecimal() and int(length) > settings.body:
            return too_large(settings.body).answer
        if not settings.keys or scope["path"] in OPEN or scope["method"] == "OPTIONS":
            return None
        user = settings.keys.user_of(headers.get(b"authorization"))
        if user is None:
            told = "a key is needed, as in: Authorization: Bearer KEY"
            return 401, problem(told, "authentication_error", code="invalid_api_key")
        scope["state"]["user"] = user
        return None

    def _is_foreign(self, headers: dict[bytes, str], host: str) -> bool:
        """Whether a page of another origin asks, as browsers say of it: a body can be sent without a look at CORS."""
        origin, site = headers.get(b"origin"), headers.get(b"sec-fetch-site")
        if "*" in self.settings.origins or origin in self.settings.origins:
            return False
        if site is not None:
            return site not in ("same-origin", "none")
        return origin is not None and origin.rpartition("://")[2].lower() != host.lower()


class Body:
    """A request's body as it comes. Counted in `guard.held` until the request has ended."""

    def __init__(self, receive: Any, guard: Guard) -> None:
        self._receive, self._guard, self.read, self._whole = receive, guard, 0, False
        self._end = time.monotonic() + guard.settings.body_seconds

    async def receive(self) -> Any:
        """Raises Unread for a body that is too long, too long in coming, or one too many."""
        if self._whole:
            return await self._receive()
        settings = self._guard.settings
        try:
            message = await asyncio.wait_for(self._receive(), self._end - time.monotonic())
        except TimeoutError:
            raise Unread(408, f"no body came in {settings.body_seconds:g} s", "timeout") from None
        size, self._whole = len(message.get("body", b"")), not message.get("more_body")
        self.read += size
        self._guard.held += size
        if self.read > settings.body:
            raise too_large(settings.body)
        if self._guard.held > settings.bodies:
            raise Unread(429, f"requests of {settings.bodies:,} bytes are worked on; try again later", "busy")
        return message


def too_large(most: int) -> Unread:
    return Unread(413, f"a request has at most {most:,} bytes", "too_large")


def _is_utf_8(address: bytes) -> bool:
    """Else what is not would be read as one and the same character, and two users as one."""
    try:
        return address.isascii() and bool(unquote_to_bytes(address).decode())
    except UnicodeDecodeError:
        return False


async def _send(send: Any, status: int, content: dict[str, Any]) -> None:
    headers = [(b"content-type", b"application/json"), (b"connection", b"close")]
    headers += [(b"www-authenticate", b"Bearer")] if status == 401 else []
    headers += [(b"retry-after", b"1")] if status == 429 else []
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps(content).encode()})
