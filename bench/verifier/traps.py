"""Changes of a text by rule: a trap needs another answer, a rewording the same one.

Each rule takes a text and returns a changed text, or None where it does not apply.
"""

import itertools
import random
import re
from collections.abc import Callable, Iterable, Sequence

from bench.verifier.wordnet import WordNet

Rule = Callable[[str], str | None]

WORD = re.compile(r"[^\W_]+(?:['\u2019][^\W_]+)?")
MONTHS = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
]
ASKED = {"who", "what", "when", "where", "why", "how", "which", "whom", "whose"}
DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
NUMBERS = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
    "twenty",
]

RINGS = [
    "today|tomorrow|yesterday",
    "morning|afternoon|evening|night",
    "second|minute|hour|day|week|month|quarter|year|decade|century",
    "seconds|minutes|hours|days|weeks|months|quarters|years|decades|centuries",
    "hourly|daily|weekly|monthly|quarterly|yearly|annual|biweekly",
    "spring|summer|autumn|winter",
    "km|miles|meters|feet|inches|cm|mm|yards",
    "kilometers|miles|metres|feet|inches",
    "kg|lbs|pounds|grams|ounces|stone",
    "celsius|fahrenheit|kelvin",
    "liters|gallons|cups|pints|ounces|ml|tablespoons|teaspoons",
    "usd|eur|gbp|jpy|chf|cad|aud|inr",
    "dollars|euros|pounds|yen|francs|pesos|rupees",
    "mb|gb|tb|kb",
    "first|second|third|fourth|fifth|last",
    "highest|lowest|average|median|total|second highest",
    "largest|smallest|longest|shortest|oldest|newest|tallest",
    "maximum|minimum|average|total",
    "most|least|fewest",
    "all|some|none|only the first|half of the",
    "every|no|any other",
    "adults|children|seniors|students|infants|teenagers",
    "adult|child|senior|student|infant",
    "men|women|children|boys|girls",
    "man|woman|boy|girl",
    "father|mother|brother|sister|son|daughter|uncle|aunt|husband|wife|grandfather|grandmother",
    "free|paid|premium|trial|basic|enterprise",
    "admin|member|guest|owner|viewer|editor",
    "public|private|shared",
    "internal|external",
    "domestic|international|regional",
    "incoming|outgoing",
    "upload|download",
    "import|export",
    "buy|sell|rent|return",
    "open|close|freeze",
    "add|remove|replace|rename",
    "create|delete|update|archive|duplicate|restore",
    "enable|disable",
    "activate|deactivate|reactivate",
    "install|uninstall|reinstall|update",
    "start|stop|restart|pause",
    "increase|decrease|double|halve",
    "increased|decreased",
    "encrypt|decrypt",
    "connect|disconnect",
    "subscribe|unsubscribe",
    "lock|unlock",
    "turn on|turn off",
    "log in|log out|sign up",
    "send|receive",
    "deposit|withdraw|transfer",
    "lend|borrow",
    "accept|reject|ignore",
    "approve|decline|postpone",
    "allow|forbid|require",
    "allowed|forbidden|required",
    "legal|illegal",
    "possible|impossible|necessary",
    "include|exclude",
    "including|excluding",
    "with|without",
    "before|after|during",
    "above|below",
    "over|under",
    "inside|outside",
    "more than|less than|exactly",
    "at least|at most|exactly",
    "older|younger",
    "bigger|smaller",
    "faster|slower",
    "cheaper|more expensive",
    "earlier|later",
    "next|last|this",
    "new|old|used|refurbished",
    "cheap|expensive",
    "cheapest|most expensive|fastest|best rated",
    "best|worst",
    "left|right|middle",
    "north|south|east|west",
    "northern|southern|eastern|western",
    "up|down",
    "early|late",
    "hot|cold|warm|frozen",
    "arrive|depart|leave",
    "arrival|departure",
    "arrivals|departures",
    "one way|round trip",
    "economy|business|first class",
    "breakfast|lunch|dinner|dessert",
    "credit card|debit card|bank account|gift card",
    "visa|mastercard|paypal",
    "windows|mac|linux|android|ios",
    "python|java|javascript|rust|go|ruby|c++|php",
    "mysql|postgres|sqlite|mongodb|oracle",
    "english|french|german|spanish|italian|japanese|chinese|portuguese|russian|arabic",
    "america|europe|asia|africa|australia",
    "red|blue|green|yellow|black|white|orange|purple|brown|pink",
    "username|password|email address|phone number",
    "email|phone|chat|letter",
    "income|expenses|profit|revenue",
    "win|lose|draw",
    "won|lost",
    "author|publisher|translator|editor",
    "singer|writer|producer|drummer|guitarist",
    "population|area|elevation|climate|capital",
    "cause|symptoms|treatment|prevention",
    "causes|symptoms|treatments|side effects",
    "born|buried|educated|married",
    "my|his|her|their",
    "husband|wife|boss|friend",
    "per person|in total|per group|per day",
    "on weekdays|on weekends|on holidays",
]
ASKING = [
    "when was|where was|why was|how was",
    "when did|where did|why did|how did|how often did",
    "when is|where is|why is|how much is|who is|what is",
    "who|when|where|why",
    "how many|how much|how long|how often|how far|how old",
    "how do i|when should i|why should i|can i|do i have to|where do i|how often can i|who can",
    "how can i|when can i|where can i|why can't i|how often can i|how long can i",
    "how to|when to|where to|why|who should",
    "what is the|who is the|where is the|how many are the",
    "how long does|how much does|why does|when does|how often does|where does",
]
NEGATIONS = [
    (r"\b(is|are|was|were|do|does|did|can|could|should|would|will|must|has|have|had)\b(?! not)", r"\1 not"),
    (r"\b(do|does|did|is|are|was|were|could|should|would)\b(?! not)", r"\1n't"),
    (r"\b(is|are|was|were|do|does|did|can|could|should|would|will|must|has|have|had) not\b", r"\1"),
    (r"\bcannot\b|\bcan't\b", "can"),
    (r"\bwon't\b", "will"),
    (r"\b(do|does|did|is|are|was|were|could|should|would|has|have|had)n['\u2019]t\b", r"\1"),
    (r"\bhow to\b", "how not to"),
    (r"\bhow to (\w+)", r"how to avoid having to \1"),
    (r"\bwith\b", "without"),
    (r"\bwithout\b", "with"),
    (r"\band\b", "but not"),
    (r"\bfor\b", "not for"),
    (r"\bin\b(?= [A-Z0-9])", "outside"),
    (r"\balways\b", "never"),
    (r"\bnever\b", "always"),
    (r"\bany\b", "no"),
]
INSERTED = [
    "for children", "for free", "in Europe", "on Android", "without a password", "for a company", "in 2019",
    "by phone", "on weekends", "in Germany", "before 1990", "for beginners", "in Excel", "for seniors",
    "offline", "twice", "abroad", "in advance", "per month", "at night", "for two people", "in winter",
    "under 100 dollars", "within 24 hours", "as a student", "via the API", "since 2020", "in the UK",
]  # fmt: skip
ADJECTIVES = [
    "first", "last", "second", "international", "old", "new", "annual", "female", "former", "average",
    "largest", "smallest", "free", "temporary", "second-hand", "premium", "deleted", "active", "public",
    "main", "national", "original", "hidden", "unpaid", "expired", "empty", "shared", "corporate", "local",
]  # fmt: skip
PREFIXED = ["do", "happy", "able", "lock", "install", "subscribe", "like", "agree", "connect", "approve"]

POLITE = [
    "please {}", "can you tell me {}", "could you tell me {}", "i'd like to know {}", "hi, {}", "hello {}",
    "quick question: {}", "do you know {}", "tell me {}", "{} thanks", "{} please", "hey, {}", "so {}",
    "i was wondering {}", "i want to know {}", "just wondering, {}", "um {}", "{} ?", "ok, {}", "{}!",
]  # fmt: skip
SAME = [
    ("what's|what is", "whats"), ("what is", "what's"), ("who is", "who's"), ("where is", "where's"),
    ("do not", "don't"), ("does not", "doesn't"), ("is not", "isn't"), ("cannot", "can't"),
    ("can't", "cannot"), ("don't", "do not"), ("i am", "i'm"), ("i have", "i've"), ("it is", "it's"),
    ("what's", "what is"), ("who's", "who is"), ("isn't", "is not"), ("doesn't", "does not"),
    ("how do i", "how can i"), ("how can i", "how do i"), ("how do i", "how to"), ("how to", "how do i"),
    ("how can i", "what is the way to"), ("how do i", "what's the best way to"), ("how to", "how can i"),
    ("how much is", "what is the price of"), ("how much does", "what does"), ("what is", "tell me"),
    ("what year did", "when did"), ("in what year", "when"), ("what year was", "when was"),
    ("which|what", "which"), ("what", "which"), ("want to", "would like to"), ("show me", "list"),
    ("list", "show me"), ("give me", "show me"), ("find", "look for"), ("is there", "do you have"),
    ("are there", "is there"), ("buy", "purchase"), ("purchase", "buy"), ("start", "begin"),
    ("end", "finish"), ("big", "large"), ("large", "big"), ("car", "automobile"), ("movie", "film"),
    ("film", "movie"), ("picture", "photo"), ("get", "obtain"), ("help", "assist"), ("fix", "repair"),
    ("repair", "fix"), ("delete", "remove"), ("remove", "delete"), ("change", "modify"), ("modify", "change"),
    ("need to", "have to"), ("have to", "need to"), ("be able to", "can"), ("because", "since"),
    ("near", "close to"), ("close to", "near"), ("about", "regarding"), ("right now", "currently"),
    ("currently", "at the moment"), ("approximately", "about"), ("hours", "hrs"), ("minutes", "mins"),
    ("united states", "us"), ("united states", "usa"), ("usa", "united states"), ("us", "united states"),
    ("u.s.", "united states"), ("uk", "united kingdom"), ("united kingdom", "uk"), ("nyc", "new york city"),
    ("new york city", "nyc"), ("los angeles", "la"), ("world war ii", "ww2"),
    ("world war ii", "second world war"),
    ("world war i", "first world war"), ("percent", "%"), ("dollars", "usd"), ("euros", "eur"),
    ("two-factor authentication", "2fa"), ("2fa", "two-factor authentication"), ("tv", "television"),
    ("television", "tv"), ("app", "application"), ("application", "app"), ("phone", "telephone"),
    ("email", "e-mail"), ("e-mail", "email"), ("log in", "sign in"), ("sign in", "log in"),
    ("log in", "login"), ("wifi", "wi-fi"), ("wi-fi", "wifi"), ("can i", "is it possible to"),
    ("online", "on the internet"), ("doctor", "dr."), ("versus", "vs"), ("vs", "versus"), ("and", "&"),
    ("okay", "ok"), ("information", "info"), ("info", "information"), ("database", "db"),
    ("javascript", "js"), ("kubernetes", "k8s"), ("postgres", "postgresql"), ("config", "configuration"),
    ("repository", "repo"), ("repo", "repository"), ("directory", "folder"), ("folder", "directory"),
    ("error", "err"), ("number", "no."), ("temperature", "temp"), ("artificial intelligence", "ai"),
    ("per year", "annually"), ("yearly", "annual"), ("each month", "monthly"), ("per month", "monthly"),
    ("every day", "daily"), ("each day", "per day"), ("every", "each"), ("biggest", "largest"),
    ("largest", "biggest"), ("begin", "start"), ("kids", "children"), ("children", "kids"),
    ("how many", "what number of"), ("how many", "what is the number of"), ("located", "situated"),
    ("bring up", "show"), ("job", "work"), ("maximum", "max"), ("minimum", "min"), ("max", "maximum"),
    ("average", "avg"), ("document", "doc"), ("university", "uni"), ("weeks", "wks"),
]  # fmt: skip

OWNED = (
    "order|account|password|card|subscription|invoice|bill|refund|payment|phone|laptop|computer|email|"
    "e-mail|booking|reservation|flight|ticket|package|parcel|delivery|plan|profile|address|passport|visa|"
    "license|licence|loan|mortgage|contract|policy|claim|router|device|app|username|pin|balance|statement|"
    "transfer|deposit|membership|car|order status|phone number|credit card|debit card|bank account"
)


class Rules:
    """The rules, with their own dice and a bank of names to swap in."""

    def __init__(self, wordnet: WordNet, names: Sequence[str], seed: int) -> None:
        self._net = wordnet
        self._chance = random.Random(seed)  # noqa: S311 - sampling
        self._names = list(names)
        self._place: dict[str, bool] = {}
        self.traps: dict[str, list[tuple[float, Rule]]] = {
            "number": [(1, self.number), (1, self.number_word)],
            "date": [(1, self.date), (0.6, self.year)],
            "negation": [(1, self.negation), (0.5, self.antonym), (0.2, self.prefix)],
            "entity": [(1, self.name), (0.8, self.sister), (0.5, self.capital)],
            "scope": [(1.5, self.ring), (0.5, self.inserted), (0.5, self.adjective), (0.4, self.dropped)],
            "role": [(1.2, self.swapped), (0.5, self.exchanged)],
            "question": [(1.2, self.asking)],
        }
        self.rewordings: list[Rule] = [
            self.polite, self.same, self.same, self.synonym, self.digits, self.flat, self.fronted,
            self.plural, self.typo, self.month_form, self.shortened, self.determiner,
        ]  # fmt: skip

    def trap(self, text: str) -> tuple[str, str] | None:
        """A trap with its kind."""
        weighted = [(weight, kind, rule) for kind, rules in self.traps.items() for weight, rule in rules]
        self._chance.shuffle(weighted)
        weighted.sort(key=lambda one: -one[0] * self._chance.random())
        for _, kind, rule in weighted:
            changed = rule(text)
            if changed is not None and _flat(changed) != _flat(text):
                return changed, kind
        return None

    def reworded(self, text: str, times: int = 1) -> str | None:
        """The text with `times` harmless changes, fewer if fewer apply."""
        changed = text
        rules = self._chance.sample(self.rewordings, len(self.rewordings))
        for rule in rules:
            new = rule(changed)
            if new is not None and new != changed:
                changed, times = new, times - 1
                if times == 0:
                    break
        return None if changed == text else changed

    # Traps

    def number(self, text: str) -> str | None:
        """Another number in digits."""
        found = self._pick(re.finditer(r"\d+", text))
        if found is None:
            return None
        old = found.group()
        value = int(old)
        options = [
            value + 1,
            value - 1,
            value + 10,
            value * 10,
            value * 2,
            value + self._chance.randint(1, 30),
        ]
        if len(old) > 1:
            options.append(int(old[:-2] + old[-1] + old[-2]))
            options.append(int(old[:-1] + str((int(old[-1]) + 3) % 10)))
        options = [one for one in options if one >= 0 and one != value]
        return _put(text, found, str(self._chance.choice(options)))

    def number_word(self, text: str) -> str | None:
        """Another small number in words."""
        found = self._pick(m for m in WORD.finditer(text) if m.group().lower() in NUMBERS[2:])
        if found is None:
            return None
        new = self._chance.choice([one for one in NUMBERS[2:] if one != found.group().lower()])
        return _put(text, found, new)

    def date(self, text: str) -> str | None:
        """Another month or weekday."""
        for names in (MONTHS, DAYS):
            found = self._pick(
                m
                for m in WORD.finditer(text)
                if m.group().capitalize() in names and m.group() not in {"may", "march"}
            )
            if found is not None:
                return _put(
                    text, found, self._chance.choice([n for n in names if n != found.group().capitalize()])
                )
        return None

    def year(self, text: str) -> str | None:
        """Another year."""
        found = self._pick(re.finditer(r"\b(1[5-9]|20)\d\d\b", text))
        if found is None:
            return None
        return _put(text, found, str(int(found.group()) + self._chance.choice([-10, -2, -1, 1, 2, 4, 10])))

    def negation(self, text: str) -> str | None:
        """Negated, or no longer."""
        for pattern, new in self._chance.sample(NEGATIONS, len(NEGATIONS)):
            found = self._pick(re.finditer(pattern, text, re.IGNORECASE))
            if found is not None:
                return _put(text, found, found.expand(new))
        return None

    def antonym(self, text: str) -> str | None:
        """A word's opposite."""
        return self._replaced(text, self._net.antonyms)

    def prefix(self, text: str) -> str | None:
        """un-, dis-."""
        found = self._pick(m for m in WORD.finditer(text) if m.group().lower() in PREFIXED)
        if found is None:
            return None
        word = found.group().lower()
        return _put(text, found, ("dis" if word in {"like", "agree", "connect", "approve"} else "un") + word)

    def sister(self, text: str) -> str | None:
        """Another kind of the same: dog → wolf, Paris → Kabul."""
        return self._replaced(text, self._net.sisters)

    def name(self, text: str) -> str | None:
        """Another name where one stands inside the sentence."""
        found = self._pick(re.finditer(r"(?<=[a-z,] )[A-Z][\w'\u2019.-]*(?: [A-Z][\w'\u2019.-]*)*", text))
        if found is None:
            return None
        old = found.group()
        sisters = self._net.sisters(old.lower().replace(" ", "_"), "n")
        if sisters and sisters[0][0].isupper():
            return _put(text, found, self._chance.choice(sisters))
        options = [
            n for n in self._chance.sample(self._names, 30) if n.count(" ") == old.count(" ") and n != old
        ]
        return _put(text, found, options[0]) if options else None

    def capital(self, text: str) -> str | None:
        """One word of a name of several: another first name, another street."""
        found = self._pick(re.finditer(r"(?<=[a-z,] )[A-Z][\w'\u2019-]+(?: [A-Z][\w'\u2019-]+)+", text))
        if found is None:
            return None
        words = found.group().split()
        at = self._chance.randrange(len(words))
        words[at] = self._chance.choice(
            [n for n in self._chance.sample(self._names, 40) if " " not in n] or ["Smith"]
        )
        return _put(text, found, " ".join(words))

    def ring(self, text: str) -> str | None:
        """A word for another of its small closed group."""
        return self._around(text, RINGS)

    def asking(self, text: str) -> str | None:
        """Another question about the same thing."""
        return self._around(text, ASKING)

    def inserted(self, text: str) -> str | None:
        """A condition more."""
        end = re.search(r"[\s?.!]*$", text)
        at = end.start() if end else len(text)
        return f"{text[:at]} {self._chance.choice(INSERTED)}{text[at:]}"

    def adjective(self, text: str) -> str | None:
        """A qualifying word more, before a noun."""
        found = self._pick(re.finditer(r"\b(the|my|a|an|your|our) (?=[a-z]{3,})", text))
        if found is None:
            return None
        return f"{text[: found.end()]}{self._chance.choice(ADJECTIVES)} {text[found.end() :]}"

    def dropped(self, text: str) -> str | None:
        """A condition less: a prepositional phrase or an adjective goes."""
        little = "in|for|on|at|by|from|to|with|without|of|during|before|after"
        pattern = rf" (?:{little}) (?:the |a |an )?[\w'-]+(?=[\s?.!,]|$)"
        found = self._pick(m for m in re.finditer(pattern, text) if len(text) - len(m.group()) > 15)
        if found is not None and self._chance.random() < 0.7:
            return _put(text, found, "")
        found = self._pick(
            m
            for m in re.finditer(r"\b\w+ (?=\w{3,})", text)
            if self._net.pos(m.group().strip().lower()) == "a"
        )
        return None if found is None else _put(text, found, "")

    def swapped(self, text: str) -> str | None:
        """Two sides exchanged: from A to B, A than B, A or B of one verb."""
        patterns = [
            r"\bfrom ((?:\w+ ){0,2}\w+) to ((?:\w+ ){0,1}\w+)",
            r"\b([A-Z]\w+(?: [A-Z]\w+)*) (?:\w+ ){1,3}than ((?:the )?[A-Z]?\w+)",
            r"(?<=[a-z] )([A-Z]\w+(?: [A-Z]\w+)*) (?:\w+ ){1,3}([A-Z]\w+(?: [A-Z]\w+)*)",
            r"\b(?:the|a|an) (\w+) (?:of|in|on|by|to|for|with|after|before) (?:the|a|an) (\w+)",
        ]
        for pattern in self._chance.sample(patterns, len(patterns)):
            found = self._pick(re.finditer(pattern, text))
            if found is not None and found.group(1).lower() != found.group(2).lower():
                (a, b), (c, d) = found.span(1), found.span(2)
                return text[:a] + text[c:d] + text[b:c] + text[a:b] + text[d:]
        return None

    def exchanged(self, text: str) -> str | None:
        """Two nouns exchanged, unless they are only listed."""
        nouns = [
            m for m in WORD.finditer(text) if len(m.group()) > 2 and self._net.pos(m.group().lower()) == "n"
        ]
        couples = [
            (a, b)
            for a, b in itertools.combinations(nouns, 2)
            if a.group().lower() != b.group().lower()
            and text[a.end() : b.start()].strip().lower() not in {"", "and", "or", "&", ",", "/"}
        ]
        if not couples:
            return None
        a, b = self._chance.choice(couples)
        between = text[a.end() : b.start()]
        return text[: a.start()] + b.group() + between + a.group() + text[b.end() :]

    # Rewordings

    def polite(self, text: str) -> str | None:
        """A phrase around it."""
        flat = text.rstrip("?!. ")
        return self._chance.choice(POLITE).format(flat[:1].lower() + flat[1:])

    def same(self, text: str) -> str | None:
        """Contractions, abbreviations, pairs of words with one meaning."""
        options = [
            (found, new)
            for old, new in SAME
            for found in re.finditer(rf"(?<![\w'])(?:{old})(?![\w'])", text, re.IGNORECASE)
            if not (old == "us" and found.group() != "US")
        ]
        if not options:
            return None
        found, new = self._chance.choice(options)
        return _put(text, found, new.upper() if found.group().isupper() and len(found.group()) > 1 else new)

    def determiner(self, text: str) -> str | None:
        """Another article, or "my" for one, before what a customer has one of."""
        found = self._pick(re.finditer(rf"\b(my|the|an?|your)(?= (?:{OWNED})\b)", text))
        others = ["my", "the", "my", "your", "a"]
        return None if found is None else _put(text, found, self._chance.choice(others))

    def synonym(self, text: str) -> str | None:
        """A word that has the same first meaning."""
        return self._replaced(text, self._net.synonyms)

    def digits(self, text: str) -> str | None:
        """Small numbers in words or digits; thousands with and without commas."""
        found = self._pick(re.finditer(r"(?<![\w.,:/-])\d{1,2}(?![\w.,:/%-])", text))
        if found is not None and int(found.group()) < len(NUMBERS):
            return _put(text, found, NUMBERS[int(found.group())])
        found = self._pick(m for m in WORD.finditer(text) if m.group().lower() in NUMBERS[2:])
        if found is not None:
            return _put(text, found, str(NUMBERS.index(found.group().lower())))
        found = self._pick(re.finditer(r"\b\d{1,3}(?:,\d{3})+\b", text))
        return None if found is None else _put(text, found, found.group().replace(",", ""))

    def flat(self, text: str) -> str | None:
        """Without case and closing marks, or in capitals."""
        flat = text.lower().rstrip("?!. ")
        return self._chance.choice([flat, flat, flat + "?", flat.capitalize() + "?", flat.upper()])

    def fronted(self, text: str) -> str | None:
        """The last phrase first: "what is X in Paris" → "in Paris, what is X"."""
        found = re.search(
            r"^(.{12,}?) ((?:in|on|at|for|during|after|before) (?:the |a )?[\w'-]+(?: [\w'-]+)?)[?. ]*$", text
        )
        if found is None:
            return None
        head, tail = found.groups()
        return f"{tail[:1].upper()}{tail[1:]}, {head[:1].lower()}{head[1:]}?"

    def plural(self, text: str) -> str | None:
        """a → the."""
        found = self._pick(re.finditer(r"\b(a|an|the) (?=[a-z])", text))
        return None if found is None else _put(text, found, self._chance.choice(["", "the "]))

    def typo(self, text: str) -> str | None:
        """Two letters exchanged, one missing or doubled in a long lower-case word."""
        found = self._pick(re.finditer(r"\b[a-z]{6,}\b", text))
        if found is None:
            return None
        word, at = found.group(), self._chance.randrange(1, len(found.group()) - 2)
        options = [
            word[:at] + word[at + 1] + word[at] + word[at + 2 :],
            word[:at] + word[at + 1 :],
            word[:at] + word[at] + word[at:],
        ]
        return _put(text, found, self._chance.choice(options))

    def month_form(self, text: str) -> str | None:
        """August 3 → 3 August, Aug 3, 8/3."""
        found = self._pick(
            re.finditer(rf"\b({'|'.join(MONTHS)}) (\d{{1,2}})(?:st|nd|rd|th)?\b", text, re.IGNORECASE)
        )
        if found is not None:
            month, day = found.groups()
            return _put(
                text, found, self._chance.choice([f"{day} {month}", f"{month[:3]} {day}", f"{month} {day}th"])
            )
        found = self._pick(re.finditer(rf"\b({'|'.join(MONTHS)})\b", text))
        return None if found is None or found.group() == "May" else _put(text, found, found.group()[:3])

    def shortened(self, text: str) -> str | None:
        """As typed into a search box: without asking words."""
        leads = "what(?:'s| is| are| was| were)|tell me|how (?:do|can) (?:i|you)"
        lead = rf"^(?:{leads}) (?:the )?"
        short = re.sub(lead, "", text, flags=re.IGNORECASE)
        if short == text or len(short) < 15 or text.lower().startswith(("who", "where")):
            return None
        return short.rstrip("?!. ")

    # Tools

    def _pick(self, found: Iterable[re.Match[str]]) -> re.Match[str] | None:
        options = list(found)
        return self._chance.choice(options) if options else None

    def _around(self, text: str, rings: Sequence[str]) -> str | None:
        options = []
        for ring in rings:
            words = ring.split("|")
            pattern = (
                rf"(?<![\w'-])(?:{'|'.join(map(re.escape, sorted(words, key=len, reverse=True)))})(?![\w'-])"
            )
            options += [(found, words) for found in re.finditer(pattern, text, re.IGNORECASE)]
        if not options:
            return None
        found, words = self._chance.choice(options)
        new = self._chance.choice([word for word in words if word != found.group().lower()])
        return _put(text, found, new)

    def _replaced(self, text: str, source: Callable[[str, str], list[str]]) -> str | None:
        options = []
        for found in WORD.finditer(text):
            word = found.group().lower()
            lemma, ending = (word[:-1], "s") if word.endswith("s") and not word.endswith("ss") else (word, "")
            for base, tail in ((word, ""), (lemma, ending)):
                pos = self._net.pos(base)
                if pos is not None and len(base) > 2 and base not in ASKED:
                    options += [(found, new + tail) for new in source(base, pos)]
                    break
        if not options:
            return None
        by_place: dict[tuple[int, int], list[tuple[re.Match[str], str]]] = {}
        for option in options:
            by_place.setdefault(option[0].span(), []).append(option)
        found, new = self._chance.choice(self._chance.choice(list(by_place.values())))
        return _put(text, found, new)


def names(texts: Sequence[str]) -> list[str]:
    """Capitalised spans inside sentences."""
    pattern = re.compile(r"(?<=[a-z,] )[A-Z][\w'\u2019.-]*(?: [A-Z][\w'\u2019.-]*){0,2}(?=[ ?.,]|$)")
    return sorted({found.strip(".,") for text in texts for found in pattern.findall(text)})


def _put(text: str, found: re.Match[str], new: str) -> str:
    if found.group()[:1].isupper() and not found.group().isupper():
        new = new[:1].upper() + new[1:]
    return text[: found.start()] + new + text[found.end() :]


def _flat(text: str) -> str:
    return "".join(WORD.findall(text.lower()))
