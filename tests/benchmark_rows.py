"""A few hand-made rows of every benchmark: as the hub has them, and as records in the layout of the local files.

`write_test_data` makes a whole data directory of them, in milliseconds. Nothing is taken from the real benchmarks.
"""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

HEAD = (
    "from typing import List\n\n\ndef total(numbers: List[int]) -> int:\n"
    '    """ Add up the numbers.\n    >>> total([1, 2])\n    3\n    """\n'
)
BODY = "    return sum(numbers)\n"
TESTS = "\n\ndef check(candidate):\n    assert candidate([1, 2]) == 3\n    assert candidate([]) == 0\n"
SQUARE = "def helper(n):\n    return n\n\ndef square(n):\n    return helper(n) * n\n"
SAT_QUERY = "Q: What is $2+2$ ? Answer Choices: (A)3 (B)4 (C)5 (D)6\nA: Among A through D, the answer is"
AQUA_QUERY = "Q: Half of 10? Answer Choices: (A)1 (B)2 (C)3 (D)4 (E)5\nA: Among A through E, the answer is"

# For every benchmark the rows of each part that is loaded, in the hub's own fields.
HUB_ROWS: dict[str, list[list[dict[str, Any]]]] = {
    "gsm8k": [
        [
            {
                "question": "Ann has 1,000 nuts and gets 2 * 500 more. How many?",
                "answer": "She gets 2 * 500 = <<2*500=1000>>1000.\nThat makes 2,000 nuts.\n#### 2,000",
            },
            {"question": "Bob owes 3 and earns 1. What has he?", "answer": "1 - 3 = <<1-3=-2>>-2\n#### -2"},
        ]
    ],
    "math": [
        [
            {
                "problem": "What is half of one?",
                "level": "Level 1",
                "type": "Algebra",
                "solution": "First $\\boxed{1}$, then $\\boxed{\\frac{1}{2}}$.",
            }
        ],
        [{"problem": "Solve $x=1+1$.", "level": "Level ?", "type": "Counting", "solution": "It is $\\boxed 2$."}],
        *(
            [{"problem": f"Add {n} and 1.", "level": "Level 5", "type": "Sums", "solution": f"$\\boxed{{{n + 1}}}$"}]
            for n in range(5)
        ),
    ],
    "sat_math": [[{"query": SAT_QUERY, "choices": ["(A)3", "(B)4", "(C)5", "(D)6"], "gold": [1]}]],
    "aqua": [[{"query": AQUA_QUERY, "choices": ["(A)1", "(B)2", "(C)3", "(D)4", "(E)5"], "gold": [4]}]],
    "humaneval": [
        [{"task_id": "HumanEval/0", "prompt": HEAD, "canonical_solution": BODY, "test": TESTS, "entry_point": "total"}]
    ],
    "mbpp": [
        [
            {
                "task_id": 11,
                "text": "Write a function to square a number.",
                "code": SQUARE.replace("\n", "\r\n"),
                "test_list": ["assert square(3) == 9", "assert square(0) == 0"],
                "test_setup_code": "",
                "challenge_test_list": [],
            }
        ]
    ],
    "truthfulqa": [
        [
            {
                "question": "Is the moon cheese?",
                "mc1_targets": {"choices": ["It is rock.", "It is cheese."], "labels": [1, 0]},
                "mc2_targets": {"choices": ["It is rock.", "It is stone.", "It is cheese."], "labels": [1, 1, 0]},
            }
        ]
    ],
    "alpaca_eval": [
        [{"instruction": "Say hello.", "output": "Hi.", "generator": "text_davinci_003", "dataset": "helpful_base"}],
        [{"instruction": "Say hello.", "output": "Hello!", "generator": "gpt4_1106_preview", "dataset": "helpful_base"}],
    ],
    "mt_bench": [
        [
            {"prompt": ["Count to two.", "And back."], "reference": ["1, 2", "2, 1"], "category": "math", "prompt_id": 5},
            {"prompt": ["Tell a tale.", "A shorter one."], "reference": [], "category": "writing", "prompt_id": 6},
        ]
    ],
}

RECORDS: dict[str, list[dict[str, Any]]] = {
    "gsm8k": [
        {
            "id": "gsm8k-test-0",
            "prompt": "Ann has 1,000 nuts and gets 2 * 500 more. How many?",
            "response": "She gets 2 * 500 = 1000.\nThat makes 2,000 nuts.\n#### 2,000",
            "answer": "2000",
        },
        {
            "id": "gsm8k-test-1",
            "prompt": "Bob owes 3 and earns 1. What has he?",
            "response": "1 - 3 = -2\n#### -2",
            "answer": "-2",
        },
    ],
    "math": [
        {
            "id": "math-0",
            "prompt": "What is half of one?",
            "response": "First $\\boxed{1}$, then $\\boxed{\\frac{1}{2}}$.",
            "answer": "\\frac{1}{2}",
            "subject": "Algebra",
            "level": 1,
        },
        {
            "id": "math-1",
            "prompt": "Solve $x=1+1$.",
            "response": "It is $\\boxed 2$.",
            "answer": "2",
            "subject": "Counting",
            "level": None,
        },
        *(
            {
                "id": f"math-{n + 2}",
                "prompt": f"Add {n} and 1.",
                "response": f"$\\boxed{{{n + 1}}}$",
                "answer": f"{n + 1}",
                "subject": "Sums",
                "level": 5,
            }
            for n in range(5)
        ),
    ],
    "sat_math": [
        {
            "id": "agieval_sat_math-0",
            "prompt": "What is $2+2$ ?\n(A) 3\n(B) 4\n(C) 5\n(D) 6",
            "question": "What is $2+2$ ?",
            "choices": ["3", "4", "5", "6"],
            "choice_labels": ["A", "B", "C", "D"],
            "label": "B",
            "answer": "B",
        }
    ],
    "aqua": [
        {
            "id": "agieval_aqua_rat-0",
            "prompt": "Half of 10?\n(A) 1\n(B) 2\n(C) 3\n(D) 4\n(E) 5",
            "question": "Half of 10?",
            "choices": ["1", "2", "3", "4", "5"],
            "choice_labels": ["A", "B", "C", "D", "E"],
            "label": "E",
            "answer": "E",
        }
    ],
    "humaneval": [
        {
            "id": "HumanEval-0",
            "prompt": "Write a function total(numbers: List[int]) -> int to solve the following problem:\n"
            "Add up the numbers.\n>>> total([1, 2])\n3",
            "signature": "total(numbers: List[int]) -> int",
            "docstring": "Add up the numbers.\n>>> total([1, 2])\n3",
            "context": "from typing import List",
            "completion_prefix": HEAD,
            "response": HEAD + BODY,
            "tests": TESTS,
            "entry_point": "total",
        }
    ],
    "mbpp": [
        {
            "id": "mbpp-11",
            "prompt": "Write a function to square a number.",
            "response": SQUARE,
            "tests": "assert square(3) == 9\nassert square(0) == 0",
            "test_list": ["assert square(3) == 9", "assert square(0) == 0"],
            "entry_point": "square",
            "context": "",
            "completion_prefix": "def square(n):\n",
        }
    ],
    "truthfulqa": [
        {
            "id": "truthfulqa-0",
            "prompt": "Is the moon cheese?",
            "answer": "It is rock.",
            "mc1_choices": ["It is rock.", "It is cheese."],
            "mc1_labels": [1, 0],
            "mc2_choices": ["It is rock.", "It is stone.", "It is cheese."],
            "mc2_labels": [1, 1, 0],
        }
    ],
    "alpaca_eval": [
        {
            "id": "alpaca_eval-0",
            "prompt": "Say hello.",
            "dataset": "helpful_base",
            "reference_text_davinci_003": "Hi.",
            "reference_gpt4_1106_preview": "Hello!",
        }
    ],
    "mt_bench": [
        {
            "id": "mt_bench-81",
            "prompt": "Count to two.",
            "turns": ["Count to two.", "And back."],
            "category": "math",
            "reference": ["1, 2", "2, 1"],
        },
        {
            "id": "mt_bench-82",
            "prompt": "Tell a tale.",
            "turns": ["Tell a tale.", "A shorter one."],
            "category": "writing",
            "reference": None,
        },
    ],
}


def write_test_data(directory: Path) -> Path:
    """Write `RECORDS` as a data directory, as the real one is laid out, and return it."""
    from ultrafuser.testsets import TEST_SETS

    folder = directory / "eval"
    folder.mkdir(parents=True)
    for name, records in RECORDS.items():
        with gzip.open(folder / f"{TEST_SETS[name].file}.jsonl.gz", "wt", encoding="utf-8") as file:
            file.writelines(json.dumps(record) + "\n" for record in records)
    return directory
