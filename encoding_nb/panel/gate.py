"""What lets Fit be pressed: the settings as they stand, the memory, the run in progress; and what is said of them."""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable, Mapping

import ipywidgets as widgets

from .controls import Controls
from .readiness import Readiness
from .runs import Runs
from .theme import alert


class Gate:
    """Switches the buttons of a panel and writes what is wrong beside its control.

    Called by the page's thread, by the one that looks models up, by the one that estimates and by the run's.

    Parameters
    ----------
    runs, controls : of the panel
    starters : buttons that are off while something is wrong or running
    cancel : the button that is on while something is running
    say_sweep : called with what a sweep would take
    """

    def __init__(
        self,
        runs: Runs,
        controls: Controls,
        *,
        starters: tuple[widgets.Button, ...],
        cancel: widgets.Button,
        say_sweep: Callable[[str], None],
    ) -> None:
        self._runs, self._controls = runs, controls
        self._starters, self._cancel = starters, cancel
        self._lock = threading.RLock()  # of what is read below and of what is shown of it
        self._checked: Mapping[str, str] = {}
        self._problems, self._others, self._failure = self._checked, "", ""
        self._shut = False
        self.readiness = Readiness(runs, self.show_problems, say_sweep)
        self.error = widgets.HTML().add_class("enb-error")

    def settings_changed(self) -> None:
        """Check the settings as they stand."""
        with self._lock:  # the newer look at the controls must be the one that stays
            try:
                self._checked = self.readiness.examine(self._controls)
            except Exception as error:  # noqa: BLE001 - said, and Fit off, rather than a panel that is stale
                what = f"{type(error).__name__}: {error}"
                self._checked = {
                    "settings": f"These settings cannot be checked ({what}); change the last one back."
                }
            self.show_problems()

    def show_problems(self) -> None:
        """Write what is wrong beside its control, and let Fit be pressed only where nothing is."""
        with self._lock:
            self._problems = self._checked or self.readiness.shortage()
            self._others = alert(" ".join(self._controls.show_problems(self._problems)))
            self.error.value = self._others or self._failure
            self.allow()

    def allow(self) -> None:
        """Switch the buttons, and say why Fit is off where it is."""
        with self._lock:  # what is read must still be so when it is shown: a run may end in between
            running = self._runs.running
            for button in self._starters:
                button.disabled = bool(self._problems) or running or self._shut
            self._cancel.disabled = not running or self._shut
            self.readiness.say_why([self._controls.label_of(name) for name in self._problems])

    def over(self) -> None:
        """Another run may begin; what it takes is estimated anew, since more is cached now."""
        self.allow()
        if not self._checked:
            self.readiness.estimate_anew()

    def shut(self) -> None:
        """Keep all buttons off from now on."""
        self._shut = True
        self.allow()

    def say_failure(self, sentence: str, error: BaseException | None = None) -> None:
        """Show what failed until the next start, its traceback folded away; an empty sentence clears it."""
        trace = "".join(traceback.format_exception(error)) if error is not None else ""
        with self._lock:
            self._failure = alert(sentence, trace)
            self.error.value = self._others or self._failure
