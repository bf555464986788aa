-- Every credit note is the sum of its lines, and none credits more than was invoiced.
SELECT format('credit note %s: net %s and tax %s, its lines %s and %s', n.credit_note_number, n.net,
              n.tax, coalesce(l.net::text, 'nothing'), coalesce(l.tax::text, 'nothing')) AS finding
FROM prepaid.credit_notes n
LEFT JOIN (SELECT credit_note_id, sum(net) AS net, sum(tax) AS tax
           FROM prepaid.credit_note_lines GROUP BY credit_note_id) l USING (credit_note_id)
WHERE (l.net, l.tax) IS DISTINCT FROM (n.net, n.tax)
UNION ALL
SELECT format('credit note %s over net %s and tax %s is for invoice %s, which has %s and %s',
              n.credit_note_number, n.net, n.tax, i.invoice_number, i.net, i.tax)
FROM prepaid.credit_notes n JOIN prepaid.invoices i USING (invoice_id)
WHERE n.net > i.net OR n.tax > i.tax;
