"""SMPL files as they come: old pickles with chumpy objects, many names, damaged or hostile; exports, conversion."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import logging
import os
import pickle
import struct
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse
import smplx
import torch

from bodyreg.body import BodyModel
from bodyreg.body_export import convert_body, export_body, smpl_dictionary
from bodyreg.body_files import check_arrays, file_names, find_body, mesh_fault, read_body
from bodyreg.files import MissingFileError, UnsafeFileError, safe_load_npz


class Python2Pickler(pickle._Pickler):
    """Writes bytes and text as Python 2 wrote its one kind of string."""

    def save_string(self, obj):
        data = obj.encode("latin1") if isinstance(obj, str) else obj
        if self.bin:
            self.write(b"T" + struct.pack("<I", len(data)) + data)
        else:
            self.write(b"S" + repr(data)[1:].encode("ascii") + b"\n")
        self.memoize(obj)

    dispatch = {**pickle._Pickler.dispatch, str: save_string, bytes: save_string}


def python2_pickle(value, protocol: int) -> bytes:
    """A pickle as numpy 1.x and scipy 0.x wrote it under Python 2: old module paths, no framing."""
    file = io.BytesIO()
    Python2Pickler(file, protocol=protocol, fix_imports=True).dump(value)
    data = file.getvalue()
    renamed = {b"numpy._core.multiarray": b"numpy.core.multiarray", b"scipy.sparse._csc": b"scipy.sparse.csc"}
    for new, old in renamed.items():
        data = data.replace(b"c" + new + b"\n", b"c" + old + b"\n")
    return data


@pytest.fixture
def chumpy(monkeypatch):
    """Stand-ins for chumpy's classes under their real names; the pickles they leave are what v1.0 files hold."""

    class Ch:
        def __init__(self, x=None):
            self.__dict__.update(x=x, _dirty_vars=set(), _itr=None, _make_dense=True, _make_sparse=False,
                                 _depends_on_deps={}, _status="new")

    class Select(Ch):
        def __init__(self, a, idxs, preferred_shape):
            super().__init__()
            del self.x
            self.a, self.idxs, self.preferred_shape = a, idxs, preferred_shape

    class add(Ch):
        pass

    modules = {name: types.ModuleType(name) for name in ("chumpy", "chumpy.ch", "chumpy.reordering", "chumpy.ch_ops")}
    for cls, module in ((Ch, "chumpy.ch"), (Select, "chumpy.reordering"), (add, "chumpy.ch_ops")):
        cls.__module__, cls.__qualname__ = module, cls.__name__
        setattr(modules[module], cls.__name__, cls)
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    yield types.SimpleNamespace(Ch=Ch, Select=Select, add=add)


def forget_chumpy(monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "chumpy"]:
        monkeypatch.delitem(sys.modules, name)


def official(arrays: dict, chumpy, components: int) -> dict:
    """The content of an official file: chumpy arrays, a Select, sparse regressor, unsigned root, no mirror table."""
    full = np.concatenate([arrays["shapedirs"], np.zeros((len(arrays["v_template"]), 3, 3))], 2)
    keep = np.arange(full.size).reshape(full.shape)[:, :, :components]
    tree = arrays["kintree_table"].astype(np.int64).copy()
    tree[0, 0] = 4294967295
    return {
        "v_template": chumpy.Ch(arrays["v_template"]),
        "shapedirs": chumpy.Select(chumpy.Ch(full), keep.ravel(), keep.shape),
        "posedirs": chumpy.Ch(arrays["posedirs"]),
        "weights": chumpy.Ch(arrays["weights"]),
        "J_regressor": scipy.sparse.csc_matrix(arrays["J_regressor"]),
        "J": chumpy.Ch(arrays["J_regressor"] @ arrays["v_template"]),
        "J_regressor_prior": scipy.sparse.csc_matrix(arrays["J_regressor"]),
        "kintree_table": tree.astype(np.uint32),
        "f": arrays["f"],
        "bs_style": "lbs",
        "bs_type": "lrotmin",
    }


@pytest.mark.parametrize("protocol", [0, 2])
@pytest.mark.parametrize("components", [10, 300])
def test_official_pickles_load_without_chumpy(make_smpl_arrays, chumpy, monkeypatch, tmp_path, protocol, components):
    arrays = make_smpl_arrays(12, components)
    data = python2_pickle(official(arrays, chumpy, components), protocol)
    assert data.startswith(b"(dp0" if protocol == 0 else b"\x80\x02}")
    for word in (b"chumpy.ch\n", b"chumpy.reordering\n", b"scipy.sparse.csc\n", b"numpy.core.multiarray\n",
                 b"__builtin__\nset"):
        assert word in data, word
    forget_chumpy(monkeypatch)
    path = tmp_path / "basicmodel_m_lbs_10_207_0_v1.0.0.pkl"
    path.write_bytes(data)
    body = BodyModel.load(path, dtype=torch.float64)
    assert body.gender == "male" and body.num_betas == 10 and body.parents[0] == -1
    assert body.arrays.shapedirs.shape[2] == components and body.arrays.mirror is None
    for key in ("v_template", "posedirs", "J_regressor", "weights"):
        np.testing.assert_array_equal(getattr(body, key).numpy(), arrays[key], err_msg=key)
    np.testing.assert_array_equal(body.shapedirs.numpy(), arrays["shapedirs"][:, :, :10])
    assert BodyModel.load(path, num_betas=components).num_betas == components


def test_live_chumpy_expressions_are_refused(smpl_arrays, chumpy, monkeypatch, tmp_path):
    content = official(smpl_arrays, chumpy, 10) | {"v_template": chumpy.add(smpl_arrays["v_template"])}
    path = tmp_path / "SMPL_NEUTRAL.pkl"
    path.write_bytes(python2_pickle(content, 2))
    forget_chumpy(monkeypatch)
    with pytest.raises(UnsafeFileError, match="chumpy.ch_ops.add.*live model"):
        read_body(path)


class Hostile:
    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_hostile_body_is_refused_and_not_run(smpl_arrays, tmp_path, protocol):
    marker = tmp_path / "ran"
    path = tmp_path / "SMPL_NEUTRAL.pkl"
    path.write_bytes(pickle.dumps({**smpl_arrays, "pose_training_info": Hostile(marker)}, protocol))
    with pytest.raises(UnsafeFileError, match=r"mkdir.*harmless classes.*Nothing of it was run"):
        BodyModel.load(path)
    assert not marker.exists()


# ------------------------------------------------------------------------------------------------------------ searching


@pytest.mark.parametrize("gender", ["neutral", "male", "female"])
def test_every_usual_name_is_found_in_any_case_and_below(smpl_arrays, tmp_path, gender):
    for i, name in enumerate(file_names(gender)):
        folder = tmp_path / str(i) / ("smpl" if i % 2 else "")
        folder.mkdir(parents=True)
        target = folder / (name.upper() if i % 3 else name.lower())
        target.touch()
        assert find_body(tmp_path / str(i), gender) == target
        others = {"neutral", "male", "female"} - {gender}
        for other in others:
            with pytest.raises(MissingFileError):
                find_body(tmp_path / str(i), other)


def test_official_names_are_among_those_tried():
    assert "basicModel_f_lbs_10_207_0_v1.0.0.pkl" in file_names("female")
    assert "basicmodel_m_lbs_10_207_0_v1.0.0.pkl".lower() in [name.lower() for name in file_names("male")]
    assert "basicmodel_neutral_lbs_10_207_0_v1.1.0.pkl" in file_names("neutral")
    with pytest.raises(ValueError, match="Unknown gender"):
        file_names("unisex")


def test_missing_body_names_files_places_and_registration(tmp_path, monkeypatch):
    monkeypatch.setenv("BODYREG_DATA", str(tmp_path / "data"))
    with pytest.raises(MissingFileError) as caught:
        BodyModel.load(tmp_path / "models", "female")
    text = str(caught.value)
    for part in ("SMPL_FEMALE.pkl", str(tmp_path / "models"), str(tmp_path / "data"), "user data folder",
                 "https://smpl.is.tue.mpg.de"):
        assert part in text


def test_search_list_finds_smpl_by_name(smpl_arrays, tmp_path, monkeypatch):
    monkeypatch.setenv("BODYREG_DATA", str(tmp_path))
    export_body(check_arrays(smpl_arrays, gender="female"), tmp_path / "smpl", formats=["npz"])
    assert BodyModel.load("smpl", "female").gender == "female"


def test_kid_template_beside_the_file(smpl_arrays, tmp_path):
    kid = smpl_arrays.pop("kid_template")
    (path,) = export_body(check_arrays(smpl_arrays), tmp_path, formats=["npz"])
    with pytest.raises(MissingFileError, match="child template"):
        BodyModel.load(path, kid=True)
    np.save(tmp_path / "smpl_kid_template.npy", kid)
    assert BodyModel.load(path, num_betas=11).has_kid
    (tmp_path / "smpl_kid_template.npy").rename(tmp_path / "mine.npy")
    body = BodyModel.load(path, kid=True, kid_template=tmp_path / "mine.npy")
    expected = kid - kid.mean(0) - smpl_arrays["v_template"]
    np.testing.assert_allclose(body.shapedirs[:, :, 10].numpy(), expected, atol=1e-6)


# --------------------------------------------------------------------------------------------------------------- checks


def broken(arrays: dict, key: str, value) -> dict:
    return {**arrays, key: value}


FAULTS = {
    "missing": (lambda a: {k: v for k, v in a.items() if k not in ("weights", "f")}, "lacks weights, f"),
    "style": (lambda a: broken(a, "bs_style", np.array(b"dqs")), "bs_style 'dqs'"),
    "type": (lambda a: broken(a, "bs_type", "lrotvec"), "bs_type 'lrotvec'"),
    "template": (lambda a: broken(a, "v_template", a["v_template"][:, :2]), r"v_template.*must be \(V, 3\)"),
    "vertices": (lambda a: broken(a, "weights", a["weights"][:-1]), r"weights.*\(49, 24\).*\(50, 24\)"),
    "shape": (lambda a: broken(a, "shapedirs", a["shapedirs"][:-1]), r"shapedirs.*\(50, 3, S\)"),
    "207": (lambda a: broken(a, "posedirs", a["posedirs"][:, :, :-9]), r"posedirs.*207"),
    "24": (lambda a: broken(a, "J_regressor", np.ones((52, 50)) / 50), "J_regressor.*SMPL-X"),
    "tree shape": (lambda a: broken(a, "kintree_table", a["kintree_table"][:, :23]), "kintree_table.*(2, 23)"),
    "tree": (lambda a: broken(a, "kintree_table", a["kintree_table"][:, [0, 2, 1, *range(4, 24), 3]]), "has parents"),
    "weight sums": (lambda a: broken(a, "weights", a["weights"] * 1.01), "weights.*sum of one"),
    "regressor sums": (lambda a: broken(a, "J_regressor", a["J_regressor"] * 0.99), "J_regressor.*sum of one"),
    "faces": (lambda a: broken(a, "f", a["f"] + 1), r"Faces.*1\.\.50.*has 50"),
    "face form": (lambda a: broken(a, "f", a["f"].astype(float)), "f has shape.*integers"),
    "nan": (lambda a: broken(a, "v_template", a["v_template"] * np.nan), "NaN"),
    "objects": (lambda a: broken(a, "posedirs", np.full((50, 3, 207), "x", object)), "not an array of numbers"),
    "kid": (lambda a: broken(a, "kid_template", np.zeros((9, 3))), "kid template"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_has_its_sentence(smpl_arrays, fault):
    change, message = FAULTS[fault]
    with pytest.raises(ValueError, match=message):
        check_arrays(change(smpl_arrays))


def test_root_in_unsigned_or_larger_numbers_is_the_root(smpl_arrays):
    for root, dtype in ((4294967295, np.uint32), (4294967296, np.int64), (-1, np.int64)):
        table = smpl_arrays["kintree_table"].copy()
        table[0, 0] = root
        assert check_arrays({**smpl_arrays, "kintree_table": table.astype(dtype)}).parents[0] == -1


def test_open_or_mixed_meshes_are_only_warned_about(smpl_arrays, caplog):
    faces = smpl_arrays["f"].astype(np.int64)
    assert mesh_fault(faces, 50) is None
    mixed = faces.copy()
    mixed[0] = mixed[0, ::-1]
    opened = faces.copy()
    opened[0] = [0, 20, 40]
    with caplog.at_level(logging.WARNING, "bodyreg"):
        for changed, word in ((faces[1:], "95 faces"), (mixed, "consistently wound"), (opened, "not closed")):
            caplog.clear()
            check_arrays({**smpl_arrays, "f": changed})
            assert word in caplog.text
        caplog.clear()
        check_arrays(smpl_arrays)
        assert not caplog.records


def test_damaged_and_foreign_files_are_refused(tmp_path):
    path = tmp_path / "SMPL_NEUTRAL.pkl"
    for content in (b"", b"hello", b"\x80\x02}q", pickle.dumps([1, 2])):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="SMPL_NEUTRAL.pkl"):
            read_body(path)


# ----------------------------------------------------------------------------------------------- exports and conversion


def test_exported_pickle_is_what_plain_smplx_loads(smpl_arrays, tmp_path):
    arrays = check_arrays(smpl_arrays, gender="male")
    export_body(arrays, tmp_path, formats=["pkl"], pad_betas=True)
    ids = {key: 0 for key in smplx.vertex_ids.vertex_ids["smplh"]}
    theirs = smplx.SMPL(str(tmp_path), gender="male", num_betas=10, vertex_ids=ids, batch_size=2)
    generator = torch.Generator().manual_seed(0)
    given = {"betas": torch.randn(2, 10, generator=generator), "body_pose": torch.randn(2, 69, generator=generator)}
    ours = BodyModel.load(tmp_path, "male")
    torch.testing.assert_close(ours(**given).vertices, theirs(**given).vertices, atol=1e-6, rtol=0)


def test_exports_are_the_same_body(make_smpl_arrays, tmp_path):
    raw = make_smpl_arrays(components=16) | {"vert_sym_idxs": np.arange(50), "regressors": {"h36m-17": np.eye(50)[:17]}}
    arrays = check_arrays(raw, gender="female", name="free")
    for path in export_body(arrays, tmp_path) + export_body(arrays, tmp_path / "wide", pad_betas=True):
        read = read_body(path)
        assert (read.hash, read.name, read.gender) == (arrays.hash, "free", "female"), path
        np.testing.assert_array_equal(read.regressors["h36m-17"], np.eye(50)[:17])
        np.testing.assert_array_equal(read.mirror, np.arange(50))
        np.testing.assert_allclose(read.kid_template, raw["kid_template"], rtol=1e-6)
    with pytest.raises(ValueError, match="Unknown body format 'fbx'"):
        export_body(arrays, tmp_path, formats=["fbx"])


def test_conversion_of_an_old_pickle(smpl_arrays, chumpy, monkeypatch, tmp_path):
    source, target = tmp_path / "basicModel_f_lbs_10_207_0_v1.0.0.pkl", tmp_path / "SMPL_FEMALE.npz"
    source.write_bytes(python2_pickle(official(smpl_arrays, chumpy, 10), 0))
    forget_chumpy(monkeypatch)
    arrays = convert_body(source, target)
    plain = safe_load_npz(target)
    assert plain["J_regressor"].shape == (24, 50) and plain["shapedirs"].dtype == np.float32
    read = read_body(target)
    assert read.hash == arrays.hash and read.gender == "female"
    with pytest.raises(ValueError, match="not an .npz"):
        convert_body(source, tmp_path / "x.pkl")


def test_files_of_chumpy_free_converters(smpl_arrays, tmp_path):
    plain = smpl_dictionary(check_arrays(smpl_arrays)) | {"gender": np.array(b"male"), "bs_style": np.array(b"lbs")}
    np.savez(tmp_path / "SMPL_MALE.npz", **plain)
    (tmp_path / "clean.pkl").write_bytes(pickle.dumps(plain, protocol=4))
    for name in ("SMPL_MALE.npz", "clean.pkl"):
        assert read_body(tmp_path / name).gender == "male"


def script():
    path = Path(__file__).parents[2] / "scripts" / "export_body.py"
    spec = importlib.util.spec_from_file_location("export_body", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_export_script(smpl_arrays, tmp_path):
    (source,) = export_body(check_arrays(smpl_arrays), tmp_path, formats=["pkl"])
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        assert script().main(["--body", str(source), "--gender", "neutral", "--out", str(tmp_path / "o")]) == 0
        assert script().main(["--convert", str(source), "--out", str(tmp_path / "c.npz")]) == 0
        assert script().main(["--body", str(tmp_path / "no"), "--out", str(tmp_path / "o")]) == 1
    assert "SMPL_NEUTRAL.npz" in out.getvalue() and "Places searched" in err.getvalue()
    hashes = {read_body(p).hash for p in (source, tmp_path / "c.npz", *(tmp_path / "o").iterdir())}
    assert len(hashes) == 1
