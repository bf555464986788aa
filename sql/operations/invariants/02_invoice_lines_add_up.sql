-- Every invoice's lines add up to its net and its tax.
SELECT format('invoice %s: net %s and tax %s, its lines %s and %s', i.invoice_number, i.net, i.tax,
              coalesce(l.net::text, 'nothing'), coalesce(l.tax::text, 'nothing')) AS finding
FROM prepaid.invoices i
LEFT JOIN (SELECT invoice_id, sum(net) AS net, sum(tax) AS tax
           FROM prepaid.invoice_lines GROUP BY invoice_id) l USING (invoice_id)
WHERE (l.net, l.tax) IS DISTINCT FROM (i.net, i.tax)
ORDER BY i.invoice_id;
