"""The operator's wish by the node's label, kept on the node: it counts also while the API is away."""

import time

from agent.errors import KatanodeError
from agent.host import files
from agent.host.root import HostRoot
from agent.service.messages import Want
from agent.state import FOLDER, STATE

_FILE = f"{FOLDER}/wish"
_WORDS: dict[str, Want] = {"disabled": "disabled", "absent": "absent"}
_PATIENCE = 15.0
"""Seconds to wait at the start for what the API says of this node."""


class Wish:
    """What the label `katanode.io/install` says, as last heard.

    Args:
        root: the host's root.
    """

    def __init__(self, root: HostRoot) -> None:
        self._root = root
        self._known = False
        self._word = (files.read_if_there(root(_FILE), 64) or b"").decode("ascii", "replace").strip()

    @property
    def want(self) -> Want:
        """What is wanted; `present` stands for: as the settings say."""
        return _WORDS.get(self._word, "present")

    def learn(self, word: str) -> bool:
        """Takes over what the label says; says whether that is new."""
        self._known = True
        if word == self._word:
            return False
        self._word = word
        path = self._root(_FILE)
        try:
            if word == "disabled":  # an uninstalled node keeps nothing, this file neither
                files.make_folder(path.parent, 0o700)
                files.write_atomic(path, word.encode() + b"\n", mode=0o600)
            else:
                files.remove(path)
                files.remove_empty(path.parent)
        except KatanodeError:
            return True  # a read-only or full disk: the label is read again at the next start
        return True

    def may_begin(self, since: float) -> bool:
        """Whether to look at the node although the API has not said anything yet.

        A node on which something is installed is kept as it is wanted. A fresh one waits: it may be one that is to be
        left alone.

        Args:
            since: when the daemon began, in monotonic seconds.
        """
        return self._known or (time.monotonic() - since > _PATIENCE and self._root(STATE).exists())
