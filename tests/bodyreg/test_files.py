"""The search list, files from strangers, writing whole or not at all, hashes."""

from __future__ import annotations

import collections
import os
import pickle
from pathlib import Path

import joblib
import numpy as np
import pytest
import safetensors.torch
import scipy.sparse
import torch

from bodyreg import files
from bodyreg.files import (
    MissingFileError,
    UnsafeFileError,
    atomic_write,
    find_licensed,
    load_checkpoint,
    safe_load_joblib,
    safe_load_npz,
    safe_unpickle,
    sha256_arrays,
    sha256_file,
)


class Hostile:
    """Makes a folder when it is unpickled freely."""

    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


def assert_same(a, b):
    if isinstance(b, dict):
        assert a.keys() == b.keys()
        for key in b:
            assert_same(a[key], b[key])
    elif isinstance(b, list | tuple):
        assert type(a) is type(b) and len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            assert_same(x, y)
    elif isinstance(b, np.ndarray):
        assert a.dtype == b.dtype and a.shape == b.shape
        if b.dtype == object:
            assert_same(a.ravel().tolist(), b.ravel().tolist())
        else:
            np.testing.assert_array_equal(a, b)
    else:
        assert a == b


def harmless() -> dict:
    rng = np.random.default_rng(0)
    ragged = np.empty(2, object)
    ragged[:] = [rng.random(3), [1, "two"]]
    return {
        "float": rng.random((4, 3)), "fortran": np.asfortranarray(rng.random((3, 5))), "scalar": np.float64(0.25),
        "none": np.zeros((0, 3), np.float32), "record": np.zeros(2, [("x", "f4"), ("n", "i8")]), "zero-d": np.array(3),
        "text": np.array(["a", "bc"]), "bytes": b"\x00\xff", "name": "caf\u00e9", "list": [1, 2.5, None, True, {1, 2}],
        "tuple": (1, ("x",)), "ordered": {"inner": np.arange(3, dtype=np.uint32)}, "ragged": ragged,
    }  # fmt: skip


# ---------------------------------------------------------------------------------------------------------- search list


@pytest.fixture
def places(tmp_path, monkeypatch):
    """Three folders: the argument, the environment's and the user's."""
    folders = [tmp_path / name for name in ("given", "environment", "user")]
    for folder in folders:
        folder.mkdir()
    monkeypatch.setenv("BODYREG_DATA", str(folders[1]))
    monkeypatch.setattr(files, "user_data_folder", lambda: folders[2])
    return folders


def test_places_are_searched_in_order(places):
    for folder in reversed(places):
        (folder / "Thing.NPY").touch()
        assert find_licensed(["thing.npy"], given=places[0]).parent == folder


def test_better_names_and_upper_folders_come_first(places):
    (places[0] / "smpl").mkdir()
    (places[0] / "smpl" / "a.npy").touch()
    assert find_licensed(["a.npy"], places[0], subfolders=("", "smpl")) == places[0] / "smpl" / "a.npy"
    (places[0] / "b.npy").touch()
    assert find_licensed(["a.npy", "b.npy"], places[0], subfolders=("", "smpl")).name == "b.npy"
    (places[0] / "a.npy").touch()
    assert find_licensed(["a.npy", "b.npy"], places[0], subfolders=("", "smpl")) == places[0] / "a.npy"


def test_a_file_given_is_the_answer_and_a_missing_one_is_not_replaced(places):
    other = places[0] / "renamed.pkl"
    other.touch()
    (places[1] / "a.pkl").touch()
    assert find_licensed(["a.pkl"], given=other) == other
    with pytest.raises(MissingFileError, match="not.there.pkl"):
        find_licensed(["a.pkl"], given=places[0] / "not.there.pkl")


def test_missing_file_lists_every_place(places, monkeypatch):
    with pytest.raises(MissingFileError) as caught:
        find_licensed(["a.npy", "b.npy"], places[0], what="the regressor", register="https://example.org")
    text = str(caught.value)
    for part in ("the regressor", "a.npy, b.npy", *map(str, places), "BODYREG_DATA", "https://example.org"):
        assert part in text
    assert isinstance(caught.value, FileNotFoundError) and isinstance(caught.value, ValueError)
    monkeypatch.delenv("BODYREG_DATA")
    with pytest.raises(MissingFileError, match=r"BODYREG_DATA \(not set\)"):
        find_licensed(["a.npy"])


def test_user_data_folder_is_the_systems():
    assert files.user_data_folder().name == "bodyreg" and files.user_data_folder().is_absolute()


# -------------------------------------------------------------------------------------------------------------- pickles


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_harmless_pickles_read_equal(tmp_path, protocol):
    content = harmless() | {"nested": collections.OrderedDict(a=1)}
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(content, protocol))
    assert_same(safe_unpickle(tmp_path / "a.pkl"), content)


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("kind", [scipy.sparse.csc_matrix, scipy.sparse.csr_matrix])
def test_sparse_matrices_become_dense(tmp_path, protocol, kind):
    matrix = scipy.sparse.random(24, 70, density=0.1, random_state=1)
    (tmp_path / "a.pkl").write_bytes(pickle.dumps([kind(matrix)], protocol))
    np.testing.assert_array_equal(safe_unpickle(tmp_path / "a.pkl")[0], matrix.toarray())


def test_sparse_matrices_whose_parts_lie_are_refused(tmp_path):
    for change in ({"indices": np.array([99])}, {"indptr": np.array([0, 5, 1])}, {"_shape": (1 << 20, 1 << 20)}):
        matrix = scipy.sparse.csc_matrix(np.array([[0.0, 1.0]]))
        matrix.__dict__.update(change)
        (tmp_path / "a.pkl").write_bytes(pickle.dumps(matrix))
        with pytest.raises(UnsafeFileError, match="sparse matrix"):
            safe_unpickle(tmp_path / "a.pkl")


HOSTILE = {
    "reduce": lambda marker: Hostile(marker),
    "in a list": lambda marker: [np.zeros(3), [Hostile(marker)]],
    "in an object array": lambda marker: np.array([Hostile(marker), 1], dtype=object),
    "key of a dict": lambda marker: {"a": 1, "b": {"c": Hostile(marker)}},
}


@pytest.mark.parametrize("where", HOSTILE)
@pytest.mark.parametrize("reader", [safe_unpickle, safe_load_joblib])
@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_hostile_pickles_are_refused_and_not_run(tmp_path, where, reader, protocol):
    marker = tmp_path / "ran"
    data = pickle.dumps(HOSTILE[where](marker), protocol)
    (tmp_path / "a.pkl").write_bytes(data)
    with pytest.raises(UnsafeFileError, match="mkdir"):
        reader(tmp_path / "a.pkl")
    assert not marker.exists()
    pickle.loads(data)
    assert marker.exists(), "the pickle was never dangerous, so the test showed nothing"


@pytest.mark.parametrize("name", ["builtins.eval", "__builtin__.getattr", "os.system", "subprocess.Popen", "numpy.load",
                                  "operator.attrgetter", "builtins.type", "numpy.ndarray.tofile", "copyreg.__newobj__",
                                  "scipy.sparse.dok_matrix", "collections.defaultdict", "torch.load"])  # fmt: skip
def test_every_other_class_is_refused_by_name(tmp_path, name):
    module, _, attribute = name.rpartition(".")
    (tmp_path / "a.pkl").write_bytes(f"c{module}\n{attribute}\n.".encode())
    (tmp_path / "b.pkl").write_bytes(b"\x80\x04\x8c" + bytes([len(module)]) + module.encode() + b"\x8c"
                                     + bytes([len(attribute)]) + attribute.encode() + b"\x93.")
    for file in ("a.pkl", "b.pkl"):
        with pytest.raises(UnsafeFileError, match=name.replace(".", r"\.")):
            safe_unpickle(tmp_path / file)


def test_allowed_classes_cannot_be_changed_from_within(tmp_path):
    """BUILD with a state sets attributes; on our stand-ins and functions that must fail and change nothing."""
    from bodyreg import pickles

    before = {key: dict(vars(value)) for key, value in pickles._TABLE.items() if isinstance(value, type)}
    for target in (b"cchumpy.ch\nCh\n", b"cnumpy.core.multiarray\n_reconstruct\n", b"cnumpy\nndarray\n",
                   b"cscipy.sparse.csc\ncsc_matrix\n", b"ccollections\nOrderedDict\n"):
        for key in (b"state", b"__setstate__", b"_function", b"__call__"):
            state = b"(N(S'" + key + b"'\nI1\ndt"
            (tmp_path / "a.pkl").write_bytes(target + state + b"b.")
            with pytest.raises(ValueError, match="a.pkl"):
                safe_unpickle(tmp_path / "a.pkl")
    assert before == {key: dict(vars(value)) for key, value in pickles._TABLE.items() if isinstance(value, type)}


def test_damaged_pickles_end_in_a_sentence(tmp_path):
    data = pickle.dumps(harmless(), 2)
    rng = np.random.default_rng(0)
    path = tmp_path / "a.pkl"
    refused = 0
    for trial in range(150):
        changed = bytearray(data[: rng.integers(len(data))] if trial % 2 else data)
        for position in rng.integers(0, max(len(changed), 1), 3):
            changed[position : position + 1] = bytes([rng.integers(256)])
        path.write_bytes(changed)
        for reader in (safe_unpickle, safe_load_joblib):
            try:
                reader(path)
            except ValueError as error:
                assert "a.pkl" in str(error)
                refused += 1
    assert refused > 100


def test_structures_within_themselves_are_refused(tmp_path):
    loop: list = []
    loop.append(loop)
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(loop))
    with pytest.raises(UnsafeFileError, match="contains itself"):
        safe_unpickle(tmp_path / "a.pkl")


# --------------------------------------------------------------------------------------------------------------- joblib


@pytest.mark.parametrize("compress", [0, 3, ("zlib", 1), ("gzip", 3), ("bz2", 3), ("xz", 3), ("lzma", 3)])
def test_joblib_files_read_equal(tmp_path, compress):
    content = harmless() | {"large": np.random.default_rng(1).random((300, 200), dtype=np.float32)}
    joblib.dump(content, tmp_path / "a.pt", compress=compress)
    assert_same(safe_load_joblib(tmp_path / "a.pt"), content)


def test_joblib_arrays_that_hide_code_are_refused(tmp_path):
    marker = tmp_path / "ran"
    for compress in (0, 3):
        joblib.dump({"a": np.zeros(3), "b": np.array([Hostile(marker)], dtype=object)}, tmp_path / "a.pt", compress)
        with pytest.raises(UnsafeFileError, match="mkdir"):
            safe_load_joblib(tmp_path / "a.pt")
    assert not marker.exists()


def test_cut_joblib_files_are_refused(tmp_path):
    joblib.dump({"a": np.arange(1000.0)}, tmp_path / "a.pt")
    data = (tmp_path / "a.pt").read_bytes()
    (tmp_path / "a.pt").write_bytes(data[: len(data) // 2])
    with pytest.raises(ValueError, match="ends within an array"):
        safe_load_joblib(tmp_path / "a.pt")
    (tmp_path / "a.pt").write_bytes(b"\x78\x9cnot zlib")
    with pytest.raises(ValueError, match="not a readable pickle"):
        safe_load_joblib(tmp_path / "a.pt")


# ------------------------------------------------------------------------------------------------------------------ npz


def test_npz_of_arrays(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.arange(3), gender=np.array(b"male"))
    read = safe_load_npz(tmp_path / "a.npz")
    assert read["x"].tolist() == [0, 1, 2] and read["gender"].item() == b"male"


def test_npz_with_objects_is_refused_and_not_run(tmp_path):
    marker = tmp_path / "ran"
    np.savez(tmp_path / "a.npz", fine=np.arange(3), positions_3d=np.array({"S1": Hostile(marker)}))
    with pytest.raises(UnsafeFileError, match="'positions_3d'.*pickled Python object"):
        safe_load_npz(tmp_path / "a.npz")
    (tmp_path / "b.npz").write_bytes(pickle.dumps(Hostile(marker)))
    with pytest.raises(UnsafeFileError, match="under the name of an npz"):
        safe_load_npz(tmp_path / "b.npz")
    assert not marker.exists()


def test_npz_that_is_none(tmp_path):
    np.save(tmp_path / "a.npy", np.arange(3))
    (tmp_path / "cut.npz").write_bytes(b"PK\x03\x04 and no more")
    (tmp_path / "empty.npz").touch()
    for name in ("a.npy", "cut.npz", "empty.npz"):
        with pytest.raises(ValueError, match=name):
            safe_load_npz(tmp_path / name)
    with pytest.raises(FileNotFoundError):
        safe_load_npz(tmp_path / "none.npz")


# ---------------------------------------------------------------------------------------------------------- checkpoints


def test_checkpoints_of_both_kinds(tmp_path):
    weights = {"layer.weight": torch.arange(6.0).view(2, 3), "layer.bias": torch.ones(2, dtype=torch.float16)}
    safetensors.torch.save_file(weights, tmp_path / "a.safetensors")
    safetensors.torch.save_file(weights, tmp_path / "b.ckpt")
    extra = {"epoch": 3, "best_metric": np.float64(71.5), "history": np.arange(3), "optimizer": {"lr": 1e-3}}
    torch.save({"model": collections.OrderedDict(weights), **extra}, tmp_path / "c.pt")
    torch.save({"model": weights, **extra}, tmp_path / "d.pth", _use_new_zipfile_serialization=False)
    for name in ("a.safetensors", "b.ckpt"):
        assert all(torch.equal(load_checkpoint(tmp_path / name)[key], value) for key, value in weights.items())
    for name in ("c.pt", "d.pth"):
        read = load_checkpoint(tmp_path / name)
        assert all(torch.equal(read["model"][key], value) for key, value in weights.items())
        assert read["best_metric"] == 71.5 and read["history"].tolist() == [0, 1, 2]


@pytest.mark.parametrize("zipped", [True, False])
def test_hostile_checkpoints_are_refused_and_not_run(tmp_path, zipped):
    marker = tmp_path / "ran"
    torch.save({"model": {"w": torch.zeros(2)}, "args": Hostile(marker)}, tmp_path / "a.pt",
               _use_new_zipfile_serialization=zipped)
    with pytest.raises(UnsafeFileError, match=r"a\.pt.*more than weights.*mkdir"):
        load_checkpoint(tmp_path / "a.pt")
    (tmp_path / "b.pt").write_bytes(pickle.dumps(Hostile(marker), 2))
    with pytest.raises(UnsafeFileError, match="more than weights"):
        load_checkpoint(tmp_path / "b.pt")
    assert not marker.exists()


def test_damaged_checkpoints_end_in_a_sentence(tmp_path):
    torch.save({"w": torch.zeros(1000)}, tmp_path / "whole.pt")
    data = (tmp_path / "whole.pt").read_bytes()
    contents = {"cut.pt": data[: len(data) // 2], "text.pt": b"hello there", "empty.pt": b"",
                "a.safetensors": b"\x01" * 40, "b.safetensors": b"\x05\0\0\0\0\0\0\0{zzz}"}  # fmt: skip
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=name):
            load_checkpoint(tmp_path / name)


# -------------------------------------------------------------------------------------------------- writing and hashes


def test_atomic_write_replaces_only_when_whole(tmp_path):
    target = tmp_path / "new" / "a.npz"
    with atomic_write(target) as temporary:
        assert temporary.parent == target.parent and temporary.suffix == ".npz"
        np.savez(temporary, x=np.arange(3))
        assert not target.exists()
    assert safe_load_npz(target)["x"].tolist() == [0, 1, 2]
    before = target.read_bytes()
    with pytest.raises(OSError, match="No space left"):
        with atomic_write(target) as temporary:
            temporary.write_bytes(b"half")
            raise OSError("No space left on device")
    with pytest.raises(KeyboardInterrupt):
        with atomic_write(target) as temporary:
            temporary.write_bytes(b"half")
            raise KeyboardInterrupt
    assert target.read_bytes() == before
    assert [p.name for p in target.parent.iterdir()] == ["a.npz"]


def test_atomic_write_of_nothing_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        with atomic_write(tmp_path / "a.json"):
            pass
    assert list(tmp_path.iterdir()) == []


def test_hashes(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    assert sha256_file(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    x, y = np.arange(6.0).reshape(2, 3), np.array([1, 2])
    base = sha256_arrays({"x": x, "y": y})
    assert base == sha256_arrays({"y": y, "x": np.asfortranarray(x)})
    assert base == sha256_arrays({"x": x.astype(">f8"), "y": y})
    others = [{"x": x + 1e-9, "y": y}, {"x": x.reshape(3, 2), "y": y}, {"x": x, "z": y}, {"x": x, "y": y.astype("i4")}]
    for other in others:
        assert sha256_arrays(other) != base
    assert len(sha256_arrays({"empty": np.zeros((0, 3))})) == 64
