"""The word lists that the generated world is made of. One place, so that the vocabulary can be built from it."""

from __future__ import annotations

NAMES = ("tom", "anna", "ben", "lucy", "omar", "mia")
THINGS = ("apples", "pens", "books", "cups", "balls", "keys")
BOXES = ("boxes", "bags", "piles", "rows")
FUNCTION_NAMES = ("work", "pick", "build", "count")

OPPOSITES = {
    "hot": "cold",
    "big": "small",
    "fast": "slow",
    "old": "new",
    "up": "down",
    "day": "night",
    "light": "dark",
    "rich": "poor",
}
OPPOSITE_OF = OPPOSITES | {right: left for left, right in OPPOSITES.items()}

CAPITALS = {
    "france": "paris",
    "italy": "rome",
    "spain": "madrid",
    "greece": "athens",
    "egypt": "cairo",
    "japan": "tokyo",
    "peru": "lima",
    "norway": "oslo",
}

# verb: (third person, past tense)
VERBS = {
    "eat": ("eats", "ate"),
    "see": ("sees", "saw"),
    "buy": ("buys", "bought"),
    "find": ("finds", "found"),
    "make": ("makes", "made"),
    "take": ("takes", "took"),
    "sell": ("sells", "sold"),
    "hold": ("holds", "held"),
}
COLOURS = ("red", "blue", "green", "white")
ANIMALS = ("ant", "bear", "cat", "dog", "fox", "goat", "hen", "lion")
