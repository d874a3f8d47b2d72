"""Times as seen from today, written as dates: what is "next Friday" or "last month" when it is said stays so."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import date, timedelta

DAYS = {
    "en": "monday tuesday wednesday thursday friday saturday sunday",
    "de": "montag dienstag mittwoch donnerstag freitag samstag sonntag",
    "fr": "lundi mardi mercredi jeudi vendredi samedi dimanche",
    "es": "lunes martes miércoles jueves viernes sábado domingo",
}
MONTHS = {
    "en": "January February March April May June July August September October November December",
    "de": "Januar Februar März April Mai Juni Juli August September Oktober November Dezember",
    "fr": "janvier février mars avril mai juin juillet août septembre octobre novembre décembre",
    "es": "enero febrero marzo abril mayo junio julio agosto septiembre octubre noviembre diciembre",
}
TOMORROW = {"en": "tomorrow", "de": "morgen", "fr": "demain", "es": "mañana", "zh": "明天"}
NEXT = {
    "en": r"(?:on )?(?:next|this|this coming) {day}",
    "de": r"(?:am )?(?:nächsten|kommenden|diesen) {day}",
    "fr": r"{day} prochain|ce {day}",
    "es": r"(?:el )?(?:próximo|este) {day}|(?:el )?{day} que viene",
}
LAST = {
    "en": r"(?:on )?last {day}",
    "de": r"(?:am )?(?:letzten|vergangenen|vorigen) {day}",
    "fr": r"{day} dernier",
    "es": r"(?:el )?{day} pasado|(?:el )?pasado {day}",
}
#: days, weeks, months and years: the last one, and the word for some
BACK = {
    "en": ("yesterday|last night", "last week(?:end)?", "last month", "last year"),
    "de": ("gestern", "(?:in der )?letzten? Woche", "(?:im )?letzten Monat", "(?:im )?letzte[sn] Jahr"),
    "fr": ("hier", "la semaine dernière", "le mois dernier", "l['’]an(?:née)? derni(?:er|ère)"),
    "es": ("ayer|anoche", "la semana pasada", "el mes pasado", "el año pasado"),
    "zh": ("昨天", "上(?:个)?(?:周|星期)", "上个?月", "去年"),
}
UNITS = {
    "en": ("days?", "weeks?", "months?", "years?"),
    "de": ("Tag(?:en)?", "Wochen?", "Monat(?:en)?", "Jahr(?:en)?"),
    "fr": ("jours?", "semaines?", "mois", "ans?|années?"),
    "es": ("días?", "semanas?", "mes(?:es)?", "años?"),
    "zh": ("天", "(?:个)?(?:周|星期|礼拜)", "个月", "年"),
}
AGO = {
    "en": "{n} (?:{unit}) ago",
    "de": "vor {n} (?:{unit})",
    "fr": "il y a {n} (?:{unit})(?! qu)",
    "es": "(?<!desde )hace {n} (?:{unit})(?! que)",
    "zh": "{n}(?:{unit})之?前",
}
#: one, two, three and so on; three is also a few
COUNTED = {
    "en": "an?|one, two|a couple of, three|a few|several, four, five, six, seven, eight, nine, ten, eleven, twelve",
    "de": "eine[mr]?, zwei, drei|ein paar|einigen, vier, fünf, sechs, sieben, acht, neun, zehn, elf, zwölf",
    "fr": "une?, deux, trois|quelques, quatre, cinq, six, sept, huit, neuf, dix, onze, douze",
    "es": "una?, dos, tres|unos|unas, cuatro, cinco, seis, siete, ocho, nueve, diez, once, doce",
    "zh": "一, 两|二, 三|几, 四, 五, 六, 七, 八, 九, 十",
}
FORMS = {
    "en": ("on {d} {m} {y}", "in {m} {y}", "in {y}"),
    "de": ("am {d}. {m} {y}", "im {m} {y}", "im Jahr {y}"),
    "fr": ("le {d} {m} {y}", "en {m} {y}", "en {y}"),
    "es": ("el {d} de {m} de {y}", "en {m} de {y}", "en {y}"),
    "zh": ("{y}年{m}月{d}日", "{y}年{m}月", "{y}年"),
}
DAY, WEEK, MONTH, YEAR = range(4)


#: after these no "on", "in" stands before a date
SINCE = r"(?:since|from|until|till|by|before|after|of|seit|ab|bis|depuis|dès|desde|hasta|de) "


def dated(text: str, language: str, today: date | None = None) -> str:
    """The text with "tomorrow", "next Friday", "last month" and "two years ago" as dates; everything else stays. What
    lies weeks back becomes a month."""
    today = today or date.today()
    edge = "" if language == "zh" else r"\b"
    for said, back in _times(language, today):
        pattern = re.compile(rf"(?P<since>{SINCE})?{edge}(?:{said}){edge}(?!['’]s)", re.I)
        for found in reversed(list(pattern.finditer(text))):
            when, since = _written(*back(found), language), found["since"] or ""
            when = since + (when.partition(" ")[2] if since and when[0].isalpha() else when)
            text = text[: found.start()] + when + text[found.end() :]
    return text


Back = Callable[["re.Match[str]"], tuple[date, int]]  # which time a found text means, and how exactly


def _times(language: str, today: date) -> Iterator[tuple[str, Back]]:
    """Patterns of what is said, and the day, month or year that it means."""

    def ahead(days: int) -> Back:
        return lambda _: (today + timedelta(days), DAY)

    yield TOMORROW[language], ahead(1)
    for weekday, day in enumerate(DAYS.get(language, "").split()):
        away = (weekday - today.weekday()) % 7
        yield NEXT[language].format(day=day), ahead(away or 7)
        yield LAST[language].format(day=day), ahead(away - 7)
    counted = COUNTED[language].split(", ")
    number = rf"(?P<n>\d{{1,3}}|{'|'.join(counted)})"

    def ago(unit: int) -> Back:
        return lambda found: _back(today, _number(found["n"], counted), unit)

    def last(unit: int) -> Back:
        return lambda _: _back(today, 1, unit)

    for unit, (said, name) in enumerate(zip(BACK[language], UNITS[language], strict=True)):
        yield said, last(unit)
        yield AGO[language].format(n=number, unit=name), ago(unit)


def _number(said: str, counted: list[str]) -> int:
    found = (n for n, word in enumerate(counted, 1) if re.fullmatch(word, said, re.I))
    return int(said) if said.isdigit() else next(found)


def _back(today: date, count: int, unit: int) -> tuple[date, int]:
    """A day, a month or a year so many units before today."""
    if unit <= WEEK:
        return today - timedelta(count * (7 if unit == WEEK else 1)), MONTH if unit == WEEK else DAY
    months = today.year * 12 + today.month - 1 - count * (12 if unit == YEAR else 1)
    return date(max(1, months // 12), months % 12 + 1, 1), unit


def _written(day: date, unit: int, language: str) -> str:
    month = MONTHS[language].split()[day.month - 1] if language in MONTHS else day.month
    form = FORMS[language][(DAY, MONTH, YEAR).index(unit)]
    return form.format(d=day.day, m=month, y=day.year)
