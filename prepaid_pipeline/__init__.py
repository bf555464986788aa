"""Prepaid service plans from renewal to monthly revenue report.

What belongs here is the process; partitioned assets live in ``assets``, sensors in ``sensors``.
"""
