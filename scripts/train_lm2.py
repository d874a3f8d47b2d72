"""Train `lm2` to recall what was said: a start in closed form, then gradients through the write and the read.

    python -m scripts.lm2_data --text FILE .. --out DATA
    python -m scripts.train_lm2 --data DATA/train.jsonl --out slots.safetensors

Needs torch. The model's states are read once; a step runs the memory on them and, of the model, the last norm and some
rows of the head. In each step conversations are put together anew from the facts and other turns of the data: one to
six facts, up to 19 other turns, then a fact is asked for; or one that was not told, or something else, where the reply
is to stay the model's own.

The start, for one head and as many slots as questions, is a solution of lm2's equations by ridge regressions. The
first M numbers of a slot say which it is: the slot's own place, and never written. Number M says that it was written,
the others are a code of the value's token.

    code    c(v) = P (e_v - mean): the head's row of the token, whitened, in its S - M - 1 main directions; W_O has P^T
    write   a slot looks for a value of its own question; U_V reads the token's code off the state; the gates are open
            where what was found is such a value
    read    a question looks for its slot; the output gate is open from the reply's beginning up to the value

Gradients change the rest, but neither the code nor what would read it: gates and keys would come to know the values of
the training by it, and to miss others.
"""

from __future__ import annotations

import argparse
import math
import random
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch.nn.utils.rnn import pad_sequence

from lmm.adapters.base import Adapter
from lmm.adapters.torch_lm import TorchAdapter
from lmm.bench import exact_match
from lmm.bench.exact_match import TaskExample
from lmm.config import Config, parse_settings
from lmm.engine import runtime
from lmm.engine.asking import ask_many
from lmm.engine.mind import Mind
from lmm.lesson import Knowledge, State
from lmm.memory.lm2.lm2 import READ, WRITE, Lm2
from scripts.helps_data import from_file

OPTIONS = {"slot_width": 256, "num_mem_heads": 1, "depth": 0.97, "write_depth": 0.2, "floor": 0.5}
MIXES = ((1, 0), (1, 1), (1, 3), (2, 1), (2, 2), (3, 2), (4, 2), (6, 2), (1, 19))  # facts, other turns
KEPT = 8  # tokens of a reply that is to stay the model's own
PASTS = 8  # conversations in which things are said and asked; a quarter of them are empty
TOGETHER = 32  # messages that are read at once
SHARP = 12.0  # how far the right one leads in an attention, in logits
OPEN = 5.0  # how far gates are open or closed
LOUD = 0.2  # the length of what is read, against the states'
IGNORED = -100
WEIGHTS = {"value": 1.0, "words": 2.0, "kept": 3.0, "gate": 1.0}  # of the losses
HANDS = Path(__file__).parent / "helps_hand"  # thousands of questions of many hands, about notes
TRAINED = ("slots", *WRITE, *(name for name in READ if name != "read_value"))


class Past:
    """A conversation that goes on: exchanges that were read, and their cache."""

    def __init__(self, adapter: Adapter, exchanges: Sequence[tuple[str, str]]) -> None:
        roles = ("user", "assistant")
        self.format = adapter.format
        self.messages = [{"role": r, "content": c} for pair in exchanges for r, c in zip(roles, pair, strict=True)]
        self.text = self.format.render(self.messages, False) if exchanges else ""
        self.cache = adapter.read(self.format.encode(self.text)) if exchanges else adapter.new_cache()

    def message(self, text: str, reply: bool = False) -> tuple[list[int], list[bool]]:
        """The tokens of a user's message, and which of them he wrote; with `reply` up to where the reply begins."""
        messages = [*self.messages, {"role": "user", "content": text}]
        return self.format.marked(messages, self.format.render(messages, reply), reply, len(self.text))


@dataclass
class Turns:
    """What users say: standardised states [N, T, D], which of these there are [N, T], their tokens."""

    x: torch.Tensor
    live: torch.Tensor
    tokens: list[list[int]]

    @classmethod
    def of(cls, adapter: Adapter, memory: Lm2, state: State, pasts: Sequence[Past], texts: Sequence[str]) -> Turns:
        """Each text in one of the conversations, those of one length together."""
        messages = [pasts[i % len(pasts)].message(text) for i, text in enumerate(texts)]
        first_layer = memory.source(adapter).first_layer
        groups: dict[tuple[int, int], list[int]] = {}
        for i, (tokens, _) in enumerate(messages):
            groups.setdefault((i % len(pasts), len(tokens)), []).append(i)
        found: dict[int, torch.Tensor] = {}
        for (past, _), rows in groups.items():
            for some in (rows[i : i + TOGETHER] for i in range(0, len(rows), TOGETHER)):
                cache = adapter.select(pasts[past].cache, [0] * len(some))
                read = np.array([messages[i][0] for i in some])
                states = memory.to_write(adapter.ops, state, adapter.hidden(read, first_layer, cache))
                found |= {i: h[np.array(messages[i][1])] for i, h in zip(some, states, strict=True)}
        x = pad_sequence([found[i] for i in range(len(texts))], True)
        live = pad_sequence([torch.ones(len(found[i])) for i in range(len(texts))], True)
        return cls(x, live, [[t for t, own in zip(*one, strict=True) if own] for one in messages])


@dataclass
class Replies:
    """States [N, T, D] from the last token of a question on, the tokens [N, T] that are to come next, and all states
    before [P, D]."""

    h: torch.Tensor
    targets: torch.Tensor
    before: torch.Tensor

    @classmethod
    def of(cls, adapter: Adapter, memory: Lm2, pasts: Sequence[Past], pairs: Sequence[tuple[str, str]]) -> Replies:
        states, targets, before, layer = [], [], [], memory.sites(adapter)[0].first_layer
        for i, (question, reply) in enumerate(pairs):
            past = pasts[i % len(pasts)]
            prompt, answer = past.message(question, reply=True)[0], adapter.format.lesson_tokens(question, reply)[1]
            h = adapter.hidden(np.array([[*prompt, *answer[:-1]]]), layer, past.cache)
            states.append(h[0, len(prompt) - 1 :][:KEPT])
            before.append(h[0, : len(prompt) - 1])
            targets.append(torch.tensor(answer[:KEPT]))
        return cls(pad_sequence(states, True), pad_sequence(targets, True, IGNORED), torch.cat(before))


class Data:
    """The facts and turns of conversations, with what the model makes of them."""

    def __init__(
        self, mind: Mind, memory: Lm2, state: State, rows: Sequence[TaskExample], rng: random.Random, kept: int
    ) -> None:
        self.adapter = adapter = mind.adapter
        facts = [row for row in rows if row.category != "text"]
        rng.shuffle(facts)
        self.questions = sorted({row.question for row in facts})
        others = sorted({text for row in facts for text in row.before[1:]})
        other_questions = sorted(questions_of_hands() - set(self.questions))
        asked = [
            *self.questions,
            *rng.sample(others, min(kept // 4, len(others))),
            *rng.sample(other_questions, min(kept, len(other_questions))),
        ]
        with adapter.quiet():
            own = [(reply.prompt, reply.text) for reply in ask_many(mind, asked, KEPT)]
        pasts = [Past(adapter, rng.sample(own, i % 4)) for i in range(PASTS)]
        self.turns = Turns.of(adapter, memory, state, pasts, [*(row.before[0] for row in facts), *others])
        self.slot = np.array([self.questions.index(row.question) for row in facts])
        self.value = torch.tensor([adapter.format.encode(f" {row.key}")[0] for row in facts])
        self.place = [self.turns.tokens[i].index(int(token)) for i, token in enumerate(self.value)]
        self.facts = [np.flatnonzero(self.slot == m) for m in range(len(self.questions))]
        self.others = np.arange(len(facts), len(self.turns.tokens))
        some = [(row.question, row.answer) for m in self.facts for row in (facts[i] for i in m[:PASTS])]
        self.told = Replies.of(adapter, memory, pasts, some)
        self.at = int((self.told.targets[:PASTS] != self.told.targets[0]).any(0).nonzero()[0])  # of the value
        self.own = Replies.of(adapter, memory, pasts, own)


def questions_of_hands() -> set[str]:
    """What one may be asked that has nothing to do with the slots."""
    notes = (note for path in HANDS.glob("*.jsonl") for note in from_file(path))
    return {text for note in notes for text in (*note.helps, *note.near)}


class OutputHead:
    """The model's last norm, and its head for those tokens that a loss compares."""

    def __init__(self, adapter: Adapter, tokens: torch.Tensor) -> None:
        assert isinstance(adapter, TorchAdapter)
        self.norm, weight = adapter.model.model.norm, adapter.model.get_output_embeddings().weight.detach()
        self.tokens = torch.unique(tokens)
        self.weight = weight[self.tokens]
        self.scaled = self.weight * self.norm.weight.detach()  # rows as the states before the norm see them

    def losses(self, h: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(self.norm(h) @ self.weight.T, torch.searchsorted(self.tokens, targets), reduction="none")

    def rows(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.scaled[torch.searchsorted(self.tokens, tokens)] - self.scaled.mean(0)


# the start --------------------------------------------------------------------------------------------------------
def ridge(x: torch.Tensor, y: torch.Tensor, weights: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """W [D, S] and b [S] with x W + b near y; x is standardised."""
    weights = torch.ones(len(x)) if weights is None else weights
    wide = torch.cat([x, torch.ones(len(x), 1)], 1)
    square = wide.T @ (wide * weights[:, None])
    square.diagonal()[:-1] += 0.1 * len(x)
    found = torch.linalg.solve(square, wide.T @ (y * weights[:, None]))
    return found[:-1], found[-1]


def start(memory: Lm2, state: State, data: Data, head: OutputHead) -> State:
    """The state from which gradients go on."""
    m, s = len(data.questions), memory.options.slot_width
    _, sizes, directions = torch.linalg.svd(head.rows(head.tokens), full_matrices=False)
    project = directions[: s - m - 1].T / sizes[: s - m - 1] * len(head.tokens) ** 0.5
    place, rest = torch.zeros(s), torch.ones(s)
    place[:m], rest[:m] = 1.0, 0.0
    attend = (SHARP * s**0.5) ** 0.5  # of both queries and keys
    kind, code = whose_value(data, head, project)
    query, gate, bias = whose_question(data, *state["centre"])
    out = torch.zeros(s, len(project))
    out[m] = 2 * F.normalize(head.rows(data.told.targets[0, :1])[0] @ directions.T / sizes**2 @ directions, dim=0)
    out[m + 1 :] = project.T / project.norm(dim=0).pow(2).mean().sqrt()
    gates: State = {}
    for name, sign in (("input", 1), ("forget", -1)):
        opened = torch.zeros(s, s)
        opened[:m, m:] = sign * 2.4 * OPEN
        gates |= {f"{name}_gate": opened, f"{name}_bias": torch.full((s,), -sign * OPEN)}
    return state | gates | {
        "write_query": torch.diag(place) * attend,
        "write_key": F.pad(kind * attend, (0, s - m)),
        "write_value": torch.cat([kind, 2 * kind.sum(1, keepdim=True), code], 1),
        "read_query": F.pad(query * attend, (0, s - m)),
        "read_key": torch.diag(place) * attend,
        "read_value": torch.diag(rest),
        "read_out": out * LOUD * data.told.h[:, data.at].norm(dim=-1).mean() / state["centre"][1],
        "gate": 8 * gate,
        "gate_bias": 8 * bias - 4,
    }  # fmt: skip


def whose_value(data: Data, head: OutputHead, project: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """From a state that is written: which question's value its token is [D, M], and the token's code [D, C]."""
    own = data.turns.live > 0
    is_value = torch.zeros(*own.shape, len(data.questions))
    is_value[np.arange(len(data.slot)), data.place, data.slot] = 1.0
    is_value, x = is_value[own], data.turns.x[own]
    tokens = torch.tensor([t for some in data.turns.tokens for t in some])
    kind, _ = ridge(x, is_value, 1 + 10 * is_value.sum(1))
    code, _ = ridge(x, head.rows(tokens) @ project / 2, 1 + 20 * is_value.sum(1))
    return kind, code


def whose_question(data: Data, centre: torch.Tensor, deviation: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """From a state of a reply: whose question it answers [D, M]; whether it does, up to the value: [D, 1] and bias."""
    replies = [(r.h[r.targets != IGNORED] - centre) / deviation for r in (data.told, data.own)]
    up_to = torch.zeros(*data.told.targets.shape, len(data.questions))
    for i in range(len(data.questions)):
        up_to[i * PASTS : (i + 1) * PASTS, : data.at + 1, i] = 1.0
    up_to = torch.cat([up_to[data.told.targets != IGNORED], torch.zeros(len(replies[1]), len(data.questions))])
    query, _ = ridge(torch.cat(replies), up_to)
    return query, *ridge(torch.cat(replies), up_to.sum(1, keepdim=True))


# gradients --------------------------------------------------------------------------------------------------------
class Trainer:
    """Steps on made conversations. `params` are lm2's own tensors."""

    def __init__(self, adapter: Adapter, memory: Lm2, state: State, data: Data, seed: int, candidates: int) -> None:
        self.ops, self.memory, self.data, self.rng = adapter.ops, memory, data, random.Random(seed)
        some = torch.tensor(self.rng.sample(range(adapter.shape.vocab), min(candidates, adapter.shape.vocab)))
        said = torch.tensor([t for tokens in data.turns.tokens for t in tokens])
        right = [replies.targets[replies.targets != IGNORED] for replies in (data.told, data.own)]
        self.head = OutputHead(adapter, torch.cat([some, said, *right]))
        self.state = start(memory, state, data, self.head)
        code = len(data.questions) + 1  # the first number of it
        self.free = {name: torch.ones_like(self.state[name]) for name in TRAINED}
        for name in ("slots", "write_query", "read_key", "read_query", "write_key", "write_value"):
            self.free[name][:, code:] = 0.0
        for name in ("write_query", "read_key", "input_gate", "forget_gate", "read_out"):
            self.free[name][code:] = 0.0
        self.free["read_out"][: code - 1] = 0.0
        self.params = {name: self.state[name].clone().requires_grad_() for name in TRAINED}

    def conversations(self, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Turns [count, t], all of as many facts; which fact is asked for, and which question none was told of."""
        facts, others = self.rng.choice(MIXES)
        turns, asked, untold = [], [], []
        for _ in range(count):
            slots = self.rng.sample(range(len(self.data.facts)), facts + 1)
            told = [int(self.rng.choice(self.data.facts[m])) for m in slots[:facts]]
            turns.append(told + [int(i) for i in self.rng.choices(self.data.others, k=others)])
            self.rng.shuffle(turns[-1])
            asked.append(told[0])
            untold.append(slots[facts])
        return np.array(turns), np.array(asked), np.array(untold)

    def slots_after(self, state: State, turns: np.ndarray) -> torch.Tensor:
        slots = state["slots"].expand(len(turns), -1, -1)
        for said in torch.as_tensor(turns).T:
            live = self.data.turns.live[said]
            longest = int(live.sum(1).max())
            slots, _ = self.memory.written(self.ops, state, slots, self.data.turns.x[said, :longest], live[:, :longest])
        return slots

    def losses(self, count: int) -> dict[str, torch.Tensor]:
        """Of the values asked for; of the tokens before them; how far all else is from what it was: what follows a
        value, and the model's own replies to what was not told and to other things; and of the output gate, which is
        to be open up to the value and shut elsewhere."""
        data, state = self.data, self.state | self.params
        turns, asked, untold = self.conversations(count)
        slots = self.slots_after(state, turns)
        own = np.array([self.rng.randrange(PASTS) for _ in asked]) + PASTS * data.slot[asked]
        h = self.memory.changed(self.ops, state, slots, data.told.h[own])
        values = self.head.losses(h[:, data.at], data.value[asked])
        some = count // 3
        words = self.head.losses(h[:some, : data.at].flatten(0, 1), data.told.targets[own[:some], : data.at].flatten())
        # what is to stay: the rest of these replies, and replies that are the model's own
        other = np.array([self.rng.randrange(len(data.facts), len(data.own.h)) for _ in range(count)])
        other[: count // 8] = untold[: count // 8]
        after = self.memory.changed(self.ops, state, slots, data.own.h[other])
        there, rest = data.own.targets[other] != IGNORED, data.told.targets[own[:some], data.at + 1 :] != IGNORED
        now = torch.cat([after[there], h[:some, data.at + 1 :][rest]])
        was = torch.cat([data.own.h[other][there], data.told.h[own[:some], data.at + 1 :][rest]])
        with torch.no_grad():
            wanted = F.log_softmax(self.head.norm(was) @ self.head.weight.T, -1)
        found = F.log_softmax(self.head.norm(now) @ self.head.weight.T, -1)
        kept = F.kl_div(found, wanted, log_target=True, reduction="batchmean")
        strange = other >= len(data.questions)
        shut = [data.own.h[other[strange]][there[strange]], data.told.h[own[:some], data.at + 1 :][rest]]
        shut.append(data.own.before[self.rng.sample(range(len(data.own.before)), 8 * count)])
        gate = F.softplus(-self.gates(state, data.told.h[own, : data.at + 1])).mean()
        gate = gate + F.softplus(self.gates(state, torch.cat(shut))).mean()
        return {"value": values.mean(), "words": words.mean(), "kept": kept, "gate": gate}

    def gates(self, state: State, h: torch.Tensor) -> torch.Tensor:
        """The logits of the output gate."""
        return self.memory.standard(self.ops, state, h) @ state["gate"] + state["gate_bias"]

    def gradients(self, count: int) -> dict[str, float]:
        """Losses; their gradients are in `params`, but for what reads or writes the code."""
        losses = self.losses(count)
        sum(WEIGHTS[name] * loss for name, loss in losses.items()).backward()
        for name, p in self.params.items():
            assert p.grad is not None
            p.grad *= self.free[name]
        return {name: loss.item() for name, loss in losses.items()}

    def now(self) -> State:
        return self.state | {name: p.detach().clone() for name, p in self.params.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="train.jsonl of scripts.lm2_data")
    parser.add_argument("--out", type=Path, required=True, help="memory file; written every --every steps")
    parser.add_argument("--model", default=Config.model)
    parser.add_argument("--set", nargs="*", default=[], help="options of lm2, name=value")
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--batch", type=int, default=48, help="conversations in a step")
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--clip", type=float, default=1.0, help="largest global norm of the gradients")
    parser.add_argument("--candidates", type=int, default=3000, help="other tokens of the head in the loss, at random")
    parser.add_argument("--kept", type=int, default=1200, help="other questions whose replies are to stay")
    parser.add_argument("--every", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    rows = exact_match.read(args.data)
    counts = Counter(row.question for row in rows if row.category != "text")
    if (fewest := min(counts.values(), default=0)) < PASTS:
        parser.error(f"of each question {PASTS} facts are needed, and of one there are {fewest}; give more --data")
    options = OPTIONS | {"memory_slots": len(counts)} | parse_settings(args.set)
    config = Config(model=args.model, dtype="float32", threads=1, backend="torch", memory="lm2", options=options)
    torch.set_num_threads(1)
    adapter = runtime.load_adapter(config)
    mind, begun = Mind(adapter, runtime.build_memory(config)), time.perf_counter()
    memory = mind.memory
    assert isinstance(memory, Lm2)
    with torch.no_grad():
        data = Data(mind, memory, mind.knowledge.state, rows, random.Random(args.seed), args.kept)
        trainer = Trainer(adapter, memory, mind.knowledge.state, data, args.seed, args.candidates)
    print(f"states read in {time.perf_counter() - begun:.0f} s", flush=True)
    optimizer = torch.optim.AdamW(trainer.params.values(), args.lr, betas=(0.9, 0.99), weight_decay=0.0)
    rate = lambda step: min(1.0, (step + 1) / 50) * (0.05 + 0.475 * (1 + math.cos(math.pi * step / args.steps)))  # noqa: E731
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
    lately: list[dict[str, float]] = []
    for step in range(args.steps + 1):
        if step % args.every == 0 or step == args.steps:
            mind.commit(Knowledge(trainer.now()))
            mind.save(args.out, {"training": {"data": args.data.name, "steps": step, "seed": args.seed}})
            means = {name: round(float(np.mean([row[name] for row in lately])), 3) for name in (lately or [{}])[0]}
            print(f"step {step}, {time.perf_counter() - begun:.0f} s: {means}", flush=True)
            lately.clear()
        if step < args.steps:
            optimizer.zero_grad()
            lately.append(trainer.gradients(args.batch))
            torch.nn.utils.clip_grad_norm_(trainer.params.values(), args.clip)
            optimizer.step()
            schedule.step()
    mind.detach()


if __name__ == "__main__":
    main()
