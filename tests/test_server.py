"""The server, through httpx and the real `openai` client: OpenAI's behaviours, whose memory is whose, and limits."""

from __future__ import annotations

import contextlib
import errno
import io
import json
import math
import os
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

fastapi = pytest.importorskip("fastapi", reason="the server is not installed: pip install 'lmm[serve]'")
openai = pytest.importorskip("openai", reason="the openai client is not installed")
uvicorn = pytest.importorskip("uvicorn", reason="the server is not installed: pip install 'lmm[serve]'")

import scripted  # noqa: E402
from scripted import ScriptedAdapter, install  # noqa: E402
from serving import Served, serving  # noqa: E402
from typer.testing import CliRunner  # noqa: E402

from lmm.adapters.base import Adapter  # noqa: E402
from lmm.adapters.generation import Generated  # noqa: E402
from lmm.adapters.sampling import Score  # noqa: E402
from lmm.adapters.toy import END, SYSTEM, ToyFormat  # noqa: E402
from lmm.chat.history import JsonHistory, history_path  # noqa: E402
from lmm.chat.loading import Loading  # noqa: E402
from lmm.chat.remote import MOST, RemoteChat, RemoteError, Server, run  # noqa: E402
from lmm.chat.render import make_console  # noqa: E402
from lmm.chat.session import Chat  # noqa: E402
from lmm.chat.view import ConsoleView  # noqa: E402
from lmm.cli.app import app  # noqa: E402
from lmm.config import Config  # noqa: E402
from lmm.errors import LmmError, StoreError, UsageError  # noqa: E402
from lmm.files import journal, standing, state_file, transcripts  # noqa: E402
from lmm.server.keys import Keys, is_loopback, load_keys  # noqa: E402
from lmm.server.logprobs import Tokens  # noqa: E402
from lmm.server.run import serve  # noqa: E402
from lmm.server.service import _strongest  # noqa: E402
from lmm.server.speaking import as_turns  # noqa: E402
from lmm.store.base import Memo  # noqa: E402
from lmm.store.checks import LARGEST, LONGEST  # noqa: E402
from lmm.text.cutter import Cutter  # noqa: E402
from scripts.measure_serve import NAMES  # noqa: E402

pytestmark = pytest.mark.slow  # each test makes a server

HELLO, STORY = [{"role": "user", "content": "hello"}], "tell me a long story"
QUESTION = "What is my sister's name?"
USERS, EACH = (16, 63) if "MANY" in os.environ else (8, 12)  # who ask at once, and how often each
KEY, OTHER_KEY = "k" * 20, "o" * 20


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    """Replies are scripted, lessons answer their very question."""
    install()
    with serving(ScriptedAdapter(), tmp_path, "jotter") as found:
        yield found


def ask(client: Any, text: str = "hello", **more: Any) -> Any:
    messages = more.pop("messages", [{"role": "user", "content": text}])
    return client.chat.completions.create(model="tiny", messages=messages, **more)


# ---- OpenAI's behaviours


def test_a_chat(served: Served) -> None:
    found = ask(served.openai())
    assert found.object == "chat.completion" and found.id.startswith("chatcmpl-") and found.model == "tiny"
    [choice] = found.choices
    assert (choice.index, choice.finish_reason, choice.message.role) == (0, "stop", "assistant")
    assert choice.message.content == "You said: hello"
    assert found.usage.prompt_tokens > 5 and found.usage.completion_tokens == len("You said: hello") + 1
    assert found.usage.total_tokens == found.usage.prompt_tokens + found.usage.completion_tokens
    assert found.lmm == {"learned": "", "lessons": [], "fired": [], "takes_back": [], "said": []}


def test_a_stream(served: Served) -> None:
    chunks = list(ask(served.openai(), "tell me a long story", stream=True, max_tokens=400))
    assert len({chunk.id for chunk in chunks}) == 1 and {chunk.object for chunk in chunks} == {"chat.completion.chunk"}
    deltas = [chunk.choices[0].delta for chunk in chunks]
    assert deltas[0].role == "assistant" and all(delta.role is None for delta in deltas[1:])
    text = "".join(delta.content or "" for delta in deltas)
    assert text.startswith("Once upon a time 0.") and len(text) == 400
    assert [c.choices[0].finish_reason for c in chunks[:-1]] == [None] * (len(chunks) - 1)
    assert chunks[-1].choices[0].finish_reason == "length" and not deltas[-1].content
    assert len(chunks) > 100 and all(chunk.usage is None for chunk in chunks)


def test_a_stream_with_usage_ends_with_it(served: Served) -> None:
    chunks = list(ask(served.openai(), stream=True, stream_options={"include_usage": True}))
    assert chunks[-1].choices == [] and chunks[-1].usage.completion_tokens == len("You said: hello") + 1
    assert chunks[-2].choices[0].finish_reason == "stop"
    with served.client() as client:
        body = {"messages": [{"role": "user", "content": "hello"}], "stream": True}
        lines = client.post("/v1/chat/completions", json=body).text.strip().split("\n\n")
    assert lines[-1] == "data: [DONE]" and all(line.startswith("data: ") for line in lines)
    assert json.loads(lines[-2][6:])["lmm"]["fired"] == []


@pytest.mark.parametrize(
    ("stop", "text"), [("said", "You "), (["xx", ": "], "You said"), ("hello!", "You said: hello")]
)
@pytest.mark.parametrize("stream", [True, False])
def test_stop_sequences(served: Served, stop: Any, text: str, stream: bool) -> None:
    found = ask(served.openai(), stop=stop, stream=stream)
    if stream:
        chunks = list(found)
        assert "".join(c.choices[0].delta.content or "" for c in chunks) == text
        assert chunks[-1].choices[0].finish_reason == "stop"
    else:
        assert found.choices[0].message.content == text and found.choices[0].finish_reason == "stop"


def test_a_conversation_goes_on(served: Served) -> None:
    messages = [
        {"role": "system", "content": "Be short."},
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "two"},
        {"role": "user", "content": [{"type": "text", "text": "three"}]},
    ]
    assert ask(served.openai(), messages=messages).choices[0].message.content == "You said: three"


def test_max_tokens_seed_and_sampling(tiny_torch: Adapter, tmp_path: Path) -> None:
    with serving(tiny_torch, tmp_path, "identity") as served:
        client = served.openai()

        def said(**more: Any) -> str:
            return ask(client, **more).choices[0].message.content

        greedy = ask(client, max_tokens=5, temperature=0)
        assert greedy.usage.completion_tokens == 5 and greedy.choices[0].finish_reason == "length"
        assert ask(client, max_completion_tokens=3).usage.completion_tokens == 3
        assert said(max_tokens=12) == said(max_tokens=12, temperature=0) == said(max_tokens=12, temperature=1e-308)
        assert said(max_tokens=12) == said(max_tokens=12, temperature=1.5, top_p=0)
        for seed in (1, -1, -(2**63)):
            assert said(max_tokens=12, temperature=1.5, seed=seed) == said(max_tokens=12, temperature=1.5, seed=seed)
        one = said(max_tokens=12, temperature=1.5, seed=1)
        assert one != said(max_tokens=12, temperature=1.5, seed=-1)
        assert len({said(max_tokens=12, temperature=1.5, seed=i) for i in range(4)}) > 1
        assert len({said(max_tokens=12, temperature=1.5) for i in range(4)}) > 1
        found = ask(client, max_tokens=4, logprobs=True, top_logprobs=3).choices[0].logprobs.content
        assert len(found) == 4 and all(row.logprob == row.top_logprobs[0].logprob < 0 for row in found)
        assert all(len(row.top_logprobs) == 3 and sum(map(exp, row.top_logprobs)) < 1 for row in found)
        text = client.completions.create(model="tiny", prompt="hello", max_tokens=4)
        assert text.object == "text_completion" and text.usage.completion_tokens == 4
        stopped = client.completions.create(model="tiny", prompt="hello", max_tokens=4, stop=text.choices[0].text[1:])
        assert stopped.choices[0].text == text.choices[0].text[:1] and stopped.choices[0].finish_reason == "stop"
        chunks = list(client.completions.create(model="tiny", prompt="hello", max_tokens=4, stream=True))
        assert "".join(c.choices[0].text for c in chunks) == text.choices[0].text
        assert chunks[-1].choices[0].finish_reason == "length" and len({c.id for c in chunks}) == 1


def exp(row: Any) -> float:
    return math.exp(row.logprob)


class Continuing(ScriptedAdapter):
    """Goes on from a text with another one."""

    def _next(self, read: np.ndarray) -> int:
        said, at = " Paris, là.".encode(), len(read) - len(PROMPT)
        return said[at] if at < len(said) else END


PROMPT = "The capital of France is"


def test_a_completion_goes_on_where_the_text_ended(tmp_path: Path) -> None:
    with serving(Continuing(), tmp_path, "identity") as served:

        def said(**more: Any) -> Any:
            return served.openai().completions.create(model="tiny", prompt=PROMPT, **more)

        assert said().choices[0].text == " Paris, là."
        for more, text in (({"echo": True}, f"{PROMPT} Paris, là."), ({"stop": ","}, " Paris")):
            chunks = list(said(stream=True, **more))
            assert "".join(c.choices[0].text for c in chunks) == said(**more).choices[0].text == text
        rows = said(logprobs=2, stop=",").choices[0].logprobs
        assert "".join(rows.tokens) == " Paris" and rows.text_offset == list(range(6))
        assert all(
            abs(p) < 1e-6 and len(top) == 2 for p, top in zip(rows.token_logprobs, rows.top_logprobs, strict=True)
        )
        with pytest.raises(openai.BadRequestError, match="echo"):
            said(logprobs=1, echo=True)
        places = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 10]  # "à" is two tokens
        assert said(logprobs=0).choices[0].logprobs.text_offset == places
        chunks = [c.choices[0].logprobs for c in said(logprobs=0, stream=True)]
        assert [place for rows in chunks if rows is not None for place in rows.text_offset] == places


class Lines(ScriptedAdapter):
    """A model without a chat template, whose replies end with their line and whose tokenizer begins each text."""

    def __init__(self) -> None:
        super().__init__()
        self.format = ToyFormat()
        self.format.stop_ids = frozenset({END, ord("\n")})
        self.format.lead = [SYSTEM]

    def _next(self, read: np.ndarray) -> int:
        said, at = b" milk\n- bread", len(read) - len(PROMPT) - 1
        return said[at] if read[0] == SYSTEM and at < len(said) else END


def test_a_completion_begins_as_the_tokenizer_does_and_has_many_lines(tmp_path: Path) -> None:
    with serving(Lines(), tmp_path, "identity") as served:
        found = served.openai().completions.create(model="tiny", prompt=PROMPT, logprobs=0)
        assert found.choices[0].text == " milk\n- bread" and found.usage.prompt_tokens == len(PROMPT) + 1
        assert "".join(found.choices[0].logprobs.tokens) == " milk\n- bread"


@pytest.mark.parametrize("stop", [None, ["llé"], ["x"]])
def test_each_chunk_has_the_logprobs_of_its_own_tokens(served: Served, stop: Any) -> None:
    text = "Allô, héllé"
    expected = f"You said: {text}".partition(stop[0])[0] if stop else f"You said: {text}"
    chunks = list(ask(served.openai(), text, stream=True, logprobs=True, stop=stop))
    for chunk in chunks[1:]:
        rows = chunk.choices[0].logprobs.content if chunk.choices[0].logprobs else []
        assert b"".join(bytes(row.bytes) for row in rows) == (chunk.choices[0].delta.content or "").encode()
    assert sum(chunk.choices[0].logprobs is not None for chunk in chunks) > 10
    whole = ask(served.openai(), text, logprobs=True, stop=stop).choices[0]
    assert b"".join(bytes(row.bytes) for row in whole.logprobs.content).decode() == whole.message.content == expected
    assert all(row.top_logprobs == [] and row.logprob > -1e-6 for row in whole.logprobs.content)


def test_the_logprobs_of_a_reply_begin_after_its_thought() -> None:
    format, made = ToyFormat(), Generated(text="<think>a</think>Hi")
    made.tokens = format.encode(made.text)
    made.scores = [Score(-1.0)] * len(made.tokens)
    tokens = Tokens(format, 0)
    assert "".join(token.text for token in (*tokens.shown(made, "H"), *tokens.shown(made, "Hi"))) == "Hi"


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"messages": []},
        {"messages": [{"role": "user"}]},
        {"messages": [{"role": "assistant", "content": "x"}]},
        {"messages": [{"role": "nobody", "content": "x"}]},
        {"messages": [{"role": "user", "content": "x"}], "n": 2},
        {"messages": [{"role": "user", "content": "x"}], "max_tokens": 0},
        {"messages": [{"role": "user", "content": "x"}], "max_tokens": "many"},
        {"messages": [{"role": "user", "content": "x"}], "temperature": 3},
        {"messages": [{"role": "user", "content": "x"}], "top_p": -0.1},
        {"messages": [{"role": "user", "content": "x"}], "seed": 2**63},
        {"messages": [{"role": "user", "content": "x"}], "stop": ["a", "b", "c", "d", "e"]},
        {"messages": [{"role": "user", "content": "x"}], "stop": ""},
        {"messages": [{"role": "user", "content": "x"}], "tools": [{"type": "function"}]},
        {"messages": [{"role": "user", "content": "x"}], "user": "x" * 300},
        {"messages": [{"role": "user", "content": "x"}], "response_format": {"type": "json_object"}},
        {"messages": [{"role": "user", "content": "x"}], "logit_bias": {"5": 1}, "presence_penalty": 1},
    ],
)
@pytest.mark.parametrize("stream", [True, False])
def test_bad_input_is_refused_as_openai_does(served: Served, body: dict, stream: bool) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        served.openai().post("/chat/completions", body=body | {"stream": stream}, cast_to=object)
    assert caught.value.body["type"] == "invalid_request_error" and caught.value.body["message"]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("chat/completions", {"messages": HELLO, "stop": [1] * 500_000}),
        ("chat/completions", {"messages": HELLO, "stop": [""] * 500_000}),
        ("chat/completions", {"messages": [{"role": "user", "content": [1] * 500_000}]}),
        ("chat/completions", {"messages": [{"role": "user", "content": [1] * 1000}] * 1000}),
        ("chat/completions", {"messages": [1] * 500_000}),
        ("completions", {"prompt": [None] * 500_000}),
        ("embeddings", {"input": [None] * 500_000}),
    ],
)
def test_a_list_of_a_million_does_not_stop_the_others(served: Served, path: str, body: dict) -> None:
    with served.client() as client:
        begun = time.perf_counter()
        found = client.post(f"/v1/{path}", json=body)
        assert found.status_code == 400 and len(found.content) < 1000
        assert time.perf_counter() - begun < 2


def test_other_errors_have_their_status(served: Served) -> None:
    client = served.openai()
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(model="gpt-9", messages=[{"role": "user", "content": "x"}])
    assert caught.value.body["code"] == "model_not_found"
    with served.client() as http:
        assert http.get("/v1/nowhere").json()["error"]["message"] == "Not Found"
        assert http.get("/v1/chat/completions").status_code == 405
        assert http.post("/v1/chat/completions", content="{").status_code == 400


def test_what_is_wrong_is_said_of_the_field_that_is(served: Served) -> None:
    wrong = [
        ("/v1/chat/completions", {"messages": [{"role": "tool", "content": "x"}]}, "messages.0.role", "'assistant'"),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, None, "'text'"),
        ("/v1/chat/completions", {"messages": HELLO, "max_tokens": 0}, "max_tokens", "greater"),
        ("/v1/chat/completions", {"messages": HELLO, "functions": [{}]}, None, "not supported here: functions"),
        ("/v1/completions", {"prompt": [1, 2, 3]}, "prompt", "tokens"),
        ("/v1/completions", {"prompt": ["a", "b"]}, "prompt", "at most 1 item"),
        ("/v1/completions", {"prompt": 5}, "prompt", "valid string"),
        ("/v1/embeddings", {"input": [[1, 2], [3]]}, "input", "tokens"),
        ("/v1/lessons", {"question": " ", "answer": "x"}, "question", "it is empty"),
    ]
    with served.client() as client:
        for path, body, param, told in wrong:
            found = client.post(path, json=body)
            error = found.json()["error"]
            assert found.status_code == 400 and told in error["message"], error
            assert param in (None, error["param"]) and "constrained" not in error["message"], error
        broken = client.post("/v1/completions", content='{"prompt": x}', headers={"Content-Type": "application/json"})
        assert broken.json()["error"]["message"] == "the body is not JSON: Expecting value, at character 11"
        assert client.post("/v1/completions", json={"prompt": "a", "logit_bias": {}, "presence_penalty": 0}).is_success
        sent = client.put("/v1/memory", content=b"junk").json()["error"]["message"]
        assert "/" not in sent and "another file" not in sent and "nothing was changed" in sent


def deep(depth: int) -> Any:
    return [deep(depth - 1)] if depth else 1


@pytest.mark.parametrize(
    "metadata",
    ['{"a": "\\ud800"}', '{"\\ud800": 1}', '{"a\\u0000": 1}', '{"a": NaN}', '{"a": 1e999}', f'{{"a": {10**30}}}']
    + [json.dumps({"a": deep(n)}) for n in (60, 900)],
)
def test_what_no_store_can_hold_is_refused_and_nothing_kept(served: Served, metadata: str) -> None:
    with served.client(**{"Content-Type": "application/json"}) as client:
        made = client.post("/v1/memories", json={"text": "The key is under the pot."}).json()
        for method, path in (("POST", "/v1/memories"), ("PUT", f"/v1/memories/{made['id']}")):
            content = f'{{"text": "another", "metadata": {metadata}}}'
            assert client.request(method, path, content=content).status_code == 400
        found = client.post("/v1/memories/search", content=f'{{"query": "key", "metadata": {metadata}}}')
        assert found.status_code == 400 and found.json()["error"]["type"] == "invalid_request_error"
        assert client.get("/v1/memories").json()["data"] == [made]


def test_other_things_that_no_store_can_hold(served: Served) -> None:
    with served.client(**{"Content-Type": "application/json"}) as client:
        for query in ("since=-1e400", "until=nan", "since=inf"):
            assert client.get(f"/v1/memories?{query}").status_code == 400
        assert client.get("/v1/memories/%00").status_code == client.delete("/v1/memories/%00").status_code == 400
        assert client.post("/v1/memories", json={"text": "x", "about": "y" * 5000}).status_code == 400
        for text in ("\\u0000", "\\ud800", "  "):
            for path, field in (("memories", "text"), ("memories/search", "query")):
                assert client.post(f"/v1/{path}", content=f'{{"{field}": "{text}"}}').status_code == 400
            lesson = f'{{"question": "{text}", "answer": "b", "user": "ann"}}'
            assert client.post("/v1/lessons", content=lesson).status_code == 400
        for bad in ("\\u0000", "\\ud800"):
            body = f'{{"messages": [{{"role": "user", "content": "a"}}], "user": "{bad}"}}'
            assert client.post("/v1/chat/completions", content=body).status_code == 400
        assert client.post("/v1/memories", content="[" * 100_000).status_code == 400
        assert client.post("/v1/memories", content='{"text": "x", "top": ' + "9" * 5000 + "}").status_code == 400


def test_the_limits_of_a_text_are_the_stores(served: Served) -> None:
    with served.client() as client:
        for name, most in (("text", LARGEST), ("context", LARGEST), ("about", LONGEST)):
            for size, status in ((most, 200), (most + 1, 400)):
                found = client.post("/v1/memories", json={"text": f"{name} {size}", name: "x" * size})
                assert found.status_code == status
                if status == 400:
                    told = "characters" if name == "about" else f"bytes, and at most {LARGEST:,} are kept as one"
                    assert found.json()["error"]["message"].startswith(f"{name}: ") and told in found.text
        made = client.post("/v1/memories", json={"text": "It is blue.", "about": "the car", "context": "a call"}).json()
        new = client.put(f"/v1/memories/{made['id']}", json={"text": "It is green."}).json()
        assert (new["about"], new["context"]) == ("the car", "a call")
        new = client.put(f"/v1/memories/{new['id']}", json={"text": "It is red.", "about": "", "context": ""}).json()
        assert (new["about"], new["context"], new["text"]) == ("", "", "It is red.")


def test_an_entry_that_is_there_already_does_not_break_a_list(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """As an earlier version kept it, or a file that was imported."""
    memos = [Memo(f"text {number}") for number in range(3)]
    for memo, metadata in zip(memos, ({"a": "\ud800"}, {"a": float("nan")}, {"a": deep(900)}), strict=True):
        object.__setattr__(memo, "metadata", metadata)
    monkeypatch.setattr(served.service.texts.store, "scan", lambda *args: iter(memos))
    with served.client() as client:
        assert [row["text"] for row in client.get("/v1/memories").json()["data"]] == ["text 0", "text 1", "text 2"]


def test_models_and_embeddings(served: Served) -> None:
    client = served.openai()
    assert [model.id for model in client.models.list()] == ["tiny", "all-MiniLM-L6-v2"]
    assert client.models.retrieve("tiny").owned_by == "lmm"
    encoder = served.service.texts.encoder
    expected = encoder.encode(["one", "two words"])
    for encoding in (openai.NOT_GIVEN, "float"):  # the client asks for base64 itself
        found = client.embeddings.create(model="all-MiniLM-L6-v2", input=["one", "two words"], encoding_format=encoding)
        assert np.allclose([row.embedding for row in found.data], expected, atol=1e-6)
        assert [row.index for row in found.data] == [0, 1] and found.usage.prompt_tokens == 7
    assert np.allclose(client.embeddings.create(model="all-MiniLM-L6-v2", input="one").data[0].embedding, expected[0])
    for bad in ([], "", [1, 2], ["one", " "]):
        with pytest.raises(openai.BadRequestError):
            client.embeddings.create(model="all-MiniLM-L6-v2", input=bad)


def test_embeddings_end_with_their_client_and_are_few_of_each_user(tmp_path: Path, monkeypatch) -> None:
    install()
    with serving(ScriptedAdapter(), tmp_path, "jotter", seconds=3) as served:
        encoder, made, seconds = served.service.texts.encoder, list[int](), 0.4
        encode = encoder.encode

        def slow(texts: Any) -> Any:
            time.sleep(seconds)
            made.append(len(texts))
            return encode(texts)

        monkeypatch.setattr(encoder, "encode", slow)
        body = {"input": ["a"] * 640}
        with served.client() as client, served.client() as other, ThreadPoolExecutor(2) as pool:
            slows = [pool.submit(client.post, "/v1/embeddings", json=body) for _ in range(2)]
            while len(made) < 2:
                time.sleep(0.01)
            found = other.post("/v1/embeddings", json=body)
            assert found.status_code == 429 and found.headers["Retry-After"]
            assert other.post("/v1/embeddings", json={"input": "a", "user": "bob"}).is_success
            assert {one.result().status_code for one in slows} == {503}  # the time limit
            with pytest.raises(httpx.ReadTimeout):
                other.post("/v1/embeddings", json=body, timeout=0.5)
            time.sleep(0.5)
            count = len(made)
            time.sleep(0.5)
            assert len(made) == count < 15
            seconds = 0
            assert len(other.post("/v1/embeddings", json={"input": ["a"] * 70}).json()["data"]) == 70


# ---- memory by request


def test_a_chat_learns_for_its_user_alone(served: Served) -> None:
    client = served.openai()
    told = ask(client, "My sister's name is Vera.", user="ann")
    assert told.lmm["lessons"] and "Vera" in told.lmm["learned"]
    reply = ask(client, QUESTION, user="ann")
    assert "Vera" in reply.choices[0].message.content and reply.lmm["fired"] == told.lmm["lessons"]
    for other in ("bob", "Ann", "ann ", None):
        more = {"user": other} if other else {}
        assert ask(client, QUESTION, **more).choices[0].message.content == f"You said: {QUESTION}"
    named = ask(client, QUESTION, extra_headers={"X-LMM-Memory": "ann"})
    assert "Vera" in named.choices[0].message.content
    off = ask(client, "My dog's name is Rex.", user="ann", extra_body={"lmm_learn": "off"})
    assert not off.lmm["lessons"]
    last = list(ask(client, "My brother's name is Tom.", user="ann", stream=True))[-1]
    assert "Tom" in last.lmm["learned"]


def test_what_a_user_takes_back_is_named_with_the_way_out(served: Served) -> None:
    told = ask(served.openai(), "My sister's name is Vera.", user="ann")
    found = ask(served.openai(), "Please forget my sister's name.", user="ann").lmm
    assert [lesson["id"] for lesson in found["takes_back"]] == told.lmm["lessons"] and found["said"] == []
    assert "Vera" in found["takes_back"][0]["answer"]
    assert "Vera" in ask(served.openai(), QUESTION, user="ann").choices[0].message.content


def test_a_correction_in_a_conversation(served: Served) -> None:
    question = "What is the capital of Australia?"
    messages = [
        {"role": "user", "content": question},
        {"role": "assistant", "content": "The capital of Australia is Sydney."},
        {"role": "user", "content": "No, it's Canberra."},
    ]
    found = ask(served.openai(), messages=messages, user="ann")
    assert "Canberra" in found.choices[0].message.content and found.lmm["lessons"]
    assert "Canberra" in ask(served.openai(), question, user="ann").choices[0].message.content


def test_what_was_learned_is_there_after_a_restart(tmp_path: Path) -> None:
    install()
    for expected in ("You said", "Vera"):
        with serving(ScriptedAdapter(), tmp_path, "jotter") as served:
            reply = ask(served.openai(), QUESTION, user="ann").choices[0].message.content
            assert expected in reply
            ask(served.openai(), "My sister's name is Vera.", user="ann")


def test_lessons_over_http(served: Served) -> None:
    with served.client(**{"X-LMM-Memory": "ann"}) as ann, served.client(**{"X-LMM-Memory": "bob"}) as bob:
        made = ann.post("/v1/lessons", json={"question": "Who is Tom?", "answer": "a cat"}).json()
        assert [x["id"] for x in ann.get("/v1/lessons").json()["data"]] == [made["id"]]
        why = ann.post("/v1/lessons/why", json={"question": "Who is Tom?"}).json()["fired"]
        assert [x["id"] for x in why] == [made["id"]] and why[0]["strength"] == 0.9
        body = {"question": "Who is Tom?", "reply": "a cat", "answer": "a dog"}
        assert "dog" in ann.post("/v1/lessons/correct", json=body).json()["reply"]
        assert ann.post("/v1/lessons/undo", json={}).json() == {"undone": 1}
        assert "cat" in ann.get("/v1/lessons").json()["data"][0]["answer"]
        data = ann.get("/v1/memory").content
        assert bob.get("/v1/lessons").json()["data"] == []
        assert bob.post("/v1/memory/verify", content=data).json() == {"good": True, "problems": []}
        assert bob.post("/v1/memory/verify", content=b"junk").json()["good"] is False
        assert bob.put("/v1/memory", content=data).json() == {"lessons": 1}
        assert bob.put("/v1/memory", content=data[:-9]).status_code == 422
        assert [x["id"] for x in bob.get("/v1/lessons").json()["data"]] == [made["id"]]
        assert bob.delete(f"/v1/lessons/{made['id']}").json()["deleted"] is True
        assert bob.delete(f"/v1/lessons/{made['id']}").status_code == 404
        assert len(ann.get("/v1/lessons").json()["data"]) == 1
        assert ann.post("/v1/lessons", json={"question": "", "answer": "x"}).status_code == 400


@pytest.mark.parametrize(
    "wrong",
    [
        {"answer": "\ud800"},
        {"answer": "a\0b"},
        {"wordings": ("\ud800",)},
        {"id": "a/b?c"},
        {"id": "z" * 5000},
        {"id": ""},
    ],
)
def test_lessons_that_no_reply_could_show_are_refused(served: Served, tmp_path: Path, wrong: dict) -> None:
    file = tmp_path / "wrong.safetensors"
    with served.client(**{"X-LMM-Memory": "ann"}) as ann:
        ann.post("/v1/lessons", json={"question": "Who is Tom?", "answer": "a cat"})
        file.write_bytes(ann.get("/v1/memory").content)
        state, header = state_file.load(file)
        for change, status in ((wrong, 400), ({"answer": "a dog"}, 200)):
            lessons = [replace(lesson, **change) for lesson in header.lessons]
            state_file.save(file, state, replace(header, lessons=lessons))
            found = ann.put("/v1/memory", content=file.read_bytes())
            assert found.status_code == status
            assert ann.post("/v1/memory/verify", content=file.read_bytes()).json()["good"] == found.is_success
            assert found.is_success or "lesson 1's" in found.json()["error"]["message"]
            assert ("a dog" in ann.get("/v1/lessons").text) == found.is_success


TOUCHING = [  # what learns, lists, takes back, forgets, shows or is answered from a memory
    ("GET", "/v1/lessons", None),
    ("POST", "/v1/lessons", {"question": "Who is Tom?", "answer": "a dog"}),
    ("POST", "/v1/lessons/correct", {"question": "Who is Tom?", "answer": "a dog"}),
    ("POST", "/v1/lessons/undo", {}),
    ("POST", "/v1/lessons/why", {"question": "Who is Tom?"}),
    ("DELETE", "/v1/lessons/x", None),
    ("GET", "/v1/memory", None),
    ("POST", "/v1/chat/completions", {"messages": HELLO}),
    ("POST", "/v1/completions", {"prompt": "hello"}),
]


def is_unavailable(found: httpx.Response) -> bool:
    error = found.json()["error"]
    told = (found.status_code, error["type"], error["code"]) == (503, "server_error", "memory")
    return told and os.environ["LMM_DATA_DIR"] not in error["message"]


@pytest.mark.parametrize("cause", ["damaged", "with a damaged journal", "of another model", "not to be had"])
def test_a_user_whose_memory_cannot_be_opened_is_told_so_until_it_can(tmp_path: Path, cause: str) -> None:
    install()
    as_ann = {"X-LMM-Memory": "ann"}
    with serving(ScriptedAdapter(), tmp_path, "jotter") as served, served.client(**as_ann) as ann:
        made = ann.post("/v1/lessons", json={"question": "Who is Tom?", "answer": "a cat"}).json()
        whole = ann.get("/v1/memory").content
    [file] = Path(os.environ["LMM_DATA_DIR"]).rglob("ann/**/*.safetensors")
    with serving(ScriptedAdapter(), tmp_path, "jotter") as served, served.client(**as_ann) as ann:
        assert len(ann.get("/v1/lessons").json()["data"]) == 1  # and the mind that is open is of no use afterwards
        good, lock, waiting = file.read_bytes(), file.with_name(f".{file.name}.lock"), journal.path_of(file)
        if cause == "damaged":
            file.write_bytes(good[:-9])
        elif cause == "of another model":
            state, header = state_file.load(file)
            state_file.save(file, state, replace(header, layer=header.layer + 1))
        elif cause == "with a damaged journal":
            waiting.write_bytes(b"#\n" + journal.line_of(journal.Change(gone=("x",))))
        else:
            lock.unlink()
            lock.mkdir()
        for method, path, body in TOUCHING:
            assert is_unavailable(ann.request(method, path, json=body)), path
        assert is_unavailable(ann.put("/v1/memory", content=whole))
        assert served.client().get("/v1/lessons", params={"user": "bob"}).json()["data"] == []
        if cause == "not to be had":
            lock.rmdir()
        waiting.unlink(missing_ok=True)
        file.write_bytes(good)
        assert [x["id"] for x in ann.get("/v1/lessons").json()["data"]] == [made["id"]]
        assert ann.post("/v1/lessons/undo", json={}).json() == {"undone": 1}


def full(*args: object, **more: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_is_told_as_the_servers_and_hides_nothing(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    with served.client(**{"X-LMM-Memory": "ann"}) as ann:
        made = ann.post("/v1/lessons", json={"question": QUESTION, "answer": "Vera"}).json()
        data = ann.get("/v1/memory").content
        with monkeypatch.context() as disk:
            for place in ("jsonl.append", "state_file.write_atomically", "atomic.write_atomically"):
                disk.setattr(f"lmm.files.{place}", full)
            disk.setattr(Path, "mkdir", lambda folder, *args, **more: folder.is_dir() or full())
            for found in (
                ann.post("/v1/lessons", json={"question": "Who is Tom?", "answer": "a dog"}),
                ann.post("/v1/lessons/undo", json={}),
                ann.delete(f"/v1/lessons/{made['id']}"),
                ann.put("/v1/memory", content=data),
                ann.post(
                    "/v1/lessons", json={"question": "Who is Tom?", "answer": "a dog"}, headers={"X-LMM-Memory": "bob"}
                ),
            ):
                assert is_unavailable(found) and "No space left" in found.json()["error"]["message"]
            said = ask(served.openai(), "My dog's name is Rex.", user="ann").lmm
            assert not said["lessons"] and "No space left" in said["said"][0]
            assert os.environ["LMM_DATA_DIR"] not in said["said"][0]
            assert [x["id"] for x in ann.get("/v1/lessons").json()["data"]] == [made["id"]]
        assert ann.put("/v1/memory", content=data).is_success
        assert ann.delete(f"/v1/lessons/{made['id']}").json()["deleted"] is True


def test_a_forgetting_that_failed_is_finished_when_it_is_asked_for_again(served: Served, monkeypatch) -> None:
    with served.client(**{"X-LMM-Memory": "ann"}) as ann:
        made = ann.post("/v1/lessons", json={"question": QUESTION, "answer": "Zorbina"}).json()
        with monkeypatch.context() as disk:
            disk.setattr("lmm.files.journal.purge", full)
            assert is_unavailable(ann.delete(f"/v1/lessons/{made['id']}"))
        assert ann.delete(f"/v1/lessons/{made['id']}").json()["deleted"] is True
        assert ann.delete(f"/v1/lessons/{made['id']}").status_code == 404
        files = [path for path in Path(os.environ["LMM_DATA_DIR"]).rglob("*") if path.is_file()]
        assert files and not [path for path in files if b"Zorbina" in path.read_bytes()]


def test_what_is_wrong_with_the_store_is_told_without_where_it_is(tmp_path: Path) -> None:
    with serving(ScriptedAdapter(), tmp_path, "jotter", store=f"{tmp_path}/texts.db") as served:
        served.service.texts.store.close()
        with served.client() as client:
            found = client.post("/v1/memories", json={"text": "hello"})
        assert found.status_code == 503 and found.json()["error"]["message"].startswith("texts.db cannot be read: ")


def test_what_only_who_runs_the_store_may_know_goes_to_the_log(
    served: Served, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def gone(*given: object, **more: object) -> None:
        raise StoreError("the store failed", 'connection to "db.corp", port 5432, user "root" failed')

    with served.client() as client, monkeypatch.context() as late:  # when the reply was given already
        late.setattr("lmm.engine.mind.Mind.end_turn", gone)
        late.setattr("scripted.Jotter.learns_from", "turns")
        said = client.post("/v1/chat/completions", json={"messages": HELLO}).json()["lmm"]["said"]
    assert "the store failed" in said and "db.corp" not in str(said)
    assert caplog.text.count("db.corp") == 1
    monkeypatch.setattr(served.service.texts.store, "add", gone)
    monkeypatch.setattr(served.service.users, "engine", gone)
    with served.client() as client:
        body = {"messages": HELLO, "stream": True}
        asked = ("/v1/memories", {"text": "hello"}), ("/v1/chat/completions", body)
        told = [client.post(path, json=given) for path, given in asked]
    assert [x.status_code for x in told] == [503, 503] and caplog.text.count("db.corp") == 3
    assert {x.json()["error"]["message"] for x in told} == {"the store failed"}


def test_to_ask_about_a_user_leaves_nothing_behind(served: Served) -> None:
    folder = Path(os.environ["LMM_DATA_DIR"])
    with served.client(**{"X-LMM-Memory": "nobody"}) as client:
        assert client.get("/v1/lessons").json()["data"] == []
        assert client.post("/v1/lessons/why", json={"question": "Who is Tom?"}).json() == {"fired": []}
        assert client.post("/v1/lessons/undo", json={}).json() == {"undone": 0}
        assert client.delete("/v1/lessons/x").status_code == 404
        assert client.post("/v1/memory/verify", content=client.get("/v1/memory").content).json()["good"]
        assert client.get("/v1/memories").json()["data"] == []
        body = {"messages": HELLO, "lmm_learn": "off"}
        assert client.post("/v1/chat/completions", json=body).status_code == 200
        assert client.post("/v1/completions", json={"prompt": "hello"}).status_code == 200
        assert not [path for path in folder.rglob("*") if "nobody" in str(path)]
        client.post("/v1/lessons", json={"question": "Who is Tom?", "answer": "a cat"})
        assert len(client.get("/v1/lessons").json()["data"]) == 1 and (folder / "profiles" / "nobody").exists()


def test_a_lesson_is_told_as_the_list_has_it(toy: Adapter, tmp_path: Path) -> None:
    with serving(toy, tmp_path, "keyed") as served, served.client() as client:
        first, second = (client.post("/v1/lessons", json={"question": "Who is Tom?", "answer": x}).json() for x in "ab")
        assert second["replaces"] == first["answer"] and client.get("/v1/lessons").json()["data"] == [second]
        body = {"question": "Who is Tom?", "reply": second["answer"], "answer": "c"}
        told = client.post("/v1/lessons/correct", json=body).json()["lessons"]
        assert told[0]["replaces"] == second["answer"] and client.get("/v1/lessons").json()["data"] == told


def test_no_undo_brings_back_what_a_forgotten_lesson_took_the_place_of(toy: Adapter, tmp_path: Path) -> None:
    with serving(toy, tmp_path, "keyed") as served, served.client(**{"X-LMM-Memory": "ann"}) as ann:
        for answer in ("a cat", "a dog"):
            made = ann.post("/v1/lessons", json={"question": "Who is Tom?", "answer": answer}).json()
        assert [x["answer"] for x in ann.get("/v1/lessons?ever=true").json()["data"]] == [
            "Tom is a dog.",
            "Tom is a cat.",
        ]
        assert "forgotten: Who is Tom? => Tom is a cat" in remote(served)("/forget cat")
        assert [x["answer"] for x in ann.get("/v1/lessons?ever=true").json()["data"]] == ["Tom is a dog."]
        ann.delete(f"/v1/lessons/{made['id']}")
        for _ in range(3):
            assert ann.get("/v1/lessons").json()["data"] == []
            ann.post("/v1/lessons/undo", json={})


def at_terminal(folder: Path, *lines: str, profile: str | None = None, name: str = "log") -> str:
    """A chat in a terminal of the server's machine -> the id of the last lesson it knows."""
    config = Config(
        model="tiny", memory="jotter", profile=profile, activation_log_path=str(folder / f"{name}.jsonl"), log=True
    )
    view = ConsoleView(make_console(file=io.StringIO()), make_console(file=io.StringIO()))
    loading = Loading(lambda loading: scripted.open_engine(config))
    chat = Chat(config, loading, lambda: view, transcripts.Transcript(**config.about))
    chat.history = JsonHistory(history_path())
    for line in lines:
        chat.history.append_string(line)
        chat.line(line)
    chat.engine.close()
    return chat.engine.mind.lessons[-1].id


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """All that there is of a user: the data folder, and the one where lmm is called."""
    monkeypatch.setenv("LMM_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def holding(folder: Path, text: bytes) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file() and text in path.read_bytes())


@pytest.mark.parametrize("user", ["", "ann", "Ann"])
def test_what_a_terminal_taught_and_the_server_forgets_is_in_no_file(served: Served, home: Path, user: str) -> None:
    lines = ("My sister's name is Zorbina.", QUESTION, "how are you?", "/save m.safetensors", "/export md talk.md")
    id = at_terminal(home, *lines, profile=user or None)
    found = holding(home, b"Zorbina")
    assert {"history.jsonl", "log.jsonl", "m.safetensors", "talk.md"} < set(found) and len(found) == 6
    with served.client(**({"X-LMM-Memory": user} if user else {})) as client:
        gone = client.delete(f"/v1/lessons/{id}").json()
    assert gone["deleted"] is True and gone["id"] == id and sorted(gone["still_in"]) == ["m.safetensors", "talk.md"]
    assert any(f"lmm memory forget m.safetensors {id} --yes" in line for line in gone["said"])
    assert holding(home, b"Zorbina") == ["m.safetensors", "talk.md"] and str(home) not in str(gone)
    assert "how are you?" in history_path().read_text(), "what is not the lesson's stays"


def test_a_terminal_cleans_the_logs_of_other_folders_too(home: Path) -> None:
    install()
    at_terminal(home, "My sister's name is Zorbina.", "My brother's name is Tom.", name="old")
    assert "old.jsonl" in holding(home, b"Zorbina")
    at_terminal(home, "/forget Zorbina", name="new")
    assert holding(home, b"Zorbina") == [] and "old.jsonl" in holding(home, b"Tom")


def test_what_else_says_it_is_named_and_goes_with_deep(served: Served, home: Path) -> None:
    id = at_terminal(home, "My sister's name is Zorbina.", "Is Zorbina a fine name?")
    with served.client() as client:
        gone = client.delete(f"/v1/lessons/{id}").json()
        assert "history.jsonl" in gone["still_in"] and sorted(gone["still_in"]) == holding(home, b"Zorbina")
        assert "still said in " in gone["said"][0] and "--everywhere zorbina" in gone["said"][0]
        id = at_terminal(home, "My sister's name is Zorbina.")
        gone = client.delete(f"/v1/lessons/{id}?deep=true").json()
    assert gone["still_in"] == gone["said"] == holding(home, b"Zorbina") == []


def test_to_forget_takes_nothing_of_anothers_and_tells_nothing_of_it(served: Served, home: Path) -> None:
    at_terminal(home, "My sister's name is Zorbina.", QUESTION, profile="bob")
    at_terminal(home, "My sister's name is Zorbina.", "/export md talk.md", name="mine")
    before = {path: path.read_bytes() for path in home.rglob("*") if path.is_file()}
    with served.client(**{"X-LMM-Memory": "mallory"}) as mallory:
        for deep in ("", "?deep=true"):
            made = mallory.post("/v1/lessons", json={"question": QUESTION, "answer": "Zorbina"}).json()
            gone = mallory.delete(f"/v1/lessons/{made['id']}{deep}").json()
            assert gone["still_in"] == gone["said"] == []
    assert before == {path: path.read_bytes() for path in before}


def test_what_could_not_be_taken_out_is_said(served: Served, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    id = at_terminal(home, "My sister's name is Zorbina.")
    monkeypatch.setattr("lmm.files.jsonl.remove", full)
    with served.client() as client:
        gone = client.delete(f"/v1/lessons/{id}").json()
    assert gone["deleted"] is True and {"history.jsonl", "log.jsonl"} < set(gone["still_in"])
    assert any("No space left" in line for line in gone["said"]) and str(home) not in str(gone)


@pytest.mark.parametrize("options", [{}, {"bits": 4}])
def test_a_file_made_with_other_options_is_refused_or_read_with_them(toy: Adapter, home: Path, options: dict) -> None:
    """As loading in a terminal: what is known is read with its own options, and a file with others takes not its place;
    who knows nothing yet begins with the file's, unless the server was started with some."""
    config = Config(model="tiny", memory="hash_gradient", options={"bits": 6}, log=False, max_tokens=8)
    with serving(toy, home, config=config) as served, served.client(**{"X-LMM-Memory": "ann"}) as ann:
        ann.post("/v1/lessons", json={"question": "Who is Tom?", "answer": "a cat"})
        theirs = ann.get("/v1/memory").content
    with (
        serving(toy, home, config=replace(config, options=options)) as served,
        served.client(**{"X-LMM-Memory": "ann"}) as ann,
        served.client(**{"X-LMM-Memory": "bob"}) as bob,
        served.client(**{"X-LMM-Memory": "carl"}) as carl,
    ):
        found = bob.put("/v1/memory", content=theirs)
        if options:
            wrong = "option bits: the file has 6, this user's memory has 4; nothing was changed"
            assert found.status_code == 422 and wrong in found.json()["error"]["message"]
            assert bob.get("/v1/lessons").json()["data"] == [] and ann.get("/v1/lessons").status_code == 503
            assert not (home / "data" / "profiles" / "bob").exists()
            return
        assert found.json() == {"lessons": 1}
        (home / "bobs").write_bytes(bob.get("/v1/memory").content)
        assert state_file.read_header(home / "bobs").options["bits"] == 6
        assert bob.get("/v1/lessons").json() == ann.get("/v1/lessons").json()
        assert bob.post("/v1/chat/completions", json={"messages": HELLO}).status_code == 200
        assert ann.put("/v1/memory", content=theirs).json() == {"lessons": 1}, "its own file comes back"
        carl.post("/v1/lessons", json={"question": "Who is Tom?", "answer": "a dog"})
        before = carl.get("/v1/memory").content
        found = carl.put("/v1/memory", content=theirs)
        assert found.status_code == 422 and "option bits: the file has 6" in found.json()["error"]["message"]
        assert carl.get("/v1/memory").content == before
        assert ann.put("/v1/memory", content=before).status_code == 422


def test_a_lesson_that_several_wordings_find_speaks_once() -> None:
    assert list(_strongest([("a", 0.5), ("b", 0.6), ("a", 0.9)])) == [("a", 0.9), ("b", 0.6)]


def test_texts_over_http(served: Served) -> None:
    with served.client(**{"X-LMM-Memory": "ann"}) as ann, served.client() as other:
        made = ann.post("/v1/memories", json={"text": "The key is under the pot.", "metadata": {"n": 1}}).json()
        found = ann.post("/v1/memories/search", json={"query": "where is the key"}).json()["data"]
        assert found[0]["id"] == made["id"] and found[0]["cosine"] > 0.5 and found[0]["metadata"] == {"n": 1}
        more = ann.post("/v1/memories", json={"text": "The key is under the pot.", "metadata": {"m": 2}}).json()
        assert more["replaces"] == made["id"] and more["metadata"] == {"n": 1, "m": 2}
        new = ann.put(f"/v1/memories/{more['id']}", json={"text": "The key is with Tom.", "metadata": {"m": 3}}).json()
        assert new["metadata"] == {"n": 1, "m": 3}
        history = ann.get(f"/v1/memories/{new['id']}/history").json()["data"]
        assert [x["text"] for x in history] == [made["text"], made["text"], "The key is with Tom."]
        assert [x["id"] for x in ann.get("/v1/memories").json()["data"]] == [new["id"]]
        assert ann.get("/v1/memories?until=5").json()["data"] == []
        path = f"/v1/memories/{new['id']}"
        for user in ("", "bob", "%", "ann'--", "ANN"):
            asked = {"params": {"user": user}}
            assert other.get(path, **asked).status_code == other.delete(path, **asked).status_code == 404
            assert other.put(path, json={"text": "mine"}, **asked).status_code == 404
            assert other.get(f"{path}/history", **asked).status_code == 404
            assert other.get("/v1/memories", **asked).json()["data"] == []
        assert ann.delete(path).json() == {
            "id": new["id"],
            "deleted": True,
            "count": 3,
            "still_in": [],
            "said": [],
        }
        assert ann.get(path).status_code == 404


@pytest.mark.slow
def test_many_users_ask_at_once_and_none_hears_anothers(tiny_torch: Adapter, tmp_path: Path) -> None:
    """Different answers to one question, many requests at once, some of which their client leaves."""
    names = NAMES[:USERS]
    with serving(tiny_torch, tmp_path, "keyed") as served:
        for name in names:
            served.service.teach(name, QUESTION, name)
        requests = [(name, i) for i in range(EACH) for name in names]
        random.Random(0).shuffle(requests)

        def one(request: tuple[str, int]) -> tuple[str, str]:
            name, i = request
            client = served.openai()
            if i % 4 == 3:  # leave after the first part
                with ask(client, QUESTION, user=name, stream=True, max_tokens=40) as stream:
                    next(iter(stream))
                return name, name
            if i % 4 == 2:
                chunks = ask(client, QUESTION, user=name, stream=True, max_tokens=40)
                return name, "".join(c.choices[0].delta.content or "" for c in chunks)
            return name, ask(client, QUESTION, user=name, max_tokens=40).choices[0].message.content

        with ThreadPoolExecutor(16) as pool:
            for name, reply in pool.map(one, requests):
                assert name in reply and not [other for other in names if other != name and other in reply], reply
        assert served.service.users.seats.passes < served.service.users.seats.tokens


class Watched(ScriptedAdapter):
    """Tells of passes that two threads run at once."""

    def __init__(self) -> None:
        super().__init__()
        self._one, self.clashes = threading.RLock(), 0

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        free = self._one.acquire(blocking=False)
        self.clashes += not free
        try:
            yield
        finally:
            if free:
                self._one.release()

    def forward(self, *args: Any, **more: Any) -> Any:
        with self._alone():
            return super().forward(*args, **more)

    def hidden(self, *args: Any, **more: Any) -> Any:
        with self._alone():
            time.sleep(0.001)  # others get their turn, if they may
            return super().hidden(*args, **more)


def test_embeddings_of_the_models_own_states_and_replies_leave_each_other_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install()
    monkeypatch.setenv("LMM_TEST_TOKEN", "0.0005")
    adapter, names, texts = Watched(), ["Anna", "Bella", "Cora", "Dora"], ["a gate and its code " * 5, QUESTION]
    with serving(adapter, tmp_path, "jotter", encoder="states") as served, served.client() as client:
        for name in names:
            served.service.teach(name, QUESTION, name)

        def embedded(user: str) -> list[list[float]]:
            found = client.post("/v1/embeddings", json={"input": texts, "user": user})
            return [row["embedding"] for row in found.json()["data"]]

        def replies(name: str) -> list[str]:
            return [ask(served.openai(), QUESTION, user=name).choices[0].message.content for _ in range(4)]

        alone = embedded("x")
        with ThreadPoolExecutor(6) as pool:
            vectors = pool.map(embedded, [f"{i}" for i in range(20)])
            said = pool.map(replies, names)
            assert list(said) == [[f"Your sister's name is {name}."] * 4 for name in names]
            assert all(found == alone for found in vectors)
    assert not adapter.clashes


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_ends_its_reply(served: Served, monkeypatch: pytest.MonkeyPatch, stream: bool) -> None:
    monkeypatch.setenv("LMM_TEST_TOKEN", "0.01")
    body = {"messages": [{"role": "user", "content": STORY}], "stream": stream, "max_tokens": 700}
    with served.client() as client:
        host, port = served.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as leaving:
            leaving.sendall(as_sent(body))
            eventually(lambda: served.service.users.seats.tokens > 5, "the reply begins")
        eventually(lambda: "lmm_requests_running 0" in client.get("/metrics").text, "the reply ends")
        assert served.service.users.seats.tokens < 300


def as_sent(body: dict) -> bytes:
    content = json.dumps(body).encode()
    head = "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: "
    return f"{head}{len(content)}\r\n\r\n".encode() + content


def eventually(happens: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + 30
    while not happens():
        assert time.monotonic() < end, f"it is not so that {what}"
        time.sleep(0.02)


def test_a_stop_finishes_what_began(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install()
    monkeypatch.setenv("LMM_TEST_TOKEN", "0.01")
    replies: list[str] = []
    with serving(ScriptedAdapter(), tmp_path, "jotter") as served:
        client = served.openai()
        thread = threading.Thread(target=lambda: replies.append(ask(client, "list").choices[0].message.content))
        thread.start()
        while not served.service.users.seats.tokens:
            time.sleep(0.01)
    thread.join()
    assert replies and replies[0].endswith("```\n")


def test_a_stop_cuts_what_takes_too_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Streams and whole replies are cut where they are, whoever waits is refused, and the server ends."""
    install()
    monkeypatch.setenv("LMM_TEST_TOKEN", "0.05")

    def one(stream: bool, user: str) -> str:
        try:
            found = ask(served.openai(), STORY, user=user, stream=stream, max_tokens=700)
        except openai.APIStatusError as error:
            return error.body["code"]
        last = list(found)[-1] if stream else found
        return last.choices[0].finish_reason

    with ThreadPoolExecutor(5) as pool:
        with serving(ScriptedAdapter(), tmp_path, "jotter", ending=0.5, at_once=4) as served:
            running = [pool.submit(one, i % 2 == 0, f"user{i}") for i in range(4)]
            eventually(lambda: served.service.users.seats.tokens > 20, "all begin")
            waiting = pool.submit(one, False, "late")
            eventually(lambda: "lmm_requests_running 5" in served.service.metrics.text(), "one waits")
            begun = time.monotonic()
        assert time.monotonic() - begun < 8  # all of it would take half a minute
        assert [reply.result() for reply in running] == ["length"] * 4 and waiting.result() == "late"


def test_the_time_limit_ends_whatever_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install()
    with serving(ScriptedAdapter(), tmp_path, "jotter", seconds=0.5) as served:
        client = served.openai()
        monkeypatch.setenv("LMM_TEST_PREFILL", "0.2")
        begun = time.monotonic()
        for more in ({}, {"stream": True}):  # while the prompt is read, in 30 parts
            found = ask(client, "word " * 800, **more)
            choice = (list(found)[-1] if more else found).choices[0]
            assert choice.finish_reason == "length"
        assert time.monotonic() - begun < 4
        text = client.completions.create(model="tiny", prompt="word " * 800)
        assert text.choices[0].finish_reason == "length"
        monkeypatch.setenv("LMM_TEST_PREFILL", "0")
        monkeypatch.setenv("LMM_TEST_STEP", "0.3")  # while something is learned
        told = ask(client, "My sister's name is Vera.")
        assert told.choices[0].finish_reason == "length" and not told.lmm["lessons"]
        assert told.lmm["said"] == ["learning was stopped; the memory is as before"]
        with served.client() as http:
            late = http.post("/v1/lessons", json={"question": "Who?", "answer": "Tom"})
            assert late.status_code == 503 and late.json()["error"]["code"] == "cancelled"
            assert http.get("/v1/lessons").json()["data"] == []


def test_a_user_with_many_requests_keeps_nobody_else_waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither who talks, nor who asks whether the server is there; and beyond a few, the user's own are refused."""
    install()
    monkeypatch.setenv("LMM_TEST_STEP", "0.15")
    more = {"at_once": 6, "waiting_each": 12}
    with (
        serving(ScriptedAdapter(), tmp_path, "jotter", **more) as served,
        served.client() as http,
        ThreadPoolExecutor(30) as pool,
    ):
        lesson = {"question": "Who is Tom?", "answer": "a cat", "user": "busy"}
        asked = [pool.submit(http.post, "/v1/lessons", json=lesson) for _ in range(30)]
        eventually(lambda: "lmm_requests_running 16" in served.service.metrics.text(), "they wait")
        begun = time.monotonic()
        assert ask(served.openai(), user="other").choices[0].message.content == "You said: hello"
        assert http.get("/healthz").status_code == http.get("/metrics").status_code == 200
        assert http.get("/v1/memories", params={"user": "other"}).status_code == 200
        assert time.monotonic() - begun < 4 and not all(reply.done() for reply in asked)
        assert sum(reply.result().status_code == 429 for reply in asked) == 14


def test_conversations_that_are_too_long_together_take_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install()
    monkeypatch.setenv("LMM_TEST_TOKEN", "0.01")
    lock, talking, most = threading.Lock(), set[str](), 0
    with serving(ScriptedAdapter(), tmp_path, "jotter", cache_tokens=500) as served, ThreadPoolExecutor(8) as pool:
        given = served.service.chat

        def chat(request: Any, user: str, *args: Any) -> Any:
            nonlocal most
            with lock:
                talking.add(user)
                most = max(most, len(talking))
            try:
                return given(request, user, *args)
            finally:
                with lock:
                    talking.discard(user)

        monkeypatch.setattr(served.service, "chat", chat)
        client = served.openai()
        replies = [pool.submit(ask, client, "x" * 100, user=f"u{i}", max_tokens=30) for i in range(8)]
        assert all(reply.result().choices[0].message.content.startswith("You said: x") for reply in replies)
        assert most == 2  # 100 and 30 tokens, and a little for the form
        long = ask(client, "y" * 1000, max_tokens=5)  # more than there is room for: alone
        assert long.choices[0].finish_reason == "length" and long.usage.prompt_tokens > 1000


def test_a_reply_that_nobody_gave_a_length_has_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install()
    monkeypatch.setattr("lmm.server.speaking.LONGEST", 20)
    with serving(
        ScriptedAdapter(), tmp_path, "jotter", config=Config(model="tiny", memory="jotter", log=False)
    ) as served:
        found = ask(served.openai(), STORY)
        assert (found.choices[0].finish_reason, found.usage.completion_tokens) == ("length", 20)
        assert ask(served.openai(), STORY, max_tokens=50).usage.completion_tokens == 50


def test_who_does_not_go_on_is_let_go_of(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    users, client = served.service.users, served.openai()

    def held() -> list[int]:
        return [engine.cache.length for _, engine in users._idle.values() if engine.cache.length]

    for i in range(12):
        ask(client, "x" * 100, user=f"u{i}")
    assert len(held()) == 8  # conversations, and not too long ones
    users.cached_tokens = 700
    ask(client, "x" * 100, user="u0")
    assert 300 < sum(held()) <= 700
    users.let_go()
    assert held()
    monkeypatch.setattr("lmm.server.users.CACHED_S", 0.0)
    users.let_go()
    assert not held() and all(not engine.conversation.turns for _, engine in users._idle.values())
    assert len(users._idle) == 12  # what they know is at hand


def test_an_error_of_the_servers_own_is_told_and_counted(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(served.service, "teach", lambda *args: 1 / 0)
    monkeypatch.setattr(served.service, "chat", lambda *args: 1 / 0)
    with served.client() as http:
        asked = ("/v1/lessons", {"question": "a", "answer": "b"}), ("/v1/chat/completions", {"messages": HELLO})
        for path, body in asked:
            found = http.post(path, json=body)
            assert found.status_code == 500 and found.json()["error"]["type"] == "server_error"
            assert f'lmm_requests_total{{path="{path}",status="500"}} 1' in http.get("/metrics").text


def test_a_body_that_does_not_come_is_not_waited_for(tmp_path: Path) -> None:
    with serving(ScriptedAdapter(), tmp_path, "jotter", body_seconds=0.3) as served:
        host, port = served.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=30) as slow:
            slow.sendall(as_sent({"messages": HELLO})[:-5])
            assert slow.recv(1000).startswith(b"HTTP/1.1 408 ")


# ---- who may ask


def test_a_users_name_in_a_header_is_utf_8(served: Served) -> None:
    with served.client() as client:
        client.post("/v1/memories", json={"text": "field", "user": "josé"})
        found = client.get("/v1/memories", headers={"X-LMM-Memory": "josé".encode()})
        assert [x["text"] for x in found.json()["data"]] == ["field"]
        wrong = client.get("/v1/memories", headers={"X-LMM-Memory": "josé".encode("latin-1")})
        assert wrong.status_code == 400 and "UTF-8" in wrong.json()["error"]["message"]


def test_keys(tmp_path: Path) -> None:
    install()
    with serving(ScriptedAdapter(), tmp_path, "jotter", keys=Keys({KEY: "", OTHER_KEY: "bob"})) as served:
        for key in ("wrong", "", KEY[:-1], KEY + "x"):
            with pytest.raises(openai.AuthenticationError):
                ask(served.openai(key or "x"))
        with served.client() as client:
            assert client.get("/healthz").json() == {"status": "ok"} and client.get("/").status_code == 200
            for path in ("/v1/models", "/metrics", "/openapi.json", "/v1/lessons", "/v1/memory", "/nowhere"):
                assert client.get(path).status_code == 401
            assert client.get("/v1/models", headers={"Authorization": f"Basic {KEY}"}).status_code == 401
        ask(served.openai(KEY), "My sister's name is Vera.", user="ann")
        assert "Vera" in ask(served.openai(KEY), QUESTION, user="ann").choices[0].message.content
        with pytest.raises(openai.PermissionDeniedError):
            ask(served.openai(OTHER_KEY), QUESTION, user="ann")
        ask(served.openai(OTHER_KEY), "My sister's name is Ada.")
        assert "Ada" in ask(served.openai(KEY), QUESTION, user="bob").choices[0].message.content
        with served.client(Authorization=f"Bearer {OTHER_KEY}") as bob:
            assert bob.get("/v1/memories", params={"user": "ann"}).status_code == 403
            assert bob.get("/v1/lessons", headers={"X-LMM-Memory": "ann"}).status_code == 403


def test_where_keys_come_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "keys"
    file.write_text(f"{KEY}\n\n{OTHER_KEY}  bob\n")
    file.chmod(0o644)
    with pytest.raises(UsageError, match="chmod 600"):
        load_keys(file)
    file.chmod(0o600)
    keys = load_keys(file)
    assert keys.user_of(f"Bearer {KEY}") == "" and keys.user_of(f"bearer {OTHER_KEY}") == "bob"
    assert keys.user_of(None) is keys.user_of("Bearer") is keys.user_of(KEY) is None
    assert not load_keys(None)
    monkeypatch.setenv("LMM_API_KEY", KEY)
    assert load_keys(None).user_of(f"Bearer {KEY}") == ""
    for wrong in ("short", "", f"{KEY} ann\n{KEY} bob\n"):
        file.write_text(wrong)
        with pytest.raises(UsageError, match="key"):
            load_keys(file)


def test_a_public_address_needs_a_key() -> None:
    for host in ("0.0.0.0", "::", "10.1.2.3", "example.org"):
        with pytest.raises(UsageError, match="a key is needed"):
            serve(Config(), host, 0, None, None, "auto", (), 60.0, 1000, print)
    assert is_loopback("127.0.0.2") and is_loopback("[::1]") and is_loopback("LOCALHOST") and not is_loopback("")


def test_a_file_that_nothing_would_be_kept_in_is_refused() -> None:
    with pytest.raises(UsageError, match="--mm-path"):
        serve(Config(mm_save_path="x"), "localhost", 0, None, None, "auto", (), 60.0, 1000, print)


def test_a_processor_gets_the_format_that_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    from lmm.config import Config
    from lmm.server.run import dtype_of

    for cuda, given, expected in ((False, "auto", "float32"), (True, "auto", "auto"), (False, "float16", "float16")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda cuda=cuda: cuda)
        assert dtype_of(Config(backend="torch", dtype=given)) == expected


def test_pages_elsewhere_get_nothing(served: Served, tmp_path: Path) -> None:
    with served.client() as client:
        assert client.get("/v1/models", headers={"Host": "evil.example:80"}).status_code == 403
        found = client.options("/v1/models", headers={"Origin": "http://x.y", "Access-Control-Request-Method": "GET"})
        assert "access-control-allow-origin" not in found.headers
        page = client.get("/")
        assert "default-src 'none'" in page.headers["content-security-policy"]
        assert "frame-ancestors 'none'" in page.headers["content-security-policy"]
        assert page.headers["x-frame-options"] == "DENY"
        assert (
            page.headers["x-content-type-options"] == "nosniff" and "http" not in page.text.split("<body")[-1].lower()
        )
    with serving(ScriptedAdapter(), tmp_path, "jotter", origins=("http://x.y",)) as open_, open_.client() as client:
        for headers, status in (({}, 200), ({"Host": "evil.example"}, 403)):
            found = client.get("/v1/models", headers={"Origin": "http://x.y", **headers})
            assert found.status_code == status and found.headers["access-control-allow-origin"] == "http://x.y"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://127.0.0.1:1"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site", "Origin": "http://127.0.0.1:1"}, 403),
        ({"Sec-Fetch-Site": "same-origin", "Origin": "https://behind.proxy"}, 200),
        ({"Sec-Fetch-Site": "none"}, 200),
        ({"Origin": "{own}"}, 200),
        ({"Origin": "http://x.y", "Sec-Fetch-Site": "cross-site"}, 200),
    ],
)
def test_a_page_elsewhere_writes_nothing(tmp_path: Path, headers: dict, status: int) -> None:
    with serving(ScriptedAdapter(), tmp_path, "jotter", origins=("http://x.y",)) as served, served.client() as client:
        headers = {name: value.replace("{own}", served.url) for name, value in headers.items()}
        assert client.post("/v1/memories", json={"text": "planted"}, headers=headers).status_code == status
        assert len(client.get("/v1/memories").json()["data"]) == (status == 200)
        assert client.get("/", headers=headers).is_success  # a link leads to the page


def test_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install()
    monkeypatch.setenv("LMM_TEST_TOKEN", "0.02")
    with serving(ScriptedAdapter(), tmp_path, "jotter", body=2000, seconds=1.0, at_once=1, waiting=0) as served:
        with served.client() as client:
            big = json.dumps({"messages": [{"role": "user", "content": "x" * 3000}]}).encode()
            for content in (big, (part for part in (big[:1500], big[1500:]))):
                found = client.post(
                    "/v1/chat/completions", content=content, headers={"Content-Type": "application/json"}
                )
                assert found.status_code == 413 and found.json()["error"]["code"] == "too_large"
        with ThreadPoolExecutor(2) as pool:
            other = served.openai()
            slow = pool.submit(ask, served.openai(), "tell me a long story", max_tokens=500)
            while "lmm_requests_running 1" not in served.service.metrics.text():
                time.sleep(0.01)
            with pytest.raises(openai.RateLimitError):
                ask(other)
            assert slow.result().choices[0].finish_reason == "length"


def test_bodies_that_wait_are_bounded_together(tmp_path: Path) -> None:
    install()
    body = json.dumps({"text": "x" * 1500}).encode()
    coming, go = threading.Event(), threading.Event()

    def slowly() -> Iterator[bytes]:
        yield body[:-1]
        coming.set()
        go.wait(60)
        yield body[-1:]

    kind = {"Content-Type": "application/json"}
    with (
        serving(ScriptedAdapter(), tmp_path, "jotter", bodies=2500) as served,
        ThreadPoolExecutor(1) as pool,
        served.client(**kind) as client,
        served.client(**kind) as other,
    ):
        first = pool.submit(client.post, "/v1/memories", content=slowly())
        coming.wait(60)
        while (found := other.post("/v1/memories", content=body)).is_success:
            time.sleep(0.01)  # the server has not read the first one's part yet
        assert found.status_code == 429 and found.headers["Retry-After"]
        assert found.json()["error"]["type"] == "rate_limit_error"
        go.set()
        assert first.result().is_success
        assert other.post("/v1/memories", content=body).is_success


def test_an_id_may_have_a_slash(served: Served) -> None:
    served.service.of("ann").store.add(
        "ann", [Memo("The key is under the pot.", id="a/b", vector=np.ones(384) / 384**0.5)]
    )
    with served.client(**{"X-LMM-Memory": "ann"}) as client:
        assert client.get("/v1/memories/a%2Fb").json()["text"] == "The key is under the pot."
        assert len(client.get("/v1/memories/a%2Fb/history").json()["data"]) == 1
        assert client.delete("/v1/memories/a%2Fb").json()["deleted"]
        assert client.get("/v1/memories/a%2Fb").status_code == 404


def test_two_names_of_whose_memory_are_refused(served: Served) -> None:
    with served.client(**{"X-LMM-Memory": "vera"}) as client:
        found = client.post("/v1/memories", json={"text": "Vera lives in Graz.", "user": "bob"})
        assert found.status_code == 400 and found.json()["error"]["code"] == "two_users"
        assert client.post("/v1/memories", json={"text": "Vera lives in Graz.", "user": "vera"}).is_success


def test_whose_memory_is_never_one_of_two_that_are_named(served: Served) -> None:
    with served.client() as client:
        for user, text in (("ann", "The PIN is 1111."), ("bob", "The PIN is 2222.")):
            client.post("/v1/memories", json={"text": text, "user": user})
        twice = [("X-LMM-Memory", "ann"), ("X-LMM-Memory", "bob")]
        for found in (
            client.get("/v1/memories?user=ann&user=bob"),
            client.get("/v1/memories", headers=twice),
            client.get("/v1/memories?user=bob", headers={"X-LMM-Memory": "ann"}),
        ):
            assert found.status_code == 400 and found.json()["error"]["code"] == "two_users"
        found = client.get("/v1/memories?user=ann&user=ann", headers=[twice[0], twice[0]])
        assert [x["text"] for x in found.json()["data"]] == ["The PIN is 1111."]


def raw(served: Served, request: bytes) -> bytes:
    """The first bytes that are answered to a request as it is, which no client would send."""
    host, port = served.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        connection.sendall(request + b" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        return b"".join(iter(lambda: connection.recv(4096), b""))


def test_bytes_that_are_no_characters_name_nobody(served: Served) -> None:
    with served.client() as client:
        for name in ("Jos%E9", "Jos%E8", "%FF", "%ED%A0%80"):
            for method, path in (("GET", f"/v1/lessons?user={name}"), ("DELETE", f"/v1/lessons/{name}")):
                found = client.request(method, path)
                assert found.status_code == 400 and found.json()["error"]["type"] == "invalid_request_error"
        client.post("/v1/memories?user=Jos%C3%A9", json={"text": "The PIN is 1111."})
        assert len(client.get("/v1/memories", params={"user": "José"}).json()["data"]) == 1
    for address in ("/v1/memories?user=José".encode(), "/v1/memories?user=José".encode("latin-1")):
        assert b"1111" not in (answer := raw(served, b"GET " + address)) and answer.startswith(b"HTTP/1.1 400 ")


def test_metrics_and_openapi(served: Served) -> None:
    ask(served.openai())
    with served.client() as client:
        text = client.get("/metrics").text
        assert 'lmm_requests_total{path="/v1/chat/completions",status="200"} 1' in text
        assert f"lmm_tokens_total {len('You said: hello') + 1}" in text
        assert 'lmm_first_token_seconds_bucket{le="+Inf"} 1' in text and "# TYPE lmm_lessons_total counter" in text
        paths = client.get("/openapi.json").json()["paths"]
        assert {"/v1/chat/completions", "/v1/memories", "/v1/lessons/why", "/v1/memory"} <= paths.keys()


# ---- parts


def test_stops_are_found_across_chunks() -> None:
    cutter = Cutter(["END", "stop now"])
    assert [cutter.feed(x) for x in ("a st", "op", " then E", "N", "D more")] == ["a ", "", "stop then ", "", ""]
    assert cutter.found
    cutter = Cutter(["xyz"])
    assert cutter.feed("ab x") + cutter.rest() == "ab x" and not cutter.found


def test_messages_become_turns() -> None:
    roles = [("system", "S"), ("user", "a"), ("user", "b"), ("assistant", "c"), ("assistant", "d"), ("user", "e")]
    system, turns, question = as_turns([{"role": role, "content": text} for role, text in roles])
    assert (system, question) == ("S", "e") and [(t.user, t.reply, t.answered) for t in turns] == [
        ("a\n\nb", "c\n\nd", True)
    ]


def test_a_greeting_is_a_part_of_the_conversation(served: Served) -> None:
    messages = [{"role": "assistant", "content": "I am Bob."}, {"role": "user", "content": "No, it's Canberra."}]
    [greeting] = as_turns(messages)[1]
    assert (greeting.user, greeting.reply, greeting.answered) == ("", "I am Bob.", True)
    found, alone = (ask(served.openai(), messages=messages[i:]) for i in (0, 1))
    assert found.choices[0].message.content == "You said: No, it's Canberra."
    assert found.usage.prompt_tokens >= alone.usage.prompt_tokens + len("I am Bob.") and not found.lmm["lessons"]


def test_no_two_users_share_a_profile() -> None:
    users = ["ann", "Ann", "ANN", "a/b", "../x", "user-1", "ann.", "ann ", "é", "x" * 200, standing.folder_of("Ann")]
    profiles = [standing.folder_of(user) for user in users]
    assert profiles[0] == "ann" and len({profile.lower() for profile in profiles}) == len(profiles)


def test_what_a_user_is_told_a_profile_of_that_name_knows(served: Served) -> None:
    for name in ("ann", "Ann", "user-42", "ann."):
        lesson = served.service.teach(name, "Who is Tom?", "a cat")
        file = standing.file_of(Config(model="tiny", memory="jotter", profile=name))
        assert file is not None and [x.id for x in journal.read_header(file).lessons] == [lesson["id"]]


def test_a_profile_that_an_earlier_version_named_is_still_found() -> None:
    for folder in ("profiles/Work", "profiles/user-42", f"profiles/{standing.folder_of('Ann')}"):
        (Path(os.environ["LMM_DATA_DIR"]) / folder).mkdir(parents=True)
        assert f"/{folder}/" in str(standing.file_of(Config(profile=folder.partition("/")[2])))
    assert "/profiles/WORK/" not in str(standing.file_of(Config(profile="WORK")))


# ---- a chat with it


@dataclass
class Remote:
    """A chat with a server, on a console that is no terminal."""

    chat: RemoteChat
    shown: io.StringIO

    def __call__(self, line: str) -> str:
        """Type a line -> what was shown for it."""
        self.shown.truncate(0), self.shown.seek(0)
        self.chat.line(line)
        return self.shown.getvalue()


def remote(served: Served, user: str = "ann", ask: Any = None, **settings: Any) -> Remote:
    shown = io.StringIO()
    console = make_console(file=shown)
    console.width = 200
    config = Config(**settings)
    return Remote(RemoteChat(Server(served.url, user, ""), config, lambda: ConsoleView(console, console, ask)), shown)


def test_what_no_request_can_say_is_refused_where_it_is_set(served: Served) -> None:
    said = remote(served, decoding_strategy="sample")
    for name, most in MOST.items():
        assert f"{name} is at most {most} with a server" in said(f"/set {name} {most * 2}")
        said(f"/set {name} {most}")
    assert "You said: hello" in said("hello") and "You said: hello" in said("/retry")
    assert "as the server has it" in said("/set")


def test_a_reply_that_was_refused_is_not_said_to_be_interrupted(served: Served) -> None:
    said = remote(served)
    said.chat.model = "another"
    assert said("hello") == "lmm: there is no model 'another' here; this server has 'tiny'\n"


@pytest.mark.parametrize(
    "url", ["http://[::1", "http://localhost:port", "http://localhost:99999", "ftp://x", "http://"]
)
def test_what_is_no_url_is_refused(url: str) -> None:
    with pytest.raises(UsageError, match="--server takes a URL"):
        Server(url, "", "")


def test_a_message_with_bytes_that_are_no_text_is_not_sent(served: Served) -> None:
    said = remote(served)
    assert "the message is not UTF-8, in line 1: byte 0xff" in said("hello \udcff") and said.chat.unanswered == 1


def test_a_chat_talks_to_it_as_to_a_model_here(served: Served) -> None:
    said = remote(served)
    assert "You said: hello" in said("hello")
    shown = said("My sister's name is Vera.")
    assert "learned: " in shown and "/undo takes it back" in shown and "Vera" in said(QUESTION)
    assert "0.90  " in said("/why") and "1   What is my sister's name?" in said("/lessons")
    assert "Zora" in said("/correct Zora") and "Zora" in said(QUESTION) and "expected: /correct" in said("/correct")
    shown = said("/undo")
    assert "undone: 1 step; 1 lesson known" in shown and "- What is my sister's name? => " in shown
    assert "Vera" in said(QUESTION)
    shown = said("/teach Who is Tom? => a cat")
    assert "learned: " in shown and " - /undo" in shown and "cat" in said("Who is Tom?")
    assert "number of steps" in said("/undo x") and "as in: /teach" in said("/teach Tom")
    assert "does not work with a server" in said("/memory") and "did you mean /forget?" in said("/forgot")
    assert "/forget" in said("/help") and "/diff" not in said("/help") and "/redo" not in said("/help forget")
    said("/new")
    assert "no reply yet" in said("/why") and "tiny · http" in said.chat.status(80)
    with pytest.raises(EOFError):
        said("/quit")


def test_a_lesson_is_found_by_what_it_says_as_in_a_terminal(served: Served) -> None:
    said = remote(served)
    for line in (
        "/teach Who leads the choir? => Maria",
        "/teach Who leads the band? => Maria",
        "/teach Who is Tom? => Ed",
    ):
        said(line)
    shown = said("/forget Maria")
    assert (
        "choir" in shown and "band" in shown and "2 lessons have 'Maria' in them; name one by its number or id" in shown
    )
    assert "/forget 1" in shown and "no lesson has 'Vera' in it; /lessons lists them" in said("/forget Vera")
    assert "choir" in said("/lessons choir") and "band" not in said("/lessons choir")
    shown = said("/why choir")
    assert "Who leads the choir?" in shown and "learned" in shown and "did not fire" not in shown
    said("Who leads the choir?")
    assert "fired" in said("/why choir") and "did not fire" in said("/why band")
    assert "forgotten: Who leads the choir? => " in said("/forget choir")
    assert "You said" in said("Who leads the choir?")
    said("/lessons")
    assert "forgotten: Who is Tom?" in said("/forget 2"), "as it was listed last"
    assert [lesson.prompt for lesson in said.chat.lessons] == ["Who leads the band?"]


def test_what_is_forgotten_from_afar_is_in_no_file_and_what_holds_it_is_said(served: Served, home: Path) -> None:
    lines = ("My sister's name is Zorbina.", QUESTION, "how are you?", "/save m.safetensors")
    at_terminal(home, *lines, profile="ann")
    said = remote(served)
    said(QUESTION), said("hello"), said("/export md talk.md")
    shown = said("/forget Zorbina")
    assert "1 turn of this conversation went with it" in shown and "forgotten: " in shown
    assert "on the server: still in m.safetensors; take it out there with: lmm memory forget" in shown
    assert "still in talk.md, which was exported" in shown
    assert holding(home, b"Zorbina") == ["m.safetensors", "talk.md"]
    assert [m["content"] for m in said.chat.conversation.messages] == ["hello", "You said: hello"]


@pytest.mark.parametrize("answer", ["y", "n", None])
def test_what_a_message_takes_back_is_offered_as_a_command(served: Served, answer: str | None) -> None:
    said = remote(served, ask=(lambda question: answer) if answer else None)
    said("My sister's name is Vera.")
    [lesson] = said.chat.lessons
    shown = said("Please forget my sister's name.")
    assert "DELETE" not in shown and shown.count("still known") == (answer is None)
    assert ("/forget " + lesson.id in shown) == (answer is None)
    assert ("this cannot be undone" in shown) == (answer == "y") == (not said("/lessons").count("Vera"))


def test_a_chat_from_afar_has_the_settings_that_a_request_has(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    said, bodies = remote(served, decoding_strategy="sample", temperature=0.5), list[dict[str, Any]]()
    events = said.chat.server.events
    monkeypatch.setattr(said.chat.server, "events", lambda body: bodies.append(body) or events(body))
    assert "max_tokens = 5" in said("/set max_tokens 5") and "beams" not in said("/set")
    assert "You s" in said("hello") and "You said" not in said("hello")
    assert (bodies[0]["temperature"], bodies[0]["seed"], bodies[0]["max_tokens"]) == (0.5, 0, 5)
    assert "You s" in said("/retry") and bodies[-1]["seed"] == 1 and bodies[-1]["lmm_learn"] == "off"
    assert "cannot ask" in said("/set learn ask") and "beam search" in said("/set decoding_strategy beam")
    said("/set decoding_strategy greedy"), said("/set learn off")
    said("My sister's name is Vera.")
    assert bodies[-1]["temperature"] == 0 and said.chat.lessons == []
    with pytest.raises(UsageError, match="cannot ask"):
        remote(served, learn="ask")


def test_a_conversation_from_afar_is_shown_copied_and_exported(served: Served, home: Path) -> None:
    said = remote(served)
    assert "no system prompt" in said("/system") and "changed" in said("/system Be short.")
    said("hello")
    assert "user: hello" in said("/history") and "system: Be short." in said("/history")
    assert "exported to talk.json" in said("/export json talk.json")
    assert json.loads((home / "talk.json").read_text())["messages"][1] == {"role": "user", "content": "hello"}
    said("/new")
    assert said.chat.conversation.messages == [{"role": "system", "content": "Be short."}]
    assert "no reply to copy" in said("/copy") and "needs a terminal" in said("/edit") and "lessons" in said("/stats")


def test_what_a_chat_with_a_server_cannot_be_told_is_said(
    served: Served, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for given in ({"fresh": True}, {"mm_load_path": "m"}, {"mm_save_path": "m"}):
        with pytest.raises(UsageError, match="with --server, --profile NAME says whose memory"):
            run(Config(**given), served.url)
    runner = CliRunner()
    for flag in (["--continue"], ["--resume", "2026"]):
        found = runner.invoke(app, ["chat", "--server", served.url, *flag])
        assert "none to go on with" in str(found.exception)
    monkeypatch.setattr("sys.stdin", io.StringIO("hello\n/forget Vera\nexit\n"))
    run(Config(profile="ann"), served.url)
    monkeypatch.setattr("sys.stdin", io.StringIO("hello\n"))
    monkeypatch.setattr(Server, "events", refused)
    with pytest.raises(LmmError, match="1 message could not be answered"):
        run(Config(profile="ann"), served.url)
    assert "no lesson has 'Vera' in it" in capsys.readouterr().err


def refused(server: Server, body: Any) -> Iterator[dict[str, Any]]:
    raise RemoteError("not now")
    yield {}


def test_a_memory_is_saved_and_loaded_from_afar(served: Served, home: Path) -> None:
    said = remote(served)
    said("/teach Who is Tom? => a cat")
    assert "saved to m.safetensors" in said("/save m.safetensors") and state_file.verify("m.safetensors") == []
    other = remote(served, "bob")
    assert "loaded m.safetensors: 1 lesson known; /undo goes back" in other("/load m.safetensors")
    assert "cat" in other("Who is Tom?") and "0 lessons known" in other("/undo")
    assert "cannot read nothing" in other("/load nothing") and "cannot write" in said("/save /proc/x/y")


def test_a_server_that_is_not_there_is_said() -> None:
    with pytest.raises(RemoteError, match="cannot be reached"):
        Server("127.0.0.1:1", "", "").call("GET", "/v1/models")
    for url in ("ftp://x", "", "http://"):
        with pytest.raises(UsageError, match="--server takes a URL"):
            Server(url, "", "")


def test_what_one_server_is_taught_another_over_the_same_folder_knows(tmp_path: Path) -> None:
    install()
    with serving(ScriptedAdapter(), tmp_path, "jotter") as one, serving(ScriptedAdapter(), tmp_path, "jotter") as two:
        assert "You said" in ask(two.openai(), QUESTION, user="ann").choices[0].message.content
        one.service.teach("ann", QUESTION, "Vera")
        assert "Vera" in ask(two.openai(), QUESTION, user="ann").choices[0].message.content
        [lesson] = one.service.lessons("ann")
        two.service.forget("ann", lesson["id"])
        assert "You said" in ask(one.openai(), QUESTION, user="ann").choices[0].message.content
        files = [path for path in Path(os.environ["LMM_DATA_DIR"]).rglob("*") if path.is_file()]
        assert files and not [path for path in files if b"Vera" in path.read_bytes()]
