"""``container=auto``: the first runtime that works on this machine, in the cluster's order.

The choice is made before anything else (``launcher.prepare``); no stage runs in ``auto``.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Settings:
    """``container.*`` of the configuration; each runtime has settings of its own."""

    name: str = "auto"
