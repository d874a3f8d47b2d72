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
DAY, WEEK, MONTH, YEAR = range(4)
#: which unit, how many of them ahead, and how one says it; the longer first
NAMED = {
    "en": (
        (DAY, 0, "today|tonight|this (?:morning|afternoon|evening)"),
        (DAY, 1, "tomorrow(?: (?:morning|afternoon|evening|night))?"),
        (DAY, -1, "yesterday(?: (?:morning|afternoon|evening))?|last night"),
        (WEEK, 0, "this week(?:end)?"),
        (WEEK, 1, "next week(?:end)?"),
        (WEEK, -1, "last week(?:end)?"),
        (MONTH, 0, "this month"),
        (MONTH, 1, "next month"),
        (MONTH, -1, "last month"),
        (YEAR, 0, "this year"),
        (YEAR, 1, "next year"),
        (YEAR, -1, "last year"),
    ),
    "de": (
        (DAY, 0, "heute(?: (?:Morgen|früh|Mittag|Nachmittag|Abend|Nacht))?"),
        (DAY, 1, "morgen"),
        (DAY, -1, "gestern(?: (?:Morgen|Mittag|Nachmittag|Abend))?"),
        (WEEK, 0, "(?:in )?dieser? Woche"),
        (WEEK, 1, "(?:in der )?nächsten? Woche"),
        (WEEK, -1, "(?:in der )?letzten? Woche"),
        (MONTH, 0, "diesen Monat|in diesem Monat"),
        (MONTH, 1, "(?:im )?nächsten Monat"),
        (MONTH, -1, "(?:im )?letzten Monat"),
        (YEAR, 0, "dieses Jahr|in diesem Jahr"),
        (YEAR, 1, "(?:im )?nächste[sn] Jahr"),
        (YEAR, -1, "(?:im )?letzte[sn] Jahr"),
    ),
    "fr": (
        (DAY, 0, "aujourd['’]hui|ce (?:matin|soir)|cet(?:te)? après-midi"),
        (DAY, 1, "demain(?: (?:matin|soir))?"),
        (DAY, -1, "hier(?: (?:matin|soir))?"),
        (WEEK, 0, "cette semaine"),
        (WEEK, 1, "la semaine prochaine"),
        (WEEK, -1, "la semaine dernière"),
        (MONTH, 0, "ce mois(?:-ci)?"),
        (MONTH, 1, "le mois prochain"),
        (MONTH, -1, "le mois dernier"),
        (YEAR, 0, "cette année"),
        (YEAR, 1, "l['’]an(?:née)? prochaine?"),
        (YEAR, -1, "l['’]an(?:née)? derni(?:er|ère)"),
    ),
    "es": (
        (DAY, 0, "hoy|esta (?:mañana|tarde|noche)"),
        (DAY, 1, "mañana(?: por la (?:mañana|tarde|noche))?"),
        (DAY, -1, "ayer(?: por la (?:mañana|tarde|noche))?|anoche"),
        (WEEK, 0, "esta semana"),
        (WEEK, 1, "la semana que viene|la próxima semana"),
        (WEEK, -1, "la semana pasada"),
        (MONTH, 0, "este mes"),
        (MONTH, 1, "el mes que viene|el próximo mes"),
        (MONTH, -1, "el mes pasado"),
        (YEAR, 0, "este año"),
        (YEAR, 1, "el año que viene|el próximo año"),
        (YEAR, -1, "el año pasado"),
    ),
    "zh": (
        (DAY, 0, "今天(?:早上|下午|晚上)?|今早|今晚"),
        (DAY, 1, "明天"),
        (DAY, -1, "昨天|昨晚"),
        (WEEK, 0, "这(?:个)?(?:周|星期)(?![一二三四五六日天])|本周"),
        (WEEK, 1, "下(?:个)?(?:周|星期)(?![一二三四五六日天])"),
        (WEEK, -1, "上(?:个)?(?:周|星期)(?![一二三四五六日天])"),
        (MONTH, 0, "这个月|本月"),
        (MONTH, 1, "下个?月"),
        (MONTH, -1, "上个?月"),
        (YEAR, 0, "今年"),
        (YEAR, 1, "明年"),
        (YEAR, -1, "去年"),
    ),
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
#: after these no "on", "in" stands before a date
SINCE = r"(?:since|from|until|till|by|before|after|of|seit|ab|bis|depuis|dès|desde|hasta|de) "


def dated(text: str, language: str, today: date | None = None, ahead: bool = False) -> str:
    """The text with "tomorrow", "next Friday", "this year" and "two weeks ago" as dates; everything else stays. What is
    said in weeks becomes a month. With `ahead`, only what is still to come."""
    today = today or date.today()
    edge = "" if language == "zh" else r"\b"
    for said, away in _times(language, today):
        pattern = re.compile(rf"(?P<since>{SINCE})?{edge}(?:{said}){edge}(?!['’]s)", re.I)
        for found in reversed(list(pattern.finditer(text))):
            day, unit = away(found)
            if ahead and day <= today:
                continue
            when, since = _written(day, unit, language), found["since"] or ""
            when = since + (when.partition(" ")[2] if since and when[0].isalpha() else when)
            text = text[: found.start()] + when + text[found.end() :]
    return text


Away = Callable[["re.Match[str]"], tuple[date, int]]  # which time a found text means, and how exactly


def _times(language: str, today: date) -> Iterator[tuple[str, Away]]:
    """Patterns of what is said, and the day, month or year that it means."""

    def at(unit: int, count: int) -> Away:
        return lambda _: _away(today, unit, count)

    def ago(unit: int) -> Away:
        return lambda found: _away(today, unit, -_number(found["n"], counted))

    for unit, count, said in NAMED[language]:
        yield said, at(unit, count)
    for weekday, day in enumerate(DAYS.get(language, "").split()):
        days = (weekday - today.weekday()) % 7
        yield NEXT[language].format(day=day), at(DAY, days or 7)
        yield LAST[language].format(day=day), at(DAY, days - 7)
    counted = COUNTED[language].split(", ")
    number = rf"(?P<n>\d{{1,3}}|{'|'.join(counted)})"
    for unit, name in enumerate(UNITS[language]):
        yield AGO[language].format(n=number, unit=name), ago(unit)


def _number(said: str, counted: list[str]) -> int:
    found = (n for n, word in enumerate(counted, 1) if re.fullmatch(word, said, re.I))
    return int(said) if said.isdigit() else next(found)


def _away(today: date, unit: int, count: int) -> tuple[date, int]:
    """The day, the month or the year so many units ahead."""
    if unit <= WEEK:
        return today + timedelta(count * (7 if unit == WEEK else 1)), MONTH if unit == WEEK else DAY
    months = today.year * 12 + today.month - 1 + count * (12 if unit == YEAR else 1)
    return date(max(1, months // 12), months % 12 + 1, 1), unit


def _written(day: date, unit: int, language: str) -> str:
    month = MONTHS[language].split()[day.month - 1] if language in MONTHS else day.month
    form = FORMS[language][(DAY, MONTH, YEAR).index(unit)]
    return form.format(d=day.day, m=month, y=day.year)
