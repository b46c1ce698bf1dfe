"""Write the card of a weights file: `<name>.json` and `<name>.md` beside it.

    python scripts/write_card.py WEIGHTS --config RUN/config.yaml --scores A.json [B.json ...] [--set KEY=VALUE]

Nothing in a card is typed by hand: what the weights are comes from the file itself, how they were trained from the
run's configuration (--set may add what the run was not told, such as data.motion), the errors from what
`bodyreg evaluate --out` and `scripts/eval_landmarks.py` wrote. Scores of other weights are refused.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bodyreg import config
from bodyreg.checkpoints import load_model, read_header
from bodyreg.evaluation.synthetic import Score, markdown_table
from bodyreg.files import atomic_write
from bodyreg.training.settings import RegressorSettings

# Where things lay on the machine of the run is nobody's business; what they were called may be.
_PLACES = (("data", "shards"), ("data", "held_out"), ("data", "backgrounds"), ("data", "motion"), ("run", "out"))


def make_card(weights: Path, run: Path, overrides: list[str], scores: list[Path]) -> dict[str, Any]:
    """Everything a card says, as plain values.

    Raises:
        ValueError: a configuration of another model, or scores of other weights.
    """
    loaded, header = load_model(weights), read_header(weights)
    settings = config.load(RegressorSettings, run, overrides)
    if settings.model != loaded.settings:
        raise ValueError(f"{run} describes another network than {weights} holds. Give the configuration of its run.")
    measured = [json.loads(path.read_text(encoding="utf-8")) for path in scores]
    for path, record in zip(scores, measured, strict=True):
        if record.get("weights_hash") != loaded.weights_hash:
            raise ValueError(f"{path} scores other weights than {weights}. Evaluate these weights again.")
    steps = int(header.get("trained_steps", 0))
    pictures = int(header.get("pictures_seen", steps * settings.data.batch_size * settings.run.devices))
    plain = asdict(settings)
    for section, key in _PLACES:
        if plain[section][key] is not None:
            plain[section][key] = Path(plain[section][key]).name
    return {
        "model": loaded.settings.name,
        "file": weights.name,
        "sha256": loaded.weights_hash,
        "bytes": weights.stat().st_size,
        "parameters": sum(p.numel() for p in loaded.model.parameters()),
        "body": loaded.body,
        "seed": int(header.get("seed", settings.run.seed)),
        "trained_steps": steps,
        "pictures_seen": pictures,
        "history": header.get("history", ""),
        "config": plain,
        "measured": [{"data": record["data"], "scores": record["scores"]} for record in measured],
    }


def to_markdown(card: dict[str, Any]) -> str:
    """The card for human readers."""
    data, run, options = (card["config"][name] for name in ("data", "run", "optimiser"))
    lines = [
        f"# {card['model']}",
        "",
        "| | |",
        "|---|---|",
        f"| file | `{card['file']}`, {card['bytes'] / 1e6:.1f} MB, {card['parameters'] / 1e6:.1f} M parameters, half "
        "precision |",
        f"| SHA-256 | `{card['sha256']}` |",
        f"| body | {card['body']} |",
        f"| trained on | synthetic people, poses from {data['motion'] or 'the shipped pose prior'} |",
        f"| training | {card['trained_steps']:,} steps, {card['pictures_seen']:,} pictures, seed {card['seed']}, "
        f"{run['precision']}, AdamW {options['lr']:g} |",
        f"| crops | {', '.join(str(size) for size in data['crop_sizes'])} px in training, "
        f"{card['config']['model']['crop_size']} px at inference |",
        *([f"| history | {card['history']} |"] if card["history"] else []),
        "",
        "Errors in millimetres; the mean pose is a constant that knows nothing of the picture.",
    ]
    for record in card["measured"]:
        scores = [Score(**line) for line in record["scores"]]
        lines += ["", f"## {record['data'][:1].upper()}{record['data'][1:]}", "", markdown_table(scores).rstrip()]
    return "\n".join(lines) + "\n"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Write the card of a weights file beside it.")
    parser.add_argument("weights", type=Path)
    parser.add_argument("--config", type=Path, required=True, help="config.yaml of the run")
    parser.add_argument("--scores", type=Path, nargs="+", required=True, help="JSON files of measured errors")
    parser.add_argument("--set", action="append", default=[], metavar="section.key=value")
    args = parser.parse_args(arguments)
    card = make_card(args.weights, args.config, args.set, args.scores)
    for suffix, text in ((".json", json.dumps(card, indent=1) + "\n"), (".md", to_markdown(card))):
        with atomic_write(args.weights.with_suffix(suffix)) as temporary:
            temporary.write_text(text, encoding="utf-8")
        print(args.weights.with_suffix(suffix))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
