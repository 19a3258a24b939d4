"""The processes that read or render what is trained on."""

from __future__ import annotations

import torch


def one_thread(worker: int) -> None:
    """For DataLoader: there are as many workers as cores are to be used."""
    torch.set_num_threads(1)
