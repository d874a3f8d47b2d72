"""The HTTP of it: OpenAI's paths and lmm's own, and errors in OpenAI's form."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from fastapi import Depends, FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse, StreamingResponse
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

import lmm
from lmm.errors import Cancelled, LearningError, LmmError, ModelError, StateError, StoreError, TooLongError, UsageError
from lmm.server import heap, schema
from lmm.server.guard import INTERNAL, Guard, Settings
from lmm.server.logprobs import Token
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
    Time,
    UndoRequest,
    UpdateRequest,
    WhyRequest,
    problem,
)
from lmm.server.service import Missing, Replied, Service, UnknownModel
from lmm.server.speaking import Emit
from lmm.server.users import Unavailable, without_folder
from lmm.server.workers import Late, Size, Stop, TooMany, Workers

if TYPE_CHECKING:
    from lmm.store.base import Memo

log = logging.getLogger("lmm")
EMBEDDINGS, BATCH = 2, 32  # requests for embeddings of a user at once; texts between two looks whether it is to end
WHOSE = "x-lmm-memory"
LOOK_S = 30.0  # between looks for conversations that have not gone on
PAGE = Path(__file__).with_name("page.html")
POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'; img-src data:; "
    "frame-ancestors 'none'"
)
#: (status, type, code) of errors, the first that fits
STATUS: tuple[tuple[type[LmmError], int, str, str | None], ...] = (
    (UnknownModel, 404, "invalid_request_error", "model_not_found"),
    (Missing, 404, "invalid_request_error", "not_found"),
    (TooLongError, 400, "invalid_request_error", "context_length_exceeded"),
    (UsageError, 400, "invalid_request_error", None),
    (LearningError, 422, "invalid_request_error", "not_learned"),
    (StateError, 422, "invalid_request_error", "memory_file"),
    (ModelError, 400, "invalid_request_error", None),
    (TooMany, 429, "rate_limit_error", "busy"),
    (Late, 503, "server_error", "late"),
    (Cancelled, 503, "server_error", "cancelled"),
    (StoreError, 503, "server_error", "store"),
    (Unavailable, 503, "server_error", "memory"),
    (LmmError, 500, "server_error", None),
)


class Refused(HTTPException):
    """A request that is answered with an error in OpenAI's form."""

    def __init__(self, status: int, message: str, code: str | None = None, kind: str = "invalid_request_error") -> None:
        super().__init__(status, message)
        self.content = problem(message, kind, code=code)


class Caller:
    """Who asks, and whose memory: the key's own, or the one that is named by header, field or query."""

    def __init__(self, request: Request) -> None:
        self.key_user: str = request.state.user
        try:  # bytes, of which HTTP says nothing and most clients send UTF-8
            headers = [value.encode("latin-1").decode() for value in request.headers.getlist(WHOSE)]
        except UnicodeDecodeError:
            raise Refused(400, f"the header {WHOSE} is not UTF-8") from None
        self.named = [*headers, *request.query_params.getlist("user")]

    def user(self, field: str | None = None) -> str:
        names = {name for name in (*self.named, field) if name}
        if len(names) > 1:
            raise Refused(400, f"whose memory? {' and '.join(sorted(map(repr, names)))} are named", "two_users")
        named = names.pop() if names else ""
        if self.key_user and named not in ("", self.key_user):
            raise Refused(403, "this key opens another user's memory alone", "wrong_user", "permission_error")
        return self.key_user or named


async def caller(request: Request, user: Annotated[str | None, Query(max_length=1000)] = None) -> Caller:
    return Caller(request)  # `user`, for whoever reads the API, is one of several that may be there


Who = Annotated[Caller, Depends(caller)]


def make_app(service: Service, settings: Settings) -> FastAPI:
    """The application; its `state.service` is closed when it ends."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        letting_go = asyncio.create_task(_let_go(service))
        yield
        letting_go.cancel()
        await app.state.workers.close()
        await asyncio.to_thread(service.close)

    app = FastAPI(
        title="lmm", version=lmm.__version__, lifespan=lifespan, description=__doc__, docs_url=None, redoc_url=None
    )
    app.state.service, app.state.settings = service, settings
    service.users.cached_tokens = settings.cache_tokens // 4
    app.state.workers = workers = Workers(settings, service.metrics, service.users.most)
    _errors(app, service)
    app.add_middleware(Guard, settings=settings, metrics=service.metrics)
    if settings.origins:  # outermost: a page is to read also what it is refused
        from starlette.middleware.cors import CORSMiddleware

        origins = list(settings.origins)
        app.add_middleware(CORSMiddleware, allow_origins=origins, allow_methods=["*"], allow_headers=["*"])
    _replies(app, service, workers)
    _texts(app, service)
    _lessons(app, service, workers)
    _around(app, service)
    return app


async def _let_go(service: Service) -> None:
    """Conversations that do not go on cost nothing but their users' minds, and what was forgotten goes for good."""
    while True:
        await asyncio.sleep(LOOK_S)
        await asyncio.to_thread(service.users.let_go)
        await asyncio.to_thread(service.texts.store.clean_up)
        await asyncio.to_thread(heap.give_back)


# errors ---------------------------------------------------------------------------------------------------------
def _errors(app: FastAPI, service: Service) -> None:
    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        return JSONResponse(_wrong(error.errors()), 400)

    @app.exception_handler(HTTPException)
    async def refused(request: Request, error: HTTPException) -> Response:
        content = error.content if isinstance(error, Refused) else problem(str(error.detail))
        return JSONResponse(content, error.status_code, error.headers)

    @app.exception_handler(LmmError)
    async def failed(request: Request, error: LmmError) -> Response:
        status, content = told(error)
        if isinstance(error, StoreError):
            content["error"]["message"] = without_folder(error.plain, getattr(service.texts.store, "path", None))
        return JSONResponse(content, status, {"Retry-After": "1"} if status == 429 else None)


def _wrong(errors: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What is wrong in the first field that is; where it may be this or that, of the one that fits best."""
    field = errors[0]["loc"][:2]
    first = max(
        (error for error in errors if error["loc"][:2] == field),
        key=lambda error: (len(error["loc"]), not error["type"].endswith("_type")),
    )
    if first["type"] == "json_invalid":
        return problem(f"the body is not JSON: {first['ctx']['error']}, at character {first['loc'][1]}")
    named = (x for x in first["loc"] if isinstance(x, int) or (x.isidentifier() and x != "body"))  # others are types
    place = ".".join(map(str, named)) or None
    return problem(f"{place or 'the body'}: {first['msg'].removeprefix('Value error, ')}", param=place)


def told(error: LmmError) -> tuple[int, dict[str, Any]]:
    """An error as status and content; what no client is told of it goes to the log."""
    _, status, kind, code = next(row for row in STATUS if isinstance(error, row[0]))
    if error.detail:
        log.warning(error)
    return status, problem(error.plain, kind, code=code)


# replies --------------------------------------------------------------------------------------------------------
def _replies(app: FastAPI, service: Service, workers: Workers) -> None:
    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        """The model that talks, and the encoder of embeddings."""
        names = (service.model, service.texts.encoder.name)
        return {"object": "list", "data": [_model(name, service.started) for name in names]}

    @app.get("/v1/models/{name:path}")
    async def model(name: str) -> dict[str, Any]:
        if name not in (service.model, service.texts.encoder.name):
            raise UnknownModel(f"there is no model {name!r} here; this server has {service.model!r}")
        return _model(name, service.started)

    @app.post("/v1/chat/completions")
    async def chat(body: ChatRequest, request: Request, who: Who) -> Response:
        """A reply to a conversation. What its last message teaches is learned, unless `lmm_learn` is off; the reply's
        field `lmm` says what was learned, and which lessons and notes spoke."""
        user = who.user(body.user)
        made = Completion("chat", service.model)
        size = partial(service.size, body.texts, body.most)
        return await _answer(workers, request, body, user, made, lambda *a: service.chat(body, user, *a), size)

    @app.post("/v1/completions")
    async def completions(body: CompletionRequest, request: Request, who: Who) -> Response:
        """A text that goes on."""
        user = who.user(body.user)
        made = Completion("text", service.model)
        size = partial(service.size, body.texts, body.most)
        return await _answer(workers, request, body, user, made, lambda *a: service.complete(body, user, *a), size)

    embedding: Counter[str] = Counter()  # requests of each user

    @app.post("/v1/embeddings")
    async def embeddings(body: EmbeddingRequest, request: Request, who: Who) -> dict[str, Any]:
        """Vectors of length 1. It ends when the client leaves, or at the time limit."""
        user, stop = who.user(body.user), Stop()
        if embedding[user] >= EMBEDDINGS:
            raise TooMany(f"{EMBEDDINGS} requests of yours for embeddings are worked on; try again when one has ended")
        embedding[user] += 1
        leaving = asyncio.create_task(_left(request, stop))
        timer = asyncio.get_running_loop().call_later(workers.settings.seconds, stop.set)
        try:
            return await run_in_threadpool(embedded, body, stop)
        finally:
            stop.set()
            timer.cancel()
            leaving.cancel()
            embedding[user] -= 1
            if not embedding[user]:
                del embedding[user]

    def embedded(body: EmbeddingRequest, stop: Stop) -> dict[str, Any]:
        encoder = service.texts.encoder
        if body.model not in (None, "", encoder.name, service.model):
            raise UnknownModel(f"there is no encoder {body.model!r} here; this server has {encoder.name!r}")
        if body.dimensions not in (None, encoder.width):
            raise UsageError(f"{encoder.name} has {encoder.width} dimensions")
        texts = [body.input] if isinstance(body.input, str) else body.input
        if not all(text.strip() for text in texts):
            raise UsageError("an input is empty")
        count, vectors = 0, list[np.ndarray]()
        for i in range(0, len(texts), BATCH):
            some = texts[i : i + BATCH]
            if stop.is_set():
                raise Late("the client left, or the time limit was over, before all was embedded")
            count += sum(encoder.count_tokens(text) for text in some)
            vectors += list(encoder.encode(some))
        return {
            "object": "list",
            "model": encoder.name,
            "data": [schema.embedding(i, vector, body.encoding_format) for i, vector in enumerate(vectors)],
            "usage": {"prompt_tokens": count, "total_tokens": count},
        }


Work = Callable[[Emit, Stop], Replied]


async def _answer(
    workers: Workers, request: Request, body: AnyRequest, user: str, made: Completion, work: Work, size: Size
) -> Response:
    """Whole or as a stream. It ends when the client leaves, at the time limit, or with the server."""
    loop, parts, stop = asyncio.get_running_loop(), asyncio.Queue[Any](), Stop()

    def emit(text: str, tokens: Sequence[Token]) -> None:
        loop.call_soon_threadsafe(parts.put_nowait, (text, tokens if body.scored else None))

    reply = workers.begin(user, lambda stop: work(emit, stop), stop, size)
    reply.add_done_callback(parts.put_nowait)  # as the last part
    leaving = asyncio.create_task(_left(request, stop))
    reply.add_done_callback(lambda _: leaving.cancel())
    try:
        if body.stream:
            first = await parts.get()
            if first is reply:
                reply.result()  # or what went wrong is told by the status
            events = _events(first, parts, made, body.with_usage, stop)
            return StreamingResponse(events, media_type="text/event-stream", headers={"Cache-Control": "no-store"})
        found = await asyncio.shield(reply)
    except asyncio.CancelledError:
        stop.set()
        raise
    used = schema.usage(found.read, found.made)
    return JSONResponse(made.whole(found.text, found.ended, used, found.tokens, found.about))


async def _left(request: Request, stop: Stop) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
    stop.set()


async def _events(
    first: Any, parts: asyncio.Queue[Any], made: Completion, with_usage: bool, stop: Stop
) -> AsyncIterator[bytes]:
    """Server-sent events. Where the client leaves, this is closed, and the reply with it."""
    try:
        if made.chat:
            yield _event(made.first())
        part = first
        while isinstance(part, tuple):
            yield _event(made.part(*part))
            part = await parts.get()
        try:
            found = part.result()
        except LmmError as error:
            yield _event(told(error)[1])
        except Exception:
            yield _event(INTERNAL)
            raise
        else:
            yield _event(made.last(found.ended, found.tokens, found.about))
            if with_usage:
                yield _event(made.used(schema.usage(found.read, found.made)))
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
        return _shown(memory.get(memory.memorize(body.text, body.context, body.metadata, body.about)))

    @app.get("/v1/memories")
    def memories(who: Who, since: Time | None = None, until: Time | None = None) -> dict[str, Any]:
        return {"object": "list", "data": [_shown(memo) for memo in service.of(who.user()).list(since, until)]}

    @app.post("/v1/memories/search")
    def recall(body: RecallRequest, who: Who) -> dict[str, Any]:
        """The texts nearest to a query, by meaning and by words."""
        memory = service.of(who.user(body.user))
        found = memory.recall(body.query, body.top_k, body.since, body.until, body.metadata)
        return {"object": "list", "data": [{**_shown(x.memo), "score": x.score, "cosine": x.cosine} for x in found]}

    @app.get("/v1/memories/{id:path}/history")  # before the entry itself, as an id may have a slash
    def history(id: str, who: Who) -> dict[str, Any]:
        user = who.user()
        service.memo(user, id)
        return {"object": "list", "data": [_shown(memo) for memo in service.of(user).history(id)]}

    @app.get("/v1/memories/{id:path}")
    def memory(id: str, who: Who) -> dict[str, Any]:
        return _shown(service.memo(who.user(), id))

    @app.put("/v1/memories/{id:path}")
    def update(id: str, body: UpdateRequest, who: Who) -> dict[str, Any]:
        """A correction in the place of a text, which stays as history."""
        user = who.user(body.user)
        service.memo(user, id)
        memory = service.of(user)
        return _shown(memory.get(memory.update(id, body.text, body.metadata, body.context, body.about)))

    @app.delete("/v1/memories/{id:path}")
    def forget(id: str, who: Who) -> dict[str, Any]:
        """Remove a fact with its history, from every file and table; `still_in` names those where bytes of it are left
        for now."""
        return service.forget_text(who.user(), id)


def _shown(memo: Memo) -> dict[str, Any]:
    """An entry, without metadata that no reply can hold: a store may have some from elsewhere."""
    try:
        schema.holdable(memo.metadata)
    except ValueError:
        memo = dataclasses.replace(memo, metadata={})
    return memo.to_dict()


# lessons and memory files ---------------------------------------------------------------------------------------
def _lessons(app: FastAPI, service: Service, workers: Workers) -> None:
    @app.get("/v1/lessons")
    async def lessons(who: Who, ever: bool = False) -> dict[str, Any]:
        """What is known; `ever`: and what undo would bring back."""
        user = who.user()
        return {"object": "list", "data": await workers.run(user, lambda stop: service.lessons(user, ever))}

    @app.post("/v1/lessons")
    async def teach(body: TeachRequest, who: Who) -> dict[str, Any]:
        """Teach the answer to a question."""
        user = who.user(body.user)
        size = partial(service.size, (body.question, body.answer))
        return await workers.run(user, lambda stop: service.teach(user, body.question, body.answer, stop), size)

    @app.post("/v1/lessons/correct")
    async def correct(body: CorrectRequest, who: Who) -> dict[str, Any]:
        """Teach what a reply should have been, and give it."""
        user, given = who.user(body.user), (body.question, body.reply, body.answer)
        return await workers.run(user, lambda stop: service.correct(user, *given, stop), partial(service.size, given))

    @app.post("/v1/lessons/undo")
    async def undo(body: UndoRequest, who: Who) -> dict[str, Any]:
        user = who.user(body.user)
        return {"undone": await workers.run(user, lambda stop: service.undo(user, body.count))}

    @app.post("/v1/lessons/why")
    async def why(body: WhyRequest, who: Who) -> dict[str, Any]:
        """Which lessons and notes would speak if this were asked."""
        user = who.user(body.user)
        return await workers.run(user, lambda stop: service.why(user, body.question))

    @app.delete("/v1/lessons/{id}")
    async def forget(id: str, who: Who, deep: bool = False) -> dict[str, Any]:
        """Remove a lesson from what is known, and from the chats, typed lines and logs of its user on this machine;
        `deep`: with whatever else in them says its value. `still_in` names the files, or tables, that hold it all the
        same."""
        user = who.user()
        return {"deleted": True, **await workers.run(user, lambda stop: service.forget(user, id, deep))}

    @app.get("/v1/memory", response_class=Response)
    async def download(who: Who) -> Response:
        """The memory file: what was learned, for any lmm with this model."""
        user, name = who.user(), {"Content-Disposition": 'attachment; filename="memory.safetensors"'}
        data = await workers.run(user, lambda stop: service.download(user))
        return Response(data, media_type="application/octet-stream", headers=name)

    @app.put("/v1/memory")
    async def upload(request: Request, who: Who) -> dict[str, Any]:
        """Make a memory file what is known."""
        data, user = await request.body(), who.user()
        return {"lessons": await workers.run(user, lambda stop: service.upload(user, data))}

    @app.post("/v1/memory/verify")
    async def verify(request: Request, who: Who) -> dict[str, Any]:
        """Check a memory file whole, and change nothing."""
        data = await request.body()
        problems = await workers.run(who.user(), lambda stop: service.verify(data))
        return {"good": not problems, "problems": problems}


# around it ------------------------------------------------------------------------------------------------------
def _around(app: FastAPI, service: Service) -> None:
    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/metrics", response_class=PlainTextResponse)
    async def metrics() -> str:
        service.metrics.set("lmm_passes_total", service.users.seats.passes)
        return service.metrics.text()

    @app.get("/", include_in_schema=False)
    async def page() -> Response:
        safe = {"Content-Security-Policy": POLICY, "X-Frame-Options": "DENY"}
        return Response(PAGE.read_bytes(), media_type="text/html; charset=utf-8", headers=safe)
