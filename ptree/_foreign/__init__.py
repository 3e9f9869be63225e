"""Files of other frameworks as named arrays: read and written with NumPy alone, without the framework and without JAX."""

from .foreign_file import ForeignArray as ForeignArray
from .foreign_file import ForeignFile as ForeignFile
from .formats import open_foreign as open_foreign
