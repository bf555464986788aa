"""Statements as tests need them, made of their parts."""

NAMESPACE = "urn:iso:std:iso:20022:tech:xsd:camt.053.001.08"


def entry(
    ref: str = "R1",
    amount: str = "10.00",
    currency: str = "EUR",
    direction: str = "CRDT",
    status: str = "BOOK",
    day: str = "2026-11-03",
    text: str = "",
    more: str = "",
) -> str:
    """One entry with one payment; ``more`` stands behind its CdtDbtInd."""
    return (
        f'<Ntry><Amt Ccy="{currency}">{amount}</Amt><CdtDbtInd>{direction}</CdtDbtInd>{more}'
        f"<Sts><Cd>{status}</Cd></Sts><BookgDt><Dt>{day}</Dt></BookgDt>"
        f"<AcctSvcrRef>{ref}</AcctSvcrRef>"
        f"<NtryDtls><TxDtls><RmtInf><Ustrd>{text}</Ustrd></RmtInf></TxDtls></NtryDtls></Ntry>"
    )


def statement(
    *entries: str,
    namespace: str = NAMESPACE,
    account: str = "DE02",
    prolog: str = "",
    message: str = "BkToCstmrStmt",
) -> str:
    """A whole file; ``prolog`` stands before its root element."""
    return (
        f'<?xml version="1.0" encoding="UTF-8"?>{prolog}\n<Document xmlns="{namespace}">'
        f"<{message}><Stmt><Id>S</Id><Acct><Id><IBAN>{account}</IBAN></Id></Acct>\n"
        + "\n".join(entries)
        + f"\n</Stmt></{message}></Document>\n"
    )
