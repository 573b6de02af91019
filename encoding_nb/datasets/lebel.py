"""The LeBel data set: OpenNeuro's ds003020 as it is published (LeBel et al. 2023, Scientific Data 10, 555).

    derivative/preprocessed_data/UTS03/<story>.hf5    data (rows, voxels); the test story also individual_repeats
    derivative/TextGrids/<story>.TextGrid             tier 0 phones, tier 1 words
    derivative/respdict.json                          story to the number of TRs scanned
    derivative/pycortex-db/UTS03                      surfaces, transforms, masks

The sound starts 10 s into a run; responses come without the run's first and last 10 TRs. Features are sampled
at the run's TRs but the last 5, and trimmed to meet the responses by `design.TRIMMINGS["lebel"]`, as the authors'
own code does it (github.com/HuthLab/deep-fMRI-dataset).
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..assembly import Array, Assembly, LazyArray, Story, Surface, check_words_in_run
from ._download import check_downloaded, is_downloaded
from .textgrid import read_textgrid

if TYPE_CHECKING:
    import h5py


TR = 2.0  # seconds
SECONDS_BEFORE = 10.0  # scanned before the sound starts
UNSAMPLED_TRS = 5  # at the end of a run
TRIMMED_TRS = 20  # ten at each end of a run, not in the responses
TEST_STORY = "wheretheressmoke"
SUBJECTS = tuple(f"UTS{number:02d}" for number in range(1, 10))
NAN_RULES = ("zero", "keep")
HOW_TO_GET = "get it with `python -m encoding_nb fetch`, or `git annex get` in a clone"

# LITcoder's default list (github.com/GT-LIT-Lab/litcoder_core, encoding/assembly/lebel_processor.py)
LITCODER_STORIES = tuple(
    "adollshouse adventuresinsayingyes alternateithicatom avatar buck exorcism eyespy fromboyhoodtofatherhood "
    "hangtime haveyoumethimyet howtodraw inamoment itsabox legacy naked odetostepfather sloth souls stagefright "
    "swimmingwithastronauts thatthingonmyarm theclosetthatateeverything tildeath undertheinfluence "
    "wheretheressmoke".split()
)
# the stories of the authors' five sessions (github.com/HuthLab/deep-fMRI-dataset, sess_to_story.json)
AUTHORS_STORIES = tuple(sorted([*LITCODER_STORIES, "life", "myfirstdaywiththeyankees"]))
STORY_LISTS: Mapping[str, tuple[str, ...]] = {"litcoder": LITCODER_STORIES, "authors": AUTHORS_STORIES}


def recognises(source: Path) -> bool:
    """Whether a folder is for `load`: ds003020, or near enough to say which folder to give."""
    return source.is_dir() and bool(_is_root(source) or _near_roots(source))


def _is_root(folder: Path) -> bool:
    return (folder / "derivative" / "preprocessed_data").is_dir()


def _near_roots(folder: Path) -> list[Path]:
    """Data sets above or right below a folder."""
    above = [parent for parent in folder.resolve().parents[:4] if _is_root(parent)]
    try:
        return above or [child for child in sorted(folder.iterdir()) if child.is_dir() and _is_root(child)]
    except OSError:
        return above


def load(
    source: Path,
    *,
    subject: str | None = None,
    stories: str | Iterable[str] | None = None,
    repeats: bool = False,
    nan: str = "zero",
) -> Assembly:
    """One subject of ds003020; BOLD stays in its files until it is read, story by story.

    Parameters
    ----------
    source : folder that holds `derivative`
    subject : "UTS01" to "UTS09"; None takes the only one that is there
    stories : names, or a list by its name
        "litcoder" (25) or "authors" (27, of five sessions), each with the test story; None takes all that are
        downloaded.
    repeats : bool
        Whether the test story's single presentations come too (for the noise ceiling); they are read, some
        2 GB, when the ceiling is made.
    nan : "zero" or "keep"
        What becomes of NaN in the responses: 0, as in the authors' decoding code
        (github.com/HuthLab/semantic-decoding), with a warning that counts them, once per story; or kept, so
        that a fit refuses them.

    Returns
    -------
    Assembly; BOLD is float32, rows are TRs

    Raises
    ------
    FileNotFoundError
        Files that were not downloaded.
    ValueError
        A wrong folder, a subject or story that is not there, rows that do not match respdict.json, voxels that
        differ between stories or from every mask of the subject.
    """
    if nan not in NAN_RULES:
        raise ValueError(f"nan: expected one of {', '.join(NAN_RULES)}, got {nan!r}.")
    derivative = find_derivative(source)
    subject = _subject(derivative, subject)
    folder = derivative / "preprocessed_data" / subject
    n_trs = _respdict(derivative / "respdict.json")
    names = _story_names(folder, stories)
    made = {name: _story(derivative, folder, name, n_trs, repeats=repeats, nan=nan) for name in names}
    n_voxels = _voxel_count(folder, made)
    return Assembly(
        subject=subject,
        tr=TR,
        stories=made,
        test_stories=(TEST_STORY,) if TEST_STORY in made else (),
        surface=_surface(derivative / "pycortex-db", subject, n_voxels),
    )


def find_derivative(source: Path) -> Path:
    """The folder `derivative` of a data set; a wrong level is answered with the right one."""
    if _is_root(source):
        return source / "derivative"
    near = _near_roots(source)
    advice = f"pass {near[0]}" if near else "pass the folder that holds 'derivative'"
    raise ValueError(
        f"{source}: expected ds003020's own folder, with derivative/preprocessed_data; {advice}."
    )


def _subject(derivative: Path, subject: str | None) -> str:
    there = sorted(path.name for path in (derivative / "preprocessed_data").iterdir() if path.is_dir())
    if subject is None and len(there) == 1:
        return there[0]
    if subject not in there:
        problem = "name a subject" if subject is None else f"no subject {subject!r}"
        raise ValueError(
            f"{derivative / 'preprocessed_data'}: {problem}; there {'is' if len(there) == 1 else 'are'} "
            f"{', '.join(there) or 'none'}."
        )
    return subject


def _respdict(path: Path) -> Mapping[str, int]:
    check_downloaded(path, how=HOW_TO_GET)
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: expected JSON with TRs by story, got {error}.") from error
    if not isinstance(found, dict) or not all(type(n) is int for n in found.values()):
        raise ValueError(f"{path}: expected a whole number of TRs for each story; download it again.")
    return found


def chosen_stories(stories: str | Iterable[str]) -> tuple[str, ...]:
    """Names of stories from names or from the name of a list."""
    if not isinstance(stories, str):
        return tuple(stories)
    if stories not in STORY_LISTS:
        raise ValueError(
            f"stories: expected a list of names or one of {', '.join(map(repr, STORY_LISTS))}, got {stories!r}."
        )
    return STORY_LISTS[stories]


def _story_names(folder: Path, stories: str | Iterable[str] | None) -> Sequence[str]:
    """Training stories in alphabetical order, the test story last."""
    listed = sorted(path.stem for path in folder.glob("*.hf5"))
    if stories is None:
        names = [name for name in listed if is_downloaded(folder / f"{name}.hf5")]
        if not names:
            raise FileNotFoundError(f"{folder}: none of {len(listed)} stories is downloaded; {HOW_TO_GET}.")
        if len(names) < len(listed):
            warnings.warn(
                f"{folder}: {len(listed) - len(names)} of {len(listed)} stories are not downloaded and are left "
                f"out.",
                stacklevel=4,
            )
    else:
        names = list(dict.fromkeys(chosen_stories(stories)))
        unknown = [name for name in names if name not in listed]
        if unknown or not names:
            there = ", ".join(listed) or "none"
            raise ValueError(f"{folder}: no story {', '.join(unknown) or 'was named'}; there are {there}.")
    return sorted(names, key=lambda name: (name == TEST_STORY, name))


def _story(
    derivative: Path, folder: Path, name: str, n_trs: Mapping[str, int], *, repeats: bool, nan: str
) -> Story:
    if name not in n_trs:
        raise ValueError(f"{derivative / 'respdict.json'}: story {name} is not in it; download it again.")
    path, transcript = folder / f"{name}.hf5", derivative / "TextGrids" / f"{name}.TextGrid"
    check_downloaded(path, how=HOW_TO_GET)
    check_downloaded(transcript, how=HOW_TO_GET)
    bold = _lazy(path, "data", 2, nan)
    if bold.shape[0] != n_trs[name] - TRIMMED_TRS:
        raise ValueError(
            f"{path}: expected {n_trs[name] - TRIMMED_TRS} rows for story {name}, {TRIMMED_TRS} less than the "
            f"{n_trs[name]} TRs of respdict.json, got {bold.shape[0]}; they come from different versions."
        )
    story = Story(
        name=name,
        words=read_textgrid(transcript, tier=1),
        tr_times=TR * np.arange(n_trs[name] - UNSAMPLED_TRS) - SECONDS_BEFORE,
        bold=bold,
        repeats=_lazy(path, "individual_repeats", 3, nan) if repeats and name == TEST_STORY else None,
    )
    check_words_in_run(story, TR, where=str(transcript))
    return story


def _lazy(path: Path, dataset: str, n_axes: int, nan: str) -> LazyArray:
    """A data set of an HDF5 file, read when it is indexed; its kind is checked now."""
    with _hdf5(path) as file:
        stored = file.get(dataset)
        # whatever stands under the name has a type and a shape only where it is a data set
        kind, shape = getattr(stored, "dtype", np.dtype(object)).kind, getattr(stored, "shape", None) or ()
        there = [f"{key} {getattr(item, 'shape', '')}" for key, item in file.items()]
    if kind != "f" or len(shape) != n_axes or 0 in shape:
        raise ValueError(
            f"{path}: expected numbers {dataset!r} with {n_axes} axes, got {', '.join(there) or 'nothing'}."
        )
    told = [0]  # the most voxels with NaN that a warning has named
    return LazyArray(shape, np.float32, partial(_read_rows, path, dataset, nan, told))


@contextmanager
def _hdf5(path: Path) -> Iterator[h5py.File]:
    """An open file; whatever h5py raises on a damaged one is a ValueError with the file's name."""
    import h5py

    try:
        with h5py.File(path, "r", locking="best-effort") as file:
            yield file
    except (AttributeError, KeyError, OSError, RuntimeError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path}: cannot be read as HDF5 ({error}); is it whole? download it again."
        ) from error


def _read_rows(path: Path, dataset: str, nan: str, told: list[int], key: tuple[int | slice, ...]) -> Array:
    with _hdf5(path) as file:
        values = np.asarray(file[dataset].astype(np.float32)[key])
    return values if nan == "keep" else _without_nan(values, path, told)


def _without_nan(values: Array, path: Path, told: list[int]) -> Array:
    """NaN becomes 0; a warning says so once, and again only when more voxels turn out to hold some."""
    missing = np.isnan(values)
    if not missing.any():
        return values
    values = np.where(missing, np.float32(0), values)
    last = missing.shape[-1] if missing.ndim else 1
    n_voxels = int(missing.reshape(-1, last).any(axis=0).sum())
    if n_voxels > told[0]:
        told[0] = n_voxels
        warnings.warn(
            f"{path}: {int(missing.sum())} NaN in {n_voxels} of {last} voxels become 0; nan='keep' leaves them.",
            stacklevel=4,
        )
    return values


def _voxel_count(folder: Path, stories: Mapping[str, Story]) -> int:
    counts = {name: int(story.bold.shape[1]) for name, story in stories.items()}
    first, n_voxels = next(iter(counts.items()))
    for name, count in counts.items():
        if count != n_voxels:
            raise ValueError(
                f"{folder / name}.hf5 has {count} voxels but {first}.hf5 has {n_voxels}; all stories of a subject "
                f"must come from the same mask: download both again."
            )
    return n_voxels


def _surface(store: Path, subject: str, n_voxels: int) -> Surface | None:
    """The subject's own surface with the mask that holds as many voxels as the responses."""
    transform = f"{subject}_auto"
    folder = store / subject / "transforms" / transform
    listed = sorted({*folder.glob("mask_*.nii.gz"), folder / "mask_thick.nii.gz"}, key=_preference)
    masks = [path for path in listed if is_downloaded(path)]
    if not masks:
        warnings.warn(
            f"{store / subject}: no mask of transform {transform} is downloaded, so there are no flatmaps; "
            f"{HOW_TO_GET}.",
            stacklevel=3,
        )
        return None
    counts = {}
    for path in masks:
        counts[_mask_name(path)] = _mask_size(path)
        if counts[_mask_name(path)] == n_voxels:
            return Surface(subject, transform, _mask_name(path), str(store.resolve()))
    got = ", ".join(f"{name} {count}" for name, count in counts.items())
    if absent := [_mask_name(path) for path in listed if path not in masks]:
        warnings.warn(
            f"{folder}: the mask {', '.join(absent)} is not downloaded, and no other has the {n_voxels} voxels of the "
            f"responses ({got}), so there are no flatmaps; {HOW_TO_GET}.",
            stacklevel=3,
        )
        return None
    raise ValueError(
        f"{folder}: expected a mask of {n_voxels} voxels, as the responses of {subject} have, got {got}; "
        f"responses and pycortex-db come from different versions."
    )


def _mask_name(path: Path) -> str:
    return path.name.removeprefix("mask_").removesuffix(".nii.gz")


def _preference(path: Path) -> tuple[bool, str]:
    """`thick` first: every subject has it, and its voxels are the responses' columns."""
    return (_mask_name(path) != "thick", path.name)


def _mask_size(path: Path) -> int:
    import nibabel

    try:
        return int(np.count_nonzero(np.asanyarray(nibabel.load(path).dataobj)))
    except (OSError, ValueError, EOFError, nibabel.filebasedimages.ImageFileError) as error:
        raise ValueError(f"{path}: cannot be read as a NIfTI mask ({error}); download it again.") from error
