"""Looking at parameters: the summary."""

from ._summary import Row as Row
from ._summary import Summary as Summary
from ._summary import summary as summary
