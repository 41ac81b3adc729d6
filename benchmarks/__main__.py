"""The command: read the arguments, measure, write the table, the figures and the picture."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.answers import BENCH
from benchmarks.dialects import DIALECTS, ROWS, Dialect
from benchmarks.layers import table
from benchmarks.measures import MEASURES, Measure, chosen
from benchmarks.plot import draw
from benchmarks.ratios import Promise, read_promises
from benchmarks.report import as_json, markdown, verdicts
from benchmarks.runner import Pace, run

_HERE = Path(__file__).resolve().parent


def _environment(text: str) -> tuple[str, str]:
    row, found, python = text.partition("=")
    if not found or row not in ROWS:
        raise argparse.ArgumentTypeError(f"write ROW=PATH, with a row of {', '.join(ROWS)}")
    return row, python


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks", description="This project beside its peers, as ratios.")
    parser.add_argument("--quick", action="store_true", help="a dialect in under a minute instead of ten")
    parser.add_argument(
        "--dialect", choices=(*DIALECTS, "all"), default="openai", help="whose plugin and SDK (default openai)"
    )
    names = ", ".join(measure.name for measure in MEASURES)
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help=f"measures: {names}")
    parser.add_argument("--out", type=Path, default=_HERE / "out", metavar="DIR", help="folder for the results")
    parser.add_argument("--layers", action="store_true", help="what each layer costs by itself, and nothing else")
    parser.add_argument("--check", action="store_true", help="exit with 1 unless every promise was measured and kept")
    parser.add_argument(
        "--python", type=_environment, action="append", default=[], metavar="ROW=PATH", help="another environment"
    )
    return parser.parse_args()


def main() -> int:
    """Measure and tell; the exit status is 0, or with --check 1 unless every promise was measured and kept."""
    arguments = _arguments()
    try:
        measures = chosen(arguments.only)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    if arguments.layers:
        return _layers(arguments)
    pace = Pace(**BENCH["quick" if arguments.quick else "full"])
    promises = read_promises(_HERE / "promises.toml")
    arguments.out.mkdir(parents=True, exist_ok=True)
    names = list(DIALECTS) if arguments.dialect == "all" else [arguments.dialect]
    kept = [_measure(DIALECTS[name], measures, pace, promises, arguments) for name in names]
    return 1 if arguments.check and not all(kept) else 0


def _layers(arguments: argparse.Namespace) -> int:
    text = table(rounds=5 if arguments.quick else 15)
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "layers.md").write_text(text + "\n", encoding="utf-8")
    print(text, flush=True)
    return 0


def _measure(
    dialect: Dialect,
    measures: tuple[Measure, ...],
    pace: Pace,
    promises: Sequence[Promise],
    arguments: argparse.Namespace,
) -> bool:
    """Measure one dialect and write its results; whether every promise was measured and kept."""
    found = run(dialect, measures, pace, dict(arguments.python), _say)
    # The first dialect's files have had these names before there were others.
    place = arguments.out / ("results" if dialect.name == "openai" else f"results-{dialect.name}")
    table = markdown(found, measures, promises)
    place.with_suffix(".md").write_text(table + "\n", encoding="utf-8")
    everything = json.dumps(as_json(found, measures, promises, pace), indent=1)
    place.with_suffix(".json").write_text(everything + "\n", encoding="utf-8")
    print(table, flush=True)
    try:
        draw(found, measures, promises, place.with_suffix(".png"))
    except ImportError:
        _say("no picture: matplotlib is not installed")
    return all(verdict.kept for verdict in verdicts(found, measures, promises))


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
