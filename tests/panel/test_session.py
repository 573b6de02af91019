"""Sessions, without a panel: one run at a time, cancelled within a second, found again, errors explained."""

import threading
import time
from dataclasses import replace

import pytest

from encoding_nb._progress import Cancelled, Progress
from encoding_nb.features import ModelError
from encoding_nb.panel import session as the_session
from encoding_nb.panel.session import LayerError, Session, same_data, session_named
from encoding_nb.settings import Settings

from ..pipeline.test_runs import RATE, assembly, result  # noqa: F401 - fixtures


def stepping(release, value="found"):
    def job(tell):
        while not release.wait(0.01):
            tell(Progress("ridge", 1, 2, 0.5))
        return value

    return job


def test_one_at_a_time_and_its_news_are_told(assembly):  # noqa: F811
    session, heard, release = Session(assembly), [], threading.Event()
    session.watch(lambda news, value: heard.append((news, value if news == "over" else None)))
    assert session.start("open", stepping(release)) and session.running
    assert not session.start("sweep", stepping(release)) and session.kind == "open"
    assert not session.join(0.05)
    release.set()
    assert session.join(10) and not session.running
    assert session.outcome == "done" and ("over", "found") in heard
    assert [news for news, _ in heard][-2:] == ["over", "idle"]


def test_a_step_that_takes_long_is_let_go_within_a_second_and_waited_for_by_the_next(assembly):  # noqa: F811
    session, release, ended = Session(assembly), threading.Event(), []

    def stuck(tell):
        tell(Progress("features", 0, 1, 0.0))
        release.wait(30)
        ended.append("old")
        tell(Progress("features", 1, 1, 0.5))

    def quick(tell):
        tell(Progress("features", 0, 1, 0.0))
        ended.append("new")
        return 1

    outcomes = []
    session.watch(lambda news, _: outcomes.append(session.outcome) if news == "over" else None)
    session.start("open", stuck)
    time.sleep(0.05)
    asked = time.monotonic()
    assert session.cancel()
    assert session.join(10) and time.monotonic() - asked < the_session.RELEASE_SECONDS + 5
    assert session.outcome == "cancelled" and not ended
    assert session.start("open", quick)
    assert not session.join(0.4), "the next run began beside the one that was let go"
    release.set()
    assert session.join(10) and ended == ["old", "new"]
    assert outcomes == ["cancelled", "done"], "what was let go is not heard any more"


def test_an_error_is_kept_and_the_next_run_forgets_it(assembly):  # noqa: F811
    def failing(tell):
        tell(Progress("ridge", 0, 1, 0.0))
        raise OSError("no space")

    session, release = Session(assembly), threading.Event()
    release.set()
    session.start("fit", failing)
    assert session.join(10) and session.outcome == "failed" and str(session.error) == "no space"
    session.start("open", stepping(release))
    assert session.join(10) and session.error is None


def test_a_watcher_that_fails_does_not_leave_the_run_open(assembly, caplog):  # noqa: F811
    session, release, others = Session(assembly), threading.Event(), []
    release.set()

    def watcher(news, value):
        if news == "over":
            raise ValueError("in the panel")

    session.watch(watcher)
    session.watch(lambda news, _: others.append(news))
    session.start("fit", stepping(release))
    assert session.join(10)
    assert not session.running and others[-2:] == ["over", "idle"] and "could not show" in caplog.text


def test_names_tell_panels_apart(assembly, monkeypatch):  # noqa: F811
    one = session_named("a name of this test", assembly, None)
    assert session_named("a name of this test", assembly, None) is one
    assert session_named("another name of this test", assembly, None) is not one
    assert session_named(None, assembly, None) is not session_named(None, assembly, None)
    # a cell that is run again finds its panel; two panels of one cell are two
    calls = iter([("cell", "m1"), ("cell", "m1"), ("cell", "m2"), ("cell", "m2"), ("other", "m3")])

    class Kernel:
        def get_parent(self, channel):
            cell, message = next(calls)
            return {"metadata": {"cellId": cell}, "header": {"msg_id": message}}

    monkeypatch.setattr("IPython.get_ipython", lambda: type("Shell", (), {"kernel": Kernel()})())
    first, second, again, second_again, elsewhere = (session_named(None, assembly, None) for _ in range(5))
    assert again is first and second_again is second
    assert len({id(session) for session in (first, second, elsewhere)}) == 3


def test_other_data_under_the_same_name_end_the_run(assembly):  # noqa: F811
    release = threading.Event()
    old = session_named("data of this test", assembly, None)
    old.start("fit", stepping(release))
    new = session_named("data of this test", replace(assembly, source="x"), None)
    assert new is not old
    assert old.join(10) and old.outcome == "cancelled"
    assert same_data(replace(assembly, source="x"), replace(assembly, source="x"))
    assert not same_data(replace(assembly), assembly)
    one, other = (replace(assembly, source="x", source_options={"subject": name}) for name in ("a", "b"))
    assert same_data(one, replace(one)) and not same_data(one, other)


def test_remembered_runs_keep_their_maps_and_not_their_time_courses(assembly, result):  # noqa: F811
    session = Session(assembly)
    for number in range(the_session.N_REMEMBERED + 3):
        session._remember(replace(result, provenance={"time": f"2026-01-01T00:00:{number:02}"}))
    assert (
        len(session.remembered) == the_session.N_REMEMBERED and "00:00:02 word rate" not in session.remembered
    )
    session._remember(replace(result, provenance={"time": "2026-01-01T00:00:10"}))
    assert list(session.remembered)[-1] == "00:00:10 word rate (2)"
    kept = session.remembered["00:00:10 word rate"]
    assert kept.scores is result.scores and not kept.predictions and not kept.measured


def ended(session, kind, value, settings=None, *, steps=()):
    """A run that tells these steps and returns the value, over and told."""

    def job(tell):
        for step in steps:
            tell(step)
        return value

    assert session.start(kind, job, settings) and session.join(10)


def test_a_result_keeps_its_data_when_others_are_opened(assembly, result):  # noqa: F811
    session, other = Session(assembly), replace(assembly, subject="other")
    ended(session, "fit", result, result.settings)
    ended(session, "open", other)
    assert session.assembly is other and session.fitted_on is assembly and session.run_assembly is assembly
    ended(session, "fit", result, result.settings)
    assert session.fitted_on is other


def test_each_fit_is_remembered_once_however_many_views_there_are(assembly, result):  # noqa: F811
    session, heard = Session(assembly), []

    def view(news, _):
        heard.append(news)

    session.watch(view)
    session.watch(lambda news, _: None)
    ended(session, "fit", result)
    assert len(session.remembered) == 1 and "over" in heard
    heard.clear()
    session.unwatch(view)
    ended(session, "fit", result)
    assert len(session.remembered) == 2 and not heard


def test_a_cancelled_sweep_leaves_its_layers(assembly, result):  # noqa: F811
    session, release = Session(assembly), threading.Event()
    layers = [replace(result, settings=replace(result.settings, modality="language_model", layer_idx=i))
              for i in range(3)]  # fmt: skip

    def sweep(tell):
        tell(layers[0])
        tell(layers[1])
        release.wait(10)
        tell(layers[2])

    heard = []
    session.watch(lambda news, value: heard.append(value) if news == "progress" else None)
    session.start("sweep", sweep, layers[0].settings)
    while len(session.layers) < 2:
        time.sleep(0.01)
    session.cancel()
    assert session.join(10) and session.outcome == "cancelled"
    release.set()
    session.released.join(10)
    assert list(session.layers) == [0, 1] and len(session.remembered) == 2 and len(heard) == 2
    assert not session.swept_whole and session.best is None


def test_the_best_layer_is_offered_until_something_else_is_fitted(assembly, result):  # noqa: F811
    settings = replace(result.settings, modality="language_model", layer_idx=0)
    found = {i: replace(result, settings=replace(settings, layer_idx=i)) for i in range(2)}
    session = Session(assembly)
    ended(session, "fit", found[0])
    ended(session, "sweep", found, settings, steps=found.values())
    assert session.swept_whole and session.best_layer.layers == (0, 1)
    ended(session, "fit", found[1], found[1].settings)
    assert session.best_layer is not None, "another layer of the same"
    ended(session, "open", replace(assembly))
    assert session.best_layer is not None and not session.layers, "the map still is of the data before"
    ended(session, "fit", found[1], found[1].settings)
    assert session.best_layer is None, "other data"
    ended(session, "sweep", found, settings)
    assert session.best_layer is not None
    ended(session, "fit", replace(result, settings=replace(settings, lookback=3)))
    assert session.best_layer is None, "other settings"


def test_a_run_that_ends_while_it_is_let_go_is_told_once(assembly, monkeypatch):  # noqa: F811
    session, told = Session(assembly), []

    def watcher(news, _):
        if news == "over":
            told.append(session.outcome)
            session._release(session._thread)  # as the timer of Cancel, in the midst of the end

    session.watch(watcher)
    ended(session, "open", assembly)
    assert told == ["done"] and session.released is None


def test_what_a_run_returns_cannot_leave_it_open(assembly):  # noqa: F811
    session = Session(assembly)
    ended(session, "fit", "no result")
    assert not session.running and session.outcome == "failed" and isinstance(session.error, AttributeError)


# ---------------------------------------------------------------------- cancelling


def test_cancel_ends_the_job_at_its_next_step_and_its_clean_up_runs(assembly):  # noqa: F811
    session, begun, closed = Session(assembly), threading.Event(), threading.Event()

    def job(tell):
        try:
            while True:
                begun.set()
                tell(Progress("ridge", 1, 2, 0.5))
                time.sleep(0.01)
        finally:
            closed.set()

    session.start("fit", job)
    assert begun.wait(10) and session.cancel() and session.join(10)
    assert session.outcome == "cancelled" and session.error is None and closed.wait(10)
    assert session.released is None, "it ended by itself"
    assert not session.cancel()


def test_cancel_passes_code_that_records_failures(assembly):  # noqa: F811
    """Such as a sweep, which goes on after a run that failed."""
    session, told, asked, failures = Session(assembly), threading.Event(), threading.Event(), []

    def job(tell):
        for _ in range(3):
            try:
                told.set()
                asked.wait(5)
                tell(Progress("ridge", 1, 2, 0.5))
            except Exception as error:  # noqa: BLE001 - what this is about
                failures.append(error)

    session.start("fit", job)
    assert told.wait(5) and session.cancel()
    asked.set()
    assert session.join(5) and session.outcome == "cancelled"
    assert not failures and not issubclass(Cancelled, Exception)


def test_a_cancel_after_the_last_step_leaves_the_result(assembly):  # noqa: F811
    session, last, asked = Session(assembly), threading.Event(), threading.Event()

    def job(tell):
        tell(Progress("ridge", 1, 2, 0.5))
        last.set()
        asked.wait(0.3)
        return replace(assembly, subject="all")

    session.start("open", job)
    assert last.wait(5) and session.cancel()
    asked.set()
    assert session.join(5)
    assert session.outcome == "done" and session.assembly.subject == "all"


# ---------------------------------------------------------------------- why a run failed


def explained(assembly, settings, error, *, kind="fit", stage="features"):  # noqa: F811
    """What a session says of a run that failed in a stage; the controls show other settings by then."""

    def job(tell):
        tell(Progress(stage, 0, 1, 0.0))
        raise error

    session = Session(assembly)
    assert session.start(kind, job, settings) and session.join(10)
    session.settings = Settings(model_name="another-model")
    return session.explanation()


def test_an_error_of_reading_a_model_names_the_model_and_another(assembly):  # noqa: F811
    text = explained(assembly, Settings(model_name="gpt2-large"), OSError("header too short"))
    assert "'features' failed (OSError: header too short)" in text
    assert "a model other than gpt2-large, such as 'demo'" in text


@pytest.mark.parametrize(
    ("settings", "stage"), [(RATE, "features"), (Settings(model_name="gpt2-large"), "ridge")]
)
def test_no_model_is_named_for_other_errors(assembly, settings, stage):  # noqa: F811
    text = explained(assembly, settings, ZeroDivisionError("division by zero"), stage=stage)
    assert f"{stage!r} failed (ZeroDivisionError: division by zero)" in text and "setting" in text
    assert "demo" not in text and "gpt2-large" not in text


def test_an_error_of_reading_data_is_explained(assembly):  # noqa: F811
    text = explained(assembly, None, KeyError("words"), kind="open")
    assert text.startswith("The data could not be read (KeyError: 'words'); choose other data")
    missing = FileNotFoundError(2, "No such file", "x.h5")
    assert explained(assembly, None, missing, kind="open") == "[Errno 2] No such file: 'x.h5'"


def test_a_model_that_cannot_be_loaded_leaves_another(assembly):  # noqa: F811
    error = ModelError("big: its model cannot be loaded; choose another.")
    layer = LayerError(f"Layer 0: ModelError: {error}")
    layer.__cause__ = error
    for raised in (error, layer):
        text = explained(assembly, RATE, raised)
        assert text.endswith("choose another. The bundled model 'demo' is always available.")


def test_messages_of_the_package_stay_and_memory_is_explained(assembly):  # noqa: F811
    assert explained(assembly, RATE, ValueError("3 voxels are flat")) == "3 voxels are flat"
    text = explained(assembly, RATE, MemoryError("Unable to allocate 8 GiB"))
    assert "Not enough memory (MemoryError: Unable to allocate 8 GiB); choose" in text


def test_the_best_layer_of_data_that_were_not_fitted_is_not_offered(assembly, result):  # noqa: F811
    """The maps on show are those of the last fit, of the data before."""
    settings = replace(result.settings, modality="language_model", layer_idx=0)
    found = {i: replace(result, settings=replace(settings, layer_idx=i)) for i in range(2)}
    session = Session(assembly)
    ended(session, "fit", found[0])
    ended(session, "open", replace(assembly))
    ended(session, "sweep", found, settings)
    assert session.best is not None and session.best_layer is None
    ended(session, "fit", found[1], found[1].settings)
    assert session.best_layer is session.best
