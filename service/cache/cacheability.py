"""Which questions are better not cached: creative, time-sensitive, personal (docs/policies.md: figures).

Rules over words, for English: no model. Where a phrase can be read either way it is of no kind.
"""

import re
import unicodedata
from collections.abc import Callable, Mapping

from service.model import Kind

END = 400
"""Characters at either end of a longer text that are read: the question stands at one of them."""

_POLITE = (
    r"(?:(?:hi|hello|hey|ok|okay|and|so|now|then|but|please|kindly)[,.!]? ){0,4}"
    r"(?:(?:can|could|would|will) you (?:please )?(?:help me (?:to )?)?|help me (?:to )?|"
    r"(?:i want|i need|i'd like|i would like) you to |let's )?(?:please )?"
)
_MADE = (
    r"(?:poems?|poetry|haikus?|limericks?|sonnets?|odes?|verses?|rhymes?|ballads?|raps?|songs?|lyrics"
    r"|jokes?|puns?"
    r"|riddles?|stor(?:y|ies)|tales?|fables?|novels?|fan ?fictions?|fictional|screenplays?|dialogues?"
    r"|monologues?"
    r"|scenes?|conversations?|essays?|blog posts?|speech(?:es)?|toasts?|tweets?|captions?|slogans?|taglines?"
    r"|quotes?|plots?|eulog(?:y|ies)|obituar(?:y|ies)|(?:linkedin|facebook|instagram|social media) posts?"
    r"|(?:product|ad|sales|marketing|web) copy|crosswords?|(?:fantasy|fictional) \w+|prayers?|parod(?:y"
    r"|ies)|memes?"
    r"|mottos?|pick-?up lines?|opening lines?|catchy|funny|fun facts?|compliments?|nicknames?|holidays?"
    r"|(?:birthday|wedding|love|christmas) (?:messages?|wish(?:es)?|letters?|cards?))"
)
_CREATIVE = (
    (
        r"(?:write|compose|pen|craft|draft|invent|make up|make|create|design|generate|improvise|tell"
        r"|sing|give"
        rf"|imagine|pitch|do|spin|dream up)(?: me| us)?(?: (?!about\b|how\b|what\b"
        rf"|top\b)\S+){{0,5}}? {_MADE}\b"
    ),
    (
        r"(?:come up with|think of|brainstorm|suggest|propose)(?: \S+){0,4}?"
        r" (?:ideas?|names?|titles?|slogans?|taglines?|stor(?:y|ies)|themes?|concepts?)\b"
    ),
    r"(?:give|generate|create|list)(?: me| us)?(?: \S+){0,3}? (?:ideas|names|titles)\b",
    (
        r"what (?:would|could) be a (?:good|great|nice|funny|cool|cute)?\s?(?:name"
        r"|title) for (?!a (?:variable|function|class))"
    ),
    (
        r"(?:give|generate|pick|choose|draw)(?: me| us)? (?:an? |some "
        r"|\d+ )?(?:\w+ )?random(?:ly)? (?!forest|walk|var)"
    ),
    r"(?:pick|choose|think of) (?:a|any) (?:number|card|colou?r|letter|word)\b",
    r"(?:flip a coin|toss a coin|roll (?:a|the|two|\d+) (?:die|dice)|surprise me|make me laugh|be creative)",
    r"tell me something (?:funny|interesting|nice)|continue (?:this|the|my) story",
    r"(?:give me |tell me )?(?:another|one more) (?:joke|poem|story|one)\b",
    rf"(?:i need|i want|i'd like|i'd love|i would like|i would love)(?: \S+){{0,3}}? {_MADE}\b",
    r"(?:write|rewrite|retell|say|describe)\b.{0,80}\b(?:in the style of|(?:like|as) a \w+ would)\b",
)

_PERIOD = (
    r"(?:morning|afternoon|evening|week|weekend|month|quarter|year|season|summer|winter|spring|autumn"
    r"|fall|sprint|"
    r"monday|tuesday|wednesday|thursday|friday|saturday|sunday|january|february|march|april|june|july|august|"
    r"september|october|november|december)"
)
_OFFICE = (
    r"(?:president|prime minister|chancellor|king|queen|monarch|pope|governor(?: general)?"
    r"|lieutenant governor|"
    r"mayor|ministers?|secretary(?: general)?|chief(?: \w+){0,3}|ceo|cfo|cto|chair(?:man|woman|person)?"
    r"|head coach|"
    r"coach|manager|captain|speaker|ambassador|commissioner|director|leader|head|owner|quarterback|senators?|"
    r"host|champions?|director general|attorney general|(?:home |finance |foreign |defen[cs]e )?minister)"
)
_MOST = (
    r"(?:most|richest|wealthiest|highest|largest|biggest|tallest|longest|oldest|youngest|fastest|busiest|"
    r"smallest|best[- ]selling|top|greatest)"
)
_ALWAYS_NEW = (
    r"\b(?:today|tonight|tomorrow|yesterday|nowadays)\b(?!\()(?<!usa today)(?<!the today)",
    (
        r"\b(?:right now|at the moment|at present|as of (?:now|today)|so far this|these days|just now"
        r"|until now|to date)\b"
    ),
    (
        r"\b(?:is|are|was|do|does|has|have|in|open|available|live|down|up"
        r"|there)\b[^.?!]{0,40} now\b(?! that\b)(?=[?.! ]*$)"
    ),
    rf"\b(?:this|next|last|past) {_PERIOD}\b",
    r"\b(?:last|past|next|coming) (?:\d+ |few |couple of )?(?:minutes|hours|days|weeks|months|night|24h)\b",
    r"\blast night\b",
    (
        r"\bmost recent(?:ly)?\b|\b(?:newest|latest)\b(?! (?:dates?|times?|point|possible"
        r"|by)\b)(?<!at the latest)"
    ),
    r"\b(?:currently|presently)\b",
    r"\b(?:trading at|in stock|sold out|going to (?:rain|snow)|on sale (?:now|today))\b",
    (
        r"\b(?:is|are|which) [^.?!]{2,40} (?:delayed|cancelled|having (?:problems|issues|an outage"
        r"|trouble))[?.! ]*$"
    ),
    (
        r"\b(?:any|the) (?:open|active|ongoing) (?:incidents?|outages?|issues?|tickets?|alerts?)\b"
        r"|\bbuild status\b"
    ),
    (
        r"\b(?:is|are|how(?:'s| is)) (?:the |there )?(?:\w+ )?traffic\b|\b\w{3}/\w{3} (?:rate|price)\b"
        r"|\bis current\b[?.! ]*$"
    ),
    (
        r"\b(?:this|the|next) coming (?:\w+day|week|month|year)\b|\b(?:the )?(?:top|number one) (?:songs?"
        r"|movies?|charts?|hits?)\b"
    ),
    (
        r"\b(?:the|your|our|their|its|'s|name of|is|are) current (?!director|working|user|page|element"
        r"|item|row|line|"
        r"index|branch|thread|process|date in|time in|flow|through|and )\w+"
    ),
    r"^current (?!flow)\w+",
    (
        r"\bupcoming\b|\bbreaking news\b|\b(?:top|latest|today's) (?:news|headlines|stories)\b"
        r"|\bnews (?:about|on|from)\b"
    ),
    r"\btrending\b|\bin the news\b|\bhappening (?:in|around|at|near)\b",
    (
        r"\bwhat(?:'s| is)? (?:the )?(?:time|date|day) (?:is it|it is|now)\b|\bwhat day is\b"
        r"|\bwhat(?:'s| is) (?:the )?(?:time|date)(?: (?:in|at|of the day|now)(?! .*(?:complexity"
        r"|formula)).{0,30})?[?.! ]*$"
    ),
    (
        r"\b(?:what|how)(?:'s| is| will| was)?\b[^.?!]{0,12}\bweather\b(?![^.?!]*\b(?:usually|typically"
        r"|in (?:spring|summer|"
        r"autumn|winter|january|february|march|april|may|june|july|august|september|october|november"
        r"|december))\b)"
    ),
    (
        r"\bweather (?:forecast|report|in|for|at)\b(?![^.?!]*\b(?:usually|typically|in (?:spring|summer"
        r"|autumn|winter))\b)"
        r"|\bforecast for\b|\bwill it (?:rain|snow)\b|\bis it (?:raining|snowing)\b"
    ),
    (
        r"\b(?:stock|share|bitcoin|btc|ethereum|eth|crypto|gold|silver|oil|gas|fuel|petrol|house) prices?\b"
        r"|\bprice of (?:bitcoin|btc|ethereum|gold|silver|oil|gas)\b"
        r"|\b(?:the|\w{3} to \w{3}|\w+/\w+) exchange rate\b"
    ),
    r"\bhow (?:is|are) (?:the )?(?:s&p|dow|nasdaq|dax|ftse|nikkei|markets?|stocks?)\b",
    r"\b(?:interest|mortgage|unemployment|inflation) rate (?:of|in|at|for)\b",
    (
        r"\b(?:traffic|delays?|outages?|incidents?)\b[^.?!]{0,30}\b(?:on|at|active|open"
        r"|now)\b(?=[^.?!]{0,30}[?]?$)"
        r"(?<!insider trading)"
    ),
    r"\bstatus of (?:the )?(?:flight|train|bus|server|build|pipeline|deployment|job|incident|service)\b",
    (
        r"\bis (?:the |our )?[\w .-]{2,40}? (?:down|offline|online|overloaded|sold out|in stock"
        r"|still \w+)[?.! ]*$"
    ),
    (
        r"\bwho(?:'s| is) (?:winning|leading|playing|running for|ahead)\b|\bwhat(?:'s| is) the score\b"
        r"|\bstandings\b"
    ),
    (
        r"\bhow (?:many|much) (?:\w+ ){0,2}(?:days|hours|weeks|months|minutes|time|longer)? ?(?:until"
        r"|till|left)\b"
        r"|\bhow long (?:until|till)\b|\bdays (?:until|till)\b"
    ),
    r"\bwhen(?:'s| is| are| does| do| will| did)? (?:the |is the )?(?:next|new)\b",
    (
        r"\b(?:the |an? )next (?:\w+ ){0,3}?(?:game|match|election|episode|season|event|release|meeting"
        r"|flight|train|"
        r"bus|world cup|olympics|super bowl|eclipse|full moon|movie|film|book|series|concert|holiday"
        r"|update|version|draft)\b"
    ),
    (
        r"\bwhen(?:'s| is| was| did| were)?\b[^.?!]{0,60}\b(?:last|latest) (?:time|win|won|win a|wins?)\b"
        r"|\b(?:the )?last time\b"
    ),
    r"\bwho (?:won|win|wins) the last\b|\bwho was the last\b",
    r"\bthis year'?s?\b|\bhas\b[^.?!]{0,60}\byet\b",
    (
        r"\bhow old is (?!the (?:earth|universe|sun|moon)|earth)(?!.*\bin (?:the )?(?:movie|film|book|show"
        r"|series)\b)"
    ),
    r"\bwait(?:ing)? time (?:at|for|in)\b(?! a\b)",
    r"\bhow many (?:open|active|pending|unresolved|running|unread) \w+",
)
_MOVING = (
    (
        rf"(?<!my )(?!.*\bmy\b)\b(?:who|what|which \w+)(?:'s| is"
        rf"| are) (?:the )?(?:\w+ ){{0,2}}?{_OFFICE}\b(?! (?:in|who|that"
        rf"|called)\b)(?: of| for|'s|[?.! ]*$| in )"
    ),
    (
        rf"\bwho(?:'s| is| are) the (?:\w+ ){{0,3}}{_OFFICE} (?:of|for|at)\b|\bwho is \w+'s {_OFFICE}\b"
        rf"|\bname of (?:the )?{_OFFICE} of\b"
    ),
    (
        rf"\bwho (?:has|have|holds?|had|leads?|is)\b[^.?!]{{0,60}}\b{_MOST}\b|\bwho holds the\b"
        rf"|\bholder of the\b"
    ),
    (
        rf"\b(?:which|what) (?!element|animal|mammal|planet|metal|species|organ"
        rf"|letter)(?:\w+ ){{1,3}}(?:has|have|had) (?:\w+ ){{0,4}}?(?:the )?{_MOST}\b"
    ),
    (
        r"\b(?:the )?records? (?:for|of) (?:the )?(?:most|fastest|highest|longest|largest|lowest)\b"
        r"|\bworld record\b"
    ),
    (
        r"\bof all[ -]times?\b|\bin history\b|\ball[ -]time (?:leading|top|best|high|record)\b"
        r"|\bever (?:made|built|sold|recorded)\b"
    ),
    (
        r"\bhighest[- ](?:paid|grossing|rated|earning)\b|\bbest[- ]?selling\b|\bmost (?:goals|points"
        r"|wins|titles|medals|"
        r"championships|home runs|runs|wickets|views|subscribers|followers|viewed|watched|liked"
        r"|streamed|popular|valuable|"
        r"expensive|populous|populated|visited|polluted|super ?bowls?|rings|yards|touchdowns|hits"
        r"|trophies|caps|centuries|"
        r"appearances|oscars|grammys|cups)\b"
    ),
    (
        r"\b(?:richest|wealthiest|tallest building|tallest structure|largest (?:company|city|population"
        r"|economy|army|"
        r"airport)|biggest (?:company|city|population|economy|airport))\b"
    ),
    r"\bpopulation of\b|\bhow many (?:people|citizens|inhabitants) (?:live|are|does)\b",
    (
        r"\bhow many (?:\w+ ){0,3}(?:has|have) (?:\w+ ){1,5}(?:won|scored|made|written|directed"
        r"|released|sold|played|had|been)\b"
        r"|\bhow many times (?:has|have)\b"
    ),
    r"\bwhat (?:\w+ )?(?:awards|titles|years|teams|films|movies|seasons?) (?:has|have)\b",
    r"\bwho won (?:the )?(?:\w+ ){0,4}?(?:election|last|this)\b",
    (
        r"\bhow many (?:\w+ ){0,4}are there (?:in|of|on) (?:the )?(?:us|usa|uk|united|india|world|country"
        r"|nfl|nba|mlb)\b"
    ),
    r"\b(?:minimum|average) (?:wage|salary|income|house price|life expectancy)\b|\bgdp of\b|\bnet worth\b",
)
_FIXED = re.compile(
    r"\b1[0-9]{3}s?\b|\b20[0-4][0-9]s?\b|\b\d{1,3}(?:st|nd|rd|th) century\b|\b\d+ (?:ad|bc|bce)\b"
    r"|\bseason \d+\b"
    r"|\bfirst\b|\bbefore\b|\bafter\b|\bduring\b"
)

_THING = (
    r"(?:(?:next|last|latest|current|previous|recent|open|own|new|full|first|\w+ing|account|order|card"
    r"|bank|credit|"
    r"delivery|phone|test|data|loyalty|vacation|annual|pull|monthly|unread|five|\d+|order's)[ ]){0,3}"
    r"(?:balances?|accounts?|orders?|packages?|parcels?|shipments?|deliver(?:y|ies)|refunds?|payments?"
    r"|invoices?|bills?|"
    r"statements?|transactions?|purchases?|subscriptions?|plans?|contracts?|polic(?:y|ies)|claims?"
    r"|applications?|tickets?|"
    r"cases?|bookings?|reservations?|appointments?|meetings?|calendar|schedule|agenda|inbox|e-?mails?"
    r"|messages?|"
    r"notifications?|tasks?|to-?dos?|to-?do list|reminders?|notes?|files?|documents?|requests?|issues?"
    r"|repos?|repositories|"
    r"servers?|flights?|trips?|seats?|gate|luggage|bags?|points|miles|rewards|limits?|usage|quota"
    r"|spending|portfolio|"
    r"holdings|salary|paycheck|payslip|pto|leave|vacation days|grades?|results?|scores?|exams?"
    r"|prescriptions?|medications?|"
    r"cart|basket|wish ?list|cards?|name|username|user name|address|location|birthday|age|phone number"
    r"|number|status|"
    r"profile|settings|preferences|history|membership|loan|mortgage|rent|deposit|savings|workout|steps"
    r"|weight|progress)\b"
)
_HOW_TO = (
    r"(?!how much (?:do|did) i (?:owe|spend|pay|earn)\b|when (?:do|will) i (?:get|receive) (?:paid|my)\b)"
    r"(?:how long (?:does|will|do) it\b|how to\b|what (?:if|happens|should)\b|should i\b|may i\b"
    r"|(?:how|where|what|when|which|why|who)(?: \w+)? (?:do|can|should|could|would|must|to)\b"
    r"|can (?:i|you|we) (?!tell|show|check|find|give|list|cancel|track|book|look)"
    r"|is it (?:possible|safe|ok|legal|normal)\b)"
)
_IF = r"(?![^.?!]*\b(?:if|in case) (?:i|my|it|the)\b)"
_PERSONAL = (
    (
        rf"(?:what|where|when|which|who|how|how (?:much|many|old|long|far))(?:'s| is| are| was| were"
        rf"| did| does| will| has)"
        rf"(?: (?!included\b|if\b)[^\s.?!]+){{0,6}}? my {_THING}{_IF}"
    ),
    rf"(?:what|which) (?:\w+ )?(?:is|are|was|were) my {_THING}",
    (
        r"(?:what|where|when|who|which \w+|how)(?:'s| is| are| was| were| does| did| will)"
        rf" (?:in |on |at |for |the \w+ (?:of|on|in|for|to) )?my \w+{_IF}"
    ),
    rf"is there (?:anything|something|a \w+) (?:on|in) my {_THING}",
    r"how (?:much|many) of my \w+",
    (
        r"(?:show|list|cancel|move|reschedule|resend|turn (?:off|on)|set|remove|add|put|play|log|track"
        r"|renew|pause)\b"
        r"(?: \S+){0,5}? my \w+"
    ),
    r"(?:which|what) (?:\w+ ){1,2}am i (?:\w+ing|in|on|at)\b|(?:what|where) am i \w+ing\b",
    r"do i (?:still )?owe\b|when (?:do|will) i (?:get|receive) (?:paid|my \w+)",
    (
        r"(?:show|tell|give|list)(?: me)? (?:what|everything|all|the \w+) (?:that )?i (?:have|'ve|bought"
        r"|ordered|paid|spent|did)\b"
    ),
    (
        r"(?:what|when)(?:'s| is| was) the (?:status|total|date|amount) of (?:order|ticket|invoice|case"
        r"|claim|booking) #?\d"
    ),
    rf"(?:is|are|was|were|has|have|did|does|will|why (?:is|are|was|were|has|did)) my {_THING}",
    (
        rf"(?:show|list|check|get|find|display|pull up|look up|open|read|fetch|tell|give|send|print"
        rf"|track|trace|cancel|"
        rf"update|change|edit|renew|pause|stop|delete|reschedule|book|summari[sz]e|search|count"
        rf"|transfer|pay|export|"
        rf"download|sync|clear|confirm|move|add)(?: me| us)?(?: (?!how\b|what\b|about\b"
        rf"|the steps\b)\S+){{0,4}}? my {_THING}"
    ),
    r"(?:remind|book|order|buy|call|text|wake|notify) me\b",
    r"(?:send|forward|reply)\b[^.?!]{0,40}\bto my\b",
    (
        r"how much (?:do|did) i (?:owe|spend|pay|earn)\b|who am i\b|what(?:'s| is) my name\b|where am i\b"
        r"|(?:which|what) \w+ am i on\b"
    ),
    (
        r"(?:how much|how many|how far|what|which|why|when|where)\b(?: \w+){0,3}? (?:did|have|was|were"
        r"|haven't|didn't"
        r"|had) (?:i|we)\b(?! (?:need|have) to)"
    ),
    r"how (?:much|many)\b[^.?!]{0,40} (?:do|have) i (?:have|got|earned|used|left)\b",
    r"(?:have|did|was|had) i\b(?! (?:need|to))",
    (
        r"am i (?:eligible|registered|subscribed|enrolled|logged in|late|overdue|on|in|signed up|covered"
        r"|charged)\b"
    ),
    (
        r"do i (?:still )?have (?:any|enough|unread|an? (?:appointment|meeting|booking|reservation|balance"
        r"|refund|message))\b"
    ),
    rf"(?:which|what|how many) of my {_THING}",
)


def _one_of(patterns: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile("|".join(f"(?:{one})" for one in patterns))


_CREATIVE_RULE = re.compile(rf"(?:^|(?<=[.!?;:,] )){_POLITE}(?:{'|'.join(_CREATIVE)})")
_NEW_RULE, _MOVING_RULE = _one_of(_ALWAYS_NEW), _one_of(_MOVING)
_PERSONAL_RULE = re.compile(rf"(?:^|(?<=[.!?;:,] )){_POLITE}(?!{_HOW_TO})(?:{'|'.join(_PERSONAL)})")


def _creative(text: str) -> bool:
    """It wants something made up: another one each time."""
    return _CREATIVE_RULE.search(text) is not None


def _time_sensitive(text: str) -> bool:
    """Its answer moves: with the day, or with who holds an office or a record, unless a time is given."""
    if _NEW_RULE.search(text) is not None:
        return True
    return _MOVING_RULE.search(text) is not None and _FIXED.search(text) is None


def _personal(text: str) -> bool:
    """Its answer is another for each who asks: it asks about, or acts on, what is theirs."""
    return _PERSONAL_RULE.search(text) is not None


_RULES: Mapping[Kind, Callable[[str], bool]] = {
    "creative": _creative,
    "time_sensitive": _time_sensitive,
    "personal": _personal,
}


def is_of(kind: Kind, text: str) -> bool:
    """Whether a question is of that kind."""
    return _RULES[kind](_read(text))


def _read(text: str) -> str:
    """Lower case, straight apostrophes, single spaces; of a long text both ends."""
    if len(text) > 2 * END:
        text = f"{text[:END]} {text[-END:]}"
    plain = unicodedata.normalize("NFC", text).casefold().replace("\u2019", "'")
    return " ".join(plain.split())
