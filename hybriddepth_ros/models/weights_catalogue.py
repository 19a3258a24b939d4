"""The weights that their authors publish: where, under which licence, and what is known of each file.

A SHA-256 stands here only where the publisher states it (the hub does, for each file of a revision). The
files of the HybridDepth release come without: theirs is recorded at the first fetch and checked ever after.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

GPL = "GPL-3.0"
APACHE = "Apache-2.0"
NON_COMMERCIAL = "CC-BY-NC-4.0"

# DDFF12: disparity [px on its light field] = baseline [m] * focal length [px] / depth [m].
DDFF12_DISPARITY_METRES = 1982.0250823695178 / 7317.020641763665 * 1e-3 * 521.4052


@dataclass(frozen=True)
class Published:
    """One published file.

    url: its own address. repository and revision (a commit): on the hub, "" for a file that is elsewhere.
    settings: fields of WeightsConfig. sha256: as the publisher states it, "" where that is not known here.
    """

    name: str
    file: str
    url: str
    licence: str
    settings: dict[str, Any]
    repository: str = ""
    revision: str = ""
    sha256: str = ""
    note: str = ""

    @property
    def terms(self) -> str:
        """The licence in one line, with what it means where that is easily overlooked."""
        if self.licence == NON_COMMERCIAL:
            return f"{self.licence}: NON-COMMERCIAL use only"
        return f"{self.licence}{f' ({self.note})' if self.note else ''}"


_RELEASE = "https://github.com/cake-lab/HybridDepth/releases/download/v2.0"
_METRES = {
    "model": "hybriddepth",
    "focus_unit": "metres",
    "slice_order": "rising",
    "depth_range": (0.02, 10.0),
    "invert_depth": True,
}
_DDFF12 = {
    "model": "hybriddepth",
    "focus_unit": "disparity",
    "disparity_metres": DDFF12_DISPARITY_METRES,
    "slice_order": "falling",
    "depth_range": (0.02, 0.28),
    "invert_depth": False,
}
_PHONE = {
    "model": "hybriddepth",
    "focus_unit": "diopters",
    "slice_order": "rising",
    "depth_range": (0.02, 10.0),
    "invert_depth": False,
    "rgb_normalisation": "imagenet",
}


_HYBRIDDEPTH = (  # name, file, settings
    ("hybriddepth-nyu5", "NYUBest5-DFV-Trained.ckpt", _METRES),
    ("hybriddepth-nyu10", "NYUBest10-DFV-Trained.ckpt", _METRES),
    ("hybriddepth-ddff5", "DDFF12.ckpt", _DDFF12),
    ("hybriddepth-nyu-pretraineddfv5", "NyuBest5.ckpt", _METRES),
)
_DEPTH_ANYTHING = (  # variant, repository, file, licence, commit, SHA-256
    (
        "v1-small",
        "LiheYoung/depth_anything_vits14",
        "pytorch_model.bin",
        APACHE,
        "96bbf3ca02cd0c608aceebd01262af096f599060",
        "ba0ab5365610467de4fea1ffe64b4ae3a756561a4df9e11bd7369205241f2082",
    ),
    (
        "v1-base",
        "LiheYoung/depth_anything_vitb14",
        "pytorch_model.bin",
        APACHE,
        "f4eafd732ad56080852668172079c415a5fecdb6",
        "d25d4cf2b50e63198c42e684abb10b9d242714cec0fe3e2eb8f7da41fada25b3",
    ),
    (
        "v1-large",
        "LiheYoung/depth_anything_vitl14",
        "pytorch_model.bin",
        APACHE,
        "71ac8a8f2a3111448328dce9f879f8b7864b5f2a",
        "6fda5199f0043e91e1c6117df00313db57c630d8ed0306070b43da1ecfffbd9d",
    ),
    (
        "v2-small",
        "depth-anything/Depth-Anything-V2-Small",
        "depth_anything_v2_vits.pth",
        APACHE,
        "65ae6e3ee054faf5f2a0b3d079fbf181aaad86a0",
        "715fade13be8f229f8a70cc02066f656f2423a59effd0579197bbf57860e1378",
    ),
    (
        "v2-base",
        "depth-anything/Depth-Anything-V2-Base",
        "depth_anything_v2_vitb.pth",
        NON_COMMERCIAL,
        "f11825d6a03793a70dfb594c89a0e990986de230",
        "0d2b7002e62d39d655571c371333340bd88f67ab95050c03591555aa05645328",
    ),
    (
        "v2-large",
        "depth-anything/Depth-Anything-V2-Large",
        "depth_anything_v2_vitl.pth",
        NON_COMMERCIAL,
        "129f0ac32e2ce7c16f945b2c62bac6e09dd6cb87",
        "",
    ),
)
_V1_NOTE = "the project's; the hub's page names none"

_ENTRIES = (
    *(Published(name, file, f"{_RELEASE}/{file}", GPL, settings) for name, file, settings in _HYBRIDDEPTH),
    *(
        Published(
            f"depth-anything-{variant}",
            file,
            f"https://huggingface.co/{repository}/resolve/{commit}/{file}",
            licence,
            {"model": "depth_anything", "variant": variant},
            repository,
            commit,
            sha256,
            _V1_NOTE if variant.startswith("v1-") else "",
        )
        for variant, repository, file, licence, commit, sha256 in _DEPTH_ANYTHING
    ),
)
CATALOGUE = {entry.name: entry for entry in _ENTRIES}

# Files that are known by name alone: mentioned in a configuration of the authors, in no release.
_UNRELEASED = (Published("hybriddepth-phone10", "NyuBest10.ckpt", "", GPL, _PHONE),)


def by_name(name: str) -> Published | None:
    """An entry by its name; case and underscores do not matter, as the authors write HybridDepth_NYU5."""
    return CATALOGUE.get(name.lower().replace("_", "-"))


def by_file(file: str) -> Published | None:
    """What the name of a published file says; None where it says nothing, or several files bear it."""
    found = [entry for entry in (*_ENTRIES, *_UNRELEASED) if entry.file.lower() == file.lower()]
    return found[0] if len(found) == 1 else None
