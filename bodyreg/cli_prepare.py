"""`bodyreg prepare`: data sets, synthetic people and benchmarks, checked and written as files that training reads."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["Body", "prepare_app"]

prepare_app = typer.Typer(no_args_is_help=True, help="Prepare data sets for training.")

Body = Annotated[str, typer.Option(help="Body model: free, smpl (found in BODYREG_DATA) or a file.")]


@prepare_app.command("synthetic")
def prepare_synthetic(
    out: Annotated[Path, typer.Option(help="Folder of the shards; those already there are kept.")],
    count: Annotated[int, typer.Option(min=1, help="Scenes, rounded up to whole shards.")] = 10000,
    motion: Annotated[Path | None, typer.Option(help="Folder of AMASS-layout files; default: the pose prior.")] = None,
    held_out: Annotated[bool, typer.Option("--held-out", help="Only clips that are never trained on.")] = False,
    seed: Annotated[int, typer.Option(help="With the shard's number decides its contents.")] = 0,
    perspective_rotation: Annotated[bool, typer.Option(help="Turn cameras onto people; off for ablation.")] = True,
    garments: Annotated[
        str | None, typer.Option(help="geometry or painted; default: as the folder has them, else geometry.")
    ] = None,
    looseness: Annotated[
        tuple[float, float], typer.Option(help="Range of looseness of geometric garments, 0 tight to 1 very loose.")
    ] = (0.0, 1.0),
) -> None:
    """Render people of the free body into shards for training."""
    from bodyreg.data.synthetic.prepare import prepare_synthetic as prepare
    from bodyreg.data.synthetic.scenes import SceneSettings

    scenes = SceneSettings(perspective_rotation=perspective_rotation, garments=garments, looseness=looseness)
    shards = prepare(out, count, motion=motion, held_out=held_out, seed=seed, settings=scenes)
    typer.echo(f"{len(shards)} shards in {out}")


@prepare_app.command("parsing")
def prepare_parsing(
    source: Annotated[Path, typer.Option(help="Folder of a human parser's PNG files.")],
    out: Annotated[Path, typer.Option(help="Folder of the converted ones, under the same names.")],
    numbers: Annotated[str, typer.Option(help="What plain label numbers mean: lip-20 or atr-18.")] = "lip-20",
    form: Annotated[str, typer.Option(help="What is written: palette or labels.")] = "palette",
) -> None:
    """Check parsing pictures and write them all in one form with LIP's 20 labels."""
    from bodyreg.data.parsing import convert_parsing_folder

    written, refused = convert_parsing_folder(source, out, numbers=numbers, form=form)
    for name, reason in refused.items():
        typer.echo(f"{name}: {reason}", err=True)
    typer.echo(f"{len(written)} parsing pictures in {out}, {len(refused)} refused")


@prepare_app.command("eft")
def prepare_eft(
    source: Annotated[Path, typer.Option(help="JSON file of EFT's fits.")],
    out: Annotated[Path, typer.Option(help="The npz in SPIN's layout.")],
    folder: Annotated[str, typer.Option(help="Put before every picture's name, e.g. train2014.")] = "",
) -> None:
    """Write EFT's fits as a data file in SPIN's layout, for `bodyreg train dsr`."""
    from bodyreg.data.eft import convert_eft

    typer.echo(f"Prepared: {convert_eft(source, out, folder=folder)}")


def _add_dataset(name: str, summary: str) -> None:
    def prepare_dataset(
        root: Annotated[Path, typer.Option(help="Folder of the download, as its authors distribute it.")],
        out: Annotated[Path, typer.Option(help="Folder of the prepared file.")] = Path("data"),
        split: Annotated[str | None, typer.Option(help="Part of the data set; default: its training part.")] = None,
    ) -> None:
        from bodyreg.data.prepare import prepare_dataset as prepare

        typer.echo(f"Prepared: {prepare(name, root, out, split=split)}")

    prepare_app.command(name, help=f"Check a download of {summary} and write its labels as one indexed file.")(
        prepare_dataset
    )


for _name, _summary in (
    ("3dpw", "3DPW"),
    ("h36m", "Human3.6M with SMPL parameters"),
    ("h36m-moon", "Human3.6M in PoseNet's JSON form"),
    ("bedlam", "BEDLAM"),
    ("3dhp", "MPI-INF-3DHP in HybrIK's JSON form"),
    ("3dhp-raw", "MPI-INF-3DHP as its authors distribute it"),
    ("coco", "COCO's person key points"),
    ("densepose", "DensePose-COCO's people"),
):
    _add_dataset(_name, _summary)


def _add_lifter_dataset(name: str, summary: str, sources: str) -> None:
    def prepare_lifter_dataset(
        root: Annotated[Path, typer.Option(help="Folder of the download, as its authors distribute it.")],
        out: Annotated[Path, typer.Option(help="Folder of the prepared file.")] = Path("data"),
        keypoints: Annotated[str | None, typer.Option(help="Which 2D key points; see above.")] = None,
    ) -> None:
        from bodyreg.data.prepare import prepare_lifter_set as prepare

        typer.echo(f"Prepared: {prepare(name, root, out, keypoints)}")

    text = f"Check a download of {summary}, write one file for lifters. Key points: {sources}."
    prepare_app.command(name, help=text)(prepare_lifter_dataset)


for _name, _summary, _sources in (
    ("h36m-lift", "Human3.6M in VideoPose3D's layout", "cpn_ft_h36m_dbb (default), gt, projected"),
    ("humaneva", "HumanEva-I in VideoPose3D's layout", "gt (default) or detectron_pt_coco"),
    ("3dhp-lift", "MPI-INF-3DHP in P-STMO's layout", "gt"),
):
    _add_lifter_dataset(_name, _summary, _sources)


@prepare_app.command("motion")
def prepare_motion(
    root: Annotated[Path, typer.Option(help="Folder of motion files in AMASS's layout.")],
    out: Annotated[Path, typer.Option(help="Folder of the benchmark.")] = Path("data/motion"),
    body: Body = "free",
    cameras: Annotated[int, typer.Option(min=1, max=4, help="Cameras around each clip.")] = 4,
    fps: Annotated[float, typer.Option(help="Pictures a second.")] = 30.0,
    seed: Annotated[int, typer.Option(help="Of shapes, cameras and noise.")] = 0,
) -> None:
    """Make a benchmark for lifters from motion: 17 joints of a body, cameras around it, exact and noisy key points."""
    from bodyreg.body import BodyModel
    from bodyreg.data.motion_benchmark import prepare_motion as prepare

    for path in prepare(root, out, body=BodyModel.load(body), cameras=cameras, fps=fps, seed=seed).values():
        typer.echo(str(path))


@prepare_app.command("domains")
def prepare_domains(
    motion: Annotated[Path, typer.Option(help="Exact key points of the benchmark: motion_gt.npz.")],
    out: Annotated[Path, typer.Option(help="Folder of source.npz and target.npz.")] = Path("data/pair"),
    seed: Annotated[int, typer.Option(help="Of cameras and noise.")] = 0,
) -> None:
    """Make two domains from the motion benchmark, for adaptation: other people, other heights, other cameras."""
    from bodyreg.data.domain_pair import shifted_pair
    from bodyreg.data.lifter_sets import read_lifter_set, write_lifter_set

    for prepared in shifted_pair(read_lifter_set(motion), seed):
        typer.echo(str(write_lifter_set(out / f"{prepared.about.name}.npz", prepared)))
