"""What people do with a model: applications, each declared in a file, none of them programmed.

The declarations are here without torch; `groundup.apps.runner` lets a model work.
"""

from groundup.apps.catalog import Catalog, CatalogEntry, open_catalog
from groundup.apps.declaration import App
from groundup.apps.inputs import check_inputs

__all__ = ["App", "Catalog", "CatalogEntry", "check_inputs", "open_catalog"]
