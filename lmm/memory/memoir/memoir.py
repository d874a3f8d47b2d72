"""`memoir`: edits in a residual matrix, each confined to the columns that its prompt's fingerprint picks.

The paper: Wang, Qin, Dimitriadis, Favero and Frossard, "MEMOIR: Lifelong Model Editing with Minimal Overwrite and
Informed Retention for LLMs", 2025, arXiv:2506.07899. F width of the MLP, D of the model, T tokens.

    y = W0 x + W_m (m * x)       at one late `mlp.down_proj`, x [T, F], W_m [D, F] zero when fresh
    f = mean_t x_t - background  fingerprint of a prompt, [F]; background: its mean over general prompts
    m = permute(top-k |f|)       mask, [F], k ones; the permutation is fixed and seeded (`tophash.py`)

*Edit*: W_m learns answer and end of turn from the prompt and from `prefixes` copies with a sentence before it, all
under the clean prompt's mask m_i. Gradients reach only its k columns. The mask is stored.
*Read*: m is taken once per reply from the untouched model. Overlap |m and m_i| / k; if the best is at least tau, the
*stored* mask m_i is used for the whole reply, else the residual is zero and the model is bitwise itself.

State: `permutation` [F], `background` [V, F], `fingerprints` [M, V, F] bool, `owner` [M] (whose: a lesson has one for
its prompt, which is its mask, and one for each other wording it was taught in), `columns` [C] and `weights` [C, D]: the
columns of W_m that were ever written, float16.

Deviations, with their reasons (figures: docs/memoir.md); `--preset paper` undoes them as far as it can be done:
- `views=both`: beside the mean over what the user wrote (what is it about?) a second fingerprint of the last prompt
  token (what is asked of it?); both must overlap. On same-subject questions the mean alone cannot say no.
- `span=reply`: the residual acts from the last prompt token on, not on the whole prompt. Then what precedes is read
  once for all steps, and a conversation's cache stays valid.
- Means are over the user's own tokens: the chat template's are the same in every prompt. The background is the mean
  over the general questions of `contrast.PLAIN`, 24 instead of 100.
- `margin`: the right token's logit is lowered in the loss, so an edit is learned with room for what later ones disturb.
- Adam instead of SGD, whose learning rate would have to be found for each model. `optimizer=unit` is the other way
  out: steps along the gradient, of a set length.
- `prefixes=0`: copies with a sentence before the prompt changed nothing here but the price.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from lmm.adapters.ops import Array
from lmm.errors import LearningError, StateError, UsageError
from lmm.lesson import Knowledge, Lesson, State
from lmm.memory.base import LearnReport, Memory, Prompt, Recall, UserMessage
from lmm.memory.batch import padded
from lmm.memory.contrast import PLAIN
from lmm.memory.memoir.edit import MaskedLesson, train
from lmm.memory.memoir.options import PAPER, VIEWS, MemoirOptions, environment
from lmm.memory.memoir.tophash import check_permutation, overlaps, permutation, top_hash
from lmm.memory.states import number_of, owners
from lmm.text.fold import fold
from lmm.text.sanitize import listed

if TYPE_CHECKING:
    from lmm.adapters.base import Adapter, Cache, Site, TapContext
    from lmm.adapters.ops import Ops

MAX_WORDINGS = 8  # other wordings of a lesson that are learned with it
BATCH = 16  # prompts that are fingerprinted together
REHEARSED = 16  # lessons that are learned again with those that are consolidated


class Memoir(Memory):
    name = "memoir"
    summary = "a residual matrix, each edit in the columns its prompt's fingerprint picks"
    Options = MemoirOptions
    presets: ClassVar = {"paper": PAPER}

    def __init__(self, options: Any = None) -> None:
        super().__init__(options)
        self._kept: tuple[State, dict[str, Any]] = ({}, {})
        self._scaffold: tuple[Adapter, list[int], Cache] | None = None

    @classmethod
    def build_options(cls, values: Mapping[str, Any]) -> Any:
        """As in the base class; what is not given, the variables of ENVIRONMENT give."""
        return super().build_options(environment() | dict(values))

    def sites(self, adapter: Adapter) -> tuple[Site, ...]:
        layer = round(self.options.depth * adapter.shape.layers) if adapter.layer is None else adapter.layer
        return (adapter.site(min(layer, adapter.shape.layers - 1), "mlp.down_proj"),)

    def columns_of(self, adapter: Adapter) -> int:
        """k: how many columns a mask has. Raises UsageError where the model has fewer."""
        width, k = adapter.shape.mlp_width, self.options.k
        if k >= 1 and k > width:
            raise UsageError(f"memory 'memoir': k is {k:g}, but this model's MLP has {width} columns; set k lower")
        return int(k) if k >= 1 else max(1, round(k * width))

    def fresh(self, adapter: Adapter, seed: int = 0) -> State:
        ops, shape, views = adapter.ops, adapter.shape, VIEWS[self.options.views]
        return {
            "permutation": ops.asarray(permutation(shape.mlp_width, self.options.seed), "int64"),
            "background": ops.zeros((0, shape.mlp_width)),
            "fingerprints": ops.asarray(np.zeros((0, views, shape.mlp_width), bool), "bool"),
            "owner": ops.asarray(np.zeros(0, np.int64), "int64"),
            "columns": ops.asarray(np.zeros(0, np.int64), "int64"),
            "weights": ops.asarray(np.zeros((0, shape.width), np.float16), "float16"),
        }

    # fingerprints --------------------------------------------------------------------------------------------
    def features(self, texts: Sequence[str], adapter: Adapter) -> np.ndarray:
        """What enters the site in the untouched model, pooled: [B, V, F]; NaN for a text without tokens."""
        return np.concatenate([self._features(texts[i : i + BATCH], adapter) for i in range(0, len(texts), BATCH)])

    def _features(self, texts: Sequence[str], adapter: Adapter) -> np.ndarray:
        ops, said = adapter.ops, [adapter.format.message_tokens(text, reply=True) for text in texts]
        lead, cache = self._read_scaffold(adapter)
        if any(tokens[: len(lead)] != lead or any(content[: len(lead)]) for tokens, content in said):
            lead, cache = [], adapter.new_cache()
        rows = [tokens[len(lead) :] for tokens, _ in said]
        tokens = padded(rows, adapter.format.end_of_turn)
        weights = np.zeros((len(rows), VIEWS[self.options.views], tokens.shape[1]), np.float32)
        for b, (row, (_, content)) in enumerate(zip(rows, said, strict=True)):
            mine = np.asarray(content[len(lead) :], np.float32)
            weights[b, 0, : len(row)] = mine / mine.sum() if mine.any() else np.nan
            weights[b, 1:, len(row) - 1] = 1.0
        x = adapter.features(tokens, self.sites(adapter)[0], adapter.select(cache, [0] * len(rows)))
        return ops.to_numpy(ops.einsum("bvt,btf->bvf", ops.asarray(weights), ops.float32(x)))

    def _read_scaffold(self, adapter: Adapter) -> tuple[list[int], Cache]:
        """The tokens before every user's first message, read once."""
        if self._scaffold is None or self._scaffold[0] is not adapter:
            said = [adapter.format.message_tokens(text, reply=True) for text in ("a", "7")]
            lead = said[0][0][: min(content.index(True) for _, content in said)]
            cache = adapter.new_cache()
            if lead:
                with adapter.quiet():
                    _, cache = adapter.forward(np.asarray([lead], np.int64), cache)
            self._scaffold = (adapter, lead, cache)
        return self._scaffold[1], self._scaffold[2]

    def fingerprints(self, state: State, texts: Sequence[str], adapter: Adapter) -> np.ndarray:
        """Masks [B, V, F] of prompts; no bit of one that has no tokens."""
        features = self.features(texts, adapter)
        known = np.isfinite(features).all(axis=(1, 2))
        background, where = (adapter.ops.to_numpy(state[name]) for name in ("background", "permutation"))
        masks = top_hash(np.nan_to_num(features) - background, self.columns_of(adapter), where)
        return masks & known[:, None, None]

    # reading -------------------------------------------------------------------------------------------------
    def on_prompt(
        self, state: State, lessons: Sequence[Lesson], prompts: Sequence[Prompt], adapter: Adapter
    ) -> Recall | None:
        if state["fingerprints"].shape[0] == 0:
            return None
        ops, kept = adapter.ops, self._host(state, adapter.ops)
        queries = self.fingerprints(state, [prompt.text for prompt in prompts], adapter)
        overlap = overlaps(queries, kept["fingerprints"], self.columns_of(adapter))
        # of equal ones the last taught counts
        best = overlap.shape[1] - 1 - overlap[:, ::-1].argmax(axis=1)
        strength, whose = overlap[np.arange(len(best)), best], kept["owner"][best]
        fires = strength >= self.options.tau
        if not fires.any():
            return None
        ids = owners(whose, lessons)
        fired = [[(i, float(s))] if f else [] for i, s, f in zip(ids, strength, fires, strict=True)]
        masks = kept["masks"][best] & fires[:, None]
        columns = masks[:, kept["columns"]].astype(np.float32)
        return Recall(fired, {"columns": ops.asarray(columns)})

    def _host(self, state: State, ops: Ops) -> dict[str, Any]:
        """The state's parts as they are read, made once for each state. `masks` [M, F]: that of each row's lesson."""
        if self._kept[0] is not state:
            found = {name: ops.to_numpy(state[name]) for name in ("fingerprints", "owner", "columns")}
            first = {int(number): i for i, number in reversed(list(enumerate(found["owner"])))}
            found["masks"] = found["fingerprints"][[first[int(n)] for n in found["owner"]], 0]
            found["weights"] = ops.float32(state["weights"])
            found["fingerprints"] = found["fingerprints"].astype(np.float32)
            self._kept = (state, found)
        return self._kept[1]

    def rewrite(
        self, ops: Ops, state: State, recall: Recall | None, x_in: Array, x_out: Array, context: TapContext
    ) -> Array:
        if recall is None:
            return x_out
        live = context.positions >= (recall.start if self.options.span == "reply" else 0)
        if not live.any():
            return x_out
        masks = recall.arrays["columns"]  # [B, C]
        x = ops.take(x_in, state["columns"], 2)
        delta = (ops.float32(x) * masks[:, None]) @ self._host(state, ops)["weights"]
        if not live.all():
            delta = delta * ops.asarray(live.astype(np.float32)[None, :, None])
        return x_out + ops.cast_like(delta, x_out)

    # learning ------------------------------------------------------------------------------------------------
    def learn(
        self, known: Knowledge, lesson: Lesson, adapter: Adapter, message: UserMessage | None, report: LearnReport
    ) -> Knowledge:
        """A lesson takes the place of those with its very question: it has their mask, and writes over what they
        wrote."""
        old = known.superseded(lesson)
        state = self._without(known.state, [x.id for x in old], adapter.ops)
        return known.taught(self.learn_together(state, [lesson], adapter, report), lesson, old)

    def learn_together(self, state: State, lessons: Sequence[Lesson], adapter: Adapter, report: LearnReport) -> State:
        """Lessons learned in one batch, each under its own mask; what was known of the same lessons is replaced."""
        ops, site = adapter.ops, self.sites(adapter)[0]
        for lesson in lessons:
            self.needs_question_and_answer(lesson)
        if state["background"].shape[0] == 0:
            state = {**state, "background": ops.asarray(self.features(PLAIN, adapter).mean(axis=0))}
        arrays = {name: ops.to_numpy(array) for name, array in state.items()}
        wordings = [[x.prompt, *x.wordings[:MAX_WORDINGS]] for x in lessons]
        found = self.fingerprints(state, [text for texts in wordings for text in texts], adapter)
        if not found.any(axis=(1, 2)).all():
            raise LearningError("a question that has no tokens cannot be learned")
        numbers = [number_of(x.id) for x in lessons]
        keep = ~np.isin(arrays["owner"], numbers)
        if self.options.max_edits and len(set(arrays["owner"][keep].tolist())) + len(lessons) > self.options.max_edits:
            raise LearningError(
                f"the memory holds {self.options.max_edits} lessons at most (max_edits); forget one, or set it higher"
            )
        starts = np.cumsum([0, *map(len, wordings)])
        masked = [
            MaskedLesson(texts, lesson.answer, np.flatnonzero(found[start, 0]))
            for texts, lesson, start in zip(wordings, lessons, starts, strict=False)
        ]
        columns, weights = train(adapter, site, self.options, masked, arrays["columns"], arrays["weights"], report)
        return {
            **state,
            "fingerprints": ops.asarray(np.concatenate([arrays["fingerprints"][keep], found]), "bool"),
            "owner": ops.asarray(
                np.concatenate([arrays["owner"][keep], np.repeat(numbers, [len(x) for x in wordings])]), "int64"
            ),
            "columns": ops.asarray(columns, "int64"),
            "weights": ops.asarray(weights, "float16"),
        }

    @staticmethod
    def _without(state: State, ids: Sequence[str], ops: Ops) -> State:
        """No fingerprint of these lessons: nothing fires for them, what they wrote stays in the shared columns."""
        keep = ~np.isin(ops.to_numpy(state["owner"]), [number_of(i) for i in ids])
        rows = ops.asarray(np.flatnonzero(keep), "int64")
        return {**state, "fingerprints": ops.take(state["fingerprints"], rows), "owner": ops.take(state["owner"], rows)}

    def consolidate(self, known: Knowledge, adapter: Adapter, report: LearnReport) -> tuple[Knowledge, int]:
        """Lessons that fire for each other's questions are learned anew, together; those with the same answer become
        one, which keeps all their questions. The latest others are rehearsed, as they share columns."""
        state, lessons, groups = known.state, known.lessons, self._alike(known, adapter)
        for group in groups:
            by_answer: dict[str, list[Lesson]] = {}
            for lesson in group:
                by_answer.setdefault(fold(lesson.answer), []).append(lesson)
            merged = {same[-1].id: _merged(same) for same in by_answer.values()}
            gone = {x.id for x in group} - merged.keys()
            state = self._without(state, [x.id for x in group], adapter.ops)
            lessons = tuple(merged.get(x.id, x) for x in lessons if x.id not in gone)
            others = [x for x in lessons if x.id not in merged and x.prompt]
            state = self.learn_together(state, [*merged.values(), *others[-REHEARSED:]], adapter, report)
        return Knowledge(state, lessons), len(groups)

    def _alike(self, known: Knowledge, adapter: Adapter) -> list[list[Lesson]]:
        """Sets of at least two lessons, each of which fires for a question of another in its set."""
        kept = self._host(known.state, adapter.ops)
        overlap = overlaps(kept["fingerprints"], kept["fingerprints"], self.columns_of(adapter))
        by_number = {number_of(x.id): x for x in known.lessons}
        leader = {int(n): int(n) for n in kept["owner"]}
        for i, j in np.argwhere(overlap >= self.options.tau):
            one, other = leader[int(kept["owner"][i])], leader[int(kept["owner"][j])]
            leader = {n: one if first == other else first for n, first in leader.items()}
        groups: dict[int, list[Lesson]] = {}
        for number, lesson in by_number.items():
            if number in leader:
                groups.setdefault(leader[number], []).append(lesson)
        return [group for group in groups.values() if len(group) > 1]

    def forget(self, state: State, lesson_id: str) -> State:
        raise LearningError(
            "memoir writes its lessons into shared columns, where what one of them wrote cannot be told from the rest; "
            "/undo steps back in time, and: lmm memory migrate FILE --without ID teaches the others anew"
        )

    # files ---------------------------------------------------------------------------------------------------
    def check_state(self, arrays: dict[str, Any], lessons: Sequence[Lesson], adapter: Adapter) -> None:
        super().check_state(arrays, lessons, adapter)
        problems = []
        try:
            check_permutation(np.asarray(arrays["permutation"]), adapter.shape.mlp_width)
        except StateError as error:
            problems.append(str(error))
        columns, masks = np.asarray(arrays["columns"]), np.asarray(arrays["fingerprints"])
        width, k = adapter.shape.mlp_width, self.columns_of(adapter)
        if len(columns) and (columns.min() < 0 or columns.max() >= width or (np.diff(columns) <= 0).any()):
            problems.append("the columns do not rise within the matrix")
        if len(columns) != len(arrays["weights"]):
            problems.append(f"{len(columns)} columns, but weights of {len(arrays['weights'])}")
        if len(masks) != len(arrays["owner"]):
            problems.append(f"{len(masks)} fingerprints, but owners of {len(arrays['owner'])}")
        if len(masks) and (masks.sum(axis=2) != k).any():
            problems.append(f"a fingerprint does not have k = {k} columns")
        if len(masks) and len(arrays["background"]) != masks.shape[1]:
            problems.append("no background for every fingerprint")
        if problems:
            raise StateError(f"the file does not fit memory 'memoir' with these options: {listed(problems)}")


def _merged(lessons: Sequence[Lesson]) -> Lesson:
    """Lessons with one answer as one: the last, asked for also as the others are."""
    last = lessons[-1]
    wordings = dict.fromkeys(text for x in lessons for text in (x.prompt, *x.wordings))
    wordings.pop(last.prompt)
    return replace(last, wordings=tuple(wordings))
