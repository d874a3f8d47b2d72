"""Times as seen from today, written as dates: what is "next Friday" when it is said stays that day for ever."""

from __future__ import annotations

import re
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
FORMS = {"en": "on {d} {m} {y}", "de": "am {d}. {m} {y}", "fr": "le {d} {m} {y}", "es": "el {d} de {m} de {y}"}


def dated(text: str, language: str, today: date | None = None) -> str:
    """The text with "tomorrow" and "next Friday" as dates; everything else stays."""
    today = today or date.today()
    edge = "" if language == "zh" else r"\b"
    tomorrow = _written(today + timedelta(1), language)
    text = re.sub(f"{edge}{TOMORROW[language]}{edge}", tomorrow, text, flags=re.I)
    for number, day in enumerate(DAYS.get(language, "").split()):
        ahead = (number - today.weekday()) % 7 or 7
        pattern = rf"(?<!\w)(?:{NEXT[language].format(day=day)})(?!\w)"
        text = re.sub(pattern, _written(today + timedelta(ahead), language), text, flags=re.I)
    return text


def _written(day: date, language: str) -> str:
    if language == "zh":
        return f"{day.year}年{day.month}月{day.day}日"
    month = MONTHS[language].split()[day.month - 1]
    return FORMS[language].format(d=day.day, m=month, y=day.year)
