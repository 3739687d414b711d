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
from nasbed.protocols.streams import generator, torch_generator
from nasbed.protocols.training import PIPELINES, fit, load, load_test, materialise, training_flops
from nasbed.tabular import builder, open_table
from nasbed.tabular.builder import Spec

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
        "cost.adam.npy", "feature.flops.npy", "feature.params.npy",
        "sealed/test.adam.npy", "train.adam.npy", "valid.adam.npy",
    ]  # fmt: skip
    assert table.manifest["trained"]["software"]["torch"] == torch.__version__


def test_an_entry_is_what_the_reference_trainer_gives(built: Path) -> None:
    table, view = open_table(built), load("digits")
    a, seed = table.space.parse("16-elu"), 3
    network = materialise(table.space.build(a, view.task), torch_generator(seed, "init", a))
    evaluate = {"valid": view.valid, "test": load_test("digits")}
    correct = fit(network, view.train, evaluate, PIPELINES["adam"], order=generator(seed, "data-order", a))
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
    found = builder.buckets(spec, None)
    assert [b.key for b in found] == [b.key for b in builder.buckets(spec, None)]
    changed = replace(PIPELINES["sgd_cosine"], learning_rate=0.05)
    others = [
        replace(found[0], digests=(d, p)) for d, p in (("", found[0].digests[1]), (found[0].digests[0], changed.digest))
    ]
    assert len({b.key for b in (*found, *others)}) == len(found) + 2
    assert found[0].digests == (load("digits").task.digest, PIPELINES["sgd_cosine"].digest)


def test_buckets_partition_the_trainings_into_equal_widths() -> None:
    spec = Spec("x", "mlp[hidden=2;widths=8,16;dropout=no]", "digits", ("adam", "sgd_cosine"), 3, bucket=10)
    planned = builder.buckets(spec, None)
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
    assert [b.flops for b in planned] == sorted((b.flops for b in planned), reverse=True)


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
from nasbed.tabular import builder, format

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

    builder.np.savez = half


started = time.perf_counter()
folder = folder.with_name("timed")
assert os.waitpid(child(lambda: None), 0)[1] == 0
usual = time.perf_counter() - started
folder = Path(sys.argv[1])
rng = random.Random(int(sys.argv[2]))
deaths = [
    lambda: at_call(builder.os, "replace", 1),     # the first shard is written, not yet named
    torn,                                          # in the middle of a shard
    None,                                          # anywhere
    None,
    lambda: at_call(format.np, "save", 3),         # arrays half written
]
ended = []
for doom in deaths:
    pid = child(doom or (lambda: None))
    if doom is None:
        time.sleep(rng.uniform(0.0, usual / 2))
        os.kill(pid, signal.SIGKILL)
    ended.append(os.WTERMSIG(os.waitpid(pid, 0)[1]))
    print(ended[-1], len(list((folder / "shards").glob("*.npz"))), (folder / "manifest.json").exists())
pid = child(lambda: None)
print(os.waitpid(pid, 0)[1])
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_build_killed_five_times_ends_with_the_same_bytes(tmp_path: Path) -> None:
    folder = tmp_path / "killed"
    command = [sys.executable, "-W", "ignore", "-c", KILLED, str(folder), "0"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    ran = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment, check=False)
    assert ran.returncode == 0, ran.stderr
    *deaths, last = ran.stdout.split("\n")[:-1]
    assert [line.split()[0] for line in deaths] == ["9"] * 5, ran.stdout
    assert all(line.endswith("False") for line in deaths), ran.stdout
    assert last == "0"
    whole = folder.with_name("undisturbed")
    assert len(arrays(whole)) == 6
    assert arrays(folder) == arrays(whole)
    assert not list(folder.rglob("*.part"))
    assert open_table(folder, verify=True).digest == open_table(whole).digest


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
    (bucket,) = builder.buckets(small, None)
    shards = tmp_path / "t" / "shards"
    shards.mkdir(parents=True)
    counts = {s: np.zeros((1, 10), np.uint16) for s in ("train", "valid", "test")}
    path = shards / f"{bucket.key}.npz"
    builder._save(path, builder.Shard(bucket, counts, 1.0, "here"))
    meta, loaded = builder._load(path)
    assert meta == {"seconds": 1.0, "machine": "here"}
    assert all((loaded[s] == counts[s]).all() for s in counts)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=f"shard: .*{bucket.key}.npz is damaged .*delete it") as error:
        builder.build(small, tmp_path / "t")
    assert "\n" not in str(error.value)
    path.unlink()
    assert open_table(builder.build(small, tmp_path / "t")).array("valid.adam").max() > 0


def test_pilot_tells_architectures_from_seeds(spec: Spec) -> None:
    found = builder.pilot(spec, None, architectures=4)
    assert set(found) == {"adam"}
    assert found["adam"]["architectures"] == 4
    assert 2 <= found["adam"]["working"] <= 4
    assert found["adam"]["sd_architectures"] > 0
    assert found["adam"]["sd_seeds"] > 0
    with pytest.raises(ValueError, match="seeds: a pilot compares two"):
        builder.pilot(Spec("x", spec.space, "digits", ("adam",), 1), None)


def test_dry_run_extrapolates(spec: Spec) -> None:
    ((name, seconds),) = builder.dry_run(spec, None)
    assert name == "adam"
    assert 0 < seconds < 600


def test_spec_is_read(tmp_path: Path) -> None:
    spec = Spec.read(write(tmp_path, TEXT + 'bucket = 7\nversion = "2"\n[notes]\nsummary = "x"\n'))
    assert spec == Spec(
        "tiny", "mlp[hidden=1;widths=8,16;dropout=no]", "digits", ("adam", "sgd_cosine"), 2, "2", 7, {"summary": "x"}
    )
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
        ("seeds = 2", "sedes = 2", "'sedes' is not one of .* did you mean 'seeds'"),
        ('"adam"', '"adma"', "pipelines: 'adma' is not one of .* did you mean 'adam'"),
        ('["adam", "sgd_cosine"]', "[]", r"pipelines: \[\] is not a list"),
        ('["adam", "sgd_cosine"]', '["adam", "adam"]', "each once"),
        ('["adam", "sgd_cosine"]', '"adam"', "pipelines: 'adam' is not a list"),
        ('"digits"', '"digit"', "data: 'digit' is not one of .* did you mean 'digits'"),
        ("hidden=1", "hidden=0", "hidden: 0 is not one of"),
        ("[hidden=1;widths=8,16;dropout=no]", "", "has 14.* members; a complete table takes at most"),
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
