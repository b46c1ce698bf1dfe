"""Result folders refined to key points: who gets which, the same files again, and bad files that stop nothing."""

import json
from dataclasses import replace

import numpy as np
import pytest
import trimesh
from PIL import Image

from bodyreg import skeletons
from bodyreg.cameras import Camera
from bodyreg.data.inputs import Keypoints
from bodyreg.inference.export import write_person
from bodyreg.inference.folder import infer_folder
from bodyreg.inference.placing import project_joints
from bodyreg.inference.refine import match_keypoints, refine_people
from bodyreg.inference.refine_folder import refine_results
from bodyreg.inference.results import PersonResult, PhotoRecord, ResultsWriter, read_person, read_results

CAMERA = Camera.from_focal(300, (240, 320))


def a_person(body, parameters, where, wrong=0.0, seed=0):
    """A record of a body at `where`, its parameters off by `wrong`, and the true key points (25, 3)."""
    rng = np.random.default_rng(seed)
    true = {**parameters, "transl": np.array([where], float)}
    points = project_joints(CAMERA, body.regress(body(**true).vertices, "openpose-25")[0].double().numpy())
    found = {name: (value + wrong * rng.normal(size=value.shape))[0] for name, value in true.items()}
    posed = body(**{name: value[None] for name, value in found.items()})
    joints = {
        "smpl-24": posed.joints[0].double().numpy(),
        "openpose-25": body.regress(posed.vertices, "openpose-25")[0].double().numpy(),
    }
    pixels = {name: project_joints(CAMERA, value) for name, value in joints.items()}
    low, high = pixels["openpose-25"].min(0), pixels["openpose-25"].max(0)
    person = PersonResult(
        **found, K=CAMERA.K, image_hw=np.array(CAMERA.size_hw), box_xywh=np.concatenate([low, high - low]),
        R_crop_from_cam=np.eye(3), joints=joints, keypoints=pixels, focal_source="focal_px", body_name=body.name,
        body_hash=body.hash, gender=body.gender, model_name="tiny", weights_hash="0", found_by="box",
    )  # fmt: skip
    return person, np.concatenate([points, np.ones((25, 1))], 1)


def distance(person, points):
    return np.linalg.norm(person.keypoints["openpose-25"] - points[:, :2], axis=1).mean()


@pytest.fixture
def two(free_body, person_parameters):
    left = a_person(free_body, person_parameters(1), (-0.8, 0, 4), 0.08, 1)
    right = a_person(free_body, person_parameters(2), (0.8, 0, 4.5), 0.08, 2)
    return left, right


def write_results(folder, body, people, formats=("obj", "npz", "json")):
    """A result folder as the job writes it: one photograph, `deep/two.png`."""
    files = []
    for k, (person, _) in enumerate(people):
        posed = body(
            **{name: getattr(person, name)[None] for name in ("betas", "body_pose", "global_orient", "transl")}
        )
        paths = write_person(
            folder / "deep" / f"two_{k}", person, posed.vertices[0].numpy(), body.faces.numpy(), formats
        )
        files += [path.relative_to(folder).as_posix() for path in paths]
    record = PhotoRecord(
        "deep/two.png", "done", image_hw=CAMERA.size_hw, orientation=1, K=CAMERA.K.tolist(), focal_source="focal_px",
        people=[{"box_xywh": p.box_xywh.tolist(), "score": 1.0, "found_by": "box"} for p, _ in people], files=files,
    )  # fmt: skip
    others = [PhotoRecord("empty.png", "nobody"), PhotoRecord("bad.png", "refused", "It is broken. Mend it.")]
    ResultsWriter(folder, {"up": "camera", "overlay": False}, [record, *others]).close()
    return folder


def write_keypoints(folder, people, name="two"):
    folder.mkdir(exist_ok=True)
    content = {"people": [{"pose_keypoints_2d": points.ravel().tolist()} for points in people]}
    (folder / f"{name}_keypoints.json").write_text(json.dumps(content))
    return folder


def test_people_get_their_own_key_points_whatever_the_order(two):
    (left, left_points), (right, right_points) = two
    far = np.array(left_points)
    far[:, 0] += 900
    given = [Keypoints(points, "openpose-25") for points in (right_points, far, left_points)]
    assert match_keypoints([left, right], given) == [given[2], given[0]]
    assert match_keypoints([left, right], []) == [None, None]
    assert match_keypoints([left, right], given[1:2]) == [None, None]
    # other sets go by the names of their joints
    coco = Keypoints(skeletons.convert(right_points, "openpose-25", "coco-17"), "coco-17")
    assert match_keypoints([left, right], [coco]) == [None, coco]


def test_key_points_that_say_nothing_are_nobodys(two):
    nothing = [Keypoints(np.zeros((25, 3)), "openpose-25"), Keypoints(np.full((25, 3), np.nan), "openpose-25")]
    assert match_keypoints([two[0][0]], nothing) == [None]


def test_records_are_made_anew(two, free_body):
    (left, points), (right, _) = two
    refined, kept = refine_people(free_body, [left, right], [Keypoints(points, "openpose-25"), None])
    assert refined.result.refined_by == "keypoints openpose-25" and distance(refined.result, points) < 2
    assert kept.result is right and kept.result.refined_by == ""
    result = refined.result
    posed = free_body(result.betas[None], result.body_pose[None], result.global_orient[None], result.transl[None])
    np.testing.assert_allclose(refined.vertices, posed.vertices[0].numpy(), atol=1e-6)
    np.testing.assert_allclose(result.joints["smpl-24"], posed.joints[0].numpy(), atol=1e-6)
    np.testing.assert_allclose(result.keypoints["smpl-24"], CAMERA.project(result.joints["smpl-24"]), atol=1e-6)


def test_a_folder_comes_out_in_the_same_form(tmp_path, two, free_body):
    results = write_results(tmp_path / "res", free_body, two)
    keypoints = write_keypoints(tmp_path / "kp", [two[1][1]])
    Image.new("RGB", (320, 240), "grey").save(tmp_path / "two.png")
    (tmp_path / "photos" / "deep").mkdir(parents=True)
    (tmp_path / "two.png").rename(tmp_path / "photos" / "deep" / "two.png")
    summary = refine_results(results, keypoints, photos=tmp_path / "photos")
    assert summary.out == tmp_path / "res_refined" and summary.people == 2
    records, settings = read_results(summary.out)
    assert [r.status for r in records] == ["refused", "done", "nobody"]
    done = next(r for r in records if r.status == "done")
    assert [p.get("refined_by") for p in done.people] == [None, "keypoints openpose-25"]
    assert settings["refined"]["iterations"] == 50 and settings["refined"]["keypoints"]
    assert all((summary.out / name).is_file() for name in done.files)
    assert {"deep/two_0.obj", "deep/two_1.json", "deep/two_overlay.png"} <= set(done.files)
    before, after = two[1][0], read_person(summary.out / "deep" / "two_1.npz")
    assert distance(after, two[1][1]) < 0.5 * distance(before, two[1][1])
    assert read_person(summary.out / "deep" / "two_1.json").refined_by == "keypoints openpose-25"
    meshes = [trimesh.load(folder / "deep" / "two_0.obj", process=False).vertices for folder in (summary.out, results)]
    assert np.abs(meshes[0] - meshes[1]).max() < 2e-6  # posed beside other numbers of people: the last bits differ
    assert (summary.out / "contact_sheet.png").is_file()


def test_silhouettes_are_used_where_they_fit(tmp_path, two, free_body):
    results = write_results(tmp_path / "res", free_body, two, ("json",))
    keypoints = write_keypoints(tmp_path / "kp", [two[0][1], two[1][1]])
    (tmp_path / "masks" / "deep").mkdir(parents=True)
    mask = np.zeros((240, 320), np.uint8)
    mask[60:200, 60:110] = 255
    Image.fromarray(mask).save(tmp_path / "masks" / "deep" / "two_0.png")
    Image.fromarray(mask[:100]).save(tmp_path / "masks" / "deep" / "two_1.png")
    summary = refine_results(results, keypoints, tmp_path / "out", iterations=2, silhouettes=tmp_path / "masks")
    said = [read_person(tmp_path / "out" / "deep" / f"two_{k}.json").refined_by for k in (0, 1)]
    assert said == ["keypoints openpose-25+silhouette", "keypoints openpose-25"]
    (note,) = (note for record in summary.records for note in record.notes)
    assert "100 x 320" in note and "240 x 320" in note


def test_one_bad_file_stops_nothing(tmp_path, two, free_body):
    results = write_results(tmp_path / "res", free_body, two, ("npz",))
    records, settings = read_results(results)
    good = next(r for r in records if r.status == "done")
    for name in ("damaged", "lost"):
        (results / f"{name}_0.npz").write_bytes(b"PK no")
        records.append(PhotoRecord(f"{name}.png", "done", people=good.people[:1], files=[f"{name}_0.npz"]))
    (results / "lost_0.npz").unlink()
    records.append(PhotoRecord("mesh_only.png", "done", people=good.people[:1], files=["mesh_only_0.obj"]))
    ResultsWriter(results, settings, records).close()
    summary = refine_results(results, write_keypoints(tmp_path / "kp", [two[0][1]]), iterations=3)
    reasons = {r.file: r.reason for r in summary.records if r.status == "refused"}
    assert set(reasons) == {"bad.png", "damaged.png", "lost.png", "mesh_only.png"}
    assert "--formats npz,json" in reasons["mesh_only.png"] and all(r.count(". ") >= 1 for r in reasons.values())
    assert summary.count("done") == 1


def test_people_of_another_body_are_refused_alone(tmp_path, two, free_body):
    results = write_results(tmp_path / "res", free_body, two, ("npz",))
    records, settings = read_results(results)
    good = next(r for r in records if r.status == "done")
    stranger = replace(two[0][0], body_hash="f" * 64)
    write_person(results / "stranger_0", stranger, np.zeros((3, 3)), np.array([[0, 1, 2]]), ("npz",))
    records.append(PhotoRecord("stranger.png", "done", people=good.people[:1], files=["stranger_0.npz"]))
    ResultsWriter(results, settings, records).close()
    summary = refine_results(results, write_keypoints(tmp_path / "kp", [two[0][1]]), iterations=3)
    assert summary.count("done") == 1
    assert any("belong to the body" in (r.reason or "") for r in summary.records if r.file == "stranger.png")


def test_wrong_arguments_are_told(tmp_path, two, free_body):
    results = write_results(tmp_path / "res", free_body, two, ("npz",))
    keypoints = write_keypoints(tmp_path / "kp", [])
    (tmp_path / "empty").mkdir()
    for match, options in {
        "overwrite": {"out": results},
        "Both": {"silhouettes": tmp_path, "parsing": tmp_path},
        "no folder": {"photos": tmp_path / "nowhere"},
    }.items():
        with pytest.raises(ValueError, match=match):
            refine_results(results, keypoints, **options)
    with pytest.raises(ValueError, match="cannot be read"):
        refine_results(tmp_path / "nothing", keypoints)
    with pytest.raises(ValueError, match="holds no key points"):
        refine_results(results, tmp_path / "empty")
    with pytest.raises(ValueError, match="Name their file with --keypoints"):
        infer_folder(tmp_path, tmp_path / "out", refine=True, people="whole")


def test_infer_refines_at_once(tmp_path, knowing, save_photo, person_parameters):
    save_photo(tmp_path / "in" / "one.png", (320, 240))
    person, points = a_person(knowing.body, person_parameters(3), (0, 0, 4), 0.08, 3)
    knowing.people = [
        (person.box_xywh, {n: getattr(person, n)[None] for n in ("betas", "body_pose", "global_orient", "transl")})
    ]
    keypoints = write_keypoints(tmp_path / "kp", [points], "one")
    found = []
    for refine in (False, True):
        out = tmp_path / f"out{refine}"
        summary = infer_folder(
            tmp_path / "in", out, regressor=knowing, keypoints=keypoints, refine=refine, focal_px=300, overlay=False
        )
        assert summary.count("done") == 1
        found.append(read_person(out / "one_0.npz"))
    plain, refined = found
    assert plain.refined_by == "" and refined.refined_by == "keypoints openpose-25"
    assert distance(refined, points) < 0.5 * distance(plain, points)
