"""How a server does with several users at once: python -m scripts.measure_serve [URL] [--users 8] [--tokens 64]

Without a URL it starts one over the default model, in a process of its own. It says tokens/s of one user and of all at
once, the time to the first token under that load, what an idle user costs, and whether any reply held what another
user had taught. With --store postgresql://... it instead starts two servers over one database, and says how soon the
one knows what the other was taught. Figures are of one run on whatever else the machine does: the ratio is what they
are for.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lmm.chat.remote import RemoteError, Server
from lmm.server.app import LOOK_S

NAMES = [
    "Vera",
    "Ada",
    "Zora",
    "Mila",
    "Ines",
    "Olga",
    "Rita",
    "Nora",
    "Dana",
    "Lena",
    "Maja",
    "Tove",
    "Ursa",
    "Wanda",
    "Petra",
    "Sofia",
]
QUESTION = "What is my sister's name?"


@dataclass
class Said:
    """One streamed reply: its text, tokens, and seconds to the first and in all."""

    text: str
    tokens: int
    first: float
    seconds: float


def say(url: str, text: str, user: str, tokens: int, leave: int = 0) -> Said:
    """Ask; with `leave`, go away after so many parts."""
    body = {"messages": [{"role": "user", "content": text}], "max_tokens": tokens, "lmm_learn": "off"}
    body |= {"stream": True, "stream_options": {"include_usage": True}}
    begun, first, parts, made = time.perf_counter(), 0.0, [], 0
    with contextlib.closing(Server(url, user, "").events(body)) as chunks:
        for chunk in chunks:
            made = (chunk.get("usage") or {}).get("completion_tokens", made)
            part = (chunk["choices"][0]["delta"].get("content") or "") if chunk["choices"] else ""
            first = first or (time.perf_counter() - begun if part else 0.0)
            parts += [part] if part else []
            if leave and len(parts) >= leave:
                break
    return Said("".join(parts), made, first, time.perf_counter() - begun)


def speed(url: str, users: int, tokens: int, rounds: int) -> tuple[float, list[float]]:
    """Tokens per second of all together, and seconds to each first token."""
    prompts = [f"Tell me a long story about a {thing}." for thing in ("fox", "ship", "king", "cloud", "tree", "clock")]
    begun = time.perf_counter()
    with ThreadPoolExecutor(users) as pool:
        asked = [(prompts[i % len(prompts)], f"speed{i % users}") for i in range(users * rounds)]
        found = list(pool.map(lambda one: say(url, one[0], one[1], tokens), asked))
    return sum(x.tokens for x in found) / (time.perf_counter() - begun), [x.first for x in found]


def mixed(url: str, requests: int, at_once: int) -> tuple[int, int]:
    """Users with different answers to one question, all at once, some of which leave -> replies, and wrong ones."""
    for name in NAMES:
        Server(url, f"mixed{name}", "").call("POST", "/v1/lessons", {"question": QUESTION, "answer": name})
    asked = [NAMES[i % len(NAMES)] for i in range(requests)]
    random.Random(0).shuffle(asked)

    def one(pair: tuple[int, str]) -> int:
        number, name = pair
        said = say(url, QUESTION, f"mixed{name}", 24, leave=2 if number % 5 == 4 else 0).text
        others = [other for other in NAMES if other != name and other in said]
        return bool(others) or (number % 5 != 4 and name not in said)

    with ThreadPoolExecutor(at_once) as pool:
        return requests, sum(pool.map(one, enumerate(asked)))


def long(url: str, pid: int, users: int, words: int) -> tuple[int, int, int]:
    """So many users at once, each with a prompt of so many words -> replies, and bytes of memory that the server had at
    most and has half a minute later, beyond what it had before."""
    before, most, done = resident(pid), [0], threading.Event()

    def watch() -> None:
        while not done.wait(0.2):
            most[0] = max(most[0], resident(pid))

    watcher = threading.Thread(target=watch)
    watcher.start()

    def one(i: int) -> bool:
        text = " ".join(random.Random(i).choice(NAMES) for _ in range(words))
        try:
            return bool(say(url, f"Which name comes first? {text}", f"long{i}", 16).tokens)
        except RemoteError:  # it took too long
            return False

    try:
        with ThreadPoolExecutor(users) as pool:
            replies = sum(pool.map(one, range(users)))
    finally:
        done.set()
        watcher.join()
    return replies, most[0] - before, settled(pid) - before


def idle(url: str, pid: int, users: int) -> float:
    """Bytes of memory for each of so many users who were taught a lesson and asked something."""

    def one(i: int) -> None:
        user = Server(url, f"idle{i}", "")
        user.call("POST", "/v1/lessons", {"question": QUESTION, "answer": NAMES[i % len(NAMES)]})
        user.call("POST", "/v1/lessons/why", {"question": QUESTION})

    for i in range(16):  # what the first ones bring about is for all
        one(-1 - i)
    before = settled(pid)
    for i in range(users):
        one(i)
    return (settled(pid) - before) / users


def shared(one: str, other: str, lessons: int) -> list[float]:
    """Teach one server and ask the other at once -> seconds until it knew, from when the first had answered."""
    took = []
    for i in range(lessons):
        here, there = (Server(url, f"shared{i % 8}", "") for url in (one, other))
        asked = {"question": f"What is the code of door {i}?"}
        made = here.call("POST", "/v1/lessons", asked | {"answer": f"K{1000 + i}"})
        begun = time.perf_counter()
        while made["id"] not in [x["id"] for x in there.call("POST", "/v1/lessons/why", asked)["fired"]]:
            time.sleep(0.01)
        took.append(time.perf_counter() - begun)
    return took


@contextlib.contextmanager
def started(model: str, *more: str) -> Iterator[tuple[str, int]]:
    """A server of its own -> its URL and process id."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "lmm", "serve", "--port", str(port), "--model", model, "--no-log", *more]
        process = subprocess.Popen(command, env=os.environ | {"LMM_DATA_DIR": folder})
        url = f"http://127.0.0.1:{port}"
        try:
            while process.poll() is None:
                with contextlib.suppress(OSError):
                    urllib.request.urlopen(f"{url}/healthz", timeout=5).close()
                    break
                time.sleep(0.2)
            yield url, process.pid
        finally:
            process.terminate()
            process.wait(60)


def resident(pid: int) -> int:
    """Bytes of memory that a process has."""
    status = Path(f"/proc/{pid}/status").read_text()
    return 1024 * int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS")))


def worked(pid: int) -> float:
    """Seconds of the processors that a process has had; 0 for none."""
    ticks = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13] if pid else ()
    return sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")


def settled(pid: int) -> int:
    """The same once it has given back what is free."""
    time.sleep(LOOK_S + 5)
    return resident(pid)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("url", nargs="?")
    for name, value in (("users", 8), ("tokens", 64), ("rounds", 3), ("requests", 1000), ("idle", 100)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--many", default="", help="so many users at once, further on: 16,32,64")
    parser.add_argument("--long", type=int, default=0, help="users with long prompts at once; nothing else is measured")
    parser.add_argument("--words", type=int, default=1500, help="of a long prompt")
    parser.add_argument("--cache-tokens", type=int, help="as of lmm serve, with --long")
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--store")
    given = parser.parse_args()
    if given.store:
        store = ("--store", given.store)
        with started(given.model, *store) as (one, _), started(given.model, *store) as (other, _):
            took = shared(one, other, 50)
        told = f"median {np.median(took):.2f} s, p95 {np.quantile(took, 0.95):.2f} s, longest {max(took):.2f} s"
        print(f"{len(took)} lessons taught on one server are known on the other after: {told}")
        return
    if given.long:
        held = ("--cache-tokens", str(given.cache_tokens)) if given.cache_tokens else ()
        with started(given.model, *held) as (url, pid):
            replies, most, after = long(url, pid, given.long, given.words)
        print(f"{given.long} users with {given.words:,} words each: {replies} replies")
        print(f"memory of the server: {most / 1e9:.2f} GB more at most, {after / 1e9:.2f} GB more half a minute later")
        return
    server = contextlib.nullcontext((given.url, 0)) if given.url else started(given.model)
    with server as (url, pid):
        speed(url, given.users, 4, 1)  # so that every user is known
        begun = worked(pid)
        alone, _ = speed(url, 1, given.tokens, given.rounds)
        middle = worked(pid)
        together, firsts = speed(url, given.users, given.tokens, given.rounds)
        print(f"1 user {alone:.1f} tokens/s; {given.users} users {together:.1f} tokens/s: {together / alone:.2f} times")
        if pid:
            times = given.users * (middle - begun) / (worked(pid) - middle)
            print(f"by the processor's time, which others on the machine take less part in: {times:.2f} times")
        median, late = np.quantile(firsts, [0.5, 0.95])
        print(f"first token at {given.users} users: median {median:.2f} s, p95 {late:.2f} s")
        if given.requests:
            asked, wrong = mixed(url, given.requests, 16)
            print(f"{asked} requests of {len(NAMES)} users at once: {wrong} replies with another's answer or without")
        if pid and given.idle:
            print(f"memory of a user who does not talk, with a lesson: {idle(url, pid, given.idle) / 1e6:.3f} MB")
        for count in map(int, given.many.split(",") if given.many else ()):
            made, firsts = speed(url, count, given.tokens, 1)
            median, late = np.quantile(firsts, [0.5, 0.95])
            told = f"first token: median {median:.1f} s, p95 {late:.1f} s"
            print(f"{count} users: {made:.1f} tokens/s, {made / count:.2f} for each; {told}")


if __name__ == "__main__":
    main()
