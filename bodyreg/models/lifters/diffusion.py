"""Lifting by diffusion (D3DP, Shan et al., ICCV 2023): hypotheses of 3D poses are denoised under their 2D key points.

`Diffusion` wraps a denoiser, MixSTE as in D3DP or KTPFormer. KTPFormer's own diffusion code was never released; its
denoiser here follows D3DP's way into the network (the noisy pose beside the key points, an embedding of the time step
beside the spatial position), and no published number belongs to it. `mean_pose` and `reprojected_pose` are D3DP's
P-Agg and J-Agg.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from bodyreg import skeletons
from bodyreg.models.lifters.ktpformer import KTPFormer
from bodyreg.models.lifters.mixste import MixSTE

__all__ = [
    "Diffusion", "KTPFormerDenoiser", "MixSTEDenoiser", "best_joints", "best_pose", "cosine_schedule", "mean_pose",
    "reprojected_pose",
]  # fmt: skip


def cosine_schedule(steps: int, offset: float = 0.008) -> Tensor:
    """(steps,) betas of the cosine schedule (Nichol and Dhariwal, ICML 2021, equation 17), double precision."""
    t = torch.linspace(0, steps, steps + 1, dtype=torch.float64, device="cpu") / steps
    kept = torch.cos((t + offset) / (1 + offset) * math.pi / 2) ** 2
    return (1 - kept[1:] / kept[:-1]).clamp(0, 0.999)


class _Sinusoid(nn.Module):
    """(B,) time steps -> (B, C) sines and cosines; C even."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def forward(self, t: Tensor) -> Tensor:
        half = self.width // 2
        rates = torch.exp(torch.arange(half, device=t.device) * (-math.log(10000) / (half - 1)))
        angles = t.float()[:, None] * rates
        return torch.cat([angles.sin(), angles.cos()], dim=-1)


def _time_mlp(width: int) -> nn.Sequential:
    return nn.Sequential(_Sinusoid(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))


class MixSTEDenoiser(MixSTE):
    """MixSTE that is also told a noisy pose and how noisy it is; arguments as MixSTE's."""

    def __init__(
        self, frames: int = 243, joints: int = 17, channels: int = 2, width: int = 512, **options: Any
    ) -> None:
        super().__init__(frames, joints, channels + 3, width, **options)
        self.time_mlp = _time_mlp(width)

    def forward(self, x: Tensor, noisy: Tensor, t: Tensor) -> Tensor:  # type: ignore[override]
        """(B, F, J, 2) key points, (B, F, J, 3) noisy pose, (B,) time steps -> (B, F, J, 3) clean pose."""
        return self._lift(torch.cat([x, noisy], dim=-1), None, None, self.time_mlp(t))[0]


class KTPFormerDenoiser(KTPFormer):
    """KTPFormer that is also told a noisy pose and how noisy it is; arguments as KTPFormer's."""

    def __init__(
        self, frames: int = 243, joint_set: str = "h36m-17", channels: int = 2, width: int = 512, **options: Any
    ) -> None:
        super().__init__(frames, joint_set, channels + 3, width, **options)
        self.time_mlp = _time_mlp(width)

    forward = MixSTEDenoiser.forward  # type: ignore[assignment]


class Diffusion(nn.Module):
    """DDIM around a denoiser that predicts the clean pose.

    Args:
        pose_estimator: denoiser (key points, noisy pose, time) -> pose. joint_set: of key points and poses.
        timesteps: T. sampling_timesteps: K denoising steps. hypotheses: H poses a clip. scale: of the signal.
        eta: 1 adds the noise of DDPM in each step, 0 none. seed: of the noise when `forward` samples.
    """

    def __init__(
        self, pose_estimator: nn.Module, *, joint_set: str = "h36m-17", timesteps: int = 1000,
        sampling_timesteps: int = 5, hypotheses: int = 5, scale: float = 1.0, eta: float = 1.0,
        seed: int = 0,
    ) -> None:  # fmt: skip
        super().__init__()
        if not 1 <= sampling_timesteps <= timesteps:
            raise ValueError(f"{sampling_timesteps} steps do not fit into {timesteps}. Take fewer sampling steps.")
        self.pose_estimator = pose_estimator
        self.timesteps, self.sampling_timesteps, self.hypotheses = timesteps, sampling_timesteps, hypotheses
        self.scale, self.eta, self.seed = scale, eta, seed
        self.mirror = list(skeletons.get(joint_set).mirror)
        for name, values in _schedule(timesteps).items():
            self.register_buffer(name, values, persistent=False)
        self.alphas_cumprod: Tensor

    def time_pairs(self) -> list[tuple[int, int]]:
        """(time, next time) of each sampling step; the last next time is -1."""
        times = torch.linspace(-1, self.timesteps - 1, self.sampling_timesteps + 1, device="cpu").int().tolist()[::-1]
        return list(zip(times[:-1], times[1:], strict=True))

    def q_sample(self, pose: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """x_t = sqrt(abar_t) pose + sqrt(1 - abar_t) noise; pose (B, ...) scaled, t (B,)."""
        kept = self._at(t, pose)
        return kept.sqrt() * pose + (1 - kept).sqrt() * noise

    def noisy_input(self, pose: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """What the denoiser sees in training: the scaled pose at time t, clamped, in metres again."""
        noisy = self.q_sample(pose * self.scale, t, noise)
        return self._clamp(noisy) / self.scale

    def training_pose(self, x: Tensor, pose: Tensor) -> Tensor:
        """Clean poses predicted from noised ones at random times; the loss compares them with `pose` (MPJPE)."""
        t = torch.randint(self.timesteps, (len(x),), device=x.device)
        return self.pose_estimator(x, self.noisy_input(pose, t, torch.randn_like(pose)), t)

    def forward(self, x: Tensor, pose: Tensor | None = None) -> Tensor:
        """(B, F, J, 2) key points -> (B, F, J, 3) pose.

        In training, the clean pose predicted from `pose` (B, F, J, 3) under noise. Otherwise P-Agg over the last step
        of `sample`, whose noise is the same on every call.

        Raises:
            ValueError: no pose in training.
        """
        if self.training:
            if pose is None:
                raise ValueError("A diffusion is trained on noised poses. Pass the true pose, or call eval() first.")
            return self.training_pose(x, pose)
        generator = torch.Generator().manual_seed(self.seed)
        return mean_pose(self.sample(x, generator=generator)[:, -1])

    def sample(
        self, x: Tensor, x_flip: Tensor | None = None, noise: Sequence[Tensor] | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:  # fmt: skip
        """Sample hypotheses.

        Args:
            x: (B, F, J, 2) key points. x_flip: their mirror images, with left and right exchanged; made from `x` when
                missing. noise: the starting sample and what each further step adds, (B, H, F, J, 3) each.
            generator: of the noise otherwise.

        Returns:
            (B, K, H, F, J, 3) poses after each step, root-relative, metres.
        """
        x_flip = self._flip(x) if x_flip is None else x_flip
        draws = self._noise(x, noise, generator)
        sample, steps = next(draws), []
        for time, next_time in self.time_pairs():
            pose = self._clamp(self._predict(x, x_flip, self._clamp(sample) / self.scale, time) * self.scale)
            steps.append(pose / self.scale)
            if next_time < 0:
                break
            now, then = self.alphas_cumprod[time], self.alphas_cumprod[next_time]
            epsilon = (sample / now.sqrt() - pose) / (1 / now - 1).sqrt()
            sigma = self.eta * ((1 - now / then) * (1 - then) / (1 - now)).sqrt()
            sample = pose * then.sqrt() + (1 - then - sigma**2).sqrt() * epsilon + sigma * next(draws)
        return torch.stack(steps, dim=1)

    def _predict(self, x: Tensor, x_flip: Tensor, noisy: Tensor, time: int) -> Tensor:
        """Mean of the predictions for (B, H, F, J, 3) poses and for their mirror images."""
        batch, count = noisy.shape[:2]
        t = torch.full((batch * count,), time, device=x.device)

        def denoise(keypoints: Tensor, poses: Tensor) -> Tensor:
            each = keypoints[:, None].expand(-1, count, -1, -1, -1)
            return self.pose_estimator(each.flatten(0, 1), poses.flatten(0, 1), t).unflatten(0, (batch, count))

        return (denoise(x, noisy) + self._flip(denoise(x_flip, self._flip(noisy)))) / 2

    def _flip(self, points: Tensor) -> Tensor:
        """Mirror images (..., J, 2 or more): x changes its sign, left and right joints change places."""
        points = points[..., self.mirror, :]
        return torch.cat([-points[..., :1], points[..., 1:]], dim=-1)

    def _clamp(self, x: Tensor) -> Tensor:
        return x.clamp(-1.1 * self.scale, 1.1 * self.scale)

    def _at(self, t: Tensor, like: Tensor) -> Tensor:
        return self.alphas_cumprod[t].reshape(-1, *[1] * (like.dim() - 1)).to(like)

    def _noise(
        self, x: Tensor, given: Sequence[Tensor] | None, generator: torch.Generator | None
    ) -> Iterator[Tensor]:
        shape = (len(x), self.hypotheses, *x.shape[1:3], 3)
        for i in range(self.sampling_timesteps):
            if given is None:
                device = generator.device if generator is not None else x.device
                yield torch.randn(shape, generator=generator, device=device, dtype=x.dtype).to(x.device)
            elif i < len(given) and given[i].shape[0] == len(x) and given[i].shape[2:] == shape[2:]:
                yield given[i]
            else:
                raise ValueError(
                    f"Noise {i} is lacking or of another shape. Give {self.sampling_timesteps} tensors {shape}."
                )


def _schedule(steps: int) -> dict[str, Tensor]:
    """Everything that follows from the betas, computed in double precision and kept as float32."""
    betas = cosine_schedule(steps)
    alphas = 1 - betas
    kept = alphas.cumprod(0)
    before = torch.cat([kept.new_ones(1), kept[:-1]])
    variance = betas * (1 - before) / (1 - kept)
    named = {
        "betas": betas,
        "alphas_cumprod": kept,
        "alphas_cumprod_prev": before,
        "sqrt_alphas_cumprod": kept.sqrt(),
        "sqrt_one_minus_alphas_cumprod": (1 - kept).sqrt(),
        "log_one_minus_alphas_cumprod": (1 - kept).log(),
        "sqrt_recip_alphas_cumprod": (1 / kept).sqrt(),
        "sqrt_recipm1_alphas_cumprod": (1 / kept - 1).sqrt(),
        "posterior_variance": variance,
        "posterior_log_variance_clipped": variance.clamp(min=1e-20).log(),
        "posterior_mean_coef1": betas * before.sqrt() / (1 - kept),
        "posterior_mean_coef2": (1 - before) * alphas.sqrt() / (1 - kept),
    }
    return named


def mean_pose(hypotheses: Tensor) -> Tensor:
    """P-Agg: the mean of (B, H, F, J, 3) hypotheses, (B, F, J, 3)."""
    return hypotheses.mean(1)


def reprojected_pose(
    hypotheses: Tensor, x: Tensor, root: Tensor, project: Callable[[Tensor], Tensor]
) -> Tensor:
    """J-Agg: for each joint the hypothesis whose projection lies nearest to the key point.

    It needs the camera and where the root is, which no key point tells: D3DP takes the root from the ground truth.

    Args:
        hypotheses: (B, H, F, J, 3) root-relative, metres. x: (B, F, J, 2) key points.
        root: (B, F, 1, 3) root in the camera frame, metres.
        project: (B, H, F, J, 3) camera frame -> (B, H, F, J, 2) in the unit of `x`.

    Returns:
        (B, F, J, 3) root-relative.
    """
    error = (project(hypotheses + root[:, None]) - x[:, None, ..., :2]).norm(dim=-1)
    return _pick_joints(hypotheses, error)


def best_joints(hypotheses: Tensor, truth: Tensor) -> Tensor:
    """J-Best, an oracle: for each joint the hypothesis nearest to the truth (B, F, J, 3)."""
    return _pick_joints(hypotheses, (hypotheses - truth[:, None]).norm(dim=-1))


def best_pose(hypotheses: Tensor, truth: Tensor) -> Tensor:
    """P-Best, an oracle: for each frame the hypothesis of the smallest mean joint error."""
    error = (hypotheses - truth[:, None]).norm(dim=-1).mean(-1, keepdim=True)
    return _pick_joints(hypotheses, error.expand(hypotheses.shape[:-1]))


def _pick_joints(hypotheses: Tensor, error: Tensor) -> Tensor:
    """The hypotheses (B, H, F, J, 3) of the smallest errors (B, H, F, J), joint by joint."""
    best = error.argmin(1, keepdim=True)[..., None].expand(-1, -1, -1, -1, 3)
    return hypotheses.gather(1, best).squeeze(1)
