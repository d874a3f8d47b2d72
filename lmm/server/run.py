"""Start the server: what it may listen on, the model it serves, and a stop that finishes what it began."""

from __future__ import annotations

import asyncio
import dataclasses
import math
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmm.encoders import load_encoder
from lmm.engine import runtime
from lmm.engine.seats import Seats
from lmm.errors import UsageError
from lmm.server.app import make_app
from lmm.server.guard import Settings
from lmm.server.heap import of_one_heap
from lmm.server.keys import VARIABLE, is_loopback, load_keys
from lmm.server.service import Service
from lmm.store.personal import PersonalMemory

if TYPE_CHECKING:
    from collections.abc import Callable

    import uvicorn
    from fastapi import FastAPI

    from lmm.adapters.base import Adapter
    from lmm.config import Config

ENDING_S = 30.0  # for replies that are being given when the server is told to stop
SENDING_S = 10  # after which no client is waited for that does not take what is left of its reply


def serve(
    config: Config,
    host: str,
    port: int,
    keys: Path | None,
    store: str | None,
    encoder: str,
    origins: tuple[str, ...],
    seconds: float,
    cache_tokens: int,
    notice: Callable[[str], None],
) -> None:
    """Serve until SIGINT or SIGTERM. Raises UsageError for what must not be, before a model is loaded."""
    local, known = is_loopback(host), load_keys(keys)
    if not local and not known:
        raise UsageError(
            f"{host} is reached from other machines: a key is needed, in a file (--api-key FILE) or in {VARIABLE}"
        )
    if config.mm_save_path not in (None, config.mm_load_path):
        raise UsageError("a server keeps what is learned at once, where it starts from: name that file with --mm-path")
    settings = Settings(known, local, origins, seconds=seconds, cache_tokens=cache_tokens)
    runtime.check(config)
    of_one_heap()
    listening = _listening(host, port)
    adapter = runtime.load_adapter(dataclasses.replace(config, dtype=dtype_of(config)), notice=notice)
    app = make_app(service_of(config, adapter, store, encoder, notice), settings)
    where = f"[{host}]" if ":" in host else host
    notice(f"{config.model} is served at http://{where}:{listening.getsockname()[1]}/v1; Ctrl-C ends it")
    server_of(app, log_level="warning", access_log=False, server_header=False).run(sockets=[listening])


def service_of(
    config: Config, adapter: Adapter, store: str | None, encoder: str, notice: Callable[[str], None]
) -> Service:
    """Whoever runs the model does so from a seat, an encoder of its states, too: nothing else has the adapter."""
    seats = Seats(adapter)
    return Service(config, seats, PersonalMemory(store, load_encoder(encoder, seats.seat(), notice)), notice)


def server_of(app: FastAPI, ending: float = ENDING_S, **options: Any) -> uvicorn.Server:
    """A server that lets replies go on for `ending` seconds when it is told to stop, then ends them where they are."""
    import uvicorn

    class Graceful(uvicorn.Server):
        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            timer = asyncio.get_running_loop().call_later(ending, app.state.workers.cut)
            try:
                await super().shutdown(sockets)
            finally:
                timer.cancel()
                app.state.workers.cut()  # also where a second Ctrl-C has ended the wait

    return Graceful(uvicorn.Config(app, timeout_graceful_shutdown=math.ceil(ending) + SENDING_S, **options))


def dtype_of(config: Config) -> str:
    """The format that is best for several replies in one pass. On a processor "auto" is the one that makes a single
    reply fastest, and half precision gains next to nothing from company: docs/serve.md."""
    if config.dtype != "auto" or runtime.installed_for(config) != "torch":
        return config.dtype
    import torch

    return "auto" if torch.cuda.is_available() else "float32"


def _listening(host: str, port: int) -> socket.socket:
    """Raises UsageError where it cannot listen."""
    try:
        kind, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        found = socket.socket(kind, socket.SOCK_STREAM)
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind(address)
    except OSError as error:
        raise UsageError(f"cannot listen on {host}, port {port}: {error.strerror or error}") from error
    return found
