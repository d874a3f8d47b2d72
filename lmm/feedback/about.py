"""What a fact is about: its subject and its relation. The next fact about both takes the place of the first.

In doubt there is no relation, and nothing is replaced. A relation that one may have to many things ("allergic to nuts",
"speaks Danish") has the value in it, so that only what is said of the very same thing takes its place.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from lmm.feedback import spans
from lmm.feedback.words import word_set
from lmm.text.fold import words

#: relations that have one value at a time, by what is said around the value in the languages that are echoed
ONE = {
    "home": r"\bliv(?:e|es|ing)\b.*\b(?:in|at|on)?|\bmoved\b|relocat|\baddress\b|wohn\w*|gezogen|umgezogen|adresse"
    r"|habit\w+|déménag\w+|viv(?:o|e|es|imos|ons)\b|mudad\w+|direcci[oó]n|住|搬|地址",
    "name": r"\bname\b|(?:is|am|are|was) (?:now )?(?:called|named)|\bgoes by\b|\bcall(?:s|ed)? me\b|renamed"
    r"|hei(?:ß|ss)\w*|\bnom\b|appel\w+|\bllam\w+|nombre|叫|名字|改名",
    "work": r"\bworks?\b|\bjob\b|\bemployer\b|\barbeit\w*|beruf|travaill\w+|boss\w+ chez|métier|trabaj\w+|工作|上班",
    "age": r"\byears old\b|\bturned\b|\bage\b|jahre alt|\balter\b|\bans\b|años|岁",
    "birthday": r"birthday|\bbday\b|geburtstag|anniversaire|cumple\w*|生日",
    "birthplace": r"\bborn in\b(?=\W*$)|birthplace",
    "phone": r"\bphone\b|\b(?:mobile|cell|new) number\b|\bnumber is\b|telefon\w*|handynummer|neue nummer|\bnuméro\b"
    r"|teléfono|mi número|号码|手机|电话",
    "email": r"e-?mail|correo|邮箱",
    "port": r"\bports?\b|listens? on|lauscht|écoute sur|escucha en|puerto|端口",
    "password": r"passwor[dt]|passwort|mot de passe|contraseña|密码|\bpasscode\b|\bpin\b|\bcode\b|\bcódigo\b",
    "host": r"\bruns? on\b|läuft auf|tourne sur|corre en|跑在",
    "favourite": r"favou?rite|lieblings\w*|préféré\w*|favorit[oa]|最喜欢",
    "colour": r"\bcolou?r\b|farbe|couleur|color\b|颜色",
    "spouse": r"married to|verheiratet mit|mari\w+ avec|casad[oa] con",
    "start": r"\bstarts?\b|\bbegins?\b|beginnt|commence|empieza|开始",
    "when": r"\b(?:is|was|been|got|has) (?:on|at|moved to|postponed to|now (?:on|at))\b|\bmoved to\b|verschoben|reporté"
    r"|aplazad\w+|改到|推迟",
    "rent": r"\brent\b|miete|loyer|alquiler|房租",
    "parked": r"\bpark(?:ed|ing)?\b|garée|aparcad\w+|车停",
    "weight": r"\bweighs?\b",
}
_ONE = {name: re.compile(pattern, re.I) for name, pattern in ONE.items()}
_OWNER = re.compile(
    r"^(?:my|our|your|the|his|her|mein\w*|unser\w*|mon|ma|mes|notre|mi|mis|nuestr[oa]|la|le|el|der|die|das) "
    r"|^我(?:们)?的?",
    re.I,
)
_LIKES = re.compile(
    r"\b(?:love|like|hate|dislike|enjoy|can['’]?t stand|detest|adore|loathe|prefer|mag|liebe|hasse|aime|déteste|gusta"
    r"|odio|encanta)\w*|喜欢|讨厌|[^可]爱",
    re.I,
)
ME = word_set("i me my ich je j yo mich moi 我 you im")
POINTERS = word_set(
    "he she it they him her them his its their that this there one er sie es das il elle ça c ce ella él eso su"
)
US = word_set("we us our wir nous on nosotros 我们")


_OWN = (
    r" (?:(?:new|full|first|last|phone|mobile|home|neue|nouvelle?|nuevo|nueva) )*(?:name|number|phone|address|birthday"
    r"|job|age|e?-?mail|password|pin|rent|nummer|adresse|geburtstag|beruf|alter|nom|numéro|anniversaire|métier|nombre"
    r"|número|dirección|cumple\w*|edad)\b"
)
#: who speaks of himself: "I ..." and "my name ...", not "my sister ..."
_SPEAKER = re.compile(
    rf"(?:(?P<i>(?:i|ich|je|j|yo)\b|(?:my|mein\w*|mon|ma|mi){_OWN}"
    r"|我(?!们)的?(?:名字|生日|号码|手机|电话|[住叫是在]))"
    rf"|(?P<we>(?:we|wir|nous|on)\b|(?:our|unser\w*|notre|nuestr[oa]){_OWN}|我们(?:住|在|搬)))",
    re.I,
)


def subject_of(clause: str, tagged: str) -> str:
    """The subject as it is kept: the tagged words, or who speaks; "" if neither is known."""
    said = re.sub(r"['’]s$", "", " ".join(tagged.split()).strip(" ,.;:'’"))
    speaker = None if said else _SPEAKER.match(clause)
    if said.lower() in ME or (speaker and speaker["i"]):
        return "I"
    if said.lower() in US or speaker:
        return "we"
    return said


def relation_of(clause: str, subject: str, value: str) -> str:
    """The relation between subject and value, or "" in doubt: one of `ONE`, or what is said, with the value."""
    rest = clause.replace(value, " ", 1)
    found = [name for name, pattern in _ONE.items() if pattern.search(rest)]
    if "favourite" in found:
        return "favourite " + words(rest[_ONE["favourite"].search(rest).end() :]).split(" is")[0].strip()  # type: ignore[union-attr]
    if found:
        return found[0]
    if liked := _LIKES.search(clause):
        return f"opinion of {words(clause[liked.end() :] if _LIKES.search(value) else value)}"
    said = words(rest.replace(subject, " ", 1))
    return f"{said}: {words(value)}" if said else ""


def apart(relation: str, one: tuple[str, str, Iterable[str]], other: tuple[str, str, Iterable[str]]) -> bool:
    """Do two texts (text, subject, values) that have subject and relation in common name different things beside them,
    as the codes of the archive's door and of its garage do? Never of a relation that has the value in it."""
    if relation not in _ONE:
        return False
    mine, theirs = _beside(relation, *one), _beside(relation, *other)
    return bool(mine - theirs) and bool(theirs - mine)


def _beside(relation: str, text: str, subject: str, values: Iterable[str]) -> set[str]:
    """What a text speaks of beside subject, relation and values."""
    for value in values:
        text = text.replace(value, " ")
    text = _ONE[relation].sub(" ", text)
    return {spans.stem(word) for word in words(text).split()} - spans.FUNCTION - {*words(subject).split()} - POINTERS


def same_subject(subject: str, known: Iterable[str]) -> str:
    """The known subject that is meant: "Lena" and "my sister" are "my sister Lena" where no other has these words. "My
    dentist" is not "my dentist appointment"."""
    alike = {other for other in known if _same_thing(subject, other)}
    return alike.pop() if len(alike) == 1 else subject


def _same_thing(a: str, b: str) -> bool:
    """Has one all words of the other, and is a name what both end with, or what one has more? "My standing desk" is not
    "my desk"."""
    short, long = sorted((_WORD.findall(_OWNER.sub("", text)) for text in (a, b)), key=len)
    theirs = {word.lower() for word in short}
    more = [word for word in long if word.lower() not in theirs]
    whole = bool(theirs) and theirs <= {word.lower() for word in long}
    named = whole and short[-1][0].isupper() and short[-1] == long[-1]
    return named or (whole and all(word[0].isupper() for word in more))


_WORD = re.compile(r"[\u3400-\u9fff]|[^\W_]+")
