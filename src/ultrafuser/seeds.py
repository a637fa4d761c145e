"""Which seeds there are. On its own, so that the command line knows without importing what else a recipe may say."""

from __future__ import annotations

LARGEST_SEED = 2**31 - 1  # numpy takes 32 bits, and every stage adds its number
