"""Paths and patterns: strings only, no trees and no arrays."""

from .alternatives import unused_alternatives as unused_alternatives
from .alternatives import unused_in_words as unused_in_words
from .captures import choices as choices
from .captures import has_holes as has_holes
from .path_index import PathIndex as PathIndex
from .paths import DEEPEST as DEEPEST
from .paths import STACKED as STACKED
from .paths import in_order as in_order
from .paths import join as join
from .paths import natural as natural
from .paths import split as split
from .pattern_syntax import escape as escape
from .patterns import Pattern as Pattern
from .patterns import State as State
from .patterns import compile as compile
from .selector_parts import MaskPredicate as MaskPredicate
from .selector_parts import Part as Part
from .selector_parts import Predicate as Predicate
from .selector_parts import Selector as Selector
from .selector_parts import is_everything as is_everything
from .selector_parts import parse_selector as parse_selector
