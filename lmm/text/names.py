"""Somebody by role, by name, and by both: "my sister", "Vera", "my sister Vera". English, German, French, Spanish."""

from __future__ import annotations

import re

from lmm.text.fold import contains, word_set, words
from lmm.text.sentences import SINCE

_MINE = re.compile(r"(?:my|our|mein\w*|unser\w*|mon|ma|mes|notre|nos|mi|mis|nuestr\w+)\b", re.I)
_PLACED = re.compile(r"\b(?:in|of|on|at|for|from|with|near|im|am|von|aus|à|de|du|en)\b")


def role_and_name(subject: str) -> tuple[str, str] | None:
    """ "our dentist Dr Osei" -> "our dentist" and "Dr Osei"; None of what is no such pair, as "my Volvo" is not."""
    parts = subject.split()
    if _MINE.match(subject) and not _PLACED.search(subject):
        for cut in range(2, len(parts)):
            if all(part[0].isupper() for part in parts[cut:]):
                return " ".join(parts[:cut]).rstrip(","), " ".join(parts[cut:])
    return None


_IS = re.compile(
    r"(?P<role>.+?) (?:is|ist|heißt|est|s['’]appelle|es|se llama)(?: called| named)? (?P<name>[^,;]+?)[.!]?$"
)


_NAME = re.compile(r"[^\W\d_]+[.]?|[^\W\d_][^\W\d]*['’-][^\W\d]+")  # no code


def says_who(text: str) -> tuple[str, str] | None:
    """ "My dentist is Dr Osei." -> "My dentist" and "Dr Osei"; None of what says more, or something else."""
    found = _IS.match(text.strip())
    both = role_and_name(f"{found['role']} {found['name']}") if found else None
    if found is None or both is None or both[1] != found["name"]:
        return None
    return both if all(_NAME.fullmatch(part) for part in both[1].split()) else None


_LEAVES = re.compile(
    r"\b(?:left|leaves|leaving|quit|quits|retire[sd]?|resign(?:s|ed)|died|dead|gone|fired|passed away|no longer"
    r"|any ?more|not|never|replaced|sold|hört auf|aufgehört|gekündigt|gegangen|ruhestand|gestorben|tot|plus|parti"
    r"|partie|retraite|mort|morte|ya no|jubil\w+|murió|muerto|dejó)\b|去世|离开|辞职|退休|不再",
    re.I,
)


def leaves(text: str, name: str) -> bool:
    """Does somebody go for good, or has something been so since they did?"""
    return bool(_LEAVES.search(text) or re.search(rf"\b{SINCE}{re.escape(name)}(?!\w)", text, re.I))


_RENAMED = re.compile(
    r"\b(?:goes by|(?:is|was|be|been|gets?|got|getting|being) (?:now )?(?:called|named)|re(?:named|christened)"
    r"|calls? (?:him|her|them|it|my)sel(?:f|ves)|(?:changed|dropped) (?:his|her|its|their|the) name|new name"
    r"|umbenannt|heißt|nennt sich|rebaptisée?|s['’]appelle|se llama|rebautizad[oa])\b|改名|改叫",
    re.I,
)


def renames(text: str) -> bool:
    """Does somebody or something get another name?"""
    return bool(_RENAMED.search(text))


#: what people are to somebody
KIN = word_set(
    "sister brother mother father mum mom dad wife husband partner girlfriend boyfriend fiancé fiancée fiance "
    "fiancee daughter son uncle aunt cousin nephew niece grandmother grandfather grandma grandpa granny boss "
    "manager landlord landlady neighbour neighbor friend teacher doctor dentist therapist colleague roommate "
    "flatmate accountant lawyer supervisor coach assistant mentor tutor vet nanny babysitter stepmother stepfather "
    "sister-in-law brother-in-law mother-in-law father-in-law"
)
_OTHERS = KIN | word_set(
    "gran nan grandad granddad granddaughter grandson mate twin housemate stepson stepdaughter stepbrother "
    "stepsister half-brother half-sister son-in-law daughter-in-law workmate coworker plumber cleaner ex "
    "schwester bruder mutter vater mama papa frau mann tochter sohn tante onkel cousine oma opa chef chefin "
    "freund freundin nachbar nachbarin kollege kollegin soeur frère mère père maman femme mari fille fils "
    "oncle grand-mère grand-père copain copine voisin voisine ami amie patron patronne collègue hermana hermano "
    "madre padre mamá papá mujer marido esposa esposo hija hijo tía tío prima primo abuela abuelo jefa jefe vecina "
    "vecino amiga amigo novia novio"
)
_RELATIVE = (  # no "my dentist appointment"
    rf"{_MINE.pattern} (?:[\w'-]+ ){{0,2}}?(?P<role>{'|'.join(sorted(_OTHERS, key=len, reverse=True))})(?![\w-])"
    r"(?! (?:appointment|visit|check-?up|meeting|lesson|class|session|call|bill|office|practice)s?\b)"
    r"(?P<name>(?: (?-i:[A-Z])\w+\.?)*)"
)
_OTHER = re.compile(_RELATIVE, re.I)
_SOMEBODY = re.compile(
    r"(?:(?:and|but|so|well|oh|ah|ok|hey|now|fyi|btw|by the way|actually)[,:]? )*"
    rf"(?:{_RELATIVE}(?!['’])|(?P<me>i|we|ich|wir|je|nous|yo|nosotros|nosotras)\b|j['’])",
    re.I,
)
_ME = re.compile(
    r"\b(?:i|me|my|mine|we|us|our|ours|ich|mich|mir|mein\w*|wir|uns\w*|je|moi|mon|ma|mes|nous|notre|nos|yo|mi|mis"
    r"|nuestr\w+)\b|\b[jm]['’]",
    re.I,
)
_THEY = re.compile(
    r"\b(?:he|she|they|him|her|hers|them|his|their|theirs|er|sie|ihn|ihm|ihr\w*|sein\w*|il|elle|ils|elles|lui|leur"
    r"|él|ella|ellos|ellas)\b",
    re.I,
)
_NAMES = re.compile(r" (?i:is|was|ist|heißt|est|s['’]appelle|es|se llama)(?: called| named)? [A-Z]")
_MEANT = re.compile(
    r"(?:i|we|ich|je|yo) (?:meant?|said|told|was wrong|mixed|mis\w+|(?:had|got) (?:it|that|this|them)\b|meinte|voulais"
    r"|quise)\b",
    re.I,
)


def of_others(note: str, news: str) -> bool:
    """Is the news of somebody else than the note is? "I moved to Graz" and "My boss moved to Graz" leave it true that
    my sister lives in Linz. Only where both begin with who it is, and nothing in the news may mean whom the note is of:
    of "My dentist is Dr Osei" it could be the role that has changed."""
    note, news = (text.strip().replace("œ", "oe") for text in (note, news))
    then, now = _SOMEBODY.match(note), _SOMEBODY.match(news)
    if then is None or now is None or _NAMES.match(note[then.end() :]) or _NAMES.match(news[now.end() :]):
        return False
    rest = news[now.end() :]
    if then["role"] is None:
        return now["role"] is not None and not _ME.search(rest)
    if any(contains(news, known) for known in (then["role"], *then["name"].split())):
        return False
    return now["role"] is not None or not (_THEY.search(rest) or _MEANT.match(news))


_CALLED = re.compile(  # by what they are, as by a name
    r"(?:(?:my|our) )?(?P<name>mum|mom|mummy|mommy|dad|daddy|papa|mama|grandma|grandpa|granny|gran|grandad|granddad|nan"
    r"|nana|oma|opa|maman|mamie|papi|papy|mamá|papá|abuela|abuelo)(?!\w)",
    re.I,
)


def of_another_relative(note: str, news: str) -> bool:
    """Does each begin with one of the family whom one calls by that, and are they two? "Grandma's number is 4" and
    "Grandpa's number is 5"."""
    then, now = (_CALLED.match(text.strip()) for text in (note, news))
    if then is None or now is None:
        return False
    return not (contains(news, then["name"]) or contains(note, now["name"]))


_POSTS = (
    r"(?:teacher|boss|manager|landlord|landlady|dentist|doctor|gp|coach|therapist|physio|tutor|supervisor|editor|agent"
    r"|accountant|lawyer|hairdresser|cleaner|plumber|number|phone|address|email|password|code|pin|job|name|port)"
)
_NEW = re.compile(
    rf"(?P<who>[\w'’ ]+?)(?: have| has|['’]ve|['’]s)?(?: got| gets?)? an? new (?:[\w-]+ )?(?P<post>{_POSTS})\b", re.I
)


def new_in_post(note: str, news: str) -> bool:
    """Do the news tell of a new one of what there is one of at a time, and the note of the one before? "My son has a
    new teacher, Ms Abt" and "My son's teacher is Mrs Quill"."""
    found = _NEW.match(news.strip())
    if found is None:
        return False
    who = "" if found["who"].lower() in ("i", "we") else found["who"].split()[-1]
    whose = rf"(?:[\w-]+ ){{0,2}}?{re.escape(who)}(?:['’]s)? " if who else ""
    first = rf"(?:(?:my|our|the) )?{whose}(?:[\w-]+ )?{found['post']} (?:is|was)\b"
    return bool(re.match(first, note.strip(), re.I))


_BEFORE = word_set(
    "the a an my our your his her its their this that new old little big der die das mein meine unser unsere le la les "
    "mon ma mes notre el los las mi mis nuestro nuestra nope yes yeah yep well actually sorry"
)
_NO_THING = word_set(
    "no i we you he she it they there and but so since now that as if when while what who where how oh ah ok ich wir "
    "du er sie es je nous tu il elle on yo"
)


def head(text: str) -> str:
    """The word that a text begins with, after "the" and "my": "dog" of "The dog gets fed at 6."; "" where that names
    nothing."""
    first = next((word for word in words(text).split() if word not in _BEFORE), "")
    return "" if first in _NO_THING else re.sub(r"['’]s$", "", first)


def of_another_thing(note: str, news: str) -> bool:
    """Is the note of something that the news do not name, and not of what they begin with? "The cat eats at 8" and "The
    dog gets fed at 6", "The window cleaner comes on Tuesdays" and "The cleaner switched to Fridays"."""
    theirs, ours, said = head(note), head(news), words(note).split()
    if not theirs or not ours or contains(news, theirs):
        return False
    return ours not in said or (said.index(ours) > 0 and said[said.index(ours) - 1] == theirs)


_COUPLE = word_set("wife husband partner girlfriend boyfriend fiancé fiancée fiance fiancee frau mann freund freundin")


def in_other_roles(one: str, other: str) -> bool:
    """Are "my brother" and "my friend" two people, whatever their names? "My girlfriend" and "my wife" may be one."""
    roles = {text.lower().split()[-1] for text in (one, other)}
    return len(roles) == 2 and roles <= _OTHERS and not roles <= _COUPLE


def without_others(text: str) -> str:
    """The text without whom the user has: "Where does my sister Vera live?" is "Where does  live?"."""
    return _OTHER.sub("", text)


def in_full(text: str, subject: str) -> str:
    """The text with both where a sentence begins with the role or the name alone: "Vera has moved." of my sister Vera
    is "my sister Vera has moved."."""
    both = role_and_name(subject)
    if both is None or contains(text, subject):
        return text
    either = "|".join(map(re.escape, both))
    return re.sub(rf"(?:^|(?<=[.!?,:;] ))(?:{either})(?!\w)", lambda _: subject, text, count=1, flags=re.I)


#: what each of us has one's own of
_OWN = (
    r"(?:[a-z]+ )?(?:number|birthday|size|address|e-?mail|password|pin|age|job|surname|height|weight"
    r"|blood (?:type|group)|salary|star sign|middle name|username)"
)
_MY_OWN = re.compile(rf"\b(?:my|our) (?P<what>{_OWN})\b", re.I)


def of_another(asked: str, told: str) -> bool:
    """Is a thing of the user's asked for, and that of somebody else told: "my number", and "my sister's phone number"?
    English."""
    found = _MY_OWN.search(asked)
    if found is None or re.search(r"\w['’]s?\s", asked[found.start() :]):
        return False
    what = found["what"].split()[-1]
    theirs = re.search(rf"(?:['’]s|s['’]|\b(?:his|her|their)) (?:[a-z]+ ){{0,2}}{what}\b", told, re.I)
    return bool(theirs) and not re.search(rf"\b(?:my|our) (?:[a-z]+ ){{0,2}}{what}\b", told, re.I)
