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

from collections.abc import Iterable, Mapping
from contextlib import suppress
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np

from .. import _progress
from .._validation import check_choice, parse_json
from ..assembly import Array, Assembly, LazyArray, Story, Surface, check_words_in_run
from ._checks import Stamp, check_downloaded, check_unchanged, chosen, is_downloaded, stamp_of
from .hdf5 import opened, stored_here
from .marks import BAD_WORDS
from .textgrid import read_textgrid

TR = 2.0  # seconds
SECONDS_BEFORE = 10.0  # scanned before the sound starts
UNSAMPLED_TRS = 5  # at the end of a run
TRIMMED_TRS = 20  # ten at each end of a run, not in the responses
TEST_STORY = "wheretheressmoke"
SUBJECTS = tuple(f"UTS{number:02d}" for number in range(1, 10))
ADVICE = "it is cut off or damaged: download it again"
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
    with suppress(OSError):
        return above or [child for child in sorted(folder.iterdir()) if child.is_dir() and _is_root(child)]
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
    source : folder that contains `derivative`
    subject : "UTS01" to "UTS09"; None takes the only subject in the folder
    stories : names, or a list by its name
        "litcoder" (25) or "authors" (27, of five sessions), each with the test story; None takes all that are
        downloaded.
    repeats : bool
        Whether to include the test story's single presentations (for the noise ceiling); they are read, about
        2 GB, when the ceiling is computed.
    nan : "zero" or "keep"
        "zero" replaces NaN in the responses by 0, as the authors' decoding code does
        (github.com/HuthLab/semantic-decoding), with a warning that counts them, once per story; "keep" leaves them,
        and a fit refuses them.

    Returns
    -------
    Assembly; BOLD is float32, rows are TRs

    Raises
    ------
    FileNotFoundError
        Files that were not downloaded.
    ValueError
        A wrong folder, an unknown subject or story, rows that do not match respdict.json, voxels that differ between
        stories or from every mask of the subject.
    """
    check_choice(nan, "nan", ("zero", "keep"))
    if not _is_root(source):
        near = _near_roots(source)
        advice = f"pass {near[0]}" if near else "pass the folder that contains 'derivative'"
        raise ValueError(
            f"{source}: expected ds003020, a folder with derivative/preprocessed_data; {advice}."
        )
    derivative = source / "derivative"
    subject = _subject(derivative, subject)
    folder = derivative / "preprocessed_data" / subject
    table = derivative / "respdict.json"
    check_downloaded(table, how=HOW_TO_GET)
    n_trs = None
    with suppress(ValueError):
        n_trs = parse_json(table.read_text(encoding="utf-8"))
    if not isinstance(n_trs, dict) or not all(type(n) is int for n in n_trs.values()):
        raise ValueError(f"{table}: expected JSON with the number of TRs of each story; download it again.")
    names = _story_names(folder, stories)
    made = {name: _story(derivative, folder, name, n_trs, repeats=repeats, nan=nan) for name in names}
    first = next(iter(made.values()))
    n_voxels = first.bold.shape[1]
    for story in made.values():
        if story.bold.shape[1] != n_voxels:
            problem = f"{story.name}.hf5 has {story.bold.shape[1]} voxels but {first.name}.hf5 has {n_voxels}"
            raise ValueError(f"{folder}: {problem}; they come from different masks, download both again.")
    return Assembly(
        subject=subject,
        tr=TR,
        stories=made,
        test_stories=(TEST_STORY,) if TEST_STORY in made else (),
        surface=_surface(derivative / "pycortex-db", subject, n_voxels),
    )


def _subject(derivative: Path, subject: str | None) -> str:
    folder = derivative / "preprocessed_data"
    known = sorted(path.name for path in folder.iterdir() if path.is_dir())
    if subject is None and len(known) == 1:
        return known[0]
    if subject not in known:
        problem = "pass subject=" if subject is None else f"no subject {subject!r}"
        raise ValueError(f"{folder}: {problem}; it has {', '.join(known) or 'none'}.")
    return subject


def story_list(stories: str | Iterable[str], lists: Mapping[str, Iterable[str]] = STORY_LISTS) -> list[str]:
    """Names of stories from names or from the name of a list."""
    if not isinstance(stories, str):
        return list(stories)
    return list(lists[check_choice(stories, "stories, if not a list of names,", lists)])


def _story_names(folder: Path, stories: str | Iterable[str] | None) -> list[str]:
    """Training stories in alphabetical order, the test story last."""
    listed = sorted(path.stem for path in folder.glob("*.hf5"))
    if stories is not None:
        names = chosen(story_list(stories), listed, folder)
    else:
        names = [name for name in listed if is_downloaded(folder / f"{name}.hf5")]
        if not names:
            raise FileNotFoundError(f"{folder}: none of {len(listed)} stories is downloaded; {HOW_TO_GET}.")
        if len(names) < len(listed):
            left_out = f"{len(listed) - len(names)} of {len(listed)} stories"
            _progress.warn(f"{folder}: {left_out} are not downloaded and are left out.", stacklevel=4)
    return sorted(names, key=lambda name: (name == TEST_STORY, name))


def _story(
    derivative: Path, folder: Path, name: str, n_trs: Mapping[str, int], *, repeats: bool, nan: str
) -> Story:
    if name not in n_trs:
        raise ValueError(f"{derivative / 'respdict.json'}: story {name} is missing; download the file again.")
    path, transcript = folder / f"{name}.hf5", derivative / "TextGrids" / f"{name}.TextGrid"
    check_downloaded(path, how=HOW_TO_GET)
    check_downloaded(transcript, how=HOW_TO_GET)
    bold = _lazy(path, "data", 2, nan)
    if bold.shape[0] != n_trs[name] - TRIMMED_TRS:
        raise ValueError(
            f"{path}: expected {n_trs[name] - TRIMMED_TRS} rows for the {n_trs[name]} TRs of respdict.json, got "
            f"{bold.shape[0]}; they come from different versions."
        )
    story = Story(
        name=name,
        words=read_textgrid(transcript, tier=1, bad_words=BAD_WORDS),
        tr_times=TR * np.arange(n_trs[name] - UNSAMPLED_TRS) - SECONDS_BEFORE,
        bold=bold,
        repeats=_lazy(path, "individual_repeats", 3, nan) if repeats and name == TEST_STORY else None,
    )
    check_words_in_run(story, TR, where=str(transcript))
    return story


def _lazy(path: Path, name: str, n_axes: int, nan: str) -> LazyArray:
    """A data set of an HDF5 file, read when it is indexed; its kind is checked now."""
    with opened(path, ADVICE) as file:
        found = ", ".join(islice(file, 10)) or "nothing"
        shape: tuple[int, ...] = ()
        if file.get(name, getlink=True):
            stored = stored_here(file, name, kinds="f", sparse=True)  # rows are read a few at a time
            shape = stored.shape or ()
            found = f"{name} {shape}"
    if len(shape) != n_axes or 0 in shape:
        raise ValueError(f"{path}: expected numbers {name!r} with {n_axes} axes, got {found}.")
    reported = [0]  # the most voxels with NaN that a warning has named
    return LazyArray(shape, np.float32, partial(_read_rows, path, stamp_of(path), name, nan, reported))


def _read_rows(
    path: Path, stamp: Stamp, name: str, nan: str, reported: list[int], key: tuple[int | slice, ...]
) -> Array:
    """Values as float32. NaN become 0; a warning says so, and again only when more voxels turn out to have some."""
    check_unchanged(path, stamp)
    with opened(path, ADVICE) as file:
        values = np.asarray(file[name].astype(np.float32)[key])
    check_unchanged(path, stamp)
    missing = np.isnan(values)
    if nan == "keep" or not missing.any():
        return values
    last = missing.shape[-1] if missing.ndim else 1
    n_voxels = int(missing.reshape(-1, last).any(axis=0).sum())
    if n_voxels > reported[0]:
        reported[0] = n_voxels
        count = f"{int(missing.sum())} NaN in {n_voxels} of {last} voxels"
        _progress.warn(f"{path}: {count} become 0; nan='keep' leaves them.", stacklevel=3)
    return np.where(missing, np.float32(0), values)


def _surface(store: Path, subject: str, n_voxels: int) -> Surface | None:
    """The subject's own surface, with the mask that has as many voxels as the responses."""
    import nibabel

    transform = f"{subject}_auto"
    folder = store / subject / "transforms" / transform
    # "thick" first: every subject has it, and its voxels are the responses' columns
    masks = dict.fromkeys([folder / "mask_thick.nii.gz", *sorted(folder.glob("mask_*.nii.gz"))])
    counts, absent = {}, []
    for path in masks:
        name = path.name.removeprefix("mask_").removesuffix(".nii.gz")
        if not is_downloaded(path):
            absent.append(name)
            continue
        try:
            counts[name] = np.count_nonzero(np.asanyarray(nibabel.load(path).dataobj))  # type: ignore[attr-defined]
        except (OSError, ValueError, EOFError, nibabel.filebasedimages.ImageFileError) as error:
            raise ValueError(f"{path}: cannot be read as a mask ({error}); download it again.") from error
        if counts[name] == n_voxels:
            return Surface(subject, transform, name, str(store.resolve()))
    got = ", ".join(f"{name} {count}" for name, count in counts.items()) or "none"
    if not absent:
        raise ValueError(
            f"{folder}: no mask has the responses' {n_voxels} voxels, got {got}; download both again."
        )
    _progress.warn(
        f"{folder}: the mask {', '.join(absent)} is not downloaded, and no other has the {n_voxels} voxels of the "
        f"responses (got {got}), so there are no flatmaps; {HOW_TO_GET}.",
        stacklevel=4,
    )
    return None
