"""The statistics, audits, tables and figures: they read the run store and write reports."""
