"""Applications: tasks such as summarization and translation. Each application is declared in a TOML file.

This module does not import torch. `groundup.apps.runner` runs applications with a model.
"""

from groundup.apps.catalog import Catalog, CatalogEntry, open_catalog
from groundup.apps.declaration import App
from groundup.apps.inputs import check_inputs

__all__ = ["App", "Catalog", "CatalogEntry", "check_inputs", "open_catalog"]
