"""Evaluation of reconstruction methods: grids of cases, resumable rows, and summaries."""

from __future__ import annotations

from ctxrecon.evaluation.grid import Grid, Method, Undersampling
from ctxrecon.evaluation.methods import (
    baseline_method,
    network_method,
    solver_and_call,
    solver_methods,
)
from ctxrecon.evaluation.operators import OPERATORS, SimulatedOperator, operator_acquisition
from ctxrecon.evaluation.record import fingerprint, hardware, write_record
from ctxrecon.evaluation.report import write_report
from ctxrecon.evaluation.rows import (
    Row,
    RowFolder,
    append_rows,
    check_settings,
    open_rows,
    read_rows,
)
from ctxrecon.evaluation.runner import run_grid
from ctxrecon.evaluation.scans import ScanFile, Slice, find_scans
from ctxrecon.evaluation.tables import summary, table, with_error

__all__ = [
    "OPERATORS",
    "Grid",
    "Method",
    "Row",
    "RowFolder",
    "ScanFile",
    "SimulatedOperator",
    "Slice",
    "Undersampling",
    "append_rows",
    "baseline_method",
    "check_settings",
    "find_scans",
    "fingerprint",
    "hardware",
    "network_method",
    "open_rows",
    "operator_acquisition",
    "read_rows",
    "run_grid",
    "solver_and_call",
    "solver_methods",
    "summary",
    "table",
    "with_error",
    "write_record",
    "write_report",
]
