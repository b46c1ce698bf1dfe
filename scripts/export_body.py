"""Write a body model for other programs.

    python scripts/export_body.py --out models                    # the free body, three genders, pickle and npz
    python scripts/export_body.py --body my/smpl --gender male --out models --format pkl
    python scripts/export_body.py --convert basicModel_f_lbs_10_207_0_v1.0.0.pkl --out SMPL_FEMALE.npz

`smplx.create("models/..", model_type="smpl")` or `smplx.SMPL("models", gender="male")` then load the pickles.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def main(arguments: list[str] | None = None) -> int:
    """Run the script and return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--body", default="free", help="'free', 'smpl' (by the search list), a file or a folder")
    parser.add_argument("--gender", choices=("neutral", "male", "female", "all"), default="all")
    parser.add_argument("--format", choices=("pkl", "npz", "both"), default="both")
    parser.add_argument("--pad-betas", action="store_true", help="300 shape columns, so that smplx offers more than 10")
    parser.add_argument("--convert", type=Path, metavar="FILE", help="turn this SMPL file into the plain npz --out")
    parser.add_argument("--out", type=Path, required=True, help="folder, or with --convert the .npz to write")
    options = parser.parse_args(arguments)

    from bodyreg.body import BodyModel
    from bodyreg.body_export import convert_body, export_body

    try:
        if options.convert:
            arrays = convert_body(options.convert, options.out)
            print(f"{options.out}: {arrays.name}, {arrays.gender}, {arrays.shapedirs.shape[2]} shape components")
            return 0
        formats = ("pkl", "npz") if options.format == "both" else (options.format,)
        for gender in ("neutral", "male", "female") if options.gender == "all" else (options.gender,):
            body = BodyModel.load(options.body, gender)
            for path in export_body(body.arrays, options.out, formats=formats, pad_betas=options.pad_betas):
                print(path)
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
