"""Train the network that finds people, on synthetic crowds, for a given time.

    python scripts/train_detector.py --train SHARDS --held-out SHARDS --out DIR --seconds 400 --device cuda --workers 5
    python scripts/train_detector.py --train SHARDS --held-out SHARDS --out DIR --heads-only --size 256 --repeat 4

SHARDS are folders of `bodyreg prepare synthetic`. The backbone begins as the regressor's of --start-from. Several
processes make scenes; a scene is seen `--repeat` times, mirrored and recoloured anew. With --heads-only, for machines
without a GPU, the backbone stays as it is, and its features of the latest scenes are kept and drawn from. Run again
with the same --out it goes on until the seconds are used up. Writes detector.safetensors (moving average of the
weights) and detector.json (what was measured on held-out people).
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from _detection_score import judge, summary
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset

from bodyreg.body import BodyModel
from bodyreg.checkpoints import default_weights, load_model, save_weights
from bodyreg.data.synthetic.backgrounds import background_bank, dead_leaves
from bodyreg.data.synthetic.crowds import Crowds, Scene
from bodyreg.data.synthetic.outfits import body_atlas
from bodyreg.data.synthetic.shards import Shard, join_shards, load_shard
from bodyreg.data.synthetic.stream import list_shards
from bodyreg.files import atomic_write
from bodyreg.inference.detect import boxes_of
from bodyreg.losses.detector import SceneTruth, detector_loss
from bodyreg.models.detector import STRIDE, DetectorOutput, boxes_from_sides
from bodyreg.models.perspose import normalise_image
from bodyreg.models.registry import build, default_settings

_MOST_PEOPLE = 24
_CHECKPOINT_S = 60.0
_KEPT_BATCHES = 60
_AVERAGED = 0.998
_MIN_SCORE = 0.4


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", type=Path, required=True, help="folder of shards to learn from")
    parser.add_argument("--held-out", type=Path, required=True, help="folder of shards to measure on")
    parser.add_argument("--out", type=Path, required=True, help="folder of the weights and the checkpoint")
    parser.add_argument("--seconds", type=float, default=400, help="of training, earlier runs into --out included")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--workers", type=int, default=5, help="processes that make scenes")
    parser.add_argument("--size", type=int, default=384, help="side of the scenes, pixels")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--repeat", type=int, default=2, help="times a scene is seen")
    shipped = default_weights("perspose_small")
    parser.add_argument("--start-from", type=Path, default=shipped, help="weights of a regressor or detector")
    parser.add_argument("--heads-only", action="store_true", help="leave the backbone as it is")
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--backgrounds", type=Path, help="folder of photographs without people; half of the scenes")
    parser.add_argument("--score", type=int, default=400, help="held-out scenes to measure on")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    cv2.setNumThreads(1)
    torch.manual_seed(args.seed)
    args.out.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    people = read_people(args.train)
    crowds = Crowds(people, _atlas(), _bank(args.seed, 2, args.size, args.backgrounds))
    crowds.draw(np.random.default_rng(0))  # kernels are compiled here, once, and not in every process
    print(f"{len(crowds.whole)} people, ready to make scenes after {time.monotonic() - started:.0f} s", flush=True)
    trainer = Trainer(args)
    trainer.run(people)
    facts = trainer.facts()
    if args.score:
        facts |= trainer.score(read_people(args.held_out), args.score)
    settings = trainer.settings
    save_weights(args.out / "detector.safetensors", trainer.average, settings, **facts)
    with atomic_write(args.out / "detector.json") as temporary:
        Path(temporary).write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(facts), flush=True)


def read_people(folder: Path) -> Shard:
    """Everyone in a folder of shards."""
    return join_shards([load_shard(path) for path in list_shards(folder)])


def _atlas() -> np.ndarray:
    body = BodyModel.load("free")
    return body_atlas(body.rest_joints().numpy()[0], body.v_template.numpy(), body.landmarks)


def _bank(seed: int, count: int, size: int, folder: Path | None) -> np.ndarray:
    """Backgrounds, half of them from the folder where one is given, else all drawn."""
    rng = np.random.default_rng([seed, 11])
    leaves = np.stack([dead_leaves(rng, size) for _ in range(count // 2)])
    return np.concatenate([leaves, background_bank(rng, count - len(leaves), folder, size)])


class SceneStream(IterableDataset):
    """Scenes without end, or the first `count`; every process draws its own."""

    def __init__(
        self, people: Shard, seed: int, size: int, *, backgrounds: Path | None = None, count: int | None = None
    ) -> None:
        self.people, self.seed, self.size, self.backgrounds, self.count = people, seed, size, backgrounds, count
        self.atlas = _atlas()

    def __iter__(self) -> Iterator[Scene]:
        info = torch.utils.data.get_worker_info()
        worker, workers = (0, 1) if info is None else (info.id, info.num_workers)
        cv2.setNumThreads(1)
        measure = self.count is not None
        bank = _bank(self.seed + (0 if measure else worker), 64 if measure else 96, self.size, self.backgrounds)
        # A folder's pictures stay; procedural ones are renewed. What is measured on is the same each time.
        crowds = Crowds(self.people, self.atlas, bank, renew=not measure and self.backgrounds is None)
        k = worker
        while self.count is None or k < self.count:
            yield crowds.draw(np.random.default_rng([self.seed, k]))
            k += workers


def collate(scenes: list[Scene]) -> dict[str, np.ndarray]:
    """image (B, S, S, 3) uint8; boxes (B, N, 4); real, ignored (B, N) bool; shown (B, S / 8, S / 8).

    Arrays and not tensors: they go through a pipe, which every machine has enough of, and not through shared memory.
    """
    boxes = np.zeros((len(scenes), _MOST_PEOPLE, 4), np.float32)
    real, ignored = (np.zeros(boxes.shape[:2], bool) for _ in range(2))
    for k, scene in enumerate(scenes):
        n = min(len(scene.boxes), _MOST_PEOPLE)
        boxes[k, :n], ignored[k, :n], real[k, :n] = scene.boxes[:n], scene.ignored[:n], True
    return {
        "image": np.stack([scene.image for scene in scenes]),
        "boxes": boxes,
        "real": real,
        "ignored": ignored,
        "shown": np.stack([scene.shown for scene in scenes]),
    }


def _as_drawn(scene: Scene) -> Scene:
    return scene


def augmented(batch: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
    """The batch with image (B, 3, S, S) in [0, 1], some scenes mirrored, colours scaled and bent, on its device."""
    device, n, size = batch["image"].device, len(batch["image"]), batch["image"].shape[2]

    def draw(*shape: int, low: float, high: float) -> Tensor:
        return (torch.rand(shape, generator=generator) * (high - low) + low).to(device)

    mirrored = draw(n, low=0, high=1) < 0.5
    image = batch["image"].permute(0, 3, 1, 2).float() / 255
    image = torch.where(mirrored[:, None, None, None], image.flip(3), image)
    image = image.clamp(1e-3, 1) ** torch.exp(draw(n, 1, 1, 1, low=-0.5, high=0.5))
    image = image * draw(n, 3, 1, 1, low=0.8, high=1.2) * draw(n, 1, 1, 1, low=0.7, high=1.2)
    grey = image.mean(1, keepdim=True)
    image = (grey + (image - grey) * draw(n, 1, 1, 1, low=0.2, high=1.3)).clamp(0, 1)
    boxes = batch["boxes"]
    other = torch.stack([size - boxes[..., 2], boxes[..., 1], size - boxes[..., 0], boxes[..., 3]], -1)
    return batch | {
        "image": image,
        "boxes": torch.where(mirrored[:, None, None], other, boxes),
        "shown": torch.where(mirrored[:, None, None], batch["shown"].flip(2), batch["shown"]),
    }


def _pixels(batch: dict[str, Tensor]) -> Tensor:
    return normalise_image(batch["image"]).contiguous(memory_format=torch.channels_last)


def _truth(batch: dict[str, Tensor]) -> SceneTruth:
    return SceneTruth(batch["boxes"], batch["real"], batch["ignored"], batch["shown"])


class Trainer:
    """The network, its moving average, and how far they are."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args, self.device = args, torch.device(args.device)
        self.settings = default_settings("person_detector")
        model: Any = build(self.settings)
        start: Any = load_model(args.start_from)
        taught = model if start.settings.name == self.settings.name else model.backbone
        taught.load_state_dict((start.model if taught is model else start.model.backbone).state_dict())
        model.backbone.requires_grad_(not args.heads_only)
        self.model = model.to(self.device, memory_format=torch.channels_last)
        self.kept: list[tuple[Tensor, SceneTruth]] = []  # features of the latest batches, in half precision
        self.average = copy.deepcopy(self.model).requires_grad_(False).eval()
        learning = [p for p in self.model.parameters() if p.requires_grad]
        decayed, other = [p for p in learning if p.ndim > 1], [p for p in learning if p.ndim <= 1]
        self.optimiser = torch.optim.AdamW(
            [{"params": decayed, "weight_decay": 0.02}, {"params": other, "weight_decay": 0.0}], lr=args.lr
        )
        self.steps, self.used_s, self.scenes = 0, 0.0, 0
        self.losses: dict[str, float] = {}
        self.checkpoint = args.out / "checkpoint.pt"
        if self.checkpoint.exists():
            self._resume()

    def run(self, people: Shard) -> None:
        """Train until the seconds are used up."""
        args = self.args
        if self.used_s >= args.seconds:
            return
        stream = SceneStream(people, args.seed + 1000 * (1 + self.steps), args.size, backgrounds=args.backgrounds)
        scenes = DataLoader(stream, args.batch_size, num_workers=args.workers, collate_fn=collate)
        generator = torch.Generator().manual_seed(args.seed + self.steps)
        before, clock = self.used_s, time.monotonic()
        saved = printed = clock
        for batch in scenes:
            batch = {name: torch.from_numpy(value).to(self.device) for name, value in batch.items()}
            self.scenes += len(batch["image"])
            if args.heads_only:
                self._keep(augmented(batch, generator))
            for _ in range(args.repeat):
                if args.heads_only:
                    features, truth = self._recall(generator)
                    self._step(lambda: self.model.heads(features), truth)  # noqa: B023  (called at once)
                else:
                    seen = augmented(batch, generator)
                    self._step(lambda: self.model(_pixels(seen)), _truth(seen))  # noqa: B023
            now = time.monotonic()
            self.used_s = before + now - clock
            if now - printed > 10 or self.used_s >= args.seconds:
                printed = now
                losses = ", ".join(f"{name} {value:.3f}" for name, value in self.losses.items())
                print(f"{self.used_s:5.0f} s, step {self.steps}, {self.scenes} scenes: {losses}", flush=True)
            if now - saved > _CHECKPOINT_S or self.used_s >= args.seconds:
                saved = now
                self._save()
            if self.used_s >= args.seconds:
                break

    def _keep(self, batch: dict[str, Tensor]) -> None:
        """Add a batch's features to those that are drawn from; the oldest go."""
        self.model.eval()
        with torch.no_grad(), torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            features = self.model.features(_pixels(batch))
        self.kept = [*self.kept[-_KEPT_BATCHES:], (features.half(), _truth(batch))]

    def _recall(self, generator: torch.Generator) -> tuple[Tensor, SceneTruth]:
        """Features of kept scenes, as many as a batch has, at random."""
        size = self.args.batch_size
        batches = torch.randint(len(self.kept), (size,), generator=generator).tolist()
        rows = torch.randint(size, (size,), generator=generator).tolist()
        drawn = [(self.kept[b], r) for b, r in zip(batches, rows, strict=True)]
        scenes = [(features[r], *(part[r] for part in truth)) for (features, truth), r in drawn]
        features, *rest = (torch.stack(column) for column in zip(*scenes, strict=True))
        return features.float(), SceneTruth(*rest)

    def _step(self, predict: Callable[[], DetectorOutput], truth: SceneTruth) -> None:
        done = min(self.used_s / self.args.seconds, 1.0)
        warm = min(1.0, (self.steps + 1) / 100)
        for group in self.optimiser.param_groups:
            group["lr"] = self.args.lr * warm * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * done)))
        self.model.train()
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            output = predict()
        terms = detector_loss(output.heat, boxes_from_sides(output.sides), output.mask, truth, STRIDE)
        loss = torch.stack(list(terms.values())).sum()
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 5.0)
        self.optimiser.step()
        self.steps += 1
        with torch.no_grad():
            rate = min(_AVERAGED, (1 + self.steps) / (10 + self.steps))
            for mine, theirs in zip(self.average.state_dict().values(), self.model.state_dict().values(), strict=True):
                if mine.is_floating_point():
                    mine.lerp_(theirs, 1 - rate)
                else:
                    mine.copy_(theirs)
        if self.steps % 20 == 1:
            self.losses = {name: float(value.detach()) for name, value in terms.items()}

    def score(self, people: Shard, count: int) -> dict[str, float]:
        """Average precision at IoU 0.5 over the first `count` scenes of held-out people."""
        found = []
        stream = SceneStream(people, 5, self.args.size, count=count)
        for scene in DataLoader(stream, None, num_workers=self.args.workers, collate_fn=_as_drawn):
            boxes, scores = boxes_of(self.average, scene.image, min_score=0.02, sides_px=[self.args.size])
            truth = np.concatenate([scene.boxes[:, :2], scene.boxes[:, 2:] - scene.boxes[:, :2]], 1)
            found.append(judge(boxes, scores, truth, scene.ignored))
        return {f"held_out_{name}": round(value, 4) for name, value in summary(found, _MIN_SCORE).items()}

    def facts(self) -> dict[str, str | int | float]:
        """What the card says of the training."""
        return {
            "trained_steps": self.steps, "trained_seconds": round(self.used_s), "scenes": self.scenes,
            "device": torch.cuda.get_device_name() if self.device.type == "cuda" else "cpu", "seed": self.args.seed,
            "scene_size": self.args.size, "min_score": _MIN_SCORE,
        }  # fmt: skip

    def _save(self) -> None:
        state = {
            "model": self.model.state_dict(), "average": self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(), "steps": self.steps, "used_s": self.used_s,
            "scenes": self.scenes,
        }  # fmt: skip
        with atomic_write(self.checkpoint) as temporary:
            torch.save(state, str(temporary))

    def _resume(self) -> None:
        state = torch.load(self.checkpoint, map_location=self.device, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.steps, self.used_s, self.scenes = state["steps"], state["used_s"], state["scenes"]
        print(f"going on after {self.used_s:.0f} s and {self.steps} steps", flush=True)


if __name__ == "__main__":
    main()
