"""Building: any order, any number of crashes, the same bytes."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from nasbed.methods import registry
from nasbed.protocols import Architecture
from nasbed.protocols.training import PIPELINES, fit_from_seed, load, load_test, training_flops
from nasbed.tabular import builder, open_table
from nasbed.tabular.buckets import Bucket, pilot_rows, rows
from nasbed.tabular.builder import Spec, plan
from nasbed.tabular.shards import Shard, load_shard, save
from nasbed.tabular.spec import fidelity

TEXT = """
name = "tiny"
space = "mlp[hidden=1;widths=8,16;dropout=no]"
data = "digits"
pipelines = ["adam", "sgd_cosine"]
seeds = 2
"""


def arrays(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*.npy"))}


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "spec.toml"
    path.write_text(text)
    return path


def test_the_table_holds_every_training(built: Path, spec: Spec) -> None:
    table = open_table(built, verify=True)
    assert table.coverage == "complete"
    assert table.clock == "flops"
    assert table.seeds == (0, 1, 2, 3, 4)
    assert table.pipelines == {"adam": PIPELINES["adam"]}
    assert table.array("valid.adam").shape == (8, 5, 10)
    assert not (built / "shards").exists()
    assert sorted(arrays(built)) == [
        "cost.adam.npy", "feature.flops.npy", "feature.macs.npy", "feature.params.npy",
        "sealed/test.adam.npy", "train.adam.npy", "valid.adam.npy",
    ]  # fmt: skip
    (made,) = table.manifest["trained"]["machines"]
    assert made["trainer"] == "stacked"
    assert made["software"]["torch"] == torch.__version__
    assert made["seconds"] > 0
    assert table.manifest["pilot"]["adam"]["architectures"] == 8


def test_an_entry_is_what_the_reference_trainer_gives(built: Path) -> None:
    table, view = open_table(built), load("digits")
    a, seed = table.space.parse("16-elu"), 3
    network, evaluate = table.space.build(a, view.task), {"valid": view.valid, "test": load_test("digits")}
    _, correct = fit_from_seed(network, a, seed, view.train, evaluate, PIPELINES["adam"])
    row = table.row(a)
    for split in ("train", "valid"):
        assert np.abs(table.array(f"{split}.adam")[row, seed].astype(int) - correct[split]).max() <= 1
    sealed = np.load(built / "sealed" / "test.adam.npy")[row, seed]
    assert np.abs(sealed.astype(int) - correct["test"]).max() <= 1


def test_costs_and_features_of_every_row(built: Path) -> None:
    table, view = open_table(built), load("digits")
    for row in range(8):
        a = table.space.at(row)
        network = table.space.build(a, view.task)
        counted = training_flops(network, view.task, PIPELINES["adam"], len(view.train), len(view.valid))
        assert table.array("cost.adam")[row] == counted
        assert table.array("feature.params")[row] == sum(p.numel() for p in network.parameters())
        assert table.array("feature.flops")[row] == table.space.features(a, view.task)["flops"]


def test_buckets_keep_their_keys_and_order() -> None:
    """Shards are found again by their keys, and never those of other data or of a changed pipeline."""
    spec = Spec("x", "mlp[hidden=2;widths=8,16;dropout=no]", "digits", ("sgd_cosine",), 5)
    found = plan(spec, None)
    assert [b.key for b in found] == [b.key for b in plan(spec, None)]
    changed = replace(PIPELINES["sgd_cosine"], learning_rate=0.05)
    others = [
        replace(found[0], digests=(d, p)) for d, p in (("", found[0].digests[1]), (found[0].digests[0], changed.digest))
    ]
    assert len({b.key for b in (*found, *others)}) == len(found) + 2
    assert found[0].digests == (load("digits").task.digest, PIPELINES["sgd_cosine"].digest)


def test_buckets_partition_the_trainings_into_equal_widths() -> None:
    spec = Spec("x", "mlp[hidden=2;widths=8,16;dropout=no]", "digits", ("adam", "sgd_cosine"), 3, bucket=10)
    planned = plan(spec, None)
    space, task = registry.space(spec.space), load("digits").task
    for name in spec.pipelines:
        members = [m for b in planned if b.pipeline == name for m in b.members]
        assert len(members) == len(set(members)) == space.size * 3
    for bucket in planned:
        assert len(bucket.members) <= 10
        built = [space.build(Architecture("mlp", g), task) for g, _ in bucket.members]
        shapes = {tuple(p.shape for p in n.parameters()) for n in built}
        assert len(shapes) == 1
        flops = training_flops(built[0], task, PIPELINES[bucket.pipeline], 800, 398)
        assert bucket.flops == flops * len(bucket.members) * PIPELINES[bucket.pipeline].epochs


def test_the_pilot_comes_first_then_seed_after_seed() -> None:
    """So that a build that has no time for all seeds is one of fewer seeds, its shards still good."""
    spec = Spec("x", "mlp[hidden=2;widths=8,16,32;dropout=no]", "digits", ("adam",), 3, bucket=12)
    planned, space = plan(spec, None), registry.space(spec.space)
    order = [(not b.pilot, b.members[0][1]) for b in planned]
    assert order == sorted(order)
    seen = [m for b in planned if b.pilot for m in b.members]
    assert len(pilot_rows(spec)) == 48
    assert sorted(seen) == sorted((space.at(i).genes, s) for i in pilot_rows(spec) for s in (0, 1))
    fewer = {b.key for b in plan(replace(spec, seeds=2), None)}
    assert {b.key for b in planned if b.pilot} <= fewer


def test_a_key_is_of_content_alone() -> None:
    bucket = Bucket("s", "d", None, "+all", "", (((1, 2), 0),), (1, 2), 0.0, False, 5.0, ("a", "b"))
    same = replace(bucket, data_root="/elsewhere", device="cuda", pilot=True, flops=6.0)
    assert bucket.key == same.key
    changes = ({"space": "t"}, {"data": "e"}, {"fidelity": "data=0.5"}, {"members": (((1, 2), 1),)},
               {"recorded": (2,)}, {"fgsm": 0.1}, {"latency": True}, {"digests": ("a", "c")})  # fmt: skip
    assert len({replace(bucket, **change).key for change in changes} | {bucket.key}) == len(changes) + 1


def test_the_order_of_buckets_does_not_matter(built: Path, spec: Spec, tmp_path: Path) -> None:
    def backwards(function, buckets):
        return map(function, reversed(buckets))

    done: list[tuple[float, float]] = []
    builder.build(spec, tmp_path / "other", run=backwards, progress=lambda a, b: done.append((a, b)))
    assert arrays(tmp_path / "other") == arrays(built)
    assert done[0][0] == 0
    assert done[-1][0] == done[-1][1]
    assert open_table(tmp_path / "other").digest == open_table(built).digest


KILLED = """
import os, random, signal, sys, time
from pathlib import Path
import torch
torch.set_num_threads(1)
from nasbed.tabular import builder, format, shards

space = "mlp[hidden=1;widths=8,16;activations=relu,elu;dropout=no]"
spec = builder.Spec("tiny", space, "digits", ("adam",), 2, bucket=2)
folder = Path(sys.argv[1])
builder.build(spec, folder.with_name("undisturbed"))


def child(doom):
    # Forked, so that torch is imported once; a build here shares nothing else with the others.
    pid = os.fork()
    if pid == 0:
        doom()
        builder.build(spec, folder)
        os._exit(0)
    return pid


def at_call(module, name, count):
    calls, original = [], getattr(module, name)

    def doomed(*a, **k):
        calls.append(1)
        if len(calls) == count:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*a, **k)

    setattr(module, name, doomed)


def torn():
    def half(file, **arrays):
        file.write(b"PK")
        file.flush()
        os.kill(os.getpid(), signal.SIGKILL)

    shards.np.savez = half


started = time.perf_counter()
folder = folder.with_name("timed")
assert os.waitpid(child(lambda: None), 0)[1] == 0
usual = time.perf_counter() - started
folder = Path(sys.argv[1])
rng, anywhere = random.Random(int(sys.argv[2])), int(sys.argv[3])
deaths = [
    lambda: at_call(shards.os, "replace", 1),     # the first shard is written, not yet named
    torn,                                          # in the middle of a shard
    *[None] * anywhere,                            # anywhere
    lambda: at_call(format.np, "save", 3),         # arrays half written
]
while deaths:
    pid = child(deaths[0] or (lambda: None))
    if deaths[0] is None:
        time.sleep(rng.uniform(0.0, usual / 2))
        os.kill(pid, signal.SIGKILL)
    status = os.waitpid(pid, 0)[1]
    if os.WIFSIGNALED(status):
        print("killed with", len(list((folder / "shards").glob("*.npz"))), "shards")
        del deaths[0]
    else:  # it was done before: another build is killed in its place
        assert status == 0
        folder = folder.with_name(folder.name + "+")
assert os.waitpid(child(lambda: None), 0)[1] == 0
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("anywhere", [2, pytest.param(17, marks=pytest.mark.slow)])
def test_a_build_killed_again_and_again_ends_with_the_same_bytes(tmp_path: Path, anywhere: int) -> None:
    folder = tmp_path / "killed"
    command = [sys.executable, "-W", "ignore", "-c", KILLED, str(folder), "0", str(anywhere)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    ran = subprocess.run(command, capture_output=True, text=True, timeout=280, env=environment, check=False)
    assert ran.returncode == 0, ran.stderr
    deaths = ran.stdout.splitlines()
    assert len(deaths) == anywhere + 3
    assert len(set(deaths)) > 2  # at different places
    whole = arrays(tmp_path / "undisturbed")
    assert len(whole) == 7
    for again in tmp_path.glob("killed*"):
        assert arrays(again) == whole
        assert not list(again.rglob("*.part"))
        assert open_table(again, verify=True).digest == open_table(tmp_path / "undisturbed").digest


def test_a_finished_folder_is_not_trained_again(built: Path, spec: Spec) -> None:
    def never(function, buckets):
        raise AssertionError("trained although the table is there")

    with pytest.raises(ValueError, match="holds a table already"):
        builder.build(spec, built, run=never)


@pytest.mark.parametrize(
    "damage", [lambda b: b"", lambda b: b[: len(b) // 2], lambda b: b[:90] + bytes([b[90] ^ 1]) + b[91:]]
)
def test_a_damaged_shard_is_named(tmp_path: Path, damage) -> None:
    small = Spec("one", "mlp[hidden=1;widths=8;activations=relu;dropout=no]", "digits", ("adam",), 1)
    (bucket,) = plan(small, None)
    shards = tmp_path / "t" / "shards"
    shards.mkdir(parents=True)
    counts = {s: np.zeros((1, 10), np.uint16) for s in ("train", "valid", "test")}
    path = shards / f"{bucket.key}.npz"
    save(path, Shard(bucket, counts, {"seconds": 1.0, "hardware": "here"}))
    loaded = load_shard(path, bucket)
    assert loaded.made == {"seconds": 1.0, "hardware": "here"}
    assert all((loaded.arrays[s] == counts[s]).all() for s in counts)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=f"shard: .*{bucket.key}.npz is damaged .*delete it") as error:
        builder.build(small, tmp_path / "t")
    assert "\n" not in str(error.value)
    path.unlink()
    assert open_table(builder.build(small, tmp_path / "t")).array("valid.adam").max() > 0


def test_pilot_tells_architectures_from_seeds(spec: Spec, built: Path, tmp_path: Path) -> None:
    found = builder.pilot(spec, tmp_path)
    assert set(found) == {"adam"}
    assert found["adam"]["architectures"] == 8
    assert 2 <= found["adam"]["working"] <= 8
    assert found["adam"]["sd_architectures"] > 0
    assert found["adam"]["sd_seeds"] > 0
    assert open_table(built).manifest["pilot"] == found
    trained = []
    builder.build(spec, tmp_path, run=lambda f, todo: (trained.extend(todo), map(f, todo))[1])
    assert {s for b in trained for _, s in b.members} == {2, 3, 4}  # the pilot's trainings are not done again
    assert arrays(tmp_path) == arrays(built)
    with pytest.raises(ValueError, match="seeds: a pilot compares two"):
        builder.pilot(Spec("x", spec.space, "digits", ("adam",), 1), tmp_path)


def test_what_counts_as_learned() -> None:
    task = load("python_docs").task  # 64 tokens
    text = np.array([[8.0, 8.0], [16.0, 32.0], [63.0, 63.0], [np.inf, 9.0]])
    assert builder._gains(text, task) / np.log(2) == pytest.approx([3.0, 1.5, 0.02, -np.inf], abs=0.01)
    error = replace(task, kind="regression", classes=None)
    assert builder._gains(text[[0, 1, 3]], error) / np.log(2) == pytest.approx([1.5, 0.0, -np.inf])


def test_the_verdict_of_a_pilot() -> None:
    good = {"working": 9, "seed_to_seed_spearman": 0.9, "sd_architectures": 0.03, "sd_seeds": 0.01}
    assert builder.verdict({"p": good}) is None
    assert "Spearman is 0.79" in builder.verdict({"p": good, "q": {**good, "seed_to_seed_spearman": 0.79}})
    assert "Spearman is nan" in builder.verdict({"p": {**good, "seed_to_seed_spearman": float("nan")}})
    assert "only 1 of 4" in builder.verdict({"p": {"working": 1, "architectures": 4}})
    assert "deviate by 0.01," in builder.verdict({"p": {**good, "sd_architectures": 0.01}})


def test_parts_of_several_machines_are_merged(spec: Spec, built: Path, tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    assert builder.build(spec, here, part=(1, 2)) is None
    assert builder.build(spec, there, part=(2, 2)) is None
    mine, theirs = ({p.name for p in (f / "shards").iterdir()} for f in (here, there))
    assert mine
    assert theirs
    assert not mine & theirs
    for path in (there / "shards").iterdir():
        path.rename(here / "shards" / path.name)
    assert builder.build(spec, here, run=lambda f, todo: [f(b) for b in todo if pytest.fail("all was there")]) == here
    assert arrays(here) == arrays(built)
    assert open_table(here).digest == open_table(built).digest


CELLS = Spec(
    "cells", "nb201[ops=none,nor_conv_1x1;channels=2;cells=1]", "digits", ("quick", "mixed"), 2, sample=5,
    fidelities=("data=0.5", "width=0.5", "depth=0.333333"), every_epoch=("quick",), fgsm=0.05, latency=True, bucket=4,
)  # fmt: skip


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    base = replace(PIPELINES["+cosine"], name="quick", epochs=3, batch_size=200)
    mixed = replace(PIPELINES["+mixup"], name="mixed", epochs=3, batch_size=200)
    monkeypatch.setattr("nasbed.protocols.training.pipelines.PIPELINES", {**PIPELINES, "quick": base, "mixed": mixed})
    monkeypatch.setattr("nasbed.protocols.training.PIPELINES", {**PIPELINES, "quick": base, "mixed": mixed})


@pytest.mark.usefixtures("quick")
def test_a_sample_of_cells_with_everything(tmp_path: Path) -> None:
    table = open_table(builder.build(CELLS, tmp_path / "t"), verify=True)
    assert table.coverage == "sample"
    assert [table.text(i) for i in range(5)] == [table.space.text(table.space.at(i)) for i in rows(CELLS)]
    assert table.manifest["epochs"] == {"quick": [1, 2, 3], "mixed": [1, 2, 3]}
    assert table.manifest["fidelities"] == {"quick": list(CELLS.fidelities)}
    assert table.manifest["trained"]["machines"][0]["trainer"] == "compiled"
    assert table.array("valid.quick").shape == table.array("valid.quick@width=0.5").shape == (5, 2, 3)
    assert "train.mixed" not in {p.stem for p in tmp_path.rglob("*.npy")}
    assert np.load(tmp_path / "t" / "sealed" / "fgsm.quick.npy").shape == (5, 2)
    assert (table.array("feature.latency") > 0).all()
    half = table.array("cost.quick@data=0.5") / table.array("cost.quick")
    assert ((half > 0.5) & (half < 0.7)).all()  # validating costs as much as before
    entry = table.lookup(table.architecture(2), pipeline="quick", seed=1, fidelity=fidelity("width=0.5"))
    assert len(entry.valid) == 3


@pytest.mark.usefixtures("quick")
def test_a_bucket_of_another_device_has_the_same_key(tmp_path: Path) -> None:
    keys = [[b.key for b in plan(CELLS, None, device=d)] for d in ("cpu", "cuda")]
    assert keys[0] == keys[1]


def test_regression_is_built_too(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows_ = ["a;b;y", *(f"{a};{b};{a - b}" for a, b in rng.normal(size=(60, 2)))]
    (tmp_path / "wine_red.csv").write_text("\n".join(rows_))
    spec = Spec("r", "mlp[hidden=1;widths=8;activations=relu,tanh;dropout=no]", "wine_red", ("adam",), 2)
    table = open_table(builder.build(spec, tmp_path / "t", data_root=tmp_path))
    assert table.task.metric == "mse"
    assert table.array("valid.adam").dtype == np.float32
    assert np.isfinite(table.array("valid.adam")).all()


def test_dry_run_extrapolates(spec: Spec) -> None:
    ((name, seconds),) = builder.dry_run(spec, None)
    assert name == "adam"
    assert 0 < seconds < 600


def test_spec_is_read(tmp_path: Path) -> None:
    spec = Spec.read(write(tmp_path, TEXT + 'bucket = 7\nversion = "2"\n[notes]\nsummary = "x"\n'))
    pipelines = ("adam", "sgd_cosine")
    assert spec == Spec(
        "tiny", "mlp[hidden=1;widths=8,16;dropout=no]", "digits", pipelines, 2,
        version="2", bucket=7, notes={"summary": "x"},
    )  # fmt: skip
    assert Spec.read(Path(builder.__file__).parent / "data" / "mlp-digits" / "spec.toml").seeds == 5


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("seeds = 2", "", "the field 'seeds' is missing"),
        ("seeds = 2", "seeds = 0", "seeds: 0 is not a positive integer"),
        ("seeds = 2", "seeds = true", "seeds: True is not a positive integer"),
        ("seeds = 2", 'seeds = "5"', "seeds: '5' is not a positive integer"),
        ("seeds = 2", "seeds = 2\nbucket = 0", "bucket: 0 is not a positive integer"),
        ("seeds = 2", "seeds = 2\nversion = 2", "version: 2 is not a text"),
        ("seeds = 2", "seeds = 2\nsample = 0", "sample: 0 is not a positive integer"),
        ("seeds = 2", "seeds = 2\nsample = 9", "sample: 9 is more than the 8 members"),
        ("seeds = 2", "seeds = 2\nfgsm = -1", "fgsm: -1 is not a number"),
        ("seeds = 2", "seeds = 2\nlatency = 1", "latency: 1 is not true or false"),
        ("seeds = 2", 'seeds = 2\nevery_epoch = ["long"]', "every_epoch: 'long' is not one of adam, sgd_cosine"),
        ("seeds = 2", 'seeds = 2\nfidelities = ["date=0.5"]', "fidelity: 'date' is not one of data, resolution"),
        ("seeds = 2", 'seeds = 2\nfidelities = ["data=2"]', "fidelity.data: 2 is not between 0 and 1"),
        ("seeds = 2", 'seeds = 2\nfidelities = ["data=.5"]', "fidelity: 'data=.5' is written 'data=0.5'"),
        ("seeds = 2", 'seeds = 2\n[notes]\npilot = "x"', "notes.pilot: this name is the manifest's own"),
        ("seeds = 2", "sedes = 2", "'sedes' is not one of .* did you mean 'seeds'"),
        ('"adam"', '"adma"', "pipelines: 'adma' is not one of .* did you mean 'adam'"),
        ('["adam", "sgd_cosine"]', "[]", r"pipelines: \[\] is not a list"),
        ('["adam", "sgd_cosine"]', '["adam", "adam"]', "each once"),
        ('["adam", "sgd_cosine"]', '"adam"', "pipelines: 'adam' is not a list"),
        ('"digits"', '"digit"', "data: 'digit' is not one of .* did you mean 'digits'"),
        ("hidden=1", "hidden=0", "hidden: 0 is not one of"),
        ("[hidden=1;widths=8,16;dropout=no]", "", "has 14.* members; a table takes at most"),
        ("mlp[", "mpl[", "space: 'mpl' is not one of .* did you mean 'mlp'"),
        ('name = "tiny"', "name = ", "spec: .*spec.toml"),
    ],
)
def test_a_wrong_spec_is_refused_in_one_line(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in TEXT
    with pytest.raises(ValueError, match=message) as error:
        Spec.read(write(tmp_path, TEXT.replace(old, new)))
    assert "\n" not in str(error.value)


def test_a_missing_spec_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="spec: there is no file"):
        Spec.read(tmp_path / "none.toml")
