"""The control panel: ipywidgets around `encoding_nb.run`."""

import logging

from .click_map import brain_view
from .panel import ControlPanel, control_panel

# The panel shows errors; tracebacks go to the log, if one is configured, and not to the notebook's output.
logging.getLogger(__name__).addHandler(logging.NullHandler())

__all__ = ["ControlPanel", "brain_view", "control_panel"]
