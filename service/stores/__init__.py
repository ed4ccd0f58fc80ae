"""What outlives a request: live windows, verdicts, overrides, promotions and the audit."""
