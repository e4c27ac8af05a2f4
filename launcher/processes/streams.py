"""Standard streams that a person has closed, or led to a disk that is full."""

from __future__ import annotations

import io
import os
import sys

TYPE_CHECKING = False  # `launcher --help` has no time for typing
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_PIPE_CLOSED = 141  # as a shell has it: 128 and SIGPIPE


class _Output(io.FileIO):
    """The standard output; it remembers why it could not be written."""

    problem = ""

    def write(self, data: Any) -> Any:
        """Write as any file does."""
        try:
            return super().write(data)
        except (BrokenPipeError, BlockingIOError):
            raise
        except OSError as error:
            self.problem = error.strerror or str(error)
            raise


def with_output(run: Callable[[], int]) -> int:
    """Do something that prints; return its exit status, or that of an output that took nothing.

    What was done to its end has its own exit status, whether somebody read the last of it or not.
    """
    _open_what_is_closed()
    output = _replaced_output()
    exit_status = _PIPE_CLOSED
    try:
        try:
            exit_status = run()
        finally:
            sys.stdout.flush()
    except BrokenPipeError:  # `… --dry-run | head`
        _drop_output()
        return exit_status
    except (OSError, SystemExit):
        if output is None or not output.problem:
            raise
    if output is None or not output.problem:
        return exit_status
    _drop_output()
    print(f"launcher: cannot write to standard output: {output.problem}", file=sys.stderr)
    return 1


def _open_what_is_closed() -> None:
    """Have a stream that was closed lead nowhere: its number is not for another file."""
    for descriptor, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
        if getattr(sys, name) is None:
            mode = "w" if descriptor else "r"
            setattr(sys, name, open(descriptor, mode, closefd=False))  # noqa: SIM115


def _replaced_output() -> _Output | None:
    """Put a stream that remembers in place of the standard output; None for one that is no file."""
    told = sys.stdout
    if told is not sys.__stdout__ or not isinstance(told, io.TextIOWrapper):
        return None
    output = _Output(told.fileno(), "wb", closefd=False)
    is_unbuffered = isinstance(told.buffer, io.RawIOBase)
    sys.stdout = io.TextIOWrapper(
        output if is_unbuffered else io.BufferedWriter(output),
        encoding=told.encoding,
        errors="surrogateescape",  # a path is shown byte for byte
        line_buffering=told.line_buffering,
        write_through=told.write_through,
    )
    return output


def _drop_output() -> None:
    """Have what is left to be flushed at exit go nowhere."""
    with open(os.devnull, "w") as nowhere:  # noqa: PTH123
        os.dup2(nowhere.fileno(), sys.stdout.fileno())
