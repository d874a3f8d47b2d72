"""The HTTP of it: OpenAI's paths and lmm's own, and errors in OpenAI's form."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse, StreamingResponse
from starlette.exceptions import HTTPException

import lmm
from lmm.errors import Cancelled, LearningError, LmmError, ModelError, StateError, StoreError, TooLongError, UsageError
from lmm.server import schema
from lmm.server.guard import Guard, Settings
from lmm.server.schema import (
    AnyRequest,
    ChatRequest,
    Completion,
    CompletionRequest,
    CorrectRequest,
    EmbeddingRequest,
    MemorizeRequest,
    RecallRequest,
    TeachRequest,
    UndoRequest,
    UpdateRequest,
    WhyRequest,
    problem,
)
from lmm.server.service import Missing, Replied, Service, UnknownModel

WHOSE = "x-lmm-memory"
PAGE = Path(__file__).with_name("page.html")
POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'; img-src data:"
#: (status, type, code) of errors, the first that fits
STATUS: tuple[tuple[type[LmmError], int, str, str | None], ...] = (
    (UnknownModel, 404, "invalid_request_error", "model_not_found"),
    (Missing, 404, "invalid_request_error", "not_found"),
    (TooLongError, 400, "invalid_request_error", "context_length_exceeded"),
    (UsageError, 400, "invalid_request_error", None),
    (LearningError, 422, "invalid_request_error", "not_learned"),
    (StateError, 422, "invalid_request_error", "memory_file"),
    (ModelError, 400, "invalid_request_error", None),
    (Cancelled, 499, "invalid_request_error", "cancelled"),
    (StoreError, 503, "server_error", "store"),
    (LmmError, 500, "server_error", None),
)


class Refused(HTTPException):
    """A request that is answered with an error in OpenAI's form."""

    def __init__(self, status: int, message: str, code: str | None = None, kind: str = "invalid_request_error") -> None:
        super().__init__(status, message)
        self.content = problem(message, kind, code=code)


class Caller:
    """Who asks, and whose memory: the key's own, or the one that is named by header, field or query."""

    def __init__(self, request: Request, user: Annotated[str | None, Query(max_length=1000)] = None) -> None:
        self.key_user: str = request.state.user
        self.header, self.query = request.headers.get(WHOSE), user

    def user(self, field: str | None = None) -> str:
        named = next((name for name in (self.header, field, self.query) if name), "")
        if self.key_user and named not in ("", self.key_user):
            raise Refused(403, "this key opens another user's memory alone", "wrong_user", "permission_error")
        return self.key_user or named


Who = Annotated[Caller, Depends()]


def make_app(service: Service, settings: Settings) -> FastAPI:
    """The application; its `state.service` is closed when it ends."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(app.state.pool.shutdown)
        await asyncio.to_thread(service.close)

    app = FastAPI(
        title="lmm", version=lmm.__version__, lifespan=lifespan, description=__doc__, docs_url=None, redoc_url=None
    )
    app.state.service, app.state.settings = service, settings
    app.state.pool = ThreadPoolExecutor(settings.at_once, "reply")
    app.state.running = 0
    _errors(app)
    if settings.origins:
        from starlette.middleware.cors import CORSMiddleware

        origins = list(settings.origins)
        app.add_middleware(CORSMiddleware, allow_origins=origins, allow_methods=["*"], allow_headers=["*"])
    app.add_middleware(Guard, settings=settings, metrics=service.metrics)
    _replies(app, service)
    _texts(app, service)
    _lessons(app, service)
    _around(app, service)
    return app


# errors ---------------------------------------------------------------------------------------------------------
def _errors(app: FastAPI) -> None:
    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        place = ".".join(str(x) for x in first["loc"] if x != "body") or None
        return JSONResponse(problem(f"{place or 'the body'}: {first['msg']}", param=place), 400)

    @app.exception_handler(HTTPException)
    async def refused(request: Request, error: HTTPException) -> Response:
        content = error.content if isinstance(error, Refused) else problem(str(error.detail))
        return JSONResponse(content, error.status_code, error.headers)

    @app.exception_handler(LmmError)
    @app.exception_handler(Exception)
    async def failed(request: Request, error: Exception) -> Response:
        status, content = told(error)
        return JSONResponse(content, status)


def told(error: Exception) -> tuple[int, dict[str, Any]]:
    """An error as status and content; of one that is not lmm's, nothing is told."""
    if not isinstance(error, LmmError):
        return 500, problem("internal error", "server_error")
    _, status, kind, code = next(row for row in STATUS if isinstance(error, row[0]))
    return status, problem(str(error), kind, code=code)


# replies --------------------------------------------------------------------------------------------------------
def _replies(app: FastAPI, service: Service) -> None:
    @app.get("/v1/models")
    def models() -> dict[str, Any]:
        """The model that talks, and the encoder of embeddings."""
        names = (service.model, service.texts.encoder.name)
        return {"object": "list", "data": [_model(name, service.started) for name in names]}

    @app.get("/v1/models/{name:path}")
    def model(name: str) -> dict[str, Any]:
        if name not in (service.model, service.texts.encoder.name):
            raise UnknownModel(f"there is no model {name!r} here; this server has {service.model!r}")
        return _model(name, service.started)

    @app.post("/v1/chat/completions")
    async def chat(body: ChatRequest, request: Request, who: Who) -> Response:
        """A reply to a conversation. What its last message teaches is learned, unless `lmm_learn` is off; the reply's
        field `lmm` says what was learned, and which lessons and notes spoke."""
        user = who.user(body.user)
        return await _answer(
            app, request, body, Completion("chat", service.model), lambda *a: service.chat(body, user, *a)
        )

    @app.post("/v1/completions")
    async def completions(body: CompletionRequest, request: Request, who: Who) -> Response:
        """A text that goes on."""
        user = who.user(body.user)
        return await _answer(
            app, request, body, Completion("text", service.model), lambda *a: service.complete(body, user, *a)
        )

    @app.post("/v1/embeddings")
    def embeddings(body: EmbeddingRequest) -> dict[str, Any]:
        """Vectors of length 1."""
        encoder = service.texts.encoder
        if body.model not in (None, "", encoder.name, service.model):
            raise UnknownModel(f"there is no encoder {body.model!r} here; this server has {encoder.name!r}")
        if body.dimensions not in (None, encoder.width):
            raise UsageError(f"{encoder.name} has {encoder.width} dimensions")
        texts = [body.input] if isinstance(body.input, str) else body.input
        if not all(text.strip() for text in texts):
            raise UsageError("an input is empty")
        count = sum(encoder.count_tokens(text) for text in texts)
        vectors = encoder.encode(texts)
        return {
            "object": "list",
            "model": encoder.name,
            "data": [schema.embedding(i, vector, body.encoding_format) for i, vector in enumerate(vectors)],
            "usage": {"prompt_tokens": count, "total_tokens": count},
        }


Work = Callable[[Callable[[str], None], threading.Event], Replied]


async def _answer(app: FastAPI, request: Request, body: AnyRequest, made: Completion, work: Work) -> Response:
    """Run it on a thread; whole or as a stream. It ends when the client leaves, or at the time limit."""
    settings: Settings = app.state.settings
    if app.state.running >= settings.at_once + settings.waiting:
        raise Refused(429, "too many requests are waiting; try again later", "busy", "rate_limit_error")
    loop, parts, stop = asyncio.get_running_loop(), asyncio.Queue[Any](), threading.Event()

    def emit(part: str | Replied | Exception) -> None:
        loop.call_soon_threadsafe(parts.put_nowait, part)

    def run() -> None:
        try:
            emit(work(emit, stop))
        except Exception as error:
            emit(error)

    app.state.running += 1
    app.state.service.metrics.set("lmm_requests_running", app.state.running)
    future = loop.run_in_executor(app.state.pool, run)

    def ended(_: Any) -> None:
        app.state.running -= 1
        app.state.service.metrics.set("lmm_requests_running", app.state.running)

    future.add_done_callback(ended)
    timer = loop.call_later(settings.seconds, stop.set)
    future.add_done_callback(lambda _: timer.cancel())
    if body.stream:
        first = await _next(parts, request, stop)
        if isinstance(first, Exception):
            raise first
        events = _events(first, parts, made, body.with_usage, stop)
        return StreamingResponse(events, media_type="text/event-stream", headers={"Cache-Control": "no-store"})
    while isinstance(part := await _next(parts, request, stop), str):
        pass
    if isinstance(part, Exception):
        raise part
    used = schema.usage(part.read, part.made)
    return JSONResponse(made.whole(part.text, part.ended, used, part.logprobs, part.about))


async def _next(parts: asyncio.Queue[Any], request: Request, stop: threading.Event) -> Any:
    """The next part; meanwhile it is seen whether the client is still there."""
    while True:
        try:
            return await asyncio.wait_for(parts.get(), 0.5)
        except TimeoutError:
            if await request.is_disconnected():
                stop.set()


async def _events(
    first: Any, parts: asyncio.Queue[Any], made: Completion, with_usage: bool, stop: threading.Event
) -> AsyncIterator[bytes]:
    """Server-sent events. Where the client leaves, this is closed, and the reply with it."""
    try:
        if made.chat:
            yield _event(made.first())
        part = first
        while isinstance(part, str):
            yield _event(made.part(part))
            part = await parts.get()
        if isinstance(part, Exception):
            yield _event(told(part)[1])
        else:
            yield _event(made.last(part.ended, part.logprobs, part.about))
            if with_usage:
                yield _event(made.used(schema.usage(part.read, part.made)))
        yield b"data: [DONE]\n\n"
    finally:
        stop.set()


def _event(content: dict[str, Any]) -> bytes:
    return f"data: {json.dumps(content, ensure_ascii=False)}\n\n".encode("utf-8", "replace")


def _model(name: str, created: int) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": created, "owned_by": "lmm"}


# texts ----------------------------------------------------------------------------------------------------------
def _texts(app: FastAPI, service: Service) -> None:
    @app.post("/v1/memories")
    def memorize(body: MemorizeRequest, who: Who) -> dict[str, Any]:
        """Keep a text word for word."""
        memory = service.of(who.user(body.user))
        return memory.get(memory.memorize(body.text, body.context, body.metadata, body.about)).to_dict()

    @app.get("/v1/memories")
    def memories(who: Who, since: float | None = None, until: float | None = None) -> dict[str, Any]:
        return {"object": "list", "data": [memo.to_dict() for memo in service.of(who.user()).list(since, until)]}

    @app.post("/v1/memories/search")
    def recall(body: RecallRequest, who: Who) -> dict[str, Any]:
        """The texts nearest to a query, by meaning and by words."""
        memory = service.of(who.user(body.user))
        found = memory.recall(body.query, body.top_k, body.since, body.until, body.metadata)
        return {"object": "list", "data": [{**x.memo.to_dict(), "score": x.score, "cosine": x.cosine} for x in found]}

    @app.get("/v1/memories/{id}")
    def memory(id: str, who: Who) -> dict[str, Any]:
        return service.memo(who.user(), id).to_dict()

    @app.put("/v1/memories/{id}")
    def update(id: str, body: UpdateRequest, who: Who) -> dict[str, Any]:
        """A correction in the place of a text, which stays as history."""
        user = who.user(body.user)
        service.memo(user, id)
        memory = service.of(user)
        return memory.get(memory.update(id, body.text, body.metadata)).to_dict()

    @app.delete("/v1/memories/{id}")
    def forget(id: str, who: Who) -> dict[str, Any]:
        """Remove a fact with its history, from every file."""
        user = who.user()
        service.memo(user, id)
        return {"id": id, "deleted": True, "count": service.of(user).forget(id)}

    @app.get("/v1/memories/{id}/history")
    def history(id: str, who: Who) -> dict[str, Any]:
        user = who.user()
        service.memo(user, id)
        return {"object": "list", "data": [memo.to_dict() for memo in service.of(user).history(id)]}


# lessons and memory files ---------------------------------------------------------------------------------------
def _lessons(app: FastAPI, service: Service) -> None:
    @app.get("/v1/lessons")
    def lessons(who: Who) -> dict[str, Any]:
        return {"object": "list", "data": service.lessons(who.user())}

    @app.post("/v1/lessons")
    def teach(body: TeachRequest, who: Who) -> dict[str, Any]:
        """Teach the answer to a question."""
        return service.teach(who.user(body.user), body.question, body.answer)

    @app.post("/v1/lessons/correct")
    def correct(body: CorrectRequest, who: Who) -> dict[str, Any]:
        """Teach what a reply should have been, and give it."""
        return service.correct(who.user(body.user), body.question, body.reply, body.answer)

    @app.post("/v1/lessons/undo")
    def undo(body: UndoRequest, who: Who) -> dict[str, Any]:
        return {"undone": service.undo(who.user(body.user), body.count)}

    @app.post("/v1/lessons/why")
    def why(body: WhyRequest, who: Who) -> dict[str, Any]:
        """Which lessons and notes would speak if this were asked."""
        return service.why(who.user(body.user), body.question)

    @app.delete("/v1/lessons/{id}")
    def forget(id: str, who: Who) -> dict[str, Any]:
        return {"deleted": True, **service.forget(who.user(), id)}

    @app.get("/v1/memory", response_class=Response)
    def download(who: Who) -> Response:
        """The memory file: what was learned, for any lmm with this model."""
        name = {"Content-Disposition": 'attachment; filename="memory.safetensors"'}
        return Response(service.download(who.user()), media_type="application/octet-stream", headers=name)

    @app.put("/v1/memory")
    async def upload(request: Request, who: Who) -> dict[str, Any]:
        """Make a memory file what is known."""
        data, user = await request.body(), who.user()
        return {"lessons": await asyncio.to_thread(service.upload, user, data)}

    @app.post("/v1/memory/verify")
    async def verify(request: Request) -> dict[str, Any]:
        """Check a memory file whole, and change nothing."""
        problems = await asyncio.to_thread(service.verify, await request.body())
        return {"good": not problems, "problems": problems}


# around it ------------------------------------------------------------------------------------------------------
def _around(app: FastAPI, service: Service) -> None:
    @app.get("/healthz")
    def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/metrics", response_class=PlainTextResponse)
    def metrics() -> str:
        service.metrics.set("lmm_passes_total", service.users.seats.passes)
        return service.metrics.text()

    @app.get("/", include_in_schema=False)
    def page() -> Response:
        return Response(
            PAGE.read_bytes(), media_type="text/html; charset=utf-8", headers={"Content-Security-Policy": POLICY}
        )
