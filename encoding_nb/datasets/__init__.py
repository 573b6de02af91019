"""Data sets as an `Assembly`: the demo, published data, your own files; words from files; downloads."""

from .alice import over_listeners
from .demo import DATA as DEMO_FILES
from .demo import hemodynamic_response
from .hdf5 import save_assembly
from .lebel import STORY_LISTS
from .lebel_download import fetch, fetch_lebel
from .loaders import convert, load_assembly
from .tables import read_word_table
from .textgrid import read_textgrid

__all__ = [
    "DEMO_FILES",
    "STORY_LISTS",
    "convert",
    "fetch",
    "fetch_lebel",
    "hemodynamic_response",
    "load_assembly",
    "over_listeners",
    "read_textgrid",
    "read_word_table",
    "save_assembly",
]
