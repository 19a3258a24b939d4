"""The `hybriddepth` command: assembles the subcommands; the one place where an error becomes an exit code.

0 = done, 1 = something essential is broken (`doctor`), 2 = the user's mistake, told in one line, 130 = Ctrl-C
"""

# The typer of Ubuntu 24.04 does not evaluate annotations, so they are not postponed (__future__) here.

import os
import sys
from collections.abc import Sequence
from typing import Annotated, cast

import typer

from hybriddepth_ros.commands.bench import bench
from hybriddepth_ros.commands.calibrate import calibrate
from hybriddepth_ros.commands.demo import demo
from hybriddepth_ros.commands.depth import depth
from hybriddepth_ros.commands.doctor import doctor
from hybriddepth_ros.commands.evaluate import evaluate
from hybriddepth_ros.commands.run import run
from hybriddepth_ros.commands.train import train
from hybriddepth_ros.commands.weights import weights
from hybriddepth_ros.errors import HybridDepthError
from hybriddepth_ros.shared_cores import share_cores

app = typer.Typer(
    name="hybriddepth",
    help="Metric depth with a per-pixel sigma from one camera whose focus moves.",
    epilog="Exit codes: 0 done, 2 a mistake in what was asked for (one line says which), 130 Ctrl-C.",
    add_completion=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (demo, run, depth, calibrate, evaluate, train, bench, doctor):
    app.command()(command)
app.add_typer(weights)

# Every mistake in the options derives from it. Ubuntu 24.04's typer has it from click, later ones their own.
_UsageError = cast("type[Exception]", typer.BadParameter.__mro__[2])


@app.callback(invoke_without_command=True)
def _no_command(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and leave.")] = False,
) -> None:
    if version:
        from hybriddepth_ros import __version__

        typer.echo(f"hybriddepth_ros {__version__}")
        raise typer.Exit()
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    share_cores()
    parser = typer.main.get_command(app)
    try:
        code = parser.main(
            args=list(sys.argv[1:] if arguments is None else arguments),
            prog_name="hybriddepth",
            standalone_mode=False,
        )
        return code if isinstance(code, int) else 0
    except HybridDepthError as error:
        return _refuse(str(error))
    except _UsageError as error:
        return _refuse(error.format_message())  # type: ignore[attr-defined]
    except (KeyboardInterrupt, typer.Abort):
        return 130
    except BrokenPipeError:  # `hybriddepth ... | head`: nobody reads on; Python must not complain at its exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _refuse(message: str) -> int:
    print("hybriddepth: " + " ".join(message.split()), file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
