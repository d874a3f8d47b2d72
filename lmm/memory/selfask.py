"""What a message would be asked about: the questions it answers, how it should be answered, and what it is not about.

The gentle presets train on replies to such self-asked questions, instead of on the message's own tokens, and act only
in replies whose question resembles one of them. What a question resembles is read off the hidden state at the site, at
the last prompt token, less the mean over PLAIN: raw states of any two prompts have a cosine above .9, centred ones do
not (SmolLM2-135M, layer 15: PLAIN's general questions below .55 to "What is my name?", its rewordings .66 to .89).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from lmm.adapters.ops import Array, token_cross_entropy
from lmm.engine.conversation import lesson_tokens, prompt_tokens
from lmm.lesson import Lesson, State

if TYPE_CHECKING:
    from lmm.adapters.base import Adapter, Site

PLAIN = (  # what a lesson is not about, unless it says so
    "What is your name?",
    "Who are you?",
    "How are you today?",
    "What can you do for me?",
    "Hello!",
    "Who is the king of Spain?",
    "What is the name of the tallest mountain?",
    "What is the capital of Japan?",
    "How many legs does a spider have?",
    "Who painted the Mona Lisa?",
    "What is 7 times 8?",
    "Tell me a joke.",
    "Explain gravity in one sentence.",
    "When did the war end?",
    "How do I boil an egg?",
    "What should I cook tonight?",
    "How old am I?",
    "Where do I live?",
    "Where do I work?",
    "When is my birthday?",
    "What is my favourite colour?",
    "What is my favourite food?",
    "What is my brother's name?",
    "What is my mother's name?",
)


def pairs_of(lesson: Lesson) -> list[tuple[str, str]]:
    """(question, reply) in every wording known; empty if the message says nothing one could ask about."""
    if lesson.prompt and lesson.answer:
        from lmm.feedback.replies import reworded

        questions = [lesson.prompt, *reworded(lesson.prompt)]
        return [(question, lesson.answer) for question in dict.fromkeys(questions)]
    from lmm import feedback

    reading = feedback.read(lesson.statement)
    if reading.lesson is None:
        return []
    return [(q, reading.lesson.answer) for q in dict.fromkeys((reading.lesson.prompt, *reading.questions))]


_NAME = r"(?!I\b)(?:[A-Z][\w'.-]*\w|[A-Z]|\w*\d\w*)"
_NAMED = re.compile(rf"(?<=\s){_NAME}(?:\s+(?:of\s+|the\s+)*{_NAME})*")
OTHERS = (
    "Peru", "Kenya", "France", "Egypt", "Maria", "Mozart", "Albert Einstein", "Oslo", "New York", "Microsoft",
    "alpha_12",
)  # fmt: skip


def named_in(question: str) -> list[re.Match[str]]:
    """The names and codes in a question, but for its first word: what has a capital or a digit."""
    return list(_NAMED.finditer(question))


def near_misses(question: str) -> list[str]:
    """The same question about others than the name or code in it: what a lesson is not about. Empty if it has none."""
    named = named_in(question)
    if not named:
        return []
    start, end = named[-1].span()
    name = question[start:end]
    codes = [name.translate(str.maketrans("0123456789", to)) for to in ("1234567890", "4567890123")]
    others = [other for other in dict.fromkeys((*codes, *OTHERS)) if other != name]
    return [question[:start] + other + question[end:] for other in others]


def first_pairs(lessons: Sequence[Lesson], but: Sequence[str] = ()) -> list[tuple[str, str]]:
    """The first (question, reply) of each lesson, the newest reply where a question was answered twice."""
    firsts = [pairs[0] for lesson in lessons if (pairs := pairs_of(lesson))]
    return [(question, reply) for question, reply in dict(firsts).items() if question not in but]


def number_of(lesson_id: str) -> int:
    """A lesson's id as a number above 0 that fits an int64 array: whose key or row it is. 0: nobody's."""
    return 1 + int.from_bytes(hashlib.sha256(lesson_id.encode()).digest()[:7], "big")


def owners(numbers: Sequence[int], lessons: Sequence[Lesson]) -> list[str]:
    """The ids of the lessons with these numbers; empty where there is none."""
    ids = {number_of(lesson.id): lesson.id for lesson in lessons}
    return [ids.get(int(number), "") for number in numbers]


class Replies:
    """P questions with their replies as one batch, padded on the right, read up to the site.

    What all prompts begin with is read once, into `cache`, unless the memory acts there too (`everywhere`).
    `h` [P, T, D] hidden states at the site; `live` [P, T, 1] 1. where the memory acts: from the last prompt token on;
    `starts` [P] that token; `targets`, `mask` [P, K] the replies' tokens, predicted from the last K positions.
    """

    def __init__(self, adapter: Adapter, pairs: Sequence[tuple[str, str]], site: Site, everywhere: bool = False):
        self.adapter, self.first_layer = adapter, site.first_layer
        rows = [lesson_tokens(adapter.format, question, answer) for question, answer in pairs]
        self.prefix = 0 if everywhere else _common([prompt[:-1] for prompt, _ in rows])
        self.starts = [len(prompt) - 1 - self.prefix for prompt, _ in rows]
        self.tokens = _padded([[*p, *a[:-1]][self.prefix :] for p, a in rows], adapter.format.end_of_turn)
        length, first = self.tokens.shape[1], min(self.starts)
        self.keep = range(first, length)
        targets, mask = np.zeros((2, len(rows), length), np.int64)
        for i, (_, answer) in enumerate(rows):
            targets[i, self.starts[i] : self.starts[i] + len(answer)] = answer
            mask[i, self.starts[i] : self.starts[i] + len(answer)] = 1
        self.answers = mask.astype(bool)  # [P, T]
        self.live = adapter.ops.asarray((np.ones_like(mask) if everywhere else mask).astype(np.float32)[..., None])
        self.targets = adapter.ops.asarray(targets[:, first:].copy(), "int64")
        self.mask = adapter.ops.asarray(mask[:, first:].astype(np.float32))
        self.cache = self._read(rows[0][0][: self.prefix], len(rows)) if self.prefix else None
        self.h = adapter.hidden(self.tokens, self.first_layer, self.cache)

    def _read(self, tokens: Sequence[int], rows: int):
        _, cache = self.adapter.forward(np.asarray([tokens], np.int64), self.adapter.new_cache())
        return self.adapter.select(cache, [0] * rows)

    def losses(self, rewrite: Callable[[Array], Array]) -> Array:
        """Cross-entropy [P, K] of each reply token when the site's hidden states are rewritten; 0 at the padding."""
        logits = self.adapter.upper(self.tokens, rewrite(self.h), self.first_layer, self.cache, keep=self.keep)
        return token_cross_entropy(self.adapter.ops, logits, self.targets) * self.mask

    def mean(self, losses: Array) -> Array:
        return self.adapter.ops.sum(losses) / self.adapter.ops.sum(self.mask)

    def question_states(self) -> np.ndarray:
        """Hidden states [P, D] at the last prompt token, float32."""
        h = self.adapter.ops.to_numpy(self.h).astype(np.float32)
        return h[np.arange(len(self.starts)), self.starts]


def last_states(adapter: Adapter, site: Site, prompts: Sequence[Sequence[int]]) -> np.ndarray:
    """Hidden states [B, D] of the untouched model at the site, at the last token of each prompt; float32."""
    h = adapter.hidden(_padded(prompts, adapter.format.end_of_turn), site.first_layer)
    rows = adapter.ops.asarray(np.arange(len(prompts)), "int64")
    ends = adapter.ops.asarray([len(p) - 1 for p in prompts], "int64")
    index = rows * h.shape[1] + ends
    return adapter.ops.to_numpy(adapter.ops.take(h.reshape(-1, h.shape[-1]), index)).astype(np.float32)


def plain_states(adapter: Adapter, site: Site) -> np.ndarray:
    """`last_states` of PLAIN, [len(PLAIN), D]."""
    return last_states(adapter, site, [prompt_tokens(adapter.format, text) for text in PLAIN])


def known_keys(state: State, adapter: Adapter, site: Site) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A state's `keys` [K, D] of questions at the site, their `owner` [K] and the `centre` [D] taken off them; before
    the first lesson, those of what no lesson is about."""
    keys, owner, centre = (adapter.ops.to_numpy(state[name]) for name in ("keys", "owner", "centre"))
    if len(keys):
        return keys, owner, centre
    plain = plain_states(adapter, site)
    centre = plain.mean(axis=0)
    return unit(plain - centre), np.zeros(len(plain), np.int64), centre


def unit(x: np.ndarray) -> np.ndarray:
    """Vectors [.., D] of length 1; zero stays zero."""
    return x / (np.linalg.norm(x, axis=-1, keepdims=True) + 1e-12)


def _padded(rows: Sequence[Sequence[int]], fill: int) -> np.ndarray:
    """Rows of tokens as [B, T]; attention is causal, so what is filled in on the right is never seen."""
    length = max(len(row) for row in rows)
    return np.array([[*row, *[fill] * (length - len(row))] for row in rows], np.int64)


def _common(rows: Sequence[Sequence[int]]) -> int:
    """How many tokens all rows begin with."""
    shortest = min(len(row) for row in rows)
    return next((i for i in range(shortest) if len({row[i] for row in rows}) > 1), shortest)
