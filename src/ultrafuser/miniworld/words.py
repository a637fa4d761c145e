"""The word lists that the generated world is made of. One place, so that the vocabulary can be built from it."""

from __future__ import annotations

NAMES = ("tom", "anna", "ben", "lucy", "omar", "mia", "paul", "rosa")
THINGS = ("apples", "pens", "books", "cups", "balls", "stones", "cards", "coins", "eggs", "keys")
BOXES = ("boxes", "bags", "piles", "rows")
FUNCTION_NAMES = ("solve", "work", "run", "make", "pick", "build", "count", "find")

OPPOSITES = {
    "hot": "cold",
    "big": "small",
    "fast": "slow",
    "old": "new",
    "up": "down",
    "day": "night",
    "light": "dark",
    "rich": "poor",
    "hard": "soft",
    "wet": "dry",
    "full": "empty",
    "early": "late",
    "open": "closed",
    "loud": "quiet",
    "near": "far",
    "good": "bad",
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
    "cuba": "havana",
    "kenya": "nairobi",
    "china": "beijing",
    "russia": "moscow",
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
    "draw": ("draws", "drew"),
    "hide": ("hides", "hid"),
    "wash": ("washes", "washed"),
    "push": ("pushes", "pushed"),
}
COLOURS = ("red", "blue", "green", "white", "black", "brown")
ANIMALS = ("ant", "bear", "cat", "dog", "fox", "goat", "hen", "lion", "mouse", "owl", "pig", "rat", "snake", "wolf")
