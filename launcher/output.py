"""Reading what a stage printed: its latest line, and the lines that say why it failed."""

from __future__ import annotations

import re
from pathlib import Path

from launcher.printable import harmless
from launcher.recorded.files import open_regular

_TAIL_BYTES = 64 * 1024
_MAX_REASON_LINES = 14
# The head of an ESPnet3 log record: [host] 2026-11-22 14:03:00 UTC (file.py:12) INFO:<tab>[stage]
_RECORD_HEAD = re.compile(
    r"^\[[^\]]*\] \d{4}-\d\d-\d\d \d\d:\d\d:\d\d [^(]*"
    r"\((?P<file>[^:)]*)[^)]*\) (?P<level>[A-Z]+):\t\[[^\]]*\] "
)
# The module that writes the command line, the host and the configs into each stage's log.
_METADATA_FILE = "logging_utils.py"
_CONFIG = "Config "
_ENDING = re.compile(r"=== \[(FAILED|INTERRUPTED)\] stage: ")
# Colours and the like (CSI), and titles of windows and links (OSC).
_TERMINAL_CODES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?")


def last_line(path: Path) -> str:
    """Return the latest line with something to say, without the head of a log record.

    Of a progress bar, which rewrites its line with carriage returns, it is the latest state. What a
    stage logs of itself before it begins (command line, host, configs) is passed over.
    """
    said = _said(_tail(path, _TAIL_BYTES))
    return said[-1].strip() if said else ""


def without_log_records(text: str) -> str:
    """Return a text without the log records in it that only inform."""
    lines = text.splitlines()
    heads = (_RECORD_HEAD.match(line) for line in lines)
    kept = (
        line
        for line, head in zip(lines, heads, strict=True)
        if head is None or head["level"] not in ("DEBUG", "INFO")
    )
    return "\n".join(kept).strip()


def failure_lines(path: Path) -> list[str]:
    """Return the last lines of a failed stage's output that say why it failed, as they are shown.

    Of a long stretch the first and the last lines are kept.
    """
    told = last_failure(path)
    if len(told) > _MAX_REASON_LINES:
        told = [*told[:3], "  …", *told[4 - _MAX_REASON_LINES :]]
    return told


def last_failure(path: Path) -> list[str]:
    """Return the last lines of a failed stage's output that say why it failed.

    They begin at the framework's FAILED line, else at the last traceback, else they are simply the
    last ones that say something.
    """
    lines = _tail(path, _TAIL_BYTES)
    starts = [number for number, line in enumerate(lines) if _ENDING.search(line)] or [
        number for number, line in enumerate(lines) if line.startswith("Traceback (most recent")
    ]
    if not starts:
        return _said(lines)[-_MAX_REASON_LINES:]
    return [_RECORD_HEAD.sub("", line) for line in lines[starts[-1] :] if line.strip()]


def for_terminal(text: str) -> str:
    """Return what a terminal may be shown of a stage's output: no colours, nothing it would obey.

    Carriage returns stay, by which a progress bar rewrites its line.
    """
    return "\r".join(harmless(_TERMINAL_CODES.sub("", part)) for part in text.split("\r"))


def _said(lines: list[str]) -> list[str]:
    """Return the lines with something to say, without the heads of log records.

    What a stage logs of itself before it begins (command line, host, configs) is left out.
    """
    said = []
    skipping = False
    for line in lines:
        head = _RECORD_HEAD.match(line)
        if head is not None:
            skipping = head["file"] == _METADATA_FILE and line[head.end() :].startswith(_CONFIG)
            if head["file"] == _METADATA_FILE:
                continue
        message = line[head.end() :] if head else line
        if message.strip() and not skipping:
            said.append(message)
    return said


def _tail(path: Path, num_bytes: int) -> list[str]:
    try:
        with open_regular(path) as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - num_bytes))
            text = file.read().decode(errors="replace")
    except OSError:
        return []
    lines = text.split("\n")
    if size > num_bytes:
        lines = lines[1:]  # the first one is cut
    shown = (line.rstrip("\r").rpartition("\r")[2] for line in lines)
    return [harmless(_TERMINAL_CODES.sub("", line)).rstrip() for line in shown]
