"""A program run in a child process and read line by line as it speaks.

Owns the child: it does not outlive whoever listens. What the lines and the exit status mean is the
caller's business.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Mapping, Sequence


def listen(
    command: Sequence[str],
    variables: Mapping[str, str],
    hear: Callable[[str], object],
    *,
    errors: int = subprocess.DEVNULL,
) -> int:
    """Run ``command`` and return its exit status; below 0: the signal that ended it.

    Args:
        command: The program and its arguments; it gets no input.
        variables: Its whole environment.
        hear: Takes each line of its standard output, without white space around it. When this
            raises, or Ctrl-C comes, the child is killed.
        errors: Where its standard error goes: ``subprocess.DEVNULL``, or ``subprocess.STDOUT`` to
            hear that as well.
    """
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=errors,
        text=True,
        errors="replace",
        env=variables,
    ) as child:
        assert child.stdout
        try:
            for line in child.stdout:
                hear(line.strip())
        except BaseException:
            child.kill()
            raise
    return child.returncode
