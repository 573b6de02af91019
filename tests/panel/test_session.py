"""Runs that outlive their panel: one at a time, let go within a second, found again."""

import threading
import time
from dataclasses import replace

from encoding_nb._progress import Progress
from encoding_nb.panel import runs as the_runs
from encoding_nb.panel.background import Latest
from encoding_nb.panel.known_runs import runs_named, same_data
from encoding_nb.panel.layer_sweep import LayerDone
from encoding_nb.panel.runs import Runs

from ..pipeline.test_runs import assembly, result  # noqa: F401 - fixtures


def stepping(release, value="found"):
    def job(tell):
        while not release.wait(0.01):
            tell(Progress("ridge", 1, 2, 0.5))
        return value

    return job


def test_one_at_a_time_and_its_news_are_told(assembly):  # noqa: F811
    runs, heard, release = Runs(assembly), [], threading.Event()
    runs.watch(lambda news, value: heard.append((news, value if news == "over" else None)))
    assert runs.start("open", stepping(release)) and runs.running
    assert not runs.start("sweep", stepping(release)) and runs.kind == "open"
    assert not runs.join(0.05)
    release.set()
    assert runs.join(10) and not runs.running
    assert runs.outcome == "done" and ("over", "found") in heard
    assert [news for news, _ in heard][-2:] == ["over", "idle"]


def test_a_step_that_takes_long_is_let_go_within_a_second_and_waited_for_by_the_next(assembly):  # noqa: F811
    runs, release, ended = Runs(assembly), threading.Event(), []

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
    runs.watch(lambda news, _: outcomes.append(runs.outcome) if news == "over" else None)
    runs.start("open", stuck)
    time.sleep(0.05)
    asked = time.monotonic()
    assert runs.cancel()
    assert runs.join(10) and time.monotonic() - asked < the_runs.LET_GO_SECONDS + 5
    assert runs.outcome == "cancelled" and not ended
    assert runs.start("open", quick)
    assert not runs.join(0.4), "the next run began beside the one that was let go"
    release.set()
    assert runs.join(10) and ended == ["old", "new"]
    assert outcomes == ["cancelled", "done"], "what was let go is not heard any more"


def test_an_error_is_kept_and_the_next_run_forgets_it(assembly):  # noqa: F811
    def failing(tell):
        tell(Progress("ridge", 0, 1, 0.0))
        raise OSError("no space")

    runs, release = Runs(assembly), threading.Event()
    release.set()
    runs.start("fit", failing)
    assert runs.join(10) and runs.outcome == "failed" and str(runs.error) == "no space"
    runs.start("open", stepping(release))
    assert runs.join(10) and runs.error is None


def test_a_watcher_that_fails_does_not_leave_the_run_open(assembly, caplog):  # noqa: F811
    runs, release, others = Runs(assembly), threading.Event(), []
    release.set()

    def watcher(news, value):
        if news == "over":
            raise ValueError("in the panel")

    runs.watch(watcher)
    runs.watch(lambda news, _: others.append(news))
    runs.start("fit", stepping(release))
    assert runs.join(10)
    assert not runs.running and others[-2:] == ["over", "idle"] and "could not show" in caplog.text


def test_names_tell_panels_apart(assembly, monkeypatch):  # noqa: F811
    one = runs_named("a name of this test", assembly, None)
    assert runs_named("a name of this test", assembly, None) is one
    assert runs_named("another name of this test", assembly, None) is not one
    assert runs_named(None, assembly, None) is not runs_named(None, assembly, None)
    # a cell that is run again finds its panel; two panels of one cell are two
    calls = iter([("cell", "m1"), ("cell", "m1"), ("cell", "m2"), ("cell", "m2"), ("other", "m3")])

    class Kernel:
        def get_parent(self, channel):
            cell, message = next(calls)
            return {"metadata": {"cellId": cell}, "header": {"msg_id": message}}

    monkeypatch.setattr("IPython.get_ipython", lambda: type("Shell", (), {"kernel": Kernel()})())
    first, second, again, second_again, elsewhere = (runs_named(None, assembly, None) for _ in range(5))
    assert again is first and second_again is second
    assert len({id(runs) for runs in (first, second, elsewhere)}) == 3


def test_other_data_under_the_same_name_end_the_run(assembly):  # noqa: F811
    release = threading.Event()
    old = runs_named("data of this test", assembly, None)
    old.start("fit", stepping(release))
    new = runs_named("data of this test", replace(assembly, source="x"), None)
    assert new is not old
    assert old.join(10) and old.outcome == "cancelled"
    assert same_data(replace(assembly, source="x"), replace(assembly, source="x"))
    assert not same_data(replace(assembly), assembly)


def test_remembered_runs_keep_their_maps_and_not_their_time_courses(assembly, result):  # noqa: F811
    runs = Runs(assembly)
    for number in range(the_runs.N_REMEMBERED + 3):
        runs.remember(replace(result, provenance={"time": f"2026-01-01T00:00:{number:02}"}))
    assert len(runs.remembered) == the_runs.N_REMEMBERED and "00:00:02 wordrate" not in runs.remembered
    runs.remember(replace(result, provenance={"time": "2026-01-01T00:00:10"}))
    assert list(runs.remembered)[-1] == "00:00:10 wordrate (2)"
    kept = runs.remembered["00:00:10 wordrate"]
    assert kept.scores is result.scores and not kept.predictions and not kept.measured


def ended(runs, kind, value, settings=None, *, steps=()):
    """A run that tells these steps and returns the value, over and told."""

    def job(tell):
        for step in steps:
            tell(step)
        return value

    assert runs.start(kind, job, settings) and runs.join(10)


def test_a_result_keeps_its_data_when_others_are_opened(assembly, result):  # noqa: F811
    runs, other = Runs(assembly), replace(assembly, subject="other")
    ended(runs, "fit", result, result.settings)
    ended(runs, "open", other)
    assert runs.assembly is other and runs.fitted_on is assembly and runs.run_assembly is assembly
    ended(runs, "fit", result, result.settings)
    assert runs.fitted_on is other


def test_each_fit_is_remembered_once_however_many_views_there_are(assembly, result):  # noqa: F811
    runs, heard = Runs(assembly), []

    def view(news, _):
        heard.append(news)

    runs.watch(view)
    runs.watch(lambda news, _: None)
    ended(runs, "fit", result)
    assert len(runs.remembered) == 1 and "over" in heard
    heard.clear()
    runs.unwatch(view)
    ended(runs, "fit", result)
    assert len(runs.remembered) == 2 and not heard


def test_a_cancelled_sweep_leaves_its_layers(assembly, result):  # noqa: F811
    runs, release = Runs(assembly), threading.Event()
    layers = [replace(result, settings=replace(result.settings, modality="language_model", layer_idx=i))
              for i in range(3)]  # fmt: skip

    def sweep(tell):
        tell(LayerDone(0, layers[0], 0.1))
        tell(LayerDone(1, layers[1], 0.2))
        release.wait(10)
        tell(LayerDone(2, layers[2], 1.0))

    heard = []
    runs.watch(lambda news, value: heard.append(value) if news == "progress" else None)
    runs.start("sweep", sweep, layers[0].settings)
    while len(runs.layers) < 2:
        time.sleep(0.01)
    runs.cancel()
    assert runs.join(10) and runs.outcome == "cancelled"
    release.set()
    runs._leaving.join(10)
    assert list(runs.layers) == [0, 1] and len(runs.remembered) == 2 and len(heard) == 2
    assert not runs.swept_whole and runs.best is None


def test_the_best_layer_is_offered_until_something_else_is_fitted(assembly, result):  # noqa: F811
    settings = replace(result.settings, modality="language_model", layer_idx=0)
    found = {i: replace(result, settings=replace(settings, layer_idx=i)) for i in range(2)}
    runs = Runs(assembly)
    ended(runs, "fit", found[0])
    ended(runs, "sweep", found, settings, steps=[LayerDone(i, r, 0.5) for i, r in found.items()])
    assert runs.swept_whole and runs.best_layer.layers == (0, 1)
    ended(runs, "fit", found[1], found[1].settings)
    assert runs.best_layer is not None, "another layer of the same"
    ended(runs, "open", replace(assembly))
    assert runs.best_layer is not None and not runs.layers, "the map still is of the data before"
    ended(runs, "fit", found[1], found[1].settings)
    assert runs.best_layer is None, "other data"
    ended(runs, "sweep", found, settings)
    assert runs.best_layer is not None
    ended(runs, "fit", replace(result, settings=replace(settings, lookback=3)))
    assert runs.best_layer is None, "other settings"


def test_a_run_that_ends_while_it_is_let_go_is_told_once(assembly, monkeypatch):  # noqa: F811
    runs, told = Runs(assembly), []

    def watcher(news, _):
        if news == "over":
            told.append(runs.outcome)
            runs._let_go(runs._worker)  # as the timer of Cancel, in the midst of the end

    runs.watch(watcher)
    ended(runs, "open", assembly)
    assert told == ["done"] and runs._leaving is None


def test_what_a_run_returns_cannot_leave_it_open(assembly):  # noqa: F811
    runs = Runs(assembly)
    ended(runs, "fit", "no result")
    assert not runs.running and runs.outcome == "failed" and isinstance(runs.error, AttributeError)


def test_the_latest_request_wins():
    done, begun, go = [], threading.Event(), threading.Event()

    def work(number):
        begun.set()
        go.wait(10)
        done.append(number)

    latest = Latest(work)
    latest.ask(1)
    begun.wait(10)
    for number in (2, 3, 4):
        latest.ask(number)
    go.set()
    assert latest.join(10) and done == [1, 4]
