-- Step 4: the invoice, with the next gapless number of its series and year.

-- name: start_series
INSERT INTO prepaid.invoice_series (series, year)
VALUES ('INV', extract(year FROM CAST(:as_of AS date)))
ON CONFLICT (series, year) DO NOTHING;

-- name: lock_series
-- A statement of its own: under READ COMMITTED the next one then sees every invoice that the
-- transaction which held this lock before us has numbered.
SELECT last_number FROM prepaid.invoice_series
WHERE series = 'INV' AND year = extract(year FROM CAST(:as_of AS date)) FOR UPDATE;

-- name: number_invoices
-- The counter moves by the rows inserted. Never ON CONFLICT DO NOTHING here: it would leave gaps.
WITH series AS (
    SELECT series, year, last_number FROM prepaid.invoice_series
    WHERE series = 'INV' AND year = extract(year FROM CAST(:as_of AS date))
), totals AS (
    SELECT p.service_plan_id, p.customer_id, p.currency, p.tax_exempt, p.tax_exempt_reason,
           charged.net, charged.tax,
           -- A change of plan pays with the days of the running term that it replaces.
           CASE p.kind WHEN 'change' THEN least(charged.net + charged.tax, (
               SELECT coalesce(sum(u.net + u.tax), 0)
               FROM prepaid.unused_credit(
                   p.previous_plan_id, p.planned_start, :as_of, p.service_plan_id) u))
           ELSE 0 END AS credit,
           row_number() OVER (ORDER BY p.service_plan_id) AS place
    FROM prepaid.service_plans p
    CROSS JOIN LATERAL (
        SELECT sum(ch.net) AS net, sum(ch.tax) AS tax FROM prepaid.charges ch
        WHERE ch.service_plan_id = p.service_plan_id AND ch.calculated_for = :as_of
        HAVING count(*) > 0
    ) charged
    WHERE p.service_plan_id = ANY (:plans) AND p.status = 'Processing'
      AND NOT EXISTS (SELECT FROM prepaid.invoices i WHERE i.service_plan_id = p.service_plan_id
                      AND i.status <> 'Void')
), numbered AS (
    INSERT INTO prepaid.invoices (invoice_number, service_plan_id, customer_id, currency,
                                  net, tax, total, status, tax_note, issued_on, credit)
    SELECT prepaid.invoice_number(s.series, s.year, s.last_number + t.place), t.service_plan_id,
           t.customer_id, t.currency, t.net, t.tax, t.net + t.tax, 'Open',
           CASE WHEN t.tax_exempt
                THEN coalesce(t.tax_exempt_reason, 'Tax-exempt customer: no tax charged') END, :as_of,
           t.credit
    FROM totals t CROSS JOIN series s
    ORDER BY t.place
    RETURNING invoice_id
)
UPDATE prepaid.invoice_series c SET last_number = c.last_number + (SELECT count(*) FROM numbered)
FROM series s WHERE c.series = s.series AND c.year = s.year;

-- name: copy_lines
-- Sorted, so that all is read before anything is written: a table that was vacuumed while it was
-- empty is read from end to end for each invoice, which costs nothing only as long as it is empty.
INSERT INTO prepaid.invoice_lines (invoice_id, line_number, description, net, tax_class, tax_rate, tax,
                                   quantity, unit_price, list_amount, discount, includes_tax)
SELECT i.invoice_id, ch.line_number, ch.description, ch.net, ch.tax_class, ch.tax_rate, ch.tax,
       ch.quantity, ch.unit_price, ch.list_amount, ch.discount, ch.includes_tax
FROM prepaid.invoices i
CROSS JOIN LATERAL (
    SELECT * FROM prepaid.charges WHERE service_plan_id = i.service_plan_id OFFSET 0) ch
WHERE i.service_plan_id = ANY (:plans) AND i.status = 'Open'
  AND NOT EXISTS (SELECT FROM prepaid.invoice_lines l WHERE l.invoice_id = i.invoice_id OFFSET 0)
ORDER BY i.invoice_id, ch.line_number;
