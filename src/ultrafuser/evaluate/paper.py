"""The figures of the paper to set beside ours (``--paper``), in percent: the main results of Ding et al., arXiv
2403.08281, and what it reports of chain of thought and MT-Bench (marks from 1 to 10).

Its means are not copied: a row's mean is computed from the scores shown, as for our own rows. (For UltraFuser the paper
prints 47.48; its seven scores average 46.05.)
"""

from __future__ import annotations

COLUMNS = ("TruthfulQA", "AlpacaEval", "HumanEval", "GSM8K", "MATH", "SAT-Math", "AQuA")
_ROWS = {
    "UltraLM-2 (text)": (58.82, 83.23, 25.61, 25.09, 4.48, 25.00, 25.98),
    "CodeLlama (code)": (56.89, 69.21, 48.78, 23.12, 6.16, 27.73, 25.59),
    "WizardMath (math)": (26.81, 51.50, 10.98, 56.18, 12.20, 29.55, 22.05),
    "best specialist per task": (58.82, 83.23, 48.78, 56.18, 12.20, 29.55, 25.98),
    "UltraLM-2 further tuned": (58.82, 73.34, 40.24, 54.59, 10.46, 25.00, 28.74),
    "CodeLlama further tuned": (41.02, 17.90, 31.71, 13.42, 5.34, 17.73, 25.20),
    "WizardMath further tuned": (50.17, 61.25, 26.83, 52.08, 9.98, 29.55, 28.74),
    "Llama 30B, same data": (46.99, 65.33, 38.41, 52.31, 8.88, 35.00, 32.28),
    "Task Arithmetic": (12.99, 1.75, 0.00, 3.71, 1.46, 3.64, 0.79),
    "average merging": (53.62, 67.08, 25.00, 51.48, 12.06, 25.91, 18.90),
    "BTX": (34.82, 9.76, 20.73, 11.14, 4.14, 21.82, 20.47),
    "FuseChat": (64.98, 74.77, 27.44, 27.90, 5.54, 15.91, 12.20),
    "UltraFuser": (64.67, 82.35, 53.03, 54.59, 11.36, 30.00, 26.38),
}
_MORE = {
    "UltraFuser": {"MATH, CoT": 13.04, "SAT-Math, CoT": 40.45, "AQuA, CoT": 28.74, "MT-Bench": 7.02},
    "best specialist per task": {"MT-Bench": 6.62},
}

PAPER: dict[str, dict[str, float]] = {
    f"paper: {system}": dict(zip(COLUMNS, scores, strict=True)) | _MORE.get(system, {}) for system, scores in _ROWS.items()
}
"""Scores by row and column (`TaskInfo.paper_column`)."""
