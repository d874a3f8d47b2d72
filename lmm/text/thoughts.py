"""What a model says to itself before it answers: `<think> ... </think>`, apart from the answer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

OPEN, CLOSE = "<think>", "</think>"


def answer_of(reply: str) -> str:
    """A reply without its thoughts. Where these have no end, they are the reply: nothing that was said is lost."""
    _, closed, answer = reply.rpartition(CLOSE)
    return answer.lstrip() if closed else reply.replace(OPEN, "", 1).lstrip() if _begins(reply) else reply


def parted(chunks: Iterable[str], opened: bool) -> Iterator[tuple[bool, str]]:
    """The chunks of a reply as they come, each with whether it is a thought. `opened`: the prompt has begun one."""
    thought: bool | None = True if opened else None  # None: not known yet
    held = ""
    for chunk in chunks:
        held += chunk
        if thought is None:
            if OPEN.startswith(held.lstrip()):
                continue
            thought = _begins(held)
            held = held.replace(OPEN, "", 1) if thought else held
        if thought:
            said, closed, rest = held.partition(CLOSE)
            if closed:
                yield True, said
                thought, held = False, rest.lstrip()
            else:  # the last characters may be the beginning of the end
                keep = next((n for n in range(len(CLOSE) - 1, 0, -1) if held.endswith(CLOSE[:n])), 0)
                said, held = held[: len(held) - keep], held[len(held) - keep :]
                if said:
                    yield True, said
                continue
        if held:
            yield False, held
            held = ""
    if held:
        yield bool(thought), held


def quoted(parts: Iterable[tuple[bool, str]]) -> Iterator[str]:
    """Thoughts as a quotation in Markdown, and the answer below."""
    before = False
    for thought, text in parts:
        if thought:
            text = text if before else text.lstrip()
            if text:
                yield ("" if before else "> ") + text.replace("\n", "\n> ")
                before = True
        else:
            text = text if not before else text.lstrip()
            if text:
                yield ("\n\n" if before else "") + text
                before = False


def unthought(parts: Iterable[tuple[bool, str]]) -> Iterator[str]:
    """The answer alone; thoughts that have no end are the answer."""
    thoughts, answered = "", False
    for thought, text in parts:
        thoughts += text if thought and not answered else ""
        if not thought:
            text = text if answered else text.lstrip()
            answered = answered or bool(text)
            yield text
    if not answered and thoughts:
        yield thoughts.lstrip()


def _begins(reply: str) -> bool:
    return reply.lstrip().startswith(OPEN)
