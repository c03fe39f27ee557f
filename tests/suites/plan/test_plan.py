from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from results.schema import IDENTITY, Arm
from suites.machine.cases import roof_cases, sentinel_case
from suites.parsing import parse_backend, parse_precision, parse_shard, parse_span
from suites.plan import (
    available_cores,
    cases,
    group,
    launch_budget_s,
    order,
    plan_sweep,
    series_id,
)
from suites.registry import suites
from suites.speed.presets import PRESETS
from suites.suite import BASE_ROUNDS

ARMS = (Arm("full"), Arm("longformer", {"window": 64}), Arm("longformer", {"window": 128}))


def quick(**chosen):
    return plan_sweep("quick", **{"backends": ARMS, **chosen})


# -- options ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "arm"),
    [
        ("full", Arm("full")),
        ("performer:num_features=256", Arm("performer", {"num_features": 256})),
        ("sdpa:kernel=math", Arm("sdpa", {"kernel": "math"})),
        ("full:dropout_p=0.1,scale=1e-2", Arm("full", {"dropout_p": 0.1, "scale": 0.01})),
        ("x:a=true,b=False,c=none,d=-3", Arm("x", {"a": True, "b": False, "c": None, "d": -3})),
        ("x:a=1e+5", Arm("x", {"a": 1e5})),
        (
            "longformer:window=64,dilation=1+1+2+2+4+4+8+8",
            Arm("longformer", {"window": 64, "dilation": [1, 1, 2, 2, 4, 4, 8, 8]}),
        ),
        ("x:a=one+2+true", Arm("x", {"a": ["one", 2, True]})),
        ("x:a=nan,b=inf", Arm("x", {"a": "nan", "b": "inf"})),
    ],
)
def test_backend_is_read_by_literal_form(text, arm):
    read = parse_backend(text)
    assert read == arm
    assert [type(v) for v in read.options.values()] == [type(v) for v in arm.options.values()]


@pytest.mark.parametrize(
    "text",
    ["", ":", "full:", "full:window", "full:=3", "full:window=", "full,sdpa", "a b", "full:a=1,",
     "full:1a=2"],
)  # fmt: skip
def test_backend_of_another_form_is_refused(text):
    with pytest.raises(ValueError, match="expected NAME"):
        parse_backend(text)


def test_option_given_twice_is_refused():
    with pytest.raises(ValueError, match="'window' stands twice"):
        parse_backend("longformer:window=1,window=2")


def test_identity_is_no_backend():
    with pytest.raises(ValueError, match=IDENTITY):
        parse_backend(IDENTITY)


values = st.one_of(
    st.booleans(),
    st.none(),
    st.integers(-(10**9), 10**9),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text("abcxyz_", min_size=1),
).filter(lambda v: v not in ("true", "false", "none"))


@given(st.dictionaries(st.from_regex(r"[a-z_]{1,9}", fullmatch=True), values, max_size=4))
def test_label_of_an_arm_reads_back_as_the_arm(options):
    arm = Arm("name", options)
    assert parse_backend(arm.label) == arm


@pytest.mark.parametrize("text", ["0/2", "3/2", "1", "a/b", "1/0", "-1/2", "1/2/3", ""])
def test_shard_of_another_form_is_refused(text):
    with pytest.raises(ValueError, match="expected i/n"):
        parse_shard(text)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("90s", 90), ("4m", 240), ("1h30m", 5400), ("2H", 7200), ("1m1.5s", 61.5)],
)
def test_span_of_time_is_read_as_seconds(text, seconds):
    assert parse_span(text) == seconds


@pytest.mark.parametrize("text", ["", "0", "0m", "-4m", "4 minutes", "m", "30s1m", "nan", "1e3"])
def test_span_of_another_form_is_refused(text):
    with pytest.raises(ValueError, match="expected a span of time as 4m"):
        parse_span(text)


# -- presets and cases --------------------------------------------------------------------------


def test_quick_preset_is_what_the_documentation_says():
    every = cases(quick())
    assert sorted({c.seq_len for c in every}) == [768, 1024, 1536, 2048, 4096]
    assert {c.level for c in every} == {"attention"}
    assert {c.mode for c in every} == {"forward", "training"}
    assert {(c.batch, c.num_heads, c.head_dim, c.dtype) for c in every} == {(1, 8, 64, "float32")}
    assert {c.threads for c in every} == {available_cores()}
    assert len(every) == len(ARMS) * 2 * 5


def test_larger_presets_reach_further_and_hold_the_smaller():
    quick_, standard, full = (set(PRESETS[n].seq_lens) for n in ("quick", "standard", "full"))
    assert quick_ < standard < full
    assert max(standard) == 16384
    assert max(full) > 65536
    assert PRESETS["standard"].launches >= 3


def test_kernels_compares_the_exact_kernels_on_any_device():
    cpu, cuda = (plan_sweep("kernels", device=device) for device in ("cpu", "cuda"))
    labels = ["sdpa", *(f"sdpa:kernel={k}" for k in ("flash", "cudnn", "efficient", "math"))]
    for grid in (cpu, cuda):
        assert [arm.label for arm in grid.backends] == [*labels, "xformers"]
    (shape,) = {
        (c.seq_len, c.batch, c.num_heads, c.head_dim, c.dtype, c.device) for c in cases(cuda)
    }
    assert shape == (16384, 4, 16, 64, "bfloat16", "cuda")
    assert {(c.seq_len, c.batch, c.dtype) for c in cases(cpu)} == {(1024, 1, "float32")}


def test_what_is_chosen_comes_before_what_a_preset_says():
    mine = (Arm("full"),)
    grid = plan_sweep("kernels", device="cuda", backends=mine, batches=(2,), dtypes=None)
    assert (grid.backends, grid.batches, grid.dtypes) == (mine, (2,), ("bfloat16",))
    assert plan_sweep("quick", backends=()).backends == ()


def test_unknown_preset_names_those_there_are():
    with pytest.raises(ValueError, match="quick, standard, full, scaling, million"):
        plan_sweep("fast")


def test_layer_and_block_cases_hold_the_identity_floor():
    every = cases(quick(levels=("attention", "layer", "block")))
    for case in every:
        names = [arm.name for arm in case.arms]
        assert names[1:] == ([] if case.level == "attention" else [IDENTITY])


def test_every_axis_of_the_grid_is_measured():
    grid = quick(
        seq_lens=(8, 4, 8), dtypes=("float32", "bfloat16"), batches=(1, 2), num_heads=(2, 4),
        head_dims=(8,), threads=(1, 2), allocators=("default", "retained"), is_causal=True,
    )  # fmt: skip
    every = cases(grid)
    assert len(every) == len({c.id for c in every}) == 3 * 2 * 2 * 2 * 2 * 2 * 2 * 2
    assert all(c.is_causal for c in every)


def test_only_float32_has_a_choice_of_precision():
    grid = quick(
        seq_lens=(8,), modes=("forward",), dtypes=("float32", "bfloat16"),
        matmul_precisions=("highest", "medium"), threads=(1,),
    )  # fmt: skip
    expected = {("float32", "highest"), ("float32", "medium"), ("bfloat16", "highest")}
    assert {(c.dtype, c.matmul_precision) for c in cases(grid)} == expected
    roofs = roof_cases(grid, single_thread=False)
    assert {(c.dtype, c.matmul_precision) for c in roofs} == expected
    assert len(roofs) == 3


def test_compiled_and_eager_cases_share_their_roofs():
    grid = quick(seq_lens=(8,), modes=("forward",), compiles=(False, True), threads=(1,))
    assert [c.compile for c in cases(grid)] == [False, True] * len(ARMS)
    assert len(roof_cases(grid, single_thread=False)) == 1


def test_scaling_preset_is_what_the_documentation_says():
    grid = plan_sweep("scaling")
    every = cases(grid)
    assert sorted({c.seq_len for c in every}) == [4096, 8192, 16384, 32768, 65536]
    assert {(c.arms[0].name, c.is_causal) for c in every} == {
        ("longformer", False), ("bigbird", False), ("linformer", False), ("performer", False),
        ("performer", True),
    }  # fmt: skip
    assert {c.mode for c in every} == {"forward"}
    assert grid.launches == 5
    assert len(every) == 25


def test_million_preset_is_what_the_documentation_says():
    every = cases(plan_sweep("million", threads=(1,)))
    longest = [c for c in every if c.seq_len == 2**20]
    assert max(c.seq_len for c in every) == 2**20
    assert {(c.arms[0].name, c.mode, c.is_causal) for c in longest} == {
        ("longformer", "forward", False), ("longformer", "training", False),
        ("performer", "forward", False), ("performer", "training", False),
        ("performer", "forward", True), ("performer", "training", True),
        ("linformer", "forward", False),
    }  # fmt: skip
    assert {(c.num_heads, c.head_dim, c.batch) for c in every} == {(1, 64, 1)}


def test_what_is_chosen_holds_for_the_picks_of_a_preset():
    arms = (Arm("performer", {"num_features": 64}), Arm("sdpa"))
    chosen = {"seq_lens": (8,), "threads": (1,)}
    ways = {
        (c.arms[0].label, c.mode, c.is_causal)
        for c in cases(plan_sweep("scaling", backends=arms, **chosen))
    }
    assert ways == {
        ("performer:num_features=64", "forward", False),
        ("performer:num_features=64", "forward", True),
        ("sdpa", "forward", False),
    }
    causal = cases(plan_sweep("scaling", is_causal=True, modes=("training",), **chosen))
    assert {(c.is_causal, c.mode) for c in causal} == {(True, "training")}
    assert len(causal) == 4
    everything = cases(plan_sweep("million", num_heads=(2,), backends=(), **chosen))
    assert {c.num_heads for c in everything} == {2}
    assert len(everything) == 7


# -- precision ----------------------------------------------------------------------------------


def test_presets_have_a_precision_of_their_own_and_launches_have_none():
    said = {name: (quick_of(name).precision, quick_of(name).within_s) for name in PRESETS}
    assert said["quick"] == (0.1, 240)
    assert said["standard"] == (0.1, 2400)
    assert said["full"] == (0.05, None)
    assert {said[name] for name in ("scaling", "million", "decode", "models")} == {(None, None)}
    fixed = quick(launches=5)
    assert (fixed.launches, fixed.precision, fixed.within_s) == (5, None, None)
    # Questions are asked after as many launches in every preset.
    chosen = quick_of("million", precision=0.2)
    assert (chosen.launches, chosen.precision, chosen.within_s) == (BASE_ROUNDS, 0.2, None)


def quick_of(preset, **chosen):
    return plan_sweep(preset, backends=ARMS, **chosen)


def test_launches_are_either_counted_or_chosen():
    with pytest.raises(ValueError, match=r"precision: .* no --launches beside it; got 10% and 3"):
        quick(precision=0.1, launches=3)


@pytest.mark.parametrize("suite", [one.name for one in suites() if one.name != "speed"])
def test_only_speed_asks_questions(suite):
    with pytest.raises(ValueError, match="precision: only with suite speed"):
        plan_sweep(None, suite=suite, precision=0.1)
    assert plan_sweep(None, suite=suite).precision is None


@pytest.mark.parametrize(("text", "share"), [("10%", 0.1), ("5", 0.05), (" 2.5 % ", 0.025)])
def test_precision_is_a_share_in_percent(text, share):
    assert parse_precision(text) == pytest.approx(share)


@pytest.mark.parametrize("text", ["", "0%", "-1%", "101%", "nan", "ten"])
def test_precision_of_another_form_is_refused(text):
    with pytest.raises(ValueError, match="expected a share in percent, above 0 to 100, as 10%"):
        parse_precision(text)


# -- order --------------------------------------------------------------------------------------


@given(seed=st.integers(0, 2**32), launches=st.integers(1, 3))
def test_order_holds_every_launch_once_shorter_lengths_first_in_the_first_round(seed, launches):
    grid = quick(seed=seed, launches=launches, threads=(2,))
    items = order(grid, cases(grid))
    speed = [i for i in items if i.case.kind == "speed"]
    assert len({(i.case.id, i.launch) for i in speed}) == len(speed) == launches * 30
    rounds = [i.launch for i in items if i.case.kind != "sentinel"]
    assert rounds == sorted(rounds)
    for _, part in itertools.groupby(
        sorted(
            [i for i in speed if i.launch == 0], key=lambda i: series_id(i.case)
        ),  # stable: keeps the order
        key=lambda i: series_id(i.case),
    ):
        lengths = [i.case.seq_len for i in part]
        assert lengths == sorted(lengths)


def test_order_is_the_same_again_and_another_in_each_launch():
    grid = quick(launches=2, seed=3)
    items = order(grid, cases(grid))
    assert items == order(grid, cases(grid))
    first, second = (
        [i.case.id for i in items if i.launch == n and i.case.kind == "speed"] for n in (0, 1)
    )
    assert first != second
    assert sorted(first) == sorted(second)


def test_each_round_begins_with_the_roofs_of_every_setting():
    grid = quick(launches=2, threads=(2,), allocators=("default", "retained"))
    items = order(grid, cases(grid))
    for launch in (0, 1):
        kinds = [i.case.kind for i in items if i.launch == launch and i.case.kind != "sentinel"]
        assert kinds == sorted(kinds)  # "roof" before "speed"
    roofs = [i for i in items if i.case.kind == "roof"]
    settings = {(i.case.allocator, i.case.threads) for i in roofs if i.launch == 1}
    assert settings == {("default", 2), ("retained", 2)}
    assert {i.case.threads for i in roofs if i.launch == 0} == {1, 2}
    assert len({c.id for c in roof_cases(grid, single_thread=False)}) == 2


# -- the sentinel -------------------------------------------------------------------------------


@settings(max_examples=20)
@given(
    num_lengths=st.integers(1, 20), launches=st.integers(1, 4),
    shard=st.sampled_from([(1, 1), (1, 2), (2, 2)]),
)  # fmt: skip
def test_sentinels_stand_at_the_ends_and_evenly_between(num_lengths, launches, shard):
    grid = quick(
        seq_lens=tuple(range(8, 8 + num_lengths)), launches=launches, threads=(1, 2), shard=shard
    )
    items = order(grid, cases(grid))
    assert items == order(grid, cases(grid))  # a resumed sweep asks for the same
    at = [i for i, item in enumerate(items) if item.case.kind == "sentinel"]
    others = len(items) - len(at)
    assert len(at) == max(4, min(21, others // 4))
    assert (at[0], at[-1]) == (0, len(items) - 1)
    assert [items[i].launch for i in at] == list(range(len(at)))
    assert all(items[i].case == sentinel_case(grid) for i in at)
    apart = [b - a for a, b in itertools.pairwise(at)]
    assert max(apart) - min(apart) <= 1


def test_the_sentinel_is_one_shape_with_the_most_threads_of_the_grid():
    grid = quick(threads=(1, 2), num_heads=(2,), dtypes=("bfloat16",), budget_s=0.05)
    case = sentinel_case(grid)
    assert (case.threads, case.dtype, case.num_heads, case.seq_len) == (2, "float32", 8, 512)
    assert launch_budget_s(grid, case) == launch_budget_s(grid, cases(grid)[0]) == 0.05
    assert launch_budget_s(quick(budget_s=1.0), case) == 0.1


@pytest.mark.parametrize("suite", [s.name for s in suites() if s.name != "peers"])
def test_every_suite_takes_a_sampling_time(suite):
    grid = plan_sweep(None, suite=suite, budget_s=0.03, backends=ARMS[:1] * (suite != "claims"))
    assert {launch_budget_s(grid, case) for case in cases(grid)} == {0.03}


# -- shards -------------------------------------------------------------------------------------


@given(st.integers(1, 8))
def test_shards_part_the_sweep_and_keep_series_whole(count):
    whole = cases(quick())
    shards = [cases(quick(shard=(i, count))) for i in range(1, count + 1)]
    assert sorted(c.id for part in shards for c in part) == sorted(c.id for c in whole)
    for part in shards:
        for key, series in group(part).items():
            assert series == group(whole)[key]


def test_empty_shard_measures_nothing():
    grid = quick(backends=ARMS[:1], modes=("forward",), shard=(2, 2))
    assert order(grid, cases(grid)) == []


def test_a_profile_is_of_the_run_and_not_of_its_cases():
    plain, profiled = (
        plan_sweep("quick", backends=(Arm("full"),), profile=profile) for profile in (False, True)
    )
    assert (plain.profile, profiled.profile) == (False, True)
    assert [c.id for c in cases(plain)] == [c.id for c in cases(profiled)]


# -- decode and whole models ---------------------------------------------------------------------


def test_decode_preset_is_what_the_documentation_says():
    grid = plan_sweep("decode", backends=ARMS)
    every = cases(grid)
    assert {c.mode for c in every} == {"decode"}
    assert all(c.is_causal for c in every)
    assert [c.seq_len for c in every[:7]] == [512, 1024, 2048, 4096, 8192, 16384, 32768]
    assert PRESETS["decode"].backends == ()


def test_a_decoder_is_causal_whatever_the_other_modes_are():
    grid = quick(modes=("forward", "decode"), compiles=(False, True), seq_lens=(512,))
    by_mode = {m: [c for c in cases(grid) if c.mode == m] for m in ("forward", "decode")}
    assert not any(c.is_causal for c in by_mode["forward"])
    assert all(c.is_causal and not c.compile for c in by_mode["decode"])
    assert len(by_mode["forward"]) == 2 * len(by_mode["decode"]) == 6


def test_models_preset_holds_parts_on_a_cpu_and_the_published_ones_on_a_gpu():
    on_cpu, on_gpu = (
        {c.model for c in cases(plan_sweep("models", backends=ARMS, device=device))}
        for device in ("cpu", "cuda")
    )
    assert on_cpu == {
        "bert-base:num_layers=3,vocab_size=7680",
        "gpt2-small:num_layers=3,vocab_size=12544",
        "bart-base:num_layers=2,vocab_size=16755",
    }
    assert on_gpu == {"bert-base", "gpt2-small", "bart-base"}


def test_a_model_case_has_its_floor_and_no_heads():
    grid = quick(
        levels=("model",), models=(Arm("gpt2-small", {"num_layers": 2}),), seq_lens=(512,),
        modes=("forward", "training", "decode"), checkpointings=(False, True),
    )  # fmt: skip
    every = cases(grid)
    assert all(c.arms[1] == Arm(IDENTITY) for c in every)
    assert {(c.num_heads, c.num_kv_heads, c.head_dim, c.is_causal) for c in every} == {
        (0, 0, 0, False)
    }
    found = {(c.mode, c.checkpointing) for c in every}
    assert found == {
        ("forward", False), ("training", False), ("training", True), ("decode", False)
    }  # fmt: skip
    assert all(c.model == "gpt2-small:num_layers=2" for c in every)


@pytest.mark.parametrize(
    ("chosen", "said"),
    [
        ({"checkpointings": (True,)}, "checkpointing: only level model in mode training"),
        ({"checkpointings": (True,), "levels": ("model",), "modes": ("forward",)},
         "checkpointing: only level model in mode training"),
        ({"models": (Arm("bert-base"),)}, "model: only with level model; got bert-base"),
        ({"levels": ("model",), "num_heads": (4,)}, "num-heads: a model has its own; got 4"),
        ({"levels": ("model",), "head_dims": (4,)}, "head-dim: a model has its own; got 4"),
        ({"levels": ("model",), "is_causal": True}, "causal: a model is causal or not by itself"),
        ({"compiles": (True,), "modes": ("decode",)}, "compile: a step of a decoder"),
        ({"suite": "peers", "modes": ("decode",)}, "mode: peers are measured in forward"),
    ],
)  # fmt: skip
def test_what_no_case_would_have_is_refused(chosen, said):
    with pytest.raises(ValueError, match=said):
        plan_sweep(None, **chosen)
