"""The ClientApp that a partner site runs."""

from fedrag.site.client_app import app as site_app

app = site_app  # Flower looks for an assignment, not an import
