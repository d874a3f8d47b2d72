"""Escape payloads: what a hostile model, file name or header may send to a terminal. Families x terminators x cuts."""

from __future__ import annotations

import itertools

ESC, BEL, ST, ST8 = "\x1b", "\x07", "\x1b\\", "\x9c"

_STRINGS = {  # introducers, payloads
    "osc": ((ESC + "]", "\x9d"), (
        "0;owned", "2;owned", "7;file://h/p", "8;;http://evil.example", "8;id=1;file:///etc/passwd", "52;c;cm0gLXJm",
        "52;p;?", "4;1;rgb:ff/00/00", "10;?", "50;font", "777;notify;a;b", "1337;File=name=eA==;inline=1:eA==", "133;A",
        "",
    )),
    "dcs": ((ESC + "P", "\x90"), ("q#0;2;0;0;0#0~~@@", "$qm", "+q544e", "1$r0m", "tmux;x")),
    "sos": ((ESC + "X", "\x98"), ("hidden",)),
    "pm": ((ESC + "^", "\x9e"), ("hidden",)),
    "apc": ((ESC + "_", "\x9f"), ("Ga=T,f=100;AAAA", "hidden")),
}  # fmt: skip
_CSI = (
    "m", "0m", "31;1m", "38;2;255;0;0m", "38:2::255:0:0m", "2J", "3J", "H", "1;1H", "10A", "5B", "K", "?25l", "?1049h",
    "?2004l", "?1000;1006h", "6n", "c", ">c", "=c", "21t", "8;1;1t", "!p", " q", "4 q", "1$r", "61\"p", "?5$p", ">4;2m",
    "<u", "20l", "4h", "s", "u", "5i", "4i", "0;0r", "?7l", "1'|", "200~", "201~",
)  # fmt: skip
_TWO_BYTE = ("c", "7", "8", "=", ">", "D", "E", "M", "H", "Z", "#8", "(0", ")B", "%G", "%@", " F", " G",
              "n", "o", "l", "|", "}", "~")  # fmt: skip
_CONTROLS = [chr(c) for c in (*range(0x09), *range(0x0B, 0x20), *range(0x7F, 0xA0))]
_INVISIBLE = (
    *"\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200b\u200e\u200f\u061c\u2060\u2063\ufeff\u00ad\u034f\u180e\u3164",
    "\u2028", "\u2029", "\ud800", "\udfff", "\ud83d\ude00", "\ufffe", "\uffff", "\ufdd0", "\U0001ffff", "\U000e0001",
    "\U000e0041\U000e0042\U000e007f", "\u200d\u200c\u200d\u200c", "\ufe00\ufe01\U000e0100\U000e01ef",
    "user\u202etxt.exe",
)  # fmt: skip
_MARKUP = (
    "[red]x[/red]", "[link=http://evil.example]x[/link]", "[/]", "[bold", "\\[red]x", "[@click=app.quit]x[/]",
    ":skull:",
)  # fmt: skip
_NESTED = (
    ESC + "[" + ESC + "[31m", ESC + ESC + "[31m", ESC + "]0;a" + ESC + "]52;c;YQ==" + BEL,
    ESC + "[3" + ESC + "]0;x" + BEL + "1m",
    ESC + "Ptmux;" + ESC + ESC + "]52;c;YQ==" + BEL + ST, ESC + "]8;;http://a" + ST + "link" + ESC + "]8;;" + ST,
    ESC + "[31\x18m", ESC + "[31\x1am", ESC + "]0;x\x18y", "\x9b31m\x9d0;x\x9c", ESC + "[\x07m", ESC + "\x9b31m",
    ESC + "[3\n1m", "&#27;]52;c;YQ==&#7;", "&#x9b;31m", "&#x202e;abc",
    "\\x1b[31m", "\r\x1b[2Krewritten", "a\rb", "a\b\b\bxyz", "\r\r\n",
    ESC + "]0;" + "A" * 300, ESC + "[" + "1;" * 200 + "m", ESC + "P" + "q" * 300 + ST,
    ESC + "]52;c;" + "QUFB" * 80 + BEL,
)  # fmt: skip


def _strings(terminators: tuple[str, ...]) -> list[str]:
    return [
        start + body + end
        for starts, bodies in _STRINGS.values()
        for start, body, end in itertools.product(starts, bodies, terminators)
    ]


def terminated() -> list[str]:
    """Payloads of which nothing at all may be left: whole sequences, single controls."""
    csi = [start + body for start in (ESC + "[", "\x9b") for body in _CSI]
    rest = [ESC + body for body in _TWO_BYTE] + [ESC + "NA", ESC + "OP", "\x8eA", "\x8fP"]
    breaks = ("\r", "\x1b", "\x8e", "\x8f", "\x90", "\x98", "\x9b", "\x9d", "\x9e", "\x9f")
    return [*_strings((BEL, ST, ST8)), *csi, *rest, *(c for c in _CONTROLS if c not in breaks)]


def payloads() -> list[str]:
    """At least 300 distinct hostile strings, among them each family cut short at every length up to 12."""
    whole = terminated()
    cuts = [p[:n] for p in _strings(("",)) + [ESC + "[" + b for b in _CSI] for n in range(1, min(len(p), 12) + 1)]
    return list(dict.fromkeys([*whole, *_CONTROLS, *cuts, *_INVISIBLE, *_MARKUP, *_NESTED]))
