"""What stands on the host's side of a container: the runtime's program and its environment."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase

from launcher.containers import _watched_client
from launcher.containers.base import ContainerRun
from launcher.recipe import default_python

ASK_TIMEOUT_S = 8.0
# What any program needs. Proxies are not among them: nothing is pulled, and Apptainer would pass
# them on into the container.
_COMMON = ("PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_*", "TMPDIR", "XDG_*")


@dataclass(frozen=True)
class Answer:
    """What a program said.

    Attributes:
        status: its exit status; None when it could not be started or took too long.
        output: its standard output.
        error: the last line of its standard error, or why there is none.
    """

    status: int | None
    output: str
    error: str

    @property
    def ok(self) -> bool:
        """Whether it did what it was asked."""
        return self.status == 0


def environment_of(
    inherited: Mapping[str, str], patterns: Iterable[str] = (), secrets: Iterable[str] = ()
) -> dict[str, str]:
    """Return the environment of a runtime's program: what it needs, and the secrets.

    Args:
        inherited: the environment to take them from.
        patterns: of the names that this runtime reads, besides what any program needs.
        secrets: names of variables that are passed on into the container.
    """
    wanted = (*_COMMON, *patterns)
    kept = [name for name in inherited if any(fnmatchcase(name, each) for each in wanted)]
    secret = [name for name in secrets if name in inherited]
    return {name: inherited[name] for name in [*kept, *secret]}


def ask(
    command: Sequence[str], environment: Mapping[str, str], *, timeout_s: float = ASK_TIMEOUT_S
) -> Answer:
    """Run a program that answers soon; one that does not is killed with all that it started."""
    try:
        process = subprocess.Popen(
            command,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,
        )
    except FileNotFoundError:
        return Answer(None, "", "there is no such program here")
    except OSError as error:
        return Answer(None, "", error.strerror or str(error))
    with process:
        try:
            output, said = process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            return Answer(None, "", f"no answer within {timeout_s:g} s")
    lines = said.strip().splitlines()
    return Answer(process.returncode, output.strip(), lines[-1].strip() if lines else "")


def watched(run: ContainerRun, mode: str) -> list[str]:
    """Return what stands before a client that has to be watched, see ``_watched_client.py``.

    A terminal belongs to the process that is started: there the client stands alone.
    """
    return [] if run.terminal else [default_python(), "-IS", _watched_client.__file__, mode]


def namespace_problem(inherited: Mapping[str, str]) -> str | None:
    """Say why this user cannot make a user namespace; None when it can, or when it cannot be told.

    The usual reasons: ``user.max_user_namespaces`` is 0, or AppArmor restricts them (Ubuntu 24.04).
    """
    answer = ask(["unshare", "--user", "true"], environment_of(inherited))
    return None if answer.ok or answer.status is None else answer.error


def not_installed(answer: Answer, program: str, how: str) -> str | None:
    """Say that a runtime's program is not there; None when it is.

    Args:
        answer: what it said to any question.
        program: its name or path.
        how: the cure, besides naming the program: ``Install Podman``.
    """
    if answer.status is not None or "no such program" not in answer.error:
        return None
    return f"there is no program '{program}' here. {how}, or name it: container.executable=PATH"


def no_namespaces(reason: str) -> str:
    """Say that this user may not make user namespaces, and who can change that."""
    return (
        f"you may not make user namespaces here ({reason}). Have them allowed "
        "(sysctl user.max_user_namespaces, kernel.apparmor_restrict_unprivileged_userns)"
    )
