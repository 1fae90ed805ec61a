"""Metadata of scans, and text prompts that express them."""

from ctxrecon.metadata.dicom import from_dicom
from ctxrecon.metadata.headers import (
    from_fastmri_header,
    from_fastmri_row,
    plausible_metadata,
    read_fastmri_plus,
)
from ctxrecon.metadata.parsing import canonical_prompt, from_prompt, parse_prompt
from ctxrecon.metadata.scan_metadata import ScanMetadata

__all__ = [
    "ScanMetadata",
    "canonical_prompt",
    "from_dicom",
    "from_fastmri_header",
    "from_fastmri_row",
    "from_prompt",
    "parse_prompt",
    "plausible_metadata",
    "read_fastmri_plus",
]
