"""The download of all results, packed beside the kernel's main thread."""

from __future__ import annotations

from collections.abc import Callable

from .background import Latest
from .page import PageLink


class Download(PageLink):
    """The page's link whose packing does not keep the kernel from answering; `pack` is called in a thread."""

    def __init__(self, pack: Callable[[], tuple[str, bytes | None, str]]) -> None:
        self.packing = Latest(super()._asked)
        super().__init__(pack)

    def _asked(self, *message: object) -> None:
        self.packing.ask(*message)
