"""lm-evaluation-harness's own command line with our model and our tasks in it:

    python -m ultrafuser.evaluate run --model ultrafuser --model_args pretrained=DIR --tasks ultrafuser_gsm8k \\
        --apply_chat_template

Everything after the module's name is the harness's; ``--include_path`` is set to our tasks unless it is given. Without this
module, ``lm_eval run --model hf --model_args pretrained=DIR,trust_remote_code=True,add_bos_token=False`` works on our checkpoints
too. (Some tokenizers add a beginning token by themselves; before the slots of a fused model there must be none.)
"""

from __future__ import annotations

import sys

from ultrafuser.errors import UserError
from ultrafuser.evaluate.harness import require_harness
from ultrafuser.evaluate.tasks import TASKS_DIRECTORY


def main(arguments: list[str]) -> None:
    """Run the harness's command line with ``arguments``."""
    require_harness()
    from lm_eval.__main__ import cli_evaluate

    import ultrafuser.evaluate.lm  # noqa: F401  (registers the model)

    if arguments[:1] == ["run"] and not any(one.startswith("--include_path") for one in arguments):
        arguments = [*arguments, "--include_path", str(TASKS_DIRECTORY)]
    sys.argv = ["lm_eval", *arguments]
    cli_evaluate()


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
