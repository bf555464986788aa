-- What 'prepaid due' reads after steps 0-3 have run in a transaction that it then rolls back: the
-- figures are the pipeline's own, not a second calculation.

-- name: waiting
SELECT r.service_plan_id FROM prepaid.ready_to_invoice r
WHERE r.planned_start <= CAST(:as_of AS date) + prepaid.days_within_term(:lead_days, r.term_days)
ORDER BY r.service_plan_id;

-- name: totals
SELECT p.currency, p.kind, count(*) AS plans,
       sum(c.net) AS net, sum(c.tax) AS tax, sum(c.net + c.tax) AS total
FROM prepaid.service_plans p
JOIN (SELECT service_plan_id, sum(net) AS net, sum(tax) AS tax
      FROM prepaid.charges WHERE service_plan_id = ANY (:plans) GROUP BY service_plan_id) c
    USING (service_plan_id)
GROUP BY p.currency, p.kind ORDER BY p.currency, p.kind;

-- name: held
SELECT h.reason_code, count(*) AS plans, min(h.text) AS text
FROM prepaid.holds h
WHERE h.service_plan_id = ANY (:plans) AND h.released_at IS NULL
GROUP BY h.reason_code ORDER BY h.reason_code;
