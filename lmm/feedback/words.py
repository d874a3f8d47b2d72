"""Word lists: what decides between a lasting fact and small talk.

They are closed on purpose: a word that is in none of them makes the reader say nothing, because a lesson that was not
asked for is worse than one that has to be taught.
"""

from __future__ import annotations

import re

from lmm.text import names
from lmm.text.fold import word_set as word_set


def anycase(text: str) -> re.Pattern[str]:
    """A pattern to which capitals and small letters are the same: few people type them with care."""
    return re.compile(text, re.I)


TRANSIENT = word_set(
    "tired happy sad bored hungry thirsty sick ill fine good well okay ok great bad sorry sure unsure ready done "
    "back here there glad confused lost late early busy free kidding joking serious afraid scared worried excited "
    "curious stuck cold hot warm angry mad upset annoyed interested impressed disappointed sleepy exhausted drunk "
    "awake asleep alone nervous stressed new right wrong correct incorrect true false awesome amazing awful "
    "terrible horrible nice beautiful pretty ugly cool fun funny boring broken slow fast simple easy hard "
    "difficult delicious lovely perfect wonderful fantastic brilliant clear obvious important interesting long "
    "short short-term big small empty full open closed missing dirty clean loud quiet stupid silly dumb weird "
    "strange better worse best worst enough too so very really quite pretty just only also still already not "
    "never all ears in out on off up down with about trying going looking working reading waiting thinking "
    "getting asking talking using feeling doing having writing making learning surprised pleased thankful "
    "grateful speechless dead starving freezing broke home away outside inside available unavailable online "
    "offline gone over nobody that this it what how why nothing something anything everything complicated "
    "expensive cheap useful useless helpful different same similar possible impossible literally obviously "
    "totally completely absolutely convinced certain aware alright knackered bigger smaller larger faster slower "
    "easier harder louder warmer below above attached close near far soon urgent winning losing none whatever "
    "twice once lol haha thanks no yes none crazy insane hilarious neat sweet dope lame rude mean kind polite "
    "formal informal wet dry safe unsafe dangerous healthy dying screwed doomed hopeless lucky unlucky proud "
    "ashamed jealous lonely bit little"
)
LASTING = word_set(
    "vegetarian vegan pescatarian diabetic autistic dyslexic deaf blind colour-blind color-blind colourblind "
    "colorblind left-handed right-handed lefthanded ambidextrous asthmatic epileptic pregnant married single "
    "divorced widowed engaged retired unemployed self-employed bilingual trilingual gay lesbian bisexual trans "
    "transgender nonbinary non-binary straight queer adopted celiac coeliac gluten-free lactose-intolerant "
    "teetotal atheist agnostic religious kosher halal muslim christian catholic jewish buddhist hindu protestant "
    "orthodox sikh disabled introverted extroverted bald blonde blond ginger short-sighted near-sighted "
    "nearsighted long-sighted farsighted monolingual anaemic anemic tall"
)
NATIONS = word_set(
    "norwegian swedish danish finnish icelandic german austrian swiss dutch belgian french english british "
    "scottish welsh irish spanish portuguese italian greek turkish polish czech slovak hungarian romanian "
    "bulgarian serbian croatian bosnian slovenian ukrainian russian belarusian estonian latvian lithuanian "
    "georgian armenian azerbaijani israeli palestinian lebanese syrian iraqi iranian persian egyptian moroccan "
    "algerian tunisian nigerian ghanaian kenyan ethiopian somali ugandan tanzanian american canadian mexican "
    "brazilian argentinian chilean peruvian colombian venezuelan cuban jamaican indian pakistani bangladeshi "
    "nepali chinese japanese korean vietnamese thai filipino indonesian malaysian singaporean taiwanese mongolian "
    "australian kiwi maori african european asian albanian macedonian kazakh uzbek afghan zimbabwean cypriot "
    "maltese basque catalan bavarian sicilian texan ecuadorian bolivian"
)
NAMES = word_set(
    "adam alex alexander alice ali alan albert amanda amy ana andrea andrew andy anna anne anya arthur barbara "
    "ben benjamin beth bill bob brian bruno carl carla carlos carol caroline charles charlie chloe chris "
    "christine clara claire dan daniel dave david diana diego elena eli elias elizabeth ella emil emily emma eric "
    "erik eva eve fatima felix fiona frank fred gary george grace greg hannah harry helen henry hugo ian ida igor "
    "ines ingrid isaac isabel ivan jack jacob jake james jane jason jean jeff jen jenny jess jessica jim joan joe "
    "john jon jonas jonathan jose joseph josh juan julia karen karl kate katie ken kevin kim kyle lara laura lars "
    "lea leah lena leo leon liam lily linda lisa lucas lucy luis luke mahmoud marc marco maria marie mark marta "
    "martin mary matt matthew max maya megan mia michael michelle mike mohammed muhammad nancy natalie nick nina "
    "noah nora olga oliver olivia omar oscar otto paul peter phil pierre priya rachel raj ravi rebecca richard "
    "rob robert robin rosa ruth ryan sally sam samantha sandra sara sarah scott sean sergei sofia sonia sophie "
    "stefan steve steven sue susan suzanne ted theo thomas tim tina toby tom tony vera victor wei will yuki yusuf "
    "zoe ahmed jared alfred abdul aisha hassan ibrahim layla mei ming kofi kwame amara chidi ngozi lakshmi arjun "
    "sanjay deepa hiroshi sakura jin"
)
# "I'm Batman" is a joke; "my name is Jesus" is not
FICTIONAL = word_set(
    "batman superman spiderman spider-man spock groot dracula yoda hulk thanos gandalf god jesus satan santa elvis "
    "napoleon cleopatra shrek barbie cinderella hamlet godzilla zorro frankenstein voldemort"
) | {"iron man", "darth vader", "james bond", "harry potter", "santa claus", "sherlock holmes", "captain america"}
#: with those who are one for others
KIN = names.KIN | word_set(
    "lead president ceo cto cfo founder author director king queen mayor chancellor minister captain owner hero singer "
    "composer inventor principal headmaster chair chairman head winner secretary treasurer editor maintainer intern"
)
PETS = word_set(
    "dog cat parrot hamster rabbit horse puppy kitten goldfish tortoise turtle snake bird budgie pony lizard rat"
)
ATTRIBUTES = word_set(
    "name surname nickname colour color food dish drink band song movie film book author singer team sport season "
    "game hobby number pin password passphrase code codeword word username login email e-mail address birthday "
    "anniversary age size type height weight phone telephone job profession occupation title role employer "
    "hometown city country nationality language religion school university major degree subject topping animal "
    "pet car bike laptop port host url domain branch key ssid network server deadline date time appointment "
    "flight room desk floor seat budget salary rate limit version capital currency population president ceo "
    "founder author mascot motto slogan symbol allergy diet sign zodiac star brand flavour flavor id timezone "
    "zone extension office plate licence license iban account vehicle ringtone instrument street postcode zip "
    "wifi wi-fi pronouns hobbies allergies colours colors house day month genre artist album actor actress show "
    "series place restaurant cafe meal snack dessert fruit vegetable flower"
)
# "the problem is that ...": nouns that open an opinion or a remark, not a fact
REMARKS = word_set(
    "problem question point issue thing thought guess opinion idea reason truth fact weather answer reply "
    "response food movie best worst rest moral story joke result goal aim plan hope fear feeling mood day head "
    "stomach back trick catch difference advice suggestion request message text bug error mistake bad life world "
    "moon sun sky explanation sentence output"
)
COMMANDS = word_set(
    "write translate say tell give list show make create explain describe summarise summarize rewrite fix "
    "proofread correct pretend imagine act play let let's use find help repeat complete suggest recommend "
    "calculate compute solve generate draw compose sing finish continue stop try think answer ask search google "
    "look read check convert define compare name count spell remind invent design build code implement sort draft "
    "edit improve shorten expand paraphrase forget ignore wait please go come choose pick guess open close print "
    "run turn set add remove delete talk speak discuss teach outline format provide send do be don't keep start "
    "skip replace change rephrase simplify elaborate reply respond behave consider assume suppose return"
)
ENGLISH = word_set(
    "i the a an is are was were my our your it it's he she they of to on at for and not but you that this have has be"
)

HAVING = (
    KIN
    | PETS
    | word_set(
        "child children kid kids twin twins sibling siblings allergy car bike boat motorcycle degree phd house flat "
        "apartment garden farm cabin tattoo piano guitar telescope"
    )
)
JOB_ENDINGS = tuple(
    sorted(
        word_set(
            "er or ist ian ant nurse chef teacher doctor pilot student baker cook judge surgeon midwife clerk priest "
            "coach mechanic architect analyst scientist barista paramedic carpenter dev ceo cto"
        )
    )
)

# ------------------------------------------------------------------ grammar
TYPOS = {
    "im": "I'm", "ive": "I've", "thats": "that's", "whats": "what's", "dont": "don't", "doesnt": "doesn't",
    "isnt": "isn't", "wasnt": "wasn't", "cant": "can't", "youre": "you're", "hes": "he's", "shes": "she's",
    "theyre": "they're", "acutally": "actually", "actualy": "actually", "actully": "actually",
    "rember": "remember", "remeber": "remember", "rmember": "remember", "favorit": "favorite",
    "favourit": "favourite", "pls": "please", "naem": "name",
}  # fmt: skip
NUMBERS = word_set(
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "seventeen eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety hundred thousand million "
    "billion dozen half"
)
PAST_TENSE = word_set(
    "be:was become:became begin:began bite:bit break:broke bring:brought build:built buy:bought catch:caught "
    "choose:chose come:came die:died do:did draw:drew drink:drank drive:drove eat:ate end:ended fall:fell "
    "feel:felt fight:fought find:found fly:flew get:got give:gave go:went grow:grew happen:happened have:had "
    "hear:heard hold:held invent:invented keep:kept know:knew land:landed lead:led leave:left lose:lost "
    "make:made marry:married meet:met move:moved open:opened paint:painted play:played put:put read:read "
    "rise:rose run:ran say:said see:saw sell:sold send:sent set:set sing:sang sink:sank sit:sat sleep:slept "
    "speak:spoke spend:spent stand:stood start:started steal:stole swim:swam take:took teach:taught tell:told "
    "think:thought use:used visit:visited wake:woke wear:wore win:won work:worked write:wrote live:lived "
    "study:studied like:liked love:loved call:called discover:discovered close:closed cost:cost expire:expired "
    "arrive:arrived depart:departed belong:belonged weigh:weighed mean:meant stop:stopped release:released "
    "direct:directed compose:composed launch:launched sign:signed found:founded "
)
IRREGULAR = dict(pair.split(":") for pair in sorted(PAST_TENSE))
BASES = {past: base for base, past in IRREGULAR.items()}
VERBS = set(IRREGULAR) | word_set(
    "hate prefer enjoy own ride collect cook support want need listen stay park store save host orbit contain "
    "rule border serve graduate retire finish"
)
