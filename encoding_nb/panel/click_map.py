"""The click-through map: hover to read a voxel, click to see its time course.

The browser gets the picture, the voxel under each of its pixels and the numbers of all voxels once, so that
hovering, zooming and moving the selection ask the kernel nothing; only the time course of a newly selected
voxel comes from here.
"""

from __future__ import annotations

import base64
import contextlib
import threading
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import anywidget
import numpy as np
import traitlets

from .. import brain
from .._validation import require_result
from ..assembly import Array, Surface
from ..brain import Regions, map_note, png, region_masks, value_limits
from ..pipeline import Result
from ..plots import SCORE, known_story, region_picture, unit, whose
from ..web import WEB, areas_of, course_of, row_places, stops

NONE = -1
HINT = "Click the map to see a voxel's time course; arrow keys move on from there."
REGION_HINT = "Click a bar to see the region's time course; arrow keys move on from there."
NO_RESULT = "No result yet: the map appears after the first fit."
# A fit ends in its thread while a slider moves in the kernel's: what one of them sends must not get lost in what the
# other holds back. One lock for all views, since linked views change each other.
_ONE_AT_A_TIME = threading.RLock()


class BrainView(anywidget.AnyWidget):
    """A live map with the time course of the voxel that is selected. Made by `brain_view`.

    Attributes
    ----------
    selected : int, synced
        The number of the selected voxel, -1 for none. Set it, observe it, or share it with another widget:
        `traitlets.link((view, "selected"), (other, "selected"))`.
    story : str, synced
        The held-out story whose time course is shown.
    threshold : float or None, synced
        Voxels with a lower value are not shown.
    vmin, vmax : float or None, synced
        The values at the ends of the colours; None chooses them.
    result : Result or None
        The one that is shown.
    """

    with_regions = True  # whether outlines of areas are drawn over the map

    _esm = WEB / "brain_view.js"
    _css = WEB / "brain_view.css"

    selected = traitlets.Int(NONE).tag(sync=True)
    story = traitlets.Unicode("").tag(sync=True)
    threshold = traitlets.Float(None, allow_none=True).tag(sync=True)
    vmin = traitlets.Float(None, allow_none=True).tag(sync=True)
    vmax = traitlets.Float(None, allow_none=True).tag(sync=True)
    _picture = traitlets.Bytes(b"").tag(sync=True)
    _alt = traitlets.Unicode(NO_RESULT).tag(sync=True)
    _lookup = traitlets.Bytes(b"").tag(sync=True)
    _size = traitlets.List([0, 0]).tag(sync=True)
    _facts = traitlets.Dict().tag(sync=True)
    _scale = traitlets.Dict().tag(sync=True)
    _stories = traitlets.List().tag(sync=True)
    _course = traitlets.Dict({"voxel": NONE}).tag(sync=True)
    _hint = traitlets.Unicode(NO_RESULT).tag(sync=True)

    def __init__(
        self, result: Result | None = None, *, rois: Regions | None = None, height: int = 512
    ) -> None:
        self.result: Result | None = None
        self._height = height
        self._rois = rois
        self._values: Array = np.empty(0)
        self._significant: Array | None = None
        self._look: dict[str, Any] = {}
        self._sent: Array | None = None
        super().__init__()
        self.add_class("enb-brain-view")
        self.observe(lambda _: self._redraw(), ["threshold", "vmin", "vmax"])
        self.observe(lambda _: self._send_course(), ["selected", "story"])
        if result is not None:
            self.show_result(result)

    @traitlets.validate("selected")
    def _known_voxel(self, proposal: Any) -> int:
        n_voxels, voxel = len(self._values), proposal["value"]
        if voxel < NONE or (n_voxels and voxel >= n_voxels):
            raise traitlets.TraitError(
                f"Expected a voxel from 0 to {n_voxels - 1}, or {NONE} for none, got {voxel}."
            )
        return voxel

    @traitlets.validate("story")
    def _known_story(self, proposal: Any) -> str:
        if self.result is not None and proposal["value"]:
            try:
                known_story(self.result, proposal["value"])
            except ValueError as error:
                raise traitlets.TraitError(str(error)) from error
        return proposal["value"]

    @contextlib.contextmanager
    def hold_sync(self) -> Iterator[None]:
        """Send what changes at the end, at once; no other thread changes anything meanwhile."""
        with _ONE_AT_A_TIME, super().hold_sync():
            yield

    def notify_change(self, change: Any) -> None:
        """Tell the browser and whoever observes; waits where another thread holds its changes back."""
        with _ONE_AT_A_TIME:
            super().notify_change(change)

    def set_state(self, sync_data: dict[str, Any]) -> None:
        """Take what the browser changed; waits where another thread holds its changes back."""
        with _ONE_AT_A_TIME:
            super().set_state(sync_data)

    def show_result(self, result: Result) -> None:
        """Show another run: its scores on the map, its time courses below. A selection that still fits stays."""
        require_result(result, "brain_view")
        masks: Mapping[str, Array] = {}
        with contextlib.suppress(ValueError):  # data without regions have none to show
            masks = region_masks(result, self._rois)
        stories = list(result.story_scores)
        with self.hold_sync():
            self.result = result
            if self.selected >= len(result.scores):
                self.selected = NONE
            self._hint = HINT if result.surface is not None else REGION_HINT
            self._stories = stories
            if self.story not in stories:
                self.story = stories[0] if stories else ""
            self._areas = areas_of(masks, len(result.scores))
            self.show(result.scores, significant=result.significant, name="r", units=SCORE)
            self._send_course()

    def show(
        self,
        values: Array,
        *,
        significant: Array | None = None,
        name: str = "value",
        units: str = "",
        cmap: str = "inferno",
        nonsignificant: str = "fade",
        categories: Sequence[float] | None = None,
        ahead: bool = False,
    ) -> None:
        """Put other values on the map, such as those of a story or while something is being computed.

        Parameters
        ----------
        values : array, (n_voxels,)
        significant : bool array, (n_voxels,), optional
        name, units : str
            What the values are, where the pointer is read and at the colour bar.
        cmap, nonsignificant : as in `brain.flat_image`
        categories : sequence of numbers, optional
            The only values that there are, from the lowest up, as of layers: each has a colour of its own along
            `cmap`, and none are averaged. NaN is none of them.
        ahead : bool
            The values are of a run whose permutation test is running, and `significant` is provisional: the map says
            so, and the pointer reads no other number of the result that was shown. `show_result` completes it, and
            until then the time course below is still of that result.

        Raises
        ------
        ValueError
            Before any result is shown; values that are no category; else as `brain.flat_image` and
            `brain.category_image`.
        """
        result = self._shown()
        values = np.asarray(values)
        if values.shape != result.scores.shape:
            raise ValueError(
                f"Expected {len(result.scores)} values, one per voxel of the result that is shown, got shape "
                f"{values.shape}."
            )
        if categories is not None and not np.isin(values[np.isfinite(values)], categories).all():
            raise ValueError(f"Expected values among {', '.join(map(str, categories))}, got others.")
        with self.hold_sync():
            before = (self._values, self._significant, self._look)
            self._values, self._significant = values, significant
            self._look = {"cmap": cmap, "nonsignificant": nonsignificant, "name": name, "units": units}
            self._look |= {"categories": categories, "ahead": ahead}
            try:
                self._redraw()
            except ValueError:
                self._values, self._significant, self._look = before
                raise
            self._send_facts(result)

    def _shown(self) -> Result:
        if self.result is None:
            raise ValueError("There is no result to show values of yet; call show_result(result) first.")
        return self.result

    def _redraw(self) -> None:
        """The picture and its colour bar, from the values, the threshold and the colour range as they are."""
        if self.result is None:
            return
        with self.hold_sync():
            values = self._values.astype(float)
            if self.threshold is not None:
                values[values < self.threshold] = np.nan
            ends = self._ends()
            picture, lookup, places = self._draw(values, *ends)
            self._send_lookup(lookup, places)
            self._scale = self._scale_of(values, *ends)
            self._picture = png(picture)
            self._alt = self._describe(values)

    def _ends(self) -> tuple[float, float]:
        """The values at the ends of the colours; the upper end that was typed counts where it is above the lower."""
        vmin, vmax = self.vmin, self.vmax
        if self._look["categories"] is not None:
            return float(min(self._look["categories"])), float(max(self._look["categories"]))
        if vmin is not None and vmax is not None and not vmin < vmax:
            vmax = None
        return value_limits(self._values.astype(float), cmap=self._look["cmap"], vmin=vmin, vmax=vmax)

    def _draw(self, values: Array, low: float, high: float) -> tuple[Array, Array, Array]:
        """The picture, the voxel under each of its pixels, and a place for each voxel."""
        result = self._shown()
        if result.surface is not None:
            mapper = brain.flat_mapper(result.surface, height=self._height)
            return self._map(values, result.surface, low, high), mapper.lookup, mapper.voxel_places
        names = result.voxel_names or tuple(f"voxel {i}" for i in range(len(values)))
        ordered = None in (self.vmin, self.vmax) or self.vmin < self.vmax
        picture, lookup = region_picture(
            values,
            names,
            significant=self._significant,
            units=self._look["units"],
            limits=(self.vmin, self.vmax if ordered else None),
        )
        return picture, lookup, row_places(lookup, len(values))

    def _scale_of(self, values: Array, low: float, high: float) -> dict[str, Any]:
        """What the browser writes at the colour bar, and the range of its sliders."""
        look = self._look
        full = value_limits(self._values.astype(float), cmap=look["cmap"], vmin=None, vmax=None)
        return {
            "low": low,
            "high": high,
            "lowest": full[0],
            "highest": full[1],
            "stops": stops(look["cmap"], look["categories"]) if self._shown().surface is not None else None,
            "units": look["units"],
            "note": "; ".join(self._map_notes(values)),
        }

    def _map_notes(self, values: Array) -> list[str]:
        """What a person should know who looks at this map."""
        notes = []
        if self._look["categories"] is not None and (self.vmin, self.vmax) != (None, None):
            notes.append("the colours of categories are fixed, the colour range has no effect")
        elif None not in (self.vmin, self.vmax) and not self.vmin < self.vmax:
            notes.append(
                f"the colours cannot go from {self.vmin:g} to {self.vmax:g}: their upper end is chosen by itself"
            )
        if self.threshold is not None and not np.isfinite(values).any() and np.isfinite(self._values).any():
            return [*notes, f"no value reaches the threshold of {self.threshold:g}"]
        if self._look["ahead"]:
            notes.append("significance by a quick test, the permutation test is running")
        said = map_note(values) or ("faded: not significant" if self._significant is not None else "")
        return [*notes, said] if said else notes

    def _map(self, values: Array, surface: Surface, low: float, high: float) -> Array:
        """The pixels of a map: (height, width, 4) uint8."""
        look = {
            "height": self._height,
            "significant": self._significant,
            "nonsignificant": self._look["nonsignificant"],
            "with_rois": self.with_regions,
        }
        categories = self._look["categories"]
        if categories is None:
            return brain.flat_image(values, surface, cmap=self._look["cmap"], vmin=low, vmax=high, **look)
        labels = np.where(np.isfinite(values), np.searchsorted(categories, values), -1)
        return brain.category_image(
            labels, surface, n_categories=len(categories), cmap=self._look["cmap"], **look
        )

    def _describe(self, values: Array) -> str:
        """The picture in words."""
        result = self._shown()
        finite = values[np.isfinite(values)]
        kind = "Flattened cortex" if result.surface is not None else "Regions"
        spread = (
            f"{len(finite)} values from {finite.min():.3g} to {finite.max():.3g}"
            if len(finite)
            else "no values"
        )
        counted = f"{int(result.significant.sum())} of {len(values)} significant"
        if self._look["ahead"]:
            counted = "the permutation test of their significance is running"
        return (
            f"{kind} of {whose(result)}: {self._look['units'] or self._look['name']}, {spread}, "
            f"{counted}. Arrow keys move the selection, plus "
            f"and minus zoom, 0 shows the whole map."
        )

    def _send_lookup(self, lookup: Array, places: Array) -> None:
        if lookup is not self._sent:  # a surface's lookup stays the same object from one redraw to the next
            self._sent = lookup
            self._size = list(lookup.shape)
            self._lookup = zlib.compress(lookup.astype("<i4").tobytes(), 1)
            self._places = places.astype("<i4").tobytes()

    def _send_facts(self, result: Result) -> None:
        rows, significant = [(self._look["name"], self._values)], b""
        if not self._look["ahead"]:
            if self._values is not result.scores:
                rows.append(("r", result.scores))
            rows.append(("alpha", np.median(np.atleast_2d(result.best_alphas), axis=0)))
            if result.noise_ceiling is not None:
                rows.append(("noise ceiling", result.noise_ceiling))
            significant = np.asarray(result.significant, np.uint8).tobytes()
        names, numbers = self._areas
        self._facts = {
            "rows": [{"name": name, "values": np.asarray(row, "<f4").tobytes()} for name, row in rows],
            "significant": significant,
            "areas": names,
            "area_of": numbers.astype("<u2").tobytes(),
            "names": list(result.voxel_names or ()),
            "places": self._places,
            "unit": unit(result),
        }

    def _send_course(self) -> None:
        """The time course of the selected voxel in the chosen story."""
        with _ONE_AT_A_TIME:
            if self.result is None or self.selected == NONE:
                self._course = {"voxel": NONE}
            else:
                self._course = course_of(self.result, self.selected, self.story)

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:
        """The live view, and for a viewer without a kernel the map as it stands."""
        bundle = super()._repr_mimebundle_(**kwargs)
        data = bundle[0] if isinstance(bundle, tuple) else bundle
        if data is not None and self._picture:
            data["image/png"] = base64.b64encode(self._picture).decode()
        return bundle


def brain_view(result: Result | None = None, *, rois: Regions | None = None, height: int = 512) -> BrainView:
    """A map to hover over and click on, with the time course of the selected voxel; shown in a notebook cell.

    Without a surface the data's regions are shown as labelled bars that answer in the same way.

    Parameters
    ----------
    result : Result, optional
        None makes an empty view, for `show_result` to fill later.
    rois : optional
        The areas that are named; as in `regions.roi_table`.
    height : int, pixels
        Of the picture behind the map.

    Returns
    -------
    BrainView
    """
    return BrainView(result, rois=rois, height=height)
