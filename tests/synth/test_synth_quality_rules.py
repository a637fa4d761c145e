"""The rules against hand-made good and bad texts: what each must drop, and the innocent texts that look like it."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from ultrafuser.synth.quality.code import bracket_problem, python_problem
from ultrafuser.synth.quality.markdown import read_markdown
from ultrafuser.synth.quality.repetition import find_loop
from ultrafuser.synth.quality.rules import INSTRUCTION_RULES, NAMES, RESPONSE_RULES, Rules, check_instruction, check_response

ASK = "Explain to the readers of a magazine how a bicycle stays upright and what that has to do with the wheels."
FENCED = "Here it is:\n\n```{}\n{}\n```\n\nIt works."
SENTENCE = "The wheel turns and the rider leans into the curve, so the contact points move back under the weight. "

BAD_INSTRUCTIONS = {
    "unseen_material": [
        "Describe the attached image in three sentences.",
        "Summarize the article at https://news.example.org/2024/storm.",
        "What is the main idea of the following passage?",
        "Find the bug in the code below and repair it.",
        "Look at the picture above and name the animals in it.",
        "Refactor the given code so that it becomes easier to read.",
        "As shown in Figure 3, light is bent. Why?",
        "Rewrite the following function to be recursive. The function should add all odd numbers.",
    ],
    "placeholder": [
        "Name the capital of <insert name of a country>.",
        "Explain the history of [topic] to a child.",
        "Write a poem about [insert your favourite season here].",
        "What did [Your Hero] do for science?",
        "List three facts about [company].",
    ],
    "refusal": [
        "I'm sorry, but I can't create instructions about that.",
        "I cannot assist with this request.",
        "As an AI language model, I cannot write such tasks.",
        "I must decline to write that.",
        "Sorry, I am unable to provide such instructions.",
    ],
}
GOOD_INSTRUCTIONS = {
    "unseen_material": [
        "What is the main idea of the following passage? The sea was calm that night and nobody spoke.",
        "Find the bug in the code below:\n\nfor i in range(3) print(i)",
        "Write a function that returns the mode of the given list of numbers.",
        'Translate the following sentence into French: "The cat sleeps."',
        "Fetch the posts from https://api.example.com/posts with JavaScript and show their titles.",
        "Given the list [3, 1, 2], sort the following list with bubble sort: [9, 8].",
        "Draw a bar chart of the planets' radii with matplotlib.",
        "Explain what an image histogram is and how a photograph is exposed.",
    ],
    "placeholder": [
        "What does a[0] mean in C, and what does list[str] mean in Python?",
        "Write an e-mail template with [Name] for the customer.",
        "Write a program that prints 'Hello, [name]!' for each of the names.",
        "Solve x in [0, 1] for x^2 = 1/4.",
        "See [the manual](https://example.org/manual) of GNU sed: what does the flag g do?",
    ],
    "refusal": [
        "I can't sleep at night. What can I do about it?",
        "Can you give me a recipe for lentil soup?",
        "I'm sorry for being late: write that to my boss in a polite way.",
        "Please provide three arguments for city parks.",
        "Write a dialogue in which a guard says: I cannot let you pass.",
    ],
}
BAD_RESPONSES = {
    "truncation": [
        ("The speed of light in vacuum is exactly 299792458 metres per second, because the", "stop"),
        ("A complete sentence.", "length"),
        ("There are two reasons why this happens to so many people, namely,", "stop"),
        ("Steps:\n\n1. Boil the water.\n2. Add the pasta.\n3.", "stop"),
        ("The method is sound but the final result of the computation is", "stop"),
        ("A text that somebody stopped.", "content_filter"),
    ],
    "refusal": [
        ("I'm sorry, but I can't assist with that request.", "stop"),
        ("I cannot help you with creating malware.", "stop"),
        ("As an AI language model, I don't have the ability to browse the web.", "stop"),
        ("I apologize, but I am not able to provide medical advice.", "stop"),
        ("Unfortunately, I cannot access the link that you gave.", "stop"),
        ("I won't be able to complete this task.", "stop"),
        ("Sorry, but I can’t share copyrighted lyrics.", "stop"),
        ("I must respectfully decline to write this.", "stop"),
    ],
    "ai_self": [
        ("As an AI, I have no body, but people say that cycling is fun.", "stop"),
        ("Cycling is healthy. I am a large language model and do not cycle.", "stop"),
        ("My knowledge cutoff is 2023, but bicycles were much the same then.", "stop"),
        ("I'm ChatGPT, and here is what I know.", "stop"),
        ("I don't have personal opinions, but many riders like steel frames.", "stop"),
    ],
    "placeholder": [
        ("Bicycles were invented by [insert name here].", "stop"),
        ("Buy the [Product Name] today!", "stop"),
        ("Hi, I am [Your Name] and I like wheels.", "stop"),
        ("It was built in [city] by hand.", "stop"),
        ("Hello <your friend's name>, how are you?", "stop"),
    ],
    "language": [
        ("The wheel turns. 自行车之所以能够保持直立是因为前轮的转向。 So it stays upright.", "stop"),
        ("Велосипед остаётся в вертикальном положении, потому что колёса вращаются.", "stop"),
        ("The gyroscope helps, 그리고 자전거는 계속 앞으로 움직이기 때문에 넘어지지 않습니다.", "stop"),
        (
            "La bicicleta se mantiene en pie porque el ciclista mueve el manillar para que las ruedas vuelvan a estar debajo del "
            "peso, y con esto el centro de la masa no se cae como una piedra. Este efecto es más fuerte con la velocidad, pero "
            "no lo es todo.",
            "stop",
        ),
        ("यह पहिया घूमता है और सवार झुकता है इसलिए साइकिल सीधी रहती है।", "stop"),
    ],
    "loop": [
        (SENTENCE * 12, "stop"),
        ("Intro. " + "and then we go on " * 30, "stop"),
        ("\n".join(f"{n}. Keep your balance by looking far ahead and pedalling on." for n in range(40)), "stop"),
        ("Ha " * 90, "stop"),
        ("First a fine opening. " + "The end is near my friend. " * 20 + "The end is", "stop"),
    ],
    "closed_fences": [
        ("```python\nprint(1)", "stop"),
        ("Text\n```\nout", "stop"),
        ("```js\nf()\n```\n\nOutput:\n```", "stop"),
        ("~~~\ncode\n```", "stop"),
        ("````md\n```\ninner\n```", "stop"),
    ],
    "code_parses": [
        (FENCED.format("python", "def f(:\n    pass"), "stop"),
        (FENCED.format("py", "print 'hello'"), "stop"),
        (FENCED.format("Python", "for i in range(3):\nprint(i)"), "stop"),
        (FENCED.format("java", "class A { void f() { g(; } }"), "stop"),
        (FENCED.format("javascript", "function f() { return 1;"), "stop"),
        (FENCED.format("json", '{"a": [1, 2}'), "stop"),
    ],
    "final_answer": [
        ("We add the numbers and are done.", "stop"),
        ("The answer is that nobody can know it.", "stop"),
        ("So x is found. ####", "stop"),
        ("\\boxed{", "stop"),
        ("The answer is 5." + " But then a long story follows." * 40, "stop"),
    ],
}
GOOD_RESPONSES = {
    "truncation": [
        "A heading without a full stop",
        "That is the way it is",
        "Dear Ms Lee,\n\nthank you for the kind letter that came today.\n\nSincerely,",
        "Items:\n- wheel\n- frame",
        "```python\nx = [1,\n     2]\n```",
        "216.",
        "Sorted: chess I like play to",
        "def gcd(a, b):\n    while b:\n        a, b = b, a % b\n    return a",
        "5. Offer to help someone with a task they are struggling with",
    ],
    "refusal": [
        "I cannot help but admire how the wheel turns. " * 6,
        '"I can\'t go on," she said, and leaned the bicycle against the wall.',
        "I can't believe how simple it is: the wheel steers itself.",
        "You can't fall as long as you move.",
        "I cannot write to you without thinking of that summer by the sea. " + SENTENCE * 8,
        "Sorry to hear that! The chain can be fixed in five minutes.",
        "Bicycles stay upright. I'm sorry, but I can't assist with that request. (So said the chatbot.)",
    ],
    "ai_self": [
        "As an aid to balance, the wheel steers into the fall.",
        "An AI could balance it too, as engineers have shown.",
        "My training as a cyclist was hard.",
        "As an aircraft mechanic I know gyroscopes.",
        "I am an engineer.",
    ],
    "placeholder": [
        "The matrix entry a[i] and the interval [0, 1] are fine.",
        "See [this page](https://example.org).",
        "```html\n<your-element>[Your Name]</your-element>\n```",
        "He said [sic] that it was so [1].",
        "x < y and y > z",
    ],
    "language": [
        "The angle α grows with the speed v, where ∑F = m·a and Δx → 0.",
        "The word Fahrrad means bicycle; Карл said so.",
        "```python\nпривет = 'мир и труд и ещё много слов по-русски'\n```\nThat is all.",
        "Das Rad.",
        SENTENCE * 3,
    ],
    "loop": [
        SENTENCE * 2,
        "| a | b | c |\n" * 60,
        "Row, row, row your boat\nGently down the stream\n" * 3,
        "```python\n" + "print('the same line again')\n" * 40 + "```",
        "0 0 0 0 0 0 0 0 " * 20,
    ],
    "closed_fences": [
        "```python\nprint(1)\n```",
        "no code",
        "~~~\n```\n~~~",
        "````\n```\n````",
        "1. item\n   ```sh\n   ls\n   ```",
    ],
    "code_parses": [
        FENCED.format("python", "    def f():\n        return 1"),
        FENCED.format("python", ">>> 1 + 1\n2\n>>> print 'x' if 0 else 1"[:13]),
        FENCED.format("python", "if ready:\n    # start the engine\nelse:\n    # wait"),
        FENCED.format("python", "%matplotlib inline\nimport x"),
        FENCED.format("javascript", "const ok = /[(]\\d+/.test(s); // :)\nlet t = `${a(1)} )`;"),
        FENCED.format("cpp", 'auto s = R"({"a": [1)"; char c = \'{\'; /* } */'),
        FENCED.format("", "not python at all ("),
        FENCED.format("rust", "fn f<'a>(x: &'a str) {}"),
    ],
    "final_answer": [
        "#### 72",
        "Thus \\boxed{\\frac{1}{2}}.",
        "The answer is 12 apples.",
        "**Answer:** (B)",
        "Hence the final answer is $x = 3$.",
    ],
}


@pytest.mark.parametrize(("rule", "text"), [(rule, text) for rule, texts in BAD_INSTRUCTIONS.items() for text in texts])
def test_bad_instructions(rule: str, text: str) -> None:
    """Catches a rule that lets through what it is for; the reason begins with the rule's title."""
    reason = check_instruction(Rules(names=rule), text)
    assert reason is not None and reason.startswith(f"{INSTRUCTION_RULES[rule][0]}: ")


@pytest.mark.parametrize(("rule", "text"), [(rule, text) for rule, texts in GOOD_INSTRUCTIONS.items() for text in texts])
def test_good_instructions(rule: str, text: str) -> None:
    """Catches a rule that takes an innocent instruction for a bad one."""
    assert check_instruction(Rules(names=rule), text) is None


@pytest.mark.parametrize(("rule", "text", "end"), [(rule, *pair) for rule, pairs in BAD_RESPONSES.items() for pair in pairs])
def test_bad_responses(rule: str, text: str, end: str) -> None:
    """Catches a rule that lets through what it is for."""
    reason = check_response(Rules(names=rule), ASK, text, end)
    assert reason is not None and reason.startswith(f"{RESPONSE_RULES[rule][0]}: ")


@pytest.mark.parametrize(("rule", "text"), [(rule, text) for rule, texts in GOOD_RESPONSES.items() for text in texts])
def test_good_responses(rule: str, text: str) -> None:
    """Catches a rule that drops an innocent answer."""
    assert check_response(Rules(names=rule), ASK, text) is None


def test_every_rule_has_good_and_bad_examples() -> None:
    """Catches a rule that no test looks at."""
    assert BAD_INSTRUCTIONS.keys() == GOOD_INSTRUCTIONS.keys() == INSTRUCTION_RULES.keys()
    assert BAD_RESPONSES.keys() == GOOD_RESPONSES.keys() == RESPONSE_RULES.keys()
    assert all(
        len(texts) >= 5
        for table in (BAD_INSTRUCTIONS, GOOD_INSTRUCTIONS, BAD_RESPONSES, GOOD_RESPONSES)
        for texts in table.values()
    )


def test_subject_of_the_instruction_excuses() -> None:
    """Catches rules blind to what was asked: translations, templates, questions about AI."""
    rules = Rules()
    assert (
        check_response(rules, "Translate 'the wheel turns' into Russian.", "Колесо вращается, и велосипед едет вперёд.") is None
    )
    assert check_response(rules, "Write an e-mail to a customer.", "Dear [Name],\n\nthank you.\n\n[Your Name]") is None
    assert check_response(rules, "What is an AI language model?", "As an AI, I am one: a program that predicts words.") is None


def test_limits_and_what_no_rule_excuses() -> None:
    """Catches lengths that are not looked at, white space taken for an answer, and an error taken for one."""
    rules = Rules(names=(), shortest_instruction=5, longest_instruction=10, shortest_response=2, longest_response=4)
    assert check_instruction(rules, "four") == "too short: 4 characters"
    assert check_instruction(rules, "eleven char") == "too long: 11 characters"
    assert check_response(rules, ASK, " \n ") == "empty"
    assert check_response(rules, ASK, "x") == "too short: 1 characters"
    assert check_response(rules, ASK, "abcde") == "too long: 5 characters"
    assert check_response(rules, ASK, "fine", "error: 400") == "no answer: error: 400"
    assert check_response(rules, ASK, "fine") is None


def test_unknown_rules_are_mistakes() -> None:
    """Catches a mistyped rule that would silently never apply."""
    with pytest.raises(ValidationError, match=r"rule 'refusals' is not known; did you mean 'refusal'"):
        Rules(names=("refusals",))
    assert Rules(names="loop").names == ("loop",) and set(Rules().names) < set(NAMES)


def test_markdown_blocks() -> None:
    """Catches prose taken for code and code for prose: nested and indented fences, info strings, inline backticks."""
    read = read_markdown("a\n```Python {linenos}\nx\n```\nb ```inline``` c\n  ~~~\n```\n  ~~~\n````\n```\n````")
    assert [(block.language, block.code, block.closed) for block in read.blocks] == [
        ("python", "x", True), ("", "```", True), ("", "```", True),
    ]  # fmt: skip
    assert read.prose == "a\nb ```inline``` c"


def test_problems_say_where() -> None:
    """Catches reasons that do not help to find the fault."""
    assert python_problem("x = 1\ny = (") == "line 2: '(' was never closed"
    assert python_problem("x\x00") is not None and python_problem("(" * 5000) is not None
    assert bracket_problem("f(a]") == "']' closes nothing" and bracket_problem("{(}") == "'}' closes nothing"
    assert bracket_problem("g(") == "'(' is never closed"


def test_loops_at_their_borders() -> None:
    """Against the definition: a piece counts from its fourth time on, and from forty words."""
    piece = "one two three four five six seven eight nine ten "
    assert find_loop("x y z " + piece * 3) is None
    assert find_loop("x y z " + piece * 4) == f"repeats '{piece.strip()[:50]}'"
