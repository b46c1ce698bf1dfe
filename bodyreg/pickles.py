"""Reading pickles and joblib files from strangers without running anything in them.

A pickle is a program; ours may build numbers, strings, containers, numpy arrays, sparse matrices and the two chumpy
objects that SMPL's files hold, and nothing else. Every class a file names is looked up in a table of inert stand-ins,
never imported, so an unknown one ends the reading with its name. Chumpy and scipy are not needed.
"""

from __future__ import annotations

import bz2
import collections
import gzip
import io
import lzma
import pickle
import zipfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy._core.multiarray as _multiarray

if TYPE_CHECKING:
    import os
    from collections.abc import Callable

#: Refuse to expand a sparse matrix beyond this many entries (1 GiB of float64).
MAX_DENSE = 1 << 27


class UnsafeFileError(ValueError):
    """A file holds objects that could run code; nothing of it was run."""


class _Frozen(type):
    """Classes that a pickle can instantiate and not change."""

    def __setattr__(cls, name: str, value: Any) -> None:
        raise pickle.UnpicklingError(f"attribute {name} of a class is set")


class _StandIn(metaclass=_Frozen):
    """Holds the state of a foreign object, whose class is never imported."""

    __slots__ = ("state",)
    label = "object"

    def __init__(self, *args: Any) -> None:
        self.state: dict[str, Any] = {}

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, tuple) and len(state) == 2 and isinstance(state[0], dict | None):
            state = {**(state[0] or {}), **(state[1] or {})}
        if not isinstance(state, dict):
            raise pickle.UnpicklingError(f"{self.label} has a state of type {type(state).__name__}")
        self.state = state


class _Ch(_StandIn):
    label = "chumpy.ch.Ch"


class _Select(_StandIn):
    label = "chumpy.reordering.Select"


class _Csc(_StandIn):
    label = "scipy.sparse.csc_matrix"


class _Csr(_StandIn):
    label = "scipy.sparse.csr_matrix"


class _JoblibArray(_StandIn):
    label = "joblib.numpy_pickle.NumpyArrayWrapper"


class _Call:
    """A function that a pickle can call and not change."""

    __slots__ = ("_function",)
    _function: Callable[..., Any]

    def __init__(self, function: Callable[..., Any]) -> None:
        object.__setattr__(self, "_function", function)

    def __call__(self, *args: Any) -> Any:
        return self._function(*args)

    def __setattr__(self, name: str, value: Any) -> None:
        raise pickle.UnpicklingError("attribute of a function is set")

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError("state of a function is set")


def _reconstruct_array(subtype: Any, shape: Any, typecode: Any) -> Any:
    # The array is always an empty one that its state fills; another shape would only reserve memory.
    if subtype is not np.ndarray:
        raise pickle.UnpicklingError(f"array of type {subtype!r}")
    return _multiarray._reconstruct(np.ndarray, (0,), b"b")


def _scalar(dtype: Any, value: Any = None) -> Any:
    if not isinstance(dtype, np.dtype) or dtype.hasobject:
        raise pickle.UnpicklingError("scalar of an object type")
    return _multiarray.scalar(dtype, value.encode("latin1") if isinstance(value, str) else value)


def _from_buffer(buffer: Any, dtype: Any, shape: Any, order: Any) -> np.ndarray:
    if not isinstance(dtype, np.dtype) or dtype.hasobject:
        raise pickle.UnpicklingError("array buffer of an object type")
    return np.frombuffer(buffer, dtype=dtype).reshape(shape, order=order).copy()


def _encode(text: str, encoding: str = "latin1") -> bytes:
    if str(encoding).lower().replace("-", "") not in ("latin1", "iso88591", "utf8", "ascii"):
        raise pickle.UnpicklingError(f"text encoding {encoding!r}")
    return text.encode(encoding)


def _reconstructor(cls: Any, base: Any, state: Any = None) -> Any:
    """`copy_reg._reconstructor` of protocols 0 and 1, for stand-ins and plain containers only."""
    if isinstance(cls, type) and issubclass(cls, _StandIn):
        return cls()
    if cls in (dict, list, set, collections.OrderedDict):
        return cls(state) if state is not None else cls()
    raise pickle.UnpicklingError(f"rebuilding of {cls!r}")



def _empty_bytes() -> bytes:
    """What Python 3 writes for empty bytes at the old protocols."""
    return b""


_BUILTINS = {"bytes": _Call(_empty_bytes), "object": object, "set": set, "dict": dict, "list": list}
_TABLE: dict[str, Any] = {
    **{f"{module}.{name}": value for module in ("builtins", "__builtin__") for name, value in _BUILTINS.items()},
    **{f"numpy.{core}.multiarray.{name}": _Call(function) for core in ("core", "_core")
       for name, function in (("_reconstruct", _reconstruct_array), ("scalar", _scalar))},
    **{f"numpy.{core}.numeric._frombuffer": _Call(_from_buffer) for core in ("core", "_core")},
    "numpy.ndarray": np.ndarray,
    "numpy.dtype": np.dtype,
    "_codecs.encode": _Call(_encode),
    **{f"{module}._reconstructor": _Call(_reconstructor) for module in ("copy_reg", "copyreg")},
    **{f"scipy.sparse.{module}{kind}.{kind}_matrix": stand_in for kind, stand_in in (("csc", _Csc), ("csr", _Csr))
       for module in ("", "_")},
    "chumpy.ch.Ch": _Ch,
    "chumpy.Ch": _Ch,
    "chumpy.reordering.Select": _Select,
    "collections.OrderedDict": collections.OrderedDict,
}
_JOBLIB_TABLE = {**_TABLE, "joblib.numpy_pickle.NumpyArrayWrapper": _JoblibArray}


def _look_up(table: dict[str, Any], module: str, name: str) -> Any:
    full = f"{module}.{name}"
    if full in table:
        return table[full]
    if module.split(".")[0] == "chumpy":
        raise UnsafeFileError(f"it holds the chumpy object {full}, so it was saved from a live model")
    raise UnsafeFileError(f"it names {full}, which is not in the list of harmless classes")


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        return _look_up(_TABLE, module, name)


def safe_unpickle(path: str | os.PathLike[str]) -> Any:
    """Read a pickle of Python 2 or 3 (any protocol, strings as latin-1) that holds arrays and plain containers.

    Chumpy arrays become their values and scipy's sparse matrices dense arrays, inside dicts, lists and tuples.

    Raises:
        UnsafeFileError: the file names any other class; the message says which. Nothing of it is run.
        ValueError: the file is not a pickle or is damaged.
    """
    path = Path(path)
    with path.open("rb") as file:
        return _guarded(path, lambda: _Unpickler(file, encoding="latin1").load())


def _guarded(path: Path, load: Callable[[], Any]) -> Any:
    """Run a loader and resolve its stand-ins; every fault becomes one of our two errors."""
    try:
        return _resolve(load(), set())
    except UnsafeFileError as error:
        raise UnsafeFileError(f"{path} was not opened: {error}. Nothing of it was run; convert it to plain arrays "
                              "where you trust it.") from None
    except pickle.UnpicklingError as error:
        raise UnsafeFileError(f"{path} was not opened: it is damaged or holds something unusual ({error}). "
                              "Fetch it again or convert it to plain arrays.") from None
    except (EOFError, TypeError, ValueError, AttributeError, KeyError, IndexError, MemoryError, OverflowError,
            RecursionError, zlib.error, lzma.LZMAError, gzip.BadGzipFile, OSError) as error:
        raise ValueError(f"{path} is not a readable pickle ({type(error).__name__}: {error}). "
                         "Fetch it again.") from None


# ----------------------------------------------------------------------------------------------- stand-ins to arrays


def _resolve(value: Any, active: set[int]) -> Any:
    """Replace stand-ins by arrays inside containers and object arrays; a structure within itself is refused."""
    if not isinstance(value, _StandIn | dict | list | tuple | np.ndarray):
        return value
    if isinstance(value, np.ndarray) and not value.dtype.hasobject:
        return value
    if id(value) in active:
        raise UnsafeFileError("it holds a structure that contains itself")
    active.add(id(value))
    try:
        if isinstance(value, _StandIn):
            return _value_of(value, active)
        if isinstance(value, dict):
            return {key: _resolve(entry, active) for key, entry in value.items()}
        if isinstance(value, list):
            return [_resolve(entry, active) for entry in value]
        if isinstance(value, tuple):
            return tuple(_resolve(entry, active) for entry in value)
        if value.dtype != object:
            raise UnsafeFileError(f"it holds an array of type {value.dtype}")
        out = np.empty(value.shape, object)
        for index in np.ndindex(value.shape):
            out[index] = _resolve(value[index], active)
        return out
    finally:
        active.discard(id(value))


def _value_of(stand_in: _StandIn, active: set[int]) -> np.ndarray:
    state = stand_in.state
    if isinstance(stand_in, _Ch) and "x" in state:
        return np.asarray(_resolve(state["x"], active))
    if isinstance(stand_in, _Select) and {"a", "idxs"} <= state.keys():
        picked = np.ravel(_resolve(state["a"], active))[np.asarray(state["idxs"])]
        shape = state.get("preferred_shape")
        return picked if shape is None else picked.reshape(shape)
    if isinstance(stand_in, _Csc | _Csr):
        return _dense(state, column_major=isinstance(stand_in, _Csc))
    raise UnsafeFileError(f"it holds a {stand_in.label} without its values")


def _dense(state: dict[str, Any], *, column_major: bool) -> np.ndarray:
    """Dense array of a compressed sparse matrix's parts; repeated entries add up, as in scipy."""
    shape = tuple(int(n) for n in state.get("_shape", state.get("shape", ())))
    data, indices, indptr = (np.asarray(state[key]) for key in ("data", "indices", "indptr"))
    if len(shape) != 2 or min(shape) < 0 or shape[0] * shape[1] > MAX_DENSE:
        raise UnsafeFileError(f"it holds a sparse matrix of shape {shape}")
    outer, inner = (shape[1], shape[0]) if column_major else shape
    starts = indptr.astype(np.int64)
    counts = starts[1:] - starts[:-1]
    whole = len(indptr) == outer + 1 and indptr[0] == 0 and indptr[-1] == len(data) == len(indices)
    if not whole or (counts < 0).any() or (len(indices) and not 0 <= indices.min() <= indices.max() < inner):
        raise UnsafeFileError("it holds a sparse matrix whose parts do not fit together")
    lines = np.zeros((outer, inner), data.dtype)
    np.add.at(lines, (np.repeat(np.arange(outer), counts), indices), data)
    return lines.T.copy() if column_major else lines


# ------------------------------------------------------------------------------------------------------------ joblib


class _JoblibUnpickler(pickle._Unpickler):
    """Joblib writes an array's bytes into the stream behind its wrapper; only Python's own unpickler can stop there."""

    stack: list[Any]

    def __init__(self, file: io.BufferedIOBase) -> None:
        super().__init__(file, encoding="latin1")
        self._stream = file

    def find_class(self, module: str, name: str) -> Any:
        if name == "NDArrayWrapper":
            raise UnsafeFileError("it was written by a joblib before 0.10, with its arrays in separate files")
        return _look_up(_JOBLIB_TABLE, module, name)

    def _load_build(self) -> None:
        pickle._Unpickler.load_build(self)  # type: ignore[attr-defined]
        if isinstance(self.stack[-1], _JoblibArray):
            self.stack[-1] = self._read_array(self.stack[-1].state)

    dispatch: ClassVar[dict[int, Any]] = {**pickle._Unpickler.dispatch, pickle.BUILD[0]: _load_build}

    def _read_array(self, state: dict[str, Any]) -> np.ndarray:
        dtype, shape, order = state["dtype"], tuple(int(n) for n in state["shape"]), state["order"]
        if not isinstance(dtype, np.dtype) or state["subclass"] is not np.ndarray or min(shape, default=0) < 0:
            raise UnsafeFileError("it holds an unusual kind of array")
        if dtype.hasobject:
            return _JoblibUnpickler(self._stream).load()
        if state.get("numpy_array_alignment_bytes") is not None:
            padding = self._stream.read(1)
            self._stream.read(padding[0] if padding else 0)
        wanted = int(np.prod(shape, dtype=object)) * dtype.itemsize if shape else dtype.itemsize
        data = bytearray()
        while len(data) < wanted:
            # In pieces, so that a false size fails at the end of the file and not in memory.
            piece = self._stream.read(min(wanted - len(data), 1 << 24))
            if not piece:
                raise EOFError("the file ends within an array")
            data += piece
        return np.frombuffer(data, dtype=dtype).reshape(shape, order="F" if order == "F" else "C")


def safe_load_joblib(path: str | os.PathLike[str]) -> Any:
    """Read what `joblib.dump` wrote, plain or compressed (zlib, gzip, bz2, xz, lzma), by the rules of `safe_unpickle`.

    Plain pickles are read too, since both circulate under one suffix.
    """
    path = Path(path)
    with path.open("rb") as file:
        head = file.read(6)
        file.seek(0)

        def load() -> Any:
            stream: Any = file
            if head.startswith(b"\x1f\x8b"):
                stream = gzip.GzipFile(fileobj=file)
            elif head.startswith(b"BZ"):
                stream = bz2.BZ2File(file)
            elif head.startswith((b"\xfd7zXZ", b"\x5d\x00")):
                stream = lzma.LZMAFile(file)
            elif head[:1] == b"\x78" and head[1:2] in (b"\x01", b"\x5e", b"\x9c", b"\xda"):
                stream = io.BytesIO(zlib.decompress(file.read()))
            elif head.startswith(b"\x04\x22\x4d\x18"):
                raise UnsafeFileError("it is compressed with lz4, which is not read here")
            return _JoblibUnpickler(stream).load()

        return _guarded(path, load)


# --------------------------------------------------------------------------------------------------- pickles inside npz


def safe_load_object_npz(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Entries of an npz whose arrays may be pickled Python objects, read by the rules of `safe_unpickle`.

    A single pickled object, as `numpy.savez(file, positions=dictionary)` stores it, is given without an array around.

    Raises:
        UnsafeFileError: an entry names a class that is not in the list. ValueError: no npz, or a damaged one.
    """
    path = Path(path)
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if name.endswith(".npy")]
            return {name.removesuffix(".npy"): _entry_of(archive, name, path) for name in names}
    except (zipfile.BadZipFile, EOFError) as error:
        raise ValueError(f"{path} is not a readable npz file ({error}). Fetch it again.") from None


def _entry_of(archive: zipfile.ZipFile, name: str, path: Path) -> Any:
    with archive.open(name) as file:
        version = np.lib.format.read_magic(file)
        header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        _, _, dtype = header(file)
        if dtype.hasobject:
            value = _guarded(path, lambda: _Unpickler(file, encoding="latin1").load())
            return value.item() if isinstance(value, np.ndarray) and value.shape == () else value
    with archive.open(name) as file:
        return np.lib.format.read_array(file, allow_pickle=False)
