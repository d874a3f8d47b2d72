"""Small grammar helpers: plain text in, plain text out."""

from __future__ import annotations

import re

from lmm.feedback import words
from lmm.feedback.words import anycase

APOSTROPHES = str.maketrans({"’": "'", "‘": "'", "“": '"', "”": '"', "–": "-", "—": "-", "\u00a0": " "})
#: what is done after "has", never after "is"
DONE = (
    "(?:(?:just|now|already|always|never|ever|also|finally|recently) )?(?:been|had|got|lived|worked|become|moved"
    "|switched|changed|started|stopped|joined|turned|begun|quit|grown|taken (?:over|up|on)|given up"
    "|gone (?:back|off|to|from|vegan))"
)
#: participles of what is done to something: "she's sold the van" is "she has", "it's painted a pale blue" is not
TAKEN = "(?:bought|broken|chosen|found|given|hurt|left|lost|made|met|put|sent|sold|taken|thrown|won|written)"
HANDED = "(?:handed|given|sent|put|taken|turned) (?:back|down|in|off|on|over|up)"
THEIRS = r"(?:me|us|him|her|them|you|my|our|his|its|their)\b"
A = r"(?:the|an?)\b(?! (?:same|old|new|first|usual|\d))"  # not "it's made the old way"
OWNS = r"(?![\w-]+ (?:is|was|has)\b)"  # "its IP is ..." is no "it is"
ITS = anycase(rf"\b(?:its|it is) {OWNS}(?=(?:a|an|the|in|on|at|called|actually|not)\b|(?-i:[A-Z0-9]))")
EXPANSIONS = (
    (anycase(r"\bI'm\b|\bI am\b"), "I am"),
    (anycase(r"\b(I|you|we|they)'ve\b"), r"\1 have"),
    (anycase(r"\bI'd like\b"), "I would like"),
    (anycase(r"\b(you|we|they)'re\b"), r"\1 are"),
    (anycase(r"\b(I|you|we|it|that|they)'ll\b"), r"\1 will"),
    (anycase(rf"\b(it|that|he|she|there|what|who)'s (?={DONE}\b)"), r"\1 has "),
    (anycase(rf"\b(it|he|she|who)'s (?=(?:(?!called|named)\w+ed|{HANDED}|{TAKEN}) {THEIRS})"), r"\1 has "),
    (anycase(rf"\b(it|he|she|who)'s (?=(?:{TAKEN}|dropped|finished|joined|passed|replaced|swapped) {A})"), r"\1 has "),
    (anycase(r"\b(he|she|who)'s (?=(?:joined|left) (?-i:[A-Z]))"), r"\1 has "),
    (anycase(r"\b(it|that|he|she|there|what|who|where|when|name|answer|birthday)'s (?=\S)"), r"\1 is "),
    (anycase(r"\b(is|was|are|were|do|does|did)n't\b"), r"\1 not"),
)
BE = r"is|are|was|were|am"


def tokens(text: str) -> list[str]:
    """Lower-case tokens: letters and digits with inner apostrophes, hyphens, dots and the like."""
    return [token.lower() for token in re.findall(r"[^\W_]+(?:['.,:/@_+-][^\W_]+)*", text)]


def plain(text: str) -> str:
    """One line with straight quotes, single blanks, and the commonest typos and contractions written out."""
    text = re.sub(r"\s+", " ", text.translate(APOSTROPHES)).strip()
    text = quiet(text)
    text = re.sub(r"(?<![\w@./-])[A-Za-z]+(?![\w@/-])", lambda m: words.TYPOS.get(m[0].lower(), m[0]), text)
    text = ITS.sub("it is ", text)
    text = re.sub(rf"(^|[,.!;:-] ?|\bno |\bnah |\bnope |\bincorrect )its {OWNS}", r"\1it is ", text, flags=re.I)
    text = re.sub(r"\b(my|our) (\w{2,})s (name|birthday|job|age)\b", r"\1 \2's \3", text, flags=re.I)
    for pattern, repl in EXPANSIONS:
        text = pattern.sub(repl, text)
    return text


PAST = (
    rf"(?:\w+ed|{'|'.join(sorted(set(words.IRREGULAR.values()) - {'had'}))}|got|become|gone|begun|given|taken|married)"
)
HAVE = anycase(
    rf"\b(I|we|they)(?:(?: have|['’]ve)(?: (?:just|recently|finally|now))?| (?:just|recently|finally)) (?={PAST}\b)"
)


def contracted(text: str) -> str:
    """ "I just moved" and "I have just moved" as "I've moved"."""
    return HAVE.sub(r"\1've ", text)


ORDINARY = words.ENGLISH | words.TRANSIENT


def _shouted(text: str) -> bool:
    """Typed in capitals throughout? The ordinary words decide: "My IBAN is NL91 ABNA" only has a value in capitals."""
    spoken = [w for w in text.split() if not re.search(r"\d", w)]
    letters = [c for w in spoken for c in w if c.isalpha()]
    ordinary = [w for w in re.findall(r"[A-Za-z']{2,}", text) if w.lower() in ORDINARY]
    mostly = sum(c.isupper() for c in letters) > 0.7 * len(letters)
    return len(text) > 8 and mostly and bool(ordinary) and all(w[1:].isupper() for w in ordinary)


def quiet(text: str) -> str:
    """Shouted text in small letters, but for what has digits in it and what such a code begins with ("LH 441")."""
    if not _shouted(text):
        return text
    parts = text.split(" ")
    code = [bool(re.search(r"\d", w)) for w in parts]
    for i, word in enumerate(parts[:-1]):
        code[i] = code[i] or (code[i + 1] and word.isalpha() and len(word) <= 4 and word.lower() not in ORDINARY)
    return " ".join(w if kept else w.lower() for w, kept in zip(parts, code, strict=True))


FLIPS = {
    "i": "you", "me": "you", "my": "your", "mine": "yours", "we": "you", "us": "you", "our": "your", "ours": "yours",
    "myself": "yourself", "am": "are", "i was": "you were", "we was": "you were", "was i": "were you",
    "you": "I", "your": "my", "yours": "mine", "i'd": "you'd", "we'd": "you'd", "you'd": "I'd",
}  # fmt: skip


def flip(text: str) -> str:
    """The user's point of view as the reply's: "my sister" -> "your sister", "I was" -> "you were"; "7 am" stays."""
    return re.sub(
        r"\b(?:(?:I|we) was|was I)\b|(?<![\w@./-])(?!(?<=\d )am\b)[A-Za-z]+(?:'[a-z]+)?(?![\w@/-])",
        lambda m: FLIPS.get(m[0].lower(), m[0]),
        text,
        flags=re.I,
    )


def capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def sentence(text: str) -> str:
    """A reply as it would be printed: capital first letter, one full stop."""
    text = capital(text.strip().rstrip(";"))
    return text if text.endswith((".", "!", "?")) else text + "."


def as_name(text: str) -> str:
    """Capitals for a name that was typed without any; particles and names with inner capitals stay."""
    small = {"da", "de", "van", "von", "of", "the", "and", "la", "del", "di", "y"}
    if text != text.lower():
        return text
    parts = text.split()
    return " ".join(w if w in small and i else "-".join(map(capital, w.split("-"))) for i, w in enumerate(parts))


ARTICLE = anycase(r"^(?:a|an|the)\s+(?=\S)")
HEDGE = (
    r"(?:i|we) (?:guess|think|believe|suppose|reckon|hope|bet|am (?:afraid|sure|certain))"
    r"|as (?:you|we) (?:may |might )?know|as i (?:said|told you)"
    r"|of course|to be (?:honest|precise|exact|fair)|if you must know|for sure|after all"
    r"|believe it or not|as far as i know"
)
ADVERB = (
    r"unfortunately|fortunately|luckily|sadly|obviously|clearly|naturally|definitely|honestly|frankly|certainly"
    r"|surprisingly|incidentally|seriously|no (?:joke|kidding|doubt|lie)|tbh|afaik|imo"
)
TAIL = anycase(
    r"(?:,|\s-)?\s+(?:btw|by the way|fyi|please|thanks|thank you|though|actually|ok|okay|in fact"
    rf"|now|too|as well|you know|mate|dude|bro|buddy|pal|dummy|silly|{HEDGE})$"
    rf"|(?:,|\s-)\s+(?:{ADVERB})$"
    r"|,\s+(?:don't|do not|so|but|which|who|because|just|please|sorry|and (?:i|my|we)|remember|not that"
    r"|no,? (?:really|it|that|i|not))\b.*$"
    r"|\s+(?:because|since i|but|so (?:i|please|remember|don't|that)|and (?:i|my|we|that|please"
    r"|it|he|she|they)|which)\b.*$"
    r"|,\s+(?:er|uh|um),?\s.*$"
)


def trim(text: str) -> str:
    """A value without trailing remarks, end punctuation and a pair of quotes around it."""
    text = text.strip()
    for _ in range(4):
        before = text
        text = TAIL.sub("", text.rstrip(" .!?…,;:~")).strip()
        if text[-1:] == ")" and "(" not in text:
            text = text[:-1].rstrip(" :;")
        if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'`":
            text = text[1:-1].strip()
        if text == before:
            break
    return text


def bare(text: str) -> str:
    """The value as it is checked for in a reply: no leading article."""
    return ARTICLE.sub("", text)


LEADS = r"is|are|was|were|am|in|on|at|to|from|called|named"  # what a value stands after
PAUSE = anycase(rf"\b({LEADS}),? (?:u[mh]+|er+m?|hm+|let me (?:think|see))[,.… ]+(?=\w)")
REPAIR = anycase(
    rf"^(?P<lead>.*\b(?:{LEADS})) [^,]+?(?:,|\s-) (?:(?:u[mh]+|er+m?|oh|ah),? )*"
    r"(?:(?:no,? wait|wait,? no|make that|or rather|scratch that|i mean|er+m?|u[mh]+),?|(?:no|wait|sorry|oops),)"
    r" (?:it is |that is )?(?P<value>[^\s,]+(?: [^\s,]+){0,3})$"
)
UNCLEAR = anycase(r"(?:,|\s-) (?:no,? wait|wait,? no|make that|or rather|scratch that)\b")
NOT_MEANT = words.TRANSIENT | words.word_set(
    "it that this these i you he she we they thanks thank please for about if when what why how my your our kidding "
    "joke problem worries so and but to let do don't"
)


def repaired(text: str) -> str:
    """The sentence as it was meant: "my code is 12, no wait, 13" -> "my code is 13"; "" if that is not clear."""
    text = PAUSE.sub(r"\1 ", text)
    said = REPAIR.match(text)
    if said and (tokens(said["value"]) or ["it"])[0] not in NOT_MEANT:
        return f"{said['lead']} {said['value']}"
    return "" if UNCLEAR.search(text) else text


WEEKDAY = r"(?:mon|tues|wednes|thurs|fri|satur|sun)days?|(?:today|tomorrow|tonight|noon|midnight|weekends?)"
MONTH = r"(?:january|february|march|april|may|june|july|august|september|october|november|december)"
TIME = anycase(
    rf"\b(?:{WEEKDAY}|\d{{1,2}}(?::\d\d)\s?(?:am|pm)?|\d{{1,2}}\s?(?:am|pm)|\d{{1,2}}(?:st|nd|rd|th)?(?: of)? {MONTH}"
    rf"|{MONTH} \d{{1,4}}(?:st|nd|rd|th)?|(?:1[0-9]|20)\d\d|the \d{{1,2}}(?:st|nd|rd|th))\b|\bevery (?:day|week"
    rf"|month)\b"
)


RELATIVE = re.compile(
    rf"\b(?:today|tomorrow|tonight|yesterday|(?:this|next|last) (?:day|week|weekend|month|year|morning|afternoon"
    rf"|evening|night|spring|summer|autumn|fall|winter|(?i:{WEEKDAY})|(?i:{MONTH}))|in (?:an?|a few|a couple of|\d+"
    rf"|{'|'.join(sorted(words.NUMBERS))}) (?:second|minute|hour|day|week|month|year)s?|(?:day|week|month|year)s? ago"
    rf"|right now|at the moment|soon)\b"
)


def is_relative(answer: str, value: str) -> bool:
    """Does the value in an answer name a time as seen from today, so that it is wrong tomorrow? Not so a title."""
    found = re.search(rf"(?<!\w){re.escape(value)}(?!\w)", answer, re.I)
    return bool(RELATIVE.search(answer[max(0, found.start() - 3 if found else 0) :]))  # with its "in"


def is_number(text: str) -> bool:
    found = tokens(text)
    return any(w[0].isdigit() or w in words.NUMBERS for w in found[:2])


def is_proper(text: str) -> bool:
    """True if a word has a capital letter in it (and the text is not shouted)."""
    return any(re.match(r"[\"']?[^\W\d_]*[A-Z]", w) for w in text.split()) and not (len(text) > 12 and text.isupper())


PLACED = anycase(
    r"(?:in|on|at|under|near|next|behind|between|from|to|every|since|by|above|below|over|beside|inside|across"
    r"|around|before|after|opposite|here|there|home|tomorrow|today|yesterday|tonight|last)\b"
)
DAY = anycase(rf"{WEEKDAY}|{MONTH} \d{{1,2}}\b(?!\d)|(?:the )?\d{{1,2}}(?:st|nd|rd|th)|\d{{1,2}} {MONTH}")
PERIOD = anycase(rf"\d{{3,4}}\b(?!:)|{MONTH}|(?:the )?(?:spring|summer|autumn|winter)")


def with_preposition(value: str, wh: str, place: str = "in") -> str:
    """A place or a time as it stands in a sentence: "in Oslo", "on Tuesday", "at 7"."""
    if PLACED.match(value):
        return value
    if wh == "where":
        word = "at" if re.match(r"\d", value) else place
    else:
        word = "on" if DAY.match(value) else "in" if PERIOD.match(value) else "at"
    return f"{word} {value}"


def conjugate(verb: str, how: str) -> str:
    """`how` is "do" (plain), "does" (third person) or "did" (past)."""
    if how == "do":
        return verb
    if how == "did":
        past = verb + "d" if verb.endswith("e") else re.sub(r"(?<=[^aeiou])y$", "i", verb) + "ed"
        return words.IRREGULAR.get(verb, past)
    if verb in ("have", "be"):
        return {"have": "has", "be": "is"}[verb]
    return re.sub(r"(?<=[^aeiou])y$", "ie", verb) + ("es" if re.search(r"(?:s|sh|ch|x|o)$", verb) else "s")
