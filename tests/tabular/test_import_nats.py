"""The importer of NATS-Bench: the published numbers exactly, and a reader of pickles that runs nothing."""

from __future__ import annotations

import bz2
import io
import json
import struct
import sys
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nasbed.harness.cli import main
from nasbed.methods import registry
from nasbed.protocols import FULL, Fidelity, MissingEntry
from nasbed.tabular import MappedTable, open_table, write_table
from nasbed.tabular.importers import nats_bench_tss, untrusted
from nasbed.tabular.importers.generic import import_generic
from nasbed.tabular.importers.nats_bench_tss import DATA, import_nats_bench_tss
from nasbed.tabular.sealed import unseal
from nasbed.tabular.verify import verify

SHARED = Path(__file__).parents[2].parent / "shared" / "data" / "nats-bench"
SAMPLE = SHARED / "fake_torch_dir" / "NATS-tss-v1_0-3ffb9-simple"
SIZES = SHARED / "fake_torch_dir" / "NATS-sss-v1_0-50262-simple"
CURVES = SHARED / "nats_tss_3arch_full_curves.parquet"

needs_data = pytest.mark.skipif(not CURVES.is_file(), reason=f"the sample files of NATS-Bench are not in {SHARED}")
SPACE = registry.space("nb201")


def last_epoch_alone(tmp: Path) -> bool:
    """Whether a table takes test values that are missing at all epochs but the last."""
    counts = np.ones((1, 1, 2), np.uint16)
    test = np.array([[[65535, 1]]], np.uint16)
    manifest = {"name": "p", "examples": {"valid": 1, "test": 1}, "architectures": [SPACE.text(SPACE.at(0))]}
    try:
        write_table(tmp / "probe", SPACE, {"valid.p": counts, "test.p": test}, manifest)
    except ValueError:
        return False
    return True


def here(module: str, question: dict[str, Any]) -> dict[str, np.ndarray]:
    """What the reading process does, in this one: a process takes longer than all else."""
    packed = io.BytesIO()
    np.savez(packed, allow_pickle=False, **nats_bench_tss._extract(**json.loads(json.dumps(question))))
    packed.seek(0)
    with np.load(packed, allow_pickle=False) as arrays:
        return dict(arrays)


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nats_bench_tss, "ask", here)


# --- the published numbers -------------------------------------------------------------------------------------------

WORLDS = [("cifar10-valid", "12"), ("cifar10-valid", "200"), ("cifar100", "12"), ("cifar100", "200"),
          ("ImageNet16-120", "12"), ("ImageNet16-120", "200")]  # fmt: skip

KNOWN = {
    ("cifar10-valid", "12"): {0: (63.3640, 63.2400), 11: (63.2780, 63.5100), 284: (72.8760, 72.4100)},
    ("cifar10-valid", "200"): {0: (81.9827, 81.5200), 11: (87.9400, 87.6500), 284: (86.0467, 85.6367)},
    ("cifar100", "12"): {0: (31.8400, 31.2600), 11: (33.6400, 32.7600), 284: (40.4800, 39.4400)},
    ("cifar100", "200"): {0: (52.7000, 52.9133), 11: (67.4533, 67.6067), 284: (61.6800, 62.1400)},
    ("ImageNet16-120", "12"): {0: (18.4667, 17.0000), 11: (15.6667, 14.7333), 284: (22.2000, 21.7333)},
    ("ImageNet16-120", "200"): {0: (28.2111, 26.6333), 11: (30.4111, 30.1667), 284: (33.4000, 32.4667)},
}
"""Percent, last epoch, mean over seeds: validation and test."""

SIZE = {
    0: ((129_306, 15.64737), (135_156, 15.65322), (136_456, 3.91948)),
    11: ((802_426, 113.95137), (808_276, 113.95722), (809_576, 28.49548)),
    284: ((101_306, 11.71521), (107_156, 11.72106), (108_456, 2.93644)),
}
"""Parameters, and millions of FLOPs as published, per data set in the order of `DATA`."""

TEXTS = {
    0: "|avg_pool_3x3~0|+|nor_conv_1x1~0|skip_connect~1|+|nor_conv_1x1~0|skip_connect~1|skip_connect~2|",
    11: "|nor_conv_3x3~0|+|nor_conv_3x3~0|avg_pool_3x3~1|+|none~0|nor_conv_3x3~1|avg_pool_3x3~2|",
    284: "|skip_connect~0|+|skip_connect~0|skip_connect~1|+|none~0|nor_conv_1x1~1|none~2|",
}


@pytest.fixture(scope="module", params=WORLDS, ids="-".join)
def sample(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[MappedTable, str, str]:
    if not CURVES.is_file():
        pytest.skip(f"the sample files of NATS-Bench are not in {SHARED}")
    folder = tmp_path_factory.mktemp("nats")
    data, hp = request.param
    if (data, hp) == ("cifar10-valid", "200") and not last_epoch_alone(folder):
        pytest.skip("the format refuses test values that are missing before the last epoch")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nats_bench_tss, "ask", here)
        made = import_nats_bench_tss(SAMPLE, folder / "t", data=data, hp=hp)
    assert (made.coverage, made.architectures) == ("sample", 3)
    return open_table(made.folder, verify=True), data, hp


def curves(data: str, hp: str) -> Any:
    pandas = pytest.importorskip("pandas")
    frame = pandas.read_parquet(CURVES)
    return frame[(frame.dataset == data) & (frame.hp == int(hp))]


def test_every_published_value_comes_out(sample):
    table, data, hp = sample
    pipeline, frame, examples = f"hp{hp}", curves(data, hp), DATA[data].examples
    seeds, epochs = table.seeds, table.manifest["epochs"][pipeline]
    test = np.load(table.folder / "sealed" / f"test.{pipeline}.npy")
    assert set(seeds) == set(frame.seed)
    seen = 0
    for row in frame.itertuples(index=False, name=None):
        r = dict(zip(frame.columns, row, strict=True))
        at = table.row(SPACE.parse(TEXTS[r["arch_index"]])), seeds.index(r["seed"])
        if r["epoch"] + 1 not in epochs:
            assert np.isnan(r["x-valid_acc"])
            continue
        at = (*at, epochs.index(r["epoch"] + 1))
        seen += 1
        for split, column, array in (
            ("valid", "x-valid_acc", table.array(f"valid.{pipeline}")),
            ("test", f"{DATA[data].test}_acc", test),
            ("train", "train_acc", table.array(f"train.{pipeline}") if "train" in table.manifest["examples"] else None),
        ):
            if array is None:
                assert split == "train"
                assert data == "ImageNet16-120"
            elif np.isnan(r[column]):
                assert array[at] == 65535
            else:
                assert array[at] == round(r[column] * examples[split] / 100)
                assert abs(array[at] / examples[split] * 100 - r[column]) < 1e-6
        entry = table.lookup(table.space.parse(TEXTS[r["arch_index"]]), pipeline=pipeline, seed=r["seed"],
                             fidelity=Fidelity(epochs=r["epoch"] + 1))  # fmt: skip
        per_epoch = r["train_time_s"] + r["x-valid_time_s"]
        assert entry.cost == pytest.approx(per_epoch * (r["epoch"] + 1), rel=1e-12)
    assert seen == 3 * len(seeds) * len(epochs)
    assert epochs == (list(range(1, int(hp) + 1)) if (data == "cifar10-valid" or hp == "12") else [200])


def test_the_known_answers(sample):
    table, data, hp = sample
    pipeline = f"hp{hp}"
    test = unseal(table, pipeline)
    place = list(DATA).index(data)
    for index, (valid, tested) in KNOWN[data, hp].items():
        a = SPACE.parse(TEXTS[index])
        row = table.row(a)
        entries = [table.lookup(a, pipeline=pipeline, seed=s, fidelity=FULL) for s in table.seeds]
        assert round(100 * np.mean([e.valid[-1] for e in entries]), 4) == valid
        assert round(100 * test[row].mean(), 4) == tested
        params, flops = SIZE[index][place]
        assert (table.array("feature.params")[row], table.array("feature.flops_M")[row]) == (params, flops)
        assert table.space.features(a, table.task)["params"] == params
        frame = curves(data, hp)
        assert table.array("feature.latency_s")[row] == frame[frame.arch_index == index].latency_s.iloc[0]


def test_it_behaves_like_a_shipped_table(sample):
    table, data, hp = sample
    assert (table.clock, table.space.name, table.task.name) == ("seconds", "nb201", data)
    assert table.seeds == ((777, 888, 999) if hp == "200" else (111, 777) if data == "cifar10-valid" else (111,))
    assert verify(table.folder).passed
    with pytest.raises(ValueError, match=f"'hp{hp}' is not registered") as caught:
        verify(table.folder, retrain=1)
    assert "\n" not in str(caught.value)
    with pytest.raises(MissingEntry, match="not in the table"):
        table.lookup(SPACE.at(0), pipeline=f"hp{hp}", seed=table.seeds[0], fidelity=FULL)
    if (data, hp) == ("cifar100", "200"):
        assert table.manifest["imported"]["left_out"] == [
            "199 epochs without validation values", "ori-test: validation and test data together",
        ]  # fmt: skip
        with pytest.raises(MissingEntry, match="has 200, inf, not 12"):
            table.lookup(SPACE.parse(TEXTS[0]), pipeline="hp200", seed=777, fidelity=Fidelity(epochs=12))


def test_the_generic_importer_makes_the_same_table_of_the_curves(sample, tmp_path):
    """Two importers, two files, one table."""
    table, data, hp = sample
    examples = {s: n for s, n in DATA[data].examples.items() if s in table.manifest["examples"]}
    train = 'train = "train_acc"\n' if "train" in examples else ""
    frame = curves(data, hp)
    frame.assign(arch=frame.arch_index.map(TEXTS)).to_parquet(tmp_path / "curves.parquet")
    (tmp_path / "map.toml").write_text(
        f'name = "x"\nfile = "curves.parquet"\nspace = "nb201"\nscale = "percent"\npipeline = "hp{hp}"\n'
        f"first_epoch = 0\nwhere = {{ dataset = {json.dumps(data)}, hp = {hp} }}\n"
        f'missing = ["valid", "test"]\nexamples = {{ {", ".join(f"{s} = {n}" for s, n in examples.items())} }}\n'
        f'[columns]\narchitecture = "arch"\nseed = "seed"\nepoch = "epoch"\nvalid = "x-valid_acc"\n'
        f'test = "{DATA[data].test}_acc"\n{train}'
        + ('valid_test = "ori-test_acc"\n' if DATA[data].test != "ori-test" else "")
    )
    other = open_table(import_generic(tmp_path / "map.toml", tmp_path / "t").folder)
    for field in ("seeds", "epochs", "architectures", "examples", "coverage"):
        assert other.manifest[field] == table.manifest[field]
    for stem in (f"{s}.hp{hp}" for s in ("train", "valid") if s in examples):
        np.testing.assert_array_equal(other.array(stem), table.array(stem))
    name = f"sealed/test.hp{hp}.npy"
    np.testing.assert_array_equal(np.load(other.folder / name), np.load(table.folder / name))


@needs_data
def test_the_stand_ins_decode_as_numpy_does():
    content = untrusted.load(SAMPLE / "000011.pickle.pbz2")
    trial = content["200"]["all_results"]["cifar100", 888]
    assert (trial["params"], type(trial["params"])) == (0.808276, float)
    assert trial["latency"] == [curves("cifar100", "200").query("arch_index == 11").latency_s.iloc[0]]


@needs_data
def test_the_size_search_space_is_refused_by_name(tmp_path, in_process):
    with pytest.raises(
        ValueError, match=r"^path: these files are not of the topology search space \(nb201: '8:8:8:8:8'"
    ):
        import_nats_bench_tss(SIZES, tmp_path / "t", data="cifar100", hp="12")


# --- files of the same format, made here -----------------------------------------------------------------------------


class Scalar(float):
    """A number that is written as numpy's scalars are."""


def pickled(value: Any) -> bytes:
    """A pickle of protocol 4 whose only names are those of the published files, written opcode by opcode."""
    return b"\x80\x04" + _opcodes(value) + b"."


def _opcodes(value: Any) -> bytes:
    if value is None:
        return b"N"
    if isinstance(value, bool):
        return b"\x88" if value else b"\x89"
    if isinstance(value, Scalar):
        dtype = named("numpy", "dtype") + _opcodes(("f8", False, True)) + b"R"
        state = _opcodes((3, "<", None, None, None, -1, -1, 0))
        data = struct.pack("<d", value)
        return named("numpy.core.multiarray", "scalar") + dtype + state + b"bC" + bytes([len(data)]) + data + b"\x86R"
    if isinstance(value, int):
        return b"J" + struct.pack("<i", value)
    if isinstance(value, float):
        return b"G" + struct.pack(">d", value)
    if isinstance(value, str):
        data = value.encode()
        return b"X" + struct.pack("<I", len(data)) + data
    if isinstance(value, tuple):
        return b"(" + b"".join(map(_opcodes, value)) + b"t"
    if isinstance(value, list):
        return b"](" + b"".join(map(_opcodes, value)) + b"e"
    empty = named("collections", "OrderedDict") + b")R" if isinstance(value, OrderedDict) else b"}"
    return empty + b"(" + b"".join(_opcodes(k) + _opcodes(v) for k, v in value.items()) + b"u"


def named(module: str, name: str) -> bytes:
    return f"c{module}\n{name}\n".encode()


def trial(data: str, seed: int, epochs: int, shift: int, valid_at: str = "every") -> OrderedDict[str, Any]:
    """A training whose counts are 100 * (epoch + 1) + shift, of 25,000 or 5,000 examples."""
    test, examples = DATA[data].test, DATA[data].examples
    accuracies = {}
    for e in range(epochs):
        count = 100 * (e + 1) + shift
        if valid_at == "every" or e == epochs - 1:
            accuracies[f"x-valid@{e}"] = 100 * count / examples["valid"]
            accuracies[f"{test}@{e}"] = 100 * (count + 1) / examples["test"]
        accuracies[f"ori-test@{e}"] = accuracies.get(f"ori-test@{e}", 50.0)
    return OrderedDict(
        name=data, seed=f"{seed:04d}", epochs=epochs, params=Scalar(0.25), flop=12.5, latency=[Scalar(0.5), 1.5],
        train_acc1es={e: 100 * (e + 1) / examples["train"] for e in range(epochs)}, train_acc5es=None,
        train_times={e: 2.0 + 0.25 * shift for e in range(epochs)}, eval_names=["x-valid", test],
        eval_acc1es=accuracies, eval_times={f"x-valid@{e}": 0.5 for e in range(epochs)}, net_state_dict=None,
    )  # fmt: skip


def write(folder: Path, results: dict[int, dict[Any, Any]], epochs: int = 12) -> Path:
    """A folder with the files of some architectures; `nb201`'s members in reverse are the list of architectures."""
    folder.mkdir(exist_ok=True)
    listed = [SPACE.text(SPACE.at(i)) for i in range(20)][::-1]
    (folder / "meta.pickle.pbz2").write_bytes(bz2.compress(pickled({"meta_archs": listed, "arch2infos": None})))
    for index, found in results.items():
        content = OrderedDict({str(epochs): {"arch_index": index, "arch_str": listed[index], "all_results": found}})
        (folder / f"{index:06d}.pickle.pbz2").write_bytes(bz2.compress(pickled(content)))
    return folder


def ragged(data: str = "cifar10-valid") -> dict[int, dict[Any, Any]]:
    """Architecture 3 with two seeds, 5 with another one, 7 on another data set only."""
    return {
        3: {(data, 777): trial(data, 777, 12, 0), (data, 888): trial(data, 888, 12, 4)},
        5: {(data, 999): trial(data, 999, 12, 8)},
        7: {("cifar10", 777): OrderedDict(seed="0777")},
    }


def test_ragged_seeds_stay_ragged(tmp_path, monkeypatch):
    """With a process of its own, for which no module of the current folder stands in for one of ours."""
    folder = write(tmp_path / "files", ragged())
    (tmp_path / "struct.py").write_text("raise SystemExit('taken over')")
    monkeypatch.chdir(tmp_path)
    steps: list[tuple[float, float]] = []
    made = import_nats_bench_tss(folder, tmp_path / "t", hp="12", progress=lambda *step: steps.append(step))
    assert steps == []
    assert (made.coverage, made.architectures, made.trainings) == ("sample", 2, 3)
    assert made.notes == ("1 architectures without trainings on 'cifar10-valid' under '12'",)
    table = open_table(made.folder, verify=True)
    assert table.seeds == (777, 888, 999)
    assert table.manifest["architectures"] == [SPACE.text(SPACE.at(14)), SPACE.text(SPACE.at(16))]
    a, b = SPACE.at(16), SPACE.at(14)
    assert table.recorded_seeds(a, "hp12") == (777, 888)
    assert table.recorded_seeds(b, "hp12") == (999,)
    for architecture, seed, shift in ((a, 777, 0), (a, 888, 4), (b, 999, 8)):
        entry = table.lookup(architecture, pipeline="hp12", seed=seed, fidelity=Fidelity(epochs=3))
        assert np.rint(entry.valid * 25_000).tolist() == [100 + shift, 200 + shift, 300 + shift]
        assert entry.cost == 3 * (2.5 + 0.25 * shift)
    with pytest.raises(MissingEntry, match="no training with seed 777"):
        table.lookup(b, pipeline="hp12", seed=777, fidelity=FULL)
    test = unseal(table, "hp12")
    assert (np.rint(test[table.row(a)] * 10_000)[:2] == [1201, 1205]).all()
    assert np.isnan(test[table.row(a), 2])
    assert table.array("feature.params").tolist() == [250_000, 250_000]
    assert table.array("feature.latency_s").tolist() == [1.0, 1.0]


def test_epochs_without_validation_are_left_out_and_their_costs_are_counted(tmp_path, in_process):
    results = {3: {("cifar100", 777): trial("cifar100", 777, 12, 0, valid_at="last")}}
    made = import_nats_bench_tss(write(tmp_path / "files", results), tmp_path / "t", data="cifar100", hp="12")
    assert made.notes[0] == "11 epochs without validation values"
    table = open_table(made.folder)
    entry = table.lookup(SPACE.at(16), pipeline="hp12", seed=777, fidelity=FULL)
    assert (entry.epochs.tolist(), entry.valid.tolist(), entry.cost) == ([12], [1200 / 5000], 30.0)


def test_several_groups_of_files_are_read_side_by_side(tmp_path, monkeypatch, in_process):
    monkeypatch.setattr(nats_bench_tss, "CHUNK", 1)
    folder, steps = write(tmp_path / "files", ragged()), []
    made = import_nats_bench_tss(folder, tmp_path / "t", hp="12", jobs=2, progress=lambda *step: steps.append(step))
    assert steps == [(0, 3), (1, 3), (2, 3), (3, 3)]
    table = open_table(made.folder)
    assert [table.recorded_seeds(SPACE.at(i), "hp12") for i in (16, 14)] == [(777, 888), (999,)]


OPTIONS = [
    ({"data": "cifar10"}, "data: 'cifar10' has no validation values, only test values; use 'cifar10-valid'"),
    ({"data": "cifar1000"}, "data: 'cifar1000' is not one of cifar10-valid, cifar100, ImageNet16-120"),
    ({"hp": "90"}, "hp: '90' is not one of 12, 200"),
    ({"path": "nowhere"}, "path: nowhere does not hold meta.pickle.pbz2"),
]


@pytest.mark.parametrize(("given", "message"), OPTIONS, ids=[m for _, m in OPTIONS])
def test_wrong_options_are_refused_in_one_line(tmp_path, given, message):
    path = Path(given.pop("path", tmp_path))
    with pytest.raises(ValueError, match="^" + message):
        import_nats_bench_tss(path, tmp_path / "t", **given)


WRONG = [
    ({3: {("cifar10-valid", 777): OrderedDict(seed="0777")}}, "000003.pickle.pbz2: not in the layout .* 'eval_acc1es'"),
    ({3: {("cifar10-valid", 777): {**trial("cifar10-valid", 777, 12, 0), "eval_acc1es": {"x-valid@0": 50.1234}}}},
     "a valid accuracy on 'cifar10-valid' is no count of 25000 examples"),
    ({3: {("cifar10-valid", 777): {**trial("cifar10-valid", 777, 12, 0), "train_times": {}}}}, "lacks times"),
    ({3: {}}, "no file holds a training on 'cifar10-valid' under '12'"),
]  # fmt: skip


@pytest.mark.parametrize(("results", "message"), WRONG, ids=[m for _, m in WRONG])
def test_wrong_files_are_refused_in_one_line(tmp_path, in_process, results, message):
    with pytest.raises(ValueError, match=message) as caught:
        import_nats_bench_tss(write(tmp_path / "files", results), tmp_path / "t", hp="12")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "t").exists()


def test_a_file_under_another_number_is_refused(tmp_path, in_process):
    folder = write(tmp_path / "files", ragged())
    (folder / "000003.pickle.pbz2").rename(folder / "000004.pickle.pbz2")
    with pytest.raises(ValueError, match=r"000004.pickle.pbz2: .* is not architecture 4 of meta.pickle.pbz2"):
        import_nats_bench_tss(folder, tmp_path / "t", hp="12")
    (folder / "000004.pickle.pbz2").unlink()
    (folder / "meta.pickle.pbz2").write_bytes(bz2.compress(pickled({"meta_archs": list(TEXTS.values()) * 4})))
    with pytest.raises(ValueError, match=r"000005.pickle.pbz2: .* is not architecture 5 of meta.pickle.pbz2"):
        import_nats_bench_tss(folder, tmp_path / "t", hp="12")


# --- malice ----------------------------------------------------------------------------------------------------------


def test_a_malicious_pickle_is_refused_and_runs_nothing(tmp_path, monkeypatch, capsys):
    """Through the command: one line, exit code 2, and no trace of the payload."""
    folder, marker = write(tmp_path / "files", ragged()), tmp_path / "run"
    payload = b"\x80\x04" + named("posix", "system") + b"(" + _opcodes(f"touch {marker}") + b"tR."
    (folder / "000005.pickle.pbz2").write_bytes(bz2.compress(payload))
    monkeypatch.setattr(sys, "path", list(sys.path))
    arguments = ["table", "import", "nats-bench-tss", str(folder), "--hp", "12", "--out", str(tmp_path / "t")]
    monkeypatch.setattr(sys, "argv", ["nasbed", *arguments])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 2
    assert capsys.readouterr().err == (
        "nasbed: 000005.pickle.pbz2: refused: the pickle asks for 'posix.system'; allowed: collections.OrderedDict, "
        "numpy.core.multiarray.scalar, numpy.dtype\n"
    )
    assert not marker.exists()
    assert not (tmp_path / "t").exists()


def stacked(module: str, name: str) -> bytes:
    """The other way of naming something: from the stack."""
    return _opcodes(module) + _opcodes(name) + b"\x93"


REFUSED = {
    "another name": (named("builtins", "eval") + b".", "'builtins.eval'; allowed: collections.OrderedDict"),
    "from the stack": (stacked("os", "system") + b".", "'os.system'"),
    "a dotted name": (stacked("collections", "OrderedDict.__init__") + b".", "'collections.OrderedDict.__init__'"),
    "more of an allowed module": (named("numpy", "load") + b".", "'numpy.load'"),
    "numpy under its new name": (named("numpy._core.multiarray", "_reconstruct") + b".", "'numpy._core.multiarray"),
    "an extension code": (b"\x82\x01.", "unregistered extension code"),
    "an outside object": (b"Px\n.", "persistent"),
    "an object array": (named("numpy", "dtype") + _opcodes(("O8", False, True)) + b"R.", "'O8' is not one of f4, f8"),
    "a scalar of no type": (named("numpy.core.multiarray", "scalar") + _opcodes((1, 2)) + b"R.", "not little-endian"),
    "a large index": (b"N" + b"r" + struct.pack("<I", 2**32 - 1) + b".", "MemoryError"),
    "a large array": (b"\x96" + struct.pack("<Q", 2**60) + b"x.", ""),
    "nothing": (b"", "EOFError"),
    "an end in the middle": (b"(K\x01", ""),
    "a wrong argument": (named("collections", "OrderedDict") + _opcodes((5,)) + b"R.", "TypeError"),
}


@pytest.mark.parametrize("kind", [k for k in REFUSED if k != "a large index"])
def test_pickles_beyond_the_three_names_are_refused(tmp_path, kind):
    code, message = REFUSED[kind]
    file = tmp_path / "x.pickle.pbz2"
    file.write_bytes(bz2.compress(b"\x80\x04" + code))
    with pytest.raises(ValueError, match=r"^x.pickle.pbz2: ") as caught:
        untrusted.load(file)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(sys.platform != "linux", reason="limits of address space are Linux's")
def test_a_pickle_that_asks_for_too_much_memory_ends_its_process_only(tmp_path):
    code, message = REFUSED["a large index"]
    folder = write(tmp_path / "files", ragged())
    (folder / "000005.pickle.pbz2").write_bytes(bz2.compress(b"\x80\x04" + code))
    with pytest.raises(ValueError, match=f"^000005.pickle.pbz2: {message}"):
        import_nats_bench_tss(folder, tmp_path / "t", hp="12")


def test_bombs_large_files_and_cut_files_are_refused(tmp_path, monkeypatch):
    file = tmp_path / "x.pickle.pbz2"
    whole = bz2.compress(bytes(untrusted.UNPACKED + 1))
    assert len(whole) < 1000
    for content, message in ((whole, "decompresses to more than"), (b"BZh9 no", "OSError"), (b"", "cut off"),
                             (bz2.compress(pickled({"a": 1}))[:-5], "cut off")):  # fmt: skip
        file.write_bytes(content)
        with pytest.raises(ValueError, match=message):
            untrusted.load(file)
    monkeypatch.setattr(untrusted, "PACKED", 10)
    file.write_bytes(bytes(11))
    with pytest.raises(ValueError, match="refused: 11 bytes, more than 10"):
        untrusted.load(file)


def test_a_reading_process_that_dies_is_one_line(monkeypatch):
    with pytest.raises(ValueError, match="died with exit code 1") as caught:
        untrusted.ask("nasbed.tabular.importers.nowhere", {"folder": "x"})
    assert "\n" not in str(caught.value)
