"""How trees and results show in notebooks: tables of HTML, and in treescope."""
