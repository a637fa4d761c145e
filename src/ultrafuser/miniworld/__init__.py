"""The embedded default: a small generated world of text, code and math tasks with exact checks.

`generate` gives tasks, `build_tokenizer` their vocabulary and chat templates, `check_answers` judges, `recipes/miniworld.yaml`
says which models to train on them and how.
"""

from ultrafuser.miniworld.check import check_answers
from ultrafuser.miniworld.language import build_tokenizer, chat_template
from ultrafuser.miniworld.task import DOMAINS, Part, Task, to_record
from ultrafuser.miniworld.world import generate

__all__ = [
    "DOMAINS",
    "Part",
    "Task",
    "build_tokenizer",
    "chat_template",
    "check_answers",
    "generate",
    "to_record",
]
