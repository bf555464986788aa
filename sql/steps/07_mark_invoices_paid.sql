-- Step 7: Open -> Paid, with the last record that paid it. A trigger refuses it without the matched record
-- and the approval. What a change has cut off a term that was not paid then is credited now.

-- name: lock_approvals
-- A rejection or another act at this very moment is waited for here (the tasks are locked, in the order in
-- which people's decisions lock them), and the next statement sees it: the plan is then not paid, instead of
-- failing this step. Who had a hand in it is no approver, whatever came first; finance is asked again.
SELECT prepaid.withdraw_own_approvals(CAST(:plans AS bigint[]));

-- name: mark_paid
-- Between step 6 and now the record may have been taken back: only what still fits is paid.
WITH paid AS MATERIALIZED (
    SELECT i.invoice_id, t.transaction_id
    FROM prepaid.invoices i
    CROSS JOIN LATERAL (
        SELECT (array_agg(m.transaction_id ORDER BY m.occurred_at DESC NULLS LAST, m.transaction_id DESC))[1]
                   AS transaction_id,
               bool_and(m.status = 'Success' AND m.currency = i.currency)
               AND (sum(m.amount) = i.payable
                    OR sum(m.amount) > i.payable AND bool_and(m.assigned_by IS NOT NULL)) AS fits
        FROM prepaid.transactions m
        WHERE m.invoice_id = i.invoice_id AND m.outcome = 'matched') t
    WHERE i.service_plan_id = ANY (:plans) AND i.status = 'Open'
      AND (i.payable = 0 OR t.fits AND EXISTS (
          SELECT FROM prepaid.tasks k
          WHERE k.invoice_id = i.invoice_id AND k.kind = 'payment_verification'
            AND k.status <> 'Withdrawn' AND k.decision = 'approved'))
)
UPDATE prepaid.invoices i
SET status = 'Paid', paid_on = :as_of, transaction_id = paid.transaction_id
FROM paid WHERE i.invoice_id = paid.invoice_id AND i.status = 'Open';

-- name: credit_cut_terms
-- A change has cut the term while its payment was taken back, so that no day of it could be credited.
-- Now it is paid after all, in full: what was cut off is paid back.
SELECT prepaid.issue_credit_note(p.service_plan_id, p.end_date, :as_of, 'change', NULL)
FROM prepaid.service_plans p
WHERE p.service_plan_id = ANY (:plans) AND p.full_end_date IS NOT NULL
  AND p.status IN ('Active', 'Expired')
  AND EXISTS (SELECT FROM prepaid.invoices i WHERE i.service_plan_id = p.service_plan_id
              AND i.status = 'Paid' OFFSET 0)
  AND NOT EXISTS (SELECT FROM prepaid.credit_notes n
                  WHERE n.service_plan_id = p.service_plan_id OFFSET 0)
ORDER BY p.service_plan_id;
