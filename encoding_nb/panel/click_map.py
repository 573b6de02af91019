"""The live map: hover to read a voxel, click to see its time course.

The browser receives the picture, the voxel under each of its pixels and the numbers of all voxels once, so hovering,
zooming and moving the selection need no kernel; only the time course of a newly selected voxel comes from here.
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
from .._validation import check_result
from ..assembly import Array, Surface
from ..brain import NONSIGNIFICANT, Regions, map_note, png, region_masks, value_limits
from ..pipeline import Result
from ..plots import SCORE, known_story, region_picture, unit, whose
from ..web import WEB, areas_of, course_of, row_places, stops

NONE = -1
HINT = "Click the map to see a voxel's time course; arrow keys move the selection."
REGION_HINT = "Click a bar to see the region's time course; arrow keys move the selection."
NO_RESULT = "No result yet: the map appears after the first fit."
# A fit ends in its thread while a slider moves in the kernel's thread: changes of one must not get lost in the changes
# that the other holds back. One lock for all views, since linked views change each other.
_ONE_AT_A_TIME = threading.RLock()


class BrainView(anywidget.AnyWidget):
    """A live map with the time course of the selected voxel. Made by `brain_view`.

    Attributes
    ----------
    selected : int, synced
        Number of the selected voxel, -1 for none. Set it, observe it, or link it to another widget:
        `traitlets.link((view, "selected"), (other, "selected"))`.
    story : str, synced
        The held-out story of the time course.
    threshold : float or None, synced
        Voxels with a lower value are not drawn.
    vmin, vmax : float or None, synced
        The values at the ends of the colour scale; None chooses them from the values.
    result : Result or None
        The result on the map.
    with_regions : bool
        Whether outlines of areas are drawn over the map.
    """

    with_regions = True

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
    _stories: traitlets.List = traitlets.List().tag(sync=True)
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
            text = f"Expected a voxel from 0 to {n_voxels - 1}, or {NONE} for none, got {voxel}."
            raise traitlets.TraitError(text)
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
        """Send all changes together at the end; no other thread changes anything in between."""
        with _ONE_AT_A_TIME, super().hold_sync():
            yield

    def notify_change(self, change: Any) -> None:
        """Send a change to the browser and to observers, after those that another thread holds back."""
        with _ONE_AT_A_TIME:
            super().notify_change(change)

    def set_state(self, sync_data: dict[str, Any]) -> None:
        """Apply a change of the browser, after those that another thread holds back."""
        with _ONE_AT_A_TIME:
            super().set_state(sync_data)

    def show_result(self, result: Result) -> None:
        """Show another run: its scores on the map, its time courses below. A selected voxel that still exists stays."""
        check_result(result, "brain_view")
        masks: Mapping[str, Array] = {}
        with contextlib.suppress(ValueError):  # data without regions
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
            self.show(
                result.scores,
                significant=result.significant,
                name="r",
                units=SCORE,
                otherwise=not_significant(result),
            )
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
        otherwise: str = "not significant",
    ) -> None:
        """Put other values on the map, such as the scores in one story.

        Parameters
        ----------
        values : array, (n_voxels,)
        significant : bool array, (n_voxels,), optional
        name, units : str
            What the values are: in the numbers at the pointer, and at the colour bar. Where `units` begin with
            "correlation (r)", the ends of the colours stay within -1 and 1.
        cmap, nonsignificant : as in `brain.flat_image`
        categories : sequence of numbers, optional
            All possible values in ascending order, such as layers: each gets one colour of `cmap`, and they are
            not averaged. NaN is not a category.
        ahead : bool
            The values come from a run whose test is still running, and `significant` is provisional: the map says so,
            and the pointer shows no other numbers. The time course below remains that of the last result
            until `show_result` is called.
        otherwise : str
            What voxels are that `significant` leaves out, for the line under the map.

        Raises
        ------
        ValueError
            No result is shown yet; values that are not categories; otherwise as `brain.flat_image` and
            `brain.category_image`.
        """
        result = self.result
        if result is None:
            raise ValueError("There is no result on the map yet; call show_result(result) first.")
        values = np.asarray(values)
        if values.shape != result.scores.shape:
            expected = f"{len(result.scores)} values, one per voxel of the result"
            raise ValueError(f"Expected {expected}, got shape {values.shape}.")
        if categories is not None and not np.isin(values[np.isfinite(values)], categories).all():
            raise ValueError(f"Expected values among {', '.join(map(str, categories))}, got others.")
        with self.hold_sync():
            before = (self._values, self._significant, self._look)
            self._values, self._significant = values, significant
            self._look = {"cmap": cmap, "nonsignificant": nonsignificant, "name": name, "units": units}
            self._look |= {"categories": categories, "ahead": ahead, "otherwise": otherwise}
            try:
                self._redraw()
            except ValueError:
                self._values, self._significant, self._look = before
                raise
            self._send_facts(result)

    def _redraw(self) -> None:
        """Send picture and colour bar for the current values, threshold and colour range."""
        result = self.result
        if result is None:
            return
        with self.hold_sync():
            values, cmap = self._values.astype(float), self._look["cmap"]
            lowest, highest = value_limits(values, cmap=cmap, vmin=None, vmax=None)
            if self.threshold is not None:
                values[values < self.threshold] = np.nan
            low, high = self._ends()
            picture, lookup, places = self._draw(result, values, low, high)
            if lookup is not self._sent:  # the lookup of a surface is the same object at each redraw
                self._sent = lookup
                self._size = list(lookup.shape)
                self._lookup = zlib.compress(lookup.astype("<i4").tobytes(), 1)
                self._places = places.astype("<i4").tobytes()
            scale = {"low": low, "high": high, "lowest": lowest, "highest": highest}
            colours = stops(cmap, self._look["categories"]) if result.surface is not None else None
            notes = "; ".join(self._map_notes(values))
            self._scale = {**scale, "units": self._look["units"], "note": notes, "stops": colours}
            self._picture = png(picture)
            self._alt = self._describe(result, values)

    @property
    def _range(self) -> tuple[float | None, float | None]:
        """vmin and vmax, of a correlation within -1 and 1; without a vmax that is not above vmin."""
        vmin, vmax = self.vmin, self.vmax
        if self._look["units"].startswith(SCORE):
            vmin, vmax = (None if end is None else min(max(end, -1.0), 1.0) for end in (vmin, vmax))
            vmin, vmax = None if vmin == 1 else vmin, None if vmax == -1 else vmax
        ordered = vmin is None or vmax is None or vmin < vmax
        return vmin, vmax if ordered else None

    def _ends(self) -> tuple[float, float]:
        """The values at the ends of the colour scale."""
        if categories := self._look["categories"]:
            return float(min(categories)), float(max(categories))
        vmin, vmax = self._range
        return value_limits(self._values.astype(float), cmap=self._look["cmap"], vmin=vmin, vmax=vmax)

    def _draw(self, result: Result, values: Array, low: float, high: float) -> tuple[Array, Array, Array]:
        """The picture, the voxel under each of its pixels, and a place for each voxel."""
        if result.surface is not None:
            mapper = brain.flat_mapper(result.surface, height=self._height)
            return self._map(values, result.surface, low, high), mapper.lookup, mapper.voxel_places
        names = result.voxel_names or tuple(f"voxel {i}" for i in range(len(values)))
        look = {"significant": self._significant, "units": self._look["units"], "limits": self._range}
        picture, lookup = region_picture(values, names, **look)
        return picture, lookup, row_places(lookup, len(values))

    def _map_notes(self, values: Array) -> list[str]:
        """Remarks on how to read this map."""
        notes = []
        if self._look["categories"] is not None and (self.vmin, self.vmax) != (None, None):
            notes.append("the colours of categories are fixed, so the colour range has no effect")
        elif None not in (self.vmin, self.vmax) and self.vmin >= self.vmax:
            ends = f"from {self.vmin:g} to {self.vmax:g}"
            notes.append(f"the colours cannot go {ends}: the upper end is taken from the data")
        elif self._range != (self.vmin, self.vmax):
            notes.append("a correlation lies between -1 and 1, and so do the ends of the colours")
        if self.threshold is not None and not np.isfinite(values).any() and np.isfinite(self._values).any():
            return [*notes, f"no value reaches the threshold of {self.threshold:g}"]
        if self._look["ahead"]:
            state = "not tested yet" if self._significant is None else "significance is provisional"
            notes.append(f"{state}: the test of this run is running")
        elif self._significant is None and self.result is not None and self._look["categories"] is None:
            notes += [] if self.result.tested else [self.result.test_name]
        note = map_note(values) or self._faded(values)
        return [*notes, note] if note else notes

    def _faded(self, values: Array) -> str:
        """How voxels that are not significant are drawn, where a map has some with a value; bars have a legend."""
        if self.result is None or self.result.surface is None or self._significant is None:
            return ""
        if not (~np.asarray(self._significant, bool) & np.isfinite(values)).any():
            return ""
        return f"{NONSIGNIFICANT[self._look['nonsignificant']][1]}: {self._look['otherwise']}"

    def _map(self, values: Array, surface: Surface, low: float, high: float) -> Array:
        """The pixels of a map: (height, width, 4) uint8."""
        categories, cmap = self._look["categories"], self._look["cmap"]
        look = {"nonsignificant": self._look["nonsignificant"], "with_rois": self.with_regions}
        look |= {"height": self._height, "significant": self._significant, "cmap": cmap}
        if categories is None:
            return brain.flat_image(values, surface, vmin=low, vmax=high, **look)
        labels = np.where(np.isfinite(values), np.searchsorted(categories, values), -1)
        return brain.category_image(labels, surface, n_categories=len(categories), **look)

    def _describe(self, result: Result, values: Array) -> str:
        """The picture in words."""
        finite = values[np.isfinite(values)]
        kind = "Flattened cortex" if result.surface is not None else "Regions"
        spread = "no values"
        if len(finite):
            spread = f"{len(finite)} values from {finite.min():.3g} to {finite.max():.3g}"
        counted = result.test_name
        if self._look["ahead"]:
            counted = "the test of this run is running"
        elif result.significant is not None:
            counted = f"{int(result.significant.sum())} of {len(values)} significant ({result.test_name})"
        return (
            f"{kind} of {whose(result)}: {self._look['units'] or self._look['name']}, {spread}, {counted}. "
            f"Arrow keys move the selection, plus and minus zoom, 0 shows the whole map."
        )

    def _send_facts(self, result: Result) -> None:
        rows, significant, verdicts = [(self._look["name"], self._values)], b"", list[str]()
        if not self._look["ahead"]:
            if self._values is not result.scores:
                rows.append(("r", result.scores))
            rows.append(("alpha", np.median(np.atleast_2d(result.best_alphas), axis=0)))
            if result.noise_ceiling is not None:
                rows.append(("noise ceiling", result.noise_ceiling))
            flags = np.zeros(len(result.scores)) if result.significant is None else result.significant
            significant, verdicts = np.asarray(flags, np.uint8).tobytes(), verdicts_of(result)
        names, numbers = self._areas
        self._facts = {
            "rows": [{"name": name, "values": np.asarray(row, "<f4").tobytes()} for name, row in rows],
            "significant": significant,
            "verdicts": verdicts,
            "areas": names,
            "area_of": numbers.astype("<u2").tobytes(),
            "names": list(result.voxel_names or ()),
            "places": self._places,
            "unit": unit(result),
        }

    def _send_course(self) -> None:
        """Send the time course of the selected voxel in the chosen story."""
        with _ONE_AT_A_TIME:
            if self.result is None or self.selected == NONE:
                self._course = {"voxel": NONE}
            else:
                self._course = course_of(self.result, self.selected, self.story)

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:
        """The live view, and the current map as a picture for viewers without a kernel."""
        bundle = super()._repr_mimebundle_(**kwargs)
        data = bundle[0] if isinstance(bundle, tuple) else bundle
        if data is not None and self._picture:
            data["image/png"] = base64.b64encode(self._picture).decode()
        return bundle


def verdicts_of(result: Result) -> list[str]:
    """What the pointer shows of a voxel that is not significant, and of one that is; the same where none is tested."""
    if not result.tested:
        return ["not tested", "not tested"]
    how = " (assumes white noise)" if result.settings.significance == "parametric" else ""
    return [f"{word}{how}" for word in ("not significant", "significant")]


def not_significant(result: Result) -> str:
    """What voxels are that are not significant, and by which test."""
    return f"not significant ({result.test_name})"


def brain_view(result: Result | None = None, *, rois: Regions | None = None, height: int = 512) -> BrainView:
    """A map to hover over and click on, with the time course of the selected voxel, for a notebook cell.

    Data without a surface are shown as labelled bars, one per region, that work the same way.

    Parameters
    ----------
    result : Result, optional
        None makes an empty view; fill it later with `show_result`.
    rois : optional
        The named areas, as in `roi_table`.
    height : int, pixels
        Height of the map's picture.

    Returns
    -------
    BrainView
    """
    return BrainView(result, rois=rois, height=height)
