"""What keeps bad instructions and answers out: pure functions that give the reason of a drop in a few words, and no I/O.

`rules.py` names the rules and applies those a domain asks for; the other modules are what the rules are made of.
"""
