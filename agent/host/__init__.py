"""The only code that touches the node: its files, programs, kernel modules, sysctls and units."""
