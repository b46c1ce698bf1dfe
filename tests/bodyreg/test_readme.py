"""The commands and the Python of the README do what stands there, on a small picture, few people and one step."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bodyreg.cli import app
from bodyreg.inference.results import read_person

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PHOTO = "two_people.jpg"

SMALL = {  # what a test adds so that seconds are enough
    "bodyreg view RESULTS": "--no-open",
    "bodyreg evaluate --people 256": "perspose_small data.held_out=SHARDS data.bank_size=2 --batch-size 4",
    "bodyreg train perspose_small run.steps=10000": "run.steps=1 data.shards=SHARDS data.held_out=SHARDS run.out=RUN "
    "data.crop_sizes=[32] data.phase_ends=[1.0] data.batch_size=2 data.bank_size=2 data.pool=1 run.precision=32-true",
    "bodyreg doctor": "",
}
# Run by another test, which makes the files it takes.
ELSEWHERE = {"bodyreg evaluate --predictions FILE --data SET --protocol pw3d-j14": "bodyreg/evaluation/test_heads.py"}


def commands() -> list[str]:
    """The command lines of the first block that shows some, without their comments."""
    block = next(text for text in re.findall(r"```\n(.*?)```", README, re.DOTALL) if "\nbodyreg infer" in text)
    return [line.split(" #")[0].strip() for line in block.splitlines() if line.startswith("bodyreg ")]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a photograph, its boxes and its intrinsics."""
    folder = tmp_path_factory.mktemp("readme")
    (folder / "photos").mkdir()
    shutil.copy(ROOT / "scripts" / "demo_photos" / PHOTO, folder / "photos")
    boxes = json.loads((ROOT / "scripts" / "demo_photos" / "boxes.json").read_text(encoding="utf-8"))
    (folder / "boxes.json").write_text(json.dumps({PHOTO: boxes[PHOTO]}))
    (folder / "K.json").write_text(json.dumps({PHOTO: {"fx": 560, "fy": 560, "cx": 480, "cy": 360}}))
    return folder


def keypoints(folder: Path, results: Path) -> None:
    """Key points of the people that were found, as OpenPose writes them, and two more frames of them."""
    people = [read_person(path) for path in sorted(results.glob("*_[0-9].json"))]
    folder.mkdir(exist_ok=True)
    points = [[[*xy, 1.0] for xy in person.keypoints["openpose-25"].tolist()] for person in people]
    content = {"people": [{"pose_keypoints_2d": sum(one, [])} for one in points]}
    for frame in (Path(PHOTO).stem, "frame_1", "frame_2"):
        (folder / f"{frame}_keypoints.json").write_text(json.dumps(content))


def test_every_command_of_the_readme_runs(place, shard_folder, monkeypatch) -> None:
    monkeypatch.chdir(place)
    names = {"PHOTOS": "photos", "RESULTS": "results", "MESHES": "meshes", "KEYPOINTS": "openpose", "LIFTED": "lifted",
             "SHARDS": str(shard_folder), "RUN": "run"}  # fmt: skip
    found = commands()
    assert len(found) >= 11
    for line in found:
        if line in ELSEWHERE:
            assert line.split()[2] in (ROOT / "tests" / ELSEWHERE[line]).read_text(encoding="utf-8")
            continue
        words = f"{line} {SMALL.get(line, '')}"
        if "--resume" in words:  # another way to do the first, not to be gone on with
            names["RESULTS"] = "results_with_boxes"
        for name, value in names.items():
            words = re.sub(rf"\b{name}\b", value, words)
        if names["KEYPOINTS"] in words and not Path(names["KEYPOINTS"]).exists():
            keypoints(Path(names["KEYPOINTS"]), Path(names["RESULTS"]))
        result = CliRunner().invoke(app, words.split()[1:], prog_name="bodyreg")
        assert result.exit_code == 0, f"{words}: {result.output}"
    assert set(SMALL) <= set(found), "a command of the README has changed: change what the test adds to it"
    assert {"index.html", "two_people_0.obj", "two_people_overlay.png"} <= {p.name for p in Path("results").iterdir()}
    assert any(Path("meshes").rglob("*.glb")) and Path("results_with_boxes_refined").is_dir()


def test_the_python_of_the_readme_runs(place, monkeypatch, capsys) -> None:
    monkeypatch.chdir(place)
    (example,) = (text for text in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if "infer_folder" in text)
    exec(compile(example, "README", "exec"), {})
    assert "two_people.jpg done 2" in capsys.readouterr().out
