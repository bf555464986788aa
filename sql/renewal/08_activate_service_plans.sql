-- Step 8: Pending -> Active; kind, start and end are fixed by the business date of activation.

-- name: fix_terms
-- A first plan starts no earlier than today. A renewal within grace keeps its planned start, where
-- the previous term ended (an order has a start of its own); after grace it is a reactivation, from
-- today and with a new anchor. Most plans keep what was planned, so only the others are written.
WITH fixed AS MATERIALIZED (
    SELECT p.service_plan_id, p.term_months, p.term_days, term.kind, starts.start_date,
           starts.anchor_date
    FROM prepaid.service_plans p
    LEFT JOIN prepaid.service_plans previous ON previous.service_plan_id = p.previous_plan_id
    CROSS JOIN LATERAL (SELECT greatest(p.planned_start, :as_of) AS on_date) earliest
    CROSS JOIN LATERAL (SELECT CASE
        WHEN previous.service_plan_id IS NULL THEN 'new'
        WHEN earliest.on_date <= previous.end_date
                               + prepaid.days_within_term(:grace_days, previous.term_days) THEN 'renewal'
        ELSE 'reactivation' END AS kind) term
    CROSS JOIN LATERAL (
        SELECT CASE term.kind WHEN 'renewal' THEN p.planned_start ELSE earliest.on_date END AS start_date,
               CASE term.kind WHEN 'renewal'
                   THEN prepaid.anchor_for(previous.anchor_date, p.planned_start)
                   ELSE earliest.on_date END AS anchor_date) starts
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
CROSS JOIN LATERAL (
    SELECT * FROM prepaid.service_plans o
    WHERE o.subscription_id = p.subscription_id AND o.service_plan_id <> p.service_plan_id
      AND o.status IN ('Active', 'Expired')
      AND daterange(o.start_date, o.end_date) && daterange(p.start_date, p.end_date) OFFSET 0) other
WHERE p.service_plan_id = ANY (:plans)
  AND p.status = 'Pending'
ORDER BY p.service_plan_id, other.start_date
ON CONFLICT (service_plan_id, reason_code) WHERE released_at IS NULL DO NOTHING;

-- name: activate
UPDATE prepaid.service_plans p
SET status = 'Active', activated_on = :as_of, activated_at = clock_timestamp()
WHERE p.service_plan_id = ANY (:plans)
  AND p.status = 'Pending'
  AND EXISTS (SELECT FROM prepaid.invoices i WHERE i.service_plan_id = p.service_plan_id
              AND i.status = 'Paid' OFFSET 0)
  AND NOT EXISTS (SELECT FROM prepaid.holds h WHERE h.service_plan_id = p.service_plan_id
                  AND h.released_at IS NULL OFFSET 0);
