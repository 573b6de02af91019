"""The first look at a run: its numbers, its regions, and whether the alphas were free to choose."""

from __future__ import annotations

from html import escape

import ipywidgets as widgets

from .. import plots
from ..brain import roi_table
from ..pipeline import Result
from .tabs import ResultTab
from .theme import Picture


def sentence(result: Result) -> str:
    """The metrics of a result in a line of HTML."""
    m = result.metrics
    data = "Simulated BOLD" if result.simulated else "BOLD"
    features = ", approximate features (strided)" if result.settings.approximate else ""
    return (
        f"<b>{data} of {escape(result.subject)}</b>{features}: {len(result.scores):,} voxels, "
        f"mean r {m['mean_score']:.3f}, median r {m['median_score']:.3f}, best r {m['max_score']:.3f}, "
        f"{m['n_significant']:,.0f} voxels significant at FDR {result.settings.fdr_q:g} "
        f"({m['percent_significant']:.1f} %)"
    )


def region_html(result: Result) -> str:
    """The scores by region as a table, or why there are none."""
    try:
        table = roi_table(result)
    except ValueError as error:
        return f"<p>{escape(str(error))}</p>"
    head = "".join(
        f"<th scope='col'>{name}</th>" for name in ("region", "median r", "mean r", "significant", "voxels")
    )
    rows = "".join(
        f"<tr><td>{escape(str(name))}</td><td>{row['median']:.3f}</td><td>{row['mean']:.3f}</td>"
        f"<td>{int(row['significant']):,}</td><td>{int(row['count']):,}</td></tr>"
        for name, row in table.iterrows()
    )
    return (
        f'<div class="enb-scroll"><table><caption>Scores by region, best median first</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def metrics_html(result: Result) -> str:
    """The metrics over all voxels as a table; those of regions, named with a slash, have one of their own."""
    rows = "".join(
        f"<tr><td>{escape(name.replace('_', ' '))}</td><td>{_number(value)}</td></tr>"
        for name, value in result.metrics.items()
        if "/" not in name
    )
    return f'<div class="enb-scroll"><table><caption>Metrics</caption><tbody>{rows}</tbody></table></div>'


def _number(value: float) -> str:
    return f"{value:,.0f}" if float(value).is_integer() and abs(value) < 1e15 else f"{value:.4g}"


class SummaryTab(ResultTab):
    """Metrics, regions, and the chosen alphas."""

    title = "Summary"

    def __init__(self) -> None:
        self._result: Result | None = None
        self._metrics = widgets.HTML("No result yet: press Fit.")
        self._regions = widgets.HTML().add_class("enb-regions")
        self.alphas = Picture("enb-alphas", max_width="640px")
        tables = widgets.HBox(
            [self._metrics, self._regions], layout={"flex_flow": "row wrap", "grid_gap": "24px"}
        )
        super().__init__([tables, self.alphas], "summary")

    def show(self, result: Result) -> None:
        """Show another run."""
        self._result = result
        self.changed()

    def draw(self) -> None:
        """Fill the tables, then the picture."""
        result = self._result
        self._metrics.value = metrics_html(result)
        self._regions.value = region_html(result)
        text = "Which alphas cross-validation chose, in percent of the voxels; many at an end mean a grid too short."
        self.alphas.show(plots.plot_alphas(result)._repr_png_(), text)
