"""What people do with a model: applications, each declared in a file, none of them programmed.

The declarations are here without torch; `groundup.apps.running` lets a model work.
"""

from groundup.apps.catalogue import Catalogue, CatalogueEntry, open_catalogue
from groundup.apps.declaration import App
from groundup.apps.inputs import checked

__all__ = ["App", "Catalogue", "CatalogueEntry", "checked", "open_catalogue"]
