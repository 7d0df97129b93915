"""Work whose libraries shall not stay in memory: a child process does it and tells the result."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from typing import Any


def in_child(function: Callable[[], Any]) -> Any:
    """Return what a function returns that a child runs; end this process as the child does, if it ends.

    So a function that calls ``sys.exit``, to refuse settings or after ``--help``, works as ever. Call it
    before there are threads, and import what only the function needs inside of it.

    Args:
        function: returns what JSON can hold.

    """
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.close(read)
            with os.fdopen(write, "wb") as pipe:
                pipe.write(json.dumps(function()).encode())
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
        except BaseException:
            sys.excepthook(*sys.exc_info())
            raise
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        told = pipe.read()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code or not told:
        sys.exit(code)
    return json.loads(told)
