SELECT prepaid.seal_audit_log(CAST(:wait AS boolean));
