"""Fit the pose prior that ships to motion in AMASS's layout; only clips of the training split count."""

from __future__ import annotations

import argparse

import numpy as np

from bodyreg.data.synthetic.poses import PoseSampler
from priors.joint_limits import mirror
from priors.pose import PosePrior


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("motion", help="folder of motion files")
    parser.add_argument("--out", default="priors/assets/pose.npz")
    parser.add_argument("--components", type=int, default=64)
    parser.add_argument(
        "--frames", type=int, default=8000, help="frames kept, rare poses favoured; mirrored ones are added"
    )
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    train = PoseSampler(args.motion, split="train", weights={"motion": 1})
    poses, _ = train.draw_frames(args.frames, np.random.default_rng(args.seed))
    prior = PosePrior.fit(np.concatenate([poses, mirror(poses)]), args.components, args.seed)
    prior.save(args.out)
    test = PoseSampler(args.motion, split="held_out", weights={"motion": 1})
    for name, sampler in (("train", train), ("held out", test)):
        unseen, _ = sampler.draw_frames(2000, np.random.default_rng(args.seed + 1))
        print(f"mean log density, {name} clips: {prior.log_prob(unseen).mean():.2f}")
    print(f"wrote {args.out}")


if __name__ == "__main__":
    main()
