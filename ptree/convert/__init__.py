"""In from other frameworks, out to other software: proof by numbers, exports.

This room stands on `files`, which writes weights, and on `look`, which knows the width of a terminal.
"""

from ._stablehlo.to_stablehlo import StableHlo as StableHlo  # what to_stablehlo wrote
from ._stablehlo.to_stablehlo import to_stablehlo as to_stablehlo  # a function for any process with JAX
from ._verify.comparison import Comparison as Comparison  # one value of the source beside ours
from ._verify.verification import Verification as Verification  # what verify found
from ._verify.verification import VerificationError as VerificationError  # the error of Verification.check
from ._verify.verify import verify as verify  # both functions on the same inputs
