"""Numbers with their units, and which of them say the same."""

from typing import NamedTuple

from service.cache.wording.dates import dates
from service.cache.wording.figures import Figure, figures
from service.cache.wording.words import Wording, once


class Unit(NamedTuple):
    """A unit: its factor to what its dimension is counted in, and its zero there."""

    name: str
    dimensions: frozenset[str]
    factor: float = 1.0
    zero: float = 0.0


class Measure(NamedTuple):
    """A number, its unit where it has one, and the noun it counts otherwise."""

    value: float | str
    unit: Unit | None
    noun: str


def _units(dimension: str, table: str) -> dict[str, Unit]:
    """Lines `name factor words…`."""
    units = {}
    for line in table.strip().splitlines():
        name, factor, *words = line.split()
        unit = Unit(name, frozenset(dimension.split("|")), float(factor))
        units.update(dict.fromkeys((name, *words), unit))
    return units


UNITS: dict[str, Unit] = {
    **_units(
        "length",
        """
        mm 0.001 millimeter millimeters millimetre millimetres
        cm 0.01 centimeter centimeters centimetre centimetres
        meter 1 meters metre metres
        km 1000 kilometer kilometers kilometre kilometres kms
        inch 0.0254 inches
        foot 0.3048 feet ft
        yard 0.9144 yards
        mile 1609.344 miles mi
        """,
    ),
    **_units(
        "mass",
        """
        mg 0.000001 milligram milligrams
        gram 0.001 grams gramme grammes g
        kg 1 kilogram kilograms kilo kilos kgs
        ounce 0.0283495 ounces oz
        ton 1000 tons tonne tonnes
        """,
    ),
    **_units("mass|money", "pound 0.453592 pounds lb lbs £ gbp quid"),
    **_units(
        "volume",
        """
        ml 0.001 milliliter milliliters millilitre millilitres
        liter 1 liters litre litres l
        gallon 3.78541 gallons
        pint 0.473176 pints
        cup 0.236588 cups
        tablespoon 0.0147868 tablespoons tbsp
        teaspoon 0.00492892 teaspoons tsp
        """,
    ),
    **_units(
        "time",
        """
        ms 0.001 millisecond milliseconds
        second 1 seconds sec secs
        minute 60 minutes min mins
        hour 3600 hours hr hrs h
        day 86400 days
        week 604800 weeks wk wks
        month 2629800 months
        year 31557600 years yr yrs
        decade 315576000 decades
        """,
    ),
    **_units(
        "data",
        """
        kb 1 kilobyte kilobytes
        mb 1000 megabyte megabytes
        gb 1000000 gigabyte gigabytes gigs
        tb 1000000000 terabyte terabytes
        """,
    ),
    **_units("speed", "kmh 1 kph\nmph 1.609344"),
    **_units("share", "percent 1 % percentage"),
    **{
        word: Unit(name, frozenset({"money"}), -1)
        for name, words in {
            "dollar": "$ dollar dollars bucks",
            "usd": "usd",
            "cad": "cad",
            "aud": "aud",
            "euro": "€ eur euro euros",
            "yen": "¥ jpy yen",
            "rupee": "₹ inr rupee rupees rs",
            "franc": "chf franc francs",
            "peso": "peso pesos mxn",
            "cent": "cents cent",
        }.items()
        for word in words.split()
    },
    **dict.fromkeys(("celsius", "centigrade", "c"), Unit("celsius", frozenset({"warmth"}))),
    **dict.fromkeys(("fahrenheit", "f"), Unit("fahrenheit", frozenset({"warmth"}), 5 / 9, 32)),
    "kelvin": Unit("kelvin", frozenset({"warmth"}), 1, 273.15),
}
WITH_NUMBER_ONLY = frozenset(
    {"c", "f", "g", "l", "h", "m", "mi", "min", "rs", "cent", "day", "days", "%", "$", "second"}
)
"""Words that are units only behind a number, or say too little without one."""

MONEY_SIGNS = frozenset({"$", "€", "£", "¥", "₹", "usd", "eur", "gbp"})
ROUNDED = 0.03
"""How far converted measures may be apart, of one: people round."""

MANY = 64
"""Numbers of a text from which on no two ways to write one are thought of."""


@once
def measures(text: Wording) -> tuple[Measure, ...]:
    """The numbers of a text with what they measure."""
    found = dates(text)
    used = found.used if found else ()
    return tuple(_measure(text, figure) for figure in figures(text) if figure.start not in used)


def _measure(text: Wording, figure: Figure) -> Measure:
    words = text.words
    if figure.start and words[figure.start - 1].fold in MONEY_SIGNS:
        return Measure(figure.value, UNITS[words[figure.start - 1].fold], "")
    after = [word.fold for word in words[figure.end : figure.end + 3]]
    value = figure.value
    if after[:3] == ["and", "a", "half"] and not isinstance(value, str):
        value += 0.5
        after = [word.fold for word in words[figure.end + 3 : figure.end + 6]]
    while after and after[0] in {"an", "a", "of", "°", "degrees", "degree", "per"}:
        after = ["percent", *after[2:]] if after[:2] == ["per", "cent"] else after[1:]
    if not after or figure.ordinal:
        return Measure(value, None, after[0] if after else "")
    return Measure(value, UNITS.get(after[0]), "" if after[0] in UNITS else after[0])


def crowded(text: Wording) -> bool:
    """Whether a text has too many numbers to hold each against each."""
    return len(measures(text)) > MANY


@once
def lone_units(text: Wording) -> frozenset[Unit]:
    """Units named without a number: "in miles", "how many hours"."""
    named = {
        UNITS[word.fold] for word in text.words if word.fold in UNITS and word.fold not in WITH_NUMBER_ONLY
    }
    return frozenset(named - {one.unit for one in measures(text)})


def left(a: Wording, b: Wording) -> tuple[list[Measure], list[Measure]]:
    """The measures of each that the other doesn't say."""
    if b.text < a.text:  # so that the order of the texts doesn't matter
        return left(b, a)[::-1]
    mine, yours = list(measures(a)), list(measures(b))
    for one in measures(a):
        other = next((other for other in yours if equal(one, other)), None)
        if other is not None:
            mine.remove(one)
            yours.remove(other)
    return mine, yours


def equal(a: Measure, b: Measure) -> bool:
    """Whether they say the same, or one says less."""
    if a.unit is None or b.unit is None or alike(a.unit, b.unit):
        return same_value(a.value, b.value)
    if isinstance(a.value, str) or isinstance(b.value, str) or not a.unit.dimensions & b.unit.dimensions:
        return False
    if a.unit.factor < 0 or b.unit.factor < 0:  # money
        return False
    x, y = ((one.value - unit.zero) * unit.factor for one, unit in ((a, a.unit), (b, b.unit)))  # type: ignore[operator] # no text here
    return abs(x - y) <= ROUNDED * max(abs(x), abs(y))


def same_value(a: float | str, b: float | str) -> bool:
    """Equal numbers, also where one is an id in digits."""
    if isinstance(a, str) or isinstance(b, str):
        return str(a).lstrip("0") == str(b).lstrip("0")
    return abs(a - b) <= 1e-12 * max(abs(a), abs(b))


def alike(a: Unit, b: Unit) -> bool:
    """Whether both may be meant by the same word: $ is anyone's dollar."""
    return a.name == b.name or (
        {a.name, b.name} & {"dollar"} != set() and {a.name, b.name} <= {"dollar", "usd", "cad", "aud"}
    )
