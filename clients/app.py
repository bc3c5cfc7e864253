"""The ClientApp that a partner site runs."""

from fedrag.site.app import app as app
