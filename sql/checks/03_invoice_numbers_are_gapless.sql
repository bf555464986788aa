-- Invoice numbers are gapless per series and year.
SELECT format('series %s %s: the counter says %s, there are %s invoices, the highest number is %s',
              s.series, s.year, s.last_number, count(i.*), max(n.number)) AS finding
FROM prepaid.invoice_series s
LEFT JOIN prepaid.invoices i ON i.invoice_number LIKE s.series || '-' || s.year || '-%'
LEFT JOIN LATERAL (SELECT CAST(split_part(i.invoice_number, '-', 3) AS bigint) AS number) n ON true
GROUP BY s.series, s.year
HAVING count(i.*) <> s.last_number OR coalesce(max(n.number), 0) <> s.last_number
ORDER BY s.series, s.year;
