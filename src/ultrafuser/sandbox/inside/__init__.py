"""What runs inside the sandbox: standard library only, few imports (it starts often), no part of the rest of the package.

`main.py` is started as the first process; it sees to the namespaces, then supervises a fork of itself in which the program runs.
Imports are relative, since in there this package is not called ``ultrafuser.sandbox.inside``.
"""
