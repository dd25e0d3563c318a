//! Robustness evaluation: plan, run, records, tables, plots, report.
