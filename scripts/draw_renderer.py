"""The renderer in ten lines, and the picture of them in the README: `python scripts/draw_renderer.py [--out FILE]`."""

from __future__ import annotations

import argparse
from pathlib import Path

OUT = Path(__file__).resolve().parents[1] / "docs" / "renderer.png"

EXAMPLE = """\
import torch
from bodyreg.body import BodyModel
from renderers import ndc_camera_from_opencv, rasterize, soft_render, soft_silhouette
body = BodyModel.load("free")
pose = torch.zeros(1, 23, 3, requires_grad=True)
vertices = body(body_pose=pose).vertices                                  # (1, V, 3) metres, y up
R, t = torch.diag(torch.tensor([1.0, -1, -1]))[None], torch.tensor([[0, 0, 2.6]])
K = torch.tensor([[[290.0, 0, 112], [0, 290, 95], [0, 0, 1]]])            # OpenCV intrinsics, pixels
camera = ndc_camera_from_opencv(R, t, K, (224, 224))
corners = camera.project(vertices)[0][body.faces]                         # (F, 3, 3) x, y in NDC, depth
alpha = soft_silhouette(corners, image_size=224, sigma=1e-4)              # (1, 224, 224), all faces count
labels = torch.nn.functional.one_hot(body.part_labels).float()[body.faces]
parts = soft_render(corners, labels, torch.zeros(24), image_size=224)     # label map (1, 224, 224, 24)
nearest = rasterize(corners, image_size=224, faces_per_pixel=1)           # pix_to_face, zbuf, bary, dists
(alpha.sum() + parts.colour[..., 15].sum()).backward()                    # true gradients in pose.grad
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=OUT)
    out = parser.parse_args().out

    import cv2
    import numpy as np
    import torch

    from renderers import Light, blend_hard, depth_hard, labels_hard, normals_hard, shade_phong
    from renderers.blending import interpolate_corners

    names: dict = {}
    exec(compile(EXAMPLE, "example", "exec"), names)
    fragments, vertices, faces = names["nearest"], names["vertices"][0], names["body"].faces
    eye = names["camera"].centre()
    clay = torch.tensor([0.78, 0.66, 0.58]).expand(len(vertices), 3)
    light = Light(location=torch.tensor([[1.5, 1.5, 3.0]]), diffuse=(0.6, 0.6, 0.6), ambient=(0.4, 0.4, 0.4))
    lit = blend_hard(fragments, shade_phong(fragments, vertices, faces, clay, eye, light), torch.ones(3))
    hit = lit.alpha[0, ..., None]
    hues = np.stack([np.arange(24) * 67 % 180, np.full(24, 150), np.full(24, 230)], -1).astype(np.uint8)
    palette = torch.from_numpy(cv2.cvtColor(hues[None], cv2.COLOR_HSV2RGB)[0]).float() / 255
    labels = labels_hard(fragments, interpolate_corners(fragments, names["labels"]))[0]
    depth = depth_hard(fragments, 0.0)[0]
    near, far = depth[depth > 0].min(), depth.max()
    shade = 1 - 0.8 * (depth - near) / (far - near)
    panels = [
        lit.colour[0],
        names["alpha"][0, ..., None].expand(-1, -1, 3),
        torch.where(labels[..., None] >= 0, palette[labels], torch.ones(3)),
        torch.where(depth > 0, shade, torch.zeros(()))[..., None].expand(-1, -1, 3),
        normals_hard(fragments, vertices, faces)[0] * 0.5 * hit + (1 - 0.5 * hit),
    ]
    picture = torch.cat(panels, 1).clamp(0, 1).detach().mul(255).round().byte().numpy()
    cv2.imwrite(str(out), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))


if __name__ == "__main__":
    main()
