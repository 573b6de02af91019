"""The panel on made-up files of published layouts."""

import pytest

from encoding_nb import Settings, control_panel, load_assembly, run
from encoding_nb.datasets.alice import REGIONS
from encoding_nb.design import TRIMMINGS

from ..datasets.test_alice import make_alice
from ..made_lebel import make_lebel


def test_a_fit_of_a_ds003020_folder_through_the_panel(tmp_path):
    folder = make_lebel(tmp_path / "ds003020")
    assembly = load_assembly(str(folder), subject="UTS03")
    settings = Settings(modality="wordrate")
    panel = control_panel(assembly, settings=settings, results_dir=tmp_path / "results", name="lebel")
    panel.fit()
    panel.join()
    assert panel.settings.trimming == settings.trimming
    assert panel.result.predictions["wheretheressmoke"].shape == (251, 12)
    alone = run(assembly, settings, progress=False)
    assert (panel.result.scores == alone.scores).all()


@pytest.mark.filterwarnings("ignore:.*s33 left out")
def test_regions_in_the_place_of_a_map_where_the_data_have_no_surface(tmp_path):
    settings = Settings(
        modality="wordrate", use_train_test_split=False, trimming=TRIMMINGS["alice"], folding_type="kfold"
    )
    panel = control_panel(
        load_assembly(make_alice(tmp_path)), settings=settings, results_dir=tmp_path / "results", name="alice"
    )
    panel.fit()
    panel.join()
    view = panel.results.brain.view
    assert panel.result.surface is None and view.result is panel.result
    assert tuple(view._facts["names"]) == REGIONS and view._facts["unit"] == "region"
    view.selected = REGIONS.index("LPTL")
    assert view._course["heading"].startswith("LPTL")
