"""Reading answers out of free text: one table of texts per rule, with what a careful reader would say."""

from __future__ import annotations

import ast
import time

import pytest

from ultrafuser.evaluate.extract import read_letter, read_math, read_number, read_yes_no
from ultrafuser.evaluate.extract_program import read_program

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
    "A car drives 5 miles": None,
    "It is 10.": None,
    "The answer is Beta": None,
    "": None,
}


@pytest.mark.parametrize(("text", "letter"), LETTERS.items())
def test_letters(text: str, letter: str | None) -> None:
    """Catches an article taken for option A, repeated options taken for a choice, and an option named in passing."""
    assert read_letter(text) == letter


def test_only_the_letters_of_the_question_count() -> None:
    """Catches an E read as an answer to a question that has four options."""
    assert read_letter("E", "ABCD") is None


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


@pytest.mark.parametrize("text", ["", "I cannot do that.", "Yes", "```\nnothing\n```", "return", "x = 5"])
def test_no_program(text: str) -> None:
    """Catches prose that parses as Python being run as a program, which would hide that nothing was answered."""
    program = read_program(text, "total", HEAD)
    assert program is None or "return" in text


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
    ):
        read_program(text, "total", HEAD)
    assert time.process_time() - started < 10


def test_docstrings_are_left_as_they_are() -> None:
    """Catches dedenting that changes a string of the program."""
    code = 'def total(xs):\n    text = """a\n    \nb"""\n    return text\n'
    program = read_program(f"```python\n{code}```", "total", HEAD)
    assert program is not None
    assert ast.dump(ast.parse(program)) == ast.dump(ast.parse(code))
