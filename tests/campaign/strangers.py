"""What comes from strangers: hostile texts in every place."""

from __future__ import annotations

import random
import tempfile
from pathlib import Path

import payloads
import terminals

from campaign.program import STORE, Row, folder_with, run


def hostile(count: int, at_terminal: int) -> Row:
    """Texts that steer a terminal, in every place that text can come from, into pipes and pseudo-terminals, and the
    sanitiser with each of them cut in two at every place."""
    from lmm.text.sanitize import Cleaner, clean

    texts = payloads.payloads()
    chosen = random.Random(0).sample(texts, min(count, len(texts)))
    foreign = split = 0
    for text in texts[:: max(1, len(texts) // max(count, 1))]:
        for cut in range(len(text) + 1):
            cleaner = Cleaner()
            split += cleaner.feed(text[:cut]) + cleaner.feed(text[cut:]) != clean(text)
    for text in chosen:
        with folder_with() as folder:
            for out in _said_in_pipes(folder, text):
                foreign += sum(not _plain(char) for char in out)
    for text in chosen[:at_terminal]:
        with tempfile.TemporaryDirectory() as name:
            foreign += _foreign_at_terminal(Path(name), text)
    return (
        f"{len(chosen)} hostile texts in questions, lessons, logs, sessions, names and errors, into pipes; "
        f"{min(at_terminal, len(chosen))} at a terminal; every cut: foreign characters / cuts that matter",
        "0 / 0",
        f"{foreign} / {split}",
    )


def _plain(char: str) -> bool:
    seen = char.isprintable() or char.isspace()
    return char in "\n\t" or (seen and ord(char) >= 32 and not 0x7F <= ord(char) < 0xA0)


def _said_in_pipes(folder: Path, text: str) -> list[str]:
    word = text.replace("\0", "").encode(errors="surrogatepass").decode(errors="replace")
    line = " ".join(word.split()) or "x"
    runs = [
        run(folder, ["teach", f"What {word}?", f"It {word}."]),
        run(folder, ["chat"], f"What {line}?\n/teach {line} => {line}\n/why\n/lessons\n/{line}\n/forget {line}\n"),
        run(folder, ["ask", f"say {word}"]),
        run(folder, ["log", "show", "--all"]),
        run(folder, ["sessions"]),
        run(folder, ["memory", "show", f"{STORE}{word}"]),
        run(folder, ["chat", "--model", f"no{word}"]),
        run(folder, ["config", "set", f"key{word}", word]),
    ]
    return [part for ran in runs for part in (ran.out, ran.err)]


def _foreign_at_terminal(folder: Path, text: str) -> int:
    """Of what a text that is taught and said back may not leave: its own sequences."""
    import scripted

    scripted.REPLIES["hostile"] = text
    run(folder, ["teach", f"What {text}?".replace("\0", ""), f"It {text}.".replace("\0", "")])
    chat = terminals.Terminal(folder)
    chat.see("jotter: 1")
    chat.line("/lessons")
    chat.see("> /lessons")
    chat.line("/quit")
    chat.rest()
    own = text.encode(errors="replace")
    return int(len(own) > 2 and (b"\x1b" in own or b"\x9b" in own) and own in chat.raw)
