"""The commands of `invdiff`, one file each: `run(name, args)` returns an exit code."""
