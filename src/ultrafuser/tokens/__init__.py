"""Vocabulary agreement, template pieces and slot tokens: one token stream for specialists with unlike chat templates."""
