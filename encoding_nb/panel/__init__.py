"""The control panel: ipywidgets around `pipeline.run_steps`."""

import logging

from .click_map import brain_view
from .control_panel import ControlPanel
from .entry import control_panel

# What fails is said in the panel; its traceback is for whoever has set up logging, not for the notebook's output.
logging.getLogger(__name__).addHandler(logging.NullHandler())

__all__ = ["ControlPanel", "brain_view", "control_panel"]
