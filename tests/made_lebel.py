"""A made-up ds003020: the published layout and numbers of rows, few voxels, made-up words and signals."""

import json
from pathlib import Path

import h5py
import nibabel
import numpy as np

N_TRS = {"alpha": 60, "beta": 64, "gamma": 62, "wheretheressmoke": 311}
VOCABULARY = "the a house was door night then she said light walked home again never old road rain".split()


def make_words(n_trs, seed):
    """(start, end, text) of made-up words over the sound of a run, silences as `sp`."""
    rng = np.random.default_rng(seed)
    entries, at = [(0.0, 0.5, "{NS}")], 0.5
    while at < 2.0 * n_trs - 22:
        length = round(float(rng.uniform(0.15, 0.5)), 3)
        text = "sp" if rng.random() < 0.1 else str(rng.choice(VOCABULARY))
        entries.append((round(at, 3), round(at + length, 3), text))
        at += length
    return entries


def textgrid(tiers):
    """A TextGrid in Praat's long text form."""
    end = max(entries[-1][1] for _, entries in tiers)
    lines = ['File type = "ooTextFile"', 'Object class = "TextGrid"', "", "xmin = 0", f"xmax = {end}"]
    lines += ["tiers? <exists>", f"size = {len(tiers)}", "item []:"]
    for i, (name, entries) in enumerate(tiers, start=1):
        lines += [f"    item [{i}]:", '        class = "IntervalTier"', f'        name = "{name}"']
        lines += ["        xmin = 0", f"        xmax = {end}", f"        intervals: size = {len(entries)}"]
        for j, (start, stop, text) in enumerate(entries, start=1):
            lines += [
                f"        intervals [{j}]:",
                f"            xmin = {start}",
                f"            xmax = {stop}",
            ]
            lines += [f'            text = "{text}" ']
    return "\n".join(lines) + "\n"


def responses(entries, n_rows, n_voxels, rng):
    """(n_rows, n_voxels): the first half of the voxels follows word rate some 4 s later."""
    middles = np.array([(start + end) / 2 for start, end, text in entries if text not in ("sp", "{NS}")])
    edges = 2.0 * np.arange(n_rows + 1) + 10.0 - 4.0
    rate, _ = np.histogram(middles, edges)
    rate = (rate - rate.mean()) / rate.std()
    signal = np.where(np.arange(n_voxels) < n_voxels // 2, 0.8, 0.0)
    return rate[:, None] * signal + rng.standard_normal((n_rows, n_voxels)) * np.sqrt(1 - signal**2)


def write_hf5(path, data, repeats=None):
    """Contiguous float64, as PyTables wrote the published files."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file.attrs["PYTABLES_FORMAT_VERSION"] = np.bytes_("2.1")
        file.create_dataset("data", data=np.asarray(data, dtype=np.float64))
        if repeats is not None:
            file.create_dataset("individual_repeats", data=np.asarray(repeats, dtype=np.float64))


def write_mask(store, subject, name, n_voxels, shape=(6, 8, 8)):
    """A mask with its first voxels on, where the subject's transform has its masks."""
    folder = store / subject / "transforms" / f"{subject}_auto"
    folder.mkdir(parents=True, exist_ok=True)
    values = (np.arange(np.prod(shape)) < n_voxels).astype(np.int8).reshape(shape)
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), folder / f"mask_{name}.nii.gz")


def make_lebel(root, *, subject="UTS03", n_voxels=12, n_trs=None, n_repeats=3):
    """Write the data set and return its folder."""
    root, n_trs = Path(root), N_TRS if n_trs is None else n_trs
    derivative = root / "derivative"
    (derivative / "TextGrids").mkdir(parents=True, exist_ok=True)
    (derivative / "respdict.json").write_text(json.dumps(n_trs))
    for seed, (story, length) in enumerate(n_trs.items()):
        rng = np.random.default_rng([7, seed])
        entries = make_words(length, seed)
        phones = [(start, end, "AH0") for start, end, _ in entries]
        path = derivative / "TextGrids" / f"{story}.TextGrid"
        path.write_text(textgrid([("phone", phones), ("word", entries)]))
        repeats = None
        data = responses(entries, length - 20, n_voxels, rng)
        if story == "wheretheressmoke":
            repeats = data + rng.standard_normal((n_repeats, *data.shape))
            data = repeats.mean(axis=0)
        write_hf5(derivative / "preprocessed_data" / subject / f"{story}.hf5", data, repeats)
    write_mask(derivative / "pycortex-db", subject, "thick", n_voxels)
    write_mask(derivative / "pycortex-db", subject, "cortical", n_voxels - 3)
    return root
