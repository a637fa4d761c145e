"""Task definitions for lm-evaluation-harness: YAML files, and the functions that they name.

They work with our own engine (`evaluate/harness.py`) and with the harness's command line, which is given this directory:

    lm_eval run --tasks ultrafuser_gsm8k --include_path DIRECTORY --metadata '{"data_dir": "DATA"}' --apply_chat_template ..

Without ``data_dir`` the data come from the hub. Every task is zero-shot and asks in one user turn; the ``_cot`` variants add
"Let's think step by step." Nothing but the end token ends an answer, and decoding is greedy.
"""

from __future__ import annotations

from pathlib import Path

TASKS_DIRECTORY = Path(__file__).parent
