"""Time of the papers' networks, made ready to run, against their plain schedule in the same run.

    .venv/bin/python benchmarks/networks.py                     # CPU, two threads, 480x640, five slices
    .venv/bin/python benchmarks/networks.py --device cuda
    .venv/bin/python benchmarks/networks.py --engines           # also in other engines, where installed

Rounds alternate between the candidates, so that a slow minute of the machine hits all of them; a figure is
the least of its rounds. Weights are those of the parity tests: times do not depend on them. The errors of
reduced precisions do, and stand for networks of random weights.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from measure import report
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from hybriddepth_ros.bench.networks import made_inputs, timed
from hybriddepth_ros.bench.plain_networks import plain
from hybriddepth_ros.bench.rows import processor
from hybriddepth_ros.models import CrossDepth, HybridDepth, for_inference
from tests.published_weights import make_weights

THREADS = 2
MODELS: dict[str, type[HybridDepth] | type[CrossDepth]] = {
    "hybriddepth": HybridDepth,
    "crossdepth": CrossDepth,
}


def main() -> None:
    """Print the table as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", choices=MODELS, default="hybriddepth")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--engines", action="store_true", help="also other engines; takes minutes")
    options = parser.parse_args()
    torch.set_num_threads(THREADS)
    on_gpu = options.device.startswith("cuda")
    network = made(MODELS[options.model])
    candidates: dict[str, Any] = {"plain": plain(network).to(options.device)}
    for precision in ("float32", "bfloat16", "float16") if on_gpu else ("float32", "int8"):
        candidates[precision] = for_inference(network, options.device, precision, "torch")
    if options.engines:
        candidates |= engines(network)
    inputs = made_inputs(options.device)
    with torch.inference_mode():
        times = least_times(candidates, inputs, options.rounds)
        rows = [
            {
                "name": f"{options.model} {name}",
                **{part: f"{1e3 * seconds:.0f} ms" for part, seconds in times[name].items()},
                "times faster": {part: round(times["plain"][part] / s, 2) for part, s in times[name].items()},
                **errors(candidates["plain"], candidate, inputs),
            }
            for name, candidate in candidates.items()
        ]
    device = torch.cuda.get_device_name(options.device) if on_gpu else f"{processor()}, {THREADS} threads"
    report([{"device": device, **row} for row in rows])


def least_times(
    candidates: dict[str, Any], inputs: tuple[Tensor, ...], rounds: int
) -> dict[str, dict[str, float]]:
    """Candidate -> part -> least wall time [s]."""
    works = {name: parts(network, inputs) for name, network in candidates.items()}
    least: dict[str, dict[str, float]] = {name: {} for name in works}
    for index in range(rounds + 1):
        for name, work in works.items():
            for part, call in work.items():
                seconds = timed(call, inputs[0].device)
                if index:  # the first round chooses algorithms and touches memory
                    least[name][part] = min(least[name].get(part, seconds), seconds)
    return least


def parts(network: Any, inputs: tuple[Tensor, ...]) -> dict[str, Callable[[], object]]:
    """What is timed: the model, and each of its parts by itself."""
    rgb, stack, focus = inputs
    if not isinstance(network, (HybridDepth, CrossDepth)):
        return {"whole": lambda: network(rgb, stack, focus)}
    maps = [1.0 + image for image in rgb.split(1, dim=1)]
    fusion = network.scale_refinement if isinstance(network, HybridDepth) else network.depth_fusion
    return {
        "whole": lambda: network(rgb, stack, focus),
        "relative_depth": lambda: network.relative_depth(rgb),
        "focal_volume": lambda: network.focal_volume(stack, focus),
        "fusion": lambda: fusion(*maps),
    }


def errors(reference: Any, network: Any, inputs: tuple[Tensor, ...]) -> dict[str, Any]:
    """Difference to the reference: median and 95 %, in percent of the value's standard deviation."""
    expected, found = reference(*inputs), network(*inputs)
    result = {}
    for name in ("relative", "focus_depth", "depth"):
        value = getattr(expected, name)
        percent = 100.0 * ((getattr(found, name) - value).abs() / value.std()).flatten()
        median, high = (float(percent.quantile(q)) for q in (0.5, 0.95))
        result[f"{name} error %"] = {"median": float(f"{median:.2g}"), "95 %": float(f"{high:.2g}")}
    return result


def engines(network: Any) -> dict[str, Callable[..., Any]]:
    """The exported file in other engines."""
    from hybriddepth_ros.models.onnx_export import to_onnx
    from hybriddepth_ros.models.weights_config import WeightsConfig

    kind = type(network).__name__.lower()
    found: dict[str, Callable[..., Any]] = {}
    config = WeightsConfig("made", kind, focus_unit="metres", depth_range=(0.02, 10.0), invert_depth=True)
    file = to_onnx(network, config).SerializeToString()
    names = ("rgb", "stack", "focus_distances")
    outputs = ("depth", "relative", "focus_depth", "focus_std")

    def answer(values: Iterable[Any]) -> SimpleNamespace:
        tensors = (torch.from_numpy(np.array(value)) for value in values)
        return SimpleNamespace(**dict(zip(outputs, tensors, strict=True)))

    if importlib.util.find_spec("onnxruntime"):
        import onnxruntime

        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = THREADS
        session = onnxruntime.InferenceSession(file, settings)
        found["ONNX Runtime"] = lambda *tensors: answer(
            session.run(None, {name: tensor.numpy() for name, tensor in zip(names, tensors, strict=True)})
        )
    if importlib.util.find_spec("openvino"):
        import openvino

        compiled = openvino.compile_model(
            openvino.Core().read_model(file), "CPU", {"INFERENCE_NUM_THREADS": THREADS}
        )
        found["OpenVINO"] = lambda *tensors: answer(compiled([tensor.numpy() for tensor in tensors]).values())
    return found


def made(kind: type[HybridDepth] | type[CrossDepth]) -> Any:
    """A network of drawn weights, in which every stage's results vary."""
    network = kind(invert_depth=True).eval()
    network.load_published(make_weights(network.published_layout().shapes))
    return network


if __name__ == "__main__":
    main()
