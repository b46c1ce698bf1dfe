"""`python -m bodyreg`: the same as the `bodyreg` command."""

from bodyreg.cli import main

if __name__ == "__main__":
    main()
