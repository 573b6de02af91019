"""Settings: what they may hold, and that everything else is refused under its own name before any work."""

import json
import os
from dataclasses import fields, replace
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from joblib import Memory

from encoding_nb import brain, features, ridge
from encoding_nb.assembly import Assembly, Surface
from encoding_nb.design import Trimming
from encoding_nb.features import activations
from encoding_nb.pipeline import check, estimates, partitioning, plan_run, runs, sample_story, split_stories
from encoding_nb.ridge import make_folds
from encoding_nb.settings import Settings, SettingsError

from .test_runs import RATE, TRIM, make_story

NESTED = {"use_train_test_split": False}
FITS = replace(RATE, trimming=TRIM)  # 3 training stories of 60 rows, a test story of 55
MODEL = replace(FITS, modality="language_model", layer_idx=2, lookback=8)
NAN = float("nan")


@pytest.fixture(scope="module")
def assembly():
    stories = {name: make_story(name, seed) for seed, name in enumerate(("storya", "storyb", "storyc"))}
    stories["storyz"] = make_story("storyz", 9, repeats=4)
    return Assembly("S", 2.0, stories, test_stories=("storyz",))


def test_good_settings_have_nothing_against_them(assembly):
    assert check(assembly, FITS) == {}
    assert check(assembly, MODEL) == {}
    assert check(assembly, replace(FITS, **NESTED)) == {}


REFUSED = [
    ({"downsample_window": 0}, "downsample_window must be .* 1 or more, got 0"),
    ({"downsample_window": NAN}, "got nan"),
    ({"downsample_window": 2.5}, "got 2.5"),
    ({"cutoff_mult": 0}, "cutoff_mult must be .* above 0, got 0"),
    ({"cutoff_mult": -1.0}, "got -1.0"),
    ({"cutoff_mult": NAN}, "got nan"),
    ({"cutoff_mult": "1"}, "got '1'"),
    ({"downsample_method": "gabor"}, "got 'gabor'; .* design.downsample"),
    ({"downsample_method": ["lanczos"]}, r"lanczos, .* got \['lanczos'\]"),
    ({"fir_delays": (1, 1.5)}, r"whole numbers, each once, got \(1, 1.5\)"),
    ({"fir_delays": ("1",)}, r"got \('1',\)"),
    ({"fir_delays": "12"}, r"got \('12',\)"),
    ({"fir_delays": ()}, r"one or more delays .* got \(\)"),
    ({"fir_delays": (1, 999)}, "shorter than every story, got 999 TRs where storyz keeps 55"),
    ({"fir_delays": (-55,)}, "got -55 TRs where storyz keeps 55"),
    ({"fir_delays": (1, -55)}, "got -55 TRs where storyz keeps 55"),
    ({"n_inner_folds": 0}, "whole number of 2 or more, got 0"),
    ({"n_inner_folds": 2.5}, "got 2.5"),
    ({"n_inner_folds": "x"}, "got 'x'"),
    ({"n_inner_folds": 60}, "180 rows make 36 chunks|60 folds need", "chunk_length"),
    ({"n_inner_folds": 4, "folding_type": "group"}, r"3 groups are too few for 4 folds: use at most 3"),
    ({"chunk_length": 0}, "whole number of 1 or more, got 0"),
    ({"chunk_length": 10.5}, "got 10.5"),
    ({"chunk_length": 59, "n_inner_folds": 6}, "a fold with 1 rows to score"),
    ({"chunk_length": 60}, "make 3 chunks, too few for 5 folds"),
    ({"seed": -1}, "whole number of 0 or more, got -1"),
    ({"seed": "x"}, "got 'x'"),
    ({"seed": 1.5}, "got 1.5"),
    ({"n_permutations": 10.5}, "whole number of 19 or more, got 10.5"),
    ({"n_permutations": "x"}, "got 'x'"),
    ({"block_trs": 2.5}, "got 2.5"),
    ({"block_trs": 19}, "55 held-out rows in blocks of 19 TRs make 3; choose a block of at most 18 TRs"),
    ({"device": "tpu"}, "one of auto, cpu, cuda, got 'tpu'"),
    ({"device": "gpu"}, "got 'gpu'"),
    ({"alphas": ("a",)}, r"finite numbers above 0, got \('a',\)"),
    ({"alphas": (1.0, NAN)}, "finite numbers above 0"),
    ({"alphas": (1.0, float("inf"))}, "finite numbers above 0"),
    ({"alphas": ()}, r"got \(\)"),
    ({"prediction_floor": NAN}, "0 or more, got nan"),
    ({"prediction_floor": "x"}, "got 'x'"),
    ({"fdr_q": "x"}, "between 0 and 1, got 'x'"),
    ({"fdr_q": NAN}, "between 0 and 1, got nan"),
    ({"single_alpha": "no"}, "True or False, got 'no'"),
    ({"use_train_test_split": 0}, "True or False, got 0"),
    (
        {"trimming": "lebel"},
        r"a Trimming, got 'lebel'; .* trimming=TRIMMINGS\[\"lebel\"\], .* none, lebel, alice",
    ),
    ({"chunk_length": 10**30}, "of 1 or more, got a number that is too large"),
    ({"cutoff_mult": 10**400}, "finite multiple .* got a number that is too large"),
    ({"prediction_floor": 10**400}, "finite number .* got a number that is too large"),
    ({"fdr_q": Decimal("0.05")}, r"between 0 and 1, got Decimal\('0.05'\)"),
    ({"stories": ("storya", "storya")}, "story names, each once"),
    ({"stories": (3,)}, r"got \(3,\)"),
    ({"stories": "x"}, "Story 'x' is not in this assembly"),
    ({"test_stories": "z2"}, "Story 'z2' is not in this assembly"),
    ({"modality": None}, "one of language_model, .* got None"),
    ({"joined_with": None}, "feature spaces among .* got None"),
    ({**NESTED, "n_outer_folds": 0}, "whole number of 2 or more, got 0", "n_outer_folds"),
    ({**NESTED, "n_outer_folds": 1}, "got 1", "n_outer_folds"),
    (
        {**NESTED, "outer_folding_type": "kfold", "n_outer_folds": 100000},
        "100000 folds need at least 200000 rows, got 240",
        "n_outer_folds",
    ),
    (
        {**NESTED, "outer_folding_type": "halves"},
        "None or one of chunked, .*, got 'halves'",
        "outer_folding_type",
    ),
    ({**NESTED, "outer_gap": -1.0}, "seconds of 0 or more, or None, got -1.0", "outer_gap"),
    (
        {**NESTED, "outer_folding_type": "kfold", "stories": ("storya",), "n_inner_folds": 3},
        r"leaves a fold 0 of 60 rows to train on: use a shorter gap",
        "outer_gap",
    ),
    (
        {**NESTED, "outer_folding_type": "kfold", "stories": ("storya",), "outer_gap": 44.0},
        r"Expected 10 rows or more to train on in each outer fold, got 4 of 60, since 44 s \(22 rows\) on both sides",
        "outer_gap",
    ),
    (
        {
            **NESTED,
            "outer_folding_type": "kfold",
            "stories": ("storya",),
            "outer_gap": 30.0,
            "chunk_length": 20,
        },
        r"Inner folds within outer fold . of 5, which leaves out 30 s on both sides .* \(outer_gap\): "
        r"18 rows make 1 chunks, too few for 5 folds",
        "chunk_length",
    ),
    ({"high_pass": 0.0}, "a period in seconds above 0, or None, got 0.0; the usual value is 128"),
    (
        {"high_pass": 0.01},
        r"Expected a high_pass of 20 s \(10 TRs\) or more, got 0.01, .* for a cut-off of 0.01 Hz, set",
    ),
    ({"high_pass": 111.0}, "shorter than every story, got 111 s where storyz keeps 55 rows, 110 s"),
    ({"modality": "extras"}, r"names of arrays in Story.extras, each once, got \(\)", "extras"),
    (
        {"modality": "extras", "extras": "motion"},
        "storya: expected 'motion' in its extras, got no arrays",
        "extras",
    ),
    ({"modality": "time", "time_sigma": 0.0}, "a number of TRs above 0, got 0.0", "time_sigma"),
    ({"weights": "random"}, "one of trained, untrained, got 'random'", "weights"),
    ({"significance": "shift", "n_shifts": 5}, "whole number of 19 or more, got 5", "n_shifts"),
    (
        {"significance": "shift", "least_shift": -3.0},
        "a number of seconds above 0, or None, got -3.0",
        "least_shift",
    ),
    ({**NESTED, "n_outer_folds": "5"}, "got '5'", "n_outer_folds"),
    (
        {**NESTED, "folding_type": "kfold", "n_outer_folds": 2, "n_inner_folds": 100},
        "Inner folds within outer fold . of 2: 100 folds need at least 200 rows, got 120",
        "n_inner_folds",
    ),
    (
        {**NESTED, "folding_type": "group", "n_outer_folds": 4, "n_inner_folds": 4},
        "Inner folds within outer fold . of 4: 3 groups are too few for 4 folds: use at most 3",
        "n_inner_folds",
    ),
    (
        {**NESTED, "outer_folding_type": "group", "n_outer_folds": 5},
        "4 groups are too few for 5 folds",
        "n_outer_folds",
    ),
    ({**NESTED, "stories": ()}, "There is no story to fit", "stories"),
]


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: str(case[0])[:60])
def test_refused_under_its_own_name(assembly, case, monkeypatch):
    change, says, field = case if len(case) == 3 else (*case, next(iter(case[0])))
    monkeypatch.setattr(features, "joined_features", lambda *a, **k: pytest.fail("work was begun"))
    settings = replace(FITS, **change)
    assert list(check(assembly, settings)) == [field]
    with pytest.raises(SettingsError, match=says) as raised:
        runs.run(assembly, settings, progress=False)
    assert raised.value.field == field
    assert str(raised.value).endswith(".") and "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"model_name": None}, "a Hugging Face name or a local folder, got None; the bundled model 'demo'"),
        ({"model_name": " "}, "got ' '"),
        ({"layer_idx": "3"}, "whole number of 0 or more, got '3'"),
        ({"layer_idx": True}, "got True"),
        ({"layer_idx": 99}, "Layer 99 is out of range: demo has layers 0"),
        ({"last_token": "False"}, "True or False, got 'False'"),
        ({"lookback": 2.5}, "whole number of 1 or more, got 2.5"),
        ({"lookback": 10**6}, "does not fit demo"),
        ({"stride": "x"}, "a whole number of tokens .* got 'x'"),
        ({"processing": None}, "one of raw, litcoder, got None"),
        ({"context_type": ("fullcontext",)}, r"fullcontext, .* got \('fullcontext',\)"),
        ({"use_stored_contexts": True}, "storya: expected stored windows of type 'fullcontext', got none"),
        ({"embedding": 3}, "a file of word vectors, or None for the model's input embedding, got 3"),
    ],
    ids=str,
)
def test_a_language_models_settings_are_refused_too(assembly, change, says):
    (field,) = change
    problems = check(assembly, replace(MODEL, **change))
    assert list(problems) == [field]
    with pytest.raises(AssertionError, match=says):
        raise AssertionError(problems[field])


def test_what_is_not_used_may_be_out_of_range(assembly):
    unused = replace(
        FITS, n_outer_folds=0, layer_idx=-1, lookback=0, stride=0, significance="parametric", block_trs=0,
        n_permutations=0, downsample_method="sum", downsample_window=0, cutoff_mult=NAN,
    )  # fmt: skip
    assert check(assembly, unused) == {}
    assert list(check(assembly, replace(unused, n_outer_folds="x"))) == ["n_outer_folds"]


def test_cuda_without_a_gpu_is_refused(assembly, monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    problems = check(assembly, replace(FITS, device="cuda"))
    assert list(problems) == ["device"] and "torch finds no GPU here" in problems["device"]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert check(assembly, replace(FITS, device="cuda")) == {}


@pytest.mark.parametrize("n_rows", [0, 1])
def test_a_story_of_which_one_row_is_left_is_refused(assembly, n_rows):
    for part, story in (("test", "storyz"), ("train", "storya")):
        trimming = Trimming(**{f"{p}_{what}_{end}": (0 if end == "start" else n if p == part else 50)
                               for p in ("train", "test") for n in [n_rows]
                               for what in ("features", "targets") for end in ("start", "end")})  # fmt: skip
        problems = check(assembly, replace(FITS, trimming=trimming))
        assert list(problems) == ["trimming"]
        assert problems["trimming"].startswith(story)


def test_stored_windows_leave_lookback_and_stride_unused():
    stories = {}
    for seed, name in enumerate(("storya", "storyb", "storyz")):
        story = make_story(name, seed)
        stories[name] = replace(story, contexts={"fullcontext": story.words.text})
    assembly = Assembly("S", 2.0, stories, test_stories=("storyz",))
    stored = replace(MODEL, use_stored_contexts=True, lookback=6000)
    assert check(assembly, stored) == {}
    assert list(check(assembly, replace(stored, use_stored_contexts=False))) == ["lookback"]
    only_some = {**stories, "storyb": replace(stories["storyb"], contexts=None)}
    problems = check(replace(assembly, stories=only_some), stored)
    assert list(problems) == ["use_stored_contexts"] and problems["use_stored_contexts"].startswith("storyb")


NASTY = [
    None, True, -1, 0, 1, 10**12, 2.5, NAN, float("inf"), -float("inf"), "", "x", "3", "\0", "x" * 300, "a/b/c",
    "\ud800", b"x", (), ("a",), (None,), (NAN,), ((1,),), [], [[1]], {}, {"a": 1}, {1, 2}, object(), 1j, np.nan,
    10**30, 10**400, 10**5000, (10**400,), (10**5000,), Fraction(1, 3), Decimal("NaN"),
    np.array([1, 2]), np.array([[1.0]]), np.float32("nan"), Path("nowhere"), np.datetime64("2020-01-01"),
]  # fmt: skip


@pytest.mark.parametrize("name", [f.name for f in fields(Settings)])
@pytest.mark.parametrize(
    "base", [FITS, MODEL, replace(MODEL, **NESTED, context_type="strided")], ids=("rate", "model", "nested")
)
def test_check_never_raises(assembly, name, base, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    known = {f.name for f in fields(Settings)}
    for value in NASTY:
        try:
            settings = replace(base, **{name: value})
        except (TypeError, ValueError):
            continue  # refused when it was made
        for field, sentence in check(assembly, settings).items():
            assert field in known and isinstance(sentence, str) and sentence, value


def test_a_test_story_among_the_stories_is_not_trained_on(assembly):
    both = replace(FITS, stories=("storya", "storyb", "storyz"), test_stories=("storyz", "storyb"))
    split = split_stories(assembly, both)
    assert (split.train, split.test) == (("storya",), ("storyb", "storyz"))
    assert check(assembly, both) == {}


def test_one_name_is_one_name():
    settings = Settings(stories="storya", test_stories="z2", joined_with="wordrate")
    assert (settings.stories, settings.test_stories) == (("storya",), ("z2",))
    assert settings.joined_with == ("wordrate",)
    with pytest.raises(TypeError, match=r"fir_delays must be a sequence, got 4; write \(4,\)"):
        Settings(fir_delays=4)


def test_numbers_of_numpy_and_paths_go_through_json():
    given = Settings(
        layer_idx=np.int64(2),
        fir_delays=np.arange(1, 4),
        alphas=np.logspace(0, 2, 3),
        single_alpha=np.bool_(True),
        cutoff_mult=np.float32(0.5),
        seed=np.uint8(3),
        stories=np.array(["a", "b"]),
        embedding=Path("vectors.txt"),
        trimming=Trimming(train_features_start=np.int64(3)),
    )
    again = Settings.from_json(given.to_json())
    assert again == given and hash(again) == hash(given)
    plain = json.loads(given.to_json())
    assert (plain["layer_idx"], plain["fir_delays"], plain["alphas"]) == (2, [1, 2, 3], [1.0, 10.0, 100.0])
    assert plain["stories"] == ["a", "b"] and plain["single_alpha"] is True
    assert [f.name for f in fields(Settings)] == list(plain)


def test_folds_are_those_of_make_folds(assembly):
    def same(found, expected):
        assert [f.test.tolist() for f in found] == [f.test.tolist() for f in expected]
        assert [f.train.tolist() for f in found] == [f.train.tolist() for f in expected]

    settings = replace(FITS, n_inner_folds=3, n_outer_folds=4, seed=7)
    plan = plan_run(assembly, replace(settings, stories=("storya", "storyb"), test_stories=("storyz",)))
    assert plan.groups.tolist() == [0] * 60 + [1] * 60 and not plan.outer_folds
    same(plan.inner_folds[0], make_folds(120, n_folds=3, chunk_length=5, groups=plan.groups, seed=7))
    plan = plan_run(assembly, replace(settings, **NESTED))
    same(plan.outer_folds, make_folds(240, folding_type="group", n_folds=4, groups=plan.groups))
    assert len(plan_run(assembly, replace(settings, **NESTED, n_outer_folds=9)).outer_folds) == 4  # stories
    one = plan_run(assembly, replace(settings, **NESTED, stories="storya", outer_gap=20.0))
    same(one.outer_folds, make_folds(60, folding_type="kfold", n_folds=4, gap=10))
    plan = plan_run(assembly, replace(settings, **NESTED, outer_folding_type="chunked"))
    same(plan.outer_folds, make_folds(240, n_folds=4, chunk_length=5, groups=plan.groups, seed=7))
    for outer, inner in zip(plan.outer_folds, plan.inner_folds, strict=True):
        groups = plan.groups[outer.train]
        same(inner, make_folds(len(groups), n_folds=3, chunk_length=5, groups=groups, seed=7))


def test_a_plan_has_the_kept_rows_of_each_story(assembly):
    plan = plan_run(assembly, FITS)
    assert [story.name for story in plan.train] == ["storya", "storyb", "storyc"]
    assert [story.name for story in plan.test] == ["storyz"]
    for story in plan.stories:
        grid, bold = np.arange(story.n_trs), np.arange(story.n_rows)
        test = story in plan.test
        kept = TRIM.features(grid, test=test), TRIM.targets(bold, test=test)
        np.testing.assert_array_equal(grid[plan.feature_rows[story.name]], kept[0])
        np.testing.assert_array_equal(bold[plan.bold_rows[story.name]], kept[1])
        assert plan.n_kept[story.name] == len(kept[0]) == len(kept[1])
    assert not plan.missing and plan.shape.n_rows == len(plan.groups) == 180


def test_a_plan_raises_what_check_finds_and_check_looks_at_the_smallest_outer_folds(assembly, monkeypatch):
    several = replace(FITS, fdr_q=7.0, layer_idx="x", alphas=())
    with pytest.raises(SettingsError) as raised:
        plan_run(assembly, several)
    assert raised.value.field == next(iter(check(assembly, several))) and len(check(assembly, several)) > 1
    made, true = [], ridge.make_folds
    monkeypatch.setattr(ridge, "make_folds", lambda *a, **o: made.append(o["n_folds"]) or true(*a, **o))
    many = replace(
        FITS,
        **NESTED,
        folding_type="kfold",
        outer_folding_type="kfold",
        outer_gap=0.0,
        n_outer_folds=80,
        n_inner_folds=3,
    )
    assert check(assembly, many) == {} and len(made) == 51
    made.clear()
    assert len(plan_run(assembly, many).inner_folds) == 80 and len(made) == 81


def test_a_spec_says_what_a_setting_of_another_kind_is():
    spec = activations.ActivationSpec("demo", lookback=8, last_token="False", storage=["x"])
    problems = activations.check_spec(spec, layer_idx="3")
    assert "Expected the layer as a whole number, got '3'; demo has layers 0" in problems["layer_idx"]
    assert "got 'False'" in problems["last_token"] and "Unknown storage ['x']" in problems["storage"]


def test_by_default_phases_are_shuffled_and_few_rows_are_refused(assembly):
    assert Settings().block_trs is None
    assert Settings(**json.loads(Settings().to_json())).block_trs is None
    seven = replace(FITS, trimming=replace(TRIM, test_features_start=63, test_targets_start=53))
    found = check(assembly, seven)
    assert list(found) == ["significance"] and "8 held-out rows or more, got 7" in found["significance"]
    assert check(assembly, replace(seven, significance="parametric")) == {}
    eight = replace(FITS, trimming=replace(TRIM, test_features_start=62, test_targets_start=52))
    assert check(assembly, eight) == {}


def test_large_alphas_are_alphas(assembly):
    assert check(assembly, replace(FITS, alphas=[10**k for k in range(0, 21, 4)])) == {}


@pytest.mark.parametrize(
    "call", [check, runs.run, estimates.estimate, partitioning.partition], ids=lambda call: call.__name__
)
def test_what_is_no_assembly_or_no_settings_is_refused_by_name(assembly, call):
    name = call.__name__
    with pytest.raises(
        TypeError, match=rf"^{name}: expected an Assembly, got 'demo'; write {name}\(load_assem"
    ):
        call("demo", FITS)
    with pytest.raises(
        TypeError, match=rf"^{name} needs a Settings object, got a mapping; write Settings\(\*\*{{'mo"
    ):
        call(assembly, {"modality": "wordrate"})
    with pytest.raises(TypeError, match=rf"^{name} needs a Settings object, got an Assembly. "):
        call(assembly, assembly)


def test_a_fraction_becomes_a_number_that_json_can_hold(assembly):
    settings = replace(FITS, fdr_q=Fraction(1, 20), alphas=(Fraction(1, 2), 3))
    assert (settings.fdr_q, settings.alphas) == (0.05, (0.5, 3))
    assert Settings.from_json(settings.to_json()) == settings and check(assembly, settings) == {}


def test_a_path_in_the_home_folder_is_written_out():
    settings = Settings(model_name="~/model", embedding="~/vectors.txt")
    assert settings.model_name == os.path.expanduser("~/model") != "~/model"
    assert settings.embedding == os.path.expanduser("~/vectors.txt")


def test_a_trimming_of_unknown_names_lists_the_known_ones():
    with pytest.raises(
        ValueError, match=r"unknown names start; the known names are train_features_start, .*test_targets_end"
    ):
        Settings(trimming={"start": 5})
    assert Settings(trimming={"train_features_start": 5}).trimming == Trimming(train_features_start=5)


def test_a_name_in_place_of_a_file_of_vectors_says_how_a_models_own_are_had(assembly):
    problems = check(assembly, replace(FITS, modality="embeddings", embedding="demo"))
    assert (
        "at 'demo'; check the path, or leave embedding=None, which takes the input" in problems["embedding"]
    )


def test_too_few_rows_for_a_parametric_test_are_refused_before_the_fit(assembly):
    two = replace(TRIM, test_features_start=68, test_targets_start=58)
    settings = replace(FITS, trimming=two, fir_delays=(1,), significance="parametric")
    says = "storyz (test story): trimming keeps 2 rows, and p-values need 3 or more"
    assert check(assembly, settings)["trimming"].startswith(says)
    three = replace(two, test_features_start=67, test_targets_start=57)
    assert check(assembly, replace(settings, trimming=three)) == {}
    more = replace(assembly, test_stories=("storyc", "storyz"))
    assert check(more, settings) == {}


def test_words_are_missing_until_a_model_has_read_them(demo, tmp_path):
    train, test = list(demo.stories)[:2]
    one = Settings(stories=(train, test), test_stories=(test,), layer_idx=1, lookback=4)
    elsewhere = Memory(tmp_path, verbose=0)

    def missing(settings, memory=elsewhere):
        return plan_run(demo, settings, memory=memory).missing

    words = {name: len(demo.stories[name].words) for name in (train, test)}
    assert missing(one) == words
    plan = plan_run(demo, one, memory=elsewhere)
    for story, left in zip(plan.stories, ({test: words[test]}, {}), strict=True):
        sample_story(plan, story)
        assert missing(one) == left
    assert missing(replace(one, layer_idx=2)) == {}, "all layers are kept"
    assert missing(replace(one, lookback=5)) == words
    assert missing(replace(one, modality="wordrate"), Memory(tmp_path / "empty", verbose=0)) == {}


def test_the_settings_of_a_language_model_all_reach_its_specification():
    how = {
        "lookback": 9,
        "context_type": "strided",
        "stride": 4,
        "last_token": False,
        "processing": "litcoder",
    }
    given = Settings(model_name="demo", layer_idx=2, use_stored_contexts=True, **how)
    assert given.feature_specs == {
        "language_model": features.FeatureSpec(
            activation=features.ActivationSpec("demo", **how), layer_idx=2, use_stored_contexts=True
        )
    }


def test_the_default_alphas_are_those_of_the_feature_space():
    """Those of word rate are for it alone; a space with more columns decides where it is joined."""
    wide, narrow = np.logspace(2, 6, 7), np.logspace(-2, 4, 7)
    for modality, joined, grid in (
        ("language_model", (), wide),
        ("embeddings", (), wide),
        ("wordrate", (), narrow),
        ("wordrate", ("language_model",), wide),
        ("embeddings", ("wordrate",), wide),
    ):
        settings = Settings(modality=modality, joined_with=joined)
        assert settings.alphas is None and settings.alpha_grid == tuple(grid)
    assert Settings(modality="wordrate", alphas=(3.0,)).alpha_grid == (3.0,)
    assert Settings.from_json(Settings().to_json()).alphas is None


def test_a_surface_of_another_size_is_found_before_the_fit(assembly, tmp_path):
    settings = FITS
    other = replace(assembly, surface=brain.SHIPPED)
    problem = check(other, settings)["surface"]
    assert f"21229 voxels of mask 'demo' of S1/fullhead, got {assembly.n_voxels} columns" in problem
    with pytest.raises(
        SettingsError, match=r"got .* columns, so brain maps and regions would be wrong"
    ) as raised:
        plan_run(other, settings)
    assert raised.value.field == "surface"
    nowhere = replace(assembly, surface=Surface("nobody", "none", "none", str(tmp_path)))
    assert "surface" not in check(nowhere, settings)
    with pytest.warns(UserWarning, match="No brain map of this fit can be drawn"):
        plan_run(nowhere, settings)
