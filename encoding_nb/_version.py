"""The version, also that of the files it writes."""

__version__ = "0.1.0"
