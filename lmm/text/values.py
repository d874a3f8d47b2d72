"""What a value is made of: a date, a time of day, a sum, a measure, a number, a name. "Friday at 14:40" is two.

By shape alone, of English, German, French, Spanish and Italian, and of any language what has digits.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_WEEKDAY = (
    r"(?:(?:mon|tues|wednes|thurs|fri|satur|sun)days?|(?:mon|diens|donners|frei|sams|sonn)tags?|mittwochs?|lundi|mardi"
    r"|mercredi|jeudi|vendredi|samedi|dimanche|lunes|martes|miércoles|jueves|viernes|sábado|domingo|lunedì|martedì"
    r"|mercoledì|giovedì|venerdì|sabato|domenica|(?:星期|周|礼拜)[一二三四五六日天])"
)
_MONTH = (
    r"(?:jan(?:uary|uar)?|feb(?:ruary|ruar)?|march|märz|mar|apr(?:il)?|may|mai|june?|juni|july?|juli|aug(?:ust)?|sept?(?:ember)?"
    r"|o[ck]t(?:ober)?|nov(?:ember)?|de[cz](?:ember)?|janvier|février|mars|avril|juin|juillet|août|septembre|octobre"
    r"|novembre|décembre|enero|febrero|marzo|abril|mayo|junio|julio|agosto|septiembre|octubre|noviembre|diciembre"
    r"|gennaio|febbraio|aprile|maggio|giugno|luglio|settembre|ottobre|dicembre)"
)
_NTH = r"\d{1,2}(?:st|nd|rd|th|er|\.)?"
_DATE = (
    rf"(?:(?:the )?{_NTH}(?: of| de| di)? {_MONTH}\b|\b{_MONTH} {_NTH}(?![\d:])|(?:the )?\d{{1,2}}(?:st|nd|rd|th)\b"
    r"|\d{1,2}月\d{1,2}[日号]|\d{4}-\d\d-\d\d|\d{1,2}\.\d{1,2}\.(?:\d{4})?)(?:,? \d{4}\b)?"
)
_POINT = r"\d{1,2}点(?:\d{1,2}分?|半)?"
_CLOCK = (
    r"(?:(?:half|quarter) (?:past|to) \w+|\d{1,2}(?:[:.]\d\d)? ?[ap]\.?m\b\.?|\d{1,2}:\d\d(?: Uhr)?|\d{1,2}h(?:\d\d)?\b"
    r"|\d{1,2}(?:\.\d\d)? Uhr|\bnoon\b|\bmidnight\b"
    rf"|{_POINT}"
    r"|(?:(?<=\bat )|(?<=\bum )|(?<=\bà )|(?<=\blas ))\d{1,2}(?:\.\d\d)?(?![\w%€$£]|[.,:]\d))"
)
_STREET = (
    r"\d+[a-z]? (?:[\w'’-]+ ){1,3}?(?:street|st|road|rd|lane|avenue|ave|drive|court|close|place|way|square|terrace"
    r"|crescent|gardens|grove|row|walk|hill|park|quay)\b|\w+(?:straße|strasse|str\.|weg|allee|gasse|platz) \d+[a-z]?"
    r"|\d+,? (?:rue|avenue|boulevard|impasse|chemin) (?:[\w'’-]+ ?){1,4}"
    r"|(?:calle|avenida|via|piazza|plaza) (?:[\w'’-]+ ){1,4}\d+"
)
_LABEL = (
    r"(?:hall|rooms?|gate|platform|bay|level|floor|ward|seat|row|terminal|dock|track|stand|pier|zone|desk|locker|pitch|court"
    r"|Raum|Zimmer|Gleis|Halle|Saal|salle|quai|sala|andén|aula) (?:[A-Za-z]?\d+(?:\.\d+)?[A-Za-z]?\b|(?-i:[A-Z])\b)"
    r"|(?:year|grade|form) \d{1,2}[A-Za-z]?\b"  # of a school
)
_RANGE = (
    r"\d{1,2}(?:[:.]\d\d)?(?: ?[ap]m)?(?:\s?[-–]\s?| (?:to|until|till|and|bis|à|a) )\d{1,2}(?:[:.]\d\d)?(?: ?[ap]m\b)?"
    rf"(?![\w:.-]*\d)(?! (?:{_MONTH})\b)"
)
_NUMBER = r"\d(?:[\d .,/-]*\d)?"
_MONEY = r"(?:[€$£]|(?:euros?|eur|pounds?|quid|dollars?|bucks|kr|chf|francs?|zł|rupees)\b)"
_SUM = rf"(?:[€$£]\s?{_NUMBER}|{_NUMBER}\s?{_MONEY})"
_MEASURE = (
    rf"{_NUMBER}\s?(?:%|°C?|(?:kg|kilos?|g|mg|mcg|µg|m(?:illi|icro)?grams?|units|lbs?|stone|km|miles?|cm|mm|m|litres?|liters?|l|ml|min(?:ute)?s?|hours?|hrs?"
    r"|days?|weeks?|months?|years?|GB|MB|TB|kWh|mph|km/h|hp|Mbps|watts?|volts?|Minuten|Stunden|Tagen?|Wochen|Monaten?|Jahren?|Kilo|Liter|heures?|jours"
    r"|semaines|mois|ans|horas|minutos|días|semanas|meses|años|percent|people|degrees)\b|公斤|公里|分钟|小时|天|年|岁|度)"
)
_LETTER = r"[^\W\u2e80-\uffff]"  # where blanks part words
_CODE = rf"(?=[\w-]*\d)(?=[\d-]*[^\W\d_]){_LETTER}+(?:-{_LETTER}+)*(?!\w)"
_CAPITAL = r"[^\W\d_a-zß-ÿ]"
CAPITAL = re.compile(rf"\b{_CAPITAL}[^\W\d_]+")
NAME = re.compile(rf"{_CAPITAL}[\w'’&-]+(?:\.? {_CAPITAL}[\w'’&-]+)*")
#: days and months, in their whole names
DAY = re.compile(
    rf"\b(?:{_WEEKDAY}|january|february|march|april|may|june|july|august|september|october|november|december)\b", re.I
)
_ATOM = re.compile(
    rf"(?<!\w)(?:(?P<date>{_WEEKDAY}(?!\w)(?:,?(?: the)? {_DATE})?|{_DATE}(?!\w))|(?P<range>{_RANGE})"
    rf"|(?P<label>{_LABEL})|(?P<street>{_STREET})|(?P<clock>{_CLOCK})"
    rf"|(?P<sum>{_SUM})|(?P<measure>{_MEASURE})|(?P<code>{_CODE})|(?P<number>{_NUMBER})(?!\w)|(?P<name>(?-i:{NAME.pattern})))"
    rf"|(?<=[\u2e80-\uffff])(?:(?P<signed_clock>{_POINT})|(?P<signed>{_NUMBER}))",
    re.I,
)
_KINDS = {"signed_clock": "clock", "signed": "number"}  # behind a sign, where no blanks part words
_COUNTED = re.compile(_NUMBER)


@dataclass(frozen=True)
class Atom:
    """A part of a text that is one thing, of a kind: date, range, label, street, clock, sum, measure, code, number,
    name; or the "counted" number of a label, a sum or a measure."""

    kind: str
    text: str
    start: int

    @property
    def end(self) -> int:
        return self.start + len(self.text)


def atoms(text: str) -> Iterator[Atom]:
    """What a text has of such things, from left to right."""
    for found in _ATOM.finditer(text):
        kind = _KINDS.get(found.lastgroup or "", found.lastgroup or "")
        yield Atom(kind, found[0], found.start())
        if kind in ("sum", "measure", "label") and (number := _COUNTED.search(found[0])):
            yield Atom("counted", number[0], found.start() + number.start())


def without_counts(text: str) -> str:
    """Without its sums and measures: that two texts both have "GB" says little of what they are about."""
    for x in sorted(atoms(text), key=lambda x: -x.start):
        if x.kind in ("sum", "measure"):
            text = f"{text[: x.start]} {text[x.end :]}"
    return text
