"""Command line of the library: `python -m culture_core <command>`."""

import argparse
import importlib
import io
import json
import logging
import signal
import sys
from collections.abc import Sequence

from .commands import COMMANDS
from .commands.common import UsageError

log = logging.getLogger("culture_core")

EXIT_CODES = (
    "exit codes: 0 done, 1 could not be done (the reason is on stderr), 2 wrong usage, 130 interrupted"
)
_CTRL_C = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    name = _overview().parse_args(arguments[:1]).command
    command = importlib.import_module(f".commands.{name.replace('-', '_')}", __package__)
    parser = argparse.ArgumentParser(
        prog=f"python -m culture_core {name}", description=command.__doc__, epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    command.add_arguments(parser)
    parser.add_argument("--json", action="store_true", help="print the result as JSON, for machines")
    options = parser.parse_args(arguments[1:])
    try:
        result = command.run(options)
        text = json.dumps(result, indent=1, allow_nan=False) if options.json else command.describe(result)
    except KeyboardInterrupt:
        log.error("Interrupted.")
        return _CTRL_C
    except UsageError as error:
        parser.error(str(error))
    except (OSError, ValueError) as error:  # what the library raises for what a user can mend
        log.error("%s", error)
        return 1
    print(text)
    return int(bool(result.get("failed")))


def _overview() -> argparse.ArgumentParser:
    width = max(map(len, COMMANDS))
    listed = "\n".join(f"  {name:{width}}  {what}" for name, what in COMMANDS.items())
    parser = argparse.ArgumentParser(
        prog="python -m culture_core",
        description=f"{__doc__}\n\ncommands:\n{listed}\n\nEach has a --help of its own.",
        formatter_class=argparse.RawDescriptionHelpFormatter, epilog=EXIT_CODES,
    )  # fmt: skip
    parser.add_argument("command", choices=COMMANDS, metavar="<command>", help="one of the above")
    return parser


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # `kill` is heard as Ctrl-C is
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal may not have all letters of all languages
    sys.exit(main())
