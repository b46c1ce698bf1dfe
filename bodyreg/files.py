"""Files that others made or that a crash may hit: the search list, safe reading, hashes, atomic writing.

Nothing read through this module can run code: pickles go through a list of allowed classes
(`bodyreg.pickles`), npz files are opened without pickle, checkpoints with `weights_only`.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import uuid
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bodyreg.pickles import UnsafeFileError, safe_load_joblib, safe_load_object_npz, safe_unpickle

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

__all__ = ["MissingFileError", "UnsafeFileError", "atomic_write", "find_licensed", "load_checkpoint",
           "safe_load_joblib", "safe_load_npz", "safe_load_object_npz", "safe_unpickle", "search_places",
           "sha256_arrays", "sha256_file", "user_data_folder"]

ENVIRONMENT = "BODYREG_DATA"


class MissingFileError(FileNotFoundError, ValueError):
    """A licensed file is not there; the message lists every place searched and where to register."""


# ------------------------------------------------------------------------------------------------------- search list


def user_data_folder() -> Path:
    """The user's data folder of this package, as the operating system has it."""
    import platformdirs

    return Path(platformdirs.user_data_dir("bodyreg", appauthor=False))


def search_places(given: str | os.PathLike[str] | None = None) -> list[tuple[str, Path | None]]:
    """(how it is named to the user, folder or None if unset) in the order of search."""
    environment = os.environ.get(ENVIRONMENT)
    return [
        ("the path given", Path(given).expanduser() if given is not None else None),
        (ENVIRONMENT, Path(environment).expanduser() if environment else None),
        ("the user data folder", user_data_folder()),
    ]


def find_licensed(names: Sequence[str], given: str | os.PathLike[str] | None = None, *, what: str = "a licensed file",
                  register: str = "https://smpl.is.tue.mpg.de", subfolders: Sequence[str] = ("",)) -> Path:
    """Find a file that users must bring: in `given`, then in the folder `BODYREG_DATA`, then in the user data folder.

    Args:
        names: acceptable file names, best first, compared without regard to case.
        given: a file, which is then the answer, or a folder to search first.
        what: the file's description for the error.
        register: where the user gets it.
        subfolders: looked into below each folder, in this order.

    Raises:
        MissingFileError: listing names, places and the address.
    """
    tried: list[str] = []
    for how, place in search_places(given):
        if place is None:
            tried.append(f"{how} (not set)" if how == ENVIRONMENT else f"{how} (none)")
            continue
        if place.is_file():
            return place
        tried.append(f"{how}: {place}" + ("" if place.exists() else " (does not exist)"))
        for sub in subfolders:
            found = _in_folder(place / sub, names)
            if found is not None:
                return found
        if how == "the path given" and place.suffix and not place.is_dir():
            break  # a file was meant: another one from elsewhere would be a surprise
    places = "".join(f"\n  {line}" for line in tried)
    below = ", ".join(sub for sub in subfolders if sub)
    raise MissingFileError(
        f"Cannot find {what}. Names tried: {', '.join(names)}.\nPlaces searched"
        f"{f' (and the folders {below} in each)' if below else ''}:{places}\n"
        f"Register and download it at {register}, then pass its path or put it into one of these folders."
    )


def _in_folder(folder: Path, names: Sequence[str]) -> Path | None:
    try:
        entries = {entry.name.lower(): entry for entry in sorted(folder.iterdir()) if entry.is_file()}
    except OSError:
        return None
    return next((entries[name.lower()] for name in names if name.lower() in entries), None)


# ------------------------------------------------------------------------------------------------------ safe reading


def safe_load_npz(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Arrays of an npz file, read without pickle.

    Raises:
        UnsafeFileError: an entry is a pickled object.
        ValueError: not an npz file.
    """
    path = Path(path)
    arrays: dict[str, np.ndarray] = {}
    try:
        loaded = np.load(path, allow_pickle=False)
        if not isinstance(loaded, np.lib.npyio.NpzFile):
            raise ValueError(f"{path} is a single array, not an npz archive. Give an .npz file.")
        with loaded as archive:
            for key in archive.files:
                try:
                    arrays[key] = archive[key]
                except ValueError as error:
                    if "pickle" not in str(error).lower():
                        raise
                    raise UnsafeFileError(f"Entry {key!r} of {path} is a pickled Python object, which could run code. "
                                          "Convert the file to plain arrays and try again.") from None
    except (zipfile.BadZipFile, EOFError, OSError) as error:
        if isinstance(error, FileNotFoundError | PermissionError | IsADirectoryError):
            raise
        raise ValueError(f"{path} is not a readable npz file ({error}). Fetch or write it again.") from None
    except UnsafeFileError:
        raise
    except ValueError as error:
        if "pickle" in str(error).lower():
            raise UnsafeFileError(f"{path} is a pickle under the name of an npz. Give a real npz file.") from None
        raise
    return arrays


def load_checkpoint(path: str | os.PathLike[str]) -> Any:
    """Tensors of a checkpoint: safetensors, or a PyTorch file read with `weights_only`.

    Returns what the file holds (a state dict, or a dict around one), on the CPU.

    Raises:
        UnsafeFileError: the file holds anything but tensors and plain containers; nothing of it is run.
    """
    import pickle

    path = Path(path)
    with path.open("rb") as file:
        head = file.read(9)
    if head[8:9] == b"{" or path.suffix == ".safetensors":
        import safetensors
        import safetensors.torch

        try:
            return safetensors.torch.load_file(path, device="cpu")
        except safetensors.SafetensorError as error:
            raise ValueError(f"{path} is not a readable safetensors file ({error}). Fetch it again.") from None
    import torch

    try:
        with torch.serialization.safe_globals(_numpy_globals()):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else "unknown content"
        named = [line for line in str(error).splitlines() if "GLOBAL" in line or "global" in line]
        raise UnsafeFileError(f"The checkpoint {path} holds more than weights and was not opened "
                              f"({(named or [reason])[0].strip()[:300]}). Save its state dict as safetensors and use "
                              "that.") from None
    except (RuntimeError, EOFError, ValueError, KeyError, AttributeError, TypeError, IndexError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ValueError(f"{path} is not a readable checkpoint ({reason[:300]}). Fetch it again.") from None


def _numpy_globals() -> list[Any]:
    """Numpy scalars, arrays and generators: training scripts leave a best score or a random state beside the weights.

    A generator becomes an inert object: nothing of numpy's random module is imported or run.
    """
    import numpy._core.multiarray as multiarray

    named = [(f, f"numpy.{core}.multiarray.{f.__name__}") for core in ("core", "_core")
             for f in (multiarray.scalar, multiarray._reconstruct)]
    dtypes = [getattr(np.dtypes, name) for name in dir(np.dtypes) if name.endswith("DType")
              and name not in ("ObjectDType", "VoidDType")]
    random = [(_RandomState, name) for name in _RANDOM_STATES]
    return [*named, *random, np.ndarray, np.dtype, *dtypes]


class _RandomState:
    """Stands in for a generator of random numbers that a checkpoint holds; its state is thrown away."""

    def __init__(self, *args: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass


# What numpy's generators call themselves in pickles, from version 1.11 to 2.
_RANDOM_STATES = (
    "numpy.random.__RandomState_ctor", "numpy.random.mtrand.__RandomState_ctor", "numpy.random.mtrand.RandomState",
    *(f"numpy.random._pickle.__{kind}_ctor" for kind in ("randomstate", "bit_generator", "generator")),
    "numpy.random._mt19937.MT19937", "numpy.random._pcg64.PCG64",
)  # fmt: skip


# ------------------------------------------------------------------------------------------------- writing and hashes


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Write a file whole or not at all.

    Yields a temporary path in the same folder (made if need be) with the same suffix. When the block ends, the file is
    flushed to the disk and renamed over `path`; when it raises, or the disk is full, the temporary file is removed and
    what stood at `path` before stays.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".tmp-{uuid.uuid4().hex[:16]}{path.suffix}")
    try:
        yield temporary
        # "r+b": Windows refuses to flush a file that is open for reading only.
        with temporary.open("r+b") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    if os.name == "posix":
        with contextlib.suppress(OSError):
            folder = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)


def sha256_file(path: str | os.PathLike[str]) -> str:
    """Hexadecimal SHA-256 of a file's bytes."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_arrays(arrays: Mapping[str, np.ndarray]) -> str:
    """Hexadecimal SHA-256 over names, types, shapes and values (little-endian, row-major), independent of key order."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = np.asarray(arrays[name])
        array = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
        digest.update(f"{name}|{array.dtype.str}|{array.shape}|".encode())
        digest.update(array.data if array.size else b"")
    return digest.hexdigest()
