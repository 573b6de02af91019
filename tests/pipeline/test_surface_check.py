"""BOLD of another size than its surface is found before a fit; a surface that cannot be found is only warned of."""

import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest

from encoding_nb import Surface, load_assembly, vertex_surface
from encoding_nb._files import CACHE_VARIABLE
from encoding_nb.assembly import Assembly
from encoding_nb.brain import SHIPPED, known_voxel_count, surfaces, voxel_count
from encoding_nb.pipeline import check, plan_run, runs
from encoding_nb.settings import SettingsError

from ..tiny_subject import make_store, reference_affine
from .test_runs import NO_CACHE, RATE, TRIM, make_story

FITS = replace(RATE, trimming=TRIM)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pycortex")
    store = make_store(folder / "store")
    volume = np.zeros((24, 26, 16), np.uint8)
    volume[2:5, 7, 3] = 1  # as many as the stories below have columns
    image = nibabel.Nifti1Image(volume, reference_affine(store))
    nibabel.save(image, store / "tiny" / "transforms" / "near" / "mask_three.nii.gz")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(CACHE_VARIABLE, str(folder / "cache"))
        yield str(store)


def assembly_on(surface):
    stories = {name: make_story(name, seed) for seed, name in enumerate(("storya", "storyb", "storyz"))}
    return Assembly("S", 2.0, stories, test_stories=("storyz",), surface=surface)


@pytest.fixture
def no_pycortex(monkeypatch):
    def refuse(*_):
        pytest.fail("asked pycortex")

    monkeypatch.setattr(surfaces, "pycortex_of", refuse)


def test_a_surface_of_the_same_size_has_nothing_against_it(store, no_pycortex):
    assembly = assembly_on(Surface("tiny", "near", "three", store))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert check(assembly, FITS) == {}
        plan_run(assembly, FITS, memory=NO_CACHE)


@pytest.mark.parametrize(
    ("surface", "named"),
    [
        (lambda store: SHIPPED, f"{voxel_count(SHIPPED)} voxels of mask 'demo' of S1/fullhead"),
        (lambda store: vertex_surface("tiny", store=store), "1152 vertices of tiny"),
    ],
)
def test_a_surface_of_another_size_is_found_without_pycortex(surface, named, store, no_pycortex):
    assembly = assembly_on(surface(store))
    problems = check(assembly, FITS)
    assert list(problems) == ["surface"]
    assert problems["surface"].startswith(f"Expected BOLD of the {named}, got 3 columns")
    with pytest.raises(SettingsError, match=f"Expected BOLD of the {named}") as error:
        runs.run(assembly, FITS, memory=NO_CACHE, progress=False)
    assert error.value.field == "surface"


def test_a_mask_that_does_not_exist_yet_is_made_when_a_run_is_planned(store):
    """`check`, which the panel calls at every edit, waits for no mask."""
    surface = Surface("tiny", "near", "thin", store)
    assembly = assembly_on(surface)
    assert known_voxel_count(surface) is None and check(assembly, FITS) == {}
    with pytest.raises(SettingsError, match="voxels of mask 'thin' of tiny/near, got 3 columns"):
        plan_run(assembly, FITS, memory=NO_CACHE)
    assert known_voxel_count(surface) == voxel_count(surface) > 3
    assert list(check(assembly, FITS)) == ["surface"]


@pytest.mark.parametrize(
    ("lost", "named"),
    [
        (lambda store: Surface("Fred", "near", "thin", store), "no pycortex store has|No pycortex store has"),
        (lambda store: Surface("tiny", "half", "thin", store), "no transform 'half'"),
        (lambda store: Surface("tiny", "near", "fat", store), "no mask 'fat'"),
        (lambda store: Surface("tiny", "near", "thin", f"{store}/gone"), "No pycortex store has the subject"),
        (lambda store: vertex_surface("Fred", store=store), "No pycortex store has the subject"),
    ],
)
def test_a_surface_that_cannot_be_found_is_warned_of(lost, named, store):
    assembly = assembly_on(lost(store))
    assert check(assembly, FITS) == {}
    with pytest.warns(UserWarning, match=rf"No brain map of this fit can be drawn \(ValueError: .*{named}"):
        plan_run(assembly, FITS, memory=NO_CACHE)


def test_a_damaged_mask_is_warned_of(store):
    file = Path(store) / "tiny" / "transforms" / "near" / "mask_cut.nii.gz"
    whole = file.with_name("mask_three.nii.gz").read_bytes()
    for content in (b"", whole[: len(whole) // 2]):
        file.write_bytes(content)
        with pytest.warns(UserWarning, match=r"No brain map .*mask_cut.nii.gz: cannot be read"):
            result = runs.run(
                assembly_on(Surface("tiny", "near", "cut", store)), FITS, memory=NO_CACHE, progress=False
            )
        assert any("No brain map" in note for note in result.notes)


def test_the_demo_is_checked_without_nibabel_and_pycortex():
    code = (
        "import sys; from encoding_nb import Settings, check, load_assembly; "
        "assert check(load_assembly('demo'), Settings(modality='wordrate')) == {}; "
        "print(sorted({'cortex', 'nibabel', 'matplotlib.pyplot'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    assert load_assembly("demo").n_voxels == known_voxel_count(SHIPPED)
