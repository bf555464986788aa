-- What the outside world does on one day of the demo. Which invoice has which fate hangs on its id
-- alone, so that every demo tells the same story.

-- name: deliver_records
-- Most customers pay at once. Of every 25 invoices one pays ten days late, one fails, one pays the
-- wrong amount, one is announced as pending first, and one never pays.
INSERT INTO prepaid.transactions
    (provider, provider_ref, invoice_number, amount, currency, status, occurred_at, customer_ref)
SELECT 'demo bank', 'pay-' || i.invoice_id, i.invoice_number,
       i.total + CASE fate WHEN 3 THEN 1 ELSE 0 END, i.currency, word.status,
       CAST(:as_of AS timestamp) + make_interval(hours => 8 + word.place), c.customer_ref
FROM prepaid.invoices i
JOIN prepaid.customers c USING (customer_id)
CROSS JOIN LATERAL (SELECT i.invoice_id % 25 AS fate) fates
CROSS JOIN LATERAL (
    SELECT 1 AS place, 'Pending' AS status WHERE fate = 4
    UNION ALL
    SELECT 2, CASE fate WHEN 2 THEN 'Failed' ELSE 'Success' END
) word
WHERE i.status = 'Open' AND i.total > 0 AND fate <> 5
  AND (fate <> 1 OR i.issued_on <= CAST(:as_of AS date) - 10)
  AND NOT EXISTS (SELECT FROM prepaid.transactions t WHERE t.invoice_number = i.invoice_number);

-- name: doubted
-- What the finance officer rejects at first although the record agrees.
SELECT task_id, service_plan_id FROM prepaid.payment_verifications v
WHERE v.status = 'Open' AND v.agrees AND v.task_id % 29 = 0 ORDER BY task_id LIMIT 2;

-- name: rejected
SELECT DISTINCT h.service_plan_id FROM prepaid.holds h
WHERE h.reason_code = 'payment_rejected' AND h.released_at IS NULL
ORDER BY h.service_plan_id LIMIT 1;

-- name: quality
-- One check in thirty fails; its follow-up passes on another day.
SELECT task_id, task_id % 30 <> 0 OR kind = 'quality_follow_up' AS passes
FROM prepaid.quality_checks
WHERE status = 'Open' AND opened_on < :as_of ORDER BY task_id;
