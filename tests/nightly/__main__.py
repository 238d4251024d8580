"""``python -m nightly``: run the checks."""

from nightly.runner import main

if __name__ == "__main__":
    raise SystemExit(main())
