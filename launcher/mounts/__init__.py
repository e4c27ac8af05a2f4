"""Which files and folders of the host a stage sees in its container, all at their own paths.

A path in a config, a log or a record is so true inside and outside. Mounted are the trees with the
code, where results go, what settings name, and what links in all of these lead to. The image's own
folders (:mod:`launcher.mounts.image_folders`) stay the image's.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from launcher.containers.base import Mount
from launcher.errors import ConfigError
from launcher.mounts import image_folders
from launcher.mounts.layout import MountSet, Placed
from launcher.mounts.links import MAX_ENTRIES, LinkFollower
from launcher.mounts.texts import exists, paths_in, texts_in
from launcher.printable import printable

__all__ = ["StageMounts", "in_order", "stage_mounts", "texts_in"]

MAX_NOTICES = 5


@dataclass(frozen=True)
class StageMounts:
    """What a container of a stage is given.

    Attributes:
        mounts: each stands before those below it.
        folders: results go to these, which are not there yet; they have to be made before the
            container starts.
        notices: what the person at the terminal should know.
    """

    mounts: tuple[Mount, ...]
    folders: tuple[Path, ...] = ()
    notices: tuple[str, ...] = ()


def stage_mounts(
    *,
    code_roots: Sequence[Path],
    working_dir: Path,
    read_only_roots: Sequence[Path] = (),
    launch: Sequence[Mount] = (),
    outputs: Sequence[Path] = (),
    candidates: Iterable[str] = (),
    mounts: Sequence[str] = (),
    mounts_read_only: Sequence[str] = (),
    snapshot: Sequence[Mount] = (),
    home: Path | None = None,
) -> StageMounts:
    """Return what a stage sees of the host. The file system is read, nothing is written.

    Args:
        code_roots: trees that are mounted writable: the recipe's.
        working_dir: what relative paths are relative to: the recipe's folder.
        read_only_roots: other trees with code: the launcher's own.
        launch: parts of the launch directory, or whatever else the caller brings.
        outputs: folders that stages write to, wherever they are.
        candidates: texts that may hold paths: arguments, values of configs, environment variables
            (see :func:`texts_in`). What exists is mounted, a folder writable, a file read-only.
        mounts: the setting of that name.
        mounts_read_only: the setting of that name.
        snapshot: of the code; laid over the tree.
        home: home directory of the person; theirs when None.

    Raises:
        ConfigError: what a setting names is not there, or cannot be mounted.
    """
    search = _Search(working_dir, home or Path.home())
    for root in code_roots:
        search.add_root(root, read_only=False)
    for root in read_only_roots:
        search.add_root(root, read_only=True)
    for mount in launch:
        placed = Placed(str(mount.source), mount.read_only, asked=True)
        search.places.place(str(mount.target), placed)
    for output in outputs:
        search.add_output(output)
    search.add_settings(mounts, mounts_read_only, code_roots, outputs)
    for text in candidates:
        search.add_candidate(text)
    search.follow_links()
    overlaid = {mount.target for mount in snapshot}
    found = [mount for mount in search.places.mounts() if mount.target not in overlaid]
    return StageMounts(
        in_order([*found, *snapshot]),
        tuple(search.folders),
        tuple(search.notices),
    )


def in_order(mounts: Iterable[Mount]) -> tuple[Mount, ...]:
    """Return mounts so that each stands before those below it; whatever is added belongs in here.

    ``/tmp`` among them: mounted last, it would hide all that is mounted below it.
    """
    return tuple(sorted(mounts, key=lambda mount: mount.target.parts))


class _Search:
    def __init__(self, working_dir: Path, home: Path) -> None:
        self.working_dir, self.home = working_dir, home
        self.places = MountSet()
        self.folders: dict[Path, None] = {}
        self.notices: list[str] = []

    def add_root(self, root: Path, *, read_only: bool) -> None:
        if root.parent == root or (image_folders.refusal(root) and len(root.parts) < 3):
            raise ConfigError(
                f"the code in {root} cannot be seen in a container: "
                f"{image_folders.refusal(root)}. Move it to another folder, or launch with "
                "--container none."
            )
        self._place(str(root), read_only=read_only, asked=True)
        for folder in _git_folders(root):
            self._place(folder, read_only=True, asked=False)

    def add_output(self, output: Path) -> None:
        path = self.places.resolve(os.path.normpath(output)) or str(output)
        covering = self.places.covering(path)
        on_host = self.places.on_host(path)
        if covering is None or self.places[covering].read_only:
            self.places.place(path, Placed(on_host, read_only=False, asked=True))
            if not exists(on_host):
                self.folders[Path(on_host)] = None

    def add_settings(
        self,
        mounts: Sequence[str],
        mounts_read_only: Sequence[str],
        code_roots: Sequence[Path],
        outputs: Sequence[Path],
    ) -> None:
        writable = {path: text for text in mounts for path in [self._setting("mounts", text)]}
        for path in writable:
            self._place(path, read_only=False, asked=True)
        for text in mounts_read_only:
            path = self._setting("mounts_read_only", text)
            if path in writable:
                raise ConfigError(
                    f"{text} is named in mounts and in mounts_read_only. Take it out of one."
                )
            if path in (os.path.normpath(each) for each in (*code_roots, *outputs)):
                raise ConfigError(
                    f"mounts_read_only names {text}, but stages write there. Name folders in it."
                )
            self._place(path, read_only=True, asked=True)

    def _setting(self, name: str, text: str) -> str:
        path = os.path.expanduser(text)  # noqa: PTH111
        path = os.path.normpath(self.working_dir / path)
        if not exists(path):
            hint = (
                " A path is mounted at the same path inside: write it once, without ':'."
                if ":" in text and exists(text.partition(":")[0])
                else f" Make it, or take it out: {name}=[]."
            )
            raise ConfigError(f"{name}: {text} does not exist on this machine.{hint}")
        reason = image_folders.refusal(Path(path))
        if reason is not None:
            raise ConfigError(f"{name}: {text} cannot be mounted: {reason}.")
        return path

    def add_candidate(self, text: str) -> None:
        for path in paths_in(text, self.working_dir):
            if not exists(path):
                self._tell_of_missing(path)
            elif self._is_wanted(path):
                self._place(path, read_only=not Path(path).is_dir(), asked=False)

    def _tell_of_missing(self, path: str) -> None:
        parent = Path(path).parent
        if not parent.is_dir() or not os.access(parent, os.W_OK) or parent == self.home:
            return
        if image_folders.any_refused([parent, Path(path)]) or image_folders.is_software(parent):
            return
        resolved = self.places.resolve(path)
        if resolved is not None and self.places.covering(resolved) is None:
            self._tell(
                f"{printable(path)} does not exist: what a stage writes there is lost with its "
                "container. If results are to go there, make the folder first."
            )

    def _is_wanted(self, path: str) -> bool:
        """Tell whether something that was merely found is to be mounted."""
        names = [Path(path), Path(os.path.realpath(path))]
        if image_folders.any_refused(names):
            return False
        if not names[0].is_dir() and not names[0].is_file():
            return False
        homes = {self.home, self.home.resolve()}
        if names[0].is_dir() and any(
            image_folders.is_too_much(name, home) for name in names for home in homes
        ):
            return False
        if any(map(image_folders.is_software, names)):
            resolved = self.places.resolve(path)
            if resolved is not None and self.places.covering(resolved) is None:
                self._tell(
                    f"{printable(path)} is not mounted, since images keep software of their own "
                    "around there. If stages need it: mounts=[PATH]."
                )
            return False
        return True

    def _place(self, path: str, *, read_only: bool, asked: bool) -> None:
        """Mount a path of the host at its own name, and at the name without links."""
        for name in dict.fromkeys((path, os.path.realpath(path))):
            resolved = self.places.resolve(name)
            if resolved is None or (not asked and image_folders.refusal(Path(resolved))):
                continue
            covering = self.places.covering(resolved)
            if covering is not None and not asked:
                continue
            source = resolved if _same(resolved, path) else os.path.realpath(path)
            self.places.place(resolved, Placed(source, read_only, asked))

    def follow_links(self) -> None:
        follower = LinkFollower(
            self.places, is_wanted=self._is_wanted, tell=self._tell, max_entries=MAX_ENTRIES
        )
        follower.follow()

    def _tell(self, notice: str) -> None:
        if notice not in self.notices and len(self.notices) < MAX_NOTICES:
            self.notices.append(notice)


def _git_folders(root: Path) -> Iterator[str]:
    """Yield where the repository of a worktree is: its ``.git`` is a file that names it."""
    try:
        text = (root / ".git").read_text(errors="surrogateescape")
        folder = root / text.removeprefix("gitdir:").strip()
        common = folder / (folder / "commondir").read_text(errors="surrogateescape").strip()
    except OSError:
        return
    if text.startswith("gitdir:") and common.is_dir():
        yield os.path.realpath(common)


def _same(path: str, other: str) -> bool:
    return os.path.realpath(path) == os.path.realpath(other)
