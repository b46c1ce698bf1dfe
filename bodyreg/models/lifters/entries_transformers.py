"""Registry entries of the transformer lifters, plain and pruned."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

from bodyreg import skeletons
from bodyreg.models.lifters.record import Figure, LifterEntry, LifterSettings

if TYPE_CHECKING:
    from torch import nn

__all__ = ["ENTRIES"]

_Builder = Callable[[LifterSettings, Mapping[str, Any]], "nn.Module"]
_Presets = Mapping[str, Mapping[str, Any]]
_PRUNING = ("keep", "layer_index", "seed")


def _joints(settings: LifterSettings, name: str) -> int:
    """Joints of a network that lifts each key point to the joint of the same name."""
    if settings.input_set != settings.joint_set:
        raise ValueError(
            f"{name} lifts each key point to its own joint, not {settings.input_set!r} to {settings.joint_set!r}. "
            "Convert the key points to the joint set first."
        )
    return len(skeletons.get(settings.joint_set))


def _builder(module: str, cls: str, joints: str, recover: bool | None = None) -> _Builder:
    """How a network is made from settings.

    Args:
        module, cls: where its class is. joints: how it is told of them: "count", "set", or "h36m" if it knows no other.
        recover: None for a plain network, True for HoT, False for TPC alone.
    """

    def build(settings: LifterSettings, options: Mapping[str, Any]) -> nn.Module:
        from bodyreg.models.lifters.hot import Pruning

        network = getattr(import_module(f"bodyreg.models.lifters.{module}"), cls)
        count = _joints(settings, cls)
        if joints == "h36m" and settings.joint_set != "h36m-17":
            raise ValueError(f"{cls} knows the skeleton h36m-17 only, not {settings.joint_set!r}. Convert to it first.")
        own = {key: value for key, value in options.items() if key not in _PRUNING}
        if joints != "h36m":
            own |= {"joints": count} if joints == "count" else {"joint_set": settings.joint_set}
        if cls == "MHFormer":
            own["joints_out"] = count
        if recover is not None:
            own["pruning"] = Pruning(options["keep"], options["layer_index"], recover, options["seed"])
        return network(**own)

    return build


def _ktpformer_diffusion(settings: LifterSettings, options: Mapping[str, Any]) -> nn.Module:
    from bodyreg.models.lifters.diffusion import Diffusion, KTPFormerDenoiser

    _joints(settings, "KTPFormer")
    sampler = {key: options[key] for key in ("timesteps", "sampling_timesteps", "hypotheses", "scale", "eta", "seed")}
    own = {key: value for key, value in options.items() if key not in sampler}
    return Diffusion(KTPFormerDenoiser(joint_set=settings.joint_set, **own), joint_set=settings.joint_set, **sampler)


def _pruned(presets: _Presets, layer_index: int, keep: Mapping[str, int]) -> _Presets:
    """Presets of a pruned network: those of its host with the number of kept frames of each."""
    names = list(keep)
    first = {**presets[names[0]], "keep": keep[names[0]], "layer_index": layer_index, "seed": 0}
    return {names[0]: first, **{name: {**presets[name], "keep": keep[name]} for name in names[1:]}}


_MIXSTE: _Presets = {
    "243": {"frames": 243, "width": 512, "hidden": 0, "depth": 8, "heads": 8, "drop_path": 0.1},
    "81": {"frames": 81},
    "27": {"frames": 27},
    "small": {"frames": 27, "width": 64},
}
_KTPFORMER: _Presets = {
    "243": {"frames": 243, "width": 512, "depth": 7, "heads": 8, "mlp_ratio": 2.0, "drop_path": 0.1},
    "81": {"frames": 81},
    "27": {"frames": 27},
    "351": {"frames": 351},
    "small": {"frames": 27, "width": 64},
}
_MOTIONBERT: _Presets = {
    "243": {"frames": 243, "width": 256, "rep": 512, "depth": 5, "heads": 8, "mlp_ratio": 4.0, "priors": False},
    "small": {"frames": 27, "width": 64, "rep": 128},
}
_MHFORMER: _Presets = {
    "351": {"frames": 351, "width": 512, "hidden": 1024, "heads": 8},
    "81": {"frames": 81},
    "27": {"frames": 27},
    "small": {"frames": 27, "width": 64, "hidden": 128},
}
_AGFORMER: _Presets = {
    "base": {
        "frames": 243, "layers": 16, "width": 128, "rep": 512, "heads": 8, "mlp_ratio": 4.0, "qkv_bias": False,
        "use_layer_scale": True, "layer_scale": 1e-5, "adaptive_fusion": True, "hierarchical": False,
        "temporal_similarity": True, "neighbours": 2, "connection_length": 1, "tcn": False, "graph_only": False,
    },
    "xs": {"frames": 27, "layers": 12, "width": 64},
    "small": {"frames": 27, "layers": 4, "width": 32, "rep": 64},
}  # fmt: skip
# HoT's class of this host has other defaults than the weights that its authors publish.
_AGFORMER_HOT: _Presets = {**_AGFORMER, "base": {**_AGFORMER["base"], "heads": 4, "neighbours": 4}}

_HOT = "Li et al., Hourglass Tokenizer for Efficient Transformer-Based 3D Human Pose Estimation, CVPR 2024"
_CPN = "Human3.6M, CPN, 243 frames"
_SEEN = "figure of HoT's repository"
_OURS = "a combination of ours without published weights"
_MIXSTE_PAPER = "Zhang et al., MixSTE, CVPR 2022"
_KTP_PAPER = "Peng et al., KTPFormer, CVPR 2024"
_MB_PAPER = "Zhu et al., MotionBERT, ICCV 2023"
_MH_PAPER = "Li et al., MHFormer, CVPR 2022"
_MAG_PAPER = "Mehraban et al., MotionAGFormer, WACV 2024"

_PLAIN: tuple[LifterEntry, ...] = (
    LifterEntry(
        "mixste", _builder("mixste", "MixSTE", "count"), _MIXSTE, "sequence",
        "Attention over joints and attention over frames take turns.", _MIXSTE_PAPER,
        figures=(Figure(_CPN, {"MPJPE": 40.9, "P-MPJPE": 32.6}, "its repository; HoT's repository has the first too"),),
    ),
    LifterEntry(
        "ktpformer", _builder("ktpformer", "KTPFormer", "set"), _KTPFORMER, "sequence",
        "MixSTE whose first stage knows the skeleton and the chain of frames.", _KTP_PAPER,
        figures=(
            Figure(_CPN, {"MPJPE": 40.1}, "a public leader board"),
            Figure("MPI-INF-3DHP, ground truth 2D, 81 frames", {"MPJPE": 16.7}, "a public leader board"),
        ),
    ),
    LifterEntry(
        "ktpformer_diffusion", _ktpformer_diffusion,
        {
            "243": {
                "frames": 243, "width": 512, "depth": 7, "heads": 8, "mlp_ratio": 2.0, "drop_path": 0.1,
                "timesteps": 1000, "sampling_timesteps": 5, "hypotheses": 5, "scale": 1.0, "eta": 1.0, "seed": 0,
            },
            "small": {"frames": 27, "width": 64, "depth": 3},
        },
        "sequence",
        "KTPFormer as the denoiser of a diffusion over poses; gives the mean of its hypotheses.",
        f"{_KTP_PAPER}; Shan et al., D3DP, ICCV 2023; the denoiser's design is ours",
        figures=(
            Figure(
                _CPN, {"MPJPE": 33.0, "P-MPJPE": 26.2},
                "third-party comparisons; of the best of its hypotheses, and of code that was not released",
            ),
        ),
    ),
    LifterEntry(
        "motionbert", _builder("motionbert", "DSTformer", "set"), _MOTIONBERT, "sequence",
        "Dual streams of attention over space and time; takes confidences, too.", _MB_PAPER, channels=3,
        figures=(Figure(_CPN, {"MPJPE": 39.8}, _SEEN),),
    ),
    LifterEntry(
        "motionbert_priors", _builder("motionbert", "DSTformer", "set"),
        {**_MOTIONBERT, "243": {**_MOTIONBERT["243"], "priors": True}}, "sequence",
        "MotionBERT with KTPFormer's two graph convolutions in front.", f"{_MB_PAPER}; {_KTP_PAPER}; {_OURS}",
        channels=3,
    ),
    LifterEntry(
        "mhformer", _builder("mhformer", "MHFormer", "count"), _MHFORMER, "sequence",
        "Three hypotheses that are refined alone and in exchange.", _MH_PAPER,
        figures=(Figure("Human3.6M, CPN, 351 frames", {"MPJPE": 43.0}, "its README"),),
    ),
    LifterEntry(
        "motionagformer", _builder("motionagformer", "MotionAGFormer", "h36m"), _AGFORMER, "sequence",
        "Attention and graph convolution side by side; takes confidences, too.", _MAG_PAPER, channels=3,
        figures=(Figure("Human3.6M, stacked hourglass, 243 frames", {"MPJPE": 38.4}, "its abstract"),),
    ),
)  # fmt: skip

_PRUNED: tuple[LifterEntry, ...] = (
    LifterEntry(
        "hot_mixste", _builder("mixste", "MixSTE", "count", True),
        _pruned(_MIXSTE, 3, {"243": 81, "81": 27, "27": 9, "small": 9}), "sequence",
        "MixSTE that goes on with a third of its frames and regrows the others.", _HOT,
        figures=(Figure(_CPN, {"MPJPE": 41.0}, _SEEN),),
    ),
    LifterEntry(
        "tpc_mixste", _builder("mixste", "MixSTE", "count", False), _pruned(_MIXSTE, 7, {"243": 61, "small": 9}),
        "kept", "MixSTE that goes on with a quarter of its frames, the centre among them.", _HOT,
        figures=(Figure(_CPN, {"MPJPE": 39.9}, _SEEN),),
    ),
    LifterEntry(
        "hot_ktpformer", _builder("ktpformer", "KTPFormer", "set", True),
        _pruned(_KTPFORMER, 3, {"243": 81, "81": 27, "27": 9, "small": 9}), "sequence",
        "KTPFormer that goes on with a third of its frames and regrows the others.", f"{_KTP_PAPER}; {_HOT}; {_OURS}",
    ),
    LifterEntry(
        "tpc_ktpformer", _builder("ktpformer", "KTPFormer", "set", False),
        _pruned(_KTPFORMER, 7, {"243": 61, "small": 9}), "kept",
        "KTPFormer that goes on with a quarter of its frames, the centre among them.", f"{_KTP_PAPER}; {_HOT}; {_OURS}",
    ),
    LifterEntry(
        "hot_motionbert", _builder("motionbert", "DSTformer", "set", True),
        _pruned(_MOTIONBERT, 1, {"243": 81, "small": 9}), "sequence",
        "MotionBERT that goes on with a third of its frames and regrows the others.", _HOT, channels=3,
        figures=(Figure(_CPN, {"MPJPE": 39.8}, _SEEN),),
    ),
    LifterEntry(
        "tpc_motionbert", _builder("motionbert", "DSTformer", "set", False),
        _pruned(_MOTIONBERT, 3, {"243": 61, "small": 9}), "kept",
        "MotionBERT that goes on with a quarter of its frames; where it prunes is our choice.", _HOT, channels=3,
        figures=(Figure(_CPN, {"MPJPE": 39.0}, f"{_SEEN}; its code was not released"),),
    ),
    LifterEntry(
        "hot_mhformer", _builder("mhformer", "MHFormer", "count", True),
        _pruned(_MHFORMER, 1, {"351": 117, "small": 9}), "sequence",
        "MHFormer that goes on with a third of its frames and regrows the others.", f"{_MH_PAPER}; {_HOT}; {_OURS}",
    ),
    LifterEntry(
        "tpc_mhformer", _builder("mhformer", "MHFormer", "count", False),
        _pruned(_MHFORMER, 1, {"351": 117, "small": 9}), "kept",
        "MHFormer that goes on with a third of its frames, the centre among them.", _HOT,
    ),
    LifterEntry(
        "hot_motionagformer", _builder("motionagformer", "MotionAGFormer", "h36m", True),
        {**_pruned(_AGFORMER_HOT, 7, {"base": 81}), "small": {**_AGFORMER["small"], "keep": 9, "layer_index": 2}},
        "sequence", "MotionAGFormer that goes on with a third of its frames and regrows the others.", _HOT, channels=3,
    ),
    LifterEntry(
        "tpc_motionagformer", _builder("motionagformer", "MotionAGFormer", "h36m", False),
        {**_pruned(_AGFORMER_HOT, 14, {"base": 61}), "small": {**_AGFORMER["small"], "keep": 9, "layer_index": 3}},
        "kept", "MotionAGFormer that goes on with a quarter of its frames.", f"{_MAG_PAPER}; {_HOT}; {_OURS}",
        channels=3,
    ),
)  # fmt: skip

ENTRIES = (*_PLAIN, *_PRUNED)
