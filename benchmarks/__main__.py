"""The command: read the arguments, measure, write the table, the figures and the picture."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from benchmarks.answers import BENCH
from benchmarks.measures import MEASURES, chosen
from benchmarks.plot import draw
from benchmarks.ratios import read_promises
from benchmarks.report import as_json, markdown, verdicts
from benchmarks.rows import ROWS
from benchmarks.runner import Pace, run

_HERE = Path(__file__).resolve().parent


def _environment(text: str) -> tuple[str, str]:
    row, found, python = text.partition("=")
    if not found or row not in ROWS:
        raise argparse.ArgumentTypeError(f"write ROW=PATH, with a row of {', '.join(ROWS)}")
    return row, python


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks", description="This project beside its peers, as ratios.")
    parser.add_argument("--quick", action="store_true", help="under a minute instead of under ten")
    names = ", ".join(measure.name for measure in MEASURES)
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help=f"measures: {names}")
    parser.add_argument("--out", type=Path, default=_HERE / "out", metavar="DIR", help="folder for the results")
    parser.add_argument("--check", action="store_true", help="exit with 1 unless every promise was measured and kept")
    parser.add_argument(
        "--python", type=_environment, action="append", default=[], metavar="ROW=PATH", help="another environment"
    )
    return parser.parse_args()


def main() -> int:
    """Measure and tell; the exit status is 0, or with --check 1 if a promise is not kept."""
    arguments = _arguments()
    try:
        measures = chosen(arguments.only)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    pace = Pace(**BENCH["quick" if arguments.quick else "full"])
    promises = read_promises(_HERE / "promises.toml")
    found = run(measures, pace, dict(arguments.python), lambda line: print(line, file=sys.stderr, flush=True))

    out: Path = arguments.out
    out.mkdir(parents=True, exist_ok=True)
    table = markdown(found, measures, promises)
    (out / "results.md").write_text(table + "\n", encoding="utf-8")
    everything = json.dumps(as_json(found, measures, promises, pace), indent=1)
    (out / "results.json").write_text(everything + "\n", encoding="utf-8")
    print(table)
    try:
        draw(found, measures, promises, out / "results.png")
    except ImportError:
        print("no picture: matplotlib is not installed", file=sys.stderr)
    broken = [verdict for verdict in verdicts(found, measures, promises) if not verdict.kept]
    return 1 if arguments.check and broken else 0


if __name__ == "__main__":
    sys.exit(main())
