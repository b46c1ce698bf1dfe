"""Checks of the rasteriser's reference data: every back end that runs here, values against the reference, gradients
against its float64 evaluation."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from renderers import blending, cameras, lighting, soft
from renderers.backends import available
from renderers.rasterize import Fragments, rasterize

BACKENDS = tuple(name for name, lack in available().items() if lack is None)
ON_GPU = torch.cuda.is_available()


def tensor(array: np.ndarray) -> Tensor:
    return torch.from_numpy(np.array(array))


def close(ours: Tensor, theirs: np.ndarray, tol: float, name: str, *, relative: bool = False) -> None:
    a, b = ours.detach().double().numpy(), theirs.astype(np.float64)
    assert a.shape == b.shape, f"{name}: {a.shape} against {b.shape}"
    if a.size == 0:
        return
    error = np.abs(a - b)
    if relative:  # huge reference values are extrapolations of edge-on faces and mean nothing
        error = np.where(np.abs(b) < 1e3, error / np.maximum(np.abs(b), 1), 0)
    assert np.isfinite(error).all() and error.max() <= tol, f"{name}: off by {error.max():.3g} of at most {tol}"


def waves(like: Tensor, a: float, b: float) -> Tensor:
    index = np.arange(like.numel(), dtype=np.float64)
    return torch.from_numpy(np.sin(a * index + b).astype(np.float32)).reshape(like.shape)


def backends(faces: int, case: int = 0) -> list[str]:
    """The back ends that draw a case of a file. Triton's interpreter takes seconds for what a GPU does in microseconds:
    it sees small meshes, and every fifth of their cases, which meets each value of each setting."""
    slow = not ON_GPU and (faces > 32 or case % 5)
    return [name for name in BACKENDS if not (name == "cuda" and slow)]


def drawn(draw, *tensors, backend: str, **options):
    """Draw where the back end draws; results on the CPU, still differentiable."""
    device = "cuda" if backend == "cuda" and ON_GPU else "cpu"
    out = draw(*(x.to(device) if isinstance(x, Tensor) else x for x in tensors), backend=backend, **options)
    return out.cpu() if isinstance(out, Tensor) else type(out)(*(x.cpu() for x in out))


def gradient(value: Tensor, *leaves: Tensor) -> list[Tensor]:
    found = torch.autograd.grad(value, leaves, retain_graph=True, allow_unused=True)
    return [torch.zeros_like(x) if g is None else g for g, x in zip(found, leaves, strict=True)]


def close_gradient(ours: Tensor, truth: np.ndarray, name: str, tol: float = 1e-3) -> None:
    close(ours, truth, tol * max(float(np.abs(truth).max()), 1e-12), name)


def packed(golden) -> tuple[Tensor, Tensor, list[int]]:
    count = sum(name.startswith("verts") for name in golden.inputs)
    verts = [golden.inputs[f"verts{i}"] for i in range(count)]
    faces = [golden.inputs[f"faces{i}"].astype(np.int64) for i in range(count)]
    starts = np.cumsum([0] + [len(v) for v in verts])
    all_faces = np.concatenate([f + s for f, s in zip(faces, starts, strict=False)])
    return tensor(np.concatenate(verts)), tensor(all_faces), [len(f) for f in faces]


def check_raster(golden) -> None:
    verts, faces, counts = packed(golden)
    for n, config in enumerate(golden.config["configs"]):
        for backend in backends(len(faces), n):
            leaf = verts.clone().requires_grad_()
            fragments = drawn(
                rasterize,
                leaf[faces],
                counts,
                image_size=tuple(golden.config["image_size"]),
                blur_radius=config["blur"],
                faces_per_pixel=config["K"],
                perspective_correct=config["persp"],
                clip_barycentric=config["clip"],
                cull_backfaces=config["cull"],
                z_clip=config.get("z_clip"),
                backend=backend,
            )
            check_fragments(golden, f"c{n:02d}", config, fragments, leaf, f"c{n:02d} {backend}")
            if "sigma" in config:
                check_blends(golden, f"c{n:02d}", config, fragments, leaf, faces, f"c{n:02d} {backend}")


def reference_holds(golden, config: dict, kind: str) -> bool:
    """Whether the reference's own gradient is one: without blur, with clipping but no perspective, of distances."""
    if golden.config["scene"] == "sliver" or config.get("z_clip") is not None:
        return False  # (it lets no gradient through one of the two weights of a cut)
    return kind in ("dists", "sil") or config["blur"] == 0 or (config["clip"] and not config["persp"])


def comparable(golden, config: dict, truth: np.ndarray) -> bool:
    """Whether the float64 gradient is a number that single precision can meet."""
    unbounded = config["persp"] and config["blur"] > 0 and not config["clip"] and np.abs(truth).max() > 1e4
    return golden.config["scene"] != "sliver" and not unbounded


def check_fragments(golden, number: str, config: dict, ours: Fragments, leaf: Tensor, label: str) -> None:
    np.testing.assert_array_equal(ours.pix_to_face.numpy(), golden.out(f"{number}/pix_to_face"), err_msg=label)
    hit = ours.pix_to_face >= 0
    assert int(hit.sum()) == config["hits"]
    for name, (a, b) in {"zbuf": (0.7, 0.1), "bary": (0.9, 0.3), "dists": (1.1, 0.5)}.items():
        values = getattr(ours, name)
        close(values[hit], golden.out(f"{number}/{name}"), 1e-5, f"{label} {name}", relative=True)
        assert (values[~hit] == -1).all(), f"{label} {name}: padding"
        (found,) = gradient((values * waves(values, a, b))[hit].sum(), leaf)
        reference = golden.out(f"{number}/grad_{name}")
        if "pytorch3d" in label:
            if reference_holds(golden, config, name):
                close_gradient(found, reference, f"{label} gradient of {name}")
            continue
        assert torch.isfinite(found).all(), f"{label} {name}: gradient"
        if not golden.has(f"{number}/grad64_{name}"):
            continue
        truth = golden.out(f"{number}/grad64_{name}")
        if comparable(golden, config, truth):
            close_gradient(found, truth, f"{label} gradient of {name}")
        elif golden.config["scene"] == "sliver" and np.isfinite(reference).all() and "naive" not in label:
            # (The naive back end differentiates in single precision: on slivers it is held to being finite.)
            worst = np.abs(reference - truth).max()
            room = max(1.01 * float(worst), 1e-3 * float(np.abs(truth).max()))
            close(found, truth, room, f"{label} gradient of {name}, no worse than the reference")


def check_blends(golden, number: str, config: dict, fragments: Fragments, leaf: Tensor, faces: Tensor, label: str):
    i = {name: tensor(array) for name, array in golden.inputs.items()}
    depths = dict(sigma=config["sigma"], gamma=config["gamma"], znear=config["znear"], zfar=config["zfar"])
    tol = 5e-4 if config["gamma"] <= 1e-4 else 1e-4
    colours, probs = i["vert_colors"].requires_grad_(), i["vert_probs"].requires_grad_()
    painted = blending.interpolate_corners(fragments, colours[faces])
    mixed = blending.blend_softmax(fragments, painted, i["background"], **depths)
    hard = blending.blend_hard(fragments, painted, i["background"])
    rgba = {name: torch.cat([p.colour, p.alpha[..., None]], -1) for name, p in {"soft": mixed, "hard": hard}.items()}
    kinds = [
        ("sil", "sil", blending.blend_silhouette(fragments, config["sigma"]), (0.37, 0.2), 1e-4, None),
        ("soft", "soft_rgba", rgba["soft"], (0.37, 0.4), tol, colours),
        ("hard", "hard_rgba", rgba["hard"], (0.37, 0.6), 1e-4, colours),
    ]
    if config.get("sem"):
        labels = blending.interpolate_corners(fragments, probs[faces])
        sem = blending.blend_softmax(fragments, labels, i["background_probs"], **depths).colour
        kinds.append(("sem", "sem", sem, (0.29, 0.8), tol, probs))
    # Unclipped coordinates extrapolate the attributes, and the rounding of the reference's zeta with them.
    extreme = 1.0 if config["clip"] else max(1.0, float(fragments.bary.detach().abs().max()))
    for kind, name, image, wave, tolerance, attributes in kinds:
        if kind in ("soft", "sem"):
            tolerance = tolerance * extreme
        close(image, golden.out(f"{number}/{name}"), tolerance, f"{label} {name}")
        leaves = [leaf] if attributes is None else [leaf, attributes]
        found = gradient((image * waves(image, *wave)).sum(), *leaves)
        reference = golden.out(f"{number}/{kind}_grad_verts")  # in single precision: for PyTorch3D itself
        if "pytorch3d" in label:
            if reference_holds(golden, config, kind):
                close_gradient(found[0], reference, f"{label} gradient of {name}")
        else:
            assert torch.isfinite(found[0]).all(), f"{label} gradient of {name}"
        if "pytorch3d" not in label and golden.has(f"{number}/{kind}_grad64_verts"):
            truth = golden.out(f"{number}/{kind}_grad64_verts")
            if comparable(golden, config, truth):
                close_gradient(found[0], truth, f"{label} gradient of {name}")
        if attributes is not None:
            key = f"{number}/{kind}_grad_{'probs' if kind == 'sem' else 'colors'}"
            close_gradient(found[1], golden.out(key), f"{label} gradient of {name} to attributes")


def check_cameras(golden) -> None:
    for entry in golden.config["sets"]:
        s, size = entry["prefix"], tuple(entry["image_size"])
        i = {name.removeprefix(s): tensor(array) for name, array in golden.inputs.items() if name.startswith(s)}

        def out(name: str, s=s) -> np.ndarray:
            return golden.out(s + name)

        camera = cameras.ndc_camera_from_opencv(i["R"], i["t"], i["K"], size)
        for name, value in (("R", camera.R), ("T", camera.T), ("focal", camera.focal), ("pp", camera.principal)):
            close(value, out(f"p3d_{name}"), 1e-5, f"{s}{name}")
        for name, value in zip(("R", "t", "K"), cameras.opencv_from_ndc_camera(camera, size), strict=True):
            close(value, golden.inputs[s + name], 1e-5 if name != "K" else 1e-3, f"{s}{name} back")
        close(camera.view(i["points"]), out("view"), 1e-5, f"{s}view")
        ndc = camera.project(i["points"])
        inverse = torch.cat([ndc[..., :2], 1 / ndc[..., 2:]], -1)  # the reference keeps 1 / Z as third component
        screen = cameras.px_from_ndc(inverse, size)
        for name in ("ndc", "screen_cam_ndc"):
            close(inverse, out(name), 1e-5, s + name, relative=True)
        for name in ("screen", "screen_cam_screen"):
            close(screen, out(name), 1e-3, s + name)
        close(screen[..., :2], out("cv2"), 1e-3, f"{s}cv2")
        close(camera.unproject(ndc), i["points"].numpy(), 1e-4, f"{s}points back")
        fov = cameras.ndc_camera_from_fov(tensor(out("lookat_R")), tensor(out("lookat_T")), i["fov"].deg2rad())
        ours = fov.project(i["points"])
        near, far = 1.0, 100.0
        depth = (far * ours[..., 2:] - far * near) / ((far - near) * ours[..., 2:])
        close(torch.cat([ours[..., :2], depth], -1), out("fov_ndc"), 1e-5, f"{s}fov", relative=True)
        scale, shift = i["weak_sxy"][:, :1], i["weak_sxy"][:, 1:]
        still = torch.zeros_like(i["weak_sxy"])
        flat = cameras.NdcCamera(i["R"], still, scale.expand(-1, 2), scale * shift, perspective=False)
        close(flat.project(i["points"]), out("ortho_ndc"), 1e-5, f"{s}orthographic", relative=True)


def check_pipeline(golden) -> None:
    verts, faces, counts = packed(golden)
    i = {name: tensor(array) for name, array in golden.inputs.items()}
    images = range(len(counts))
    colours = torch.cat([i[f"colors{n}"] for n in images])
    image_of_vertex = torch.tensor([n for n in images for _ in i[f"verts{n}"]])
    size = tuple(golden.config["image_size"])
    for render in golden.config["renders"]:
        for backend in backends(len(faces)):
            name, label = render["name"], f"{render['name']} {backend}"
            leaf, t = verts.clone().requires_grad_(), i["t"].clone().requires_grad_()
            camera = cameras.ndc_camera_from_opencv(i["R"], t, i["K"], size)
            parts = leaf.split([len(i[f"verts{n}"]) for n in images])
            seen = [camera.select(n).project(part[None])[0] for n, part in enumerate(parts)]
            fragments = drawn(
                rasterize,
                torch.cat(seen)[faces],
                counts,
                image_size=size,
                blur_radius=render["blur"],
                faces_per_pixel=render["K"],
                backend=backend,
            )
            image = shaded(render, fragments, (leaf, faces, colours, camera.centre()), i, image_of_vertex)
            tol = 5e-4 if name == "soft_phong" else 1e-4
            close(image, golden.out(f"{name}/image"), tol, label)
            weights = waves(image, 0.41, 0.3)
            if name == "silhouette":
                image, weights = image[..., 3], waves(image[..., 3], 0.41, 0.3)
            found = gradient((image * weights).sum(), leaf, t)
            for gradients, key in zip(found, ("verts", "t"), strict=True):
                truth = golden.out(f"{name}/grad_{key}")
                assert torch.isfinite(gradients).all() or (backend == "pytorch3d" and name == "soft_phong"), label
                if name == "hard_flat" and key == "verts":
                    # The reference gives part of the z gradient of its face normals to another corner of the face
                    # (ours agrees with float64); the sum over the mesh is right.
                    close_gradient(gradients.sum(0), truth.sum(0), f"{label} gradient, summed")
                    gradients, truth = gradients[:, :2], truth[:, :2]
                # The reference's own gradients are wrong for soft perspective colours.
                if name != "soft_phong":
                    close_gradient(gradients, truth, f"{label} gradient to {key}")


def shaded(render: dict, fragments: Fragments, scene: tuple, i: dict, image_of_vertex: Tensor) -> Tensor:
    light = lighting.Light(location=i["light_location"])
    material = lighting.Material(shininess=render["shininess"])
    background = torch.tensor(render["background"])
    mode, _, shader = render["name"].partition("_")
    if mode == "silhouette":
        alpha = blending.blend_silhouette(fragments, render["sigma"])[..., None]
        return torch.cat([torch.ones_like(alpha).expand(-1, -1, -1, 3), alpha], -1)
    if shader == "gouraud":
        values = lighting.shade_gouraud(fragments, *scene, light, material, image_of_vertex=image_of_vertex)
    else:
        shade = {"phong": lighting.shade_phong, "flat": lighting.shade_flat}[shader]
        values = shade(fragments, *scene, light, material)
    if mode == "hard":
        picture = blending.blend_hard(fragments, values, background)
    else:
        picture = blending.blend_softmax(fragments, values, background, sigma=render["sigma"], gamma=render["gamma"])
    return torch.cat([picture.colour, picture.alpha[..., None]], -1)


def check_all_faces(golden) -> None:
    i = {name: tensor(array) for name, array in golden.inputs.items()}
    faces, size = i["faces"].long(), tuple(golden.config["image_size"])
    assert golden.config["persp"] and golden.config["clip"] and not golden.config["cull"]
    verts = torch.stack([i[name] for name in golden.inputs if name.startswith("verts")])
    counts = [len(faces)] * len(verts)
    for n, config in enumerate(golden.config["configs"]):
        depths = {name: config[name] for name in ("sigma", "gamma", "znear", "zfar")}
        tol = 5e-4 if config["gamma"] <= 1e-4 else 1e-4
        single = golden.out(f"c{n}/sil_p3d32")  # the reference in single precision with a large K
        for backend in backends(sum(counts)):
            leaf, label = verts.clone().requires_grad_(), f"c{n} {backend}"
            probs = i["vert_probs"].expand(len(verts), -1, -1).clone().requires_grad_()
            corners = leaf[:, faces].flatten(0, 1)
            options = dict(image_size=size, backend=backend)
            softness = dict(sigma=config["sigma"], blur_radius=config["blur"])
            alpha = drawn(soft.soft_silhouette, corners, counts, **softness, **options)
            if backend == "pytorch3d":
                close(alpha, single, 1e-3, f"{label} sil")
                continue
            blend = soft.Blend(**depths, blur_radius=config["blur"])
            labels = probs[:, faces].flatten(0, 1)
            picture = drawn(soft.soft_render, corners, labels, i["background_probs"], counts, blend=blend, **options)
            close(alpha, golden.out(f"c{n}/sil"), 1e-4, f"{label} sil")
            close(picture.alpha, golden.out(f"c{n}/sil"), 1e-4, f"{label} alpha")
            close(picture.colour, golden.out(f"c{n}/sem"), tol, f"{label} sem")
            (found,) = gradient((alpha * waves(alpha, 0.37, 0.2)).sum(), leaf)
            close_gradient(found, golden.out(f"c{n}/sil_grad64_verts"), f"{label} gradient of sil")
            found = gradient((picture.colour * waves(picture.colour, 0.29, 0.8)).sum(), leaf, probs)
            for gradients, key in zip(found, ("verts", "probs"), strict=True):
                close_gradient(gradients, golden.out(f"c{n}/sem_grad64_{key}"), f"{label} gradient of sem to {key}")


def check_softras(golden) -> None:
    i = {name: tensor(array) for name, array in golden.inputs.items()}
    faces, size = i["faces"].long(), golden.config["image_size"]
    counts = [len(faces)] * len(i["verts"])
    left = torch.tensor([-1.0, 1, 1])  # its x runs to the right
    for n, config in enumerate(golden.config["configs"]):
        for name in golden.names(f"c{n}/grad_"):
            golden.ignore(name, why="gradients of the reference are for information: its distances are inexact")
        if config["dist"] != "euclidean" or config["rgb"] != "softmax" or config["alpha"] != "prod":
            golden.ignore(f"c{n}/image", why="barycentric distances and hard modes are optional and not offered")
            continue
        blend = soft.Blend.softras(
            config["sigma"],
            config["gamma"],
            near=config["near"],
            far=config["far"],
            eps=config["eps"],
            dist_eps=config["dist_eps"],
            fill_back=config["fill_back"],
        )
        if config["texture"] == "surface":
            assert i["face_tex"].shape[2] == 1
            texture = i["face_tex"][:, :, 0].flatten(0, 1)
        else:
            texture = i["vert_tex"][:, faces].flatten(0, 1)
        for backend in backends(sum(counts)):
            if backend == "pytorch3d":
                continue  # its blends are its own
            leaf = i["verts"].clone().requires_grad_()
            background = torch.tensor(config["background"], dtype=torch.float32)
            picture = drawn(
                soft.soft_render,
                (leaf * left)[:, faces].flatten(0, 1),
                texture,
                background,
                counts,
                image_size=size,
                blend=blend,
                backend=backend,
            )
            image = torch.cat([picture.colour, picture.alpha[..., None]], -1).permute(0, 3, 1, 2)
            error = np.abs(image.detach().numpy() - golden.out(f"c{n}/image"))
            # The reference's distance to obtuse triangles is inexact at a few pixels.
            off = (error.max(1) > 1e-3).mean()
            assert off <= 5e-3 and error.max() <= 0.1 and error.mean() <= 5e-5, f"c{n} {backend}: {off} {error.max()}"
            (found,) = gradient((image * waves(image, 0.37, 0.1 + n)).sum(), leaf)
            assert torch.isfinite(found).all() and found.abs().max() > 0


def check_bench_body(golden) -> None:
    """Meshes for timing: there is nothing to compare but that they can be drawn."""
    verts, faces = tensor(golden.inputs["verts"][:1]), tensor(golden.inputs["faces"]).long()
    alpha = soft.soft_silhouette(verts[0][faces], image_size=64, sigma=1e-5)
    assert 0.02 < float(alpha.mean()) < 0.9


CHECKS = [
    ("allfaces*", check_all_faces),
    ("softras*", check_softras),
    ("bench_body*", check_bench_body),
    ("raster_*", check_raster),
    ("cameras*", check_cameras),
    ("pipeline*", check_pipeline),
]
