"""The server as others' programs use it: litellm, and schemathesis' requests made of its own description.

`CASES=100` asks for 100 requests of each operation, which are more than 2,000.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

pytest.importorskip("fastapi", reason="the server is not installed: pip install 'lmm[serve]'")

from scripted import ScriptedAdapter, install
from serving import Served, serving

pytestmark = pytest.mark.slow
CASES = int(os.environ.get("CASES", "3"))


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    install()
    with serving(ScriptedAdapter(), tmp_path, "jotter", store=str(tmp_path / "texts.sqlite")) as found:
        yield found


def test_litellm_chats_streams_and_embeds(served: Served) -> None:
    litellm = pytest.importorskip("litellm", reason="litellm is not installed")
    there: Any = {"api_base": f"{served.url}/v1", "api_key": "none"}
    hello = [{"role": "user", "content": "hello"}]
    reply = litellm.completion(model="openai/tiny", messages=hello, user="ann", **there)
    assert reply.choices[0].message.content == "You said: hello" and reply.usage.completion_tokens > 5
    chunks = list(litellm.completion(model="openai/tiny", messages=hello, stream=True, **there))
    assert "".join(c.choices[0].delta.content or "" for c in chunks) == "You said: hello"
    assert [c.choices[0].finish_reason for c in chunks if c.choices[0].finish_reason] == ["stop"]
    found = litellm.embedding(model="openai/all-MiniLM-L6-v2", input=["one", "two"], **there)
    assert len(found.data) == 2 and len(found.data[0]["embedding"]) == 384
    text = litellm.text_completion(model="text-completion-openai/tiny", prompt="hello", max_tokens=4, **there)
    assert text.choices[0].finish_reason in ("stop", "length")
    assert "tiny" in litellm.get_valid_models(check_provider_endpoint=True, custom_llm_provider="openai", **there)
    with pytest.raises(litellm.BadRequestError):
        litellm.completion(model="openai/tiny", messages=[{"role": "assistant", "content": "x"}], **there)


def test_no_request_that_its_description_allows_or_nearly_does_ends_in_an_error_of_ours(served: Served) -> None:
    schemathesis = pytest.importorskip("schemathesis", reason="schemathesis is not installed")
    schema = schemathesis.openapi.from_url(f"{served.url}/openapi.json")
    modes = list(schemathesis.GenerationMode)
    asked: Counter[int] = Counter()
    for result in schema.get_all_operations():
        operation = result.ok()
        for mode in modes:
            fits = hypothesis.settings(max_examples=-(-CASES // len(modes)), deadline=None, database=None)
            quiet = hypothesis.settings(fits, suppress_health_check=list(hypothesis.HealthCheck))

            @hypothesis.seed(0)
            @quiet
            @hypothesis.given(case=operation.as_strategy(generation_mode=mode))
            def ask(case: Any) -> None:
                status = case.call(timeout=60).status_code
                asked[status] += 1
                assert status < 500, f"{status} of {case.as_curl_command()}"

            try:
                ask()
            except hypothesis.errors.Unsatisfiable:  # nothing that is wrong could be asked of it
                continue
    print(f"{asked.total()} requests of schemathesis: {dict(sorted(asked.items()))}")
    assert asked[200]
