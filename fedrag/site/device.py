"""What a site's models run on."""

from __future__ import annotations

import os
from collections.abc import MutableMapping

from fedrag.site.site_config import SiteConfig


def choose_device(config: SiteConfig, environment: MutableMapping[str, str] = os.environ) -> None:
    """Keep models off the GPU where the site says so; to be called before one is loaded."""
    if config.device == "cpu":
        environment["CUDA_VISIBLE_DEVICES"] = ""
