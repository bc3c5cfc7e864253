"""The tables of a site's settings and policy: `python -m fedrag.site.admin.site_reference clients/README.md`."""

from __future__ import annotations

from fedrag.config.reference import main
from fedrag.site.site_config import SiteConfig

MODULE = "fedrag.site.admin.site_reference"

if __name__ == "__main__":
    main(SiteConfig, MODULE)
