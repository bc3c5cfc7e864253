"""The scenario: what a federation shares, as a typed tree read from TOML."""
