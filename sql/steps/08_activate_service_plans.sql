-- Step 8: Pending -> Active; kind, start and end are fixed by the business date of activation.

-- name: hold_late_change
-- A change of plan is paid partly with days of the old term. Paid within grace, it starts as planned,
-- and the old term ends there; later, days that were credited have been used.
INSERT INTO prepaid.holds (service_plan_id, reason_code, text)
SELECT p.service_plan_id, 'change_paid_late', format(
    'Invoice %s credits the old term from %s on, but was paid after the days of grace: days that it '
    'credits were used. Releasing the hold gives them to the customer and starts the new term today. '
    'Or cancel the plan: the payment is refunded, and the change can be requested again.',
    i.invoice_number, p.planned_start)
FROM prepaid.service_plans p
CROSS JOIN LATERAL (SELECT invoice_number, credit FROM prepaid.invoices
                    WHERE service_plan_id = p.service_plan_id AND status = 'Paid' OFFSET 0) i
CROSS JOIN LATERAL (SELECT * FROM prepaid.service_plans
                    WHERE service_plan_id = p.previous_plan_id OFFSET 0) previous
WHERE p.service_plan_id = ANY (:plans) AND p.status = 'Pending' AND p.kind = 'change' AND i.credit > 0
  AND CAST(:as_of AS date) > p.planned_start + least(prepaid.days_within_term(:grace_days, p.term_days),
                                       prepaid.days_within_term(:grace_days, previous.term_days))
  AND NOT EXISTS (SELECT FROM prepaid.holds h WHERE h.service_plan_id = p.service_plan_id
                  AND h.reason_code = 'change_paid_late' OFFSET 0)
ON CONFLICT (service_plan_id, reason_code) WHERE released_at IS NULL DO NOTHING;

-- name: hold_unpaid_credit
-- Only days that were paid for can pay.
INSERT INTO prepaid.holds (service_plan_id, reason_code, text)
SELECT p.service_plan_id, 'credit_not_paid', format(
    'Invoice %s credits days of service plan %s, whose payment was reversed. Clear that up, then '
    'release the hold; or cancel the plan.', i.invoice_number, previous.service_plan_id)
FROM prepaid.service_plans p
CROSS JOIN LATERAL (SELECT invoice_number, credit FROM prepaid.invoices
                    WHERE service_plan_id = p.service_plan_id AND status = 'Paid' OFFSET 0) i
CROSS JOIN LATERAL (SELECT * FROM prepaid.service_plans
                    WHERE service_plan_id = p.previous_plan_id OFFSET 0) previous
WHERE p.service_plan_id = ANY (:plans) AND p.status = 'Pending' AND p.kind = 'change' AND i.credit > 0
  AND previous.origin = 'pipeline'
  AND NOT EXISTS (SELECT FROM prepaid.invoices WHERE service_plan_id = previous.service_plan_id
                  AND status = 'Paid' OFFSET 0)
ON CONFLICT (service_plan_id, reason_code) WHERE released_at IS NULL DO NOTHING;

-- name: hold_other_credit
-- Imported terms are taxed at the rates' table: whoever wrote another rate into it since, for the
-- invoice's day, has changed what the days are worth.
INSERT INTO prepaid.holds (service_plan_id, reason_code, text)
SELECT p.service_plan_id, 'credit_differs', format(
    'Invoice %s of %s credits %s %s for days of service plan %s; at the tax rates that are now known for '
    'that day it is %s. Put the rates right (import tax_rates.csv), then release the hold; or cancel the '
    'plan.', i.invoice_number, i.issued_on, i.credit, i.currency, previous.service_plan_id, present.credit)
FROM prepaid.service_plans p
CROSS JOIN LATERAL (SELECT * FROM prepaid.invoices
                    WHERE service_plan_id = p.service_plan_id AND status = 'Paid' OFFSET 0) i
JOIN prepaid.service_plans previous ON previous.service_plan_id = p.previous_plan_id
CROSS JOIN LATERAL (
    SELECT least(i.total, coalesce(sum(u.net + u.tax), 0)) AS credit
    FROM prepaid.unused_credit(previous.service_plan_id, p.planned_start, i.issued_on,
                               p.service_plan_id) u) present
WHERE p.service_plan_id = ANY (:plans) AND p.status = 'Pending' AND p.kind = 'change'
  AND previous.origin = 'imported' AND present.credit <> i.credit
ON CONFLICT (service_plan_id, reason_code) WHERE released_at IS NULL DO NOTHING;

-- name: fix_terms
-- A first plan starts no earlier than today. A renewal within grace keeps its planned start, where
-- the previous term ended (an order has a start of its own), and a change of plan the day it was asked
-- for; after grace a renewal is a reactivation, and both start today with a new anchor. Most plans
-- keep what was planned, so only the others are written.
WITH fixed AS MATERIALIZED (
    SELECT p.service_plan_id, p.term_months, p.term_days, term.kind, starts.start_date,
           starts.anchor_date
    FROM prepaid.service_plans p
    LEFT JOIN LATERAL (SELECT * FROM prepaid.service_plans
                       WHERE service_plan_id = p.previous_plan_id OFFSET 0) previous ON true
    CROSS JOIN LATERAL (SELECT greatest(p.planned_start, :as_of) AS on_date,
        previous.end_date + prepaid.days_within_term(:grace_days, previous.term_days) AS renewed_until,
        p.planned_start + least(prepaid.days_within_term(:grace_days, p.term_days),
            prepaid.days_within_term(:grace_days, previous.term_days)) AS changed_until) earliest
    CROSS JOIN LATERAL (SELECT CASE
        WHEN previous.service_plan_id IS NULL THEN 'new'
        WHEN p.kind = 'change' THEN 'change'
        WHEN earliest.on_date <= earliest.renewed_until THEN 'renewal'
        ELSE 'reactivation' END AS kind) term
    CROSS JOIN LATERAL (
        SELECT CASE WHEN term.kind = 'renewal'
                      OR term.kind = 'change' AND earliest.on_date <= earliest.changed_until
                    THEN p.planned_start ELSE earliest.on_date END AS start_date,
               CASE term.kind WHEN 'renewal'
                   THEN prepaid.anchor_for(previous.anchor_date, p.planned_start) END AS kept_anchor) s
    CROSS JOIN LATERAL (SELECT s.start_date, coalesce(s.kept_anchor, s.start_date) AS anchor_date) starts
    WHERE p.service_plan_id = ANY (:plans)
      AND p.status = 'Pending'
      AND (p.kind, p.start_date, p.anchor_date)
          IS DISTINCT FROM (term.kind, starts.start_date, starts.anchor_date)
)
UPDATE prepaid.service_plans p
SET kind = f.kind, start_date = f.start_date, anchor_date = f.anchor_date,
    end_date = prepaid.term_end(f.anchor_date, f.start_date, f.term_months, f.term_days)
FROM fixed f WHERE p.service_plan_id = f.service_plan_id;

-- name: hold_overlapping
INSERT INTO prepaid.holds (service_plan_id, reason_code, text)
SELECT DISTINCT ON (p.service_plan_id) p.service_plan_id, 'overlapping_term', format(
    'The term %s to %s would overlap term %s to %s (service plan %s) of the same subscription. '
    'Cancel one of them, then release the hold.',
    p.start_date, p.end_date, other.start_date, other.end_date, other.service_plan_id)
FROM prepaid.service_plans p
JOIN prepaid.service_plans other
    ON other.subscription_id = p.subscription_id AND other.service_plan_id <> p.service_plan_id
    AND other.activated_on IS NOT NULL
    -- What a change of plan replaces is cut below.
    AND NOT (p.kind = 'change' AND other.service_plan_id = p.previous_plan_id)
    AND daterange(other.start_date, other.end_date) && daterange(p.start_date, p.end_date)
WHERE p.service_plan_id = ANY (:plans)
  AND p.status = 'Pending'
ORDER BY p.service_plan_id, other.start_date
ON CONFLICT (service_plan_id, reason_code) WHERE released_at IS NULL DO NOTHING;

-- name: cut_changed_terms
WITH changed AS MATERIALIZED (
    SELECT p.previous_plan_id, p.start_date
    FROM prepaid.service_plans p
    WHERE p.service_plan_id = ANY (:plans) AND p.status = 'Pending' AND p.kind = 'change'
      AND EXISTS (SELECT FROM prepaid.invoices i WHERE i.service_plan_id = p.service_plan_id
                  AND i.status = 'Paid' OFFSET 0)
      AND NOT EXISTS (SELECT FROM prepaid.holds h WHERE h.service_plan_id = p.service_plan_id
                      AND h.released_at IS NULL OFFSET 0)
)
UPDATE prepaid.service_plans old
SET full_end_date = old.end_date, end_date = p.start_date
FROM changed p
WHERE old.service_plan_id = p.previous_plan_id AND old.end_date > p.start_date;

-- name: activate
UPDATE prepaid.service_plans p
SET status = 'Active', activated_on = :as_of, activated_at = clock_timestamp()
WHERE p.service_plan_id = ANY (:plans)
  AND p.status = 'Pending'
  AND EXISTS (SELECT FROM prepaid.invoices i WHERE i.service_plan_id = p.service_plan_id
              AND i.status = 'Paid' OFFSET 0)
  AND NOT EXISTS (SELECT FROM prepaid.holds h WHERE h.service_plan_id = p.service_plan_id
                  AND h.released_at IS NULL OFFSET 0);

-- name: credit_changed_terms
-- The days that the invoice was paid with, from the day of the change; what it did not need is paid
-- back. At the tax rates of the invoice's day, in the country and with the exemption that it was made
-- with, so that both say the same amount.
SELECT prepaid.issue_credit_note(p.previous_plan_id, p.planned_start, i.issued_on, 'change', NULL,
                                 i.invoice_id, i.credit, p.service_plan_id)
FROM prepaid.service_plans p
CROSS JOIN LATERAL (SELECT * FROM prepaid.invoices
                    WHERE service_plan_id = p.service_plan_id AND status = 'Paid' OFFSET 0) i
WHERE p.service_plan_id = ANY (:plans) AND p.status = 'Active' AND p.kind = 'change'
  AND NOT EXISTS (SELECT FROM prepaid.credit_notes n
                  WHERE n.service_plan_id = p.previous_plan_id OFFSET 0)
ORDER BY p.service_plan_id;
