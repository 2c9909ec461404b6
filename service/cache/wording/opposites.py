"""A word in the place of its opposite."""

from functools import cache
from importlib.resources import files

from service.cache.wording.contrast import contrast
from service.cache.wording.groups import Index, index, replaced
from service.cache.wording.negation import denials
from service.cache.wording.roles import turned
from service.cache.wording.words import Wording

OWN = """
open|close/shut
opening|closing
buy/purchase|sell
increase/raise|decrease/reduce/lower
increased|decreased/reduced
before|after
max/maximum|min/minimum
import|export
upload|download
sender|recipient/receiver
enable/activate|disable/deactivate
enabled|disabled
install|uninstall
subscribe|unsubscribe/cancel
connect|disconnect
encrypt|decrypt
compress|decompress
lock|unlock
follow|unfollow
block|unblock
mute|unmute
brighten|dim/darken
fair|foul
link|unlink
login|logout
inbound/incoming|outbound/outgoing
arrival|departure
arrive|depart/leave
borrow|lend
deposit|withdraw/withdrawal
credit|debit
accept/approve|reject/decline/deny
allow/permit|forbid/prohibit/ban/block
legal|illegal
possible|impossible
hire|fire
win|lose
won|lost
winner|loser
gain|lose/loss
profit|loss
include|exclude
including|excluding
with|without
above|below
over|under
inside|outside
indoor|outdoor
indoors|outdoors
older|younger
oldest|youngest/newest
bigger/larger|smaller
biggest/largest|smallest
longest|shortest
longer|shorter
highest|lowest
higher|lower
tallest|shortest
faster/quicker|slower
fastest|slowest
cheaper|pricier
cheapest|priciest
earliest|latest
earlier|later
best|worst
better|worse
most|least/fewest
more|less/fewer
north|south
northern|southern
east|west
eastern|western
up|down
hot|cold
hotter/warmer|colder/cooler
advantage/pro/benefit/strength|disadvantage/con/drawback/weakness
start/begin|stop/end/finish
mount|unmount
push|pull
push|pop
read|write
encode|decode
serialize|deserialize
append|prepend
ascending|descending
horizontal|vertical
horizontally|vertically
input|output
client|server
parent|child
public|private
internal|external
positive|negative
true|false
success|failure
add|remove/delete/subtract
show|hide
expand|collapse
create|delete/destroy
attach|detach
pass|fail
hypertension|hypotension
hyperthyroidism|hypothyroidism
hyperglycemia|hypoglycemia
landlord|tenant
employer|employee
teacher|student
buyer|seller
lender|borrower
lessor|lessee
debtor|creditor
plaintiff|defendant
licensor|licensee
doctor|patient
husband|wife
ancestor|descendant
supply|demand
asset|liability
revenue/income|expense
multiply|divide
odd|even
sunrise|sunset
hardware|software
vegetarian/vegan|meat
on|off
"""
"""Opposites that people ask about, beside WordNet's; synonyms have a slash between them."""

SWITCHED = frozenset({"on", "off", "up", "down", "over", "under"})
SWITCHES = frozenset({"turn", "switch", "scal", "siz", "volum", "ag"})
"""Little words are opposites only beside one of these stems."""

MOST_OTHER = 1
"""How many other content words may differ: measured, see docs/guards.md."""


@cache
def opposites() -> Index:
    """All pairs by stem. The file is read when the first text is compared."""
    wordnet = files(__package__).joinpath("opposites.tsv").read_text("utf-8")
    lines = [line.replace("\t", "|") for line in wordnet.splitlines() if not line.startswith("#")]
    return index(OWN.strip() + "\n" + "\n".join(lines))


def agree(a: Wording, b: Wording) -> bool:
    """Whether no opposite stands in a word's place; two of them, or one and a "not", cancel out."""
    pairs = replaced(a, b, opposites())
    if len(pairs) != 1:
        return True
    (one, other) = pairs[0]
    if one in SWITCHED and not a.stems & b.stems & SWITCHES:
        return True
    if denials(a) is None or denials(a) != denials(b) or turned(a, b, one, other):
        return True
    difference = contrast(a, b)
    rest = difference.rest(one, other)
    return rest > MOST_OTHER or rest > difference.shared
