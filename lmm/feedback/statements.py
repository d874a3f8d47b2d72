"""A clause -> the question it answers, where its shape is a common one."""

from __future__ import annotations

import re

from lmm.feedback.about_me import having, i_am, name
from lmm.feedback.doings import doing
from lmm.feedback.facts import Fact
from lmm.feedback.grammar import trim
from lmm.feedback.things import colon, copula, custom, inverted
from lmm.feedback.words import anycase

NO = r"\s*[,.!:;-]|\s+(?:it|that|this|i|my|we|our|the|he|she|they|its|wait|sorry|actually)\b"  # not "no meat"
#: what may stand before a statement and says nothing
POLITE = anycase(
    r"^(?:(?:hi|hello|hey|yo|hiya|good (?:morning|evening|afternoon)|ok(?:ay)?|cool|great|nice|thanks(?: a lot)?"
    r"|thank you|good to know|yes|yeah|yep|sure|oh|ah|alright|so|and|also|well|sorry|typo|actually|in fact|hm+|um+|btw"
    rf"|by the way|no(?={NO})|nope|anyway|haha|please|look|listen|from now on|just to be clear|to be clear"
    r"|one more thing|correction|i (?:already )?(?:told you|said)(?: that)?|oops|my (?:mistake|bad)|scratch that"
    r"|i (?:misspoke|misheard|made a mistake)|i was (?:wrong|mistaken)|i (?:got|had) (?:that|it|this) wrong"
    r"|i mixed (?:that|it|this|them) up)\b(?: (?:there|all|everyone"
    r"|everybody))?\s*(?:[,.!:;-]+\s*|\s+(?=\S)))+"
)
TEACH = anycase(
    r"^(?:(?:please|can you|could you|will you|i want you to|i would like you to|i need you to"
    r"|you should|you must|always|do)\s+)*"
    r"(?:remember|note|keep in mind|bear in mind|do not forget|don't forget|never forget|learn"
    r"|memori[sz]e|save|store|know|take note|make a note)\b(?: for (?:later|next time|me))?"
    r"(?: (?:this|that|the following|it)\b)*\s*[:,-]?\s*(?:that )?(?=\S)"
    r"|^(?:fyi|for your information|for the record|for (?:future )?reference|for later"
    r"|just so you know|so you know|let me teach you (?:something|this)"
    r"|here is (?:a fact|something to remember)|fact|note to self|note|reminder|from now on|psa"
    r"|heads up|you should know that|let me tell you|i want you to know that"
    r"|i need you to know that)\b\s*[:,-]*\s*(?:that )?(?=\S)"
)


def fact_of(clause: str, taught: bool = False) -> Fact | None:
    """The fact in one clause, or None. `taught`: the user asked for it to be remembered, so adjectives count too."""
    clause = re.sub(r"^(?:My|Our|The|This|Mum|Mom|Dad|We)\b", lambda m: m[0].lower(), trim(clause))
    if not clause or len(clause.split()) > 24:
        return None
    return (
        name(clause)
        or i_am(clause, taught)
        or having(clause)
        or custom(clause)
        or inverted(clause)
        or copula(clause, taught)
        or doing(clause)
        or colon(clause, taught)
    )
