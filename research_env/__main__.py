"""`python -m research_env`: play an episode by hand, get data sets onto this machine, make and serve indexes.

python -m research_env play --env ReSearch-Synthetic-v0 --seed 3
python -m research_env play --env ReSearch-MuSiQue-v0 --env-kwargs '{"split": "dev", "top_k": 3}'
python -m research_env data add musique musique_ans_v1.0_dev.jsonl
python -m research_env index build --corpus wiki-18.jsonl.gz --to elasticsearch://localhost:9200/wiki-18
python -m research_env serve --corpus elasticsearch://localhost:9200/wiki-18
"""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Sequence

from research_env.cli import data, index, play, serve
from research_env.errors import ResearchError
from research_env.text import one_line


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        Exit status: 0; 2 for a failure the user can fix, printed as one line; 130 after Ctrl-C.
    """
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a passage may hold characters that the terminal cannot encode
            stream.reconfigure(errors="replace")
    try:
        parsed = _parser().parse_args(arguments)
        status: int = parsed.run(parsed)
    except ResearchError as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print()
        return 130
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m research_env", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    for command in (play, data, index, serve):  # the order of `--help`
        command.add_parser(verbs)
    return parser


if __name__ == "__main__":
    sys.exit(main())
