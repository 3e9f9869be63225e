"""What differs between two trees or files: leaves in pairs, how much they changed, renamed, tied, as text and data."""
