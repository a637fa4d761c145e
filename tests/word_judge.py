"""A judge that is none: it counts words. For running the judged benchmarks to their end where no language model can judge.

    python tests/word_judge.py        prints its base URL, and serves until its standard input is closed

Of two answers the one that repeats more of the instruction's words is better; a single answer's mark is the share of the
question's words that it repeats, from 1 (none) to 10 (all). So its verdicts are certain and mean nothing about quality. It reads
the prompts of ``evaluate/judged/templates`` and MT-Bench's official ones.
"""

from __future__ import annotations

import json
import re
import sys

from fake_endpoint import Body, FakeEndpoint

# The questions and the answers of a conversation, in our own wording or in that of MT-Bench.
QUESTION = re.compile(r"<user>\n(.*?)\n</user>|### User:\n(.*?)\n\n### |\[Question\]\n(.*?)\n\n\[The Start", re.DOTALL)
ANSWER = re.compile(
    r"<assistant>\n(.*?)\n</assistant>"
    r"|### Assistant A:\n(.*?)(?=\n\n### User:|\n\n<\|The End)"
    r"|\[The Start of Assistant's Answer\]\n(.*?)\n\[The End",
    re.DOTALL,
)
PAIR = re.compile(
    r"<instruction>\n(.*)\n</instruction>.*<answer_A>\n(.*)\n</answer_A>.*<answer_B>\n(.*)\n</answer_B>",
    re.DOTALL,
)


def words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.lower()))


def repeated(question: str, answer: str) -> float:
    """The share of the question's words that the answer repeats."""
    return len(words(question) & words(answer)) / max(1, len(words(question)))


def last(pattern: re.Pattern[str], text: str) -> str:
    return next((group for group in pattern.findall(text)[-1] if group), "")


def judge(body: Body, times: int) -> str:
    """The verdict on one request: of a pair, or a mark."""
    text = body["messages"][-1]["content"]
    if pair := PAIR.search(text):
        instruction, first, second = pair.groups()
        difference = repeated(instruction, first) - repeated(instruction, second)
        verdict = "tie" if difference == 0 else "A" if difference > 0 else "B"
        return json.dumps({"reason": "counted words", "verdict": verdict})
    mark = 1 + round(9 * repeated(last(QUESTION, text), last(ANSWER, text)))
    return json.dumps({"reason": "counted words", "rating": mark}) if "JSON" in text else f"Counted words. Rating: [[{mark}]]"


def main() -> None:
    with FakeEndpoint(script=judge, models=("word-judge",)) as server:
        print(server.base_url, flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
