-- Every payment record that was judged has one outcome; what is parked has a finance task, what is matched belongs to one invoice or credit note.
SELECT format('record %s of %s is %s%s', left(t.provider_ref, 100), t.provider, t.outcome, wrong.how) AS finding
FROM prepaid.transactions t
CROSS JOIN LATERAL (SELECT CASE
    WHEN t.outcome NOT IN ('matched', 'parked', 'superseded', 'waiting') THEN ''
    WHEN t.outcome = 'parked' AND NOT EXISTS (
        SELECT FROM prepaid.tasks k WHERE k.transaction_id = t.transaction_id
          AND k.kind = 'payment_review' AND k.status <> 'Withdrawn') THEN ' without a task'
    WHEN t.outcome <> 'parked' AND EXISTS (
        SELECT FROM prepaid.tasks k WHERE k.transaction_id = t.transaction_id
          AND k.kind = 'payment_review' AND k.status = 'Open') THEN ' and finance is still asked about it'
    WHEN t.outcome = 'matched' AND (t.invoice_id IS NULL) = (t.credit_note_id IS NULL)
        THEN ' to no invoice and no credit note'
    WHEN t.outcome = 'matched' AND EXISTS (
        SELECT FROM prepaid.transactions o
        WHERE o.outcome = 'matched' AND o.transaction_id <> t.transaction_id
          AND t.credit_note_id IS NULL AND o.credit_note_id IS NULL
          AND hashtextextended(o.provider_ref, 0) = hashtextextended(t.provider_ref, 0)
          AND o.provider_ref <> '' AND o.provider <> ''
          AND (o.provider, o.provider_ref) = (t.provider, t.provider_ref))
        THEN ', and so is another record of the same payment'
    END AS how) wrong
WHERE wrong.how IS NOT NULL
ORDER BY t.transaction_id;
