"""The page of a result folder in a real browser: pictures, slider, 3D, refused files, and a thousand of them.

Runs where a Chromium is found (on the search path, or named by BODYREG_CHROMIUM); continuous integration installs one.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from chromium import Chromium, find_chromium

from bodyreg.body import BodyModel
from bodyreg.cameras import Camera
from bodyreg.data.folder import Photo
from bodyreg.inference.output import write_picture
from bodyreg.inference.page import PAGE, PAGE_FILES, write_page
from bodyreg.inference.pictures import Picture
from bodyreg.inference.placing import PlacedPerson, project_joints
from bodyreg.inference.results import PersonResult, PhotoRecord, ResultsWriter
from bodyreg.inference.stages import StageClock

pytestmark = pytest.mark.skipif(
    find_chromium() is None, reason="no Chromium is installed here: install one, or name it in BODYREG_CHROMIUM"
)

HOSTILE = "<img src=x onerror=document.title='hit'>'\"#1 100%?.jpg"
REASON = "<b>It is broken</b>. Mend it."
CAMERA = Camera.from_focal(300, (240, 320))
READY = "!document.getElementById('canvas').hidden && document.getElementById('message').hidden"


def placed(body: BodyModel, parameters: dict[str, np.ndarray], where: tuple[float, float, float]) -> PlacedPerson:
    parameters = parameters | {"transl": np.array([where])}
    posed = body(**parameters)
    joints = posed.joints[0].double().numpy()
    pixels = project_joints(CAMERA, joints)
    result = PersonResult(
        **{name: value[0] for name, value in parameters.items()}, K=CAMERA.K, image_hw=np.array(CAMERA.size_hw),
        box_xywh=np.concatenate([pixels.min(0), np.ptp(pixels, 0)]), R_crop_from_cam=np.eye(3),
        joints={"smpl-24": joints}, keypoints={"smpl-24": pixels}, focal_source="exif", body_name=body.name,
        body_hash=body.hash, gender=body.gender, model_name="tiny", weights_hash="0", found_by="box",
    )  # fmt: skip
    return PlacedPerson(result, posed.vertices[0].numpy())


@pytest.fixture(scope="module")
def records(tmp_path_factory, free_body, person_parameters) -> tuple[Path, list[PhotoRecord]]:
    """A result folder with two people in one picture, one in another, none in a third; two files are refused."""
    out = tmp_path_factory.mktemp("results")
    two = [placed(free_body, person_parameters(k), (0.7 * (2 * k - 1), 0.1, 3.6)) for k in (0, 1)]
    y, x = np.mgrid[:240, :320].astype(np.float32)
    rgb = np.stack([60 + y / 2, 40 + x / 4, 120 + 0 * x], 2).astype(np.uint8)
    made = []
    for name, people in (("two.jpg", two), (f"deep/{HOSTILE}", two[:1]), ("empty.jpg", [])):
        photo = Photo(rgb, None, Path(name), 1)
        record, _ = write_picture(
            out, name.removesuffix(".jpg"), Picture(name, photo, CAMERA, [], ["A note."]), people, free_body,
            formats=["npz"], up="camera", overlay=True, page=True, threads=1, clock=StageClock(),
        )  # fmt: skip
        made.append(record)
    made += [PhotoRecord("bad.jpg", "refused", reason=REASON), PhotoRecord(f"x{HOSTILE}", "refused", reason=REASON)]
    return out, made


@pytest.fixture(scope="module")
def folder(records) -> Path:
    out, made = records
    ResultsWriter(out, {"photos": "<i>holiday</i>", "model": "tiny"}, made).close()
    write_page(out)
    return out


@pytest.fixture(scope="module")
def running(tmp_path_factory) -> Iterator[Chromium]:
    executable = find_chromium()
    assert executable is not None
    with Chromium(executable, tmp_path_factory.mktemp("profile"), (960, 600)) as browser:
        yield browser


@pytest.fixture
def browser(running) -> Iterator[Chromium]:
    """The browser; whatever a test does in it, the console must stay silent and nothing may leave the folder."""
    running.open("about:blank")
    running.complaints.clear()
    running.requests.clear()
    yield running
    assert running.complaints == []
    assert all(url.startswith(("file:", "about:")) for url in running.requests)


def visit(browser: Chromium, folder: Path, file: str, picture: str = "photo") -> None:
    """Open the page and click on a photograph's card; wait until its picture is there."""
    browser.open(folder / PAGE)
    browser.evaluate(f"[...document.querySelectorAll('.card')].find(c => c.title.includes({file!r})).click()")
    browser.wait_for(f"(i => i.complete && i.naturalWidth > 0)(document.getElementById('{picture}'))")


def difference(a: np.ndarray, b: np.ndarray) -> float:
    """Mean absolute difference of two pictures, the second brought to the size of the first."""
    b = cv2.resize(b, (a.shape[1], a.shape[0]), interpolation=cv2.INTER_LINEAR)
    return float(np.abs(a.astype(int) - b.astype(int)).mean())


def read_rgb(path: Path) -> np.ndarray:
    return cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)


def text(browser: Chromium, selector: str) -> str:
    return browser.evaluate(f"document.querySelector({selector!r}).textContent")


def test_the_gallery_shows_everyone_and_why_files_were_refused(browser, folder):
    browser.open(folder / PAGE)
    assert text(browser, "h1") == "<i>holiday</i>"
    assert text(browser, "#summary") == "5 files \u00b7 3 people \u00b7 2 refused"
    cards = browser.evaluate("[...document.querySelectorAll('.card')].map(c => c.textContent)")
    assert cards == ["deep/" + HOSTILE + "1 person", "empty.jpgnobody", "two.jpg2 people"]
    browser.wait_for("[...document.querySelectorAll('.card img')].every(i => i.complete && i.naturalWidth > 0)")
    rows = "[...document.querySelectorAll('#reasons tr')].map(r => [...r.cells].map(c => c.textContent))"
    refused = browser.evaluate(rows)
    assert refused == [["bad.jpg", REASON], ["x" + HOSTILE, REASON]]
    assert browser.evaluate("document.title") == "<i>holiday</i> \u00b7 bodyreg"  # and no name ran
    assert browser.picture("#gallery").std() > 20


def test_files_are_found_by_name_and_kind(browser, folder):
    browser.open(folder / PAGE)
    shown = "[document.querySelectorAll('.card').length, document.getElementById('refused').hidden]"
    browser.evaluate("document.querySelector('[data-filter=nobody]').click()")
    assert browser.evaluate(shown) == [1, True]
    browser.evaluate("document.querySelector('[data-filter=refused]').click()")
    assert browser.evaluate(shown) == [0, False]
    browser.evaluate("document.querySelector('[data-filter=all]').click()")
    browser.evaluate("document.getElementById('search').focus()")
    browser.call("Input.insertText", text="TWO")
    assert browser.evaluate(shown) == [1, True]
    browser.call("Input.insertText", text="nothing")
    assert browser.evaluate("!document.getElementById('nothing').hidden")


def test_the_slider_goes_from_photograph_to_mesh(browser, folder):
    photo, mesh = (read_rgb(folder / PAGE_FILES / f"two_{name}.jpg") for name in ("photo", "mesh"))
    apart = difference(photo, mesh)
    visit(browser, folder, "two.jpg")
    browser.wait_for("(i => i.complete && i.naturalWidth > 0)(document.getElementById('mesh'))")
    x, y, w, h = browser.box("#compare")
    assert abs(w / h - 320 / 240) < 0.01
    # The mouse, from the middle to either edge; the handle and rounded corners differ from both pictures a little.
    before = browser.picture("#compare")
    browser.drag((x + w / 2, y + h / 2), (x + w / 4, y + h / 2), (x + 1, y + h / 2))
    all_mesh = browser.picture("#compare")
    browser.drag((x + 1, y + h / 2), (x + w / 2, y + h / 2), (x + w - 1, y + h / 2))
    all_photo = browser.picture("#compare")
    assert difference(before, all_mesh) > apart / 10 and difference(before, all_photo) > apart / 10
    assert difference(all_mesh, mesh) < apart / 4 < difference(all_mesh, photo)
    assert difference(all_photo, photo) < apart / 4 < difference(all_photo, mesh)
    # The keyboard.
    browser.evaluate("document.getElementById('slider').focus()")
    browser.key("Home", 36)
    assert browser.evaluate("document.getElementById('slider').value") == "0"
    browser.key("ArrowRight", 39)
    assert browser.evaluate("document.getElementById('slider').value") == "0.5"
    assert text(browser, "#name") == "two.jpg"  # arrows move the slider while it has the focus


def test_bodies_are_seen_in_3d_and_turn_with_the_mouse(browser, folder):
    visit(browser, folder, "two.jpg")
    browser.wait_for(READY)
    browser.settle()
    first = browser.picture("#stage")
    h, w = first.shape[:2]

    def coloured(picture: np.ndarray, sign: int) -> np.ndarray:
        """Where blue beats red by far, or red blue: sky for the first person, coral for the second."""
        return sign * (picture[..., 2].astype(int) - picture[..., 0]) > 25

    share = [coloured(first, sign).mean() for sign in (1, -1)]
    assert min(share) > 0.01  # both bodies are there
    centres = [np.nonzero(coloured(first, sign))[1].mean() for sign in (1, -1)]
    assert centres[0] < w / 2 < centres[1]  # the first stands on the left, as in the photograph
    x, y, _, _ = browser.box("#stage")
    browser.drag((x + w / 2, y + h / 2), (x + w / 2 + 60, y + h / 2), (x + w / 2 + 160, y + h / 2 + 20))
    turned = browser.picture("#stage")
    assert difference(first, turned) > 1 and coloured(turned, 1).mean() > 0.01
    browser.evaluate("document.querySelector('[data-view=camera]').click()")
    browser.wait_for("document.querySelector('[data-view=camera]').getAttribute('aria-pressed') === 'true'")
    assert difference(first, browser.picture("#stage")) < 0.2
    browser.evaluate("document.querySelectorAll('#persons button')[1].click()")
    only = browser.picture("#stage")
    assert coloured(only, 1).mean() > 2 * share[0] and coloured(only, -1).mean() < share[1] / 10
    browser.evaluate("document.getElementById('skeleton').click()")
    assert difference(only, browser.picture("#stage")) > 0.5
    browser.evaluate("document.getElementById('skeleton').click()")


def test_parameters_and_camera_are_shown_on_demand(browser, folder):
    visit(browser, folder, HOSTILE[:20])
    browser.wait_for(READY)
    assert browser.evaluate("document.getElementById('facts').hidden")
    browser.evaluate("document.getElementById('facts-button').click()")
    facts = text(browser, "#facts")
    camera, person = ("320 \u00d7 240 px", "300.0 px", "focal_px"), ("Person 0", "free, neutral", "3.60 m", "left knee")
    assert all(expected in facts for expected in (*camera, *person, "A note."))
    address = browser.evaluate("document.querySelector('#facts a').href")
    assert browser.evaluate("document.querySelector('#facts a').textContent") == "0.npz"
    assert address == (folder / f"deep/{HOSTILE.removesuffix('.jpg')}_0.npz").resolve().as_uri().replace("%7E", "~")
    browser.evaluate("document.getElementById('facts-button').click()")


def test_one_walks_through_the_folder(browser, folder):
    visit(browser, folder, "deep")
    assert text(browser, "#place") == "1 of 3"
    browser.key("ArrowRight", 39)
    browser.wait_for("document.getElementById('name').textContent === 'empty.jpg'")
    browser.wait_for("document.getElementById('message').textContent === 'Nobody was found here.'")
    browser.key("ArrowRight", 39)
    browser.wait_for("document.getElementById('name').textContent === 'two.jpg'")
    browser.wait_for(READY)
    assert browser.evaluate("document.getElementById('next').disabled")
    browser.key("Escape", 27)
    browser.wait_for("document.getElementById('detail').hidden")
    assert browser.evaluate("location.hash") == ""


def test_a_thousand_photographs_open_at_once(browser, records, tmp_path):
    out, made = records
    one = next(record for record in made if record.file == "two.jpg")
    many = []
    for k in range(1000):
        files = [name.replace("two", f"{k:04d}") for name in one.files]
        for source, target in zip(one.files, files, strict=True):
            (tmp_path / target).parent.mkdir(exist_ok=True)
            try:
                os.link(out / source, tmp_path / target)
            except OSError:
                shutil.copy(out / source, tmp_path / target)
        many.append(PhotoRecord(f"{k:04d}.jpg", "done", image_hw=one.image_hw, people=one.people, files=files))
    for faces in (out / PAGE_FILES).glob("faces-*.js"):
        shutil.copy(faces, tmp_path / PAGE_FILES)
    ResultsWriter(tmp_path, {}, many).close()
    write_page(tmp_path)
    seconds = browser.open(tmp_path / PAGE)
    assert browser.evaluate("document.querySelectorAll('.card').length") == 1000
    seen = "(k => { const i = document.querySelectorAll('.card img')[k]; return i.complete && i.naturalWidth > 0; })"
    browser.wait_for(f"{seen}(0)")
    browser.settle()
    loaded = [url for url in browser.requests if PAGE_FILES in url]
    assert 0 < len(loaded) < 200 and all(url.endswith("_thumb.jpg") for url in loaded)
    assert seconds < 5  # a third of a second on an idle machine
    browser.evaluate("document.querySelectorAll('.card')[999].scrollIntoView()")
    browser.wait_for(f"{seen}(999)")
    browser.evaluate("document.querySelectorAll('.card')[999].click()")
    browser.wait_for(READY)
    assert text(browser, "#place") == "1000 of 1000"


def test_a_run_without_a_page_still_shows_its_overlays(browser, records, tmp_path):
    out, made = records
    one = next(record for record in made if record.file == "two.jpg")
    files = [name for name in one.files if not name.startswith(PAGE_FILES)]
    for name in files:
        shutil.copy(out / name, tmp_path)
    ResultsWriter(tmp_path, {}, [replace(one, files=files)]).close()
    write_page(tmp_path)
    visit(browser, tmp_path, "two.jpg", "mesh")
    assert difference(browser.picture("#compare"), read_rgb(tmp_path / "two_overlay.png")) < 2
    assert "no 3D data" in text(browser, "#message")


def test_what_is_missing_is_said(browser, folder, tmp_path):
    shutil.copytree(folder, tmp_path / "moved")
    (tmp_path / "moved" / PAGE_FILES / "two_data.js").unlink()
    visit(browser, tmp_path / "moved", "two.jpg")
    browser.wait_for("document.getElementById('message').textContent.includes('two_data.js is not there')")
    assert any("ERR_FILE_NOT_FOUND" in complaint for complaint in browser.complaints)
    browser.complaints.clear()
