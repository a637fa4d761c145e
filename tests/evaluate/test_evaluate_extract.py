"""Reading answers out of free text: one table of texts per rule, with what a careful reader would say."""

from __future__ import annotations

import ast
import random
import re
import time

import pytest

from ultrafuser.endpoints.thoughts import without_thoughts
from ultrafuser.evaluate import extract_letter, extract_program
from ultrafuser.evaluate.extract import read_math, read_number, read_yes_no
from ultrafuser.evaluate.extract_letter import read_letter
from ultrafuser.evaluate.extract_program import read_program
from ultrafuser.evaluate.python_code import future_first, parsing_part

THOUGHTS = {
    "<think>Yes seems plausible.</think>\n\nNo.": "\n\nNo.",
    "Is it A? No.</think>B": "B",
    "<think>1</think>2<think>3</think>4": "4",
    "<think>\nIs it A?": "",
    "no thoughts": "no thoughts",
    "Qwen3 puts its reasoning into `<think>` tags.": "Qwen3 puts its reasoning into `<think>` tags.",
    '<think>Say "B"</think>"B", she said.': '"B", she said.',
    "<think>```\nB\n```</think>```\nA\n```": "```\nA\n```",
    "Write <think>why</think> first.": "Write <think>why</think> first.",
    "Step 1: print('</think>') and be done": "Step 1: print('</think>') and be done",
    '<think>Which?</think>Use re.sub(r"<think>.*</think>", "", text).': 'Use re.sub(r"<think>.*</think>", "", text).',
}


@pytest.mark.parametrize(("text", "said"), THOUGHTS.items())
def test_thoughts_are_put_aside(text: str, said: str) -> None:
    """Catches drafts, and thoughts that were cut off, taken for an answer; and an answer about such tags cut at them."""
    assert without_thoughts(text) == said


NUMBERS = {
    "#### 18": "18",
    "3 + 4 = 7\n#### 7\nThat was 1 sum.": "7",
    "#### 5\nor rather\n#### 6": "6",
    "#### none, so 9": "9",
    "####\nbut 12 before": "12",
    "She makes $18.": "18",
    "She makes \\$1,234.00 a day": "1234",
    "10{,}000 nuts": "10000",
    "It is 18.50%": "37/2",
    "16-3=13": "13",
    "16 - 3": "3",
    "(5)-3": "3",
    "the result is -4": "-4",
    "the result is −4.": "-4",
    "half is 1/2": "1/2",
    "36/2": "18",
    "0.5": "1/2",
    ".5": "1/2",
    "5/0": "5/0",
    "1,2": "2",
    "in 3 hours and 20 minutes": "20",
    "**18**": "18",
    "$$\\boxed{18}$$\nTherefore she makes 18 dollars every day (7 days a week).": "18",
    "The answer is $\\boxed{18}$ dollars. Let me know if you'd like 2 more examples!": "18",
    "\\boxed{5 + 7 = 12} apples, not 5": "12",
    "\\boxed{120 \\text{ cm}^2}": "120",
    "\\boxed{7}\n#### 8": "8",
    "\\boxed{\\frac{3}{4}}": "3/4",
    "\\boxed{3\\dfrac{1}{2}}": "7/2",
    "\\boxed{12}. I put it in \\boxed{}, as asked on line 1.": "12",
    "So the answer is 18.\n\nNote: this took 4 steps.": "18",
    "the answer is 12 (5+7)": "12",
    "**Answer:** 10 apples (5 red and 5 green).": "10",
    "the answer to this problem is therefore **12**, in 3 steps": "12",
    "Answer: 16 eggs a day. 16 - 3 - 4 = 9. She makes 9 * 2 = $18.": "18",
    "The answer is 5 + 7 = 12": "12",
    "#### Step 3: Final\nThe answer is 72": "72",
    "#### Step 1: Find\n3+4 = 7\n#### Step 2: double\n7*2=14": "14",
    "#### 1. Find\n3+4 = 7\n#### 12. **Double**\n7*2=14": "14",
    "#### **$72**": "72",
    "#### 72. ": "72",
    "#### Answer: 72 km in 3 h": "72",
    "So 3 1/2 hours": "7/2",
    "is –5": "-5",
    "18\u00a0000": "18000",
    "1e3": "1000",
    "no number": None,
    "": None,
    "٣": None,
}


@pytest.mark.parametrize(("text", "number"), NUMBERS.items())
def test_numbers(text: str, number: str | None) -> None:
    """Catches a sign, separator, currency mark or full stop that changes the number, and a wrong choice among several."""
    assert read_number(text) == number


def test_endless_digits_are_read_and_do_not_raise() -> None:
    """Catches Python's refusal to convert thousands of digits, which a looping model writes."""
    assert read_number("9" * 10_000) == "9" * 10_000


FORMULAS = {
    r"so \boxed{\frac{1}{2}}.": r"\frac{1}{2}",
    r"\boxed{1}, no, \boxed{2}": "2",
    r"The answer is 3. \boxed{4}": "4",
    "The answer is 3.5.": "3.5",
    "The answer is: $x+1$. Good.": "x+1",
    r"**Answer:** \(5\)": "5",
    r"The final answer is\[\frac12\]": r"\frac12",
    "The answer is 3. It follows from 4.": "3",
    "The answer is\n\n7": "7",
    "the answer is 1, no, the answer is 2": "2",
    "the answer is therefore 5": "5",
    "**Answer**: 5": "5",
    r"\boxed{3}. (\boxed{} as asked)": "3",
    "It is 3.": None,
    "The answer is": None,
    "": None,
}


@pytest.mark.parametrize(("text", "formula"), FORMULAS.items())
def test_formulas(text: str, formula: str | None) -> None:
    """Catches a cut at a decimal point, delimiters left on, or an earlier answer taken for the final one."""
    assert read_math(text) == formula


LETTERS = {
    "B": "B",
    "(B)": "B",
    "B) 5": "B",
    "B. Because 2 + 2 = 4": "B",
    "**B**": "B",
    "The answer is B.": "B",
    "The answer is (B) 4, not (C).": "B",
    "So the correct answer is: **B**": "B",
    "Answer : A": "A",
    "ANS:D": "D",
    "Final Answer:\nA": "A",
    "The correct option is C": "C",
    "D is the correct choice": "D",
    "Choice $\\mathbf{D}$ is correct. Choices A, B, and C are incorrect.": "D",
    "Option: B": "B",
    "Therefore $\\boxed{\\text{B}}$.": "B",
    "The answer is A? No: the answer is B": "B",
    "We compute 2 + 2.\n\nB": "B",
    "That matches (B).": "B",
    "(A) 3\n(B) 4\n(C) 5\n(D) 6": None,
    "(A) 3\n(B) 4\n(C) 5\n(D) 6\n\nB": "B",
    "A) 1 B) 2 C) 3. The right one is B": "B",
    "A) 1 B) 2 C) 3 D) 4": None,
    "(A) 1 wrong\n(B) 2 right\n\nSo B.": "B",
    "the answer is E = 5, i.e. (B)": "B",
    'The answer is "D".': "D",
    "The answer is “D”.": "D",
    "The answer is 'D'.": "D",
    "The answer is `D`.": "D",
    "So x = 3.\n\nD) 3": "D",
    "So x = 3.\n\n(D) 3": "D",
    "So x = 3.\n\n**D**: 3": "D",
    "\\boxed{B) 12}": "B",
    "\\boxed{\\text{C. 12}}": "C",
    "\\boxed{\\textbf{(B)} 12}": "B",
    "\\boxed{\\text{Option C}}": "C",
    "\\boxed{A + B}": None,
    "The answer is therefore D": "D",
    "The answer to this question is D.": "D",
    "The answer must be C": "C",
    "It must be C": "C",
    "I choose C": "C",
    "answer D": "D",
    "The answer is 12, which is option D, not option A.": "D",
    "The answer is not A. It is C.": "C",
    "It isn't (A).": None,
    "The centre of the circle is C.": None,
    "answer choice: (A) can never be true, (B) need not be": None,
    "A car drives 5 miles": None,
    "It is 10.": None,
    "The answer is Beta": None,
    "The answer is A or B.": None,
    "The answer is option A or option B.": None,
    "The answer is (B) or $\\text{(C)}$.": None,
    "Answer: D\n\nOr A was tempting.": "D",
    "The answer is **(A)** or **(C)**": None,
    "The answer is either A or B. Since 2 > 1, the answer is B": "B",
    "The answer is C or, in words, 12": "C",
    "The answer is B, or 12": "B",
    "": None,
}


@pytest.mark.parametrize(("text", "letter"), LETTERS.items())
def test_letters(text: str, letter: str | None) -> None:
    """Catches an article taken for option A, repeated options taken for a choice, and an option named in passing."""
    assert read_letter(text) == letter


def test_only_the_letters_of_the_question_count() -> None:
    """Catches an E read as an answer to a question that has four options."""
    assert read_letter("E", "ABCD") is None


def test_options_in_a_row_are_those_of_the_obvious_pattern() -> None:
    """Catches another reading than that of the one pattern, whose time grows with the cube of a text, on ten thousand lines."""
    obvious = re.compile(r"\bA[).:].*?\bB[).:].*?\bC[).:]")
    chance = random.Random(0)
    pieces = ["A)", "B.", "C:", "A", "B", "C", "D)", ")", "x", " ", "\n"]
    texts = ["".join(chance.choices(pieces, k=chance.randint(1, 40))) for _ in range(10_000)]
    found = [any(map(extract_letter._in_a_row, text.split("\n"))) for text in texts]
    assert found == [bool(obvious.search(text)) for text in texts] and 500 < sum(found) < 9500


def test_repeating_text_is_read_in_bounded_time() -> None:
    """Catches time that grows with the cube of a looping answer: this one took hours."""
    started = time.process_time()
    assert read_letter("A) B) " * 5000 + "\nThe answer is D") == "D"
    assert read_letter("A) B) " * 5000 + "C) ") is None
    assert time.process_time() - started < 20


def test_yes_and_no() -> None:
    """Catches words that contain "no", case, and the wrong end of a chain of thought."""
    texts = {"Yes.": "yes", "NO": "no", "**No**, yes": "no", "I know nothing": None, "": None, "Not so": None}
    assert {text: read_yes_no(text) for text in texts} == texts
    assert read_yes_no("No one doubts it. Yes", last=True) == "yes"


HEAD = 'from typing import List\n\ndef total(xs: List[int]) -> int:\n    """ Add up.\n    >>> total([1])\n    1\n    """\n'
BODY = "    result = 0\n    for x in xs:\n        result += x\n    return result\n"
WHOLE = "def total(xs):\n    return sum(xs)\n"
PROGRAMS = {
    "fenced": f"Sure!\n```python\n{WHOLE}```\nIt adds.",
    "fence without a language": f"```\n{WHOLE}```",
    "fence cut off": f"```python\n{WHOLE}",
    "indented fence": "1. So:\n   ```python\n   def total(xs):\n       return sum(xs)\n   ```\n",
    "a fenced example first": f"```python\nprint(total([1]))\n```\nwith\n```python\n{WHOLE}```",
    "two solutions": f"```python\n{WHOLE}```\nor\n```python\ndef total(xs):\n    raise ValueError\n```",
    "bare": WHOLE,
    "bare with prose": f"Here it is:\n\n{WHOLE}\nThis adds the numbers.",
    "bare with constants": f"from the start we need\nZERO = 0\n\n{WHOLE.replace('sum(xs)', 'sum(xs, ZERO)')}\nDone.",
    "prose that begins like code": f"from this follows the code\n{WHOLE}",
    "lambda": "```python\ntotal = lambda xs: sum(xs)\n```",
    "body": BODY,
    "body, stripped by decoding": BODY.strip(),
    "body without indentation": "result = sum(xs)\nreturn result",
    "lambda with a type": "```python\nf = sum\ntotal: object = lambda xs: f(xs)\n```",
    "several ways of the same": f"```python\ndef total(xs):\n    raise ValueError\n```\n```python\n{WHOLE}```",
    "cut off after the function": f"```python\n{WHOLE}\nprint(total([1,",
    "stub first": f"```python\ndef total(xs): ...\n```\nand then\n```python\n{WHOLE}```",
    "head first": f"The head:\n```python\n{HEAD}```\nand then\n```python\n{WHOLE}```",
    "import apart": "```\nimport operator\n```\n```\ndef total(xs):\n    return sum(map(operator.pos, xs))\n```",
    "helper after": "```\ndef total(xs):\n    return add(xs)\n```\nwith\n```\ndef add(xs):\n    return sum(xs)\nadd(1, 2)\n```",
    "helper of a helper": (
        "```\nZERO = 0\n```\n```\ndef add(xs):\n    return sum(xs, ZERO)\n```\n```\ntotal = lambda xs: add(xs)\n```"
    ),
    "helper below, decorated": "```\ndef total(xs):\n    return add(xs)\n\n@(lambda f: sum)\ndef add(xs):\n    pass\n```",
    "table made before": f"```\ntable = []\nfor i in range(2):\n    table.append(i)\n{WHOLE}    table[1]\n```",
    "fence in the docstring": (
        '```python\ndef total(xs):\n    """\n    ```\n    total([1])\n    ```\n    """\n    return sum(xs)\n```\nSo.'
    ),
    "closed on the last line": "```python\ndef total(xs):\n    return sum(xs)```\nDone.",
    "body on one line": "```return sum(xs)```",
    "fence after a word": f"Here: ```python\n{WHOLE}```",
    "tildes": f"~~~python\n{WHOLE}~~~",
    "own tests": f"```python\n{WHOLE}\nassert total([1]) == 3\nx = int(input())\nprint(total([x]))\n```",
    "own tests, bare": f"{WHOLE}\nassert total([1]) == 3\n",
    "own tests after a body": f"{BODY}\nassert total([1]) == 3\n",
    "defined twice": f"```python\ndef total(xs):\n    return 1\n\n{WHOLE}```",
    "fenced body": f"```python\n{BODY}```",
    "body with prose": f"{BODY}\nThis works because it adds.",
}


@pytest.mark.parametrize("form", PROGRAMS)
def test_programs(form: str) -> None:
    """Catches every usual form of an answer that would be lost: the program that was read must add up numbers."""
    program = read_program(PROGRAMS[form], "total", HEAD)
    assert program is not None
    names: dict = {}
    exec(compile(program, "answer", "exec"), names)
    assert names["total"]([1, 2, 3]) == 6


NO_PROGRAMS = [
    *("total: what has been added up", "total == 6 in the end"),
    *("", "I cannot do that.", "Yes", "```\nnothing\n```", "return", "x = 5", "You should return sum(xs)."),
    "```python\nclass Solution:\n    def total(self, xs):\n        return sum(xs)\n```",
    "```python\ndef Total(xs):\n    return sum(xs)\n```",
    "def sum_all(xs):\n    return sum(xs)\n",
    "f = lambda xs: (yield xs)",
]


@pytest.mark.parametrize("text", NO_PROGRAMS)
def test_no_program(text: str) -> None:
    """Catches prose, or a function of another name, being run as the program, which would hide that it was not answered."""
    assert read_program(text, "total", HEAD) is None


def test_future_imports_come_first() -> None:
    """Catches the imports of the question put before those of the answer that Python wants first."""
    program = future_first("import os\n\nfrom __future__ import annotations\ndef f(x: unknown):\n    return x\n")
    names: dict = {}
    exec(compile(program, "answer", "exec", dont_inherit=True), names)
    assert names["f"](3) == 3


def test_a_program_that_does_not_parse_is_an_answer() -> None:
    """Catches wrong code reported as no code."""
    assert read_program("def total(xs:\n    return 1", "total", HEAD) is not None


def test_hostile_text_is_read_in_bounded_time() -> None:
    """Catches a parser crash on deep brackets or null bytes, and time that grows with the square of a looping answer."""
    started = time.process_time()
    for text in (
        "def total(xs): return " + "(" * 5000,
        "def total(xs):\n    return '\0'",
        "import os\n" * 1000,
        "def total(x\n" * 500,
        "```\n" * 2000,
        f"```\ndef total(x):\n    return {'x + ' * 3000}x\n```",
        "def total(x): pass\n" * 1000,
        "@cache\ndef total(x):\n    pass\n" * 300,
    ):
        read_program(text, "total", HEAD)
    assert time.process_time() - started < 10


def test_docstrings_are_left_as_they_are() -> None:
    """Catches dedenting that changes a string of the program."""
    code = 'def total(xs):\n    text = """a\n    \nb"""\n    return text\n'
    program = read_program(f"```python\n{code}```", "total", HEAD)
    assert program is not None
    assert ast.dump(ast.parse(program)) == ast.dump(ast.parse(code))


PIECES = (
    *("def f(x):", "    return x", "    pass", "def f(x): pass", "f = lambda x: x", "f: int = 3", "f = 1; s = '''", "class f:"),
    *("async def f(x):", "@dec", "@(", ")", "x = (", "x = [", "]", "import os", "import os os", "from here on", "It's prose", ""),
    *('"""', 'x = """', '"""; y = 2', "'''", "if x:", "else:", "    x = 1", "\tx = 2", "  z", "x = 1 \\\\", "return 5", "f(3"),
)


def test_programs_are_those_of_trying_every_line(monkeypatch) -> None:
    """Catches a line that is passed over although a program begins there: against trying each, on 3,000 texts of odd lines."""

    def every(text):
        lines = text.split("\n")
        starts = [start for start, line in enumerate(lines) if extract_program._CODE_LINE.match(line)]
        yield from (parsing_part("\n".join(lines[start:])) for start in starts)
        yield text

    chance = random.Random(0)
    texts = ["\n".join(chance.choices(PIECES, k=chance.randint(1, 14))) for _ in range(3000)]
    found = [read_program(text, "f", HEAD) for text in texts]
    monkeypatch.setattr(extract_program, "_bare_code", every)
    assert found == [read_program(text, "f", HEAD) for text in texts]
    assert sum(program is not None for program in found) > 1000


@pytest.mark.parametrize(
    "text", ['total = sum; text = """\n"""\nprint(text)', 'x = 1\ry = 2\ntotal = sum\ntext = """\n"""\nprint(x)']
)
def test_a_program_is_never_cut_inside_a_string(text: str) -> None:
    """Catches a traceback, and so a task that fails, where the last line of the program begins a string, or "\\r" ends one."""
    names: dict = {}
    exec(compile(read_program(text, "total", HEAD) or "", "answer", "exec"), names)
    assert names["total"] is sum
