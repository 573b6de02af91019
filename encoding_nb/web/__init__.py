"""What a browser draws a map with: JavaScript, CSS, and the map's data as JSON and bytes."""

from .map_data import WEB, areas_of, course_of, row_places, stops

__all__ = [
    "WEB",
    "areas_of",
    "course_of",
    "row_places",
    "stops",
]
