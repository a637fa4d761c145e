"""Instruction synthesis from any OpenAI-compatible endpoint: UltraChat 2 of the paper's section 4. Needs no torch."""
