"""The subcommands of `python -m keras_mixers`, one file each."""
