"""``python -m ultrafuser.cli``, for launchers that start modules."""

from ultrafuser.cli import main

main()
