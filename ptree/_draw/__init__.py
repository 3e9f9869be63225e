"""Draw parameters: Param and init, PRNG keys by path."""

from .init import abstract as abstract
from .init import declared_jobs as declared_jobs
from .init import init as init
from .init import reinit as reinit
from .keys import child_key as child_key
from .keys import keys as keys
from .param import Param as Param
