-- Invoice numbers are gapless per series and year.
WITH used AS (
    SELECT split_part(invoice_number, '-', 1) AS series,
           CAST(split_part(invoice_number, '-', 2) AS integer) AS year, count(*) AS invoices,
           min(CAST(split_part(invoice_number, '-', 3) AS bigint)) AS first,
           max(CAST(split_part(invoice_number, '-', 3) AS bigint)) AS last
    FROM prepaid.invoices GROUP BY 1, 2
)
SELECT format('series %s %s: %s, there are %s invoices with numbers from %s to %s', series, year,
              coalesce('the counter says ' || s.last_number, 'there is no counter'),
              coalesce(u.invoices, 0), coalesce(u.first, 0), coalesce(u.last, 0)) AS finding
FROM prepaid.invoice_series s FULL JOIN used u USING (series, year)
WHERE s.last_number IS DISTINCT FROM coalesce(u.invoices, 0)
   OR s.last_number <> coalesce(u.last, 0) OR u.first <> 1
ORDER BY series, year;
