"""Depth models, one file each; `load_model` finds one by name and imports it then.

The papers' networks are imported when first asked for: they bring PyTorch.
"""

import importlib
from typing import TYPE_CHECKING, Any

from hybriddepth_ros.models.base import (
    PRECISIONS,
    AlignedStack,
    DepthModel,
    FocusEstimate,
    RollingModel,
    RollingStack,
    SlicePlace,
    check_choice,
    check_device,
    load_model,
    model_names,
    precisions_of,
    rolling_model,
    takes_weights,
    usable_precision,
)
from hybriddepth_ros.models.engine_choice import AUTO, ENGINES
from hybriddepth_ros.models.prior import NO_PRIOR, PRIORS, DepthPrior, load_prior

if TYPE_CHECKING:
    from hybriddepth_ros.models.crossdepth import CrossAttentionFusion, CrossDepth
    from hybriddepth_ros.models.hybriddepth import HybridDepth
    from hybriddepth_ros.models.inference import for_inference

__all__ = [
    "AUTO",
    "ENGINES",
    "NO_PRIOR",
    "PRECISIONS",
    "PRIORS",
    "AlignedStack",
    "CrossAttentionFusion",
    "CrossDepth",
    "DepthModel",
    "DepthPrior",
    "FocusEstimate",
    "HybridDepth",
    "RollingModel",
    "RollingStack",
    "SlicePlace",
    "check_choice",
    "check_device",
    "for_inference",
    "load_model",
    "load_prior",
    "model_names",
    "precisions_of",
    "rolling_model",
    "takes_weights",
    "usable_precision",
]

_NETWORKS = {
    "HybridDepth": "hybriddepth",
    "CrossDepth": "crossdepth",
    "CrossAttentionFusion": "crossdepth",
    "for_inference": "inference",
}


def __getattr__(name: str) -> Any:
    if name not in _NETWORKS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_NETWORKS[name]}"), name)
