"""The command line: `hubbub`."""
