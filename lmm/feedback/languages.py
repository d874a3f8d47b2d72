"""What was said, from the other side and in its own language: "my sister" is "your sister" in the echo."""

from __future__ import annotations

import re
from collections.abc import Mapping

from lmm.feedback import grammar
from lmm.text.language import is_english

# ------------------------------------------------------------------ the other point of view
_DE = {
    "ich bin": "du bist", "ich habe": "du hast", "ich hab": "du hast", "ich kann": "du kannst", "ich mag": "du magst",
    "ich will": "du willst", "ich muss": "du musst", "ich darf": "du darfst", "ich war": "du warst",
    "ich esse": "du isst", "ich fahre": "du fährst", "ich spreche": "du sprichst", "ich trage": "du trägst",
    "ich vertrage": "du verträgst", "ich heiße": "du heißt", "ich schlafe": "du schläfst", "ich weiß": "du weißt",
    "bin ich": "bist du", "habe ich": "hast du", "hab ich": "hast du", "kann ich": "kannst du",
    "wir sind": "ihr seid", "wir haben": "ihr habt", "sind wir": "seid ihr", "haben wir": "habt ihr",
    "ich": "du", "mich": "dich", "mir": "dir", "wir": "ihr", "uns": "euch",
    "mein": "dein", "meine": "deine", "meinen": "deinen", "meinem": "deinem", "meiner": "deiner", "meines": "deines",
    "unser": "euer", "unsere": "eure", "unseren": "euren", "unserem": "eurem", "unserer": "eurer",
}  # fmt: skip
_FR = {
    "je suis": "tu es", "j'ai": "tu as", "j’ai": "tu as", "je vais": "tu vas", "je peux": "tu peux",
    "je ne suis": "tu n'es", "je n'ai": "tu n'as", "je m'appelle": "tu t'appelles", "je fais": "tu fais",
    "je viens": "tu viens", "je bois": "tu bois", "nous sommes": "vous êtes", "nous avons": "vous avez",
    "on": "vous", "on a": "vous avez", "on est": "vous êtes", "on s'est": "vous vous êtes",
    "je": "tu", "j": "tu", "me": "te", "moi": "toi", "mon": "ton", "ma": "ta", "mes": "tes", "mien": "tien",
    "nous": "vous", "notre": "votre", "nos": "vos",
}  # fmt: skip
_ES = {
    "yo": "tú", "soy": "eres", "estoy": "estás", "tengo": "tienes", "vivo": "vives", "trabajo": "trabajas",
    "llamo": "llamas", "como": "comes", "bebo": "bebes", "hablo": "hablas", "juego": "juegas", "toco": "tocas",
    "odio": "odias", "prefiero": "prefieres", "he": "has", "voy": "vas", "puedo": "puedes", "sé": "sabes",
    "uso": "usas", "calzo": "calzas", "nací": "naciste", "estudio": "estudias", "conduzco": "conduces",
    "al trabajo": "al trabajo", "el trabajo": "el trabajo", "del trabajo": "del trabajo", "de trabajo": "de trabajo",
    "mi trabajo": "tu trabajo", "un trabajo": "un trabajo", "el juego": "el juego", "el uso": "el uso",
    "tomo": "tomas", "quiero": "quieres", "hago": "haces", "somos": "sois", "tenemos": "tenéis",
    "vivimos": "vivís", "estamos": "estáis", "hemos": "habéis", "nosotros": "vosotros", "nosotras": "vosotras",
    "me": "te", "mí": "ti", "mi": "tu", "mis": "tus", "mío": "tuyo", "mía": "tuya", "conmigo": "contigo",
    "nos": "os", "nuestro": "vuestro", "nuestra": "vuestra", "nuestros": "vuestros", "nuestras": "vuestras",
}  # fmt: skip
_ZH = {"我们": "你们", "咱们": "你们", "我": "你", "俺": "你"}
_SWAPS = {"de": _DE, "fr": _FR, "es": _ES}
_DE_NO_VERB = r"(?:die|[dmsk]?eine|welche|diese|jede|alle|viele|heute|gerne|ohne|bitte)\b"
#: a regular verb beside its pronoun: (pattern, what stands instead)
_VERBS = {
    "de": (
        (rf"\bdu (?!{_DE_NO_VERB})(\w+[^\Ws]|\w*s[^\Wt])e\b", r"du \1st"),
        (rf"\b(?!{_DE_NO_VERB})(\w{{2,}}[^\Wstd])e du\b", r"\1st du"),
        (r"\bihr (\w{2,})en\b", r"ihr \1t"),
    ),
    "fr": (
        (r"\btu['’]", "tu "),
        (r"\btu ((?:ne |n['’])?(?:te |t['’])?\w+e)\b", r"tu \1s"),
        (r"\bvous (\w+)ons\b", r"vous \1ez"),
    ),
    "es": (),
}


def echoed(clause: str, tongue: str) -> str:
    """A clause of the user's as the assistant says it: one sentence, from the other point of view."""
    clause = " ".join(clause.split()).strip(" ,;:-–")
    if tongue == "zh":
        said = re.sub("|".join(_ZH), lambda m: _ZH[m[0]], clause).rstrip("。.!！~ ")
        return said + "。"
    if tongue == "en" and not is_english(clause):
        return grammar.sentence(clause)  # of a language in which nothing is said from the other side
    if tongue == "en":
        plain = re.sub(r"\b(i|we)'(d|ll)\b", r"\1 '\2", grammar.plain(clause), flags=re.I)
        return grammar.sentence(re.sub(r"\b(you) '(d|ll)\b", r"\1'\2", grammar.flip(plain), flags=re.I))
    said = _swapped(clause, _SWAPS[tongue])
    for pattern, instead in _VERBS[tongue]:
        said = re.sub(pattern, instead, said, flags=re.I)
    return grammar.sentence(said)


def _swapped(text: str, swaps: Mapping[str, str]) -> str:
    longest = sorted(swaps, key=len, reverse=True)
    pattern = rf"(?<![\w@./-])(?:{'|'.join(map(re.escape, longest))})(?![\w@-])"
    return re.sub(pattern, lambda m: swaps[m[0].lower()], text, flags=re.I)
