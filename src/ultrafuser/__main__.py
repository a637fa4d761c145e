"""``python -m ultrafuser`` is the ``ultrafuser`` script."""

from ultrafuser.cli import main

main()
