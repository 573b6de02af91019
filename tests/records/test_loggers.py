"""Loggers: what they wrote is read back; what fails loses nothing; what cannot be is said before a fit."""

import json
import struct
import sys
from dataclasses import replace
from importlib.machinery import PathFinder
from importlib.util import find_spec

import numpy as np
import pytest

from encoding_nb.brain import SHIPPED, voxel_count
from encoding_nb.records import check_logger, list_runs, loggers, save_and_log, save_run
from encoding_nb.records.loggers import LoggerError, log_run, read_log
from encoding_nb.scoring import summarise

from .test_records import make_result

SCALARS = {"median_correlation", "n_significant_voxels", "v1_mean", "v1_median", "v1_n_significant"}
HISTOGRAMS = {"correlation_histogram_data_all", "correlation_histogram_data_significant"}


@pytest.fixture(scope="module")
def result():
    return make_result(n_voxels=200)


@pytest.fixture(scope="module")
def record(result, tmp_path_factory):
    return save_run(result, tmp_path_factory.mktemp("results"), run_name="named")


@pytest.fixture
def offline(monkeypatch):
    """wandb as after WANDB_MODE=offline; its settings are read once per process, so they are read anew."""
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    wandb.teardown()
    yield wandb
    wandb.teardown()


def test_what_is_no_record_is_refused(result):
    with pytest.raises(ValueError, match="log_run: expected the path of a folder, got a Result"):
        read_log(result)


def test_a_record_holds_all_that_is_logged(result, record):
    log = read_log(record)
    assert log.name == "named" and set(log.scalars) == SCALARS
    assert log.scalars["median_correlation"] == pytest.approx(result.metrics["median_score"])
    assert log.scalars["v1_mean"] == pytest.approx(result.scores[result.rois["V1"]].mean())
    assert set(log.images) == {"stories", "alphas"}
    finite = result.scores[np.isfinite(result.scores)]
    np.testing.assert_array_equal(log.histograms["correlation_histogram_data_all"], finite)
    assert log.config["modality"] == "wordrate" and log.config["trimming.train_features_start"] == 10
    given = read_log(record, metrics={"median_score": 0.25, "std_score": 1})
    assert given.scalars["median_correlation"] == 0.25 and given.scalars["std_correlation"] == 1


def test_a_run_that_is_not_tested_logs_nothing_about_significance(tmp_path):
    untested = make_result(n_voxels=200, tested=False, use_train_test_split=False)
    log = read_log(save_run(untested, tmp_path, figures=False))
    assert set(log.scalars) == {"median_correlation", "v1_mean", "v1_median"}
    assert set(log.histograms) == {"correlation_histogram_data_all"}
    assert log.config["test"] == untested.test_name and untested.test_name.startswith("not tested")
    assert read_log(save_run(make_result(), tmp_path, figures=False)).config["test"] == "permutation test"


def test_a_single_alpha_is_a_scalar(result, tmp_path):
    single = replace(
        result, settings=replace(result.settings, single_alpha=True), best_alphas=np.full(200, 9.0)
    )
    path = save_run(single, tmp_path, figures=False)
    assert read_log(path).scalars["best_alpha"] == 9.0
    assert read_log(path, metrics={"best_alphas": [3.0] * 200}).scalars["best_alpha"] == 3.0


def test_tensorboard_holds_scalars_images_histograms_and_settings(result, record, tmp_path):
    pytest.importorskip("tensorboard")
    from io import BytesIO

    from PIL import Image
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    check_logger("tensorboard")
    folder = log_run(record, backend="tensorboard", logs_dir=tmp_path)
    assert folder == tmp_path / "runs" / "named"
    events = EventAccumulator(str(folder), size_guidance={"images": 0})
    events.Reload()
    tags = events.Tags()
    assert set(tags["scalars"]) == SCALARS and set(tags["images"]) == {"stories", "alphas"}
    assert set(tags["histograms"]) == HISTOGRAMS
    assert events.Scalars("median_correlation")[0].value == pytest.approx(result.metrics["median_score"])
    assert events.Histograms("correlation_histogram_data_all")[0].histogram_value.num == 199
    with (
        Image.open(record / "stories.png") as saved,
        Image.open(BytesIO(events.Images("stories")[0].encoded_image_string)) as logged,
    ):
        np.testing.assert_array_equal(np.asarray(logged), np.asarray(saved.convert("RGB")))
    text = events.Tensors("config/text_summary")[0].tensor_proto.string_val[0].decode()
    assert '"modality": "wordrate"' in text
    # a second run of the same name is not mixed with the first
    assert log_run(record, backend="tensorboard", logs_dir=tmp_path).name == "named_2"
    assert (
        log_run(record, backend="tensorboard", logs_dir=tmp_path, run_name="../a b").parent
        == tmp_path / "runs"
    )


def read_wandb(path):
    """The records of a .wandb file: LevelDB's log format (github.com/google/leveldb, doc/log_format.md) with a
    header of 7 bytes, each record a protocol buffer."""
    from wandb.proto import wandb_internal_pb2

    data = path.read_bytes()
    assert data[:4] == b":W&B"
    position, parts, records = 7, [], []
    while position < len(data):
        left = 32768 - position % 32768
        if left < 7:
            position += left
            continue
        length, kind = struct.unpack("<HB", data[position + 4 : position + 7])
        parts.append(data[position + 7 : position + 7 + length])
        position += 7 + length
        if kind in (1, 4):  # a whole record, or the last piece of one
            records.append(wandb_internal_pb2.Record.FromString(b"".join(parts)))
            parts = []
    return records


def logged_by_wandb(records):
    """{name: value} of a run's one step; items of an image or a histogram come one by one, their names a path."""
    (history,) = (record.history for record in records if record.WhichOneof("record_type") == "history")
    logged = {}
    for item in history.item:
        *outer, last = item.nested_key or [item.key]
        place = logged
        for name in outer:
            place = place.setdefault(name, {})
        place[last] = json.loads(item.value_json)
    return logged


def test_an_offline_wandb_run_holds_scalars_images_histograms_and_settings(
    result, record, tmp_path, offline, capfd
):
    check_logger("wandb")
    folder = log_run(record, backend="wandb", logs_dir=tmp_path, project="of-a-test")
    assert folder.parent == tmp_path / "wandb" and folder.name.startswith("offline-run-")
    offline.teardown()  # the process beside this one that writes the file has then ended
    records = read_wandb(next(folder.glob("*.wandb")))
    kinds = [record.WhichOneof("record_type") for record in records]
    assert kinds.count("history") == 1 and "exit" in kinds
    run = records[kinds.index("run")].run
    assert run.project == "of-a-test" and run.display_name == "named"
    config = {item.key: json.loads(item.value_json) for item in run.config.update}
    assert config["modality"] == "wordrate" and config["record"] == record.name
    logged = logged_by_wandb(records)
    assert logged["median_correlation"] == pytest.approx(result.metrics["median_score"])
    assert set(logged) >= SCALARS | HISTOGRAMS | {"stories", "alphas"}
    assert sum(logged["correlation_histogram_data_all"]["values"]) == 199
    for name in ("stories", "alphas"):
        assert logged[name]["_type"] == "image-file"
        assert (folder / "files" / logged[name]["path"]).read_bytes() == (record / f"{name}.png").read_bytes()
    captured = capfd.readouterr()
    assert "wandb" not in captured.out + captured.err, "wandb was to be silent"


def test_a_run_that_is_open_stays_open(record, tmp_path, offline):
    run = offline.init(project="mine", dir=str(tmp_path))
    log_run(record, backend="wandb", logs_dir=tmp_path)
    run.log({"still": 1})
    run.finish()


def test_no_logger_writes_nothing(result, tmp_path):
    for backend in ("none", None):
        check_logger(backend)
        path = save_and_log(result, tmp_path, backend=backend, figures=False)
        assert [p.name for p in tmp_path.iterdir()] == [path.name]


# --- the flatmap, and the scalars of a whole run ----------------------------------------------------------


@pytest.fixture(scope="module")
def mapped(tmp_path_factory):
    """The record of a result on the demo's cortex, with the metrics that a run has."""
    n = voxel_count(SHIPPED)
    base = make_result(n_voxels=n)
    metrics = summarise(base.scores, base.significant)
    made = replace(base, surface=SHIPPED, rois={}, voxel_names=None, metrics=metrics)
    return made, save_run(made, tmp_path_factory.mktemp("mapped"), run_name="mapped")


def assert_is_the_flatmap(content, record):
    """A picture of the cortex, as saved: it has its size, and the colours of a map and not of one shade."""
    from io import BytesIO

    from PIL import Image

    with Image.open(BytesIO(content)) as logged, Image.open(record / "flatmap.png") as saved:
        pixels = np.asarray(logged.convert("RGB"))
        np.testing.assert_array_equal(pixels, np.asarray(saved.convert("RGB")))
    assert pixels.shape[1] > 500 and len(np.unique(pixels.reshape(-1, 3), axis=0)) > 50


def test_tensorboard_holds_the_flatmap_and_the_whole_runs_scalars(mapped, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    result, record = mapped
    folder = log_run(record, backend="tensorboard", logs_dir=tmp_path)
    events = EventAccumulator(str(folder), size_guidance={"images": 0})
    events.Reload()
    assert set(events.Tags()["images"]) == {"flatmap", "stories", "alphas"}
    assert_is_the_flatmap(events.Images("flatmap")[0].encoded_image_string, record)
    finite = result.scores[np.isfinite(result.scores)]
    for name, value in (("mean_correlation", finite.mean()), ("std_correlation", finite.std())):
        assert events.Scalars(name)[0].value == pytest.approx(value, rel=1e-5)
    assert events.Scalars("n_significant_voxels")[0].value == result.significant.sum()


def test_an_offline_wandb_run_holds_the_flatmap_and_the_whole_runs_scalars(mapped, tmp_path, offline):
    result, record = mapped
    folder = log_run(record, backend="wandb", logs_dir=tmp_path)
    offline.teardown()
    logged = logged_by_wandb(read_wandb(next(folder.glob("*.wandb"))))
    assert_is_the_flatmap((folder / "files" / logged["flatmap"]["path"]).read_bytes(), record)
    finite = result.scores[np.isfinite(result.scores)]
    assert logged["mean_correlation"] == pytest.approx(finite.mean())
    assert logged["std_correlation"] == pytest.approx(finite.std())


# --- what fails -------------------------------------------------------------------------------------------


def test_a_logger_that_fails_leaves_the_record(result, tmp_path, monkeypatch):
    def fail(log, logs_dir, project):
        raise ConnectionError("no route")

    monkeypatch.setitem(loggers.BACKENDS, "tensorboard", fail)
    with pytest.warns(
        UserWarning, match=r"saved in .*tensorboard failed \(ConnectionError: no route\).*log_run"
    ):
        path = save_and_log(result, tmp_path, backend="tensorboard", figures=False)
    assert list(list_runs(tmp_path)["status"]) == ["whole"] and path.is_dir()


@pytest.mark.parametrize("package", ["tensorboard", "wandb"])
def test_a_logger_that_is_not_installed(monkeypatch, package):
    monkeypatch.setattr(loggers, "find_spec", lambda name: None)
    with pytest.raises(LoggerError, match=rf'not installed; run pip install "encoding_nb\[{package}\]"'):
        check_logger(package)


@pytest.mark.parametrize("package", ["tensorboard", "wandb"])
def test_a_folder_of_a_loggers_name_is_no_logger(monkeypatch, tmp_path, package):
    """Weights & Biases leaves a folder wandb/ where it ran, which Python would import as a package without code."""
    (tmp_path / package).mkdir()
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.setattr(sys, "meta_path", [PathFinder])
    for name in [name for name in sys.modules if name.split(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    assert find_spec(package) is not None
    with pytest.raises(LoggerError, match="not installed; run pip install"):
        check_logger(package)


def test_an_unknown_logger():
    with pytest.raises(ValueError, match=r"Unknown logger 'mlflow'; choose one of none, tensorboard, wandb"):
        check_logger("mlflow")


def test_wandb_without_login_is_refused_before_it_could_ask(monkeypatch, tmp_path, record):
    wandb = pytest.importorskip("wandb")
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path))
    monkeypatch.setattr(wandb, "init", lambda **options: pytest.fail("wandb was started"))
    wandb.teardown()
    try:
        with pytest.raises(LoggerError, match=r"no login here: run `wandb login`.*WANDB_MODE=offline"):
            check_logger("wandb")
        with pytest.raises(LoggerError, match="no login"):
            log_run(record, backend="wandb")
        # with a key where wandb keeps it, there is one
        host = wandb.setup().settings.base_url.removeprefix("https://")
        (tmp_path / "netrc").write_text(f"machine {host} login user password {'0' * 40}\n")
        check_logger("wandb")
    finally:
        wandb.teardown()
