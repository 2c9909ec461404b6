"""A word that says of whom, how much of, or how often, in another's place."""

from service.cache.wording.contrast import contrast
from service.cache.wording.groups import index, replaced
from service.cache.wording.words import Wording

GROUPS = index("""
all/every/each|some/several|none|half
only/just|also/too
adult/grownup|child/kid/children/minor|senior/elderly/pensioner|infant/baby|teenager/teen|student
men/man/male|women/woman/female
boy|girl
father/dad|mother/mom|brother|sister|son|daughter|uncle|aunt|husband|wife|grandfather|grandmother
hourly|daily|weekly|biweekly/fortnightly|monthly|quarterly|annual/annually/yearly
weekday|weekend|holiday
admin/administrator|member|guest|owner|viewer|editor|moderator
free|paid|premium|trial|basic|enterprise
domestic|international
personal|business/corporate/commercial
local|remote|global
total|average/mean|median|maximum/max|minimum/min
highest|average|lowest
gross|net
first|last/final|next
previous/last|next|current
public|private|shared
single|double|triple
full|partial
temporary/temporarily|permanent/permanently
mandatory/required|optional
economy|business|first
breakfast|lunch|dinner|dessert
username|password|email
credit|debit|gift
mobile|desktop
state|federal
undergraduate|graduate
primary|secondary
upper|lower
front|back/rear
left|right|middle
red|blue|green|yellow|black|white|purple|brown|pink
windows|mac/macos|linux|android|ios/iphone
chrome|firefox|safari
python|java|javascript/js|rust|ruby|php|golang|kotlin|swift
mysql|postgres/postgresql|sqlite|mongodb|oracle
visa|mastercard|paypal|amex
english|french|german|spanish|italian|japanese|chinese|portuguese|russian|arabic|korean|dutch
development/dev|staging|production/prod
horizontal|vertical
debit|credit|prepaid
""")

MOST_OTHER = 1
"""How many other content words may differ."""


def agree(a: Wording, b: Wording) -> bool:
    """Whether no word of a closed group stands in another's place."""
    pairs = replaced(a, b, GROUPS)
    if not pairs:
        return True
    difference = contrast(a, b)
    rest = min(difference.rest(one, other) for one, other in pairs)
    return rest > MOST_OTHER or rest > difference.shared
