"""A real server on a real port over a toy or scripted model, for as long as a test needs it."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from lmm.adapters.base import Adapter
from lmm.config import Config
from lmm.server.app import make_app
from lmm.server.guard import Settings
from lmm.server.keys import Keys
from lmm.server.run import server_of, service_of
from lmm.server.service import Service

TIMEOUT = 240.0  # seconds: the machine may be busy


@dataclass
class Served:
    """Where a server is, and what it is made of."""

    url: str
    service: Service

    def client(self, **headers: str) -> httpx.Client:
        return httpx.Client(base_url=self.url, headers=headers, timeout=TIMEOUT)

    def openai(self, key: str = "none") -> Any:
        import openai

        return openai.OpenAI(base_url=f"{self.url}/v1", api_key=key, timeout=TIMEOUT, max_retries=0)


@contextlib.contextmanager
def serving(
    adapter: Adapter, folder: Path, memory: str = "keyed", store: str = "memory:", **settings: Any
) -> Iterator[Served]:
    settings = {"keys": Keys({}), **settings}
    config = settings.pop("config", Config(model="tiny", memory=memory, max_tokens=64, log=False))
    service = service_of(config, adapter, store, settings.pop("encoder", "minilm"), lambda text: None)
    ending = settings.pop("ending", 30.0)
    server = server_of(make_app(service, Settings(**settings)), ending, port=0, log_level="error")
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        assert thread.is_alive(), "the server did not start"
        time.sleep(0.01)
    [port] = {s.getsockname()[1] for one in server.servers for s in one.sockets}
    try:
        yield Served(f"http://127.0.0.1:{port}", service)
    finally:
        server.should_exit = True
        thread.join()
        assert not adapter.taps, "the server left something attached"
