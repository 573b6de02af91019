"""Surfaces and maps: voxel values on the flattened cortex, outlines, regions, WebGL."""

from ._painting import (
    NONSIGNIFICANT,
    category_palette,
    draw_lock,
    map_note,
    palette_of,
    png,
    value_limits,
)
from .flatmaps import category_image, flat_image, flatmap, flatmap_categories, flatmap_pair
from .regions import Regions, chance_ceiling, region_masks, roi_metrics, roi_table, values_of
from .surfaces import (
    SHIPPED,
    VERTICES,
    flat_mapper,
    known_voxel_count,
    roi_masks,
    surface_mask,
    vertex_surface,
    voxel_count,
    voxel_order,
)
from .webgl import export_webgl, serve_folder

__all__ = [
    "NONSIGNIFICANT",
    "SHIPPED",
    "VERTICES",
    "Regions",
    "category_image",
    "category_palette",
    "chance_ceiling",
    "draw_lock",
    "export_webgl",
    "flat_image",
    "flat_mapper",
    "flatmap",
    "flatmap_categories",
    "flatmap_pair",
    "known_voxel_count",
    "map_note",
    "palette_of",
    "png",
    "region_masks",
    "roi_masks",
    "roi_metrics",
    "roi_table",
    "serve_folder",
    "surface_mask",
    "value_limits",
    "values_of",
    "vertex_surface",
    "voxel_count",
    "voxel_order",
]
