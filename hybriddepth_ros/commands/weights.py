"""`hybriddepth weights`: import, fetch, list, verify and export the weights of the papers' networks."""

# ruff: noqa: UP045
# The typer of Ubuntu 24.04 knows neither `X | None` nor annotations that are not evaluated (__future__).

import sys
import time
from pathlib import Path
from typing import Annotated, Optional

import typer

from hybriddepth_ros.commands.stopping import StopRequest
from hybriddepth_ros.errors import OutputError, WeightsError
from hybriddepth_ros.models.download import Progress

weights = typer.Typer(
    name="weights",
    help="Weights of the papers' networks: import a checkpoint, fetch published ones, list, verify, export.",
    add_completion=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    no_args_is_help=False,
)

_FolderOption = typer.Option(
    "--folder",
    help="Weights folder.  [default: $HYBRIDDEPTH_WEIGHTS, else ~/.cache/hybriddepth_ros/weights]",
)
_ReplaceOption = typer.Option("--replace", help="Replace weights of this name that are installed already.")


@weights.command("import")
def import_(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE", help="A published Lightning checkpoint, a state dict, or a safetensors file."
        ),
    ],
    name: Annotated[
        Optional[str],
        typer.Option(
            "--name",
            help="Name to install it under.  [default: the published name if it is recognised, else the stem "
            "of the file's]",
        ),
    ] = None,
    model: Annotated[
        Optional[str],
        typer.Option("--model", help="hybriddepth, crossdepth or depth_anything.  [default: found out]"),
    ] = None,
    focus_unit: Annotated[
        Optional[str],
        typer.Option(
            "--focus-unit",
            help="Unit of its focus distances: metres, disparity or diopters; Depth Anything has none.  "
            "[default: by its file name]",
        ),
    ] = None,
    invert_depth: Annotated[
        Optional[bool],
        typer.Option(
            "--invert-depth/--no-invert-depth",
            help="Whether the prior is inverted before it is aligned.  [default: with metres only]",
        ),
    ] = None,
    variant: Annotated[
        Optional[str],
        typer.Option(
            "--variant", help="Which Depth Anything: v1-small ... v2-large.  [default: by the name]"
        ),
    ] = None,
    folder: Annotated[Optional[Path], _FolderOption] = None,
    replace: Annotated[bool, _ReplaceOption] = False,
) -> int:
    """Turn a checkpoint into weights that `--model hybriddepth` finds: tensors as safetensors, and a config.

    Code in the file is never run.
    """
    from hybriddepth_ros.models.weights_config import weights_folder
    from hybriddepth_ros.models.weights_import import import_checkpoint

    config = import_checkpoint(
        file, name, model, focus_unit, invert_depth, variant, folder, replace_existing=replace
    )
    unit = f", focus in {config.focus_unit}" if config.focus_unit else ""
    print(f"imported    {config.name}: {config.model}{unit}, licence {config.licence}")
    print(f"written     {weights_folder(folder) / config.name}.safetensors and .yaml")
    return 0


@weights.command("fetch")
def fetch_(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="One of those that `weights list` calls fetchable.")
    ],
    folder: Annotated[Optional[Path], _FolderOption] = None,
    replace: Annotated[bool, _ReplaceOption] = False,
) -> int:
    """Download weights that their authors publish, check their SHA-256 and install them."""
    from hybriddepth_ros.models.download import address_of
    from hybriddepth_ros.models.weights_config import weights_folder
    from hybriddepth_ros.models.weights_fetch import fetch, is_installed, published_entry
    from hybriddepth_ros.models.weights_record import known_hashes

    published = published_entry(name)
    print(f"licence     {published.terms}")
    if is_installed(published, folder) and not replace:
        config = fetch(name, folder)
        print(f"whole       {config.name} in {weights_folder(folder)}; --replace fetches it anew")
        return 0
    print(f"address     {address_of(published)}")
    first = published.name not in known_hashes(folder)
    sys.stdout.flush()
    stop = StopRequest()
    try:
        with stop.interrupting():  # SIGTERM as well: nothing is left half-done
            config = fetch(name, folder, progress=_progress(), replace_existing=replace)
    except KeyboardInterrupt:
        return stop.exit_code
    hashed = "recorded, to be checked from now on" if first else "as it must be"
    print(f"SHA-256     {config.source_sha256} ({hashed})")
    print(f"installed   {config.name} in {weights_folder(folder)}")
    return 0


@weights.command("list")
def list_(folder: Annotated[Optional[Path], _FolderOption] = None) -> int:
    """What is installed, and what can be fetched."""
    from hybriddepth_ros.models.weights import list_weights
    from hybriddepth_ros.models.weights_catalogue import CATALOGUE
    from hybriddepth_ros.models.weights_config import weights_folder

    installed = list_weights(folder)
    width = max(map(len, [*CATALOGUE, *(config.name for config in installed)]))
    print(f"installed in {weights_folder(folder)}:{'' if installed else ' none'}")
    for config in installed:
        of = config.variant if config.model == "depth_anything" else f"focus in {config.focus_unit}"
        sigma = "" if config.calibrated or config.model == "depth_anything" else ", sigma not calibrated"
        print(f"  {config.name:<{width}}  {config.model}, {of}{sigma}, licence {config.licence}")
    print("fetchable (`hybriddepth weights fetch NAME`):")
    for entry in CATALOGUE.values():
        if entry.name not in {config.name for config in installed}:
            print(f"  {entry.name:<{width}}  {entry.settings['model']}, licence {entry.terms}")
    return 0


@weights.command("verify")
def verify_(
    name: Annotated[
        Optional[str], typer.Argument(metavar="NAME", help="Installed weights.  [default: all]")
    ] = None,
    folder: Annotated[Optional[Path], _FolderOption] = None,
) -> int:
    """Check installed weights: config, SHA-256, and that the network takes every tensor."""
    from hybriddepth_ros.models.weights import installed_names, verify
    from hybriddepth_ros.models.weights_config import weights_folder

    names = [name] if name else installed_names(folder)
    if not names:
        print(f"no weights are installed in {weights_folder(folder)}")
    damaged = []
    for each in names:
        try:
            config = verify(each, folder)
        except WeightsError as error:
            damaged.append(str(error))
        else:
            print(f"whole       {each}: {config.model}, SHA-256 {config.sha256}")
    if damaged:
        raise WeightsError("; ".join(damaged))
    return 0


@weights.command("export")
def export_(
    name_or_file: Annotated[
        str,
        typer.Argument(
            metavar="NAME_OR_FILE", help="Installed weights, or a published file by its own name."
        ),
    ],
    format_: Annotated[str, typer.Option("--format", help="onnx, the only one there is.")] = "onnx",
    out: Annotated[
        Optional[Path], typer.Option("--out", help="File to write.  [default: NAME.onnx in this folder]")
    ] = None,
    folder: Annotated[Optional[Path], _FolderOption] = None,
) -> int:
    """Write a network with its weights as one ONNX file, for any image size and number of slices."""
    from hybriddepth_ros.commands.output import OutputFolder
    from hybriddepth_ros.models.engines import OPSET
    from hybriddepth_ros.models.onnx_export import require_onnx, to_onnx
    from hybriddepth_ros.models.weights import build_network, load_weights

    if format_ != "onnx":
        raise OutputError(f"--format {format_}: expected onnx")
    require_onnx()
    file = out or Path(f"{Path(name_or_file).stem if Path(name_or_file).is_file() else name_or_file}.onnx")
    if file.is_dir():
        raise OutputError(f"--out {file}: expected a file, found a folder")
    with OutputFolder(file.parent, (file.name,)) as target:
        config, tensors = load_weights(name_or_file, None, folder)
        network = build_network(config)
        network.load_published(tensors)
        print(f"exporting   {config.name}: {config.model}, licence {config.licence}; half a minute or so")
        sys.stdout.flush()
        model = to_onnx(network, config)
        size = model.ByteSize()
        target.write_bytes(file.name, model.SerializeToString())
    inputs, outputs = (
        ", ".join(value.name for value in values) for values in (model.graph.input, model.graph.output)
    )
    print(f"written     {file}, {size / 1e6:.0f} MB, ONNX opset {OPSET}")
    print(f"run it      onnxruntime.InferenceSession({str(file)!r}): {inputs} in, {outputs} out")
    print(
        "            docs/published_models.md, Export, says what they are; the file's metadata, in which unit"
    )
    return 0


def _progress() -> Progress | None:
    """A line that counts up on a terminal; nothing in a log file."""
    if not sys.stderr.isatty():
        return None
    shown = [0.0]

    def show(size: int, announced: int) -> None:
        now = time.monotonic()
        whole = announced and size >= announced
        if now - shown[0] < 0.2 and not whole:
            return
        shown[0] = now
        of = f" of {announced / 1e6:.0f}" if announced else ""
        print(f"\r{size / 1e6:.0f}{of} MB", end="\n" if whole else "", file=sys.stderr, flush=True)

    return show
