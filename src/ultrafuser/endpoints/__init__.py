"""OpenAI-compatible endpoints: a client that shares requests out, a store of answers, spending. Needs no torch."""
