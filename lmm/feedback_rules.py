"""Small grammar helpers and word lists for `lmm.feedback`: plain text in, plain text out.

The lists hold what decides between a lasting fact and small talk. They are closed on purpose: a word that is in none
of them makes the reader say nothing, because a lesson that was not asked for is worse than one that has to be taught.
"""

from __future__ import annotations

import re

APOSTROPHES = str.maketrans({"’": "'", "‘": "'", "`": "'", "“": '"', "”": '"', "–": "-", "—": "-", "\u00a0": " "})
TYPOS = {
    "im": "I'm", "ive": "I've", "thats": "that's", "whats": "what's", "dont": "don't", "doesnt": "doesn't",
    "isnt": "isn't", "wasnt": "wasn't", "cant": "can't", "youre": "you're", "hes": "he's", "shes": "she's",
    "theyre": "they're", "acutally": "actually", "actualy": "actually", "actully": "actually", "rember": "remember",
    "remeber": "remember", "rmember": "remember", "favorit": "favorite", "favourit": "favourite", "pls": "please",
    "naem": "name",
}  # fmt: skip
EXPANSIONS = (
    (re.compile(r"\bI'm\b|\bI am\b", re.I), "I am"), (re.compile(r"\bI've\b", re.I), "I have"),
    (re.compile(r"\bI'd like\b", re.I), "I would like"), (re.compile(r"\b(you|we|they)'re\b", re.I), r"\1 are"), (re.compile(r"\b(I|you|it|that|they)'ll\b", re.I), r"\1 will"),
    (re.compile(r"\b(it|that|he|she|there|what|who|where|when|name|answer|birthday)'s (?=\S)", re.I), r"\1 is "),
    (re.compile(r"\b(is|was|are|were|do|does|did)n't\b", re.I), r"\1 not"),
    (re.compile(r"\bthat is correct: ", re.I), ""),
)  # fmt: skip


def word_set(text: str) -> frozenset[str]:
    return frozenset(text.split())


def words(text: str) -> list[str]:
    """Lower-case tokens: letters and digits with inner apostrophes, hyphens, dots and the like."""
    return [token.lower() for token in re.findall(r"[^\W_]+(?:['.,:/@_+-][^\W_]+)*", text)]


def plain(text: str) -> str:
    """One line with straight quotes, single blanks, and the commonest typos and contractions written out."""
    text = re.sub(r"\s+", " ", text.translate(APOSTROPHES)).strip()
    capitals = sum(c.isupper() for c in text)
    if len(text) > 8 and capitals > 0.7 * sum(c.isalpha() for c in text):
        text = text.lower()  # shouted
    text = re.sub(r"(?<![\w@./-])[A-Za-z]+(?![\w@/-])", lambda m: TYPOS.get(m[0].lower(), m[0]), text)
    text = re.sub(r"\b(?:its|it is) (?=(?:a|an|the|in|on|at|called|actually|not)\b|[A-Z0-9])", "it is ", text, flags=re.I)
    text = re.sub(r"(^|[,.!;:-] ?|\bno |\bnah |\bnope |\bincorrect )its ", r"\1it is ", text, flags=re.I)
    text = re.sub(r"\b(my|our) (\w{2,})s (name|birthday|job|age)\b", r"\1 \2's \3", text, flags=re.I)
    for pattern, repl in EXPANSIONS:
        text = pattern.sub(repl, text)
    return text


def sentences(text: str) -> list[str]:
    """Split at . ! ? followed by a blank, but not after initials and titles ("Dr.", "Rufus T.")."""
    parts = re.split(r"(?<=[.!?…])\s+", text)
    out: list[str] = []
    for part in parts:
        if out and re.search(r"(?:^|\s)(?:mr|mrs|ms|dr|prof|st|vs|no|[A-Z])\.$", out[-1], re.I) and len(out[-1]) > 3:
            out[-1] += " " + part
        elif part.strip(" .!?…"):
            out.append(part)
    return out


FLIPS = {
    "i": "you", "me": "you", "my": "your", "mine": "yours", "we": "you", "us": "you", "our": "your", "ours": "yours",
    "myself": "yourself", "am": "are", "i was": "you were", "we was": "you were", "was i": "were you", "you": "I", "your": "my", "yours": "mine",
}  # fmt: skip


def flip(text: str) -> str:
    """Turn the user's point of view into the reply's: "my sister" -> "your sister", "I was" -> "you were"."""
    return re.sub(r"\b(?:(?:I|we) was|was I)\b|[A-Za-z]+(?:'[a-z]+)?", lambda m: FLIPS.get(m[0].lower(), m[0]), text, flags=re.I)


def capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def sentence(text: str) -> str:
    """A reply as it would be printed: capital first letter, one full stop."""
    text = capital(text.strip())
    return text if text.endswith((".", "!", "?")) else text + "."


def as_name(text: str) -> str:
    """Capitals for a name that was typed without any; particles and names with inner capitals stay."""
    small = {"da", "de", "van", "von", "of", "the", "and", "la", "del", "di", "y"}
    if text != text.lower():
        return text
    parts = text.split()
    return " ".join(w if w in small and i else "-".join(map(capital, w.split("-"))) for i, w in enumerate(parts))


ARTICLE = re.compile(r"^(?:a|an|the)\s+(?=\S)", re.I)
TAIL = re.compile(
    r"(?:,|\s-)?\s+(?:btw|by the way|fyi|please|thanks|thank you|though|actually|ok|okay|in fact|now|too|as well|you know|mate|dude|bro|buddy|pal|dummy|silly)$"
    r"|,\s+(?:don't|do not|so|but|which|who|because|just|please|and (?:i|my|we)|remember|not that)\b.*$"
    r"|\s+(?:because|since i|but|so (?:i|please|remember|don't|that)|and (?:i|my|we|that|please|it|he|she|they)|which)\b.*$"
    r"|,\s+(?:er|uh|um),?\s.*$",
    re.I,
)


def trim(text: str) -> str:
    """A value without trailing remarks, end punctuation and a pair of quotes around it."""
    text = text.strip()
    for _ in range(4):
        before = text
        text = TAIL.sub("", text.rstrip(" .!?…,;:~")).strip()
        if text[-1:] == ")" and "(" not in text:
            text = text[:-1].rstrip(" :;")
        if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'":
            text = text[1:-1].strip()
        if text == before:
            break
    return text


def bare(text: str) -> str:
    """The value as it is checked for in a reply: no leading article."""
    return ARTICLE.sub("", text)


WEEKDAY = r"(?:mon|tues|wednes|thurs|fri|satur|sun)days?|(?:today|tomorrow|tonight|noon|midnight|weekends?)"
MONTH = r"(?:january|february|march|april|may|june|july|august|september|october|november|december)"
TIME = re.compile(
    rf"\b(?:{WEEKDAY}|\d{{1,2}}(?::\d\d)\s?(?:am|pm)?|\d{{1,2}}\s?(?:am|pm)|\d{{1,2}}(?:st|nd|rd|th)?(?: of)? {MONTH}"
    rf"|{MONTH} \d{{1,4}}(?:st|nd|rd|th)?|(?:1[0-9]|20)\d\d|the \d{{1,2}}(?:st|nd|rd|th))\b|\bevery (?:day|week|month)\b",
    re.I,
)
NUMBERS = word_set("zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
              "seventeen eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety hundred thousand "
              "million billion dozen half")  # fmt: skip


def is_number(text: str) -> bool:
    found = words(text)
    return any(w[0].isdigit() or w in NUMBERS for w in found[:2])


def is_proper(text: str) -> bool:
    """True if a word has a capital letter in it (and the text is not shouted)."""
    return any(re.match(r"[\"']?[^\W\d_]*[A-Z]", w) for w in text.split()) and not (len(text) > 12 and text.isupper())


def with_preposition(value: str, wh: str, place: str = "in") -> str:
    """A place or a time as it stands in a sentence: "in Oslo", "on Tuesday", "at 7"."""
    if re.match(r"(?:in|on|at|under|near|next|behind|between|from|to|every|since|by|above|below|over|beside|inside|"
                r"across|around|before|after|opposite|here|there|home|tomorrow|today|yesterday|tonight|last)\b", value, re.I):  # fmt: skip
        return value
    if wh == "where":
        return ("at " if re.match(r"\d", value) else place + " ") + value
    if re.match(rf"(?:{WEEKDAY}|{MONTH} \d{{1,2}}\b(?!\d)|(?:the )?\d{{1,2}}(?:st|nd|rd|th)|\d{{1,2}} {MONTH})", value, re.I):
        return "on " + value
    return ("in " if re.match(rf"(?:\d{{3,4}}\b(?!:)|{MONTH}|(?:the )?(?:spring|summer|autumn|winter))", value, re.I) else "at ") + value


IRREGULAR = dict(pair.split(":") for pair in sorted(word_set(
    "be:was become:became begin:began bite:bit break:broke bring:brought build:built buy:bought catch:caught "
    "choose:chose come:came die:died do:did draw:drew drink:drank drive:drove eat:ate end:ended fall:fell feel:felt "
    "fight:fought find:found fly:flew get:got give:gave go:went grow:grew happen:happened have:had hear:heard hold:held "
    "invent:invented keep:kept know:knew land:landed lead:led leave:left lose:lost make:made marry:married meet:met "
    "move:moved open:opened paint:painted play:played put:put read:read rise:rose run:ran say:said see:saw sell:sold "
    "send:sent set:set sing:sang sink:sank sit:sat sleep:slept speak:spoke spend:spent stand:stood start:started "
    "steal:stole swim:swam take:took teach:taught tell:told think:thought use:used visit:visited wake:woke wear:wore "
    "win:won work:worked write:wrote live:lived study:studied like:liked love:loved call:called discover:discovered "
    "close:closed cost:cost expire:expired arrive:arrived depart:departed belong:belonged weigh:weighed mean:meant "
    "stop:stopped release:released direct:directed compose:composed launch:launched sign:signed found:founded"
)))  # fmt: skip
BASES = {past: base for base, past in IRREGULAR.items()}
VERBS = set(IRREGULAR) | word_set("hate prefer enjoy own ride collect cook support want need listen stay park store save host orbit "
                             "contain rule border serve graduate retire finish")  # fmt: skip


def conjugate(verb: str, how: str) -> str:
    """`how` is "do" (plain), "does" (third person) or "did" (past)."""
    if how == "do":
        return verb
    if how == "did":
        past = verb + "d" if verb.endswith("e") else verb[:-1] + "ied" if re.search(r"[^aeiou]y$", verb) else verb + "ed"
        return IRREGULAR.get(verb, past)
    if verb in ("have", "be"):
        return {"have": "has", "be": "is"}[verb]
    return re.sub(r"(?<=[^aeiou])y$", "ie", verb) + ("es" if re.search(r"(?:s|sh|ch|x|o)$", verb) else "s")


def base_form(verb: str) -> str:
    """ "lives" -> "live", "studies" -> "study", "teaches" -> "teach". """
    if verb in ("has", "is"):
        return {"has": "have", "is": "be"}[verb]
    if verb.endswith("ies") and len(verb) > 4:
        return verb[:-3] + "y"
    return verb[:-2] if re.search(r"(?:ss|sh|ch|x|o)es$", verb) else verb.removesuffix("s")


# ------------------------------------------------------------------ what lasts and what does not
TRANSIENT = word_set(
    "tired happy sad bored hungry thirsty sick ill fine good well okay ok great bad sorry sure unsure ready done back here "
    "there glad confused lost late early busy free kidding joking serious afraid scared worried excited curious stuck cold "
    "hot warm angry mad upset annoyed interested impressed disappointed sleepy exhausted drunk awake asleep alone nervous "
    "stressed new right wrong correct incorrect true false awesome amazing awful terrible horrible nice beautiful pretty "
    "ugly cool fun funny boring broken slow fast simple easy hard difficult delicious lovely perfect wonderful fantastic "
    "brilliant clear obvious important interesting long short short-term big small empty full open closed missing dirty clean "
    "loud quiet stupid silly dumb weird strange better worse best worst enough too so very really quite pretty just only "
    "also still already not never all ears in out on off up down with about trying going looking working reading waiting "
    "thinking getting asking talking using feeling doing having writing making learning surprised pleased thankful grateful "
    "speechless dead starving freezing broke home away outside inside available unavailable online offline gone over nobody "
    "that this it what how why nothing something anything everything complicated expensive cheap useful useless helpful "
    "different same similar possible impossible literally obviously totally completely absolutely convinced certain aware "
    "close near far soon urgent winning losing none whatever twice once lol haha thanks no yes none crazy insane hilarious neat sweet dope lame rude mean kind polite formal informal wet dry "
    "safe unsafe dangerous healthy dying screwed doomed hopeless lucky unlucky proud ashamed jealous lonely bit little"
)
LASTING = word_set(
    "vegetarian vegan pescatarian diabetic autistic dyslexic deaf blind colour-blind color-blind colourblind colorblind "
    "left-handed right-handed lefthanded ambidextrous asthmatic epileptic pregnant married single divorced widowed engaged "
    "retired unemployed self-employed bilingual trilingual gay lesbian bisexual trans transgender nonbinary non-binary "
    "straight queer adopted celiac coeliac gluten-free lactose-intolerant teetotal atheist agnostic religious kosher halal "
    "muslim christian catholic jewish buddhist hindu protestant orthodox sikh disabled introverted extroverted bald "
    "blonde blond ginger short-sighted near-sighted nearsighted long-sighted farsighted monolingual anaemic anemic tall"
)
NATIONS = word_set(
    "norwegian swedish danish finnish icelandic german austrian swiss dutch belgian french english british scottish welsh "
    "irish spanish portuguese italian greek turkish polish czech slovak hungarian romanian bulgarian serbian croatian bosnian "
    "slovenian ukrainian russian belarusian estonian latvian lithuanian georgian armenian azerbaijani israeli palestinian "
    "lebanese syrian iraqi iranian persian egyptian moroccan algerian tunisian nigerian ghanaian kenyan ethiopian somali "
    "ugandan tanzanian american canadian mexican brazilian argentinian chilean peruvian colombian venezuelan cuban "
    "jamaican indian pakistani bangladeshi nepali chinese japanese korean vietnamese thai filipino indonesian malaysian "
    "singaporean taiwanese mongolian australian kiwi maori african european asian albanian macedonian kazakh uzbek afghan "
    "zimbabwean cypriot maltese basque catalan bavarian sicilian texan ecuadorian bolivian"
)
NAMES = word_set(
    "adam alex alexander alice ali alan albert amanda amy ana andrea andrew andy anna anne anya arthur barbara ben benjamin "
    "beth bill bob brian bruno carl carla carlos carol caroline charles charlie chloe chris christine clara claire dan "
    "daniel dave david diana diego elena eli elias elizabeth ella emil emily emma eric erik eva eve fatima felix fiona frank "
    "fred gary george grace greg hannah harry helen henry hugo ian ida igor ines ingrid isaac isabel ivan jack jacob jake james "
    "jane jason jean jeff jen jenny jess jessica jim joan joe john jon jonas jonathan jose joseph josh juan julia karen karl "
    "kate katie ken kevin kim kyle lara laura lars lea leah lena leo leon liam lily linda lisa lucas lucy luis luke mahmoud marc "
    "marco maria marie mark marta martin mary matt matthew max maya megan mia michael michelle mike mohammed muhammad "
    "nancy natalie nick nina noah nora olga oliver olivia omar oscar otto paul peter phil pierre priya rachel raj ravi rebecca "
    "richard rob robert robin rosa ruth ryan sally sam samantha sandra sara sarah scott sean sergei sofia sonia sophie stefan steve "
    "steven sue susan suzanne ted theo thomas tim tina toby tom tony vera victor wei will yuki yusuf zoe ahmed jared alfred "
    "abdul aisha hassan ibrahim layla mei ming kofi kwame amara chidi ngozi lakshmi arjun sanjay deepa hiroshi sakura jin"
)
KIN = word_set(
    "sister brother mother father mum mom dad wife husband partner girlfriend boyfriend fiancé fiancée fiance fiancee daughter "
    "son uncle aunt cousin nephew niece grandmother grandfather grandma grandpa granny boss manager landlord landlady neighbour "
    "neighbor friend teacher doctor dentist therapist colleague roommate flatmate lead accountant lawyer supervisor president ceo "
    "cto cfo founder author director king queen mayor chancellor minister captain coach owner hero singer composer inventor "
    "principal headmaster chair chairman head husband assistant mentor tutor vet nanny babysitter stepmother stepfather "
    "sister-in-law brother-in-law mother-in-law father-in-law winner secretary treasurer editor maintainer intern"
)
PETS = word_set("dog cat parrot hamster rabbit horse puppy kitten goldfish tortoise turtle snake bird budgie pony lizard rat")
ATTRIBUTES = word_set(
    "name surname nickname colour color food dish drink band song movie film book author singer team sport season game hobby "
    "number pin password passphrase code codeword word username login email e-mail address birthday anniversary age size type "
    "height weight phone telephone job profession occupation title role employer hometown city country nationality language "
    "religion school university major degree subject topping animal pet car bike laptop port host url domain branch key ssid "
    "network server deadline date time appointment flight room desk floor seat budget salary rate limit version capital currency "
    "population president ceo founder author mascot motto slogan symbol allergy diet sign zodiac star brand flavour flavor id "
    "timezone zone extension office plate licence license iban account vehicle ringtone instrument street postcode zip "
    "wifi wi-fi pronouns hobbies allergies colours colors house day month genre artist album actor actress show series place restaurant cafe meal snack dessert fruit vegetable flower"
)
# "the problem is that ...": nouns that open an opinion or a remark, not a fact
REMARKS = word_set(
    "problem question point issue thing thought guess opinion idea reason truth fact weather answer reply response food movie "
    "best worst rest moral story joke result goal aim plan hope fear feeling mood day head stomach back trick catch difference "
    "advice suggestion request message text code bug error mistake bad life world moon sun sky explanation sentence output"
)
COMMANDS = word_set(
    "write translate say tell give list show make create explain describe summarise summarize rewrite fix proofread correct pretend "
    "imagine act play let let's use find help repeat complete suggest recommend calculate compute solve generate draw compose sing "
    "finish continue stop try think answer ask search google look read check convert define compare name count spell remind "
    "invent design build code implement sort draft edit improve shorten expand paraphrase forget ignore wait please go come "
    "choose pick guess open close print run turn set add remove delete talk speak discuss teach outline format provide send do "
    "be don't keep start skip replace change rephrase simplify elaborate reply respond behave consider assume suppose return"
)
FOREIGN = word_set(
    "es est ist il el la le les der die das und ein eine ich du nicht mein meine je mon ma ton nous vous une des sono mi mio mia tu "
    "su è é são não meu minha och är jag inte min het een ik mijn niet en y se si por para que qui c'est je m'appelle heiße heisse "
    "nombre nein non nee oui ja sí olá hola bonjour come chiama bir benim adım jest nie moje jeg er ikke hedder ne pas mais aber auf"
)
ENGLISH = word_set("i the a an is are was were my our your it it's he she they of to on at for and not but you that this have has be")
