"""English words by what they do in a message; for `standalone.py`."""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


BACK = _words(
    "it mine ours he him his himself she her hers herself they them their theirs themselves its itself this "
    "these those ones another other others else same instead also again still either neither both then "
    "therefore thus above below earlier previous previously former latter aforementioned mentioned next "
    "following remaining similarly otherwise alternatively already yet anymore here continue"
)
"""Words that point at something said before, wherever they stand."""

PRONOUNS = _words("it its he him his she her hers they them their theirs this these those ones")
"""Those of them that stand for something named."""

REPLIES = _words(
    "and but so or also then because plus no nope not yes yeah yep yup ok okay alright sure right fine well "
    "thanks thank great good nice cool perfect awesome wonderful interesting really wow hmm hm ah ahh oh "
    "huh exactly correct true maybe perhaps actually sounds sorry wait never nevermind stop go just only"
)
"""A message that begins with one of these answers something."""

COMPARED = _words(
    "more less fewer better worse cheaper bigger larger smaller faster slower older younger newer higher "
    "lower easier harder closer nearer longer shorter taller later safer stronger weaker warmer colder "
    "hotter lighter heavier quieter nicer stricter simpler"
)

SIDES = _words("compare compares differ differs difference differences relate relates")
SIDES_OF = _words("and with to from between")

TALK = _words(
    "mention mentioned say said told tell suggest suggested recommend recommended list listed mean meant "
    "miss missed discuss discussed describe described talk talked give gave show showed"
)

ASKING = _words("what who whom whose where when why which how")
LISTING = _words("what who which")
AUXILIARY = _words(
    "is are was were am be been being do does did can could should would will shall may might must has have "
    "had having"
)
ORDERS = _words("tell describe explain list compare define write summarize translate name calculate convert")
REQUESTS = frozenset({"can you", "could you", "will you", "would you"})
"""They ask for something to be done, which only what was said before may say whole."""

COMPLEMENT = _words("of for in to between on from behind with at against about by into near during among")
PLAIN = _words(
    "we us our give show find search look recommend suggest help create generate book reserve play buy "
    "order a an the i you me my mine your yours myself yourself that there one s t and or but as than if "
    "not no so any some all each every many much few several most least own very too really quite just only "
    "ever even well like up out off over under down through per via within without across after before "
    "while because until since go goes going gone get gets getting got make makes made making use used uses "
    "using work works working need needs needed want wants wanted know knows mean means happen happens "
    "happened take takes took taken come comes came become became see say says said think keep put let try "
    "start started begin began consider exist existed call called sure please hi hello hey people person "
    "someone something anyone anything thing things stuff everything today now lot"
)
"""Words that say nothing of what a message is about."""

QUALITIES = _words(
    "main key common important popular best worst different various possible typical average total famous "
    "good bad major minor recent first second third fourth fifth last current specific biggest largest "
    "smallest highest lowest cheapest fastest oldest youngest greatest longest shortest nearest closest new "
    "old big small large high low long short fast far near early late similar certain special exact general "
    "normal overall great powerful significant safe available effective successful dangerous expensive "
    "cheap interesting necessary useful basic advanced whole full entire right real true two three four "
    "five"
)
OPEN = _words("used needed required done involved included")
"""Participles that leave open what for."""

PARTS = _words(
    "way ways owner owners user users winner winners address number phone contact price prices cost costs "
    "fee fees rate rates rating ratings name names time times date dates day days place places location "
    "locations distance duration length size sizes color colors weight age type types kind kinds sort sorts "
    "style styles example examples cause causes effect effects symptom symptoms sign signs treatment "
    "treatments cure role roles impact impacts importance significance purpose purposes meaning definition "
    "advantage advantages disadvantage disadvantages benefit benefits drawback drawbacks pros cons risk "
    "risks danger dangers difference differences similarity similarities feature features part parts "
    "component components layer layers member members leader leaders author authors founder founders "
    "director actor actors cast genre origin origins history background result results finding findings "
    "evidence controversy problem problems issue issues challenge challenges solution solutions step steps "
    "method methods option options alternative alternatives choice choices requirement requirements rule "
    "rules law laws condition conditions detail details information info reason reasons source sources "
    "application applications consequence consequences implication implications outcome outcomes plan plans "
    "status schedule future relationship relation connection reaction response level levels amount limit "
    "minimum maximum quality category categories version versions characteristics population capital "
    "language currency weather temperature humidity wind forecast seat seats ticket tickets theory theories "
    "study studies experiment movement team group term idea ideas event events story process period era "
    "stage stages class classes use form forms model models item items product products material materials "
    "figure figures fact facts case cases topic subject area areas city country company"
)
"""Nouns that are something's; whose has to be said."""

UNIQUE = _words(
    "internet web sun moon earth world sky universe ocean sea environment president economy us uk usa"
)
ENGLISH = _words(
    "the what how who where when why which can does do did i my you your of for to and with are is should "
    "would tell about it be from"
)
OTHERS = _words(
    "ist der das und nicht wie ich het een wat hoe niet ik est que le les des une pour comment quel quelle "
    "el los una por como qual il che non per di och är hur vad jag co jak czy"
)

EMPTY = PLAIN | QUALITIES | PARTS | OPEN | ASKING | AUXILIARY | ORDERS | COMPLEMENT | BACK | COMPARED
"""What tells nothing of what a message is about."""

RELATIVE = AUXILIARY | _words("i you people")
"""What follows a `that` which points at the word before it."""
