"""What the model found in a turn, as lessons: the fact said back, and a question with its answer where one is sure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import cast

from lmm.feedback import about, dates, grammar, leftout, people, replies, spans
from lmm.feedback.exchange import Exchange, asks, wants
from lmm.feedback.facts import MAX_VALUE, Fact
from lmm.feedback.languages import echoed
from lmm.feedback.model import Findings, Span, TurnReader
from lmm.feedback.reading import NOTHING, UNSURE, Kind, Reading
from lmm.feedback.statements import POLITE, TEACH, fact_of
from lmm.feedback.vetoes import after_denial, is_denial
from lmm.feedback.words import NUMBERS, anycase, word_set
from lmm.lesson import Lesson
from lmm.text.fold import contains, fold, words
from lmm.text.language import FREQUENT_WORDS, language
from lmm.text.names import in_full, role_and_name, without_others
from lmm.text.sentences import clauses, ends_asking, sentences, shares_subject
from lmm.text.values import NAME, atoms


def reading(reader: TurnReader, said: str, last: Exchange | None, known: Sequence[Lesson]) -> Reading:
    """A turn read by the model."""
    parts = sentences(said)
    if len(kept := [part for part in parts if not FORGET_THAT.match(part)]) < len(parts):
        said = " ".join(kept)  # what is to be forgotten is not told
        if not said:
            return Reading("retraction", why="to be forgotten")
    said = _as_meant(reader, leftout.with_what(said, last))
    parts = sentences(said)
    once = dict.fromkeys(parts)
    text = grammar.quiet(said if len(once) == len(parts) else " ".join(once))  # said twice is said once
    tongue = language(text if len(text) > 20 or last is None else f"{last.user} {last.assistant} {text}")
    if last is not None and _in_another(text, tongue, language(last.user)):
        last = None  # nobody corrects in another language
    if reader.name == "minilm" and tongue != "en":
        return replace(NOTHING, why="not English")
    demand = TAKES_BACK.match(text)
    if demand:
        last = None  # whatever was said before it, and it is no correction of that
    heard = reader.hear(text, _in_full(last) if last is not None and tongue == "en" else last)
    if last is not None and heard.kind == "nothing" and not asks(text):
        alone = reader.hear(text, None)  # what went before it may hide that it says something of its own
        tells = heard.sure < 0.5 and alone.kind == "nothing" and alone.sure < 1 - SURE and not TAKEN_BACK.match(text)
        if (alone.facts and heard.sure > 0.5) or (tells and not POINTING.match(text)):
            heard, last = alone, None
    for other in (dates.dated(text, tongue, ahead=True), grammar.contracted(text) if tongue == "en" else text):
        if heard.kind != "nothing" or heard.facts or other == text:
            continue  # tomorrow is over soon, and a date stays; "just" is not only said of what passes
        alone = reader.hear(other, None)
        if alone.facts and alone.facts[0].subject and alone.sure > SAME:
            heard, text, last = alone, other, None
    told_too = [part for part in parts if not asks(part)]
    if not heard.facts and heard.kind == "nothing" and 0 < len(told_too) < len(parts):  # or a question beside it
        rest = grammar.quiet(" ".join(told_too))
        alone = reader.hear(rest, None)
        if alone.facts and alone.sure > SURE:
            heard, text, last = alone, rest, None

    def without_lesson(kind: str, why: str) -> Reading:
        # what is told beside what is asked, be it in a clause of that: "Now that the boat is sold, what shall we do?"
        telling = told_too or [clause for part in parts for clause in clauses(part) if not asks(clause)]
        doubtful = None if demand or not telling else _note(said, tongue, telling)
        return Reading(cast(Kind, kind), why=why, doubtful=doubtful)

    if not heard.facts:
        if last is not None and heard.sure < 0.5 and heard.kind == "nothing" and not replies.is_factual(text):
            return without_lesson("nothing", UNSURE)
        enough = SURE if not LIST.fullmatch(text) else 0.0 if IS_LIST.match(text) else LISTED
        if heard.kind == "nothing" and heard.sure < 1 - enough and not asks(text) and len(text) <= MAX_VALUE:
            whole = _note(said, tongue)  # it tells something, and no word of it alone is what it tells
            return Reading("statement", whole, text, whole.echo.rstrip(".。"), f"statement, {1 - heard.sure:.2f}")
        return without_lesson(heard.kind, f"{heard.kind}, {heard.sure:.2f}")
    if (put := _instead_of_old(reader, text, last, tongue, known)) is not None:
        return put
    told, restated = None, False
    if last is not None and _about_last(heard, last):
        found, answers = _correction(reader, text, heard, last, tongue, known), asks(last.user)
        told = [found] if found else [] if answers and not _in_own_words(heard.facts[0], last) else None
        restated = found is not None and not answers  # "sorry, Wednesday" tells nothing alone
    if told is None:
        own = last is not None and not asks(last.user) and _of_the_same(heard.facts[0], last)  # which may be corrected
        heard = heard if own or heard.kind != "correction" else replace(heard, kind="statement")
        told = _statements(text, heard, tongue, known)
    if not told and last is not None and (named := _named_in_full(reader, text, last, tongue, known)):
        alone = reader.hear(named, None)
        told, restated = (_statements(named, alone, tongue, known) if alone.facts else []), True
    if not told:
        return without_lesson("nothing", "nothing that lasts")
    one = told[0]
    if len(told) == 1 and one.lesson and not restated:
        one = replace(one, lesson=replace(one.lesson, statement=said.strip()))
    return replace(one, also=tuple(told[1:]))


def _in_another(text: str, tongue: str, before: str) -> bool:
    """Is a turn surely in another language than the one before it? Few signs say as much as many letters."""
    if (tongue == "zh") != (before == "zh"):
        return sum(char > "\u2e80" for char in text) > 3 or (tongue != "zh" and len(words(text).split()) > 3)
    return tongue != "en" and len(text) > 20 and before not in ("en", tongue)


def _named_in_full(reader: TurnReader, text: str, last: Exchange, tongue: str, known: Sequence[Lesson]) -> str:
    """ "She is twelve." after "My daughter Isaura plays the bassoon." as "My daughter Isaura is twelve."; "" where it
    is not clear whom that means."""
    plain = grammar.plain(text)
    if tongue != "en" or asks(last.user) or not people.PRONOUN.match(plain):
        return ""
    own = reader.hear(last.user, None).facts
    return people.named_in_full(plain, last.user, own[0], [lesson.subject for lesson in known])[1] if own else ""


SURE = 0.9  # of what is read beside a question, or without a value,
LISTED = 0.4  # and where it is a list with a name
SAME = 0.8  # of the same in other words


# ------------------------------------------------------------------ statements
POINTING = anycase(
    r"(?:(?:now|so|and|but|well|no),? )?(?:she|he|it|they|her|his|its|their|that|this|sie|er|es|elle|ella|él"
    r"|il(?!.*\b(?:è|all[ae]|dell?[aeo]?|nell?[ae]?|con|mi[oa]|tu[oa]|per|gli|di|si)\b)"  # no article of Italian
    r"|她|他|它)(?:['’]?s|['’]?re)?(?![\w])"
)
#: "it's always Dov who locks up" names whom it speaks of
CLEFT = anycase(
    r"it(?:['’]?s| is| was)\b[^,;.!?]+ (?:who|that|which)\b|c['’]est [^,;.!?]+ qui\b|es ist [^;.!?]+, d(?:er|ie|as)\b"
)
#: "they changed the code, it's 7740 now" says of what, and whoever did it does not matter
DID = re.compile(r"(?:They|they|IT)\b")
OF_IT = anycase(r"(?:(?:so|and|now) )?it(?:s|['’]s)?\b")
OF_THAT = anycase(r"c['’]est ")
OF_THEM = anycase(r"\b(?:it|them|him)\b")
LEANS = anycase(r"the \w+ (?:is|are|was|were)\b")  # "the code is 4711" is of what was said before it


TAKES_BACK = anycase(
    r"(?:(?:please|ok(?:ay)?|now|you can|can you|could you|i want you to|bitte|s['’]il te pla[iî]t|por favor),? )*"
    r"(?:forget|unlearn|vergiss|oublie|olvida|忘掉|忘记|忘了)\b"
)


FORGET_THAT = anycase(rf"{TAKES_BACK.pattern} (?:that|dass|daß|que|qu['’]|che) ?(?=[\w¿])")


def _in_full(last: Exchange) -> Exchange:
    """A bare answer as the sentence it stands for: the model has seen few replies of one word."""
    answer = last.assistant.strip(" .")
    if not 0 < len(words(answer).split()) <= 3 or not replies.is_factual(last.user):
        return last
    return replace(last, assistant=replies.answer_to(replies.core(last.user), answer))


def _statements(text: str, heard: Findings, tongue: str, known: Sequence[Lesson]) -> list[Reading]:
    """The facts of a turn. Each has its part of it, and nothing that was said is lost; each may be forgotten alone."""
    bare = [fact for fact in heard.facts if fact.clause == fact.value and BEGINS.search(text[: fact.at])]
    facts = [fact for fact in heard.facts if fact not in bare] or heard.facts  # a name that a sentence begins with
    first, *more = (_with_companion(text, _with_list(text, fact)) for fact in facts)
    more = [leftout.in_full_of(text, fact, first) for fact in more]
    if tongue == "en":
        subjects = [lesson.subject for lesson in known]
        first, *more = (people.with_subject(text, fact, first, subjects) for fact in (first, *more))
    alone = [
        fact
        for fact in more
        if ((fact.subject and fact.subject in fact.clause) or _named(fact.clause))
        and not CALLED.search(text[: fact.at])
        and not _goes_with(text, fact)
        and not (
            MINE.match(fact.subject) and fact.clause.startswith(fact.subject) and leftout.does(fact) in ("", "'s", "’s")
        )
        and not (OF_THEM.search(fact.clause) or LEANS.match(fact.clause))
    ]
    told = [(fact, found) for fact in (first, *alone) if (found := _statement(text, fact, heard, tongue, known))]
    starts = [0, *(fact.at for fact, _ in told[1:]), len(text)]
    parts = [LINK.sub("", text[a:b].strip(" ,;:-–(")) for a, b in pairwise(starts)]
    as_said = {fact.at: fact.clause for fact in heard.facts}
    parts[1:] = [
        fact.clause + part.removeprefix(as_said[fact.at]) if part.startswith(as_said[fact.at]) else part
        for part, (fact, _) in zip(parts[1:], told[1:], strict=True)
    ]
    inside = [[fact.value for fact in more if fact not in alone and a <= fact.at < b] for a, b in pairwise(starts)]
    return _side_by_side(
        _with_all(found, part, fact, tongue, said_too)
        for part, (fact, found), said_too in zip(parts, told, inside, strict=False)
    )


#: where another fact may begin, and where what somebody is stands behind their name: "Fabrizio, il liutaio di Cremona"
APART = re.compile(
    r"(?:^|[^\w\s]|[\u3400-\u9fff]|\b(?:and|but|so|or|und|aber|et|mais|y|e|pero|ma|because|while|whose|who|that))\s*$"
)
NAMED_BEFORE = re.compile(r"[A-ZÀ-Þ][\w'’-]+, $")
THE_ONE = anycase(r"(?:il|lo|la|l['’]|le|el|der|die|das)\b")


def _goes_with(text: str, fact: Span) -> bool:
    """Is a later fact a part of the clause before it: "las bicis están en el garaje" after "en el piso de Cádiz"? Not
    where what it leaves out was put back."""
    before = text[: fact.at]
    if not text.startswith(fact.clause, fact.at):
        return False
    what = NAMED_BEFORE.search(before) and THE_ONE.match(fact.clause)
    return bool(what) or (" " in before.strip() and not APART.search(before))


def _side_by_side(told: Iterable[Reading]) -> list[Reading]:
    """What was told in one breath holds together: none takes the place of one before it."""
    out, keys = list[Reading](), set[tuple[str, str]]()
    for one in told:
        lesson = one.lesson
        if lesson is not None and keys & lesson.keys:
            if ("asked", fold(lesson.prompt)) in keys:
                lesson = replace(lesson, prompt="", answer="", wordings=())
            lesson = replace(lesson, relation="")
        keys |= lesson.keys if lesson is not None else set()
        out.append(replace(one, lesson=lesson))
    return out


#: "packing list: passport, charger, towels"
IS_LIST = anycase(r"(?:[\w'’-]+ ){0,3}?(?:list|shopping|groceries|to-?dos?|guests|menu)\b[^:?!.]{0,40}:")
LIST = re.compile(r"[^:?!.\n]{3,80}: [^:?\n,]+(?:, [^:?\n,]+){2,}[.!]?")
#: what stands behind the first of a list that has a name, and goes on with it
MORE_OF_IT = re.compile(r"(?:, [^:?,.;!\n]+){2,}(?=[.;!\n]|$)")


def _with_list(text: str, fact: Span) -> Span:
    """The fact with all that it lists, of which a span is the first: "shopping: halloumi, bin bags, limes"."""
    at = text.find(fact.value, max(fact.at, 0))
    more = MORE_OF_IT.match(text, at + len(fact.value)) if at > 0 and text[:at].endswith(": ") else None
    if more is None or len(fact.value) + len(more[0]) > MAX_VALUE:
        return fact
    value = fact.value + more[0]
    clause = fact.clause if value in fact.clause else fact.clause.replace(fact.value, value, 1)
    return replace(fact, value=value, clause=clause if clause in text else fact.clause)


def _with_companion(text: str, fact: Span) -> Span:
    """The fact from the beginning of its sentence, where "Vera and I" begin it."""
    both = COMPANION.search(text[: fact.at]) if re.match(r"I\b", fact.clause) else None
    return replace(fact, clause=f"{both[0]}{fact.clause}", at=both.start(), subject="") if both else fact


#: who it is, before what they are: "Mrs Ida Holm, our cleaner, comes on Fridays"
CALLED = re.compile(r"(?:^|[.!?;] )(?:[A-Z][\w'’-]*\.? )+[A-Z][\w'’-]+, $")
BEGINS = re.compile(r"(?:^|[.!?;。！？；])\s*$")
COMPANION = re.compile(r"(?:(?<=[.!?;,] )|^)(?:[Mm]y [\w-]+|[A-Z][\w.'’-]+)(?: [A-Z][\w.'’-]+)* and $")


def _note(said: str, tongue: str, telling: Sequence[str] = ()) -> Lesson:
    """A turn kept whole, without a question that it would answer; said back is what of it is `telling`, or does not
    ask."""
    said = said.strip()
    parts = sentences(said)
    telling = telling or [part for part in parts if not ends_asking(part)] or parts
    return Lesson(statement=said, echo=" ".join(_said_back(part, "", tongue) for part in telling))


def _in_echo(values: Sequence[str], tongue: str) -> tuple[str, ...]:
    """As the assistant says them: "your aunt" for "my aunt"."""
    return tuple(grammar.flip(value) if tongue == "en" else value for value in values)


LINK = anycase(
    r"[,;. ]+(?:and(?: of| for)?|but|so|&|und|aber|deshalb|et|mais|donc|du coup|y|e|pero|quindi|perciò|dus)$"
)


def _with_all(found: Reading, part: str, fact: Span, tongue: str, more: Sequence[str]) -> Reading:
    """The lesson with the whole of its part of the turn, said back sentence by sentence; `more` are the values of other
    facts that it has, too, and then the line says them all."""
    if found.lesson is None:
        return found
    told = [fact.clause if ends_asking(one) and fact.clause in one else one for one in sentences(part)]
    if tongue == "en" and fact.subject and fact.clause.startswith(fact.subject):  # nobody knows who "she" is
        told = [people.with_whom(one, fact.subject) if contains(one, fact.value) else one for one in told]
    said = [
        _said_back(in_full(one, found.lesson.subject), in_full(fact.clause, found.lesson.subject), tongue)
        for one in told
        if not (HELLO.fullmatch(one) or ends_asking(one) or (wants(one) and not contains(one, fact.value)))
    ]
    values = (*found.lesson.values, *_in_echo(more, tongue))
    lesson = replace(found.lesson, statement=part, echo=" ".join(said) or found.lesson.echo, values=values)
    whole = more or not lesson.prompt
    return replace(found, lesson=lesson, summary=lesson.echo.rstrip(".。") if whole else found.summary)


HELLO = anycase(
    r"(?:hi|hello|hey|hiya|yo|good (?:morning|evening|afternoon)|hallo|moin|guten (?:tag|morgen|abend)|salut|bonjour"
    r"|bonsoir|hola|buen[oa]s (?:días|tardes|noches)|ciao|你好)(?: (?:there|again|all|everyone|lmm))?[\s!.,👋]*"
)
#: before what is right, that something else was not
TAKEN_BACK = anycase(
    r"^(?:(?:and|but|ah+|oh+|hm+|ach|ay|eh|no+|nope|nah|wait|hang on|hold on|sorry|o+ps|whoops|my (?:bad|mistake)"
    r"|i (?:mis(?:heard|read|spoke|typed|remembered)|(?:got|had) (?:it|that|this) wrong|was (?:wrong|mistaken))"
    r"|wrong|actually|correction|scratch that|nein|quatsch|falsch|moment|warte|korrektur|entschuldigung|verzeihung"
    r"|stimmt nicht|doch nicht|mais non|non|faux|pardon|désolée?|oups|attends|en fait|perdón|espera|mentira"
    r"|te equivocas|me equivoqué|en realidad|不|不对|不是|错了|我?说错了|打错了|等等|抱歉|对不起|更正)\b"
    r"[\s,，!！;；:：.…-]*)+(?<=[,，!！;；:：.…-]) ?"
)
#: before a clause, "btw" and "just so you know:" more likely than a part of the fact
FRAME = anycase(r".{,11}|.{,32}[,:;–—](?: (?:so|and|but|well|now|that))? ")
OF_ME = anycase(r"(?:i|we)\b")  # "I'm saving for a kayak, need 1,900"
#: what a clause begins with that is a part of the one before it: "I sing, on Mondays"
LEADS = anycase(
    r"(?:in|on|at|from|to|for|with|by|every|each|since|until|till|near|under|behind|bei|mit|um|am|im|seit|jeden"
    r"|chez|avec|depuis|à|en|con|desde|cada)\b"
)
REMEMBER = anycase(
    r"^(?:(?:please|pls|and|also|(?:can|could|will) you|i(?: want|['’]d like) you to),? )*"
    r"(?:remember|note|keep in mind|bear in mind|(?:don['’]?t|do not|never) forget|memori[sz]e|take note|make a note)"
    r"(?: (?:for (?:later|next time)|please))?,? ?(?:that |(?:this|it)?: ?)(?=\S)"
)
SPEAKS = anycase(r"\b(?:i|im|ive|id|me|my|mine|myself|we|us|our|ours)\b")


REMARKS = word_set("quick reminder update news fun random fact thing things good bad great big small sad finally happy "
                   "note sure heads question exciting guess guys turns out love life story times day")  # fmt: skip


def _tells(frame: str) -> bool:
    """Does it say of what that is which follows, as "physio on the knee:" and "need a gift for Kenji," do, and "by the
    way:" does not?"""
    said = POLITE.sub("", TEACH.sub("", f"{frame.rstrip()} -"))  # both want something behind them
    return bool(_content(said) - REMARKS)


#: what is asked for at the end of a sentence that tells something, without a mark
REQUEST = anycase(
    r"(?<=\w)(?:,| -|–)? (?:btw,? |by the way,? )?(?:(?:so|and|but|also|anyway),? )?"
    r"(?:(?:can|could|would|will) (?:you|u)|kannst du|könntest du|peux-tu|tu peux|pourrais-tu|puedes|podrías|puoi)"
    r" [^.!?]+[.!?]*$"
)


BY_THE_WAY = anycase(
    r"^(?:note to self|à noter|notiz|nota|zur info|pour info|fyi|übrigens|ach ja|nebenbei|au fait|d['’]ailleurs|tiens"
    r"|por cierto|a propósito|comunque|a proposito|对了|顺便说一下|顺便)(?![a-zà-ÿ]) ?[,，:]? ?"
)


HAS = anycase(r"(?:she|he|they)(?:['’](?:s|re|ve)| is| are| has| have) ")  # what it is of, and no frame


def _said_back(sentence: str, clause: str, tongue: str) -> str:
    """A sentence of the user's as the assistant says it; without the frame where it has the `clause` of the fact, and
    without what is asked for beside it."""
    told, part = (REQUEST.sub("", text) for text in (sentence, clause))
    if len(told.split()) > 2 and part in told:
        sentence, clause = told, part
    sentence = REMEMBER.sub("", BY_THE_WAY.sub("", TAKEN_BACK.sub("", sentence))) or sentence
    at = sentence.find(clause)
    framed = (
        at >= 0
        and not sentence[at - 1 : at].isalnum()
        and FRAME.fullmatch(sentence[:at])
        and not DIGIT.search(sentence[:at])
        and not _tells(sentence[:at])
        and not CALLED.search(sentence[:at])
        and not HAS.fullmatch(sentence[:at])
        and not (OF_ME.match(sentence) and shares_subject(clause, "I"))
        and not any(begins.match(clause) for begins in (POINTING, OF_THAT, LEADS))
    )
    sentence = dates.dated(sentence[at:] if framed else sentence, tongue)
    sentence = _stated(sentence, tongue) if framed else sentence
    if tongue == "en" and not SPEAKS.search(sentence):  # "you" is anyone then
        return grammar.sentence(grammar.plain(sentence))
    return echoed(sentence, tongue)


def _statement(text: str, fact: Span, heard: Findings, tongue: str, known: Sequence[Lesson]) -> Reading | None:
    """A fact the user states; None if it will not be true tomorrow."""
    clause = _whole(text, fact)
    stated = _stated(dates.dated(clause, tongue), tongue)
    says_of_what = CLEFT.match(stated) or (DID.match(stated) and OF_IT.match(fact.clause))
    points = POINTING.match(stated) and not says_of_what
    if points or not 0 < len(fact.value) <= MAX_VALUE or grammar.RELATIVE.search(stated):
        return None
    subject, relation = _about(fact, known)
    lesson = Lesson(
        statement=clause,
        echo=echoed(in_full(stated, subject), tongue),
        subject=subject,
        relation=relation,
        values=_in_echo([fact.value], tongue),
    )
    named = len(subject) > 2 and fact.subject and stated.startswith(fact.subject)  # not "I" and "we"
    full = stated.replace(fact.subject, subject, 1) if named else stated
    asked = question_of(full, fact.value) if tongue == "en" and not POINTING.match(fact.clause) else None
    value, summary = fact.value, lesson.echo.rstrip(".。")
    if asked and not _taken(asked.questions[0], lesson, known):
        prompt, *others = asked.questions
        shorter = [short for question in asked.questions for short in _shorter(question, subject)]
        lesson = replace(lesson, prompt=prompt, answer=asked.answer, wordings=(*others, *shorter))
        value = value if value in asked.answer else asked.value
        summary = replies.in_a_line(prompt, lesson.answer, value)
    return Reading(cast(Kind, heard.kind), lesson, value, summary, f"{heard.kind}, {heard.sure:.2f}")


def _shorter(question: str, subject: str) -> list[str]:
    """It asks the same with the name alone, and with the role alone."""
    both, found = role_and_name(subject), re.search(re.escape(subject), question, re.I)
    if not both or not found or question.split()[0].lower() not in replies.ASKING:
        return []
    role, name = f"{both[0][0].lower()}{both[0][1:]}", both[1]
    return [f"{question[: found.start()]}{part}{question[found.end() :]}" for part in (name, role)]


def _whole(text: str, fact: Span) -> str:
    """The clause, or all that was said where it cannot stand alone: "her name is Miso" does not say whose name."""
    alone = " " in fact.clause.strip() or ord(fact.clause[0]) > 0x3400
    return text.strip() if fact.at and (POINTING.match(fact.clause) or not alone) else fact.clause


def _taken(question: str, lesson: Lesson, known: Sequence[Lesson]) -> bool:
    """Would the answer push out one to the same question that stays true, as a second dish that is hated would? What
    "my username is" has one answer at a time."""
    rivals = [other for other in known if fold(other.prompt) == fold(question)]
    return not ONE.match(question) and any(other.relation and other.relation != lesson.relation for other in rivals)


ONE = anycase(r"(?:what|when|where) (?:is|are) (?:my|our|the|[\w ]+['’]s?) ")
USED_TO = anycase(
    r"^(\S.*?) (?:used to be|was) [^,;]+?[,;]? (?:but|and)? ?(?:now|since [^,]+?|today|nowadays|these days),? "
    r"(?:it is|it has been|they are|is) (?:now )?"
)


def _stated(clause: str, tongue: str) -> str:
    """The clause without "btw" before it and without "remember that", as it was meant after "no wait"."""
    for pattern in (POLITE, TEACH, POLITE):
        clause = pattern.sub("", clause.strip(), count=1)
    return USED_TO.sub(r"\1 is ", grammar.repaired(grammar.plain(clause)) or clause) if tongue == "en" else clause


_TIME = rf"(?:the )?\d|(?:{grammar.WEEKDAY}|{grammar.MONTH}|next|another|a later|an earlier)\b"
MOVED = re.compile(  # not to another time
    rf"^(.+?)(?:['’]ve| have| has)? (?:just |recently )?moved to (?!{_TIME})", re.I
)


#: what makes a value one of a difference, or no value of what the clause begins with
COMPARES = anycase(
    r"\s*(?:older|younger|taller|longer|shorter|later|earlier|more|less|fewer|cheaper|dearer|bigger|smaller|faster|slower"
    r"|further|away|ahead|behind|left)\b"
)
THERE = anycase(r"there (?:is|are|was|were|will|has|have)\b")


A = anycase(r"\ban? $")
GOES_ON = re.compile(
    r" (?!(?:and|but|or|in|on|at|of|for|with|by|from|to|near|now|who|which|that|since|until|as|than|every|each|these"
    r"|this|again|too|because|so|when|where|while|if|per|a|an|the|my|our|his|her|their|is|are|was|were|called|named)\b)[a-z]"
)


def question_of(clause: str, value: str) -> Fact | None:
    """The question a clause answers, if the rules find the very value in it that the model found."""
    first, *rest = value.split() or [""]
    more = rest[-1] if rest and grammar.is_number(first) else ""
    if THERE.match(clause) or COMPARES.match(more) or COMPARES.match(clause[clause.find(value) + len(value) :]):
        return None
    clause = MOVED.sub(
        lambda m: f"{m[1]} live{'' if m[1].lower() in ('i', 'we', 'they') else 's'} in ", _stated(clause, "en")
    )
    found = fact_of(clause, taught=True)
    if found and contains(value, found.value):
        return found
    end = clause.find(value) + len(value)
    if GOES_ON.match(clause, end) and A.search(clause[: clause.find(value)]):
        return None  # "a Porto person"
    found = fact_of(clause[:end], taught=True) if len(value) <= end < len(clause) else None
    return found if found and words(grammar.bare(found.value)) == words(grammar.bare(value)) else None


# ------------------------------------------------------------------ corrections
def _about_last(heard: Findings, last: Exchange) -> bool:
    """Is it about what was asked last? Not if it names a subject that question and reply do not: a cousin after a
    brother, production after staging. "It is on Thursday now" is about the last thing also where nothing was wrong."""
    fact = heard.facts[0]
    if DOES.match(fact.clause) and asks(last.user) and not TAKEN_BACK.match(fact.clause):
        return False  # "He switched to the cello" is no answer
    if heard.kind != "correction":
        return bool(POINTING.match(fact.clause)) and not fact.at and asks(last.user)
    if asks(last.user) and (_goes_on(fact, last) or _of_something_else(fact, last.user)):
        return False
    if not asks(last.user) and not _only_a_value(_put_right(fact), last.user):
        return False  # a sentence of its own, which the last one would not be with its value
    return _of_the_same(fact, last)


MINE = anycase(r"(?:my|our)\b")
DOES = anycase(r"(?:he|she|they) (?!is\b|are\b|was\b|were\b|has been\b|have been\b)\w+")
PLACED = anycase(r"\b(?:in|at|on|by|near|behind|under|over|beside|inside|outside|with|from|to|next to)\b")


def _of_something_else(fact: Span, asked: str) -> bool:
    """Does it say of a thing of the user's, in a sentence of its own, something else than was asked? "My landlord is Mr
    Oskarsen" after "Where does my landlord live?". Where it is an answer all the same, nothing is lost."""
    if fact.at or not MINE.match(fact.clause):
        return False
    where = asked.lower().startswith("where") and not PLACED.search(fact.clause)
    return where or not _content(asked) <= _content(fact.clause)


def _goes_on(fact: Span, last: Exchange) -> bool:
    """Does it tell more of what the reply names? "My dog Rufus is deaf" after "Your dog's name is Rufus."."""
    named = _said_wrong(fact.clause, fact.value, last.user, last.assistant)
    return bool(named) and contains(fact.subject or _named(fact.clause), named) and not NOT.search(fact.clause)


def _of_the_same(fact: Span, last: Exchange) -> bool:
    """Does it name no subject but what was spoken of last?"""
    named, there = _named(fact.clause), f"{last.user} {last.assistant}"
    if about.subject_of("", fact.subject or named) in ("I", "we"):
        asked = asks(last.user) and not WHO.search(last.user)
        return bool(FIRST_PERSON.search(without_others(last.user) if asked else there))
    return _content(f"{fact.subject} {named}") - _content(fact.value) <= _content(there)


def _in_own_words(fact: Span, last: Exchange) -> bool:
    """Does it say in a sentence of its own what the reply says? That may know it from the conversation alone."""
    return contains(last.assistant, fact.value) and not _only_a_value(fact, last.user)


def said_already(text: str, last: Exchange) -> bool:
    """Does it deny the reply and then say what the reply says: "no, it's Bern" after "It is Bern."?"""
    instead = after_denial(text)
    named = _content(instead)
    return bool(named) and not asks(instead) and not NOT.search(instead) and named <= _content(last.assistant)


def _put_right(fact: Span) -> Span:
    """The fact with what follows its excuse alone: "it's 02:40" of "hm no, it's 02:40, just checked"."""
    for sentence in sentences(fact.clause):
        piece = re.split(r"[,;.!?，。；！？](?:\s|$)", TAKEN_BACK.sub("", sentence), maxsplit=1)[0]
        if TAKEN_BACK.match(sentence) and fact.value in piece:
            return replace(fact, clause=piece)
    return replace(fact, clause=IN_FACT.sub("", fact.clause))


IN_FACT = anycase(r"^(?:actually|in fact|well)\b,? (?=(?:it|that|this|they|he|she)\b)")


def _only_a_value(fact: Span, before: str) -> bool:
    """Does it name nothing and say nothing that the statement before does not, but a value? "No wait, Wednesday", "I
    meant Oslo"."""
    subject = fact.subject or _named(fact.clause)
    if not subject and not POINTING.match(fact.clause):
        return _around(fact) <= FEW or bool(MEANT.search(fact.clause))
    if about.subject_of("", subject) in ("I", "we"):
        return bool(MEANT.search(fact.clause))
    return not _content(subject) and _content(fact.clause) - _content(fact.value) <= _content(before)


def _around(fact: Span) -> int:
    """Words of the clause beside its value."""
    return len(words(fact.clause.replace(fact.value, " ", 1)).split())


#: before what puts right what was said a moment ago, in the same message
SLIP = (
    r"(?:(?:u[hm]+|er+m?|oh|ah|ach|no+|nein|non|wait|hang on|hold on)\b[\s,.!…-]*)*"
    r"(?:sorry|o+ps|whoops|i mean|i meant|(?:no,? )?wait,? no|no,? wait|scratch that|make that|correction|or rather"
    r"|my (?:bad|mistake)|i mis(?:spoke|typed)|typo|ich meine|ich meinte|quatsch|entschuldigung|verzeihung|falsch"
    r"|pardon|je veux dire|je voulais dire|désolée?|perdón|digo|quiero decir|quise decir)(?!\w)"
)
IN_PASSING = anycase(rf"(?:^|[,;]|\s[-–—(]|\.\.\.|…|，)\s*(?={SLIP})")
PUTS_RIGHT = anycase(SLIP)


def _as_meant(reader: TurnReader, said: str) -> str:
    """What is put right in the same breath, as it was meant: "The code is 12. Sorry, I mean 13." is "The code is 13."
    Read as the next message would be."""
    if not PUTS_RIGHT.search(said):
        return said
    spoken, meant = sentences(said), list[str]()
    for sentence in spoken:
        start, *slip = filter(None, IN_PASSING.split(sentence, 1))
        if slip:
            meant.append(_put_right_by(reader, start, slip[0]) or grammar.repaired(sentence) or sentence)
        elif meant and PUTS_RIGHT.match(start) and (right := _put_right_by(reader, meant[-1], start)):
            meant[-1] = right
        else:
            meant.append(sentence)
    return " ".join(meant) if meant != spoken else said


def _put_right_by(reader: TurnReader, before: str, said: str) -> str:
    """The sentence with what was said after it in the place of a value of its last clause; "" where that is not
    clear."""
    clause = clauses(before)[-1]
    found = reading(reader, said, Exchange(clause, ""), ())
    lesson = found.lesson if found.kind == "correction" else None
    if lesson is None or contains(lesson.statement, said) or contains(said, f"not {found.value}"):
        return ""
    return before[: before.rfind(clause)] + lesson.statement


FEW = 3  # words around a bare value: "no wait, the", "sorry, not"
#: how one says that one said something else
MEANT = anycase(r"\b(?:meant?|sa(?:y|id)|mis(?:read|heard|spoke|typed)|meinte|voulais?|dire|quise|decir)\b|说错|意思")


def _named(clause: str) -> str:
    """What a clause is about by its form: "my name" of "Actually, my name is Bob"; "" if it has another."""
    m = NAMED.match(_stated(clause, "en"))
    if not m or _content(m["what"]):
        return m["what"] if m else ""
    return {"i": "I", "my": "I", "we": "we", "our": "we"}.get(m["of"].lower(), "")


NAMED = anycase(
    r"(?P<of>my|our|the|i|we)\b(?P<what>(?: (?!is\b|are\b|was\b|were\b|has\b)[\w'-]+){0,3}?)"
    r" (?:is|are|was|were|am|has|have|runs?|lives?|works?|listens?|uses?|starts?|plays?)\b"
)
#: asks for somebody, of whom the user may tell by what they do themselves: "I report to Tim now"
WHO = anycase(r"\b(?:who|whose|names?|called|wer|wessen|heißt|qui|nom|appelle|quién|nombre|llama)\b|谁")
#: what is said of an answer, not of a thing
ANSWERS = word_set("answer right correct real actual true spelling one name word number date year thing value")
FIRST_PERSON = anycase(
    r"\b(?:i|my|me|we|our|us|you|your|ich|du|mein\w*|dein\w*|wir|unser\w*|ihr|euer|je|tu|mon|ma|mes|ton|ta|tes|nous"
    r"|vous|notre|votre|on|yo|mi|mis|tus|tú|nuestr\w+|vuestr\w+)\b|\bj['’]|¿|[我你]"
)


def _content(text: str) -> set[str]:
    """The words that tell one thing from another, without endings of the plural and the genitive; of a script without
    blanks its characters."""
    said = {spans.stem(m[0].casefold()) for m in _TOKEN.finditer(text.translate(grammar.APOSTROPHES))}
    return said - spans.FUNCTION - _LINKS - FREQUENT_WORDS - ANSWERS


def _correction(
    reader: TurnReader, text: str, heard: Findings, last: Exchange, tongue: str, known: Sequence[Lesson]
) -> Reading | None:
    """The right value in the place of the wrong one: in the last answer, or in what the user said last."""
    fact = heard.facts[0]
    if len(fact.value) > MAX_VALUE or grammar.RELATIVE.search(fact.value):
        return None
    if not asks(last.user):
        own = reader.hear(last.user, None)
        if own.facts:
            return _restated(text, last.user, own, fact, tongue, known)
        if tongue == "en" and not replies.is_factual(last.user):
            return None
    question = replies.core(last.user) if tongue == "en" else " ".join(last.user.split())
    forgotten = FORGOTTEN.match(text)
    wrong = _said_wrong(text, fact.value, question, last.assistant)
    value = fact.value
    if tongue == "en":
        article = re.search(r"\b(?:an?|the) $", text[: text.rfind(value)], re.I)
        phrase = spans.like((article[0] if article else "") + value, question, last.assistant)
        value = grammar.bare(phrase)
        if not value:
            return None
        reply = "" if asks(last.assistant) else last.assistant  # what asks back is no form of an answer
        answer = replies.answer_to(question, phrase, reply, wrong, TAKEN_BACK.sub("", fact.clause))
        others = replies.reworded(question)
    else:
        answer = put_right(f"{question} {echoed(question, tongue)}", last.assistant, wrong, value)
        others = ()
    if contains(last.assistant, value) and not wrong and not is_denial(re.split(r"[,.!，。！]", text)[0]):
        return None  # it agrees
    if forgotten:
        answer = _with_one_more(last.assistant, value)
    if not contains(answer, value):
        answer = value
    lesson = Lesson(prompt=question, answer=answer, statement=text, wordings=tuple(others), values=(value,))
    if answer != value:
        said = reader.hear(grammar.flip(answer) if tongue == "en" else answer, None).facts
        subject, relation = _about(said[0], known) if said and words(said[0].value) == words(value) else ("", "")
        lesson = replace(lesson, echo=answer, subject=subject, relation=relation)
    summary = replies.in_a_line(question, answer, value)
    return Reading("correction", lesson, value, summary, f"correction, {heard.sure:.2f}")


def _about(fact: Span, known: Sequence[Lesson]) -> tuple[str, str]:
    """Subject and relation of a fact, both "" in doubt; no relation where a known lesson has both and names something
    else beside them, since neither takes the place of the other by that alone."""
    subject = about.subject_of(_stated(fact.clause, "en"), fact.subject)
    relation = about.relation_of(fact.clause, fact.subject, fact.value)
    if not subject or not relation:
        return "", ""
    subject = about.same_subject(subject, [lesson.subject for lesson in known if lesson.subject])
    rivals = [x for x in known if x.statement and x.relation == relation and fold(x.subject) == fold(subject)]
    said = fact.clause, f"{subject} {fact.subject}", [fact.value]
    apart = any(about.apart(relation, said, (x.statement, x.subject, x.values)) for x in rivals)
    return subject, "" if apart else relation


FORGOTTEN = anycase(r"you (?:forgot|missed|left out|omitted|did not mention|didn't mention|skipped) ")


def _with_one_more(reply: str, value: str) -> str:
    """ "The colours are red and blue." and yellow -> "The colours are red, blue and yellow." """
    said = (sentences(reply) or [reply])[0].rstrip(".! ")
    parts = re.match(r"(?P<a>.+?),? and (?P<b>[^,]+?)(?P<c> (?:is|are|was|were) .+)?$", said)
    return f"{parts['a']}, {parts['b']} and {value}{parts['c'] or ''}." if parts else f"{said} and {value}."


def _restated(
    text: str, before: str, own: Findings, fact: Span, tongue: str, known: Sequence[Lesson]
) -> Reading | None:
    """The user's last statement with another value, in its place: "sorry, I meant Oslo" after "I live in Bergen"."""

    def likeness(old: Span) -> tuple[bool, bool]:
        """Whether it is named as wrong, and whether both are numbers or neither is."""
        return contains(text, old.value), bool(DIGIT.search(old.value)) == bool(DIGIT.search(fact.value))

    old, fact = max(own.facts, key=likeness), replace(fact, value=EXCUSE.sub("", fact.value))
    if not AT.match(old.value):  # "at nine", of "Mondays at eight"
        fact = replace(fact, value=AT.sub("", fact.value))
    if part := _same_part(text, fact.value, before):
        wrong, right = part
        whole = Span(before.strip(), wrong, old.subject)
        old = next((one for one in own.facts if wrong in one.clause), whole)
        return None if contains(wrong, right) else _put_in(before, own, old, wrong, right, tongue, known)
    unlike = bool(DIGIT.search(old.value)) != bool(DIGIT.search(fact.value)) and _around(fact) > FEW
    of_it = [part for part in clauses(text) if contains(part, old.value)]
    if IS_SO.match(fact.clause) and not (TAKEN_BACK.match(text) or MEANT.search(text)):  # "she is twelve"
        was_so = IS_BEFORE.search(old.clause[: old.clause.find(old.value)])
        unlike = unlike or not was_so or grammar.is_number(old.value) != grammar.is_number(fact.value)
    if unlike or contains(fact.value, old.value) or (of_it and not any(map(NOT.search, of_it))):
        return None  # of the very thing something else is said
    wrong = _of_its_kind(fact.value, old.clause)
    if not wrong and (same := _same_atom(text, fact.value, old.clause)):
        return _put_in(before, own, old, *same, tongue, known)
    wrong = wrong or _name_of(old.value, fact.value)
    return _put_in(before, own, old, wrong, fact.value, tongue, known)


#: "It's Saturday, not Friday."
NOT_SO = anycase(
    r"^(?:(?:no|sorry|wait|actually),? )*(?:it|that)(?:['’]s| is) (?:on |at )?(?P<new>[^,.!?]+),"
    r" not (?:on |at )?(?P<old>[^,.!?]+)[.!]*$"
)


def _instead_of_old(
    reader: TurnReader, text: str, last: Exchange | None, tongue: str, known: Sequence[Lesson]
) -> Reading | None:
    """What was stated last with the value that a turn names in the place of the one that it denies, if it has that."""
    swap = NOT_SO.match(text)
    if swap is None or last is None or asks(last.user) or not contains(last.user, swap["old"]):
        return None
    if any(contains(x.text, swap["old"]) and fold(x.text) != fold(swap["old"]) for x in atoms(last.user)):
        return None  # a part of a date
    own = reader.hear(last.user, None)
    old = next((one for one in own.facts if contains(one.clause, swap["old"])), None)
    return _put_in(last.user, own, old, swap["old"], swap["new"], tongue, known) if old else None


def _put_in(
    before: str, own: Findings, old: Span, wrong: str, right: str, tongue: str, known: Sequence[Lesson]
) -> Reading:
    """What the user said before with `right` in the place of `wrong`."""
    told = [one.lesson.statement for one in _statements(before, own, tongue, ()) if one.lesson]
    its_part = next((said for said in told if contains(said, wrong)), "") if len(told) > 1 else ""
    clause, whole, value = (
        said.replace(wrong, right, 1) for said in (old.clause, its_part or before.strip(), old.value)
    )
    new = Span(clause, value, old.subject)
    found = _statement(clause, new, Findings("correction", own.sure, (new,)), tongue, known)
    lesson, kept = found.lesson if found and found.lesson else Lesson(), _note(whole, tongue)
    told_then = tuple(x.id for x in known if x.statement and contains(its_part or before, x.statement))
    values = lesson.values or _in_echo([value], tongue)
    lesson = replace(lesson, statement=kept.statement, echo=kept.echo, supersedes=told_then, values=values)
    summary = found.summary if found else kept.echo.rstrip(".。")
    return Reading("correction", lesson, right, summary, f"correction, {own.sure:.2f}")


def _same_part(text: str, value: str, before: str) -> tuple[str, str] | None:
    """Of what was said before, the one part that a correction puts right by its form, and what is there now: a range
    for a range, a time of the day for one, what follows "at" for what follows "at". English."""
    ranges = [_RANGE.findall(said) for said in (before, text)]
    if all(len(found) == 1 for found in ranges):
        return ranges[0][0], ranges[1][0]
    at = re.search(rf"\b({_AT})\s+((?:(?!(?:{_AT})\b)[\w'-]+ ){{0,2}}{re.escape(value)})", text, re.I)
    kind = next((kind for kind in (TIME, DATE) if kind.fullmatch(value)), None)
    if kind:
        found = [m[0] for m in kind.finditer(before)]
    else:
        found = (
            re.findall(rf"\b{at[1]} (\S.*?)(?= (?:{_AT}|and|every)\b|[,;!?]|\.(?:\s|$)|$)", before, re.I) if at else []
        )
    return (found[0], value if kind or not at else at[2]) if len(found) == 1 else None


_AT = "at|in|on|with|from|for|by"
_RANGE = anycase(r"\b(?:between|from) \d[\d.:]*(?: ?[ap]m)? (?:and|to|until|till) \d[\d.:]*(?: ?[ap]m)?")
DATE = anycase(
    rf"\b(?:(?:{grammar.WEEKDAY}),? )?(?:\d{{1,2}}(?:st|nd|rd|th)?(?: of)? {grammar.MONTH}|{grammar.MONTH} \d{{1,2}})\b"
)
TIME = anycase(r"\b(?:\d{1,2}[:.]\d\d(?: ?[ap]m)?|\d{1,2} ?[ap]m)\b")


def _of_its_kind(value: str, clause: str) -> str:
    """The one number, weekday or month of a clause, where the value is one: "at six" of "on Tuesdays at six" where it
    is seven; of several the one that is as long, as in a number of groups. "" where there is none, or more."""
    for kind in ALIKE:
        if kind.fullmatch(value):
            found = [m[0] for m in kind.finditer(clause)]
            found = [one for one in found if len(one) == len(value)] if len(found) > 1 else found
            return found[0] if len(found) == 1 else ""
    return ""


def _same_atom(text: str, value: str, clause: str) -> tuple[str, str] | None:
    """The one date, number or code of a clause in whose place that of a value stands, of several the one with its name:
    "B12" of "at 6:55 from gate B12", where it is "gate B21"."""

    def of_kind(said: str) -> list[tuple[str, str, str]]:
        return [
            (x.kind, x.text, " ".join(said[: x.start].split()[-1:]))
            for x in atoms(said)
            if x.kind not in ("name", "counted")
        ]

    new = [one for one in of_kind(text) if contains(value, one[1])]
    if len(new) != 1:
        return None
    [(kind, right, name)] = new
    old = [one for one in of_kind(clause) if one[0] == kind]
    old = [one for one in old if one[2] == name] or old
    return (old[0][1], right) if len(old) == 1 and old[0][1] != right else None


def _name_of(old: str, new: str) -> str:
    """The old value, or the name that it begins with where the new one is no more: "Haldane Road" of "Haldane Road near
    the church"."""
    name = NAME.match(old) if NAME.fullmatch(new) else None
    return name[0] if name and PLACED.match(old[name.end() :].lstrip()) else old


ALIKE = (
    anycase(rf"(?<![\w:.,-])(?:\d[\d.,:]*|{'|'.join(NUMBERS)})(?!\w|[.,:-]\w)"),
    anycase(rf"\b{grammar.WEEKDAY}\b"),
    anycase(rf"\b{grammar.MONTH}\b"),
)
DIGIT = re.compile(r"\d")
NOT = anycase(r"n['’]t\b|\b(?:not|no|never|instead|rather|wrong|nicht|kein\w*|statt|falsch|pas|non|faux|sino)\b|不")
IS_SO = anycase(r"(?:(?:and|but|so|well) )?(?:he|she|they)(?: is| are| was| were|['’]?s|['’]re)\b")
IS_BEFORE = anycase(r"(?:\b(?:is|are|was|were)|['’](?:s|re))(?: called| named)?(?: an?| the)? $")
AT = anycase(r"^(?:at|on|in|to) ")
EXCUSE = anycase(r"[,;] i (?:mis|mixed|got|had|was).*$")


def _said_wrong(text: str, value: str, question: str, reply: str) -> str:
    """What of the reply the turn repeats beside the right value: "it's X, not Y" names Y; "" if nothing."""
    asked = spans.known_words(question) | spans.FUNCTION | FREQUENT_WORDS | _LINKS
    said = [m[0] for m in _TOKEN.finditer(text.replace(value, " ", 1))]
    found = [" ".join(said[a:b]) for a in range(len(said)) for b in range(a + 1, min(a + 6, len(said)) + 1)]
    news = [part for part in found if contains(reply, part) and not set(grammar.tokens(part)) <= asked]
    return max(news, key=len, default="")


_TOKEN = re.compile(r"[\u3400-\u9fff]|[^\W_]+(?:['’.,:/@_+-][^\W_]+)*")
_LINKS = about.POINTERS | set("你您我的是在叫了有到")


def put_right(question: str, reply: str, wrong: str, value: str) -> str:
    """The reply's first sentence with the value where the wrong one stood; the bare value where that is not clear.

    Without a `wrong`: the one stretch of the sentence whose words the question does not have.
    """
    said = re.match(r"[^。！？!?\n]*?(?:[。！？!?\n]|\.(?=\s|$)|$)", reply.strip())
    sentence = said[0] if said else reply
    if wrong and sentence.count(wrong) == 1:
        return sentence.replace(wrong, value)
    asked = {m[0].casefold() for m in _TOKEN.finditer(question)} | _LINKS | FREQUENT_WORDS
    news = [m.span() for m in _TOKEN.finditer(sentence) if m[0].casefold() not in asked]
    if not news or sum(not sentence[a[1] : b[0]].isspace() and a[1] != b[0] for a, b in pairwise(news)):
        return value
    return sentence[: news[0][0]] + value + sentence[news[-1][1] :]
