"""`lmm serve`: the model and its users' memories over HTTP, as OpenAI's API."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from lmm.cli.options import Option, configured, say
from lmm.errors import UsageError

if TYPE_CHECKING:
    from lmm.config import Config


@configured("model", "memory", "files", "reply")
def serve(
    config: Config,
    host: Annotated[str, Option(help="address to listen on; one that other machines reach needs a key")] = "127.0.0.1",
    port: Annotated[int, Option(help="0: any that is free", min=0, max=65535)] = 8080,
    api_key: Annotated[
        Path | None, Option(help="file of keys, mode 0600; each line a key, and whose memory alone it opens if wanted")
    ] = None,
    store: Annotated[
        str | None, Option(help="where texts are kept, as in `lmm recall`; a postgresql:// URL keeps lessons, too")
    ] = None,
    encoder: Annotated[str, Option(help="of embeddings and texts, as in `lmm recall`")] = "auto",
    cors: Annotated[list[str] | None, Option(help="origin of a page elsewhere that may ask; repeatable")] = None,
    cache_tokens: Annotated[
        int, Option(help="tokens of the conversations that are worked on at once; others wait", min=1)
    ] = 65_536,
    time_limit: Annotated[float, Option(help="seconds for a reply", min=1)] = 600.0,
) -> None:
    """Serve the model to many users, each with a memory of their own, as OpenAI's API does."""
    try:
        from lmm.server.run import serve as run
    except ImportError as error:
        raise UsageError(f"{error.name} is not installed; run: pip install 'lmm[serve]'") from error
    run(config, host, port, api_key, store, encoder, tuple(cors or ()), time_limit, cache_tokens, say)
