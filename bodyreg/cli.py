"""The command line: `bodyreg infer | refine | lift | train | evaluate | export | prepare | models | view | doctor`.

Commands are thin: they read options, import what they call when they call it (so that `--help` is quick), and print.
Exit codes: 0 when every input has a record, 1 on an error of the user's (one message, no traceback), 2 on misuse.
"""

from __future__ import annotations

import gc
import logging
import math
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from bodyreg.cli_output import Progress, names, print_rows
from bodyreg.cli_prepare import Body, prepare_app
from bodyreg.cli_view import VIEW_EXAMPLES, view


class _Commands(TyperGroup):
    """Turns errors that a user can mend into one message and exit code 1; `--debug` lets the traceback through."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except (ValueError, OSError) as error:  # MissingFileError and every other message of ours is among these
            if ctx.params.get("debug"):
                raise
            _fail(str(error) or type(error).__name__)
        except KeyboardInterrupt:
            _fail("Interrupted. What was finished is on disk; run again with --resume to go on.", code=130)


# An empty line between examples keeps each on its own line of the help.
_EXAMPLES = """Examples:

bodyreg infer photos --out results

bodyreg infer photos --out results --boxes boxes.json --formats obj,glb

bodyreg export results --out meshes --formats ply

bodyreg train perspose_small run.steps=10000

bodyreg evaluate --people 256
"""
_INFER_EXAMPLES = """Examples:

bodyreg infer photos --out results

bodyreg infer photos --out results --refine

bodyreg infer photos --out results --people whole --focal-mm 26

bodyreg infer photos --out results --intrinsics K.json --no-overlay --resume

bodyreg infer photos --out results --model perspose --weights FILE --body smpl

bodyreg infer photos --out results --engine ray --resume
"""
_REFINE_EXAMPLES = """Examples:

bodyreg refine results --keypoints openpose --photos photos

bodyreg refine results --keypoints coco.json --silhouette masks --out refined
"""
_EVALUATE_EXAMPLES = """Examples:

bodyreg evaluate --people 256

bodyreg evaluate --predictions theirs.npz --data 3dpw_test.npz --protocol pw3d-j14

bodyreg evaluate --model perspose --weights FILE --data pw3d_test.npz --images 3DPW --protocol pw3d-j14 --out table.md

bodyreg evaluate --protocol list
"""

_LIFT_SMOOTHING = 1.5  # frames

app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Photographs in, posed SMPL bodies out.",
    epilog=_EXAMPLES,
)
app.add_typer(prepare_app, name="prepare")

Model = Annotated[str, typer.Option(help="Name of the network, see `bodyreg models`.")]
Weights = Annotated[Path | None, typer.Option(help="Weights file; default: those that ship for the model.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
Overrides = Annotated[list[str] | None, typer.Argument(help="section.key=value ...", show_default=False)]
Config = Annotated[str, typer.Argument(help="Configuration: a shipped name or the path of a YAML file.")]


@app.callback(invoke_without_command=True)
def options(
    ctx: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and leave.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log what is being done.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks of errors.")] = False,
) -> None:
    if version:
        import bodyreg

        typer.echo(f"bodyreg {bodyreg.__version__}")
        raise typer.Exit
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    logging.getLogger("bodyreg").setLevel(logging.DEBUG if debug else logging.INFO if verbose else logging.WARNING)


@app.command(epilog=_INFER_EXAMPLES)
def infer(
    photos: Annotated[Path, typer.Argument(help="Folder of photographs, or one photograph.")],
    out: Annotated[Path, typer.Option(help="Folder of the results.")],
    model: Model = "perspose_small",
    weights: Weights = None,
    body: Body = "free",
    gender: Annotated[str, typer.Option(help="Gender of the body model: neutral, male or female.")] = "neutral",
    people: Annotated[str, typer.Option(help="How people are found: auto, pose, net, hog or whole.")] = "auto",
    detector: Annotated[Path | None, typer.Option(help="Weights of the network that finds people.")] = None,
    boxes: Annotated[Path | None, typer.Option(help="Person boxes, JSON or CSV.")] = None,
    keypoints: Annotated[Path | None, typer.Option(help="2D key points: OpenPose folder, COCO JSON or npz.")] = None,
    focal_px: Annotated[float | None, typer.Option(help="Focal length of all photographs, pixels.")] = None,
    focal_mm: Annotated[float | None, typer.Option(help="35 mm-equivalent focal length of all photographs.")] = None,
    fov: Annotated[float | None, typer.Option(help="Horizontal field of view of all photographs, degrees.")] = None,
    intrinsics: Annotated[Path | None, typer.Option(help='JSON {file or "*": {fx, fy, cx, cy}}.')] = None,
    device: Device = "auto",
    batch_size: Annotated[int, typer.Option(min=1, help="People a forward pass.")] = 8,
    formats: Annotated[str, typer.Option(help="Comma-separated: obj, ply, glb, npz, json.")] = "obj,npz,json",
    up: Annotated[str, typer.Option(help="Axes of OBJ and PLY: camera (y down) or y (for viewers).")] = "camera",
    overlay: Annotated[
        bool, typer.Option("--overlay/--no-overlay", help="Draw the bodies over the photographs.")
    ] = True,
    page: Annotated[bool, typer.Option("--page/--no-page", help="Write index.html, see `bodyreg view`.")] = True,
    lift: Annotated[bool, typer.Option("--lift", help="Also lift the 2D joints of an ordered folder.")] = False,
    refine: Annotated[bool, typer.Option("--refine", help="Also move bodies to their key points.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Keep finished records of an interrupted run.")] = False,
    threads: Annotated[int | None, typer.Option(min=1, help="Reading and writing threads; default: cores.")] = None,
    engine: Annotated[str, typer.Option(help="local, or ray: a cluster that sees the same folders.")] = "local",
) -> None:
    """Pose every person in a folder of photographs."""
    from bodyreg.inference.folder import infer_folder

    with Progress() as progress:
        summary = infer_folder(
            photos,
            out,
            model=model,
            weights=weights,
            body=body,
            gender=gender,
            people=people,
            detector=detector,
            boxes=boxes,
            keypoints=keypoints,
            focal_mm=focal_mm,
            focal_px=focal_px,
            fov=None if fov is None else math.radians(fov),
            intrinsics=intrinsics,
            device=device,
            batch_size=batch_size,
            formats=names(formats),
            up=up,
            overlay=overlay,
            page=page,
            resume=resume,
            refine=refine,
            threads=threads,
            engine=engine,
            progress=progress,
        )
    refused = [record for record in summary.records if record.status == "refused"]
    for record in refused:
        typer.echo(f"{record.file}: {record.reason}", err=True)
    typer.echo(
        f"{summary.people} people in {summary.count('done')} of {len(summary.records)} photographs, "
        f"{summary.count('nobody')} without people, {len(refused)} refused, {summary.seconds:.1f} s: {summary.out}"
    )
    if lift:
        from bodyreg.inference.lift import lift_file

        for path in lift_file(summary.out, summary.out, smooth=_LIFT_SMOOTHING):
            typer.echo(f"Lifted skeleton: {path}")


@app.command(epilog=_REFINE_EXAMPLES)
def refine(
    results: Annotated[Path, typer.Argument(help="Folder that `bodyreg infer` wrote.")],
    keypoints: Annotated[Path, typer.Option(help="2D key points: OpenPose folder, COCO JSON or npz.")],
    out: Annotated[Path | None, typer.Option(help="Folder of the refined people; default: RESULTS_refined.")] = None,
    iterations: Annotated[int, typer.Option(min=0, help="Steps of the optimisation.")] = 50,
    photos: Annotated[Path | None, typer.Option(help="Folder of the photographs, to draw the bodies over.")] = None,
    silhouette: Annotated[Path | None, typer.Option(help="Folder of masks <stem>_<k>.png or <stem>.png.")] = None,
    parsing: Annotated[Path | None, typer.Option(help="Folder of parsing pictures, named likewise.")] = None,
    body: Annotated[str | None, typer.Option(help="Body model; default: the one named in each file.")] = None,
) -> None:
    """Refine the people of a result folder to 2D key points; no network is run."""
    from bodyreg.inference.refine_folder import refine_results

    with Progress() as progress:
        summary = refine_results(
            results, keypoints, out, iterations=iterations, photos=photos, silhouettes=silhouette, parsing=parsing,
            body=body, progress=progress,
        )  # fmt: skip
    for record in summary.records:
        if record.status == "refused":
            typer.echo(f"{record.file}: {record.reason}", err=True)
    moved = sum(bool(person.get("refined_by")) for record in summary.records for person in record.people)
    typer.echo(f"{moved} of {summary.people} people refined, {summary.seconds:.1f} s: {summary.out}")


@app.command()
def export(
    results: Annotated[list[Path], typer.Argument(help="Result folders, or npz or JSON files of single persons.")],
    out: Annotated[Path, typer.Option(help="Folder of the exported files.")],
    formats: Annotated[str, typer.Option(help="Comma-separated: obj, ply, glb, npz, json, amass.")] = "obj",
    body: Annotated[str | None, typer.Option(help="Body model; default: the one named in each file.")] = None,
    up: Annotated[str, typer.Option(help="Axes of OBJ and PLY: camera (y down) or y (for viewers).")] = "camera",
    frame: Annotated[str, typer.Option(help="Camera of the photograph, or of each crop (the rotated frame).")] = (
        "photograph"
    ),
    framerate: Annotated[float, typer.Option(help="Pictures a second, written into amass files.")] = 30.0,
) -> None:
    """Write meshes or motion files from saved parameters; no network is run."""
    from bodyreg.inference.export import export_results

    written = export_results(results, out, names(formats), body=body, up=up, frame=frame, framerate=framerate)
    typer.echo(f"{len(written)} files in {out}")


@app.command()
def train(config: Config, overrides: Overrides = None) -> None:
    """Train what a configuration describes, or go on where an interrupted run of it stopped."""
    from bodyreg.training.run import train as run

    typer.echo(f"Weights: {run(config, overrides or [])}")


@app.command(epilog=_EVALUATE_EXAMPLES)
def evaluate(
    config: Config = "perspose_small",
    overrides: Overrides = None,
    model: Annotated[str | None, typer.Option(help="Network whose shipped weights are scored; see `models`.")] = None,
    weights: Weights = None,
    data: Annotated[
        Path | None, typer.Option(help="Data set: a prepared npz, an npz in SPIN's layout, or a folder.")
    ] = None,
    protocol: Annotated[
        str, typer.Option(help="Protocol, perhaps with changes: h36m-lift-17[pred_root=zero]; `list` shows all.")
    ] = "synthetic-smpl24",
    predictions: Annotated[list[Path] | None, typer.Option(help="File of predictions; may be given again.")] = None,
    joint_set: Annotated[str | None, typer.Option(help="Order of predicted joints, where the file says none.")] = None,
    units: Annotated[str, typer.Option(help="Of predicted joints and vertices: m, cm or mm.")] = "m",
    dataset: Annotated[str | None, typer.Option(help="pw3d, h36m, ..., where the data's name tells none.")] = None,
    images: Annotated[Path | None, typer.Option(help="Folder that the pictures' names begin below.")] = None,
    lifter: Annotated[
        str | None, typer.Option(help="Also score a lifter on the true 2D joints: a weights file, or a name.")
    ] = None,
    body: Annotated[str | None, typer.Option(help="Body of the truth: smpl, free or a folder.")] = None,
    device: Device = "auto",
    batch_size: Annotated[int, typer.Option(min=1, help="People at a time.")] = 64,
    allow_failures: Annotated[
        bool, typer.Option("--allow-failures", help="Count predictions that are not finite instead of refusing.")
    ] = False,
    people: Annotated[int | None, typer.Option(min=1, help="Synthetic people scored at most.")] = None,
    by: Annotated[str | None, typer.Option(help="Also print means by groups, actions or joints.")] = None,
    plots: Annotated[Path | None, typer.Option(help="Folder for bars by joint and by action.")] = None,
    out: Annotated[Path | None, typer.Option(help="Also write the table: .txt, .md, .csv or .json.")] = None,
) -> None:
    """Score predictions or a model on a data set under a named protocol.

    Without --protocol the model is scored on held-out synthetic people, beside the mean pose, which knows nothing of
    the picture; the configuration then names the model and the folder, where --model and --data do not.
    """
    if protocol == "list":
        from bodyreg.evaluation.protocols import PROTOCOLS

        print_rows(
            ("protocol", "data set", "metrics", "averaged over", "what it reproduces"),
            [(p.name, p.dataset, " ".join(p.metrics), p.aggregate, p.summary) for p in PROTOCOLS.values()],
        )
        return
    if protocol == "synthetic-smpl24" and not predictions:
        _evaluate_synthetic(config, overrides or [], model, weights, data, people, out)
        return
    if data is None:
        raise ValueError(f"The protocol {protocol} needs a data set. Name its file with --data.")
    from bodyreg.evaluation import command, tables

    if predictions:
        results = command.score_files(
            predictions, data, protocol, body=body or "smpl", joint_set=joint_set, units=units, dataset=dataset,
            batch_size=batch_size, allow_failures=allow_failures,
        )  # fmt: skip
    else:
        results = _evaluate_model(
            model or config, weights, data, protocol, images, lifter, dataset, body, device, batch_size
        )
    typer.echo(tables.text(results), nl=False)
    for result in results if by is not None else ():
        header, *rows = tables.breakdown(result, by or "groups")
        typer.echo(f"\n{result.system}")
        print_rows(header, rows)
    if out is not None:
        tables.write_tables(out, results)
    if plots is not None:
        from bodyreg.evaluation.plots import write_plots

        typer.echo("\n".join(str(path) for path in write_plots(plots, results)))


def _evaluate_model(
    model: str, weights: Path | None, data: Path, protocol: str, images: Path | None, lifter: str | None,
    dataset: str | None, body: str | None, device: str, batch_size: int,
) -> Any:  # fmt: skip
    """Results of a lifter on a prepared set, or of a regressor, whose pictures lie below `images`."""
    from bodyreg.models.lifters.registry import LIFTERS

    if model.partition(":")[0] in LIFTERS:
        from bodyreg.evaluation.lifters import score_named_lifter

        return [score_named_lifter(model, weights, data, protocol, device=device, batch_size=batch_size)]
    from bodyreg.body import BodyModel
    from bodyreg.checkpoints import default_weights, load_model
    from bodyreg.evaluation.command import score_regressor
    from bodyreg.evaluation.lifters import as_lifter
    from bodyreg.evaluation.truth import bodies_by_gender
    from bodyreg.inference.hmr import HMRRegressor
    from bodyreg.inference.regress import Regressor
    from bodyreg.models.hmr import HMR

    if images is None:
        raise ValueError("A model looks at photographs. Name the folder that their names begin below with --images.")
    loaded = load_model(weights or default_weights(model))
    own_joints = not isinstance(loaded.model, HMR)
    body_model = BodyModel.load(loaded.body, num_betas=loaded.settings.num_betas)
    regressor = (Regressor if own_joints else HMRRegressor)(loaded, body_model, device)
    return score_regressor(
        regressor, data, images, protocol, name=loaded.settings.name, bodies=bodies_by_gender(body or loaded.body),
        own_joints=own_joints, dataset=dataset, batch_size=batch_size,
        lifter=None if lifter is None else as_lifter(lifter), lifter_name=f"{lifter}, true 2D joints",
    )  # fmt: skip


def _evaluate_synthetic(
    config: str, overrides: list[str], model: str | None, weights: Path | None, data: Path | None, people: int | None,
    out: Path | None,
) -> None:  # fmt: skip
    from bodyreg.body import BodyModel
    from bodyreg.checkpoints import default_weights, load_model
    from bodyreg.data.synthetic.prepare import ensure_shards
    from bodyreg.data.synthetic.scenes import SceneSettings
    from bodyreg.evaluation.protocols import get
    from bodyreg.evaluation.synthetic import evaluate_synthetic, table, write_scores
    from bodyreg.training.settings import regressor_settings

    settings = regressor_settings(config, overrides)
    loaded = load_model(weights or default_weights(model or settings.model.name))
    if loaded.body != "free":
        raise ValueError(
            f"The held-out people have the free body, and these weights speak of {loaded.body!r}. Give weights trained "
            "on the free body."
        )
    held_out, wanted = data or Path(settings.data.held_out), people or settings.data.held_out_people
    scenes = SceneSettings(garments=settings.data.garments if data is None else None)  # a given folder's own
    ensure_shards(held_out, max(wanted, settings.data.held_out_people), needed=wanted, motion=settings.data.motion,
                  held_out=True, settings=scenes)  # fmt: skip
    scores = evaluate_synthetic(loaded, BodyModel.load(loaded.body), held_out, people=wanted)
    header, *rows = table(scores)
    print_rows(header, rows)
    typer.echo("\n".join(get("synthetic-smpl24").describe()))
    if out is not None:
        write_scores(out, loaded, scores, data=f"synthetic people, {held_out.name}")


@app.command()
def models(
    names: Annotated[list[str] | None, typer.Argument(help="Networks; default: all.", show_default=False)] = None,
    costs: Annotated[
        bool, typer.Option("--costs", help="Count parameters and operations of lifters, by preset; takes a while.")
    ] = False,
) -> None:
    """List the networks, and whether weights are at hand; with --costs what lifters cost a clip."""
    from bodyreg.checkpoints import default_weights
    from bodyreg.lifter_weights import default_lifter
    from bodyreg.models.registry import MODELS

    def state(name: str) -> str:
        try:
            path = default_lifter(name) if MODELS[name].kind == "lifter" else default_weights(name)
            return f"{path.stat().st_size / 1e6:.1f} MB, shipped"
        except ValueError:
            return "bring your own: --weights FILE"

    chosen = names or list(MODELS)
    if unknown := [name for name in chosen if name not in MODELS]:
        raise ValueError(f"There is no model {', '.join(unknown)}. Known: {', '.join(MODELS)}.")
    if costs:
        _print_costs([name for name in chosen if MODELS[name].kind == "lifter"])
        return
    print_rows(
        ("name", "kind", "weights", "what it is", "source"),
        [(name, MODELS[name].kind, state(name), MODELS[name].summary, MODELS[name].source) for name in chosen],
    )


def _print_costs(names: list[str]) -> None:
    from bodyreg.models.lifters.cost import lifter_cost
    from bodyreg.models.lifters.registry import LIFTERS, LifterSettings

    rows = []
    for name in names:
        entry = LIFTERS[name]
        for preset in entry.presets:
            cost = lifter_cost(LifterSettings(name, preset, entry.joint_set, entry.joint_set))
            flops = "depends on the data" if cost.flops is None else f"{cost.flops / 1e9:.3f}"
            rows.append((name, preset, f"{cost.parameters:,}", flops, str(cost.frames), entry.output))
    print_rows(("name", "preset", "parameters", "GFLOPs a clip", "frames", "poses"), rows)


@app.command()
def lift(
    keypoints: Annotated[Path, typer.Argument(help="2D key points of a sequence: OpenPose folder, COCO JSON or npz.")],
    out: Annotated[Path, typer.Option(help="Folder of the results.")],
    model: Annotated[str, typer.Option(help="Lifter, see `bodyreg models`; NAME:PRESET for published weights.")] = (
        "videopose3d"
    ),
    weights: Weights = None,
    image_size: Annotated[str | None, typer.Option(help="WIDTHxHEIGHT of the pictures, pixels.")] = None,
    fps: Annotated[float, typer.Option(help="Pictures a second of the sequence.")] = 30.0,
    formats: Annotated[str, typer.Option(help="Comma-separated: npz, json, gif, png.")] = "npz,gif,png",
    device: Device = "auto",
    overlap: Annotated[int | None, typer.Option(help="Frames that windows share; default: a ninth of one.")] = None,
    flip_test: Annotated[bool, typer.Option(help="Average with the mirrored sequence.")] = True,
    smooth: Annotated[float, typer.Option(min=0, help="Gaussian over time: standard deviation, frames.")] = 0.0,
) -> None:
    """Lift 2D key points of a sequence to a 3D skeleton."""
    from bodyreg.inference.lift import lift_file

    size = None
    if image_size is not None:
        parts = image_size.lower().split("x")
        if len(parts) != 2 or not all(part.isdigit() for part in parts):
            raise ValueError(f"The picture size {image_size!r} is not of the form 1920x1080. Write it so.")
        size = (int(parts[0]), int(parts[1]))
    written = lift_file(
        keypoints, out, model=model, weights=weights, size_wh=size, fps=fps, formats=names(formats), device=device,
        overlap=overlap, flip_test=flip_test, smooth=smooth,
    )  # fmt: skip
    for path in written:
        typer.echo(str(path))


app.command(epilog=VIEW_EXAMPLES)(view)


@app.command()
def doctor() -> None:
    """Say what this installation has, which renderer it uses and why, whether a GPU works, and how to get the rest."""
    from bodyreg.doctor import examine

    print_rows(("doctor", "found", "to do"), [(f.label, f.found, f.remedy) for f in examine()])


def main() -> None:
    """Entry point. `--debug` is understood at any place of the line."""
    # Loading the libraries makes a million objects that stay; looking through them again and again takes a second.
    gc.set_threshold(100_000, 50, 50)
    arguments = sys.argv[1:]
    if "--debug" in arguments:
        arguments = ["--debug", *(a for a in arguments if a != "--debug")]
    app(args=arguments, prog_name="bodyreg")


def _fail(message: str, code: int = 1) -> None:
    typer.echo(f"Error: {message}", err=True)
    raise typer.Exit(code)
