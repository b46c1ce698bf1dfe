"""Checks of what the lifters' reference data say about cameras, data sets, windows, shuffling and training."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import torch
from golden import Golden
from perspose_common import close, tensor

from bodyreg import lens, skeletons
from bodyreg import windows as rules
from bodyreg.data import clips
from bodyreg.data.lifter_cameras import h36m_cameras, humaneva_cameras
from bodyreg.data.lifter_points import h36m_from_coco, repaired_legs
from bodyreg.data.lifter_sets import LifterSequence, LifterSet, read_lifter_set
from bodyreg.data.pstmo import set_from_records
from bodyreg.data.videopose import h36m_joints, humaneva_subjects, prepare_h36m
from bodyreg.losses import lifters as losses
from bodyreg.training.ranger import Ranger
from bodyreg.training.schedules import bn_momentum, cosine_rate

TOL = 1e-5
PIXELS = 1e-3


def check_camera(golden) -> None:
    """Screen coordinates, quaternions and the lens; KTPFormer's and GLA-GCN's files name the same things otherwise."""
    size = (golden.config["w"], golden.config["h"])
    x = {name: tensor(array) for name, array in golden.inputs.items()}
    world, pixels = x.get("X", x.get("X_world")), x.get("px", x.get("uv"))
    lens_of_point = x["cam"][:, None]
    found = {
        "normalize_screen": lens.screen_from_pixels(pixels, size),
        "world_to_camera": lens.camera_from_world(world, x["q"], x["t"]),
        "camera_to_world": lens.world_from_camera(world, x["q"], x["t"]),
        "project_to_2d": lens.project(x["X_cam"], lens_of_point),
        "project_to_2d_linear": lens.project_linear(x["X_cam"], lens_of_point),
    }
    found["image_coordinates"] = lens.pixels_from_screen(found["normalize_screen"], size)
    if golden.has("uvd2xyz"):
        root = x["gt3d"][..., 0, :]
        found["uvd2xyz"] = lens.joints_from_uvd(x["uvd"], root, x["cam"][: len(root), None])
        found["qrot"], found["qinverse"] = lens.rotate(x["q"], world), lens.conjugate(x["q"])
    other = {
        "norm": "normalize_screen", "image_coords": "image_coordinates", "project": "project_to_2d",
        "project_linear": "project_to_2d_linear",
    }  # fmt: skip
    for name in golden.names():
        close(found[other.get(name, name)], golden.out(name), PIXELS if name.startswith("image") else TOL, name)


def check_deterministic_random(golden) -> None:
    found = [rules.hashed_start(int(low), int(high), str(text)) for low, high, text in golden.config["calls"]]
    np.testing.assert_array_equal(found, golden.out("v"))


# ------------------------------------------------------------------------------------------------- KTPFormer's windows


def sequences(arrays: dict, count: int, points: str, joints: str, lens_name: str | None) -> list[LifterSequence]:
    return [
        LifterSequence(
            "S", str(i), 0, (1000, 1000), 50.0, arrays[points.format(i)], arrays[joints.format(i)],
            arrays[lens_name.format(i)] if lens_name else np.zeros(9, np.float32),
            np.ones(len(arrays[points.format(i)]), bool),
        )
        for i in range(count)
    ]  # fmt: skip


def table_of(golden, points: str, joints: str, lens_name: str | None) -> clips.ClipTable:
    arrays, config = golden.inputs, golden.config
    count = sum(name.startswith(points.split("{")[0]) for name in arrays)
    found = sequences(arrays, count, points, joints, lens_name)
    width_in, width_out = found[0].keypoints.shape[1], found[0].joints.shape[1]
    left, right = config["kps_left"], config["kps_right"]
    mirror_in = rules.mirror_map(width_in, left, right)
    mirror_out = rules.mirror_map(width_out, config.get("joints_left", left), config.get("joints_right", right))
    return clips.ClipTable(found, mirror_in, mirror_out, root=None)


def check_chunks(golden) -> None:
    config, table = golden.config, table_of(golden, "s2d_{}", "s3d_{}", "cam_{}")
    plan = clips.training_windows(
        table.lengths, "chunks", config["chunk_length"], config["chunk_length"], flip=config["augment"]
    )
    seed = config["random_seed"] if config["shuffle"] else None
    loader = clips.ClipBatches(table, plan, config["batch_size"], seed=seed)
    batches = list(loader)
    together = {name: np.concatenate([batch[name].numpy() for batch in batches]) for name in batches[0]}
    np.testing.assert_array_equal([len(batch["lens"]) for batch in batches], golden.out("batch_sizes"))
    if golden.has("pairs"):
        np.testing.assert_array_equal(plan[:, :4], golden.out("pairs"))
    if golden.has("num_frames"):
        assert len(loader) * config["batch_size"] == golden.out("num_frames")
    names = {"cam": "lens", "b3d": "joints", "b2d": "keypoints"}
    for name, ours in names.items():
        if golden.has(name):
            close(together[ours], golden.out(name), TOL, name)
        if golden.has(f"{name}_first_frames"):
            close(together[ours][:, 0], golden.out(f"{name}_first_frames"), TOL, name)
        if golden.has(f"epoch2_{name}_first_frames"):
            loader.seek(len(loader))
            second = np.concatenate([batch[ours].numpy() for batch in loader])
            close(second[:, 0], golden.out(f"epoch2_{name}_first_frames"), TOL, f"second epoch of {name}")


def check_eval_windows(golden) -> None:
    frames = golden.config["receptive_field"]
    for name, array in golden.inputs.items():
        kind, length = name.removeprefix("x").split("_")
        indices = rules.frames_of(rules.tail_aligned(int(length), frames), int(length))
        close(array[0][indices], golden.out(f"w{kind}_{length}"), 0, name)


# ----------------------------------------------------------------------------------------------------------- data sets


def nested(arrays: dict, prefix: str) -> dict:
    """{subject: {action: array, or list of arrays by camera}} of entries `prefix/subject/action(/camera)`."""
    found: dict = {}
    for name, array in arrays.items():
        kind, *parts = name.split("/")
        if kind == prefix:
            actions = found.setdefault(parts[0], {})
            if len(parts) == 2:
                actions[parts[1]] = array
            else:
                actions.setdefault(parts[1], {})[int(parts[2])] = array
    return {
        subject: {a: [v[i] for i in sorted(v)] if isinstance(v, dict) else v for a, v in actions.items()}
        for subject, actions in found.items()
    }


_SYMMETRY = {"keypoints_symmetry": [[4, 5, 6, 11, 12, 13], [1, 2, 3, 14, 15, 16]], "num_joints": 17}


def videopose_files(folder: Path, arrays: dict, metadata: dict | None = None) -> None:
    """Write VideoPose3D's npz files, pickled dictionaries and all."""
    np.savez(folder / "data_3d_h36m.npz", positions_3d=np.array(nested(arrays, "positions_3d"), object))
    for prefix, source in (("positions_2d", "cpn_ft_h36m_dbb"), ("positions_2d_gt", "gt")):
        if table := nested(arrays, prefix):
            about = np.array(metadata or _SYMMETRY, object)
            np.savez(folder / f"data_2d_h36m_{source}.npz", positions_2d=np.array(table, object), metadata=about)


def h36m_set(arrays: dict, source: str = "cpn_ft_h36m_dbb", metadata: dict | None = None) -> LifterSet:
    """The arrays of a golden file, through files on disk and `bodyreg prepare`."""
    with tempfile.TemporaryDirectory() as folder:
        videopose_files(Path(folder), arrays, metadata)
        return read_lifter_set(prepare_h36m(folder, Path(folder) / "set.npz", source))


def check_h36m_dataset(golden) -> None:
    prepared = h36m_set(golden.inputs)
    joint_set = skeletons.get("h36m-17")
    np.testing.assert_array_equal(joint_set.parents, golden.out("parents"))
    np.testing.assert_array_equal(joint_set.left, golden.out("joints_left"))
    np.testing.assert_array_equal(joint_set.right, golden.out("joints_right"))
    for name in golden.names("cam/"):
        _, subject, number, what = name.split("/")
        camera = h36m_cameras()[subject][int(number)]
        values = {
            "intrinsic": camera.lens, "orientation": camera.orientation, "translation": camera.centre,
            "res": np.array(camera.size_wh), "res_w": np.array(camera.size_wh[0]), "res_h": np.array(camera.size_wh[1]),
        }  # fmt: skip
        close(values[what], golden.out(name), 1e-6, name)
    by_name = {f"{s.subject}/{s.action}/{s.camera}": s for s in prepared.sequences(sorted(prepared.cameras))}
    projected = h36m_set(golden.inputs, "projected")
    for name, sequence in by_name.items():
        key = (sequence.subject, sequence.action, sequence.camera)
        close(sequence.joints, golden.out(f"positions_cam/{name}"), TOL, name)
        close(sequence.keypoints, golden.out(f"kps_norm/{name}"), TOL, name)
        close(projected.keypoints[key], golden.out(f"gt2d/{name}"), PIXELS, name)


def check_h36m_positions(golden) -> None:
    """GLA-GCN's file: the constants of one subject and one camera's coordinates."""
    joints = h36m_joints(golden.inputs["positions32"], "the file")
    cameras, joint_set = h36m_cameras()[golden.config["subject"]], skeletons.get("h36m-17")
    close(joints, golden.out("positions17"), 0, "positions17")
    close(cameras[0].camera_from_world(joints), golden.out("cam0_positions17"), TOL, "cam0")
    check_tree(golden, joint_set, cameras)
    close(np.stack([camera.lens for camera in cameras]), golden.out("intrinsic"), 1e-6, "intrinsic")


def check_humaneva_dataset(golden) -> None:
    (cameras,) = humaneva_subjects([golden.config["subject"]]).values()
    assert cameras == humaneva_cameras()[golden.config["subject"].split("/")[-1]]
    seen = cameras[1].camera_from_world(golden.inputs["positions"])
    close(seen, golden.out("cam1_positions"), TOL, "cam1")
    check_tree(golden, skeletons.get("humaneva-15"), cameras)


def check_tree(golden, joint_set: skeletons.JointSet, cameras) -> None:
    np.testing.assert_array_equal(joint_set.parents, golden.out("parents"))
    np.testing.assert_array_equal(joint_set.left, golden.out("joints_left"))
    np.testing.assert_array_equal(joint_set.right, golden.out("joints_right"))
    close(np.stack([camera.orientation for camera in cameras]), golden.out("orientation"), 1e-6, "orientation")
    close(np.stack([camera.centre for camera in cameras]), golden.out("translation_m"), 1e-6, "translation")


def check_mpi_inf_3dhp(golden) -> None:
    """Items of P-STMO's files: training plain then flipped, test the valid frames, plain and flipped; millimetres."""
    arrays, config = golden.inputs, golden.config
    names = {name.split("_")[1] for name in arrays if name.startswith("test_")}
    test = {n: {k: arrays[f"test_{n}_{k}"] for k in ("data_2d", "data_3d", "valid")} for n in sorted(names)}
    train = {"S1 Seq1": [{"0": {"data_2d": arrays["train_2d"], "data_3d": arrays["train_3d"]}}, 25]}
    prepared = set_from_records(train, test)
    pad, whole = config["pad"], bool(config["out_all"])
    table = table_of_set(prepared, "train")
    plan = clips.plan_windows(table.lengths, rules.every_frame, flip=True, flips_last=True)
    items = table.clips(plan, pad, whole_target=whole)
    assert len(plan) == config["train_len"]
    close(1000 * items["joints"], golden.out("train_gt3d"), 1e-3, "train_gt3d")
    close(items["keypoints"], golden.out("train_in2d"), TOL, "train_in2d")
    table = table_of_set(prepared, "test")
    plan = clips.plan_windows(table.lengths, rules.every_frame)
    plan = plan[np.concatenate([s.valid for s in table.sequences])]
    assert len(plan) == config["test_len"]
    assert [table.sequences[i].subject for i in plan[:, 0]] == config["test_seq"]
    close(1000 * table.clips(plan, 0)["joints"], golden.out("test_gt3d"), 1e-3, "test_gt3d")
    close(table.test_keypoints(plan, pad), golden.out("test_in2d"), TOL, "test_in2d")


def table_of_set(prepared: LifterSet, part: str, subjects=None, **options) -> clips.ClipTable:
    about = prepared.about
    found = prepared.sequences(subjects or prepared.subjects(part), **options)
    return clips.ClipTable(found, about.mirror_in, about.mirror_out, root=None)


# ---------------------------------------------------------------------------------------------------- HoT, GLA-GCN


def synthetic(golden) -> Golden:
    """HoT's synthetic data set, which lies beside the file."""
    return Golden(golden.path.parent / "h36m_synthetic.npz")


def check_h36m_synthetic(golden) -> None:
    """It has no outputs: it must be readable as the data set it imitates, its two kinds of key points alike in form."""
    detected, truth = (
        h36m_set(golden.inputs, source, golden.config["metadata"]) for source in ("cpn_ft_h36m_dbb", "gt")
    )
    shapes = {key: points.shape for key, points in detected.keypoints.items()}
    assert shapes == {key: points.shape for key, points in truth.keypoints.items()} and len(shapes) > 0


def check_loader(golden) -> None:
    config, stored = golden.config, synthetic(golden)
    train, frames, stride = config["train"], config["frames"], config["stride"]
    reverse, share = config.get("reverse_augmentation", False), config.get("subset", 1)
    tables = []
    for source in ("cpn_ft_h36m_dbb", "gt"):
        prepared = h36m_set(stored.inputs, source, stored.config["metadata"])
        tables.append(table_of_set(prepared, "train", config["subjects"]))
        if share < 1:
            tables[-1] = shortened(tables[-1], share)
    table, truth = tables
    flip = bool(config["flip_augmentation"]) and train
    rule = rules.every_frame if stride == 1 else lambda length: rules.strided(length, frames, stride)
    plan = clips.plan_windows(table.lengths, rule, flip=flip, reverse=reverse and train)
    pad = (frames - 1) // 2 if stride == 1 else 0
    assert len(plan) == golden.out("length")
    keys = np.array([f"{s.subject}/{s.action}/{s.camera}" for s in table.sequences])
    np.testing.assert_array_equal(keys[plan[:, 0]], golden.out("pairs"))
    for name, column in (("bounds_low", 1), ("bounds_high", 2), ("flip", 3), ("reverse", 4)):
        np.testing.assert_array_equal(plan[:, column], golden.out(name).astype(np.int64))
    plan = plan[golden.out("items")]
    items = table.clips(plan, pad)
    close(items["lens"], golden.out("cam"), TOL, "cam")
    close(items["joints"], golden.out("gt3d"), TOL, "gt3d")
    for name, source in (("in2d", table), ("in2d_gt", truth)):
        if golden.has(name):
            found = source.clips(plan, pad)["keypoints"] if train else source.test_keypoints(plan, pad)
            close(found, golden.out(name), TOL, name)


def shortened(table: clips.ClipTable, share: float) -> clips.ClipTable:
    """The part of each sequence that a subset keeps."""
    return clips.ClipTable(
        [s.part(*rules.subset_of(len(s), share)) for s in table.sequences], table.mirror_in, table.mirror_out, root=None
    )


def check_generators(golden) -> None:
    config, arrays = golden.config, dict(golden.inputs)
    table = table_of(golden, "pose2d_{}", "pose3d_{}", "cam_{}")
    plan = clips.plan_windows(table.lengths, rules.every_frame)
    both = table.test_keypoints(plan, config["pad"])
    close(both[:, 0], golden.out("eval_2d"), 0, "eval_2d")
    close(both[:, 1], golden.out("eval_2d_flip"), 0, "eval_2d_flip")
    close(table.clips(plan, config["pad"], whole_target=False)["joints"], golden.out("eval_3d"), 0, "eval_3d")
    sizes = golden.out("eval_batch_sizes")
    if len(sizes) == len(table.lengths):  # a sequence a batch
        np.testing.assert_array_equal(table.lengths, sizes)
    else:
        loader = clips.ClipBatches(table, plan, config["batch_size"], seed=None)
        np.testing.assert_array_equal([len(b["lens"]) for b in loader], sizes)
    plan = clips.training_windows(table.lengths, "frame", 1, 1, flip=True)
    assert len(plan) == config["num_frames_train"] and arrays
    loader = clips.ClipBatches(table, plan, config["batch_size"], pad=config["pad"], whole_target=False)
    batches = list(loader)
    for name, ours in (("train_3d", "joints"), ("train_2d", "keypoints"), ("train_cam", "lens")):
        close(np.concatenate([batch[ours].numpy() for batch in batches]), golden.out(name), 0, name)


def check_random_move(golden) -> None:
    for name in golden.names("pose_"):
        number = name.split("_")[1]
        degrees, scale = golden.inputs[f"angle_deg_{number}"], golden.inputs[f"scale_{number}"]
        close(clips.jitter_targets(golden.inputs[name], degrees, scale), golden.out(name), TOL, name)


# ------------------------------------------------------------------------------------------------------------- training


def check_ranger(golden) -> None:
    config = golden.config
    weights = torch.nn.Parameter(tensor(golden.inputs["w0"]))
    optimiser = Ranger(
        [weights], config["lr"], tuple(config["betas"]), config["eps"], alpha=config["alpha"], k=config["k"],
        threshold=config["N_sma_threshold"],
    )  # fmt: skip
    found = []
    for gradient in golden.inputs["grads"]:
        weights.grad = tensor(gradient)
        optimiser.step()
        found.append(weights.detach().numpy().copy())
    close(np.stack(found), golden.out("w_after_each_step"), TOL, "weights")


def check_schedule(golden) -> None:
    config = golden.config
    epochs = range(config["epochs"])
    rates = [cosine_rate(e, config["T_max"], config["lr0"], config["eta_min"]) for e in epochs]
    close(np.array(rates), golden.out("lr_in_epoch"), 1e-9, "rates")
    momenta = [bn_momentum(e + 1, config["epochs"]) for e in epochs]
    close(np.array(momenta), golden.out("bn_momentum_after_epoch"), 1e-9, "momentum")


def lifter_losses(golden) -> None:
    """Losses of KTPFormer, HoT and GLA-GCN by the names of their files; the metrics in them are checked elsewhere."""
    pred, true = (tensor(golden.inputs[n if n in golden.inputs else f"{n}_seq"]) for n in ("pred", "target"))
    if "pred_seq" in golden.inputs:
        pred, true = tensor(golden.inputs["pred_seq"]), tensor(golden.inputs["target_seq"])
    pred.requires_grad_()
    weights = losses.joint_weights("h36m-17")
    factors = {"weighted_mpjpe": 1.0, "temporal": 0.5, "velocity": 2.0}
    terms = losses.loss_terms(pred, true, factors, weights)
    total = sum(factors[name] * value for name, value in terms.items())
    (gradient,) = torch.autograd.grad(total, pred, retain_graph=True)
    (as_trained,) = torch.autograd.grad(losses.squared(total), pred)
    found = {
        "weighted_mpjpe": terms["weighted_mpjpe"], "temporal_consistency": terms["temporal"],
        "velocity_axis1": terms["velocity"], "mean_velocity": terms["velocity"], "total": total,
        "grad_total": gradient, "grad_as_trained": as_trained, "weighted_mpjpe_seq": terms["weighted_mpjpe"],
        "mean_velocity_error_train_axis1": terms["velocity"],
        "temporal_consistency_seq": 0.5 * terms["temporal"] + 2 * terms["velocity"],
    }  # fmt: skip
    if golden.has("weighted_mpjpe15"):
        found["weighted_mpjpe15"] = losses.position(
            pred[:, :, :15], true[:, :, :15], losses.joint_weights("humaneva-15")
        )
    for name, value in found.items():
        if golden.has(name):
            close(value, golden.out(name), TOL * max(1.0, float(np.abs(golden.out(name)).max())), name)


def check_gla_gcn_losses(golden) -> None:
    """What trains and scores GLA-GCN."""
    from bodyreg.evaluation.metrics import pa_mpjpe

    lifter_losses(golden)
    close(losses.position(*(tensor(golden.inputs[n]) for n in ("pred", "target"))), golden.out("mpjpe"), TOL, "mpjpe")
    each = pa_mpjpe(*(tensor(golden.inputs[n]) for n in ("pred_np", "target_np")))
    close(each, golden.out("p_mpjpe_each"), TOL, "p_mpjpe_each")
    close(each.mean(), golden.out("p_mpjpe_mean"), TOL, "p_mpjpe_mean")
    for name in ("mpble", "mpbde", "sym_penalty_seq", "bonelen_consistency_seq"):
        if golden.has(name):
            golden.ignore(name, why="a helper that the method never calls; optional in its description")


# ----------------------------------------------------------------------------------------------------------- key points


def check_coco_to_h36m(golden) -> None:
    points, scores = golden.inputs["kpts"], golden.inputs["scores"]
    found, found_scores = h36m_from_coco(points, scores)
    close(found, golden.out("h36m"), PIXELS, "h36m")
    close(found_scores, golden.out("scores_h36m"), TOL, "scores")
    valid = np.flatnonzero(found[0].sum((-2, -1)) != 0)
    np.testing.assert_array_equal(valid, golden.out("valid_frames"))
    close(repaired_legs(found, found_scores), golden.out("revised"), PIXELS, "revised")


KTPFORMER_CHECKS = [
    ("camera*", check_camera),
    ("deterministic_random*", check_deterministic_random),
    ("chunks_*", check_chunks),
    ("eval_windows*", check_eval_windows),
    ("h36m_dataset*", check_h36m_dataset),
]
HOT_CHECKS = [
    ("h36m_synthetic*", check_h36m_synthetic),
    ("loader_*", check_loader),
    ("coco_to_h36m*", check_coco_to_h36m),
]
GLA_GCN_CHECKS = [
    ("camera*", check_camera),
    ("generators*", check_generators),
    ("h36m_dataset*", check_h36m_positions),
    ("humaneva_dataset*", check_humaneva_dataset),
    ("mpi_inf_3dhp_dataset*", check_mpi_inf_3dhp),
    ("random_move*", check_random_move),
    ("ranger*", check_ranger),
    ("schedule*", check_schedule),
    ("losses*", check_gla_gcn_losses),
]
