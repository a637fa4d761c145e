"""The steps of the synthesis: each asks for what is missing, and saves what came of it."""
