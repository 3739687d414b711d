"""Running things: studies, the run loop, ledger, seeds, executors, run store, registry, checks, CLI."""
