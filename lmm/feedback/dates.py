"""Times as seen from today, written as dates: what is "next Friday" or "last month" when it is said stays so."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import date, timedelta
from functools import cache
from itertools import product

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
#: the months and seasons that are this, the next and the last one
SEASONS = {
    "en": ("spring", "summer", "autumn|fall", "winter"),
    "de": ("Frühling|Frühjahr", "Sommer", "Herbst", "Winter"),
    "fr": ("printemps", "été", "automne", "hiver"),
    "es": ("primavera", "verano", "otoño", "invierno"),
}
PERIODS = {
    "en": ("this (?:{name})", "(?:next|this coming) (?:{name})", "last (?:{name})"),
    "de": (
        "(?:in )?diese[mns] (?:{name})",
        "(?:im )?(?:nächste|kommende)[mns] (?:{name})",
        "(?:im )?(?:letzte|vergangene|vorige)[mns] (?:{name})",
    ),
    "fr": ("cet? (?:{name})", "(?:le |l['’]|en )?(?:{name}) prochain", "(?:le |l['’]|en )?(?:{name}) dernier"),
    "es": (
        "est[ae] (?:{name})",
        "(?:el |la )?próxim[oa] (?:{name})|(?:el |la )?(?:{name}) que viene",
        "(?:el |la )?pasad[oa] (?:{name})|(?:el |la |en )?(?:{name}) pasad[oa]",
    ),
}
DAY, WEEK, MONTH, YEAR, SEASON = range(5)
#: this day, the next and the last one; the same of weeks, of months, of years
NAMED = {
    "en": (
        "today|tonight|this (?:morning|afternoon|evening)",
        "tomorrow(?: (?:morning|afternoon|evening|night))?",
        "yesterday(?: (?:morning|afternoon|evening))?|last night",
        "this week(?:end)?",
        "next week(?:end)?",
        "last week(?:end)?",
        "this month",
        "next month",
        "last month",
        "this year",
        "next year",
        "last year",
    ),
    "de": (
        "heute(?: (?:Morgen|früh|Mittag|Nachmittag|Abend|Nacht))?",
        "morgen",
        "gestern(?: (?:Morgen|Mittag|Nachmittag|Abend))?",
        "(?:in )?dieser? Woche",
        "(?:in der )?nächsten? Woche",
        "(?:in der )?letzten? Woche",
        "diesen Monat|in diesem Monat",
        "(?:im )?nächsten Monat",
        "(?:im )?letzten Monat",
        "dieses Jahr|in diesem Jahr",
        "(?:im )?nächste[sn] Jahr",
        "(?:im )?letzte[sn] Jahr",
    ),
    "fr": (
        "aujourd['’]hui|ce (?:matin|soir)|cet(?:te)? après-midi",
        "demain(?: (?:matin|soir))?",
        "hier(?: (?:matin|soir))?",
        "cette semaine",
        "la semaine prochaine",
        "la semaine dernière",
        "ce mois(?:-ci)?",
        "le mois prochain",
        "le mois dernier",
        "cette année",
        "l['’]an(?:née)? prochaine?",
        "l['’]an(?:née)? derni(?:er|ère)",
    ),
    "es": (
        "hoy|esta (?:mañana|tarde|noche)",
        "(?<!la )(?<!cada )(?<!una )(?<!esta )(?<!media )mañana(?: por la (?:mañana|tarde|noche))?",
        "ayer(?: por la (?:mañana|tarde|noche))?|anoche",
        "esta semana",
        "la semana que viene|la próxima semana",
        "la semana pasada",
        "este mes",
        "el mes que viene|el próximo mes",
        "el mes pasado",
        "este año",
        "el año que viene|el próximo año",
        "el año pasado",
    ),
    "zh": (
        "今天(?:早上|下午|晚上)?|今早|今晚",
        "明天",
        "昨天|昨晚",
        "这(?:个)?(?:周|星期)(?![一二三四五六日天])|本周",
        "下(?:个)?(?:周|星期)(?![一二三四五六日天])",
        "上(?:个)?(?:周|星期)(?![一二三四五六日天])",
        "这个月|本月",
        "下个?月",
        "上个?月",
        "今年",
        "明年",
        "去年",
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
    "en": ("on {d} {m} {y}", "in {m} {y}", "in {y}", "in {s} {w}"),
    "de": ("am {d}. {m} {y}", "im {m} {y}", "im Jahr {y}", "im {s} {w}"),
    "fr": ("le {d} {m} {y}", "en {m} {y}", "en {y}", "en {s} {w}"),
    "es": ("el {d} de {m} de {y}", "en {m} de {y}", "en {y}", "en {s} de {w}"),
    "zh": ("{y}年{m}月{d}日", "{y}年{m}月", "{y}年"),
}
#: after these no "on", "in" stands before a date
SINCE = (
    r"(?:since|from|to|until|till|by|before|after|of|for|during|seit|ab|auf|bis|für|depuis|dès|pour|desde|hasta|de"
    r"|para) "
)


def dated(text: str, language: str, today: date | None = None, ahead: bool = False) -> str:
    """The text with "tomorrow", "next Friday", "last summer", "this year" and "two weeks ago" as dates; everything else
    stays. What is said in weeks becomes a month. With `ahead`, only what is still to come."""
    today = today or date.today()
    for pattern, away in _times(language):
        for found in reversed(list(pattern.finditer(text))):
            day, unit = away(found, today)
            if ahead and day <= today:
                continue
            when, since = _written(day, unit, language), found["since"] or ""
            when = since + (when.partition(" ")[2] if since and when[0].isalpha() else when)
            text = text[: found.start()] + when + text[found.end() :]
    return text


Away = Callable[["re.Match[str]", date], tuple[date, int]]  # which time a text means today, and how exactly


@cache
def _times(language: str) -> list[tuple[re.Pattern[str], Away]]:
    """Patterns of what is said, and the day, month or year that it means."""
    edge = "" if language == "zh" else r"\b"
    return [
        (re.compile(rf"(?P<since>{SINCE})?{edge}(?:{said}){edge}(?!['’]s)", re.I), away)
        for said, away in _said(language)
    ]


def _said(language: str) -> Iterator[tuple[str, Away]]:
    def at(unit: int, count: int) -> Away:
        return lambda _, today: _away(today, unit, count)

    def on(weekday: int, first: int) -> Away:
        """That day of the week, among the seven that begin so many days from today."""
        return lambda _, today: _away(today, DAY, first + (weekday - today.weekday() - first) % 7)

    def within(first: int, length: int, count: int) -> Away:
        """This, the next or the last time that these months come, of which `first` is the first one."""
        return lambda _, today: (_period(today, first, length, count), SEASON if length > 1 else MONTH)

    def ago(unit: int) -> Away:
        return lambda found, today: _away(today, unit, -_number(found["n"], counted))

    for (unit, count), said in zip(product(range(4), (0, 1, -1)), NAMED[language], strict=True):
        yield said, at(unit, count)
    for weekday, day in enumerate(DAYS.get(language, "").split()):
        yield NEXT[language].format(day=day), on(weekday, 1)
        yield LAST[language].format(day=day), on(weekday, -7)
    for count, said in zip((0, 1, -1), PERIODS.get(language, ()), strict=False):
        for i, name in enumerate(SEASONS[language]):
            yield said.format(name=name), within(3 * i + 3, 3, count)
        for month, name in enumerate(MONTHS[language].split(), 1):
            name = f"(?-i:{name})" if name in WORDS else name
            yield said.format(name=name), within(month, 1, count)
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


WORDS = ("March", "May")  # months that are words in small letters


def _period(today: date, first: int, length: int, count: int) -> date:
    """When such months begin: those that go on or come this year, the next after today, or the last that are over."""
    since = (today.month - first) % 12  # months since they began last
    if count == 0 and since >= length:
        return date(today.year, first, 1)
    back = since - 12 if count > 0 else since + 12 if count < 0 and since < length else since
    return _away(today, MONTH, -back)[0]


def _written(day: date, unit: int, language: str) -> str:
    form = FORMS[language][(DAY, MONTH, YEAR, SEASON).index(unit)]
    if unit == SEASON:
        name = SEASONS[language][day.month // 3 - 1].partition("|")[0]
        return form.format(s=name, w=f"{day.year}/{(day.year + 1) % 100:02}" if day.month == 12 else day.year)
    month = MONTHS[language].split()[day.month - 1] if language in MONTHS else day.month
    return form.format(d=day.day, m=month, y=day.year)
