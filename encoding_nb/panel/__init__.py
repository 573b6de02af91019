"""The control panel: ipywidgets around `encoding_nb.run`."""

import logging

from .click_map import brain_view
from .entry import control_panel
from .panel import ControlPanel

# What fails is said in the panel; its traceback is for whoever has set up logging, not for the notebook's output.
logging.getLogger(__name__).addHandler(logging.NullHandler())

__all__ = ["ControlPanel", "brain_view", "control_panel"]
